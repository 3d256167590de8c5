//! A live service from its beginning: its folder, and the custodians who make its master key among
//! them, and open it again.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::path::Path;
use std::process::Command;

use firstkey::component::Share;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::{Client, Credentials, ShareHolder, create_master_key};
use firstkey::grpc::proto::create_master_key_request::Keepers;
use firstkey::grpc::proto::{SealState, ShareKeepers};
use zeroize::Zeroizing;

/// How many of the three are enough.
const THRESHOLD: u32 = 2;
/// Those that `firstkeyd init` makes certificates for.
const CUSTODIANS: [&str; 3] = ["custodian-1", "custodian-2", "custodian-3"];

/// Makes a folder with everything that a new service needs, as `firstkeyd init` does.
pub(crate) fn set_up(folder: &Path) {
    let mut init = Command::new(env!("CARGO_BIN_EXE_firstkeyd"));
    let made = init.arg("init").arg(folder).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Reads what a holder shows, from the folder that `firstkeyd init` made.
pub(crate) fn credentials(folder: &Path, who: &str) -> Credentials {
    let read = |name: String| fs::read(folder.join(name)).unwrap();
    let identity =
        (read(format!("clients/{who}.crt")), Zeroizing::new(read(format!("clients/{who}.key"))));
    Credentials { authority: read("authorities/server.crt".to_owned()), identity: Some(identity) }
}

/// Opens a service: an empty store gets its master key first, which leaves `shares` behind.
pub(crate) async fn open(url: &str, folder: &Path, shares: &mut Vec<Share>) {
    let rng = SystemRng::new();
    let officer = credentials(folder, "admin/officer-1");
    let officer = Client::connect_with(url, &officer).await.unwrap();
    if shares.is_empty() {
        let name = |who: &&str| format!("spiffe://firstkey.internal/custodian/{who}");
        let names = CUSTODIANS.iter().map(name).collect();
        let keepers = Keepers::Custodians(ShareKeepers { threshold: THRESHOLD, names });
        create_master_key(&officer, keepers).await.unwrap();
        for who in CUSTODIANS {
            let own = credentials(folder, &format!("admin/{who}"));
            let client = Client::connect_with(url, &own).await.unwrap();
            let holder = ShareHolder::new(&client, &own, &rng).unwrap();
            let share = holder.take().await.unwrap();
            holder.confirm(&share).await.unwrap();
            shares.push(share);
        }
    } else {
        // Any two of them: the last two here.
        for (who, share) in CUSTODIANS.iter().zip(&*shares).skip(1) {
            let own = credentials(folder, &format!("admin/{who}"));
            let client = Client::connect_with(url, &own).await.unwrap();
            ShareHolder::new(&client, &own, &rng).unwrap().give(share).await.unwrap();
        }
    }
    let status = officer.seal_status().await.unwrap();
    assert_eq!(status.state().as_str_name(), SealState::Open.as_str_name());
}
