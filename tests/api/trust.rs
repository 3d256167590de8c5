//! `TrustService`: the service's identity, who signs devices, which devices are denied.

use firstkey::crypto::certificate::authority::Authority;
use firstkey::crypto::certificate::{Chain, verify_service};
use firstkey::crypto::ec::SigningKey;
use firstkey::grpc::client::request_id;
use firstkey::grpc::proto::{
    AllowDeviceRequest, CreateCertificateRequestRequest, CreateDeviceAuthorityRequest,
    CreateIdentityKeyRequest, DenyDeviceRequest, GetDeviceAuthorityRequest, GetIdentityRequest,
    ImportCertificateRequest, ListDeniedDevicesRequest, ListDeviceAuthoritiesRequest,
};
use firstkey::server::dev::{self, validity};

use crate::harness::{BEGIN_SECONDS, Service};
use crate::known::{expect_field, expect_reason, status_of};

fn identity_request(acquirer_id: &str) -> CreateIdentityKeyRequest {
    CreateIdentityKeyRequest { request_id: request_id(), acquirer_id: acquirer_id.to_owned() }
}

fn import(certificate_chain: Vec<Vec<u8>>) -> ImportCertificateRequest {
    ImportCertificateRequest { request_id: request_id(), certificate_chain }
}

#[tokio::test]
async fn the_identity_is_made_once_and_certified_from_outside() {
    let service = Service::start().await;
    let mut trust = service.client.trust();
    let identity = trust.get_identity(GetIdentityRequest {}).await.unwrap().into_inner();
    let identity = identity.identity.unwrap();
    assert_eq!(identity.acquirer_id, dev::ACQUIRER_ID);
    assert_eq!((identity.public_key.len(), identity.public_key[0]), (65, 4));
    assert_eq!(identity.certificate_chain.len(), 2);
    let refused = status_of(trust.create_identity_key(identity_request("ANOTHER")).await);
    expect_reason(&refused, "RESOURCE_ALREADY_EXISTS");

    let asked = CreateCertificateRequestRequest { common_name: "firstkey 2".to_owned() };
    let asked = trust.create_certificate_request(asked).await.unwrap().into_inner();
    // Another authority of the acquirer, to which terminals are moved one day.
    let authority = Authority::new("another root", validity(BEGIN_SECONDS)).unwrap();
    let issue = |organization: &str| {
        let request = &asked.certificate_request;
        authority.issue_service_from_request(request, organization, validity(BEGIN_SECONDS))
    };
    let root = authority.root_der().to_vec();
    let request = import(vec![issue(dev::ACQUIRER_ID).unwrap(), root.clone()]);
    let certified = trust.import_certificate(request.clone()).await.unwrap().into_inner();
    let certified = certified.identity.unwrap();
    assert_eq!(certified.public_key, identity.public_key, "the key stays");
    assert_eq!(certified.certificate_chain, request.certificate_chain);
    let again = trust.import_certificate(request.clone()).await.unwrap().into_inner();
    assert!(again.identity.unwrap() == certified);
    let path = Chain::parse(vec![request.certificate_chain[0].clone()]).unwrap();
    let leaf = verify_service(&path, std::slice::from_ref(&root), BEGIN_SECONDS).unwrap();
    assert_eq!(leaf.public.bytes().as_slice(), identity.public_key);

    let stranger = SigningKey::generate().unwrap();
    let device = authority.issue_device(&stranger.public(), "SN-1", validity(BEGIN_SECONDS));
    let own = || request.certificate_chain[0].clone();
    for (path, chain) in [
        ("certificate_chain", vec![]),
        ("certificate_chain", vec![own()]),
        ("certificate_chain", vec![own(); 5]),
        ("certificate_chain[0]", vec![vec![], root.clone()]),
        ("certificate_chain[1]", vec![own(), vec![0; 4_097]]),
        ("certificate_chain", vec![own(), b"no certificate".to_vec()]),
        ("certificate_chain", vec![b"no certificate".to_vec(), root.clone()]),
        ("certificate_chain", vec![own(), service.pki.acquirer.root_der().to_vec()]),
        ("certificate_chain", vec![device.unwrap(), root.clone()]),
        ("certificate_chain[0]", vec![issue("ANOTHER").unwrap(), root.clone()]),
    ] {
        expect_field(&status_of(trust.import_certificate(import(chain)).await), path);
    }
    let second = ImportCertificateRequest { certificate_chain: vec![own(); 2], ..request };
    expect_reason(&status_of(trust.import_certificate(second).await), "REQUEST_ID_REUSED");
    let kept = trust.get_identity(GetIdentityRequest {}).await.unwrap().into_inner();
    assert!(kept.identity.unwrap() == certified);
}

