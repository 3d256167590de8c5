//! Keys that everybody knows, by their check values: a live realm takes none of them.

/// Check values of the keys that standards print as samples and that development uses.
pub const PUBLISHED_CHECK_VALUES: [&str; 1] = [
    // TDES base derivation key of ANSI X9.24-1:2009, annex A.4.
    "08D7B4",
];

/// Whether a key of this check value was published.
pub(super) fn is_published(check_value: &str) -> bool {
    PUBLISHED_CHECK_VALUES.contains(&check_value)
}
