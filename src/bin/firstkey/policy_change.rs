//! What a policy that waits for approval changes: a line that was slipped into a thousand is seen.

use std::collections::{BTreeMap, BTreeSet};

use firstkey::grpc::client::{Client, ClientError, Explained, explain_request};
use firstkey::grpc::proto::{GetPolicyRequest, SetPolicyRequest};
use prost::Message as _;

/// What a request changes of the policy in force, where it is one for another policy; else none.
///
/// Each principal and each grant is one line, whole, as each setting is: `-` before what goes, `+`
/// before what comes.
pub(crate) async fn of_request(
    client: &Client,
    method: &str,
    explained: &Explained,
) -> Result<Option<Vec<String>>, ClientError> {
    if method != METHOD {
        return Ok(None);
    }
    let now = client.policy().get_policy(GetPolicyRequest {}).await.map_err(ClientError::from)?;
    let now = SetPolicyRequest { policy: now.into_inner().policy, ..SetPolicyRequest::default() };
    let now = explain_request(METHOD, &now.encode_to_vec());
    let now = now.map(|now| now.fields).unwrap_or_default();
    Ok(Some(between(&now, &explained.fields)))
}

const METHOD: &str = "SetPolicy";

fn between(now: &[(String, String)], then: &[(String, String)]) -> Vec<String> {
    let (now, then) = (lines_of(now), lines_of(then));
    let goes = now.difference(&then).map(|line| format!("- {line}"));
    let comes = then.difference(&now).map(|line| format!("+ {line}"));
    goes.chain(comes).collect()
}

/// The lines of a policy, each without its place: what only moved is no change.
fn lines_of(fields: &[(String, String)]) -> BTreeSet<String> {
    let mut entries: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, value) in fields {
        let Some(path) = path.strip_prefix("policy.").filter(|path| *path != "version") else {
            continue;
        };
        let (entry, rest) = path.split_once("].").unwrap_or((path, ""));
        let told = if rest.is_empty() { value.clone() } else { format!("{rest} = {value}") };
        entries.entry(entry).or_default().push(told);
    }
    let lines = entries.into_iter().map(|(entry, told)| {
        let list = entry.split('[').next().unwrap_or(entry);
        format!("{list}: {}", told.join(", "))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_comes_and_goes_is_told_and_what_only_moved_is_not() {
        let now = fields(&[
            ("policy.version", "3"),
            ("policy.principals[0].name", "ann"),
            ("policy.principals[0].role", "OFFICER"),
            ("policy.principals[1].name", "shop"),
            ("policy.grants[0].key", "keys/zone"),
            ("policy.grants[0].calls[0]", "TranslatePin"),
            ("policy.votes_required", "2"),
        ]);
        let then = fields(&[
            ("request_id", "other"),
            ("policy.version", "3"),
            ("policy.principals[0].name", "shop"),
            ("policy.principals[1].name", "mallory"),
            ("policy.principals[1].role", "OFFICER"),
            ("policy.principals[2].name", "ann"),
            ("policy.principals[2].role", "OFFICER"),
            ("policy.grants[0].key", "keys/zone"),
            ("policy.grants[0].calls[0]", "TranslatePin"),
            ("policy.grants[0].calls[1]", "VerifyMac"),
            ("policy.votes_required", "1"),
        ]);
        assert_eq!(
            between(&now, &then),
            [
                "- grants: key = keys/zone, calls[0] = TranslatePin",
                "- votes_required: 2",
                "+ grants: key = keys/zone, calls[0] = TranslatePin, calls[1] = VerifyMac",
                "+ principals: name = mallory, role = OFFICER",
                "+ votes_required: 1",
            ]
        );
        assert!(between(&now, &now).is_empty());
    }
}
