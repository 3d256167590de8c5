//! The same decision in words, for officers and auditors who ask why.

use super::super::caller::{Action, Caller, Role};
use super::super::clock::UnixMillis;
use super::super::keys::key_of;
use super::decide::{Asked, Lack, Passage};
use super::{GRANTED, Grant, KeyUse, Policy, callers_of};

/// What the policy is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The name of a principal.
    pub principal: &'a str,
    /// The call.
    pub action: Action,
    /// The keys of the call, as far as they are asked about.
    pub keys: &'a [KeyUse<'a>],
    /// The id in `profiles/{id}` of the profile, or of the terminal's profile.
    pub profile: Option<&'a str>,
}

/// What the policy answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it allows the call now.
    pub allowed: bool,
    /// Whether a grant approves it beforehand: see [`Policy::approved_before`].
    pub approved_before: bool,
    /// The rules that were asked, in their order, each with its answer; the last one decided.
    pub because: Vec<String>,
}

impl Policy {
    /// Explains what a call would be answered, as far as the policy decides it.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>, now: UnixMillis) -> Explanation {
        let mut because = Vec::new();
        let allowed = self.explain_to(question, now, &mut because).is_some();
        let is_passage = allowed && question.action == Action::ExportInitialKey;
        let approved_before = is_passage && self.explain_passage(question, now, &mut because);
        Explanation { allowed, approved_before, because }
    }

    /// Tells whether a grant approves an officer's export of an initial key beforehand.
    fn explain_passage(
        &self,
        question: &Question<'_>,
        now: UnixMillis,
        because: &mut Vec<String>,
    ) -> bool {
        let ids: Vec<&str> = question.keys.iter().filter_map(|asked| asked.key.ok()).collect();
        let [key, under] = *ids.as_slice() else {
            because.push(
                "a grant can approve it beforehand: ask with both keys whether one does".to_owned(),
            );
            return false;
        };
        let passage = Passage { key, under };
        let grants = self.grants.iter().enumerate();
        let asked = grants
            .map(|(index, grant)| (index, grant, grant.approves(question.principal, passage, now)));
        let naming = asked.filter(|(_, _, answer)| *answer != Err(Lack::Key));
        let (approving, lacking): (Vec<_>, Vec<_>) =
            naming.partition(|(_, _, answer)| answer.is_ok());
        let approved = !approving.is_empty();
        // What decided stands last.
        because.extend(lacking.into_iter().chain(approving).map(|(index, grant, answer)| {
            let said = match answer {
                Ok(0) => "approves it beforehand".to_owned(),
                Ok(rate) => format!("approves it beforehand, {rate} times a minute"),
                Err(lack) => lacks(grant, lack),
            };
            format!("grants[{index}], for keys/{key}: {said}")
        }));
        if !approved {
            because.push(format!(
                "no grant that holds names the caller, keys/{key} and keys/{under}, each in full: \
                 other officers approve each such call"
            ));
        }
        approved
    }

    /// Tells each rule that is asked; none at the first that refuses.
    fn explain_to(
        &self,
        question: &Question<'_>,
        now: UnixMillis,
        because: &mut Vec<String>,
    ) -> Option<()> {
        let Question { principal: name, action, keys, profile } = *question;
        let Some(principal) = self.principal(name) else {
            because.push(format!("no principal is named {name}: the caller is nobody"));
            return None;
        };
        let role = principal.role;
        because.push(format!("{name} has the role {}", role.as_str()));
        let caller = Caller::new(name, &principal.person, role, "");
        let roles: Vec<&str> = callers_of(action).iter().map(|role| role.as_str()).collect();
        let (call, roles) = (action.as_str(), roles.join(", "));
        if self.decide(&caller, action).is_err() {
            because.push(format!("{call} is for {roles} alone"));
            return None;
        }
        because.push(format!("{call} is for {roles}"));
        if role != Role::Backend {
            because.push("the role may make it with every resource".to_owned());
            return Some(());
        }
        if let Some(profile) = profile {
            let sees = self.sees_profile(&caller, profile);
            let word = if sees { "is" } else { "is not" };
            because.push(format!("profiles/{profile} {word} among the profiles of {name}"));
            sees.then_some(())?;
        }
        let without = [Action::CreateTerminal, Action::LookupKsn];
        if GRANTED.contains(&action) && keys.is_empty() && !without.contains(&action) {
            because.push("it needs a grant for each of its keys, and none was named".to_owned());
            return None;
        }
        self.explain_keys(&caller, action, keys, now, because)
    }

    fn explain_keys(
        &self,
        caller: &Caller,
        action: Action,
        keys: &[KeyUse<'_>],
        now: UnixMillis,
        because: &mut Vec<String>,
    ) -> Option<()> {
        let named: Vec<(&str, &KeyUse<'_>)> =
            keys.iter().filter_map(|asked| Some((key_of(asked.key.ok()?), asked))).collect();
        if let Some((key, _)) = named.iter().find(|(key, _)| !self.knows_key(caller, key)) {
            because.push(format!(
                "no grant names the caller and keys/{key}: it is told that there is no such key"
            ));
            return None;
        }
        for (place, &(key, with)) in named.iter().enumerate() {
            let asked = Asked { action, key, with, place, keys: &named, now };
            let grants = self.grants.iter().enumerate();
            let naming = grants.filter(|(_, grant)| grant.names(caller.name(), key));
            let (allowing, lacking): (Vec<_>, Vec<_>) =
                naming.partition(|(_, grant)| grant.check(&asked).is_ok());
            // What decided stands last.
            for (index, grant) in lacking.into_iter().chain(allowing) {
                because.push(format!("grants[{index}], for keys/{key}: {}", answer(grant, &asked)));
            }
            self.granted(caller.name(), &asked).ok()?;
        }
        Some(())
    }
}

/// What one grant says to a use of its key.
fn answer(grant: &Grant, asked: &Asked<'_>) -> String {
    match grant.check(asked) {
        Ok(0) => "allows it".to_owned(),
        Ok(rate) => format!("allows it, {rate} times a minute"),
        Err(lack) => lacks(grant, lack),
    }
}

/// What a grant is for, where it lacks something.
fn lacks(grant: &Grant, lack: Lack) -> String {
    match lack {
        Lack::Key => "names another caller or key".to_owned(),
        Lack::Call => format!("is for {} alone", grant.calls.join(", ")),
        Lack::Time => {
            let from = grant.not_before.map(|from| format!(" from {from}"));
            let to = grant.not_after.map(|to| format!(" until {to}"));
            format!("holds{}{} alone", from.unwrap_or_default(), to.unwrap_or_default())
        }
        Lack::Format => {
            let listed = |words: &[String]| match words {
                [] => "all".to_owned(),
                words => words.join(", "),
            };
            let (come, go) = (listed(&grant.pin_formats_in), listed(&grant.pin_formats_out));
            format!("lets in {come}, and lets out {go}")
        }
        Lack::Partner => format!("is for use with {} alone", grant.partner_keys.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::export;
    use super::super::tests::{grant, sound};
    use super::*;

    #[test]
    fn an_officer_is_told_which_grant_approves_an_export_beforehand() {
        let late = Grant { not_before: Some(UnixMillis(9)), ..export() };
        let limited = Grant { calls_per_minute_max: 5, ..export() };
        let policy = Policy { grants: vec![grant(), late, limited], ..sound() };
        let key = |id: &'static str| KeyUse::of(Ok(id));
        let ask = |principal: &str, keys: &[KeyUse<'static>]| {
            let action = Action::ExportInitialKey;
            let question = Question { principal, action, keys, profile: None };
            let explained = policy.explain(&question, UnixMillis(1));
            assert!(explained.allowed, "{:?}", explained.because);
            // What is explained is what is decided.
            if let [zone, kek] = keys {
                let passage = Passage { key: zone.key.unwrap(), under: kek.key.unwrap() };
                let rate = policy.approved_before(principal, passage, UnixMillis(1));
                assert_eq!(rate.is_some(), explained.approved_before);
            }
            (explained.approved_before, explained.because[3..].to_vec())
        };
        let ann = "spiffe://x/officer/ann";
        let (approved, because) = ask(ann, &[key("zone"), key("kek")]);
        assert!(approved);
        let holds = "grants[1], for keys/zone: holds from 1970-01-01T00:00:00.009Z alone";
        let allows = "grants[2], for keys/zone: approves it beforehand, 5 times a minute";
        assert_eq!(because, [holds, allows]);
        for (who, keys) in [
            ("spiffe://x/officer/ben", [key("zone"), key("kek")]),
            (ann, [key("zone"), key("other")]),
            (ann, [key("bdk"), key("kek")]),
        ] {
            let (approved, because) = ask(who, &keys);
            let last = because.last().unwrap();
            assert!(!approved && last.ends_with("other officers approve each such call"), "{last}");
        }
        let (approved, because) = ask(ann, &[key("zone")]);
        assert!(!approved && because[0].contains("with both keys"), "{because:?}");
    }
}
