//! The keys for development are as public as the samples of standards: a live service knows each
//! by its check value, in whatever block it comes.

use std::sync::Arc;

use data_encoding::HEXUPPER;
use firstkey::component::{Assurance, Component, Parity, Share, combine};
use firstkey::crypto::cmac::aes_cmac;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::proto::ListKeysRequest;
use firstkey::key::Algorithm;
use firstkey::key::usage::DataBoth;
use firstkey::vault::store::MemoryStore;
use firstkey::vault::{
    AuditSettings, Beginning, MasterKey, OpenError, Opening, PUBLISHED_CHECK_VALUES, Realm, Seal,
    Vault, is_published,
};

use crate::harness::{Service, TestClock};

const FILE: &str = include_str!("../../keys-dev/keys.toml");
const SHARES: &str = include_str!("../../keys-dev/shares.toml");
const COMPONENTS: &str = include_str!("../../keys-dev/components.toml");

fn text<'a>(row: &'a toml::Value, field: &str) -> &'a str {
    row[field].as_str().unwrap()
}

/// The rows of a slip, as one text.
fn slip(row: &toml::Value) -> String {
    let rows = row["rows"].as_array().unwrap().iter();
    rows.map(|row| row.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

fn master_key() -> Vec<u8> {
    let file: toml::Table = FILE.parse().unwrap();
    HEXUPPER.decode(text(&toml::Value::Table(file), "master_key").as_bytes()).unwrap()
}

fn shares() -> Vec<Share> {
    let file: toml::Table = SHARES.parse().unwrap();
    assert_eq!(file["label"].as_str(), Some("DEV-ONLY"));
    let shares = file["share"].as_array().unwrap().iter();
    shares.map(|row| Share::parse(&slip(row)).unwrap()).collect()
}

#[test]
fn every_three_of_the_development_shares_give_the_development_master_key() {
    let shares = shares();
    assert_eq!(shares.len(), 5);
    for (index, share) in (1..).zip(&shares) {
        let heading = share.heading();
        assert_eq!((heading.threshold(), heading.index(), heading.shares()), (3, index, 5));
    }
    for mask in 0_u8..32 {
        let chosen = (0..5).filter(|place| mask >> place & 1 == 1);
        let chosen: Vec<&Share> = chosen.map(|place| &shares[place]).collect();
        let combined = Share::combine(&chosen);
        assert_eq!(combined.is_ok(), mask.count_ones() >= 3);
        if let Ok(page) = combined {
            page.with_bytes(|secret| assert_eq!(secret[..], master_key()));
        }
    }
}

#[tokio::test]
async fn the_development_components_make_the_development_keys() {
    let service = Service::start().await;
    let listed = service.client.keys().list_keys(ListKeysRequest::default()).await.unwrap();
    let listed = listed.into_inner().keys;
    let file: toml::Table = COMPONENTS.parse().unwrap();
    assert_eq!(file["label"].as_str(), Some("DEV-ONLY"));
    let keys = file["key"].as_array().unwrap();
    assert_eq!(keys.len(), 3);
    for row in keys {
        let algorithm = text(row, "algorithm");
        let algorithm =
            Algorithm::ALL.into_iter().find(|each| each.to_string() == algorithm).unwrap();
        let read = |row: &toml::Value| {
            let component =
                Component::parse(algorithm, Assurance::CheckGroups, &slip(row)).unwrap();
            let check_value = component.check_value().to_string();
            assert_eq!(check_value, text(row, "check_value"));
            assert!(is_published(&check_value), "to be added to the list: {check_value}");
            component
        };
        let components: Vec<_> = row["component"].as_array().unwrap().iter().map(read).collect();
        assert_eq!(components.len(), 3);
        let components: Vec<_> = components.iter().collect();
        let key = combine::<DataBoth>(algorithm, Parity::Required, &components).unwrap();
        assert_eq!(key.check_value().to_string(), text(row, "check_value"));
        let name = format!("keys/{}", text(row, "id"));
        let loaded = listed.iter().find(|key| key.name == name).expect("loaded at the start");
        assert_eq!(key.check_value().bytes(), loaded.check_value);
        assert!(is_published(&key.check_value().to_string()));
    }
}

#[tokio::test]
async fn a_live_store_is_neither_begun_nor_opened_with_what_the_shares_give() {
    let shares = shares();
    let combined = Share::combine(&[&shares[4], &shares[0], &shares[2]]).unwrap();
    let opening = Opening {
        store: Arc::new(MemoryStore::new()),
        master_key: MasterKey::new(combined),
        realm: Realm::Live,
        clock: TestClock::begin(),
        rng: Arc::new(SystemRng::new()),
        node: "test".to_owned(),
        audit: AuditSettings::default(),
    };
    let seal = Seal::Shamir { set_id: shares[0].heading().set_id(), threshold: 3, shares: 5 };
    let opened = Vault::open_with(opening, Beginning { policy: None, seal }).await;
    assert_eq!(opened.err(), Some(OpenError::MasterKeyPublished));
}

#[tokio::test]
async fn every_development_key_is_among_the_published_check_values() {
    let file: toml::Table = FILE.parse().unwrap();
    let check_value = &aes_cmac(&master_key(), &[0; 16]).unwrap()[..5];
    let mut published = vec![("master_key".to_owned(), HEXUPPER.encode(check_value))];

    // The service has unwrapped each under the development master key.
    let service = Service::start().await;
    let listed = service.client.keys().list_keys(ListKeysRequest::default()).await.unwrap();
    let listed = listed.into_inner().keys;
    for row in file["key"].as_array().unwrap() {
        let name = format!("keys/{}", row["id"].as_str().unwrap());
        let key = listed.iter().find(|key| key.name == name).expect("loaded at the start");
        published.push((name, HEXUPPER.encode(&key.check_value)));
    }

    let is_missing =
        |(_, shown): &&(String, String)| !PUBLISHED_CHECK_VALUES.contains(&shown.as_str());
    let missing: Vec<_> = published.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "to be added to the list: {missing:?}");
}
