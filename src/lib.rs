//! firstkey, an open, HSM-style payment key service: the floor plan.
//!
//! Each room imports only from floors below its own; `tests/house.rs` keeps it so.
//!
//! ```text
//! 8  bin/         the two binaries: the only readers of files and environment
//! 7  server/      wires the parts and serves           vectors/   the vector runner
//!    guide/       the screens of a ceremony, and what is typed on them
//! 6  grpc/        one file per service: convert, authorise, call, convert
//! 5  command/     one file per host command; activation/, the state machine of a terminal
//! 4  vault/       the only door to stored keys         terminal/  a POS terminal in software
//!    inspect/     explains what people hold, without keys
//! 3  dukpt/ keyblock/ pin/ mac/ activation/ agreement/ component/  the standards, pure
//! 2  key/         a key whose type says what it may do
//! 1  crypto/      the primitives, named as the standards name them
//! 0  memory/      wiping, secret pages, process hardening: the only `unsafe`
//! ```

pub mod activation;
pub mod agreement;
pub mod command;
pub mod component;
pub mod crypto;
pub mod dukpt;
pub mod grpc;
pub mod guide;
pub mod inspect;
pub mod key;
pub mod keyblock;
pub mod mac;
pub mod memory;
pub mod pin;
pub mod server;
pub mod terminal;
pub mod vault;
pub mod vectors;
