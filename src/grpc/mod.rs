//! gRPC, on this floor alone: each service converts, authorises, calls a command and converts back.

mod activation;
mod admit;
mod approval;
mod audit;
mod believed;
mod bounds;
mod ceremony;
pub mod client;
mod convert;
mod denied;
mod key;
mod key_fields;
mod mac;
mod metrics;
mod pace;
mod paging;
mod peer;
mod pin;
mod places;
mod policy;
mod profile_update;
mod respond;
mod seal;
mod standing;
mod status;
mod status_service;
mod terminal;
mod terminal_fields;
mod trust;
mod vocabulary;
mod watch;

use std::sync::Arc;

use tonic::service::Routes;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

pub use self::admit::{Admission, Door, Trust};
pub use self::believed::{AuthorityKeys, Believed};
pub use self::denied::{Denied, DeniedInvalid, DenyList};
pub use self::metrics::{Metrics, Stopwatch};
pub use self::pace::{CallLimits, source_of};
pub use self::peer::{Identity, Peer, Plane};
pub use self::places::{Place, Places};
pub use self::standing::{Check, Facts, Finding, Standing};
pub use self::status::{DOMAIN, code};
use crate::command::seal::Keeper;
use crate::vault::Gate;

/// The longest message that is taken, in bytes.
pub const MESSAGE_LEN_BYTES_MAX: usize = 64 * 1024;

/// The longest message of a batch, and of a policy, in bytes.
pub const BATCH_LEN_BYTES_MAX: usize = 512 * 1024;

/// The call whose message is a batch.
const BATCH_PATH: &str = "/firstkey.v1.TerminalService/BatchCreateTerminals";

/// The call whose message is a policy.
const POLICY_PATH: &str = "/firstkey.v1.PolicyService/SetPolicy";

/// The one service that is there while the vault is sealed.
pub const SEAL_SERVICE: &str = "firstkey.v1.SealService";

/// The services by name, for health.
pub const SERVICE_NAMES: [&str; 12] = [
    "firstkey.v1.ActivationService",
    "firstkey.v1.ApprovalService",
    "firstkey.v1.AuditService",
    "firstkey.v1.CeremonyService",
    "firstkey.v1.KeyService",
    "firstkey.v1.MacService",
    "firstkey.v1.PinService",
    "firstkey.v1.PolicyService",
    SEAL_SERVICE,
    "firstkey.v1.StatusService",
    "firstkey.v1.TerminalService",
    "firstkey.v1.TrustService",
];

/// What the services share.
#[derive(Clone)]
pub struct Parts {
    /// What stands before the vault.
    pub gate: Arc<Gate>,
    /// Who opens and seals it.
    pub keeper: Arc<Keeper>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How the service stands.
    pub standing: Arc<Standing>,
}

/// All services, behind the door.
#[must_use]
pub fn services(parts: Parts) -> Routes {
    let Parts { gate, keeper, metrics, standing } = parts;
    let mut routes = Routes::builder();
    /// Adds a service, whose messages are bounded.
    macro_rules! add {
        ($module:ident, $server:ident, $api:expr) => {
            routes.add_service(
                proto::$module::$server::new($api).max_decoding_message_size(MESSAGE_LEN_BYTES_MAX),
            )
        };
    }
    add!(
        activation_service_server,
        ActivationServiceServer,
        activation::ActivationApi { metrics: Arc::clone(&metrics) }
    );
    add!(approval_service_server, ApprovalServiceServer, approval::ApprovalApi);
    add!(audit_service_server, AuditServiceServer, audit::AuditApi);
    add!(ceremony_service_server, CeremonyServiceServer, ceremony::CeremonyApi);
    add!(key_service_server, KeyServiceServer, key::KeyApi);
    add!(policy_service_server, PolicyServiceServer, policy::PolicyApi);
    add!(mac_service_server, MacServiceServer, mac::MacApi { metrics: Arc::clone(&metrics) });
    add!(pin_service_server, PinServiceServer, pin::PinApi { metrics });
    add!(seal_service_server, SealServiceServer, seal::SealApi { keeper });
    let status = status_service::StatusApi { gate, standing };
    add!(status_service_server, StatusServiceServer, status);
    add!(terminal_service_server, TerminalServiceServer, terminal::TerminalApi);
    add!(trust_service_server, TrustServiceServer, trust::TrustApi);
    // The bound is a service's, so calls with long messages go to a second one: an exact path comes
    // before the service's own.
    let batches = proto::terminal_service_server::TerminalServiceServer::new(terminal::TerminalApi)
        .max_decoding_message_size(BATCH_LEN_BYTES_MAX);
    let policies = proto::policy_service_server::PolicyServiceServer::new(policy::PolicyApi)
        .max_decoding_message_size(BATCH_LEN_BYTES_MAX);
    let of_services = routes.routes().into_axum_router();
    of_services.route_service(BATCH_PATH, batches).route_service(POLICY_PATH, policies).into()
}

/// The reflection service: what services there are and of what form.
#[must_use]
pub fn reflection() -> Option<ServerReflectionServer<impl ServerReflection>> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .ok()
}

/// The compiled protocol files.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("firstkey_descriptor");

/// The types generated from `proto/firstkey/v1`, documented there.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    missing_docs,
    unreachable_pub,
    reason = "generated"
)]
pub mod proto {
    tonic::include_proto!("firstkey.v1");
}
