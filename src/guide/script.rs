//! The script of a ceremony on paper: its plan, its digest, and every step with who does it and
//! room for initials and the time.

use data_encoding::HEXUPPER;

use super::screen::in_groups;
use super::words::{brief, role_of, task_of};
use crate::command::ceremony::plan::Planned;

/// The script in lines of 80 columns at most, of printable ASCII.
#[must_use]
pub fn script(planned: &Planned) -> String {
    let plan = planned.plan();
    let digest = HEXUPPER.encode(&planned.digest());
    let (begin, rest) = digest.split_at(32);
    let mut lines =
        vec!["CEREMONY SCRIPT".to_owned(), String::new(), format!("title        {}", plan.title)];
    lines.extend(folded("purpose", &task_of(planned)));
    for (number, name) in (1..).zip(&plan.custodians) {
        lines.extend(folded(&format!("custodian {number}"), name));
    }
    lines.extend(folded("witness", &plan.witness));
    lines.push(format!("time-out     {} minutes without a step", plan.idle_minutes));
    lines.push(format!("digest       {}", in_groups(begin)));
    lines.push(format!("             {}", in_groups(rest)));
    lines.push(format!("             read aloud and typed: {}", in_groups(&digest[..16])));
    lines.push(String::new());
    lines.push(row("step", "who", "what", "initials  time (UTC)"));
    lines.push("-".repeat(80));
    for (number, step) in (1..).zip(planned.steps()) {
        let number = number.to_string();
        let blanks = "________  __________";
        lines.push(row(&number, &role_of(planned, step.actor), &brief(planned, step), blanks));
    }
    lines.extend([
        String::new(),
        "place        ________________________________   date  __________________".to_owned(),
        "deviations   ___________________________________________________________".to_owned(),
        "             ___________________________________________________________".to_owned(),
    ]);
    lines.join("\n") + "\n"
}

fn row(step: &str, who: &str, what: &str, blanks: &str) -> String {
    format!("{step:>4}  {who:<18} {what:<34} {blanks}")
}

/// A value that may be longer than a line.
fn folded(label: &str, value: &str) -> Vec<String> {
    let letters: Vec<char> = value.chars().collect();
    let parts = letters.chunks(67).map(String::from_iter);
    let labels = [label].into_iter().chain(std::iter::repeat(""));
    parts.zip(labels).map(|(part, label)| format!("{label:<12} {part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ceremony::plan::Plan;

    const PLAN: &str = "title = \"BDK for 2027\"
custodians = [\"spiffe://a.test/custodian/ann\", \"spiffe://a.test/custodian/bob\"]
witness = \"spiffe://a.test/auditor/cid\"
[generate]
id = \"bdk-2027\"
usage = \"B0\"
algorithm = \"AES256\"
key_set_id = \"AABBCCDD\"
";

    fn planned(text: &str) -> Planned {
        toml::from_str::<Plan>(text).unwrap().check().unwrap()
    }

    #[test]
    fn a_script_names_everybody_and_every_step() {
        let planned = planned(PLAN);
        let script = script(&planned);
        let digest = HEXUPPER.encode(&planned.digest());
        let head = format!(
            "CEREMONY SCRIPT

title        BDK for 2027
purpose      generate keys/bdk-2027, usage B0, AES256, in 2 components
custodian 1  spiffe://a.test/custodian/ann
custodian 2  spiffe://a.test/custodian/bob
witness      spiffe://a.test/auditor/cid
time-out     15 minutes without a step
digest       {}
             {}
             read aloud and typed: {}

step  who                what                               initials  time (UTC)
--------------------------------------------------------------------------------
   1  Custodian 1 of 2   comes, logs in, types the digest   ________  __________
",
            in_groups(&digest[..32]),
            in_groups(&digest[32..]),
            in_groups(&digest[..16]),
        );
        assert!(script.starts_with(&head), "{script}");
        let steps = script.lines().filter(|line| line.ends_with("________  __________")).count();
        assert_eq!(steps, planned.steps().len());
    }

    #[test]
    fn every_line_fits_on_paper_whatever_the_plan() {
        let long = "x".repeat(240);
        let people =
            format!("custodians = [\"a:/{long}\", \"b:/{long}\"]\nwitness = \"w:/{long}\"");
        let key = "id = \"k\"\nusage = \"B0\"\nalgorithm = \"AES128\"\n";
        let value = "check_value = \"0011AA\"\n";
        let values = "component_check_values = [\"0011AA\", \"0011AA\"]\n";
        for table in [
            format!("[generate]\n{key}"),
            format!("[import]\n{value}{values}[import.key]\n{key}"),
            "[initialise]\nthreshold = 2\n".to_owned(),
            "[re_share]\nthreshold = 2\n".to_owned(),
            format!("[destroy]\nkey = \"keys/{long}\"\n{value}"),
            format!("[export]\nkey = \"keys/k\"\nwrapping_key = \"keys/w\"\n{value}"),
        ] {
            let script = script(&planned(&format!("title = \"T\"\n{people}\n{table}")));
            for line in script.lines() {
                assert!(line.len() <= 80, "{line}");
                assert!(line.bytes().all(|octet| (32..127).contains(&octet)), "{line}");
            }
        }
    }
}
