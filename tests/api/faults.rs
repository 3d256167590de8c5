//! Every fault at every step, as the table of the library says, with each kind of terminal.

use std::fmt::Write as _;

use firstkey::agreement::{Dukpt, Suite};
use firstkey::server::faults::{At, Fault, Played, Scene, expected, play};

use crate::harness::{Service, development_keys};

/// Plays the whole table with one kind of terminal, and prints what came of it.
#[allow(clippy::print_stdout, reason = "a test's output is for whoever runs it")]
async fn play_all(suite: Suite) {
    let service = Service::start().await;
    let now = || service.device_time();
    let kek = development_keys().key_encryption_key().unwrap();
    let Service { client, pki, rng, .. } = &service;
    let scene = Scene { client, pki, kek: &kek, rng, now: &now };
    let is_tdes = suite.dukpt() == Dukpt::Tdes2;
    let mut played: Vec<Played> = Vec::new();
    for fault in Fault::ALL {
        for at in At::ALL {
            match play(&scene, suite, *fault, *at).await {
                Ok(Some(cell)) => played.push(cell),
                Ok(None) => {
                    assert!(expected(*fault, *at).is_none() || (is_tdes && *at == At::Update));
                }
                Err(error) => panic!("{} at {}: {error}", fault.as_str(), at.as_str()),
            }
        }
    }
    let mut table = String::new();
    for cell in &played {
        let (fault, at) = (cell.fault.as_str(), cell.at.as_str());
        writeln!(table, "{fault:22} {at:10} {}", cell.seen).unwrap();
    }
    println!("{}\n{table}", suite.name());
    let wrong: Vec<&Played> = played.iter().filter(|cell| !cell.is_as_expected()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(played.len(), if is_tdes { 72 } else { 83 });
}

#[tokio::test]
async fn every_fault_at_every_step_of_an_aes_terminal_with_a_master_key_ends_as_the_table_says() {
    play_all(Suite::MasterAesAes128).await;
}

#[tokio::test]
async fn every_fault_at_every_step_of_a_tdes_terminal_with_an_aes_master_key_ends_as_it_says() {
    play_all(Suite::MasterAesTdes2).await;
}

#[tokio::test]
async fn every_fault_at_every_step_of_a_tdes_terminal_with_a_master_key_ends_as_the_table_says() {
    play_all(Suite::MasterTdesTdes2).await;
}

#[tokio::test]
async fn every_fault_at_every_step_of_an_aes_terminal_ends_as_the_table_says() {
    play_all(Suite::P256Aes128).await;
}

#[tokio::test]
async fn every_fault_at_every_step_of_a_tdes_terminal_ends_as_the_table_says() {
    play_all(Suite::P256Tdes2).await;
}
