//! The vector runner: holds the library below the policy against published values. Text in,
//! report out.
//!
//! ```text
//! file       parses a file of vectors and reads their fields
//! outcome    what an operation gave, and whether that is what was expected
//! operation  finds the operation that a vector names; one file per family of operations beside it
//! report     failures, what was skipped and why, and the totals
//! service    drives what the API can express through a running service
//! ```
//!
//! The functions that the service refuses, such as key blocks of version A and PIN blocks of
//! format 1, are reached from here and from nowhere else.

mod activation;
mod cipher;
mod dukpt_aes;
mod dukpt_tdes;
mod file;
mod key_block;
mod mac;
mod operation;
mod outcome;
mod pin_block;
mod primitive;
mod report;
mod service;

pub use file::{FileInvalid, Vector, parse};
pub use outcome::{Answer, Outcome, Stop};
pub use report::Report;
pub use service::Service;

/// Runs every vector of a file against this library. The name is only printed.
#[must_use]
pub fn run(file_name: &str, json: &str) -> Report {
    let mut report = Report::default();
    match parse(json) {
        Ok(vectors) => {
            for vector in &vectors {
                report.record(file_name, vector, &operation::run(vector));
            }
        }
        Err(invalid) => report.record_unreadable(file_name, &invalid),
    }
    report
}
