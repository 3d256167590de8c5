//! The house rules: which room may use what, read from the source itself.
//!
//! A rule that is broken names the file, the line and the rule. Paths count wherever they stand and
//! however they are written: in a group, through `super`, under another name, over several lines.
//! What a room hands out by `pub use` is that room's to answer for.

#[path = "house/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor. A room uses rooms of lower floors only, never a neighbour of its own floor.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["memory"]),
    (1, &["crypto"]),
    (2, &["key"]),
    (3, &["dukpt", "keyblock", "pin", "mac", "activation", "agreement", "component"]),
    (4, &["vault", "terminal", "inspect"]),
    (5, &["command"]),
    (6, &["grpc"]),
    (7, &["guide", "server", "vectors"]),
    (8, &["bin"]),
];

/// Neighbours that may know each other, each with its reason.
const NEIGHBOURS: &[(&str, &str)] = &[
    // The activation's keys come from the agreement over its transcript.
    ("activation", "agreement"),
    // The one registry of labels stands there.
    ("component", "agreement"),
];

const EDGE: &[&str] = &["grpc/", "server/", "bin/"];
const CRYPTO: &str = "primitives are named in crypto";
const FILES: &[&str] = &["bin/", "vault/store/sqlite.rs", "memory/"];

/// What may be named only in some places: (crates and paths, where, rule).
const CONFINED: &[(&[&str], &[&str], &str)] = &[
    (&["tonic", "tonic_health", "tonic_prost"], EDGE, "gRPC lives on one floor"),
    (&["tonic_reflection", "tonic_types"], EDGE, "gRPC lives on one floor"),
    (
        &["crate::grpc::proto"],
        &["grpc/", "server/", "vectors/", "bin/"],
        "generated types stay at the edge",
    ),
    (&["axum", "http", "http_body", "tower"], EDGE, "HTTP stays at the edge"),
    (&["rustls", "tokio_rustls"], &["server/"], "TLS ends in server"),
    (&["prometheus_client"], &["grpc/", "server/"], "what is counted is counted at the edge"),
    (&["governor"], &["vault/rate.rs", "server/"], "rates are kept in one place"),
    (&["pdf_writer"], &["guide/paper.rs"], "pages are drawn in one place"),
    (&["sd_notify"], &["bin/"], "the binaries know who started them"),
    (&["rusqlite"], &["vault/store/sqlite.rs"], "SQL lives in the store"),
    (&["std::env"], &["bin/"], "only the binaries read the environment"),
    (&["std::io::stdin"], &["bin/"], "only the binaries have a terminal"),
    (&["std::fs", "tokio::fs"], FILES, "the binaries read files; store and memory their own"),
    (&["std::time::SystemTime::now"], &["bin/"], "the clock is handed in"),
    (&["std::time::Instant::now", "tokio::time::Instant"], &["bin/"], "the clock is handed in"),
    (
        &["libc", "rustix"],
        &["memory/", "vault/store/sqlite.rs", "bin/firstkey/ceremony/", "bin/firstkey/hidden.rs"],
        "the system is called in memory; the store asks how much of its disk is free, and the \
         ceremony has a terminal",
    ),
    (&["aes", "cbc", "cbc_mac", "cipher", "cmac", "des", "digest"], &["crypto/"], CRYPTO),
    (&["ct_merkle", "ghash", "hpke", "p256", "rand_core", "rcgen"], &["crypto/"], CRYPTO),
    (&["retail_mac", "ring", "rustls_pki_types", "sha2", "subtle"], &["crypto/"], CRYPTO),
    (&["cryptoki", "vsss_rs"], &["crypto/"], CRYPTO),
    (&["webpki", "x509_parser"], &["crypto/"], CRYPTO),
];

/// What a place may not name although its floor lets it: (where, what, save, rule).
const BARRED: &[(&str, &[&str], &[&str], &str)] = &[
    (
        "vault/store/",
        &["crate::key", "crate::keyblock", "crate::pin", "crate::dukpt"],
        &[],
        "the store holds sealed bytes under ids and is not trusted",
    ),
    (
        "vectors/",
        &["crate::grpc"],
        &["crate::grpc::client", "crate::grpc::proto"],
        "vectors reach a service from outside alone",
    ),
];

