//! A POS terminal in software.
