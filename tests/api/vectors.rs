//! Published values, driven through the service as `firstkey vectors --server` does.

use std::io::Write as _;
use std::path::Path;

use firstkey::server::dev;
use firstkey::vectors::Report;
use serde_json::{Value, json};

use crate::harness::{Service, development_keys};

#[tokio::test]
async fn every_vector_of_the_project_that_the_api_can_express_holds_through_the_service() {
    let reports = drive(&files("tests/vectors")).await;
    for (file, least) in [
        ("dukpt_x9_24_1.json", 25),
        ("dukpt_x9_24_3.json", 50),
        ("key_blocks.json", 45),
        ("macs.json", 40),
        ("pin_blocks.json", 5),
    ] {
        let found = reports.iter().find(|(name, _)| name == file);
        let (_, report) = found.unwrap_or_else(|| panic!("{file} is there"));
        assert_eq!(report.failed(), 0, "\n{report}");
        assert!(report.passed() >= least, "{file}: {report}");
    }
    let total = total(&reports);
    assert!(total.refused_by_policy() > 0 && total.refused_by_policy() < total.passed() / 2);
    say("the project's vectors through the service", &total);
}

/// The control: what is judged right above must be judged wrong when the opposite is expected.
#[tokio::test]
async fn a_wrong_expectation_fails_through_the_service_too() {
    let right = altered(|_| {});
    let wrong = altered(|vector| {
        let is_error = vector["expect"].as_str().is_some_and(|text| text.starts_with("error:"));
        vector["expect"] = if is_error { json!("ok") } else { json!("error:anything") };
    });
    let (right, wrong) = (total(&drive(&right).await), total(&drive(&wrong).await));
    // What the policy refuses is refused whether the standard has a value or an error there.
    assert_eq!(wrong.passed(), right.refused_by_policy() + wrong.refused_by_policy(), "\n{wrong}");
    assert!(wrong.failed() > right.expressed() / 2, "\n{wrong}");
}

#[tokio::test]
async fn the_shared_vectors_hold_through_the_service_where_they_are_present() {
    let shared = "../shared/vectors";
    if !root().join(shared).is_dir() {
        say("NOT RUN: there are no shared vectors", &Report::default());
        return;
    }
    let wanted = ["dukpt_aes", "dukpt_tdes", "mac", "pin_blocks", "tr31"];
    let mut files = files(shared);
    files.retain(|(name, _)| wanted.contains(&name.trim_end_matches(".json")));
    let reports = drive(&files).await;
    for (name, report) in &reports {
        assert_eq!(report.failed(), 0, "\n{report}");
        assert!(report.passed() > 50, "{name}: {report}");
    }
    say("the shared vectors through the service", &total(&reports));
}

async fn drive(files: &[(String, String)]) -> Vec<(String, Report)> {
    // A service of its own: rejected PIN blocks spend failure budgets.
    let service = Service::start().await;
    let kek = development_keys().key_encryption_key().expect("the development KEK");
    let through = firstkey::vectors::Service {
        client: &service.client,
        key_encryption_key: &kek,
        key_encryption_key_id: dev::KEK,
        rng: &service.rng,
    };
    let reports = through.run(files).await;
    files.iter().map(|(name, _)| name.clone()).zip(reports).collect()
}

fn total(reports: &[(String, Report)]) -> Report {
    let mut total = Report::default();
    for (_, report) in reports {
        total.absorb(report.clone());
    }
    total
}

/// The project's files with each vector altered, without those of `wrap`: the block that they
/// expect is what is imported.
fn altered(alter: impl Fn(&mut Value)) -> Vec<(String, String)> {
    let mut files = files("tests/vectors");
    for (_, text) in &mut files {
        let mut file: Value = serde_json::from_str(text).expect("a vector file is JSON");
        let vectors = file["vectors"].as_array_mut().expect("it has a list of vectors");
        vectors.retain(|vector| vector["op"] != "wrap");
        vectors.iter_mut().for_each(&alter);
        *text = file.to_string();
    }
    files
}

fn files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(root().join(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a vector file is readable text"))
        })
        .collect();
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Written past the test harness, which hides what a passing test prints.
fn say(what: &str, total: &Report) {
    let (expressed, skipped) = (total.expressed(), total.skipped());
    let policy = total.refused_by_policy();
    let line = format!(
        "{what}: {expressed} of {} expressed, {} passed ({policy} refused by policy), {} failed",
        expressed + skipped,
        total.passed(),
        total.failed()
    );
    writeln!(std::io::stderr(), "\n{line}").expect("standard error is open");
}
