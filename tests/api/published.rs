//! The keys for development are as public as the samples of standards: a live service knows each
//! by its check value, in whatever block it comes.

use data_encoding::HEXUPPER;
use firstkey::crypto::cmac::aes_cmac;
use firstkey::grpc::proto::ListKeysRequest;
use firstkey::vault::PUBLISHED_CHECK_VALUES;

use crate::harness::Service;

const FILE: &str = include_str!("../../keys-dev/keys.toml");

#[tokio::test]
async fn every_development_key_is_among_the_published_check_values() {
    let file: toml::Table = FILE.parse().unwrap();
    let master = HEXUPPER.decode(file["master_key"].as_str().unwrap().as_bytes()).unwrap();
    let check_value = &aes_cmac(&master, &[0; 16]).unwrap()[..5];
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