#[tokio::test]
async fn each_field_of_identity_and_authorities_is_bounded_and_named() {
    let service = Service::start().await;
    let mut trust = service.client.trust();
    let no_id = CreateIdentityKeyRequest { request_id: "1".into(), ..identity_request("A") };
    expect_field(&status_of(trust.create_identity_key(no_id).await), "request_id");
    for acquirer_id in ["", "A B", "A_B", "\u{c4}CQUIRER", &"A".repeat(33)] {
        let refused = status_of(trust.create_identity_key(identity_request(acquirer_id)).await);
        expect_field(&refused, "acquirer_id");
    }
    for common_name in [String::new(), "n".repeat(65), "tab\t".to_owned(), "\u{e9}".to_owned()] {
        let asked = CreateCertificateRequestRequest { common_name };
        let refused = status_of(trust.create_certificate_request(asked).await);
        expect_field(&refused, "common_name");
    }
    let good = || CreateDeviceAuthorityRequest {
        request_id: request_id(),
        device_authority_id: "vendor-2".to_owned(),
        vendor: "Vendor".to_owned(),
        model: "Model".to_owned(),
        certificate: service.pki.vendor.root_der().to_vec(),
    };
    let of_device = {
        let device = SigningKey::generate().unwrap().public();
        service.pki.vendor.issue_device(&device, "SN-1", validity(BEGIN_SECONDS)).unwrap()
    };
    let certificate = |certificate| CreateDeviceAuthorityRequest { certificate, ..good() };
    for (path, request) in [
        ("request_id", CreateDeviceAuthorityRequest::default()),
        (
            "device_authority_id",
            CreateDeviceAuthorityRequest { device_authority_id: "Vendor".into(), ..good() },
        ),
        ("vendor", CreateDeviceAuthorityRequest { vendor: String::new(), ..good() }),
        ("vendor", CreateDeviceAuthorityRequest { vendor: "v".repeat(65), ..good() }),
        ("model", CreateDeviceAuthorityRequest { model: "\u{7f}".into(), ..good() }),
        ("model", CreateDeviceAuthorityRequest { model: String::new(), ..good() }),
        ("certificate", certificate(vec![])),
        ("certificate", certificate(vec![0; 4_097])),
        ("certificate", certificate(b"no certificate".to_vec())),
        ("certificate", certificate(of_device)),
    ] {
        expect_field(&status_of(trust.create_device_authority(request).await), path);
    }
    for name in ["", "vendor-2", "deviceAuthorities/", "keys/vendor-2"] {
        let request = GetDeviceAuthorityRequest { name: name.to_owned() };
        expect_field(&status_of(trust.get_device_authority(request).await), "name");
    }
}

#[tokio::test]
async fn each_field_of_denied_devices_and_lists_is_bounded_and_named() {
    let service = Service::start().await;
    let mut trust = service.client.trust();
    let deny = |serial: &str, cause: &str| DenyDeviceRequest {
        request_id: request_id(),
        serial: serial.to_owned(),
        cause: cause.to_owned(),
    };
    let without = DenyDeviceRequest { request_id: String::new(), ..deny("SN-1", "stolen") };
    expect_field(&status_of(trust.deny_device(without).await), "request_id");
    for serial in ["", "SN1", "SN 1", "SN/1", &"S".repeat(33)] {
        expect_field(&status_of(trust.deny_device(deny(serial, "stolen")).await), "serial");
        let request = AllowDeviceRequest { request_id: request_id(), serial: serial.to_owned() };
        expect_field(&status_of(trust.allow_device(request).await), "serial");
    }
    for cause in ["", "line\nbreak", &"c".repeat(201)] {
        expect_field(&status_of(trust.deny_device(deny("SN-1", cause)).await), "cause");
    }
    let request = AllowDeviceRequest::default();
    expect_field(&status_of(trust.allow_device(request).await), "request_id");
    let request = ListDeviceAuthoritiesRequest { page_size: 101, ..Default::default() };
    expect_field(&status_of(trust.list_device_authorities(request).await), "page_size");
    let request = ListDeviceAuthoritiesRequest { page_token: "?".into(), ..Default::default() };
    expect_field(&status_of(trust.list_device_authorities(request).await), "page_token");
    let request = ListDeniedDevicesRequest { page_size: u32::MAX, ..Default::default() };
    expect_field(&status_of(trust.list_denied_devices(request).await), "page_size");
    let request = ListDeniedDevicesRequest { page_token: "?".into(), ..Default::default() };
    expect_field(&status_of(trust.list_denied_devices(request).await), "page_token");
}

