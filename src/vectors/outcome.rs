//! What an operation gave, and whether that is what its vector expects.

use serde_json::Value;

use super::Vector;

/// What came of one vector.
pub type Outcome = Result<Answer, Stop>;

/// What an operation gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether everything verified: what the word `ok` asks for.
    pub verified: bool,
    /// The result, where there is one.
    pub value: Value,
}

/// Why an operation gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What the vector is held against did not do its part: it could not be reached, say.
    Broken(String),
    /// The vector lacks a field or holds one of another type.
    Malformed(String),
    /// A service refused what its policy forbids, whatever the standard allows, and why.
    Policy(String),
    /// The input was refused, and why.
    Refused(String),
    /// The vector can not be expressed through a service, and why.
    Unexpressed(String),
    /// The operation, or the algorithm that it names, is not known here.
    Unknown(String),
}

impl Answer {
    /// An operation that tells only that it succeeded.
    #[must_use]
    pub fn verified() -> Self {
        Self { verified: true, value: Value::Null }
    }

    /// A result as text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::value(Value::from(text))
    }

    /// A result of any form.
    #[must_use]
    pub fn value(value: Value) -> Self {
        Self { verified: false, value }
    }
}

impl Stop {
    pub(super) fn missing(field: &str) -> Self {
        Self::Malformed(format!("`{field}` is missing"))
    }
}

/// Whatever the library refuses, it refuses with an error of its own.
impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Refused(error.to_string())
    }
}

/// The verdict over one vector.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Failed(String),
    Passed,
    /// Refused by the policy of a service where the vector has a value, as the service promises.
    RefusedByPolicy,
    Skipped(String),
}

/// Compares an outcome with what the vector expects.
pub(super) fn judge(vector: &Vector, outcome: &Outcome) -> Verdict {
    let Ok(expected) = vector.expected() else {
        return Verdict::Failed("malformed vector: `expect` is missing".to_owned());
    };
    let failed = |got: String| Verdict::Failed(format!("expected {expected}, got {got}"));
    match outcome {
        Err(Stop::Broken(reason)) => failed(reason.clone()),
        Err(Stop::Malformed(reason)) => Verdict::Failed(format!("malformed vector: {reason}")),
        Err(Stop::Unknown(name)) => Verdict::Skipped(format!("of unknown operation {name}")),
        Err(Stop::Unexpressed(reason)) => Verdict::Skipped(reason.clone()),
        Err(Stop::Policy(_) | Stop::Refused(_)) if may_be_refused(expected) => Verdict::Passed,
        Err(Stop::Policy(_)) => Verdict::RefusedByPolicy,
        Err(Stop::Refused(reason)) => failed(format!("a refusal: {reason}")),
        Ok(answer) if is_expected(expected, answer) => Verdict::Passed,
        Ok(Answer { verified: true, value: Value::Null }) => failed("\"ok\"".to_owned()),
        Ok(Answer { value, .. }) => failed(value.to_string()),
    }
}

fn may_be_refused(expected: &Value) -> bool {
    is_error(expected) || acceptable(expected).is_some()
}

fn is_error(expected: &Value) -> bool {
    expected.as_str().is_some_and(|text| text.starts_with("error:"))
}

/// The value that may be given instead of a refusal.
fn acceptable(expected: &Value) -> Option<&Value> {
    expected.as_object().filter(|object| object.len() == 1)?.get("acceptable")
}

fn is_expected(expected: &Value, answer: &Answer) -> bool {
    if is_error(expected) {
        return false;
    }
    if let Some(value) = acceptable(expected) {
        return is_expected(value, answer);
    }
    if expected == "ok" {
        return answer.verified;
    }
    match (expected, &answer.value) {
        // A result may tell more than the vector asks for, never something else.
        (Value::Object(expected), Value::Object(got)) => {
            !expected.is_empty()
                && expected.iter().all(|(field, value)| got.get(field) == Some(value))
        }
        (expected, got) => expected == got,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(expected: &Value, outcome: &Outcome) -> Verdict {
        let file = json!({"vectors": [{"id": "x", "op": "y", "expect": expected}]});
        judge(&super::super::parse(&file.to_string()).unwrap()[0], outcome)
    }

    fn refused() -> Outcome {
        Err(Stop::Refused("no".to_owned()))
    }

    #[test]
    fn an_error_is_expected_to_be_an_error() {
        assert_eq!(verdict(&json!("error:mac"), &refused()), Verdict::Passed);
        for answer in [Answer::verified(), Answer::text("00"), Answer::text("error:mac")] {
            assert!(matches!(verdict(&json!("error:mac"), &Ok(answer)), Verdict::Failed(_)));
        }
        let malformed = Err(Stop::Malformed("`key` is missing".to_owned()));
        assert!(matches!(verdict(&json!("error:mac"), &malformed), Verdict::Failed(_)));
    }

    #[test]
    fn a_value_is_expected_to_be_that_value() {
        assert_eq!(verdict(&json!("0A"), &Ok(Answer::text("0A"))), Verdict::Passed);
        assert!(matches!(verdict(&json!("0A"), &Ok(Answer::text("0B"))), Verdict::Failed(_)));
        assert!(matches!(verdict(&json!("0A"), &refused()), Verdict::Failed(_)));
        assert_eq!(verdict(&json!("ok"), &Ok(Answer::verified())), Verdict::Passed);
        assert!(matches!(verdict(&json!("ok"), &Ok(Answer::text("ok"))), Verdict::Failed(_)));
        let object = Answer::value(json!({"a": "1", "b": 2}));
        assert_eq!(verdict(&json!({"a": "1"}), &Ok(object.clone())), Verdict::Passed);
        assert!(matches!(verdict(&json!({"a": 1}), &Ok(object.clone())), Verdict::Failed(_)));
        assert!(matches!(verdict(&json!({"c": "1"}), &Ok(object)), Verdict::Failed(_)));
    }

    #[test]
    fn what_is_acceptable_may_also_be_refused() {
        let expected = json!({"acceptable": "0A"});
        assert_eq!(verdict(&expected, &refused()), Verdict::Passed);
        assert_eq!(verdict(&expected, &Ok(Answer::text("0A"))), Verdict::Passed);
        assert!(matches!(verdict(&expected, &Ok(Answer::text("0B"))), Verdict::Failed(_)));
    }

    #[test]
    fn what_is_unknown_is_skipped_by_name() {
        let unknown = Err(Stop::Unknown("cvv".to_owned()));
        let skipped = Verdict::Skipped("of unknown operation cvv".to_owned());
        assert_eq!(verdict(&json!("123"), &unknown), skipped);
    }

    #[test]
    fn a_refusal_by_policy_is_no_failure_and_a_broken_service_is_one() {
        let policy = Err(Stop::Policy("WRAPPING_KEY_TOO_WEAK".to_owned()));
        assert_eq!(verdict(&json!("0A"), &policy), Verdict::RefusedByPolicy);
        assert_eq!(verdict(&json!("error:mac"), &policy), Verdict::Passed);
        let broken = Err(Stop::Broken("nobody answered".to_owned()));
        for expected in [json!("error:mac"), json!("0A"), json!({"acceptable": "0A"})] {
            assert!(matches!(verdict(&expected, &broken), Verdict::Failed(_)));
        }
    }
}