/// Words that may stand only in some places, token by token: (words, where, rule).
const WORDS: &[(&[&str], &[&str], &str)] = &[
    (&["unsafe"], &["memory/"], "`unsafe` lives in memory"),
    (
        &["for_vectors"],
        &["vectors/", "dukpt/", "keyblock/", "pin/", "mac/", "crypto/", "key/"],
        "what lies below the policy is for the vector runner alone",
    ),
    (&["mod", "prelude"], &[], "no prelude"),
    (&["todo", "!"], &[], "nothing is left open"),
    (&["unimplemented", "!"], &[], "nothing is left open"),
    (&["include_bytes", "!"], &[], "the source embeds no file"),
    (&["include_str", "!"], &[], "the source embeds no file"),
    (&["include", "!"], &["activation/payload/mod.rs"], "only generated types are included"),
    (&["#", "[", "path"], &["bin/"], "a module stands where its name says"),
    (&["cfg_attr"], &[], "an attribute says what it does"),
    (&["extern", "crate"], &[], "a crate goes by its own name"),
    (&["use_key_log"], &[], "TLS secrets are never logged"),
    (&["thread_rng"], &[], "one random source: crypto::rng"),
    (&["OsRng"], &[], "one random source: crypto::rng"),
];

#[test]
fn arrows_point_down() {
    let broken: Vec<String> =
        sources().iter().flat_map(|(place, text)| arrows(place, text)).collect();
    assert!(broken.is_empty(), "arrows that do not point down:\n{}", broken.join("\n"));
}

#[test]
fn names_and_words_stand_where_they_may() {
    let broken: Vec<String> =
        sources().iter().flat_map(|(place, text)| misplaced(place, text)).collect();
    assert!(broken.is_empty(), "names or words out of place:\n{}", broken.join("\n"));
}

