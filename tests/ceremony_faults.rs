//! Ceremonies at a service that is killed, whose disk is full, or into which somebody looks.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "ceremony_faults/disk.rs"]
mod disk;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;
#[path = "ceremony_faults/kills.rs"]
mod kills;
#[path = "setup/memory.rs"]
mod memory;
#[path = "ceremony/pty.rs"]
mod pty;
#[path = "ceremony_faults/service.rs"]
mod service;
#[path = "ceremony_faults/table.rs"]
mod table;
#[path = "ceremony_faults/traces.rs"]
mod traces;
#[path = "setup/trouble.rs"]
mod trouble;
