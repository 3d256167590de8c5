//! The script of a ceremony on paper: its plan, its digest, and every step with who does it and
//! room for initials and the time.

use data_encoding::HEXUPPER;

use super::screen::in_groups;
use super::words::{brief, fields_of, role_of, task_of};
use crate::command::ceremony::plan::Planned;

/// The columns of a script.
const COLUMNS: usize = 80;

/// The script in lines of 80 columns at most, of printable ASCII.
#[must_use]
pub fn script(planned: &Planned) -> String {
    let plan = planned.plan();
    let digest = HEXUPPER.encode(&planned.digest());
    let (begin, rest) = digest.split_at(32);
    let mut lines =
        vec!["CEREMONY SCRIPT".to_owned(), String::new(), format!("title        {}", plan.title)];
    let line = |label: &str, value: &str| folded(label, 12, value, COLUMNS);
    lines.extend(line("purpose", &task_of(planned)));
    for (number, name) in (1..).zip(&plan.custodians) {
        lines.extend(line(&format!("custodian {number}"), name));
    }
    lines.extend(line("witness", &plan.witness));
    lines.push(format!("time-out     {} minutes without a step", plan.idle_minutes));
    lines.push(format!("digest       {}  read aloud and typed", in_groups(begin)));
    lines.push(format!("             {}", in_groups(rest)));
    lines.push(String::new());
    lines.push("What is planned, in full (what is not named is as usual):".to_owned());
    lines.extend(planned_lines(planned, COLUMNS));
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

/// Every field of what is planned, in lines of so many columns.
pub(super) fn planned_lines(planned: &Planned, columns: usize) -> Vec<String> {
    let fields = fields_of(planned);
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    fields.iter().flat_map(|(name, value)| folded(name, width, value, columns)).collect()
}

fn row(step: &str, who: &str, what: &str, blanks: &str) -> String {
    format!("{step:>4}  {who:<18} {what:<34} {blanks}")
}

/// A value that may be longer than a line, behind a label of so many columns. What is not printable
/// ASCII is shown as `?`, as it is on screens.
fn folded(label: &str, width: usize, value: &str, columns: usize) -> Vec<String> {
    let plain = |letter: char| if (' '..='~').contains(&letter) { letter } else { '?' };
    let letters: Vec<char> = value.chars().map(plain).collect();
    let mut parts: Vec<String> =
        letters.chunks(columns.saturating_sub(width + 1).max(1)).map(String::from_iter).collect();
    if parts.is_empty() {
        parts.push(String::new());
    }
    let labels = [label].into_iter().chain(std::iter::repeat(""));
    parts.iter().zip(labels).map(|(part, label)| format!("{label:<width$} {part}")).collect()
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
digest       {}  read aloud and typed
             {}

What is planned, in full (what is not named is as usual):
generate.algorithm  AES256
generate.id         bdk-2027
generate.key_set_id AABBCCDD
generate.usage      B0

step  who                what                               initials  time (UTC)
--------------------------------------------------------------------------------
   1  Custodian 1 of 2   comes, logs in, types the digest   ________  __________
",
            in_groups(&digest[..32]),
            in_groups(&digest[32..]),
        );
        assert!(script.starts_with(&head), "{script}");
        let steps = script.lines().filter(|line| line.ends_with("________  __________")).count();
        assert_eq!(steps, planned.steps().len());
    }

    #[test]
    fn nothing_is_digested_that_nobody_sees() {
        let people = "title = \"T\"\ncustodians = [\"a:/a\", \"b:/b\"]\nwitness = \"c:/c\"\n";
        let import = "[import]\ncheck_value = \"0011AA\"\nparity = \"adjusted\"
component_check_values = [\"11AA00\", \"22AA00\"]
[import.key]\nid = \"k\\u001b[2J\"\nusage = \"B0\"\nalgorithm = \"TDES2\"\nmode_of_use = \"X\"
exportability = \"E\"\nkey_set_id = \"AABBCCDDEE\"\ndevice_cap = 77\nopen = true\n";
        let lines = planned_lines(&planned(&format!("{people}{import}")), COLUMNS);
        let width = "import.component_check_values".len();
        let all: Vec<_> = lines.iter().map(|line| line.split_at(width)).collect();
        let mut told = vec![
            ("import.check_value", " 0011AA"),
            ("import.component_check_values", " 11AA00, 22AA00"),
            ("import.key.algorithm", " TDES2"),
            ("import.key.device_cap", " 77"),
            ("import.key.exportability", " E"),
            ("import.key.id", " k?[2J"),
            ("import.key.key_set_id", " AABBCCDDEE"),
            ("import.key.mode_of_use", " X"),
            ("import.key.open", " true"),
            ("import.key.usage", " B0"),
            ("import.parity", " adjusted"),
        ];
        told.sort_unstable();
        assert_eq!(all.iter().map(|(name, value)| (name.trim(), *value)).collect::<Vec<_>>(), told);
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
            format!(
                "[export]\nkey = \"keys/k\"\nwrapping_key = \"keys/w\"\nwrapping_key_{value}{value}"
            ),
        ] {
            let script = script(&planned(&format!("title = \"T\"\n{people}\n{table}")));
            for line in script.lines() {
                assert!(line.len() <= 80, "{line}");
                assert!(line.bytes().all(|octet| (32..127).contains(&octet)), "{line}");
            }
        }
    }
}