#[tokio::test]
async fn device_authorities_are_made_once_found_and_listed() {
    let service = Service::start().await;
    let mut trust = service.client.trust();
    for id in ["vendor-b", "vendor-a"] {
        let request = CreateDeviceAuthorityRequest {
            request_id: request_id(),
            device_authority_id: id.to_owned(),
            vendor: "Vendor & Sons".to_owned(),
            model: "Model 1".to_owned(),
            certificate: service.pki.vendor.root_der().to_vec(),
        };
        let made = trust.create_device_authority(request.clone()).await.unwrap().into_inner();
        let again = trust.create_device_authority(request.clone()).await.unwrap().into_inner();
        assert!(made == again);
        let made = made.device_authority.unwrap();
        assert_eq!(made.name, format!("deviceAuthorities/{id}"));
        assert_eq!(made.certificate, request.certificate);
        let found = GetDeviceAuthorityRequest { name: made.name.clone() };
        let found = trust.get_device_authority(found).await.unwrap().into_inner();
        assert!(found.device_authority.unwrap() == made);
        let other = CreateDeviceAuthorityRequest { model: "Model 2".into(), ..request.clone() };
        let refused = status_of(trust.create_device_authority(other).await);
        expect_reason(&refused, "REQUEST_ID_REUSED");
        let other = CreateDeviceAuthorityRequest { request_id: request_id(), ..request };
        let refused = status_of(trust.create_device_authority(other).await);
        expect_reason(&refused, "RESOURCE_ALREADY_EXISTS");
    }
    let nobody = GetDeviceAuthorityRequest { name: "deviceAuthorities/nobody".into() };
    expect_reason(&status_of(trust.get_device_authority(nobody).await), "RESOURCE_NOT_FOUND");
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDeviceAuthoritiesRequest { page_size: 1, page_token };
        let page = trust.list_device_authorities(request).await.unwrap().into_inner();
        assert_eq!(page.device_authorities.len(), 1);
        names.extend(page.device_authorities.into_iter().map(|found| found.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected =
        ["dev-vendor", "vendor-a", "vendor-b"].map(|id| format!("deviceAuthorities/{id}"));
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_device_is_denied_until_it_is_allowed() {
    let service = Service::start().await;
    let mut trust = service.client.trust();
    for serial in ["SN-2", "SN-1"] {
        let request = DenyDeviceRequest {
            request_id: request_id(),
            serial: serial.to_owned(),
            cause: "stolen from the van".to_owned(),
        };
        let denied = trust.deny_device(request.clone()).await.unwrap().into_inner();
        assert!(trust.deny_device(request.clone()).await.unwrap().into_inner() == denied);
        let denied = denied.denied_device.unwrap();
        assert_eq!(
            (denied.serial.as_str(), denied.cause.as_str()),
            (serial, "stolen from the van")
        );
        let other = DenyDeviceRequest { request_id: request_id(), ..request };
        let refused = status_of(trust.deny_device(other).await);
        expect_reason(&refused, "RESOURCE_ALREADY_EXISTS");
    }
    let mut listed = async || {
        let request = ListDeniedDevicesRequest::default();
        let page = trust.list_denied_devices(request).await.unwrap().into_inner();
        page.denied_devices.into_iter().map(|denied| denied.serial).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, ["SN-1", "SN-2"]);
    let mut trust = service.client.trust();
    let allow =
        |serial: &str| AllowDeviceRequest { request_id: request_id(), serial: serial.to_owned() };
    let request = allow("SN-1");
    trust.allow_device(request.clone()).await.unwrap();
    trust.allow_device(request).await.expect("the same request once more");
    expect_reason(&status_of(trust.allow_device(allow("SN-1")).await), "RESOURCE_NOT_FOUND");
    assert_eq!(listed().await, ["SN-2"]);
}

#[tokio::test]
async fn a_denied_device_opens_nothing_from_the_next_call_on() {
    let service = Service::start().await;
    let mut till = service.register("till-1", firstkey::agreement::Suite::P256Aes128).await;
    let code = service.issue_code("till-1").await;
    till.begin(&service, Some(code)).await.expect("a device that is trusted");
    let request = DenyDeviceRequest {
        request_id: request_id(),
        serial: "SN-TILL-1".to_owned(),
        cause: "stolen".to_owned(),
    };
    service.client.trust().deny_device(request).await.unwrap();
    let refused = crate::harness::refused(till.deliver(&service).await);
    assert_eq!(refused.reason, "DEVICE_NOT_TRUSTED");
    let request = AllowDeviceRequest { request_id: request_id(), serial: "SN-TILL-1".to_owned() };
    service.client.trust().allow_device(request).await.unwrap();
    till.deliver(&service).await.expect("it is trusted again");
}

#[tokio::test]
async fn of_many_calls_that_deny_one_device_at_once_one_does() {
    let service = Service::start().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut trust = service.client.trust();
        let request = DenyDeviceRequest {
            request_id: request_id(),
            serial: "SN-1".to_owned(),
            cause: "stolen".to_owned(),
        };
        calls.spawn(async move { trust.deny_device(request).await });
    }
    let (done, refused): (Vec<_>, Vec<_>) =
        calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    for status in refused.into_iter().map(status_of) {
        expect_reason(&status, "RESOURCE_ALREADY_EXISTS");
    }
}
