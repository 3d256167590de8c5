//! Random policies against an evaluator that knows nothing of the real one; and what is no policy.

use proptest::prelude::*;

use super::super::{Action, Caller, Error, Realm, Reason, Role, UnixMillis};
use super::{Grant, KeyUse, Policy, Principal, Question, format_word};
use crate::pin::PinBlockFormat;

const NAMES: [&str; 4] = ["spiffe://a/1", "spiffe://a/2", "spiffe://b/1", "spiffe://c"];
const NAME_PATTERNS: [&str; 6] =
    ["spiffe://a/1", "spiffe://a/*", "spiffe://b/1", "spiffe://*", "*", "spiffe://a/"];
const IDS: [&str; 4] = ["a", "ab", "b-1", "b-2"];
const KEY_PATTERNS: [&str; 7] =
    ["keys/a", "keys/a*", "keys/ab", "keys/b-*", "keys/b-1", "keys/*", "keys/zz"];
const CALLS: [Action; 3] = [Action::TranslatePin, Action::VerifyMac, Action::GetKey];
const WORDS: [&str; 3] = ["ISO_0", "ISO_3", "ISO_4"];
const FORMATS: [PinBlockFormat; 3] =
    [PinBlockFormat::Iso0, PinBlockFormat::Iso3, PinBlockFormat::Iso4];

fn some_of(from: &'static [&'static str], most: usize) -> BoxedStrategy<Vec<String>> {
    let words = proptest::sample::subsequence(from.to_vec(), 0..=most);
    words.prop_map(|words| words.into_iter().map(str::to_owned).collect()).boxed()
}

fn a_grant() -> impl Strategy<Value = Grant> {
    let moment = || proptest::option::of((0_u64..10).prop_map(UnixMillis));
    let calls = some_of(&["TranslatePin", "VerifyMac", "GenerateMac"], 3);
    (
        proptest::sample::select(KEY_PATTERNS.to_vec()),
        some_of(&NAME_PATTERNS, 3),
        calls,
        (some_of(&WORDS, 2), some_of(&WORDS, 2), some_of(&KEY_PATTERNS, 2)),
        (moment(), moment(), 0_u32..3),
    )
        .prop_map(|(key, principals, calls, (come, go, partners), (from, to, rate))| Grant {
            key: key.to_owned(),
            principals,
            calls,
            pin_formats_in: come,
            pin_formats_out: go,
            partner_keys: partners,
            calls_per_minute_max: rate,
            not_before: from,
            not_after: to,
        })
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let role = || proptest::sample::select(vec![Role::Backend, Role::Backend, Role::Officer]);
    let profiles = || some_of(&["profiles/a", "profiles/a*", "profiles/*"], 1);
    let principal = |name: &'static str| {
        proptest::option::of((role(), profiles()).prop_map(move |(role, profiles)| Principal {
            name: name.to_owned(),
            person: String::new(),
            role,
            profiles,
            calls_per_minute_max: 0,
        }))
    };
    let principals = NAMES.map(principal).to_vec();
    (principals, proptest::collection::vec(a_grant(), 0..6)).prop_map(|(principals, grants)| {
        let principals = principals.into_iter().flatten().collect();
        Policy { version: 1, principals, grants, ..Policy::none() }
    })
}

/// What is asked of a key: its index in [`IDS`], and formats by their index.
type Use = (Option<usize>, Option<usize>, Option<usize>);

fn a_use() -> impl Strategy<Value = Use> {
    let format = || proptest::option::of(0_usize..3);
    (proptest::option::weighted(0.9, 0_usize..4), format(), format())
}

/// The evaluator in plain words, with nothing of the real one in it.
mod naive {
    use super::*;

    pub(super) fn like(pattern: &str, name: &str) -> bool {
        match pattern.find('*') {
            Some(at) => name.len() >= at && name.as_bytes()[..at] == pattern.as_bytes()[..at],
            None => pattern.len() == name.len() && pattern.bytes().eq(name.bytes()),
        }
    }

