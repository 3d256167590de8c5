//! Holds the library against published values: the project's own files, and where they are
//! present the shared ones beside the repository.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use firstkey::vectors::{Report, run};
use serde_json::{Value, json};

/// Files of which everything must be known and right.
const WHOLE: &[&str] = &[
    "dukpt_aes",
    "dukpt_tdes",
    "mac",
    "pin_blocks",
    "tdes_kat",
    "tr31",
    "wycheproof_aes_cmac",
    "wycheproof_aes_gcm",
    "wycheproof_ecdh_p256",
    "wycheproof_ecdh_p256_point",
    "wycheproof_ecdsa_p256_sha256",
    "wycheproof_ecdsa_p256_sha256_p1363",
    "wycheproof_hkdf_sha256",
    "wycheproof_hmac_sha256",
];

#[test]
fn the_projects_own_vectors_pass_whole() {
    let own = root().join("tests/vectors");
    let files = json_files(&own);
    assert!(files.len() >= 5, "the project's own vectors are in {}", own.display());
    for file in files {
        let report = run_file(&file);
        assert!(report.passed() > 0, "{} holds no vectors", file.display());
        assert_eq!((report.failed(), report.skipped()), (0, 0), "\n{report}");
    }
}

#[test]
fn the_shared_vectors_pass_where_they_are_present() {
    let shared = root().join("../shared/vectors");
    if !shared.is_dir() {
        say(&format!("NOT RUN: no shared vectors at {}", shared.display()));
        return;
    }
    let mut total = Report::default();
    for file in json_files(&shared) {
        let report = run_file(&file);
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a plain name");
        assert_eq!(report.failed(), 0, "\n{report}");
        if WHOLE.contains(&name) {
            assert!(report.passed() > 0);
            assert_eq!(report.skipped(), 0, "\n{report}");
        }
        total.absorb(report);
    }
    say(&format!("shared vectors: {total}"));
}

/// The control: a runner that lets everything pass would pass the tests above.
#[test]
fn a_wrong_expectation_fails_for_every_vector() {
    for file in json_files(&root().join("tests/vectors")) {
        let text = fs::read_to_string(&file).expect("a vector file is readable text");
        let mut root: Value = serde_json::from_str(&text).expect("a vector file is JSON");
        let vectors = root["vectors"].as_array_mut().expect("it has a list of vectors");
        let count = vectors.len();
        for vector in vectors {
            let error = vector["expect"].as_str().is_some_and(|text| text.starts_with("error:"));
            vector["expect"] = if error { json!("ok") } else { json!("error:anything") };
        }
        let report = run("wrong.json", &root.to_string());
        assert_eq!((report.passed(), report.failed()), (0, count), "{}", file.display());
    }
}

#[test]
fn a_vector_that_lacks_an_input_fails_even_where_an_error_is_expected() {
    let lacking = json!({"vectors": [
        {"id": "no-operation", "key": "00", "expect": "ok"},
        {"id": "no-expectation", "op": "hash", "message": ""},
        {"id": "no-message", "op": "hash", "expect": "error:any"},
        {"id": "no-key", "op": "unwrap", "key_block": "D", "expect": "error:any"},
        {"id": "no-fill", "op": "encode", "pin": "1234", "pin_block_format": "ISO-3",
         "pan": "4012345678909", "expect": "error:any"},
        {"id": "no-text", "op": "unwrap", "kbpk": 7, "key_block": "D", "expect": "error:any"},
        "no object",
    ]});
    let report = run("lacking.json", &lacking.to_string());
    assert_eq!((report.passed(), report.failed(), report.skipped()), (0, 7, 0), "\n{report}");
    assert!(report.to_string().ends_with("0 passed, 7 failed, 0 skipped"));
    for text in ["", "{}", "[]", "{\"vectors\": 1}"] {
        assert_eq!(run("none.json", text).failed(), 1);
    }
}

fn run_file(file: &Path) -> Report {
    let text = fs::read_to_string(file).expect("a vector file is readable text");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a plain name");
    run(name, &text)
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Written past the test harness, which hides what a passing test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "\n{line}").expect("standard error is open");
}
