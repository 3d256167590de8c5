//! The ledger of counters, over the API: terminals skip counters, come late, begin anywhere or at
//! one, and nobody else moves them.

use firstkey::agreement::Suite;
use firstkey::dukpt::{AesInitialKeyId, AesKsn, KeyKind, TdesKsn};
use firstkey::grpc::proto::{
    Direction, KeyAttributes, MacAlgorithm as Word, PinBlockFormat, TranslatePinRequest,
    VerifyMacRequest,
};
use firstkey::key::Algorithm;
use firstkey::key::usage::{BaseDerivation, MacGeneration};
use firstkey::mac::MacAlgorithm;
use firstkey::vault::{JUMP_MAX, WINDOW};

use crate::harness::Service;
use crate::known::{
    InjectedAes, InjectedTdes, Known, PAN, dukpt, random, reason_of, status_of, stored,
};

const SET: [u8; 4] = [0xD1, 0xD2, 0xD3, 0xD4];
const TDES_SET: [u8; 5] = [0xFF, 0xFF, 0xD1, 0xD2, 0xD3];

/// A service with one terminal of each family, injected elsewhere.
struct Bench {
    service: Service,
    aes: InjectedAes,
    tdes: InjectedTdes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Aes,
    Tdes,
}

use Family::{Aes, Tdes};

impl Family {
    /// The counter of the transaction of that rank: the first has rank 1.
    fn counter(self, rank: u64) -> u32 {
        let found = match self {
            Aes => AesKsn::from_rank(rank),
            Tdes => TdesKsn::from_rank(rank),
        };
        found.expect("a terminal comes so far")
    }

    /// How many transactions a terminal can make.
    const fn last_rank(self) -> u64 {
        match self {
            Aes => AesKsn::rank_max(),
            Tdes => TdesKsn::rank_max(),
        }
    }
}

impl Bench {
    async fn new() -> Self {
        let service = Service::start().await;
        let aes = InjectedAes::below(&service, "bdk", SET).await;
        let tdes = InjectedTdes::below(&service, "bdk-tdes", TDES_SET).await;
        Self { service, aes, tdes }
    }

    fn ksn(&self, family: Family, counter: u32) -> Vec<u8> {
        match family {
            Aes => self.aes.ksn(counter).bytes().to_vec(),
            Tdes => self.tdes.ksn(counter).bytes().to_vec(),
        }
    }

    /// The message of a terminal under a counter.
    fn message(&self, family: Family, counter: u32) -> VerifyMacRequest {
        let ksn = self.ksn(family, counter);
        match family {
            Aes => message(&ksn, Word::AesCmac, |message| {
                let key = self.aes.key::<MacGeneration>(counter);
                key.generate_mac(MacAlgorithm::AesCmac, message, 8).unwrap().bytes().to_vec()
            }),
            Tdes => message(&ksn, Word::TdesCmac, |message| {
                let key = self.tdes.key::<MacGeneration>(counter);
                key.generate_mac(MacAlgorithm::TdesCmac, message, 8).unwrap().bytes().to_vec()
            }),
        }
    }

    /// What the terminal's own message under a counter is told.
    async fn genuine(&self, family: Family, counter: u32) -> String {
        verify(&self.service, self.message(family, counter)).await
    }

    /// What somebody without its keys is told.
    async fn forged(&self, family: Family, counter: u32) -> String {
        let request = VerifyMacRequest { mac: random(8), ..self.message(family, counter) };
        verify(&self.service, request).await
    }
}

/// A message that says its own KSN, so that each counter has another.
fn message(ksn: &[u8], algorithm: Word, mac: impl FnOnce(&[u8]) -> Vec<u8>) -> VerifyMacRequest {
    VerifyMacRequest {
        key: dukpt(ksn),
        direction: Direction::Request.into(),
        algorithm: algorithm.into(),
        message: ksn.to_vec(),
        mac: mac(ksn),
        ..VerifyMacRequest::default()
    }
}

async fn verify(service: &Service, request: VerifyMacRequest) -> String {
    let verified = service.client.macs().verify_mac(request).await;
    verified.err().map_or_else(|| "OK".to_owned(), |status| reason_of(&status))
}

