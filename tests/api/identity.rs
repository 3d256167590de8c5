//! Who gets in: over real TLS, by certificates, good ones and bad ones.

use firstkey::grpc::Plane;
use firstkey::grpc::proto::{GetKeyRequest, ListTerminalsRequest};

use crate::harness::{TlsService, answer, refusal};

fn key() -> GetKeyRequest {
    GetKeyRequest { name: "keys/dev-mac".to_owned() }
}

#[tokio::test]
async fn each_plane_opens_to_its_own_certificates_alone() {
    let service = TlsService::start().await;
    let officer = service.client("officer-1", Plane::Admin).await;
    answer(officer.keys().get_key(key()).await);
    // The same person at the other plane has another certificate.
    let wrong = refusal(officer.terminals().list_terminals(ListTerminalsRequest::default()).await);
    assert_eq!(wrong.reason, "POLICY_DENIED");
    let backend = service.client("backend-1", Plane::Terminals).await;
    answer(backend.terminals().list_terminals(ListTerminalsRequest::default()).await);
    let wrong = refusal(backend.keys().get_key(key()).await);
    assert_eq!(wrong.reason, "POLICY_DENIED");
    let nobody = refusal(service.terminal().await.keys().get_key(key()).await);
    assert_eq!(nobody.reason, "CALLER_UNKNOWN");
    drop((officer, backend));
    service.stop().await;
}
