//! gRPC, on this floor alone: each service converts, authorises, calls a command and converts back.

mod activation;
mod caller;
mod convert;
mod key;
mod mac;
mod pin;
mod respond;
mod status;
mod terminal;
mod trust;
mod vocabulary;
mod watch;

pub use self::status::{DOMAIN, code};

/// The types generated from `proto/firstkey/v1`, documented there.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::as_conversions)]
pub mod proto {
    tonic::include_proto!("firstkey.v1");
}
