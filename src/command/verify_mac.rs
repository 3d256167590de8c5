//! Verifies the MAC of a message, under a static key or a transaction key.

use super::activation::record::Terminal;
use super::mac_policy::{Asked, MacWorkingKey};
use super::slot_key::FoundSlotKey;
use super::transaction_key::{
    Sender, Side, TransactionKey, Wanted, check_named_terminal, underivable,
};
use super::{Direction, Error, activation, give_up, retrying};
use crate::key::usage::Mac;
use crate::mac::{MacAlgorithm, VerifyMacError};
use crate::vault::{
    Action, Budget, Caller, Claim, Operation, Purpose, Reason, Vault, Versioned, Work, key_of,
};

/// A MAC to be verified.
pub struct Request {
    /// The key.
    pub key: MacWorkingKey,
    /// The algorithm, with its padding.
    pub algorithm: MacAlgorithm,
    /// The message.
    pub message: Vec<u8>,
    /// The MAC, or its leftmost octets.
    pub mac: Vec<u8>,
    /// The id in `terminals/{id}`; none to find it by the KSN.
    pub terminal: Option<String>,
}

/// Verifies a MAC, or answers `MAC_MISMATCH`.
///
/// A counter is spent only when the MAC verifies, so a forged message burns nothing. Failures of
/// MACs that are short enough to be guessed are charged to the budget of the terminal, of the
/// caller and the initial key of one that is not registered here, or of the caller and a static
/// key; of others they are counted in the audit log alone. The identical message within five
/// minutes is verified again; another one that verifies under the same counter is `KSN_REPLAYED`
/// and raises the clone alarm. The MAC of a response is the terminal's to verify: for a terminal
/// that is registered here it is refused with `KEY_USAGE_MISMATCH`.
pub async fn verify_mac(vault: &Vault, caller: &Caller, request: &Request) -> Result<(), Error> {
    retrying(|| async {
        let behind = request.key.behind(vault, caller).await?;
        let (action, resource, keys) = (Action::VerifyMac, behind.resource(), [behind.used()]);
        let mut work = vault.begin_with_keys(caller, action, resource, &keys).await?;
        match check(vault, caller, &mut work, behind.name(), request).await {
            Ok(Some(message)) => {
                if let Some(terminal) = message.first_of() {
                    activation::first_transaction(&mut work, terminal, "VerifyMac")?;
                }
                work.commit().await?;
                Ok(())
            }
            Ok(None) => Err(mismatch(work, request).await),
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

/// A message whose MAC verifies.
pub(super) struct Genuine {
    /// None of a key in `keys/`.
    key: Option<SenderKey>,
    /// Whether another message was verified under the same counter: the commit will refuse.
    pub(super) is_second: bool,
}

impl Genuine {
    /// Who made it; not known of a key in `keys/`.
    pub(super) fn sender(&self) -> Option<Sender<'_>> {
        self.key.as_ref().map(|key| match key {
            SenderKey::Derived(key) => key.sender(),
            SenderKey::OfSlot(key) => key.sender(),
        })
    }

    /// The same as it was read, where this is its first transaction.
    pub(super) fn first_of(&self) -> Option<Versioned<Terminal>> {
        self.sender().and_then(Sender::first_of)
    }
}

/// The key of a terminal that a MAC verified under.
enum SenderKey {
    Derived(Box<TransactionKey>),
    OfSlot(FoundSlotKey<Mac>),
}

/// Refuses a message whose MAC does not verify.
pub(super) async fn mismatch(work: Work, request: &Request) -> Error {
    if is_guessable(request.mac.len()) {
        work.commit_refused(Reason::MacMismatch).await.into()
    } else {
        give_up(work, Reason::MacMismatch).await
    }
}

/// Verifies a MAC, with a claim on its counter and a place in its budget: none where it does not
/// verify.
pub(super) async fn check(
    vault: &Vault,
    caller: &Caller,
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<Option<Genuine>, Error> {
    let Request { algorithm, message, mac, .. } = request;
    let asked = Asked { algorithm: *algorithm, message, len_bytes: mac.len(), len_path: "mac" };
    let terminal = request.terminal.as_deref();
    match &request.key {
        MacWorkingKey::Dukpt(key, direction) => {
            let side = verified_by(*direction);
            let key = Wanted { key, name, side, terminal }.find((vault, caller), work).await?;
            asked.check(key.attributes(), key.algorithm())?;
            reserve(work, caller, (name, Some(key.sender())), mac).await?;
            let input = asked.input(vault, key.algorithm(), *direction);
            // Claimed before it is verified, so that what is long spent costs nothing. Spent only
            // if it verifies: the vault sees to that for requests.
            let mut is_second = false;
            if side == Side::Host {
                let claim = key.claim(work, Purpose::MacRequest, &input).await?;
                is_second = claim == Claim::Spent;
            }
            let (initial, kind) = key.derive()?;
            let derived = initial.mac_key(*direction, kind).map_err(underivable)?;
            if !is_genuine(asked, derived.verify_mac(*algorithm, message, mac))? {
                return Ok(None);
            }
            // A claim on a response is spent whatever comes of it, so it waits for the verdict.
            if side == Side::Terminal {
                key.claim(work, Purpose::MacResponse, &input).await?;
            }
            Ok(Some(Genuine { key: Some(SenderKey::Derived(Box::new(key))), is_second }))
        }
        MacWorkingKey::Slot(key) => {
            let key = key.find::<Mac>((name, terminal), (vault, caller), work).await?;
            asked.check_static(key.usage(), key.attributes(), key.algorithm())?;
            reserve(work, caller, (name, Some(key.sender())), mac).await?;
            let outcome = key.key().verify_mac(*algorithm, message, mac);
            let genuine = Genuine { key: Some(SenderKey::OfSlot(key)), is_second: false };
            Ok(is_genuine(asked, outcome)?.then_some(genuine))
        }
        MacWorkingKey::Static(name) => {
            check_named_terminal((vault, caller), work, terminal).await?;
            let key = vault.key::<Mac>(name, Operation::VerifyMac).await?;
            work.uses(&key);
            let record = key.record();
            asked.check_static(record.usage, &record.attributes, record.algorithm)?;
            reserve(work, caller, (Some(name), None), mac).await?;
            let outcome = key.key().verify_mac(*algorithm, message, mac);
            let genuine = Genuine { key: None, is_second: false };
            Ok(is_genuine(asked, outcome)?.then_some(genuine))
        }
    }
}

/// Whose part it is to verify a message in a direction.
const fn verified_by(direction: Direction) -> Side {
    match direction {
        Direction::Both | Direction::Request => Side::Host,
        Direction::Response => Side::Terminal,
    }
}

/// Whether a MAC of this length could be found by trying: of 64 bits or more none is (SEC-14).
/// Nothing is gained by closing a terminal for those, and everybody who can send rubbish could.
const fn is_guessable(len_bytes: usize) -> bool {
    len_bytes < 8
}

/// Reserves a place in the budget of failures where the MAC could be guessed: that of the terminal,
/// of the caller and the initial key of one that is not registered here, or of the caller and a
/// static key.
async fn reserve(
    work: &mut Work,
    caller: &Caller,
    (name, sender): (Option<&str>, Option<Sender<'_>>),
    mac: &[u8],
) -> Result<(), Error> {
    if !is_guessable(mac.len()) {
        return Ok(());
    }
    let stranger = sender.and_then(Sender::stranger).unwrap_or_default();
    // All versions of a key have one budget.
    let name = name.map_or("", key_of).as_bytes();
    let subject: &[&[u8]] = match sender.and_then(Sender::terminal) {
        Some(terminal) => &[b"terminal", terminal.id.as_bytes()],
        None => &[b"caller", caller.name().as_bytes(), name, &stranger],
    };
    Ok(work.reserve(Budget::Mac, subject).await?)
}

fn is_genuine(asked: Asked<'_>, outcome: Result<(), VerifyMacError>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(VerifyMacError::Arguments(error)) => Err(asked.refused(error)),
        Err(VerifyMacError::Mismatch(_)) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::{Role, State, Step, Transcript};
    use crate::command::generate_mac::{self, generate_mac};
    use crate::command::testing::{Bench, aes_ksn, dukpt, reason, tdes_ksn};
    use crate::command::{InitialKey, Ksn};
    use crate::key::Algorithm;
    use crate::key::usage::BaseDerivation;
    use crate::vault::{KeyAttributes, KeyUsage, REPEAT_MS};

    const CMAC: MacAlgorithm = MacAlgorithm::AesCmac;

    /// The MAC that the terminal, or with `Response` the host, makes under a KSN.
    async fn made(bench: &Bench, ksn: &Ksn, direction: Direction, message: &[u8]) -> Vec<u8> {
        let bdk = bench.vault.key::<BaseDerivation>("bdk", Operation::DeriveWorking).await.unwrap();
        let initial = InitialKey::derive(bdk.key(), ksn).unwrap();
        let key = initial.mac_key(direction, initial.kind()).unwrap();
        let algorithm = if key.algorithm().is_aes() { CMAC } else { MacAlgorithm::TdesCmac };
        key.generate_mac(algorithm, message, 8).unwrap().bytes().to_vec()
    }

    fn request(ksn: Ksn, direction: Direction, message: &[u8], mac: Vec<u8>) -> Request {
        let key = MacWorkingKey::Dukpt(dukpt(ksn), direction);
        Request { key, algorithm: CMAC, message: message.to_vec(), mac, terminal: None }
    }

    async fn call(bench: &Bench, request: &Request) -> &'static str {
        reason(&verify_mac(&bench.vault, &bench.caller, request).await)
    }

    async fn generate(
        bench: &Bench,
        ksn: Ksn,
        direction: Direction,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let request = generate_mac::Request {
            key: MacWorkingKey::Dukpt(dukpt(ksn), direction),
            algorithm: CMAC,
            message: message.to_vec(),
            len_bytes: 8,
            terminal: None,
        };
        let mac = generate_mac(&bench.vault, &bench.caller, &request).await?;
        Ok(mac.bytes().to_vec())
    }

    async fn served() -> (Bench, Ksn) {
        let bench = Bench::new().await;
        bench.bdk("bdk", Algorithm::Aes128, KeyAttributes::default()).await;
        let ksn = aes_ksn(1, 3);
        bench.terminal("t1", "bdk", &ksn, State::Active).await;
        (bench, ksn)
    }

    #[tokio::test]
    async fn a_forged_message_burns_nothing() {
        let (bench, ksn) = served().await;
        let mac = made(&bench, &ksn, Direction::Request, b"pay 10").await;
        let forged = request(ksn.clone(), Direction::Request, b"pay 99", mac.clone());
        let genuine = request(ksn, Direction::Request, b"pay 10", mac);
        assert_eq!(call(&bench, &forged).await, "MAC_MISMATCH");
        assert!(bench.read_terminal("t1").await.first_transaction.is_none());
        assert_eq!(call(&bench, &genuine).await, "OK");
        assert!(bench.read_terminal("t1").await.first_transaction.is_some());
        assert_eq!(call(&bench, &genuine).await, "OK");
        assert_eq!(call(&bench, &forged).await, "MAC_MISMATCH");
        bench.forward(REPEAT_MS + 1);
        assert_eq!(call(&bench, &genuine).await, "KSN_REPLAYED");
    }

    #[tokio::test]
    async fn two_messages_under_one_counter_raise_the_clone_alarm() {
        let (bench, ksn) = served().await;
        for (message, expected) in [(b"one", "OK"), (b"two", "KSN_REPLAYED")] {
            let mac = made(&bench, &ksn, Direction::Request, message).await;
            let asked = request(ksn.clone(), Direction::Request, message, mac);
            assert_eq!(call(&bench, &asked).await, expected);
        }
        assert_eq!(bench.last_event().await.detail["clone_alarm"], "true");
    }

    #[tokio::test]
    async fn a_shorter_mac_of_the_same_message_is_the_same_message() {
        let bench = Bench::new().await;
        let short = KeyAttributes { mac_length_min_bytes: 4, open: true, ..Default::default() };
        bench.bdk("bdk", Algorithm::Aes128, short).await;
        let ksn = aes_ksn(1, 1);
        let mac = made(&bench, &ksn, Direction::Request, b"one").await;
        for len in [8, 4] {
            let mac = mac[..len].to_vec();
            let asked = request(ksn.clone(), Direction::Request, b"one", mac);
            assert_eq!(call(&bench, &asked).await, "OK");
        }
        let asked = request(ksn, Direction::Request, b"one", mac[..3].to_vec());
        assert_eq!(call(&bench, &asked).await, "KEY_USAGE_MISMATCH");
    }

    #[tokio::test]
    async fn the_host_answers_once_and_never_speaks_for_a_terminal() {
        let (bench, ksn) = served().await;
        let made_here = generate(&bench, ksn.clone(), Direction::Response, b"ok").await.unwrap();
        assert_eq!(made_here, made(&bench, &ksn, Direction::Response, b"ok").await);
        let again = generate(&bench, ksn.clone(), Direction::Response, b"ok").await.unwrap();
        assert_eq!(made_here, again);
        let other = generate(&bench, ksn.clone(), Direction::Response, b"no").await;
        assert_eq!(reason(&other), "KSN_REPLAYED");
        let forged = generate(&bench, ksn.clone(), Direction::Request, b"pay").await;
        assert_eq!(reason(&forged), "KEY_USAGE_MISMATCH");
        let asked = request(ksn, Direction::Response, b"ok", made_here);
        assert_eq!(call(&bench, &asked).await, "KEY_USAGE_MISMATCH");
    }

    #[tokio::test]
    async fn a_link_plays_either_side() {
        let bench = Bench::new().await;
        let open = KeyAttributes { open: true, ..KeyAttributes::default() };
        bench.bdk("bdk", Algorithm::Aes128, open).await;
        let ksn = aes_ksn(1, 1);
        let mac = generate(&bench, ksn.clone(), Direction::Request, b"pay").await.unwrap();
        assert_eq!(mac, made(&bench, &ksn, Direction::Request, b"pay").await);
        let other = generate(&bench, ksn.clone(), Direction::Request, b"buy").await;
        assert_eq!(reason(&other), "KSN_REPLAYED");
        // A forged response does not burn the counter of the genuine one.
        let forged = request(ksn.clone(), Direction::Response, b"ok", vec![0; 8]);
        assert_eq!(call(&bench, &forged).await, "MAC_MISMATCH");
        for (message, expected) in [(b"ok", "OK"), (b"no", "KSN_REPLAYED")] {
            let mac = made(&bench, &ksn, Direction::Response, message).await;
            let asked = request(ksn.clone(), Direction::Response, message, mac);
            assert_eq!(call(&bench, &asked).await, expected);
        }
    }

    #[tokio::test]
    async fn one_key_for_both_ways_serves_a_request_and_its_answer() {
        let bench = Bench::new().await;
        bench.bdk("bdk", Algorithm::Tdes2, KeyAttributes::default()).await;
        let ksn = tdes_ksn(1);
        bench.terminal("t1", "bdk", &ksn, State::Active).await;
        let mac = made(&bench, &ksn, Direction::Both, b"pay").await;
        let asked = request(ksn.clone(), Direction::Both, b"pay", mac);
        assert_eq!(call(&bench, &asked).await, "KEY_USAGE_MISMATCH");
        let asked = Request { algorithm: MacAlgorithm::TdesCmac, ..asked };
        assert_eq!(call(&bench, &asked).await, "OK");
        let answer = generate_mac::Request {
            key: MacWorkingKey::Dukpt(dukpt(ksn.clone()), Direction::Both),
            algorithm: MacAlgorithm::TdesCmac,
            message: b"ok".to_vec(),
            len_bytes: 8,
            terminal: None,
        };
        // With TDES the one key is that of requests: who makes a MAC with it speaks for a terminal.
        let forged = generate_mac(&bench.vault, &bench.caller, &answer).await;
        assert_eq!(reason(&forged), "KEY_USAGE_MISMATCH");

        bench.bdk("aes", Algorithm::Aes128, KeyAttributes::default()).await;
        let ksn = aes_ksn(1, 1);
        bench.terminal("t2", "aes", &ksn, State::Active).await;
        let key = MacWorkingKey::Dukpt(dukpt(ksn), Direction::Both);
        let answer = generate_mac::Request { key, algorithm: MacAlgorithm::AesCmac, ..answer };
        assert!(generate_mac(&bench.vault, &bench.caller, &answer).await.is_ok());
    }

    #[tokio::test]
    async fn a_static_key_serves_the_algorithm_of_its_usage() {
        let bench = Bench::new().await;
        let attributes = KeyAttributes::default;
        bench.key("cmac", KeyUsage::MacCmac, Algorithm::Tdes2, attributes()).await;
        bench.key("hmac", KeyUsage::MacHmac, Algorithm::Hmac256, attributes()).await;
        for (name, algorithm, expected) in [
            ("cmac", MacAlgorithm::TdesCmac, "OK"),
            ("cmac", MacAlgorithm::AesCmac, "KEY_USAGE_MISMATCH"),
            ("cmac", MacAlgorithm::HmacSha256, "KEY_USAGE_MISMATCH"),
            ("hmac", MacAlgorithm::HmacSha512, "OK"),
        ] {
            let key = MacWorkingKey::Static(name.into());
            let terminal = None;
            let message = b"message".to_vec();
            let asked = generate_mac::Request { key, algorithm, message, len_bytes: 8, terminal };
            let made = generate_mac(&bench.vault, &bench.caller, &asked).await;
            assert_eq!(reason(&made), expected, "{name} {algorithm:?}");
            let Ok(mac) = made else { continue };
            let generate_mac::Request { key, message, terminal, .. } = asked;
            let mac = mac.bytes().to_vec();
            let mut asked = Request { key, algorithm, message, mac, terminal };
            assert_eq!(call(&bench, &asked).await, "OK");
            asked.message.push(0);
            assert_eq!(call(&bench, &asked).await, "MAC_MISMATCH");
        }
    }

    #[tokio::test]
    async fn guesses_at_a_short_mac_close_a_terminal_for_a_while() {
        let bench = Bench::new().await;
        let short = KeyAttributes { mac_length_min_bytes: 4, ..Default::default() };
        bench.bdk("bdk", Algorithm::Aes128, short).await;
        let ksn = aes_ksn(1, 3);
        bench.terminal("t1", "bdk", &ksn, State::Active).await;
        for counter in 1..=Budget::Mac.failures_max() {
            let message = counter.to_be_bytes();
            let asked = request(ksn.clone(), Direction::Request, &message, vec![0; 7]);
            assert_eq!(call(&bench, &asked).await, "MAC_MISMATCH");
        }
        let mac = made(&bench, &ksn, Direction::Request, b"pay").await;
        let whole = request(ksn.clone(), Direction::Request, b"pay", mac.clone());
        let part = request(ksn, Direction::Request, b"pay", mac[..4].to_vec());
        assert_eq!(call(&bench, &part).await, "BUDGET_SPENT");
        assert_eq!(bench.last_event().await.detail["alarm"], "mac");
        assert_eq!(call(&bench, &whole).await, "OK", "what nobody guesses is not closed");
        bench.forward(Budget::Mac.interval_ms());
        bench.forward(1);
        assert_eq!(call(&bench, &part).await, "KSN_REPLAYED");
    }

    #[tokio::test]
    async fn guesses_under_invented_numbers_close_no_other_stranger() {
        let bench = Bench::new().await;
        let short = KeyAttributes { mac_length_min_bytes: 4, open: true, ..Default::default() };
        bench.bdk("bdk", Algorithm::Aes128, short).await;
        let guess = |ksn| request(ksn, Direction::Request, b"pay", vec![0; 7]);
        for device in 1..=101 {
            assert_eq!(call(&bench, &guess(aes_ksn(device, 1))).await, "MAC_MISMATCH");
        }
        let ksn = aes_ksn(200, 1);
        let mac = made(&bench, &ksn, Direction::Request, b"pay").await[..4].to_vec();
        let genuine = request(ksn, Direction::Request, b"pay", mac);
        assert_eq!(call(&bench, &genuine).await, "OK");
        for counter in 1..=100 {
            assert_eq!(call(&bench, &guess(aes_ksn(250, counter))).await, "MAC_MISMATCH");
        }
        assert_eq!(call(&bench, &guess(aes_ksn(250, 101))).await, "BUDGET_SPENT");
        assert_eq!(call(&bench, &genuine).await, "OK");
    }

    #[tokio::test]
    async fn corrupted_macs_close_nothing_and_are_counted() {
        let (bench, ksn) = served().await;
        for counter in 0..=Budget::Mac.failures_max() {
            let message = counter.to_be_bytes();
            let asked = request(ksn.clone(), Direction::Request, &message, vec![0; 8]);
            assert_eq!(call(&bench, &asked).await, "MAC_MISMATCH");
        }
        let last = bench.last_event().await;
        assert_eq!(last.reason.as_deref(), Some("MAC_MISMATCH"));
        let mac = made(&bench, &ksn, Direction::Request, b"pay").await;
        let genuine = request(ksn, Direction::Request, b"pay", mac);
        assert_eq!(call(&bench, &genuine).await, "OK");
        let before = bench.last_event().await.seq;
        assert_eq!(before, last.seq + 1, "repetitions make no event of their own");
        bench.vault.flush().await.unwrap();
        let counted = bench.last_event().await;
        assert_eq!(counted.detail["repeated"], Budget::Mac.failures_max().to_string());
        assert_eq!(counted.detail["terminal"], "terminals/t1");
    }

    #[tokio::test]
    async fn nobody_plays_a_step_of_an_activation() {
        let (bench, ksn) = served().await;
        bench.key("mac", KeyUsage::MacCmac, Algorithm::Aes128, KeyAttributes::default()).await;
        let input = Transcript::new().with(b"m").authenticated_input(Role::Service, Step::Test);
        let made_here = generate(&bench, ksn.clone(), Direction::Response, &input).await;
        assert_eq!(reason(&made_here), "FIELD_INVALID");
        let mac = made(&bench, &ksn, Direction::Request, &input).await;
        let asked = request(ksn, Direction::Request, &input, mac.clone());
        assert_eq!(call(&bench, &asked).await, "FIELD_INVALID");
        let fixed = Request { key: MacWorkingKey::Static("mac".into()), ..asked };
        assert_eq!(call(&bench, &fixed).await, "FIELD_INVALID");
        let key = MacWorkingKey::Static("mac".into());
        let (message, terminal) = (input, None);
        let asked = generate_mac::Request { key, algorithm: CMAC, message, len_bytes: 8, terminal };
        let made_here = generate_mac(&bench.vault, &bench.caller, &asked).await;
        assert_eq!(reason(&made_here), "FIELD_INVALID");
    }
}