    fn has(list: &[String], word: Option<usize>) -> bool {
        let Some(word) = word else { return true };
        list.is_empty() || list.contains(&WORDS[word].to_owned())
    }

    pub(super) fn expected(
        policy: &Policy,
        name: &str,
        action: Action,
        uses: &[Use],
        now: u64,
    ) -> Result<(), Reason> {
        let mut role = None;
        for principal in &policy.principals {
            if principal.name == name {
                role = Some(principal.role);
            }
        }
        let Some(role) = role else { return Err(Reason::CallerUnknown) };
        let is_hot = action != Action::GetKey;
        if (role == Role::Backend) != is_hot {
            return Err(Reason::PolicyDenied);
        }
        if role == Role::Officer {
            return Ok(());
        }
        let mut is_denied = false;
        for (place, (key, come, go)) in uses.iter().enumerate() {
            let Some(key) = key else { return Err(Reason::TerminalNotFound) };
            let full = format!("keys/{}", IDS[*key]);
            let mut is_named = false;
            let mut is_granted = false;
            for grant in &policy.grants {
                let of_caller = grant.principals.iter().any(|one| like(one, name));
                if !of_caller || !like(&grant.key, &full) {
                    continue;
                }
                is_named = true;
                let begun = grant.not_before.map_or(0, |moment| moment.0) <= now;
                let lasts = grant.not_after.map_or(u64::MAX, |moment| moment.0) >= now;
                let mut partners_fit = true;
                for (at, (other, other_come, other_go)) in uses.iter().enumerate() {
                    let Some(other) = other else { continue };
                    let other_name = format!("keys/{}", IDS[*other]);
                    let listed = grant.partner_keys.iter().any(|one| like(one, &other_name));
                    let passes = (come.is_some() && other_go.is_some())
                        || (go.is_some() && other_come.is_some());
                    let is_other = at != place && (other != key || passes);
                    if is_other && !grant.partner_keys.is_empty() && !listed {
                        partners_fit = false;
                    }
                }
                is_granted |= grant.calls.contains(&action.as_str().to_owned())
                    && begun
                    && lasts
                    && has(&grant.pin_formats_in, *come)
                    && has(&grant.pin_formats_out, *go)
                    && partners_fit;
            }
            if !is_named {
                return Err(Reason::KeyNotFound);
            }
            is_denied |= !is_granted;
        }
        if is_denied { Err(Reason::PolicyDenied) } else { Ok(()) }
    }
}

fn keys_of(uses: &[Use]) -> Vec<KeyUse<'static>> {
    let one = |(key, come, go): &Use| KeyUse {
        key: key.map(|key| IDS[key]).ok_or(Reason::TerminalNotFound),
        format_in: come.map(|index| FORMATS[index]),
        format_out: go.map(|index| FORMATS[index]),
    };
    uses.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn random_policies_decide_as_plain_words_say(
        policy in a_policy(),
        name in proptest::sample::select(NAMES.to_vec()),
        action in proptest::sample::select(CALLS.to_vec()),
        uses in proptest::collection::vec(a_use(), 0..4),
        now in 0_u64..10,
    ) {
        let role = policy.principal(name).map_or(Role::Backend, |principal| principal.role);
        let caller = Caller::new(name, name, role, "");
        let (keys, moment) = (keys_of(&uses), UnixMillis(now));
        let decided = policy.decide(&caller, action)
            .and_then(|()| policy.decide_keys(&caller, action, &keys, moment));
        let reason = decided.as_ref().map(|_| ()).map_err(|denial| denial.error.reason());
        let plain = naive::expected(&policy, name, action, &uses, now);
        // Which of several resources is missing is no matter of policy: the first one, in order.
        prop_assert_eq!(&reason, &plain);
        for profile in ["a", "ab", "b"] {
            let full = format!("profiles/{profile}");
            let listed = policy.principals.iter().any(|one| {
                one.name == name && one.profiles.iter().any(|pattern| naive::like(pattern, &full))
            });
            let expected = role != Role::Backend || listed;
            prop_assert_eq!(policy.sees_profile(&caller, profile), expected);
        }
        // What is explained is what is decided, as long as all keys are named.
        if !keys.is_empty() && keys.iter().all(|key| key.key.is_ok()) {
            let question = Question { principal: name, action, keys: &keys, profile: None };
            let explained = policy.explain(&question, moment);
            prop_assert_eq!(explained.allowed, plain.is_ok(), "{:?}", explained.because);
            prop_assert!(!explained.because.is_empty());
        }
    }
}