#[test]
fn the_counter_after_one_is_the_next_with_few_enough_one_bits() {
    for (family, counter, next) in [
        (Tdes, 1, 2),
        (Tdes, 0x3FF, 0x400),
        (Tdes, 0x7FE, 0x800),
        (Tdes, 0x1F_F400, 0x1F_F800),
        (Aes, 1, 2),
        (Aes, 0xFFFF, 0x1_0000),
        (Aes, 0x1_FFFE, 0x2_0000),
        (Aes, 0xFFFE_8000, 0xFFFF_0000),
    ] {
        let (rank, weight_max) = match family {
            Aes => (AesKsn::rank_of(counter), AesKsn::COUNTER_WEIGHT_MAX),
            Tdes => (TdesKsn::rank_of(counter), TdesKsn::COUNTER_WEIGHT_MAX),
        };
        // Told once more without a rank: by counting up.
        let counted = (counter + 1..=u32::MAX).find(|one| one.count_ones() <= weight_max).unwrap();
        assert_eq!(counted, next, "{family:?} {counter:X}");
        assert_eq!(family.counter(rank), counter, "{family:?} {counter:X}");
        assert_eq!(family.counter(rank + 1), next, "{family:?} {counter:X}");
    }
    assert_eq!((AesKsn::from_rank(Aes.last_rank() + 1), Aes.counter(1)), (None, 1));
    assert_eq!((TdesKsn::from_rank(Tdes.last_rank() + 1), Tdes.counter(1)), (None, 1));
}

#[tokio::test]
async fn counters_that_are_skipped_are_no_jump_and_the_last_one_is_served() {
    let bench = Bench::new().await;
    for (family, before, last) in
        [(Tdes, 0x1F_F400, 0x1F_F800), (Aes, 0xFFFE_8000, 0xFFFF_0000_u32)]
    {
        // Hundreds, or ten thousands, of counters lie between them that no terminal uses. The window
        // behind the last is counted in those that it does use.
        assert_eq!(bench.genuine(family, before).await, "OK", "{family:?}");
        assert_eq!(bench.genuine(family, last).await, "OK", "{family:?}");
        let behind = |ranks: u64| family.counter(family.last_rank() - ranks);
        assert_eq!(bench.genuine(family, behind(WINDOW)).await, "KSN_REPLAYED", "{family:?}");
        let oldest = behind(WINDOW - 1);
        assert!(u64::from(last - oldest) > WINDOW, "{family:?}");
        assert_eq!(bench.genuine(family, oldest).await, "OK", "{family:?}");
        // Each of them once, and in any order.
        for ranks in (2..WINDOW - 1).rev().step_by(9) {
            assert_eq!(bench.genuine(family, behind(ranks)).await, "OK", "{family:?} {ranks}");
        }
        let mut other = bench.message(family, last);
        other.message.push(0);
        assert_eq!(verify(&bench.service, other).await, "MAC_MISMATCH", "{family:?}");
        assert_eq!(bench.genuine(family, last).await, "OK", "{family:?}: the identical call");
        bench.service.clock.advance(301);
        assert_eq!(bench.genuine(family, last).await, "KSN_REPLAYED", "{family:?}");
        assert_eq!(bench.genuine(family, oldest).await, "KSN_REPLAYED", "{family:?}");
    }
}

#[tokio::test]
async fn a_jump_is_counted_in_transactions_and_bounded() {
    let bench = Bench::new().await;
    for family in [Aes, Tdes] {
        // In the last third of its counters a terminal skips most of them.
        let begin = family.last_rank() - 3 * JUMP_MAX;
        assert_eq!(bench.genuine(family, family.counter(begin)).await, "OK");
        let far = family.counter(begin + JUMP_MAX + 1);
        assert_eq!(bench.genuine(family, far).await, "KSN_REPLAYED");
        let farthest = family.counter(begin + JUMP_MAX);
        assert!(u64::from(farthest - family.counter(begin)) > JUMP_MAX, "{family:?}");
        assert_eq!(bench.genuine(family, farthest).await, "OK");
        assert_eq!(bench.genuine(family, far).await, "OK");
        let late = family.counter(begin);
        bench.service.clock.advance(301);
        assert_eq!(bench.genuine(family, late).await, "KSN_REPLAYED");
    }
}

