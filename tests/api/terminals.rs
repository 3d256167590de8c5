//! `TerminalService`: the bounds of each field, request ids, pages.