fn principal(name: &str, person: &str, role: Role) -> Principal {
    let (name, person) = (name.to_owned(), person.to_owned());
    Principal { name, person, role, profiles: Vec::new(), calls_per_minute_max: 0 }
}

pub(super) fn grant() -> Grant {
    Grant {
        key: "keys/zone".to_owned(),
        principals: vec!["spiffe://x/backend".to_owned()],
        calls: vec!["TranslatePin".to_owned()],
        pin_formats_in: vec!["ISO_0".to_owned()],
        pin_formats_out: Vec::new(),
        partner_keys: vec!["keys/*".to_owned()],
        calls_per_minute_max: 0,
        not_before: None,
        not_after: None,
    }
}

/// Two officers, a backend and its grant.
pub(super) fn sound() -> Policy {
    let mut backend = principal("spiffe://x/backend", "", Role::Backend);
    backend.profiles = vec!["profiles/retail".to_owned()];
    Policy {
        version: 1,
        principals: vec![
            principal("spiffe://x/officer/ann", "ann", Role::Officer),
            principal("spiffe://x/officer/ben", "ben", Role::Officer),
            backend,
        ],
        grants: vec![grant()],
        ..Policy::none()
    }
}

/// The field for which a policy is refused in realm live; empty where it is not.
pub(super) fn fault(change: impl FnOnce(&mut Policy)) -> String {
    let mut policy = sound();
    change(&mut policy);
    policy.check(Realm::Live).err().map(|invalid| invalid.path).unwrap_or_default()
}

#[test]
fn no_person_has_two_roles() {
    assert_eq!(fault(|_| ()), "");
    for one in Role::GIVEN {
        for other in Role::GIVEN {
            let is_person = |role| !matches!(role, Role::Backend | Role::TerminalRelay);
            let person_of = |role| if is_person(role) { "cleo" } else { "" };
            let fault = fault(|policy| {
                policy.principals.push(principal("spiffe://x/1", person_of(one), one));
                policy.principals.push(principal("spiffe://x/2", person_of(other), other));
            });
            // Two machines are two: each certificate is for itself.
            let both_persons = is_person(one) && is_person(other);
            let expected = if both_persons && one != other { "principals[4].role" } else { "" };
            assert_eq!(fault, expected, "{one:?} {other:?}");
        }
        let as_nobody = fault(|policy| policy.principals[0].role = Role::Stranger);
        assert_eq!(as_nobody, "principals[0].role");
    }
}

#[test]
fn who_would_lock_everybody_out_is_refused() {
    assert_eq!(fault(|policy| policy.votes_required = 0), "votes_required");
    assert_eq!(fault(|policy| policy.votes_required = 2), "principals");
    assert_eq!(fault(|policy| policy.votes_required = 11), "votes_required");
    assert_eq!(fault(|policy| policy.principals.clear()), "grants[0].principals[0]");
    // Two certificates of one officer are one vote.
    let twice = fault(|policy| "ann".clone_into(&mut policy.principals[1].person));
    assert_eq!(twice, "principals");
    let mut waived = sound();
    waived.votes_required = 0;
    waived.principals.remove(0);
    assert_eq!(waived.check(Realm::Dev), Ok(()));
}

