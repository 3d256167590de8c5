//! Ceremonies: people at a table, who make, bring, hand out or end a key, and none of whom has it.

pub mod act;
pub mod conduct;
pub mod custodian;
mod effect;
mod material;
pub mod plan;
pub mod record;
mod shares;
pub mod step;
#[cfg(test)]
mod tests;
pub mod transcript;
pub mod verify;
