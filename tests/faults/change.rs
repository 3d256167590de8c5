//! Calls that change something, with the right message: while nothing can be written they are refused
//! for that reason alone, and made again afterwards each is done once.

use firstkey::grpc::client::{Client, Refusal, request_id};
use firstkey::grpc::proto;
use firstkey::server::simulation::registration;
use serde_json::Value;

use crate::service::{Outcome, Service, timed};

/// One of each kind, with their request ids.
pub(crate) struct Changes {
    key: proto::CreateKeyRequest,
    state: proto::SetKeyStateRequest,
    terminal: proto::CreateTerminalRequest,
    policy: proto::SetPolicyRequest,
}

/// What each call does, and to what.
const TOLD: [(&str, &str); 4] = [
    ("CreateKey", "keys/late"),
    ("SetKeyState", "keys/spare"),
    ("CreateTerminal", "terminals/till-late"),
    ("SetPolicy", "policy"),
];

impl Changes {
    /// Makes ready what they change.
    pub(crate) async fn prepare(service: &Service) -> Self {
        let key = |id: &str| proto::CreateKeyRequest {
            request_id: request_id(),
            key_id: id.to_owned(),
            usage: proto::KeyUsage::MacCmac.into(),
            algorithm: proto::KeyAlgorithm::Aes128.into(),
            ..proto::CreateKeyRequest::default()
        };
        service.client().await.keys().create_key(key("spare")).await.expect("a key");
        Self {
            key: key("late"),
            state: proto::SetKeyStateRequest {
                request_id: request_id(),
                name: "keys/spare".to_owned(),
                state: proto::KeyState::Suspended.into(),
                serve_until: None,
            },
            terminal: registration("till-late", "SN-LATE", "dev-aes"),
            policy: proto::SetPolicyRequest {
                request_id: request_id(),
                policy: Some(proto::Policy {
                    approval_seconds: 600,
                    audit_mode: proto::AuditMode::Each.into(),
                    ..proto::Policy::default()
                }),
            },
        }
    }

    /// Makes all of them.
    async fn make(&self, client: &Client) -> Vec<Outcome> {
        let (mut keys, mut terminals) = (client.keys(), client.terminals());
        let mut also_keys = client.keys();
        let mut policies = client.policy();
        let (key, state, terminal, policy) = tokio::join!(
            timed("CreateKey", keys.create_key(self.key.clone())),
            timed("SetKeyState", also_keys.set_key_state(self.state.clone())),
            timed("CreateTerminal", terminals.create_terminal(self.terminal.clone())),
            timed("SetPolicy", policies.set_policy(self.policy.clone())),
        );
        vec![key, state, terminal, policy]
    }

    /// Each is refused because nothing can be written.
    pub(crate) async fn are_refused(&self, service: &Service) {
        for outcome in Box::pin(self.make(&service.client().await)).await {
            let reason = outcome.reason.as_deref();
            let is_unavailable = matches!(reason, Some("AUDIT_UNAVAILABLE" | "STORE_UNAVAILABLE"));
            assert!(is_unavailable, "{}: {reason:?}", outcome.call);
        }
    }

    /// Nothing of them has happened.
    pub(crate) async fn have_changed_nothing(&self, service: &Service) {
        let client = service.client().await;
        let get = |name: &str| proto::GetKeyRequest { name: name.to_owned() };
        let late = client.keys().get_key(get("keys/late")).await.err();
        let late = late.expect("it is not there");
        assert_eq!(Refusal::from(late).reason, "KEY_NOT_FOUND");
        let spare = client.keys().get_key(get("keys/spare")).await.expect("it is there");
        let spare = spare.into_inner().key.expect("a key");
        assert!(spare.state() == proto::KeyState::Active, "the key is as it was");
        let name = "terminals/till-late".to_owned();
        let till = client.terminals().get_terminal(proto::GetTerminalRequest { name }).await;
        let till = Refusal::from(till.err().expect("it is not there"));
        assert_eq!(till.reason, "TERMINAL_NOT_FOUND");
        let policy = client.policy().get_policy(proto::GetPolicyRequest {}).await;
        let policy = policy.expect("it is read").into_inner().policy.expect("a policy");
        assert_eq!(policy.version, 0);
    }

    /// Made again, with the same request ids, each succeeds.
    pub(crate) async fn succeed(&self, service: &Service) {
        for outcome in Box::pin(self.make(&service.client().await)).await {
            assert_eq!(outcome.reason, None, "{}", outcome.call);
        }
    }

    /// However often it was tried, and whatever was known of it then, each was done once.
    pub(crate) fn were_done_once(events: &[Value]) {
        for (action, resource) in TOLD {
            let done = events.iter().filter(|event| {
                let is_it = event["action"] == action && event["resource"] == resource;
                is_it && event["decision"] == "done" && event["detail"]["repeated"].is_null()
            });
            assert_eq!(done.count(), 1, "{action}");
        }
    }
}
