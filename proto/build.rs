//! Compiles the protocol files without protoc.
//!
//! Every `.proto` below `proto/` is compiled; the descriptor set goes to
//! `$OUT_DIR/firstkey_descriptor.bin`, for reflection and for the tests that walk it.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on standard output")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost::Message as _;

/// Packages whose generated messages have no `Debug`: they carry codes, PANs and PIN blocks, and
/// what can not be printed can not be logged.
const WITHOUT_DEBUG: [&str; 1] = [".firstkey"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    println!("cargo::rerun-if-changed=proto");

    let descriptors = protox::compile(&files, [root])?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out_dir.join("firstkey_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .skip_debug(WITHOUT_DEBUG)
        // In their order, so that a message is serialised one way: its digest is approved.
        .btree_map(".firstkey")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Adds every `.proto` below `folder` to `files`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
