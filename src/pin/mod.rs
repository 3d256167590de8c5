//! PIN blocks.
