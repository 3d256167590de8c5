//! Host commands.
