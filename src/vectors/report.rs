//! Counts what passed and names what did not.

use std::collections::BTreeMap;
use std::fmt;

use super::outcome::{Verdict, judge};
use super::{FileInvalid, Outcome, Vector};

/// What came of a file of vectors, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    passed: usize,
    failures: Vec<String>,
    /// How many were skipped, by file and by the name of what is not known.
    skipped: BTreeMap<(String, String), usize>,
}

impl Report {
    /// Vectors that gave what was expected.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Vectors that did not, malformed ones included.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Vectors whose operation is not known.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped.values().sum()
    }

    /// One line for each failure.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Adds the report of another file.
    pub fn absorb(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        for (name, count) in other.skipped {
            *self.skipped.entry(name).or_default() += count;
        }
    }

    pub(super) fn record(&mut self, file_name: &str, vector: &Vector, outcome: &Outcome) {
        match judge(vector, outcome) {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(reason) => {
                let operation = vector.operation().unwrap_or("no operation");
                let line = format!("{file_name}: {} ({operation}): {reason}", vector.id());
                self.failures.push(line);
            }
            Verdict::Skipped(name) => {
                *self.skipped.entry((file_name.to_owned(), name)).or_default() += 1;
            }
        }
    }

    pub(super) fn record_unreadable(&mut self, file_name: &str, invalid: &FileInvalid) {
        self.failures.push(format!("{file_name}: {invalid}"));
    }
}

impl fmt::Display for Report {
    /// The failures, what was skipped, and as the last line the totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "failed   {failure}")?;
        }
        for ((file_name, name), count) in &self.skipped {
            writeln!(f, "skipped  {file_name}: {count} of unknown operation {name}")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed(), self.skipped())
    }
}
