//! Keys typed by use.
