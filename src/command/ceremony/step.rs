//! The steps of a ceremony: a plan fixes all of them, and who does each, in one order.

use serde::{Deserialize, Serialize};

use super::plan::{Planned, Task};

/// Who does a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The custodian of a component or share, by its number from 1.
    Custodian(u8),
    /// The witness.
    Witness,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Compares the check value with what is expected.
    Confirm,
    /// Commits to a component: what it is can not change any more, and nobody knows it yet.
    Enter,
    /// Comes, and reads the digest of the plan.
    Join,
    /// Types what the slip says.
    ReadBack,
    /// Hands over the component that was committed to.
    Reveal,
    /// Signs the transcript.
    Sign,
    /// Gets a component or share, once, on a slip.
    Take,
}

impl Act {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Enter => "enter",
            Self::Join => "join",
            Self::ReadBack => "read-back",
            Self::Reveal => "reveal",
            Self::Sign => "sign",
            Self::Take => "take",
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// By whom.
    pub actor: Actor,
}

impl Planned {
    /// All steps in their order. With the last before the first [`Act::Sign`] the thing is done;
    /// before it, nothing is.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let everybody = |act| {
            let witness = Step { act, actor: Actor::Witness };
            self.each(&[act]).into_iter().chain([witness])
        };
        // Nobody leaves the table before the slip was read back.
        let slips = || self.each(&[Act::Take, Act::ReadBack]);
        let middle = match self.task() {
            Task::Destroy(_) | Task::Export(_) => Vec::new(),
            // All have committed before the first reveals, so that nobody can steer the key.
            Task::Import(_) => [self.each(&[Act::Enter]), self.each(&[Act::Reveal])].concat(),
            Task::Generate(_) => slips(),
            // Who takes a share comes with the digest of the plan; there is nothing to compare.
            Task::Initialise(_) | Task::ReShare(_) => {
                return slips().into_iter().chain(everybody(Act::Sign)).collect();
            }
        };
        everybody(Act::Join)
            .chain(middle)
            .chain(everybody(Act::Confirm))
            .chain(everybody(Act::Sign))
            .collect()
    }

    /// Who does a step, by the name in the plan.
    #[must_use]
    pub fn name_of(&self, actor: Actor) -> Option<&str> {
        let plan = self.plan();
        match actor {
            Actor::Custodian(number) => {
                let place = usize::from(number).checked_sub(1)?;
                plan.custodians.get(place).map(String::as_str)
            }
            Actor::Witness => Some(&plan.witness),
        }
    }

    /// Acts of one custodian after the other.
    fn each(&self, acts: &[Act]) -> Vec<Step> {
        let custodians = u8::try_from(self.plan().custodians.len()).unwrap_or(u8::MAX);
        let numbers = 1..=custodians;
        numbers
            .flat_map(|number| acts.iter().map(move |act| (number, *act)))
            .map(|(number, act)| Step { act, actor: Actor::Custodian(number) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;

    fn steps(table: &str, custodians: usize) -> String {
        let names: Vec<_> = (1..=custodians).map(|one| format!("c{one}")).collect();
        let text = format!("title = \"T\"\ncustodians = {names:?}\nwitness = \"w\"\n{table}");
        let planned = toml::from_str::<Plan>(&text).unwrap().check().unwrap();
        let shown = planned.steps().into_iter().map(|step| {
            let who = planned.name_of(step.actor).unwrap().to_owned();
            format!("{} {who}", step.act.as_str())
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn every_kind_of_plan() {
        let key = "id = \"k\"\nusage = \"B0\"\nalgorithm = \"AES128\"\n";
        let (joins, signs) = ("join c1, join c2, join w", "sign c1, sign c2, sign w");
        let confirms = "confirm c1, confirm c2, confirm w";
        let slips = "take c1, read-back c1, take c2, read-back c2";
        let value = "check_value = \"0011AA\"\n";
        let values = "component_check_values = [\"0011AA\", \"0011AA\"]\n";
        for (table, middle) in [
            (format!("[generate]\n{key}"), format!("{slips}, ")),
            (
                format!("[import]\n{value}{values}[import.key]\n{key}"),
                "enter c1, enter c2, reveal c1, reveal c2, ".to_owned(),
            ),
            (format!("[destroy]\nkey = \"keys/k/versions/1\"\n{value}"), String::new()),
            (
                format!(
                    "[export]\nkey = \"keys/k\"\n{value}wrapping_key = \"keys/w\"\n\
                     wrapping_key_{value}"
                ),
                String::new(),
            ),
        ] {
            assert_eq!(
                steps(&table, 2),
                format!("{joins}, {middle}{confirms}, {signs}"),
                "{table}"
            );
        }
        for table in ["[initialise]\nthreshold = 2\n", "[re_share]\nthreshold = 2\n"] {
            assert_eq!(steps(table, 2), format!("{slips}, {signs}"), "{table}");
        }
    }

    #[test]
    fn nobody_else_has_a_part() {
        let people = "custodians = [\"a\", \"b\"]\nwitness = \"w\"\n";
        let text = format!("title = \"T\"\n{people}[initialise]\nthreshold = 2\n");
        let planned = toml::from_str::<Plan>(&text).unwrap().check().unwrap();
        assert_eq!(planned.name_of(Actor::Custodian(0)), None);
        assert_eq!(planned.name_of(Actor::Custodian(3)), None);
    }
}
