//! `firstkey ceremony verify`: a transcript against its plan and everybody's signature, without a
//! service.

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use firstkey::command::ceremony::verify::{Authorities, verify};
use firstkey::crypto::certificate::certificates_from_pem;
use firstkey::vault::VerifierKey;
use serde_json::json;

use crate::cli::Output;
use crate::cli::ceremony::Verify;
use crate::shared::access::read;
use crate::{exit, print};

pub(super) fn run(arguments: &Verify, output: Output) -> anyhow::Result<ExitCode> {
    let key = VerifierKey::parse(&arguments.log_key)?;
    let authorities = certificates_from_pem(&read(&arguments.authority)?)
        .with_context(|| format!("{} holds no certificate", arguments.authority.display()))?;
    let intermediates = match &arguments.intermediates {
        Some(path) => certificates_from_pem(&read(path)?)
            .with_context(|| format!("{} holds no certificate", path.display()))?,
        None => Vec::new(),
    };
    let path = &arguments.file;
    let text =
        fs::read_to_string(path).with_context(|| format!("can not read {}", path.display()))?;
    let verified = match verify(
        &text,
        &key,
        Authorities { roots: &authorities, intermediates: &intermediates },
    ) {
        Ok(verified) => verified,
        Err(refused) => {
            print::line(&match output {
                Output::Table => format!("NOT VERIFIED: {refused}"),
                Output::Json => {
                    json!({ "verified": false, "message": refused.to_string() }).to_string()
                }
            });
            return Ok(ExitCode::from(exit::UNSOUND));
        }
    };
    let name = &verified.name;
    let digest = data_encoding::HEXUPPER.encode(&verified.planned.digest());
    print::line(&match output {
        Output::Table => format!(
            "verified: {} lines, signed by everybody{}\n\
             ceremony  {name}\nplan      {digest}\noutcome   {}",
            verified.lines,
            if verified.aborted { " who had to: the service" } else { " and the service" },
            if verified.aborted { "aborted; nothing happened" } else { "complete" },
        ),
        Output::Json => json!({
            "verified": true,
            "ceremony": name,
            "lines": verified.lines,
            "plan_digest": digest,
            "aborted": verified.aborted,
        })
        .to_string(),
    });
    Ok(ExitCode::SUCCESS)
}
