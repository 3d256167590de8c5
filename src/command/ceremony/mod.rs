//! Ceremonies: people at a table, who make, bring, hand out or end a key, and none of whom has it.

pub mod plan;
pub mod step;
pub mod transcript;
