//! The plan of a ceremony: what shall be done, by whom, fixed before anybody comes.
//!
//! It is written as a short file. What is run is the plan of a digest, which was read aloud:
//!
//! ```text
//! digest = SHA-256(label || the plan as compact JSON, its fields in the order of this file)
//! ```

use serde::{Deserialize, Serialize};

use crate::agreement::label;
use crate::component::{COMPONENTS, Parity};
use crate::crypto::digest::sha256;
use crate::key::Algorithm;
use crate::vault::{Exportability, KeyUsage, ModeOfUse};

/// Custodians of shares: as many as the threshold says are needed.
pub const SHARES: std::ops::RangeInclusive<usize> = 2..=16;

/// What shall be done, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What people call it, 1 to 80 printable ASCII characters.
    pub title: String,
    /// The URI names of the custodians: the first has component or share 1.
    pub custodians: Vec<String>,
    /// The URI name of the witness, an auditor, who has no component.
    pub witness: String,
    /// After so many minutes in which no step is done, the ceremony is aborted: 1 to 120.
    #[serde(default = "idle_minutes")]
    pub idle_minutes: u16,
    /// A key is taken out of use for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy: Option<Destroy>,
    /// A key leaves under another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// A key is made here and given out in components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<KeyPlan>,
    /// A key comes in components that custodians bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Import>,
    /// The first master key is made and given out in shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialise: Option<Shares>,
    /// Another master key takes the place of the one in use, and is given out in shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub re_share: Option<Shares>,
}

/// A key of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPlan {
    /// Its id in `keys/{id}`.
    pub id: String,
    /// Its usage code (ANSI X9.143:2021, 6.3.2).
    pub usage: KeyUsage,
    /// Its algorithm and length, such as `AES256`.
    pub algorithm: Algorithm,
    /// Its mode of use (6.3.4); none for the usual one of the usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_of_use: Option<ModeOfUse>,
    /// Where it may go (6.3.6); none for nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportability: Option<Exportability>,
    /// Base derivation keys: the key set id in hexadecimals, 5 bytes for TDES, 4 for AES.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set_id: Option<String>,
    /// Base derivation keys: how many initial keys it may give out; none for the usual cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_cap: Option<u32>,
    /// Base derivation keys: serves terminals that are loaded elsewhere.
    #[serde(default, skip_serializing_if = "is_false")]
    pub open: bool,
}

/// A key that custodians bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The key that its components make.
    pub key: KeyPlan,
    /// Its check value as its sender told it, in hexadecimals.
    pub check_value: String,
    /// The check values of its components in their order, as their slips have them.
    pub component_check_values: Vec<String>,
    /// TDES: components come in odd parity, or theirs is of no consequence.
    #[serde(default)]
    pub parity: Parity,
}

/// A key that leaves under another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// `keys/{key}`, or a version of it.
    pub key: String,
    /// Its check value in hexadecimals.
    pub check_value: String,
    /// `keys/{key}`, the key encryption key that the partner has too.
    pub wrapping_key: String,
    /// Its check value in hexadecimals, as the partner has it too.
    pub wrapping_key_check_value: String,
    /// What the block says of further export; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportability: Option<Exportability>,
}

/// A key that is destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destroy {
    /// `keys/{key}/versions/{n}`.
    pub key: String,
    /// Its check value in hexadecimals.
    pub check_value: String,
}

/// How a master key is given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// How many of the custodians are needed to unseal: 2 at least.
    pub threshold: u8,
}

