// compiles
//! The control: each thing that the other programs misuse, used rightly.

use firstkey::crypto::ec::EphemeralKey;
use firstkey::crypto::rng::SystemRng;
use firstkey::dukpt::{AesInitialKeyId, AesKsn, KeyKind};
use firstkey::key::usage::{BaseDerivation, Mac, MacGeneration, PinEncryption, Usage};
use firstkey::key::{Algorithm, Key};
use firstkey::mac::MacAlgorithm;
use firstkey::pin::{Pan, Translation};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = SystemRng::new();
    let mac_key = Key::<Mac>::generate(Algorithm::Aes128, &rng)?;
    let mac = mac_key.generate_mac(MacAlgorithm::AesCmac, b"message", 8)?;
    mac_key.verify_mac(MacAlgorithm::AesCmac, b"message", mac.bytes())?;
    println!("{mac_key:?} {} {mac:?}", mac_key.check_value());

    let id = AesInitialKeyId::parse(&[1; 8])?;
    let ksn: AesKsn = id.ksn(1)?;
    let base = Key::<BaseDerivation>::generate(Algorithm::Aes128, &rng)?;
    let initial = base.aes_initial_key(id)?;
    let _: Key<MacGeneration> = initial.working_key(&ksn, KeyKind::Aes128)?;
    let _: Key<PinEncryption> = initial.working_key(&ksn, KeyKind::Aes128)?;

    let pan = Pan::parse("4111111111111111")?;
    println!("{pan:?}");
    let (one, other) = (EphemeralKey::generate()?, EphemeralKey::generate()?);
    let public = other.public();
    let _ = one.agree(&public);
    println!("{}", name_of::<Mac>());
    cloned_and_serialised::<String>();
    Ok(())
}

fn receive_under<'a>(translation: &mut Translation<'a>, key: &'a Key<PinEncryption>) {
    translation.inbound = key;
}

fn name_of<U: Usage>() -> &'static str {
    U::NAME
}

fn cloned_and_serialised<T: Clone + serde::Serialize>() {}
