//! Key blocks.