#[tokio::test]
async fn a_forged_message_burns_no_counter_and_moves_no_window() {
    let bench = Bench::new().await;
    for family in [Aes, Tdes] {
        let counter = |rank| family.counter(1_000 + rank);
        assert_eq!(bench.genuine(family, counter(0)).await, "OK");
        for rank in [1, 2, WINDOW, 2 * WINDOW, JUMP_MAX] {
            for _ in 0..3 {
                assert_eq!(bench.forged(family, counter(rank)).await, "MAC_MISMATCH");
            }
        }
        assert_eq!(bench.forged(family, counter(JUMP_MAX + 1)).await, "KSN_REPLAYED");
        // All that was forged is free, and what lay in the window before still does.
        assert_eq!(bench.genuine(family, family.counter(1_001 - WINDOW)).await, "OK");
        assert_eq!(bench.genuine(family, counter(1)).await, "OK");
        assert_eq!(bench.genuine(family, counter(2)).await, "OK");
        assert_eq!(bench.genuine(family, counter(JUMP_MAX)).await, "OK");
    }
}

#[tokio::test]
async fn the_ledger_of_a_stranger_begins_at_the_first_message_that_verifies() {
    let bench = Bench::new().await;
    for family in [Aes, Tdes] {
        let huge = family.counter(family.last_rank());
        assert_eq!(bench.forged(family, huge).await, "MAC_MISMATCH", "{family:?}");
        // Nor does a PIN block that nobody typed, though it spends its one counter.
        let (format, len) = match family {
            Aes => (PinBlockFormat::Iso4, 16),
            Tdes => (PinBlockFormat::Iso3, 8),
        };
        let request = TranslatePinRequest {
            source: dukpt(&bench.ksn(family, huge)),
            source_format: format.into(),
            pin_block: random(len),
            destination: stored("dev-zone-pin-aes"),
            destination_format: PinBlockFormat::Iso4.into(),
            pan: PAN.to_owned(),
            ..TranslatePinRequest::default()
        };
        let refused = status_of(bench.service.client.pins().translate_pin(request).await);
        assert_eq!(reason_of(&refused), "PIN_BLOCK_REJECTED");
        let first = family.counter(50_000);
        assert_eq!(bench.genuine(family, first).await, "OK", "{family:?}");
        // From then on it is bounded on both sides.
        let too_far = family.counter(50_001 + JUMP_MAX);
        for counter in [huge, too_far, 1, family.counter(50_000 - WINDOW)] {
            assert_eq!(bench.genuine(family, counter).await, "KSN_REPLAYED", "{counter:X}");
        }
        assert_eq!(bench.genuine(family, family.counter(50_001 - WINDOW)).await, "OK");
    }
}

#[tokio::test]
async fn the_ledger_of_a_registered_terminal_begins_at_one() {
    let service = Service::start().await;
    let bdk = Known::<BaseDerivation>::generate(Algorithm::Aes128);
    let key_set_id = vec![0xD9; 4];
    let attributes = KeyAttributes { key_set_id, ..KeyAttributes::default() };
    bdk.import_with(&service, "own", "B0AX00N", attributes).await;
    let name = || "keys/own".to_owned();
    service.profile("own", |profile| profile.base_derivation_key = name()).await;
    let mut till = service.register_under("till", Suite::P256Aes128, "own").await;
    let code = service.issue_code("till").await;
    till.activate(&service, Some(code)).await.unwrap();
    service.enable("till").await.unwrap();
    let id = AesInitialKeyId::parse(&service.get("till").await.initial_key_id).unwrap();
    let initial = bdk.key.aes_initial_key(id).unwrap();
    let send = async |rank: u64| {
        let ksn = id.ksn(Aes.counter(rank)).unwrap();
        let key = initial.working_key::<MacGeneration>(&ksn, KeyKind::Aes128).unwrap();
        let request = message(ksn.bytes(), Word::AesCmac, |message| {
            key.generate_mac(MacAlgorithm::AesCmac, message, 8).unwrap().bytes().to_vec()
        });
        verify(&service, request).await
    };
    // Its activation has used a few counters, and is what a jump is counted from.
    let next = AesKsn::parse(till.purchase(&service).ksn.bytes()).unwrap();
    let used = next.rank() - 1;
    assert!((2..WINDOW).contains(&used), "{used}");
    assert_eq!(send(used + JUMP_MAX + 1).await, "KSN_REPLAYED");
    assert_eq!(send(AesKsn::rank_max()).await, "KSN_REPLAYED");
    assert_eq!(send(1).await, "KSN_REPLAYED", "its activation has used it");
    assert_eq!(send(used + 1).await, "OK");
    assert_eq!(send(used + 1 + JUMP_MAX).await, "OK");
}