#[test]
fn each_field_has_its_bounds() {
    let of = |change: fn(&mut Policy)| fault(change);
    assert_eq!(of(|policy| policy.approval_seconds = 59), "approval_seconds");
    assert_eq!(of(|policy| policy.approval_seconds = 86_401), "approval_seconds");
    for bad in ["", "ann", "spiffe:", ":x", "1x:y", "spiffe://x/*", "spiffe://x y", "spiffe://é"] {
        let fault = fault(|policy| bad.clone_into(&mut policy.principals[0].name));
        assert_eq!(fault, "principals[0].name", "{bad}");
    }
    assert_eq!(
        of(|policy| policy.principals[1] = policy.principals[0].clone()),
        "principals[1].name"
    );
    for bad in ["", "Ann", "a b", "a/b"] {
        let fault = fault(|policy| bad.clone_into(&mut policy.principals[0].person));
        assert_eq!(fault, "principals[0].person", "{bad}");
    }
    assert_eq!(
        of(|policy| "x".clone_into(&mut policy.principals[2].person)),
        "principals[2].person"
    );
    assert_eq!(
        of(|policy| policy.principals[0].profiles.push("profiles/a".to_owned())),
        "principals[0].profiles"
    );
    for bad in ["", "profiles/", "profiles/A", "keys/a", "profiles/a**", "profiles/*a", "*"] {
        let fault = fault(|policy| bad.clone_into(&mut policy.principals[2].profiles[0]));
        assert_eq!(fault, "principals[2].profiles[0]", "{bad}");
    }
    for bad in ["", "zone", "keys/", "keys/-a", "keys/a-", "profiles/a", "*"] {
        let fault = fault(|policy| bad.clone_into(&mut policy.grants[0].key));
        assert_eq!(fault, "grants[0].key", "{bad}");
    }
    assert_eq!(of(|policy| policy.grants[0].principals.clear()), "grants[0].principals");
    for nobody in ["spiffe://x/backnd", "x*"] {
        let fault = fault(|policy| nobody.clone_into(&mut policy.grants[0].principals[0]));
        assert_eq!(fault, "grants[0].principals[0]", "{nobody}");
    }
    let officer = |policy: &mut Policy| {
        "spiffe://x/officer/ann".clone_into(&mut policy.grants[0].principals[0]);
    };
    assert_eq!(of(officer), "grants[0].principals[0]", "no grant opens a key to an officer");
    assert_eq!(
        of(|policy| policy.principals[2].role = Role::TerminalRelay),
        "principals[2].profiles"
    );
    assert_eq!(of(|policy| policy.grants[0].calls.clear()), "grants[0].calls");
    for bad in ["ExportKey", "translatepin", "*", ""] {
        let fault = fault(|policy| bad.clone_into(&mut policy.grants[0].calls[0]));
        assert_eq!(fault, "grants[0].calls[0]", "{bad}");
    }
    for bad in ["ISO_2", "ISO0", ""] {
        let fault = fault(|policy| bad.clone_into(&mut policy.grants[0].pin_formats_in[0]));
        assert_eq!(fault, "grants[0].pin_formats_in[0]", "{bad}");
    }
    assert_eq!(
        of(|policy| "zone".clone_into(&mut policy.grants[0].partner_keys[0])),
        "grants[0].partner_keys[0]"
    );
    let over = of(|policy| {
        policy.grants[0].not_before = Some(UnixMillis(2));
        policy.grants[0].not_after = Some(UnixMillis(1));
    });
    assert_eq!(over, "grants[0].not_after");
    assert_eq!(of(|policy| policy.grants = vec![grant(); 5_001]), "grants");
    let many = |count: usize| {
        let name = |number| principal(&format!("spiffe://x/{number}"), "", Role::Backend);
        fault(move |policy| policy.principals.extend((0..count).map(name)))
    };
    assert_eq!((many(997).as_str(), many(998).as_str()), ("", "principals"));
}

