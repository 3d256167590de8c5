//! `firstkeyd certificate`: one more certificate, of an authority whose key is a file.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::crypto::certificate::authority::{Authority, Validity};
use firstkey::crypto::certificate::{certificates_from_pem, key_from_pem};
use firstkey::server::access::{issue_client, issue_server};
use firstkey::vault::Clock as _;
use zeroize::Zeroizing;

use crate::cli::Certificate;
use crate::shared::SystemClock;
use crate::shared::access::{SERVER, ending, read, write_issued};
use crate::{config, say};

pub(crate) fn run(arguments: &Certificate) -> anyhow::Result<ExitCode> {
    let validity = validity_of_days(arguments.days);
    let issued = if let (Some(word), Some(name)) = (&arguments.plane, &arguments.name) {
        let plane = config::plane(word)?;
        let authority = read_authority(&arguments.authorities, plane.as_str())?;
        issue_client(&authority, name, validity).with_context(|| {
            format!("{name} is no name: a URI such as spiffe://example.com/backend/switch-2")
        })?
    } else {
        let authority = read_authority(&arguments.authorities, SERVER)?;
        let hosts: Vec<&str> = arguments.host.iter().map(String::as_str).collect();
        issue_server(&authority, &hosts, validity).context("the host names")?
    };
    write_issued(&arguments.out, &issued)?;
    let (certificate, key) = (ending(&arguments.out, "crt"), ending(&arguments.out, "key"));
    say(&format!("made {} and {}", certificate.display(), key.display()));
    Ok(ExitCode::SUCCESS)
}

/// Reads an authority with its key.
fn read_authority(folder: &Path, name: &str) -> anyhow::Result<Authority> {
    let stem = folder.join(name);
    let certificate = ending(&stem, "crt");
    let certificates = certificates_from_pem(&read(&certificate)?)
        .with_context(|| format!("in {}", certificate.display()))?;
    let root = certificates.first().context("there is no certificate")?;
    let path = ending(&stem, "key");
    let key = key_from_pem(&Zeroizing::new(read(&path)?));
    let key = key.with_context(|| format!("in {}", path.display()))?;
    Authority::from_parts(root, &key).with_context(|| {
        format!("{} and {} are no authority", certificate.display(), path.display())
    })
}

/// From an hour ago, so that a clock may be a little late, for so many days.
pub(crate) fn validity_of_days(days: u64) -> Validity {
    let now = SystemClock.now().seconds();
    Validity {
        not_before: now.saturating_sub(3_600),
        not_after: now.saturating_add(days.saturating_mul(24 * 60 * 60)),
    }
}
