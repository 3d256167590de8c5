//! What a step is called in a script and on a screen.

use serde_json::Value;

use crate::command::ceremony::plan::{KeyPlan, Planned, Task};
use crate::command::ceremony::step::{Act, Actor, Step};

/// What a plan does, in one line.
pub(super) fn task_of(planned: &Planned) -> String {
    let custodians = planned.plan().custodians.len();
    match planned.task() {
        Task::Destroy(destroy) => {
            format!("destroy {}, check value {}", destroy.key, destroy.check_value)
        }
        Task::Export(export) => format!(
            "export {}, check value {}, under {}, check value {}",
            export.key, export.check_value, export.wrapping_key, export.wrapping_key_check_value
        ),
        Task::Generate(key) => format!("generate {} in {custodians} components", key_of(key)),
        Task::Import(import) => format!(
            "import {} of {custodians} components, check value {}",
            key_of(&import.key),
            import.check_value
        ),
        Task::Initialise(shares) => {
            let threshold = shares.threshold;
            format!("make the first master key in {custodians} shares, {threshold} of them needed")
        }
        Task::ReShare(shares) => {
            let threshold = shares.threshold;
            format!("make another master key in {custodians} shares, {threshold} of them needed")
        }
    }
}

fn key_of(key: &KeyPlan) -> String {
    format!("keys/{}, usage {}, {},", key.id, key.usage.as_str(), key.algorithm)
}

/// Everything that a plan says of what it does, each with its name, by the names. It is read from
/// the canonical form: nothing is digested that nobody sees. (Title, people and time-out stand by
/// themselves wherever this does.)
pub(super) fn fields_of(planned: &Planned) -> Vec<(String, String)> {
    let plan: Value =
        serde_json::from_slice(&planned.canonical()).expect("the canonical form of a plan is JSON");
    let mut fields = Vec::new();
    for (name, task) in plan.as_object().into_iter().flatten().filter(|one| one.1.is_object()) {
        add_fields(&mut fields, name, task);
    }
    fields
}

fn add_fields(fields: &mut Vec<(String, String)>, name: &str, value: &Value) {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Value::Object(members) = value {
        for (member, value) in members {
            add_fields(fields, &format!("{name}.{member}"), value);
        }
    } else if let Value::Array(values) = value {
        fields.push((name.to_owned(), values.iter().map(plain).collect::<Vec<_>>().join(", ")));
    } else {
        fields.push((name.to_owned(), plain(value)));
    }
}

/// Who somebody is at the table.
pub(super) fn role_of(planned: &Planned, actor: Actor) -> String {
    match actor {
        Actor::Custodian(number) => {
            format!("Custodian {number} of {}", planned.plan().custodians.len())
        }
        Actor::Witness => "Witness".to_owned(),
    }
}

/// What custodians hold: `component` or `share`.
pub(super) fn part_of(planned: &Planned) -> &'static str {
    match planned.task() {
        Task::Destroy(_) | Task::Export(_) | Task::Generate(_) | Task::Import(_) => "component",
        Task::Initialise(_) | Task::ReShare(_) => "share",
    }
}

/// A step in one line of a script: 34 characters at most.
pub(super) fn brief(planned: &Planned, step: Step) -> String {
    let part = part_of(planned);
    match step.act {
        Act::Confirm => "confirms the key's check value".to_owned(),
        Act::Enter => format!("types the {part}, check value"),
        Act::Join => "comes, logs in, types the digest".to_owned(),
        Act::ReadBack => format!("types the {part} back"),
        Act::Reveal => format!("hands the {part} over"),
        Act::Sign => "signs the transcript".to_owned(),
        Act::Take if part == "share" => "types the digest, gets the share".to_owned(),
        Act::Take => format!("gets the {part} on a slip"),
    }
}

/// What somebody has done in a step, in the words of what happened.
pub(super) const fn done(step: Step) -> &'static str {
    match step.act {
        Act::Confirm => "confirmed",
        Act::Enter => "typed it, and is bound to it",
        Act::Join => "is here, with the right plan",
        Act::ReadBack => "read the slip back",
        Act::Reveal => "handed it over",
        Act::Sign => "signed",
        Act::Take => "has the slip",
    }
}

/// What is expected in a step, a paragraph each.
pub(super) fn expected(planned: &Planned, step: Step) -> Vec<String> {
    let part = part_of(planned);
    match step.act {
        Act::Confirm => vec![format!("To {}.", task_of(planned)), confirmation(planned).to_owned()],
        Act::Enter => vec![
            format!(
                "Open your envelope and type your {part}, group by group. Nobody else looks at \
                 the slip or at your hands; nothing of it is shown."
            ),
            "It stays in this tool until all have typed theirs: nobody can choose a component \
             knowing the others."
                .to_owned(),
        ],
        Act::Join => vec![
            "Type the first line of the plan's digest, 32 digits, as they stand on your paper. \
             Those of another plan are refused."
                .to_owned(),
        ],
        Act::ReadBack => {
            let mut told = vec![
                format!(
                    "Type your {part} back from the slip, so that nobody relies on a misprint."
                ),
                format!(
                    "If the slip can not be read, stop: there is no second print, and the ceremony \
                     is begun again with another {part}."
                ),
            ];
            if is_last_share(planned, step) {
                told.push(confirmation(planned).to_owned());
            }
            told
        }
        Act::Reveal => vec![format!(
            "All have typed theirs. Your {part} goes to the service now, sealed for it alone."
        )],
        Act::Sign => vec![
            "What the ceremony is for has happened. Your key signs the transcript as it stands."
                .to_owned(),
        ],
        Act::Take => vec![
            format!("Your {part} is printed now, once. Nobody else stands at the printer."),
            "Have an envelope ready. Look at the slip alone; do not put it into the envelope \
             before you have read it back."
                .to_owned(),
        ],
    }
}

/// Whether a step puts a master key in force: the last share is read back.
fn is_last_share(planned: &Planned, step: Step) -> bool {
    let last = planned.steps().into_iter().rfind(|one| one.act == Act::ReadBack);
    part_of(planned) == "share" && last == Some(step)
}

/// What is compared before it is confirmed, and what the last confirmation does; or the last share
/// that is read back.
fn confirmation(planned: &Planned) -> &'static str {
    match planned.task() {
        Task::Destroy(_) => {
            "Compare the key and its check value with the order to destroy it. With the \
             last confirmation it is destroyed."
        }
        Task::Export(_) => {
            "Compare the key and its check value with the agreement. With the last \
             confirmation it is exported."
        }
        Task::Generate(_) => {
            "Write down the key's check value. With the last confirmation the key becomes \
             active."
        }
        Task::Import(_) => {
            "Take the key's check value from the sender's letter, not from this screen. \
             With the last confirmation the key becomes active."
        }
        Task::Initialise(_) => {
            "This is the last share: once it is read back, the service begins its store under \
             the new master key."
        }
        Task::ReShare(_) => {
            "This is the last share: once it is read back, the new master key takes the old \
             one's place."
        }
    }
}