#[test]
fn one_key_on_both_sides_is_a_partner_of_itself() {
    let name = "spiffe://x/backend";
    let caller = Caller::new(name, name, Role::Backend, "");
    let iso_0 = Some(PinBlockFormat::Iso0);
    let mac = |key| KeyUse::of(Ok(key));
    let from = |key| KeyUse { format_in: iso_0, ..mac(key) };
    let to = |key| KeyUse { format_out: iso_0, ..mac(key) };
    let both = |partners: &[&str], keys: &[KeyUse<'static>]| {
        let partner_keys: Vec<String> = partners.iter().map(|one| (*one).to_owned()).collect();
        let of = |key: &str| Grant {
            key: key.to_owned(),
            partner_keys: partner_keys.clone(),
            ..grant()
        };
        let policy = Policy { grants: vec![of("keys/a"), of("keys/b")], ..sound() };
        let decided = policy.decide_keys(&caller, Action::TranslatePin, keys, UnixMillis(1));
        decided.map(|_| ()).map_err(|denial| denial.rule)
    };
    let denied = Err("grant.partner_keys");
    assert_eq!(both(&["keys/b"], &[from("a"), to("a")]), denied);
    assert_eq!(both(&["keys/a"], &[from("a"), to("a")]), Ok(()));
    assert_eq!(both(&[], &[from("a"), to("a")]), Ok(()));
    assert_eq!(both(&["keys/a", "keys/b"], &[from("a"), to("b")]), Ok(()));
    // The key of a request's MAC may be that of its PIN block.
    assert_eq!(both(&["keys/a", "keys/b"], &[mac("a"), from("a"), to("b")]), Ok(()));
    let grants = vec![
        Grant { partner_keys: vec!["keys/b".to_owned()], key: "keys/a".to_owned(), ..grant() },
        Grant { key: "keys/b".to_owned(), ..grant() },
    ];
    let policy = Policy { grants, ..sound() };
    let keys = [mac("a"), from("a"), to("b")];
    assert!(policy.decide_keys(&caller, Action::TranslatePin, &keys, UnixMillis(1)).is_ok());
}

#[test]
fn a_policy_file_reads_as_it_is_written() {
    let text = r#"
        votes_required = 1
        audit = { summary = { seconds = 5 } }

        [[principal]]
        name = "spiffe://x/officer/ann"
        person = "ann"
        role = "officer"

        [[principal]]
        name = "spiffe://x/backend"
        role = "backend"
        profiles = ["profiles/retail-*"]
        calls_per_minute_max = 600

        [[grant]]
        key = "keys/bdk-*"
        principals = ["spiffe://x/backend"]
        calls = ["TranslatePin", "VerifyMac"]
        not_after = "2030-01-31T23:59:59Z"
    "#;
    let policy: Policy = toml::from_str(text).unwrap();
    assert_eq!(policy.grants[0].not_after, Some(UnixMillis(1_896_134_399_000)));
    assert_eq!(toml::from_str::<Policy>(&toml::to_string(&policy).unwrap()).unwrap(), policy);
    assert!(toml::from_str::<Policy>(&text.replace("person", "persn")).is_err());
    assert!(toml::from_str::<Policy>(&text.replace("Z\"", "\"")).is_err());
    assert_eq!(format_word(PinBlockFormat::Iso2), "ISO_2");
    let other = Policy { votes_required: 2, ..policy.clone() };
    assert_eq!((policy.digest().len(), policy.digest() == other.digest()), (64, false));
}

#[test]
fn nobody_may_do_anything_before_there_is_a_policy() {
    let nobody = Policy::none();
    for role in Role::GIVEN {
        let caller = Caller::new("spiffe://x", "", role, "");
        for action in Action::ALL {
            let denied = nobody.decide(&caller, *action).map_err(|denial| denial.error);
            assert_eq!(denied, Err(Error::Refused(Reason::CallerUnknown)));
        }
    }
}
