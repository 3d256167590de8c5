//! Compiles the protocol files without protoc.

fn main() {}
