//! What people at the table of a ceremony see and type: one step a screen, and what is typed is
//! checked as it is typed.
//!
//! Pure: the terminal, the files and the clock are behind [`Table`].

mod ask;
mod components;
mod flow;
mod hidden;
mod paper;
mod screen;
mod script;
mod seat;
mod shares;
mod slip;
mod table;
#[cfg(test)]
mod testing;
mod unseal;
mod words;

pub use self::ask::Stopped;
pub use self::flow::{Fault, Setting, Sitting, fingerprint};
pub use self::paper::pdf;
pub use self::screen::{
    COLUMNS_MIN, Frame, Happened, LINES_MIN, Screen, TooSmall, in_groups, read_aloud,
};
pub use self::script::script;
pub use self::table::{Interrupted, Key, Table};
pub use self::unseal::Custodians;