#[test]
fn files_are_small_and_lines_are_short() {
    let mut broken = Vec::new();
    for (place, text) in sources() {
        let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        if before_tests > 500 {
            broken.push(format!("{place}: {before_tests} lines before its tests"));
        }
        for (index, line) in text.lines().enumerate() {
            if line.chars().count() > 100 {
                broken.push(format!("{place}:{}: longer than 100", index + 1));
            }
        }
        if !text.starts_with("//!") {
            broken.push(format!("{place}: begins without a sentence that says what it is"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_is_on_the_floor_plan() {
    let plan: Vec<&str> = FLOORS.iter().flat_map(|(_, rooms)| rooms.iter().copied()).collect();
    for entry in fs::read_dir(root().join("src")).expect("src is there") {
        let name = entry.expect("src is readable").file_name().into_string().expect("a plain name");
        let room = name.trim_end_matches(".rs").to_owned();
        assert!(room == "lib" || plan.contains(&room.as_str()), "{room} is on no floor");
    }
}

#[test]
fn the_lock_file_holds_no_banned_crate_and_one_generation_of_traits() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    let names: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    // rsa: RUSTSEC-2023-0071. sharks, blahaj: tables indexed by secret bytes. sqlx: brings rsa.
    // openssl-sys, native-tls: a second TLS. rand: one random source.
    for banned in ["rsa", "openssl-sys", "native-tls", "sqlx", "sharks", "blahaj", "aws-lc-sys"] {
        assert!(!names.contains(&banned), "{banned} is in Cargo.lock");
    }
    for single in ["cipher", "digest", "crypto-common", "des", "aes", "prost", "tonic"] {
        let count = names.iter().filter(|name| **name == single).count();
        assert!(count <= 1, "{count} generations of {single} in Cargo.lock");
    }
}

#[test]
fn a_higher_room_is_found_however_it_is_named() {
    for (place, text) in [
        ("vault/work.rs", "use crate::grpc::status;"),
        ("vault/work.rs", "use crate::\n    grpc::{\n    status,\n};"),
        ("vault/work.rs", "use crate::{key::Key, command::{self, Error}};"),
        ("vault/work.rs", "use {crate::key::Key, crate::grpc::status};"),
        ("vault/work.rs", "fn f() { let x = crate::grpc::status(); }"),
        ("vault/work.rs", "fn f(x: &dyn Fn(crate :: grpc::Status)) {}"),
        ("vault/work.rs", "use super::super::grpc;"),
        ("vault/keys/create.rs", "use super::super::super::{grpc::status as s};"),
        ("vault/mod.rs", "use super::grpc::status;"),
        ("vault/mod.rs", "mod inner { use super::super::grpc; }"),
        ("vault/mod.rs", "mod inner { fn f() { super::super::grpc::status() } }"),
        ("vault/work.rs", "use crate::r#grpc::status;"),
        ("vault/work.rs", "macro_rules! m { () => { $crate::grpc::status() } }"),
        ("vault/work.rs", "use firstkey::server;"),
        ("vault/work.rs", "/* a /* nested */ comment */ use crate::grpc;"),
        ("vault/work.rs", "const A: char = '\"'; use crate::grpc; const B: char = '\"';"),
        ("vault/work.rs", "const A: &str = r#\"\"//\"#; use crate::grpc;"),
        ("vault/work.rs", "const A: &str = \"http://\"; use crate::grpc;"),
        ("vault/work.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::grpc;"),
        ("vault/work.rs", "use crate::vault as v; use super::super as all; use all::grpc;"),
        ("pin/block.rs", "use crate::dukpt::AesKsn;"),
        ("terminal/mod.rs", "use crate::vault::Vault;"),
    ] {
        assert!(!arrows(place, text).is_empty(), "{place}: {text}");
    }
    for (place, text) in [
        ("vault/work.rs", "use super::{claim, error::Error}; use crate::key::Key;"),
        (
            "vault/work.rs",
            "// use crate::grpc;\n/* crate::grpc */ const A: &str = \"crate::grpc::x\";",
        ),
        ("vault/work.rs", "#[cfg(test)]\nmod tests { use crate::grpc::status; }"),
        ("activation/code.rs", "use crate::agreement::Suite;"),
        ("bin/firstkey/dev.rs", "use crate::print; use firstkey::server;"),
    ] {
        assert_eq!(arrows(place, text), [""; 0], "{place}: {text}");
    }
}

#[test]
fn a_name_out_of_place_is_found_however_it_is_written() {
    for (place, text) in [
        ("vault/work.rs", "use std::{env, fmt};"),
        ("vault/work.rs", "use std::{fmt::{self, Write}, fs::{self as files}};"),
        ("vault/work.rs", "use std::fs as files;"),
        ("vault/work.rs", "use ::std::fs;"),
        ("vault/work.rs", "fn f() { ::std::env::args(); }"),
        ("vault/work.rs", "use std as s;"),
        ("vault/work.rs", "use std::*;"),
        ("vault/work.rs", "use crate as all;"),
        ("vault/work.rs", "use crate::{self as all};"),
        ("vault/work.rs", "use crate::*;"),
        ("vault/work.rs", "extern crate std as s;"),
        ("vault/work.rs", "use std::time; fn f() { time::Instant::now(); }"),
        ("vault/work.rs", "use std::time::SystemTime as S; fn f() { S::now(); }"),
        ("command/mod.rs", "use crate::grpc; fn f() { grpc::proto::Key::default(); }"),
        ("command/mod.rs", "use tonic::Status;"),
        ("vault/store/mod.rs", "use rusqlite::Connection;"),
        ("vault/store/sqlite.rs", "use crate::key::Key;"),
        ("vault/store/sqlite.rs", "use super::super::super::{pin, key};"),
        ("vectors/mac.rs", "use crate::grpc::services;"),
        ("vectors/mac.rs", "use crate::grpc; fn f() { grpc::services(); }"),
        ("pin/block.rs", "use cipher::BlockCipherEncrypt;"),
        ("pin/block.rs", "use ::cmac::Cmac;"),
        ("dukpt/mod.rs", "mod aes; fn f() { ::aes::Aes128::new(); }"),
        ("server/mod.rs", "fn f() { libc::getpid(); }"),
        ("command/mod.rs", "use crate::pin::\n    for_vectors;"),
        ("command/mod.rs", "unsafe\n{ }"),
        ("command/mod.rs", "#[path = \"../../grpc/mod.rs\"] mod other;"),
        ("command/mod.rs", "include!(\"../grpc/mod.rs\");"),
        ("command/mod.rs", "const A: &str = \"../keys-dev/kbpk.toml\";"),
    ] {
        assert!(!misplaced(place, text).is_empty(), "{place}: {text}");
    }
    for (place, text) in [
        ("dukpt/mod.rs", "mod aes; pub use aes::AesInitialKey; fn f() { aes::self_test(); }"),
        ("key/mod.rs", "use crate::crypto::tdes::{self}; fn f() { tdes::weakness(); }"),
        ("mac/mod.rs", "use crate::crypto::cmac; fn f() { cmac::aes_cmac(); }"),
        ("vault/work.rs", "use std::time::Duration; use tokio::sync::mpsc;"),
        ("vectors/mac.rs", "use crate::grpc::client::{Client, MacCall};"),
        ("crypto/cmac.rs", "use ::cmac::Cmac;"),
    ] {
        assert_eq!(misplaced(place, text), [""; 0], "{place}: {text}");
    }
}

/// The paths of a file that lead to a room that its own may not use.
fn arrows(place: &str, text: &str) -> Vec<String> {
    let room = place.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(floor) = floor(room) else { return Vec::new() };
    let mut broken = Vec::new();
    for named in source::read(place, text).names {
        let other = named.path.strip_prefix("crate::").unwrap_or_default();
        let other = other.split("::").next().unwrap_or_default();
        let Some(other_floor) = self::floor(other) else { continue };
        let allowed = other == room || other_floor < floor || NEIGHBOURS.contains(&(room, other));
        if !allowed {
            let line = named.line;
            broken.push(format!(
                "{place}:{line}: {room} (floor {floor}) uses {other} (floor {other_floor})"
            ));
        }
    }
    broken
}

/// The names and words of a file that stand where they may not.
fn misplaced(place: &str, text: &str) -> Vec<String> {
    let source = source::read(place, text);
    let within = |places: &[&str]| places.iter().any(|start| place.starts_with(start));
    let is_below = |path: &str, above: &&str| {
        path.strip_prefix(*above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let mut broken = Vec::new();
    for source::Named { line, path, takes_all } in &source.names {
        let mut tell = |rule: &str| broken.push(format!("{place}:{line}: `{path}`: {rule}"));
        if *takes_all {
            tell("a crate goes by its own name, and is not taken whole");
        }
        for (names, places, rule) in CONFINED {
            if names.iter().any(|name| is_below(path, name)) && !within(places) {
                tell(rule);
            }
        }
        for (at, names, save, rule) in BARRED {
            let of = |names: &[&str]| names.iter().any(|name| is_below(path, name));
            // The bare name of a room is a way to what is named through it, and judged there.
            let is_way = !save.is_empty() && names.contains(&path.as_str());
            if place.starts_with(at) && of(names) && !of(save) && !is_way {
                tell(rule);
            }
        }
    }
    for (index, token) in source.tokens.iter().enumerate() {
        let line = token.line;
        for (words, places, rule) in WORDS {
            let run = source.tokens.get(index..index + words.len()).unwrap_or_default();
            if source::spells(run, words) && !within(places) {
                broken.push(format!("{place}:{line}: `{}`: {rule}", words.join(" ")));
            }
        }
        if token.text.starts_with('"') && token.text.contains("keys-dev/") && !within(&["bin/"]) {
            broken.push(format!("{place}:{line}: src embeds no development key"));
        }
    }
    broken
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Each Rust file below `src/`: its path there, with forward slashes, and its text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    files.sort();
    assert!(files.len() > 20, "the walk found the sources");
    let read = |file: PathBuf| {
        let place = file.strip_prefix(&src).expect("a file below src").to_string_lossy();
        let text = fs::read_to_string(&file).expect("a source file is readable text");
        (place.replace('\\', "/"), text)
    };
    files.into_iter().map(read).collect()
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}
