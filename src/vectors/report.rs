//! Counts what passed and names what did not.

use std::collections::BTreeMap;
use std::fmt;

use super::outcome::{Verdict, judge};
use super::{FileInvalid, Outcome, Vector};

/// What came of a file of vectors, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    passed: usize,
    /// Of those that passed.
    refused_by_policy: usize,
    failures: Vec<String>,
    /// How many were skipped, by file and by why.
    skipped: BTreeMap<(String, String), usize>,
}

impl Report {
    /// Vectors that gave what was expected.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Of the vectors that passed, those that a service refused as its policy promises, where the
    /// standard has a value.
    #[must_use]
    pub fn refused_by_policy(&self) -> usize {
        self.refused_by_policy
    }

    /// Vectors that were tried at all: that passed or failed.
    #[must_use]
    pub fn expressed(&self) -> usize {
        self.passed + self.failed()
    }

    /// Vectors that did not, malformed ones included.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Vectors whose operation is not known, or can not be expressed.
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
        self.refused_by_policy += other.refused_by_policy;
        self.failures.extend(other.failures);
        for (name, count) in other.skipped {
            *self.skipped.entry(name).or_default() += count;
        }
    }

    pub(super) fn record(&mut self, file_name: &str, vector: &Vector, outcome: &Outcome) {
        match judge(vector, outcome) {
            Verdict::Passed => self.passed += 1,
            Verdict::RefusedByPolicy => {
                self.passed += 1;
                self.refused_by_policy += 1;
            }
            Verdict::Failed(reason) => {
                let operation = vector.operation().unwrap_or("no operation");
                let line = format!("{file_name}: {} ({operation}): {reason}", vector.id());
                self.failures.push(line);
            }
            Verdict::Skipped(why) => {
                *self.skipped.entry((file_name.to_owned(), why)).or_default() += 1;
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
        for ((file_name, why), count) in &self.skipped {
            writeln!(f, "skipped  {file_name}: {count} {why}")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed(), self.skipped())
    }
}
