//! Who may do what. What no rule allows is denied.

use super::caller::{Action, Caller};

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The call may go on.
    Allow,
    /// It may not.
    Deny,
}

/// Decides whether a caller may do an action on a resource.
///
/// The one rule so far: the caller of a development service may do everything. Nobody else can be
/// told apart before mutual TLS is there, so nobody else may do anything.
#[must_use]
pub fn decide(caller: &Caller, _action: Action, _resource: &str) -> Decision {
    if caller.is_for_dev_only() { Decision::Allow } else { Decision::Deny }
}

#[cfg(test)]
mod tests {
    use super::super::caller::Role;
    use super::*;

    #[test]
    fn only_the_development_caller_may_do_anything() {
        let every_role = vec![Role::Backend, Role::Officer, Role::TerminalManager, Role::Terminal];
        for action in Action::ALL {
            let stranger = Caller::new("stranger", every_role.clone());
            assert_eq!(decide(&stranger, *action, "keys/x"), Decision::Deny);
            assert_eq!(decide(&Caller::for_dev_only("dev"), *action, "keys/x"), Decision::Allow);
        }
    }
}
