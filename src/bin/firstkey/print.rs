//! Printing: the one place of the tool that writes to standard output.

use std::io::{self, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line. A reader that went away is no fault of ours.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints rows in columns, as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}

/// A bar for work of so many parts, on standard error, and only where that is a terminal.
pub(crate) fn progress(what: &'static str, parts: u32) -> ProgressBar {
    let bar = ProgressBar::new(parts.into());
    let form = "{msg} [{bar:40}] {pos}/{len}, {elapsed} gone, {eta} to go";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("=> ")).with_message(what)
}