/// What a plan does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<'a> {
    /// See [`Plan::destroy`].
    Destroy(&'a Destroy),
    /// See [`Plan::export`].
    Export(&'a Export),
    /// See [`Plan::generate`].
    Generate(&'a KeyPlan),
    /// See [`Plan::import`].
    Import(&'a Import),
    /// See [`Plan::initialise`].
    Initialise(&'a Shares),
    /// See [`Plan::re_share`].
    ReShare(&'a Shares),
}

/// Why a plan is none: which of its fields, and what must stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct PlanInvalid {
    /// The field, by its name in the file.
    pub field: &'static str,
    /// What must stand there.
    pub rule: &'static str,
}

/// A plan that was checked: it does one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned(Plan);

impl Plan {
    /// Checks what can be checked without the service that runs it.
    pub fn check(self) -> Result<Planned, PlanInvalid> {
        let invalid = |field, rule| Err(PlanInvalid { field, rule });
        let is_title = |title: &str| {
            (1..=80).contains(&title.len()) && title.bytes().all(|octet| (32..127).contains(&octet))
        };
        if !is_title(&self.title) {
            return invalid("title", "1 to 80 printable ASCII characters");
        }
        if !(1..=120).contains(&self.idle_minutes) {
            return invalid("idle_minutes", "1 to 120");
        }
        if self.tasks().len() != 1 {
            return invalid(
                "plan",
                "exactly one table: initialise, generate, import, export, re_share or destroy",
            );
        }
        for (place, name) in self.custodians.iter().enumerate() {
            if self.custodians[..place].contains(name) || *name == self.witness {
                return invalid("custodians", "each another, and none the witness");
            }
        }
        if let Some((field, rule)) = self.tasks().into_iter().find_map(|task| self.wrong(task)) {
            return invalid(field, rule);
        }
        Ok(Planned(self))
    }

    fn tasks(&self) -> Vec<Task<'_>> {
        [
            self.destroy.as_ref().map(Task::Destroy),
            self.export.as_ref().map(Task::Export),
            self.generate.as_ref().map(Task::Generate),
            self.import.as_ref().map(Task::Import),
            self.initialise.as_ref().map(Task::Initialise),
            self.re_share.as_ref().map(Task::ReShare),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn wrong(&self, task: Task<'_>) -> Option<(&'static str, &'static str)> {
        let custodians = self.custodians.len();
        let check_value = ("check_value", "3 or 5 bytes in upper case hexadecimals");
        match task {
            Task::Destroy(Destroy { check_value: value, .. })
            | Task::Export(Export { check_value: value, .. })
                if COMPONENTS.contains(&custodians) && !is_check_value(value) =>
            {
                Some(check_value)
            }
            Task::Export(Export { wrapping_key_check_value: value, .. })
                if COMPONENTS.contains(&custodians) && !is_check_value(value) =>
            {
                Some(("wrapping_key_check_value", check_value.1))
            }
            Task::Destroy(_) | Task::Export(_) | Task::Generate(_) => {
                (!COMPONENTS.contains(&custodians)).then_some(("custodians", "2 to 5"))
            }
            Task::Import(import) => {
                let values = &import.component_check_values;
                if !COMPONENTS.contains(&custodians) {
                    Some(("custodians", "2 to 5"))
                } else if !is_check_value(&import.check_value) {
                    Some(check_value)
                } else if values.len() != custodians
                    || !values.iter().all(|one| is_check_value(one))
                {
                    Some(("component_check_values", "one for each custodian, in their order"))
                } else {
                    None
                }
            }
            Task::Initialise(shares) | Task::ReShare(shares) => {
                if !SHARES.contains(&custodians) {
                    Some(("custodians", "2 to 16"))
                } else if !(2..=custodians).contains(&usize::from(shares.threshold)) {
                    Some(("threshold", "2 at least, and no more than there are custodians"))
                } else {
                    None
                }
            }
        }
    }
}

impl Planned {
    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.0
    }

    /// What it does.
    #[must_use]
    pub fn task(&self) -> Task<'_> {
        self.0.tasks().into_iter().next().expect("a plan that was checked does one thing")
    }

    /// The plan as it is digested.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0)
            .expect("a plan is words and numbers, which all have a JSON form")
    }

    /// What is read aloud before a plan is run.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[label::CEREMONY_PLAN.as_bytes(), &self.canonical()])
    }
}

const fn idle_minutes() -> u16 {
    15
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Whether this is a check value: TDES has 3 bytes, AES and HMAC 5 (or 3 of them).
fn is_check_value(text: &str) -> bool {
    let is_digit = |octet: u8| octet.is_ascii_digit() || (b'A'..=b'F').contains(&octet);
    [6, 10].contains(&text.len()) && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Plan {
        toml::from_str(text).unwrap()
    }

    fn people(count: usize) -> String {
        let names: Vec<_> = (1..=count).map(|one| format!("spiffe://a/custodian/{one}")).collect();
        format!("title = \"T\"\ncustodians = {names:?}\nwitness = \"spiffe://a/auditor/w\"\n")
    }

    const KEY: &str = "[generate]\nid = \"bdk\"\nusage = \"B0\"\nalgorithm = \"AES256\"\n";

    #[test]
    fn the_same_plan_has_the_same_digest_however_its_file_is_laid_out() {
        let one = read(&format!("{}{KEY}", people(3))).check().unwrap();
        let other = KEY.replace('\n', "\n# a comment\n\n").replace(" = ", "  =  ");
        let other = read(&format!("idle_minutes = 15\n{}{other}", people(3))).check().unwrap();
        assert_eq!(one.digest(), other.digest());
        for changed in [
            format!("{}{}", people(2), KEY),
            format!("{}{}", people(3), KEY.replace("bdk", "bdl")),
            format!("idle_minutes = 16\n{}{KEY}", people(3)),
            format!("{}{KEY}open = true\n", people(3)),
        ] {
            assert_ne!(one.digest(), read(&changed).check().unwrap().digest(), "{changed}");
        }
        let back: Plan = serde_json::from_slice(&one.canonical()).unwrap();
        assert_eq!(back.check().unwrap(), one);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let import = "[import]\ncheck_value = \"0011AA\"\n\
            component_check_values = [\"0011AA\", \"0011AA\"]\n\
            [import.key]\nid = \"k\"\nusage = \"K0\"\nalgorithm = \"TDES2\"\n";
        assert!(read(&format!("{}{import}", people(2))).check().is_ok());
        let export = "[export]\nkey = \"keys/k\"\nwrapping_key = \"keys/w\"\n";
        let (value, under) = ("check_value = \"0011AA\"\n", "wrapping_key_check_value");
        let witness = people(2).replace("auditor/w", "custodian/2");
        let twice = people(2).replace("custodian/2", "custodian/1");
        let no_title = people(2).replace("\"T\"", "\"\"");
        for (text, field) in [
            (people(3), "plan"),
            (format!("{}{KEY}[initialise]\nthreshold = 2\n", people(3)), "plan"),
            (format!("{}{KEY}", people(1)), "custodians"),
            (format!("{}{KEY}", people(6)), "custodians"),
            (format!("{witness}{KEY}"), "custodians"),
            (format!("{twice}{KEY}"), "custodians"),
            (format!("{no_title}{KEY}"), "title"),
            (format!("idle_minutes = 0\n{}{KEY}", people(2)), "idle_minutes"),
            (format!("{}{import}", people(3)), "component_check_values"),
            (
                format!("{}{}", people(2), import.replace("\"0011AA\"\n", "\"0011\"\n")),
                "check_value",
            ),
            (format!("{}{export}{value}wrapping_key_check_value = \"\"\n", people(2)), under),
            (
                format!("{}{export}check_value = \"\"\n{under} = \"0011AA\"\n", people(2)),
                "check_value",
            ),
            (format!("{}{export}{value}{under} = \"0011AA\"\n", people(1)), "custodians"),
            (format!("{}[initialise]\nthreshold = 1\n", people(3)), "threshold"),
            (format!("{}[re_share]\nthreshold = 4\n", people(3)), "threshold"),
            (format!("{}[re_share]\nthreshold = 4\n", people(17)), "custodians"),
        ] {
            assert_eq!(read(&text).check().unwrap_err().field, field, "{text}");
        }
        assert!(toml::from_str::<Plan>(&format!("{}{KEY}mod = \"X\"\n", people(2))).is_err());
    }
}
