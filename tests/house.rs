//! The house rules: which room may use what, read from the source itself.
//!
//! A rule that is broken names the file, the line and the rule. The words `crate::room` are looked
//! for anywhere in code, not only in `use` lines, so a long path is no way round.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor. A room uses rooms of lower floors only, never a neighbour of its own floor.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["memory"]),
    (1, &["crypto"]),
    (2, &["key"]),
    (3, &["dukpt", "keyblock", "pin", "mac", "activation", "agreement"]),
    (4, &["vault", "terminal"]),
    (5, &["command"]),
    (6, &["grpc"]),
    (7, &["server", "vectors"]),
    (8, &["bin"]),
];

/// Neighbours that may know each other, each with its reason.
const NEIGHBOURS: &[(&str, &str)] = &[
    // The activation's keys come from the agreement over its transcript.
    ("activation", "agreement"),
];

/// Words that may stand only in some places: (word, where, rule).
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("tonic::", &["grpc/", "server/", "bin/"], "gRPC lives on one floor"),
    ("crate::grpc::proto", &["grpc/", "server/"], "generated types stay at the edge"),
    ("rusqlite::", &["vault/store/sqlite.rs"], "SQL lives in the store"),
    ("std::env", &["bin/"], "only the binaries read the environment"),
    (
        "std::fs",
        &["bin/", "vault/store/sqlite.rs", "memory/"],
        "only the binaries read files; the store and memory touch their own",
    ),
    ("SystemTime::now", &["bin/"], "the clock is handed in"),
    ("Instant::now", &["bin/"], "the clock is handed in"),
    ("unsafe ", &["memory/"], "`unsafe` lives in memory"),
    ("ring::", &["crypto/"], "primitives are named in crypto"),
    ("aes::Aes1", &["crypto/"], "primitives are named in crypto"),
    ("::des::", &["crypto/"], "primitives are named in crypto"),
    ("p256::", &["crypto/"], "primitives are named in crypto"),
    ("rcgen::", &["crypto/"], "primitives are named in crypto"),
    ("webpki::", &["crypto/"], "primitives are named in crypto"),
    ("x509_parser::", &["crypto/"], "primitives are named in crypto"),
    ("subtle::", &["crypto/"], "primitives are named in crypto"),
    (
        "for_vectors",
        &["vectors/", "dukpt/", "keyblock/", "pin/", "mac/", "crypto/", "key/"],
        "what lies below the policy is for the vector runner alone",
    ),
    ("mod prelude", &[], "no prelude"),
    ("keys-dev/", &["bin/"], "src embeds no development key"),
];

/// Words that may stand nowhere in `src/`.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!(", "nothing is left open"),
    ("unimplemented!(", "nothing is left open"),
    ("include_bytes!", "the source embeds no file"),
    (".use_key_log", "TLS secrets are never logged"),
    ("thread_rng", "one random source: crypto::rng"),
];

#[test]
fn arrows_point_down() {
    let mut broken = Vec::new();
    for file in sources() {
        let room = room(&file);
        let Some(floor) = floor(&room) else { continue };
        for (number, line) in code_lines(&file) {
            for other in mentioned_rooms(&line) {
                let Some(other_floor) = self::floor(&other) else { continue };
                let allowed = other == room
                    || other_floor < floor
                    || NEIGHBOURS.contains(&(room.as_str(), other.as_str()));
                if !allowed {
                    broken.push(format!(
                        "{}:{number}: {room} (floor {floor}) uses {other} (floor {other_floor})",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "arrows that do not point down:\n{}", broken.join("\n"));
}

#[test]
fn words_stand_where_they_may() {
    let mut broken = Vec::new();
    for file in sources() {
        let place = place(&file);
        for (number, line) in code_lines(&file) {
            for (word, places, rule) in CONFINED {
                if names(&line, word) && !places.iter().any(|start| place.starts_with(start)) {
                    broken.push(format!("{}:{number}: `{word}`: {rule}", file.display()));
                }
            }
            for (word, rule) in FORBIDDEN {
                if line.contains(word) {
                    broken.push(format!("{}:{number}: `{word}`: {rule}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "words out of place:\n{}", broken.join("\n"));
}

/// Whether the word stands there and is not the end of a longer one: `String::` is not `ring::`.
fn names(line: &str, word: &str) -> bool {
    let within = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let begins = word.starts_with(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| !(begins && within(&line[..at])))
}

#[test]
fn files_are_small_and_lines_are_short() {
    let mut broken = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("a source file is readable text");
        let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        if before_tests > 500 {
            broken.push(format!("{}: {before_tests} lines before its tests", file.display()));
        }
        for (index, line) in text.lines().enumerate() {
            if line.chars().count() > 100 {
                broken.push(format!("{}:{}: longer than 100", file.display(), index + 1));
            }
        }
        if !text.starts_with("//!") {
            broken.push(format!(
                "{}: begins without a sentence that says what it is",
                file.display()
            ));
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
fn the_checks_can_fail() {
    assert_eq!(mentioned_rooms("use crate::grpc::status;"), ["grpc"]);
    assert_eq!(mentioned_rooms("let x = crate::vault::Vault::open();"), ["vault"]);
    assert_eq!(
        mentioned_rooms("use crate::{vault::Vault, grpc::status};"),
        ["vault", "grpc"],
        "a grouped import is no way round"
    );
    assert_eq!(mentioned_rooms("use firstkey::command::activation;"), ["command"]);
    assert!(floor("grpc") > floor("vault"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `src/`.
fn sources() -> Vec<PathBuf> {
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
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    files.sort();
    assert!(files.len() > 20, "the walk found the sources");
    files
}

/// The path below `src/`, with forward slashes.
fn place(file: &Path) -> String {
    let below = file.strip_prefix(root().join("src")).expect("a file below src");
    below.to_string_lossy().replace('\\', "/")
}

fn room(file: &Path) -> String {
    let place = place(file);
    place.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// The lines that are code: comments and the tests at a file's foot are left out.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("a source file is readable text");
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect()
}

/// The rooms that a line names after `crate::` or `firstkey::`.
fn mentioned_rooms(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for start in ["crate::", "firstkey::"] {
        for rest in line.split(start).skip(1) {
            if let Some(group) = rest.strip_prefix('{') {
                let mut depth = 0_usize;
                let mut word = String::new();
                for letter in group.chars() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                        _ if depth == 0 => word.push(letter),
                        _ => {}
                    }
                }
                rooms.push(word);
            } else {
                rooms.push(rest.to_owned());
            }
        }
    }
    rooms
        .iter()
        .map(|path| {
            let end = |letter: char| !letter.is_alphanumeric() && letter != '_';
            path.trim().split(end).next().unwrap_or_default().to_owned()
        })
        .filter(|room| floor(room).is_some())
        .collect()
}
