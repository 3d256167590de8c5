//! Re-enciphers a PIN block from one key and format to another, for the same PAN.

use super::activation::record::Terminal;
use super::slot_key::FoundSlotKey;
use super::transaction_key::{
    Behind, Sender, Side, TransactionKey, Wanted, check_named_terminal, underivable,
};
use super::{Error, SlotKey, WorkingKey, activation, give_up, retrying};
use crate::key::Key;
use crate::key::usage::PinEncryption;
use crate::pin::{
    EncryptedPinBlock, Fill, FormatForbidden, Pan, PanForm, PinBlockFormat, PinBlockRejected,
    Translation,
};
use crate::vault::{
    self, Action, Budget, Caller, HashPurpose, KeyAttributes, KeyUse, Operation, Purpose, Reason,
    StoredKey, Vault, Versioned, Work, key_of,
};

/// A PIN block to be translated. There is one PAN, so it can not be changed.
pub struct Request {
    /// The key that the block is under.
    pub source: WorkingKey,
    /// The format that the block has.
    pub source_format: PinBlockFormat,
    /// The block.
    pub pin_block: EncryptedPinBlock,
    /// The key that the block shall be under.
    pub destination: WorkingKey,
    /// The format that the block shall have.
    pub destination_format: PinBlockFormat,
    /// The PAN of both blocks.
    pub pan: Pan,
    /// How the PAN enters a block of format 4.
    pub pan_form: PanForm,
    /// The id in `terminals/{id}` of the source; none to find it by the KSN.
    pub terminal: Option<String>,
}

/// Translates a PIN block, or answers `PIN_BLOCK_REJECTED`.
///
/// What the formats, the keys and their attributes forbid is refused before anything is spent. Then
/// the counter of each transaction key is claimed and becomes spent in the commit, whatever the PIN
/// block turns out to be: one look per counter. A rejected block is charged to the budgets of this
/// PAN and of the terminal, or of the caller with this key, and to the rate of whose it is; under a
/// static key, where no counter limits how often one block comes, also to the budget of the block.
///
/// The identical call within five minutes is computed again. In formats 3 and 4 its block differs
/// from the first in the random fill, never in the PIN.
pub async fn translate_pin(
    vault: &Vault,
    caller: &Caller,
    request: &Request,
) -> Result<EncryptedPinBlock, Error> {
    retrying(|| async {
        let (source, destination) = request.behind(vault, caller).await?;
        let keys = request.uses((&source, &destination));
        let (action, resource) = (Action::TranslatePin, source.resource());
        let mut work = vault.begin_with_keys(caller, action, resource, &keys).await?;
        let names = Names { source: source.name(), destination: destination.name() };
        match translate(vault, caller, &mut work, names, request).await {
            Ok(Outcome::Translated(block)) => {
                // Nothing leaves before this line.
                work.commit().await?;
                Ok(block)
            }
            Ok(Outcome::Rejected) => {
                Err(work.commit_refused(Reason::PinBlockRejected).await.into())
            }
            Err(error) => Err(give_up(work, error).await),
        }
    })
    .await
}

/// The names of both stored keys, where they are known.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) source: Option<&'a str>,
    pub(super) destination: Option<&'a str>,
}

/// What became of a PIN block.
pub(super) enum Outcome {
    Rejected,
    Translated(EncryptedPinBlock),
}

/// Both keys of a translation that may be made. Nothing is spent yet.
pub(super) struct Sides<'a> {
    names: Names<'a>,
    source: PinKey,
    destination: PinKey,
}

impl<'a> Sides<'a> {
    /// Finds the keys, and refuses what formats, keys and attributes forbid.
    pub(super) async fn find(
        (vault, caller): (&Vault, &Caller),
        work: &mut Work,
        names: Names<'a>,
        request: &Request,
    ) -> Result<Self, Error> {
        let door = (vault, caller);
        let destination = destination(door, work, names.destination, request).await?;
        let source = source(door, work, names.source, request).await?;
        let sides = Self { names, source, destination };
        sides.translation(request).check().map_err(forbidden)?;
        let formats_in = &sides.source.attributes().pin_formats_in;
        let formats_out = &sides.destination.attributes().pin_formats_out;
        if carries(formats_in, request.source_format)
            && carries(formats_out, request.destination_format)
        {
            Ok(sides)
        } else {
            Err(Error::refused(Reason::TranslationForbidden))
        }
    }

    /// Who made the block; not known of a key in `keys/`.
    pub(super) fn sender(&self) -> Option<Sender<'_>> {
        self.source.sender()
    }

    /// The same as it was read, where this is its first transaction.
    pub(super) fn first_of(&self) -> Option<Versioned<Terminal>> {
        self.sender().and_then(Sender::first_of)
    }

    /// Spends the counters and translates the block.
    pub(super) async fn translate(
        &self,
        vault: &Vault,
        caller: &Caller,
        work: &mut Work,
        request: &Request,
    ) -> Result<Outcome, Error> {
        let hash = request.hash(vault, self.names);
        work.request(hash);
        note_pan(vault, work, &request.pan);
        // The counters first: they become spent in the commit, whatever the PIN block turns out to
        // be. Each side has its own input, so one counter can not stand on both.
        self.source.claim(work, &[b"source".as_slice(), &hash].concat()).await?;
        self.destination.claim(work, &[b"destination".as_slice(), &hash].concat()).await?;
        reserve(work, caller, (self.names.source, &self.source), request).await?;

        let fill = Fill::draw(vault.rng())
            .map_err(|_| vault::Error::incident("the random number generator failed", ""))?;
        Ok(match self.translation(request).apply(&request.pin_block, &fill) {
            Ok(block) => Outcome::Translated(block),
            Err(PinBlockRejected) => Outcome::Rejected,
        })
    }

    fn translation<'b>(&'b self, request: &'b Request) -> Translation<'b> {
        let formats_in = &self.source.attributes().pin_formats_in;
        Translation {
            inbound: self.source.key(),
            from: request.source_format,
            inbound_pan: request.pan_form,
            outbound: self.destination.key(),
            to: request.destination_format,
            outbound_pan: request.pan_form,
            pan: &request.pan,
            format_1_inbound: carries(formats_in, PinBlockFormat::Iso1),
        }
    }
}

async fn translate(
    vault: &Vault,
    caller: &Caller,
    work: &mut Work,
    names: Names<'_>,
    request: &Request,
) -> Result<Outcome, Error> {
    let sides = Sides::find((vault, caller), work, names, request).await?;
    let outcome = sides.translate(vault, caller, work, request).await?;
    if let (Outcome::Translated(_), Some(terminal)) = (&outcome, sides.first_of()) {
        activation::first_transaction(work, terminal, "TranslatePin")?;
    }
    Ok(outcome)
}

/// The side that a PIN block comes from.
async fn source(
    door: (&Vault, &Caller),
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<PinKey, Error> {
    let terminal = request.terminal.as_deref();
    match &request.source {
        WorkingKey::Dukpt(key) => {
            PinKey::derived(Wanted { key, name, side: Side::Host, terminal }, door, work).await
        }
        WorkingKey::Slot(key) => key.find((name, terminal), door, work).await.map(PinKey::OfSlot),
        WorkingKey::Static(name) => {
            check_named_terminal(door, work, terminal).await?;
            PinKey::stored(name, Operation::Decrypt, door.0, work).await
        }
    }
}

/// The side that a PIN block goes to. To make one is a terminal's part, so a transaction key here
/// is that of a link to another host.
async fn destination(
    door: (&Vault, &Caller),
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<PinKey, Error> {
    match &request.destination {
        WorkingKey::Dukpt(key) => {
            let (side, terminal) = (Side::Terminal, None);
            PinKey::derived(Wanted { key, name, side, terminal }, door, work).await
        }
        WorkingKey::Slot(_) => Err(Error::refused(Reason::KeyUsageMismatch)),
        WorkingKey::Static(name) => PinKey::stored(name, Operation::Encrypt, door.0, work).await,
    }
}

/// The PIN key of one side, ready to work.
enum PinKey {
    Derived(TransactionKey, Key<PinEncryption>),
    OfSlot(FoundSlotKey<PinEncryption>),
    Stored(StoredKey<PinEncryption>),
}

impl PinKey {
    async fn derived(
        wanted: Wanted<'_>,
        door: (&Vault, &Caller),
        work: &mut Work,
    ) -> Result<Self, Error> {
        let of = wanted.find(door, work).await?;
        let (initial, kind) = of.derive()?;
        let key = initial.pin_key(kind).map_err(underivable)?;
        Ok(Self::Derived(of, key))
    }

    async fn stored(
        name: &str,
        operation: Operation,
        vault: &Vault,
        work: &mut Work,
    ) -> Result<Self, Error> {
        let key = vault.key(name, operation).await?;
        work.uses(&key);
        Ok(Self::Stored(key))
    }

    const fn key(&self) -> &Key<PinEncryption> {
        match self {
            Self::Derived(_, key) => key,
            Self::OfSlot(key) => key.key(),
            Self::Stored(key) => key.key(),
        }
    }

    const fn attributes(&self) -> &KeyAttributes {
        match self {
            Self::Derived(of, _) => of.attributes(),
            Self::OfSlot(key) => key.attributes(),
            Self::Stored(key) => &key.record().attributes,
        }
    }

    fn sender(&self) -> Option<Sender<'_>> {
        match self {
            Self::Derived(of, _) => Some(of.sender()),
            Self::OfSlot(key) => Some(key.sender()),
            Self::Stored(_) => None,
        }
    }

    async fn claim(&self, work: &mut Work, input: &[u8]) -> Result<(), Error> {
        match self {
            // Fresh or a repetition: both compute. What is spent by another input is an error.
            Self::Derived(of, _) => of.claim(work, Purpose::Pin, input).await.map(|_| ()),
            Self::OfSlot(_) | Self::Stored(_) => Ok(()),
        }
        .map_err(Error::from)
    }
}

impl Request {
    /// The stored keys behind source and destination.
    pub(super) async fn behind(
        &self,
        vault: &Vault,
        caller: &Caller,
    ) -> Result<(Behind, Behind), Error> {
        let source = self.source.behind(vault, caller).await?;
        Ok((source, self.destination.behind(vault, caller).await?))
    }

    /// The keys as the policy is asked about them.
    pub(super) fn uses<'a>(
        &self,
        (source, destination): (&'a Behind, &'a Behind),
    ) -> [KeyUse<'a>; 2] {
        let format_in = Some(self.source_format);
        let format_out = Some(self.destination_format);
        [KeyUse { format_in, ..source.used() }, KeyUse { format_out, ..destination.used() }]
    }

    /// Everything that the result depends on.
    fn hash<'a>(&self, vault: &Vault, names: Names<'a>) -> [u8; 32] {
        let side = |key: &WorkingKey, format: PinBlockFormat| match key {
            WorkingKey::Dukpt(key) => {
                let ksn = data_encoding::HEXUPPER.encode(key.ksn.bytes());
                format!("{ksn} {:?} {format:?}", key.kind)
            }
            WorkingKey::Slot(SlotKey { terminal, slot }) => format!("{terminal} {slot} {format:?}"),
            WorkingKey::Static(_) => format!("{format:?}"),
        };
        // The version of a base derivation key follows from the KSN.
        let name = |key: &WorkingKey, name: Option<&'a str>| match key {
            WorkingKey::Dukpt(_) => name.map_or("", key_of),
            WorkingKey::Slot(_) | WorkingKey::Static(_) => name.unwrap_or_default(),
        };
        // Exposed to a keyed hash alone.
        let pan = self.pan.expose_digits();
        vault.keyed_hash(
            HashPurpose::RequestBody,
            &[
                name(&self.source, names.source).as_bytes(),
                side(&self.source, self.source_format).as_bytes(),
                self.pin_block.bytes(),
                name(&self.destination, names.destination).as_bytes(),
                side(&self.destination, self.destination_format).as_bytes(),
                pan.as_bytes(),
                format!("{:?}", self.pan_form).as_bytes(),
            ],
        )
    }
}

/// Whether a key's attribute lists a format.
fn carries(formats: &[u8], format: PinBlockFormat) -> bool {
    let number = match format {
        PinBlockFormat::Iso0 => 0,
        PinBlockFormat::Iso1 => 1,
        PinBlockFormat::Iso2 => 2,
        PinBlockFormat::Iso3 => 3,
        PinBlockFormat::Iso4 => 4,
    };
    formats.contains(&number)
}

fn forbidden(error: FormatForbidden) -> Error {
    match error {
        FormatForbidden::Algorithm => Error::refused(Reason::KeyUsageMismatch),
        FormatForbidden::Pair => Error::refused(Reason::TranslationForbidden),
        FormatForbidden::PanLength => Error::field("pan", "is too short for this PIN block format"),
    }
}

/// Events about one card show the same keyed hash; the PAN is in none.
fn note_pan(vault: &Vault, work: &mut Work, pan: &Pan) {
    let hash = vault.keyed_hash(HashPurpose::Pan, &[pan.expose_digits().as_bytes()]);
    work.detail("pan_hash", data_encoding::HEXLOWER.encode(&hash));
}

/// Reserves places in the budgets of failures, before anything is decrypted.
///
/// To learn a PIN from accepted and rejected blocks one varies the PAN under one block (Clulow), so
/// the budget of a PAN alone would not see it: the block has one too, and all of them together have
/// a rate. Under a transaction key a counter takes one block, which then needs no budget.
///
/// A terminal that is not registered here has the rate of its own initial key: nobody proves to
/// have a key serial number, so a rate of the whole base derivation key would let one who invents
/// them close it to all others.
async fn reserve(
    work: &mut Work,
    caller: &Caller,
    (key_name, source): (Option<&str>, &PinKey),
    request: &Request,
) -> Result<(), Error> {
    // All versions of a key have one budget.
    let key_name = key_name.map_or("", key_of).as_bytes();
    let [kind, who, of]: [&[u8]; 3] = match source.sender().and_then(Sender::terminal) {
        Some(terminal) => [b"terminal", terminal.id.as_bytes(), b""],
        None => [b"caller", caller.name().as_bytes(), key_name],
    };
    // Exposed to a keyed hash alone, which is the budget's id; so is the block.
    let pan = request.pan.expose_digits();
    work.reserve(Budget::Pin, &[b"pan", kind, who, of, pan.as_bytes()]).await?;
    if !matches!(source, PinKey::Derived(..)) {
        let block = request.pin_block.bytes();
        work.reserve(Budget::Pin, &[b"block", key_name, block]).await?;
    }
    let stranger = source.sender().and_then(Sender::stranger).unwrap_or_default();
    Ok(work.reserve(Budget::PinRate, &[kind, who, of, &stranger]).await?)
}

#[cfg(test)]
mod tests {
    use PinBlockFormat::{Iso0, Iso3, Iso4};

    use super::*;
    use crate::activation::State;
    use crate::command::Ksn;
    use crate::command::testing::{Bench, aes_ksn, dukpt, reason, stored, tdes_ksn};
    use crate::key::Algorithm;
    use crate::key::usage::BaseDerivation;
    use crate::pin::{Pin, encipher, verify_form};
    use crate::vault::{KeyUsage, REPEAT_MS};

    const PAN: &str = "4111111111111111";

    /// Zone keys of both families, and a base derivation key.
    async fn bench(bdk: Algorithm, open: bool) -> Bench {
        let bench = Bench::new().await;
        let usual = KeyAttributes::default;
        for (name, algorithm) in
            [("in", Algorithm::Tdes2), ("tdes", Algorithm::Tdes2), ("aes", Algorithm::Aes128)]
        {
            bench.key(name, KeyUsage::PinEncryption, algorithm, usual()).await;
        }
        bench.bdk("bdk", bdk, KeyAttributes { open, ..usual() }).await;
        bench
    }

    /// A block that a terminal makes under a KSN.
    async fn made(bench: &Bench, ksn: &Ksn, format: PinBlockFormat) -> EncryptedPinBlock {
        let bdk = bench.vault.key::<BaseDerivation>("bdk", Operation::DeriveWorking).await.unwrap();
        let initial = super::super::InitialKey::derive(bdk.key(), ksn).unwrap();
        let key = initial.pin_key(initial.kind()).unwrap();
        let fill = Fill::draw(bench.vault.rng()).unwrap();
        let (pin, pan) = (Pin::parse("1234").unwrap(), Pan::parse(PAN).unwrap());
        encipher(&key, format, &pin, &pan, &fill).unwrap()
    }

    fn request(ksn: Ksn, from: PinBlockFormat, pin_block: EncryptedPinBlock) -> Request {
        Request {
            source: WorkingKey::Dukpt(dukpt(ksn)),
            source_format: from,
            pin_block,
            destination: stored("aes"),
            destination_format: Iso4,
            pan: Pan::parse(PAN).unwrap(),
            pan_form: PanForm::Full,
            terminal: None,
        }
    }

    async fn call(bench: &Bench, request: &Request) -> Result<EncryptedPinBlock, Error> {
        translate_pin(&bench.vault, &bench.caller, request).await
    }

    #[tokio::test]
    async fn a_terminal_is_served_and_its_first_transaction_told() {
        let bench = bench(Algorithm::Aes128, false).await;
        let ksn = aes_ksn(1, 5);
        bench.terminal("t1", "bdk", &ksn, State::Active).await;
        let asked = request(ksn.clone(), Iso4, made(&bench, &ksn, Iso4).await);
        let block = call(&bench, &asked).await.unwrap();
        let zone = bench.vault.key::<PinEncryption>("aes", Operation::Decrypt).await.unwrap();
        let pan = Pan::parse(PAN).unwrap();
        assert!(verify_form(zone.key(), Iso4, &pan, &block).is_ok());
        assert!(bench.read_terminal("t1").await.first_transaction.is_some());
        let event = bench.last_event().await;
        assert!(event.is_done());
        assert_eq!(event.detail["step"], "FirstTransaction");
        assert_eq!(event.detail["ksn"], "123456780000000100000005");
        assert_eq!(event.keys.len(), 2);
        assert!(!String::from_utf8(event.encode()).unwrap().contains(PAN));
    }

    #[tokio::test]
    async fn a_counter_is_spent_by_one_block() {
        let bench = bench(Algorithm::Tdes2, true).await;
        let ksn = tdes_ksn(1);
        let asked = request(ksn.clone(), Iso0, made(&bench, &ksn, Iso0).await);
        assert_eq!(reason(&call(&bench, &asked).await), "OK");
        // The identical call is computed again, with another fill.
        assert_eq!(reason(&call(&bench, &asked).await), "OK");
        let other = request(ksn.clone(), Iso3, made(&bench, &ksn, Iso3).await);
        assert_eq!(reason(&call(&bench, &other).await), "KSN_REPLAYED");
        let legacy = Request { pan_form: PanForm::Legacy12, ..asked };
        assert_eq!(reason(&call(&bench, &legacy).await), "KSN_REPLAYED");
        bench.forward(REPEAT_MS + 1);
        let again = Request { pan_form: PanForm::Full, ..legacy };
        assert_eq!(reason(&call(&bench, &again).await), "KSN_REPLAYED");
    }

    #[tokio::test]
    async fn a_rejected_block_spends_its_counter_and_the_budget() {
        let bench = bench(Algorithm::Tdes2, true).await;
        for counter in 1..=3 {
            let bad = EncryptedPinBlock::parse(&[counter; 8]).unwrap();
            let asked = request(tdes_ksn(counter), Iso0, bad);
            assert_eq!(reason(&call(&bench, &asked).await), "PIN_BLOCK_REJECTED");
            let ksn = tdes_ksn(counter);
            let good = request(ksn.clone(), Iso0, made(&bench, &ksn, Iso0).await);
            assert_eq!(reason(&call(&bench, &good).await), "KSN_REPLAYED");
        }
        let ksn = tdes_ksn(4);
        let mut good = request(ksn.clone(), Iso0, made(&bench, &ksn, Iso0).await);
        assert_eq!(reason(&call(&bench, &good).await), "BUDGET_SPENT");
        // Another card is not closed, and the counter was not spent by the closed budget.
        good.pan = Pan::parse("5500000000000004").unwrap();
        assert_eq!(reason(&call(&bench, &good).await), "PIN_BLOCK_REJECTED");
    }

    #[tokio::test]
    async fn what_is_forbidden_spends_nothing() {
        let bench = bench(Algorithm::Tdes2, true).await;
        let ksn = tdes_ksn(1);
        let block = made(&bench, &ksn, Iso0).await;
        let mut asked = request(ksn, Iso0, block);
        (asked.destination, asked.destination_format) = (stored("tdes"), Iso0);
        // The usual attributes let nothing out in format 0.
        assert_eq!(reason(&call(&bench, &asked).await), "TRANSLATION_FORBIDDEN");
        asked.destination_format = Iso4;
        assert_eq!(reason(&call(&bench, &asked).await), "KEY_USAGE_MISMATCH");
        asked.destination_format = PinBlockFormat::Iso1;
        assert_eq!(reason(&call(&bench, &asked).await), "TRANSLATION_FORBIDDEN");
        (asked.source_format, asked.destination_format) = (PinBlockFormat::Iso1, Iso3);
        assert_eq!(reason(&call(&bench, &asked).await), "TRANSLATION_FORBIDDEN");
        (asked.source_format, asked.pan) = (Iso0, Pan::parse("411111111111").unwrap());
        assert_eq!(reason(&call(&bench, &asked).await), "FIELD_INVALID");
        asked.pan = Pan::parse(PAN).unwrap();
        asked.destination = stored("absent");
        assert_eq!(reason(&call(&bench, &asked).await), "KEY_NOT_FOUND");
        asked.destination = stored("bdk");
        assert_eq!(reason(&call(&bench, &asked).await), "KEY_USAGE_MISMATCH");
        asked.destination = stored("tdes");
        assert_eq!(reason(&call(&bench, &asked).await), "OK");
    }

    #[tokio::test]
    async fn a_static_key_has_a_budget_alone() {
        let bench = bench(Algorithm::Tdes2, false).await;
        let zone = bench.vault.key::<PinEncryption>("in", Operation::Encrypt).await.unwrap();
        let fill = Fill::draw(bench.vault.rng()).unwrap();
        let (pin, pan) = (Pin::parse("1234").unwrap(), Pan::parse(PAN).unwrap());
        let block = encipher(zone.key(), Iso0, &pin, &pan, &fill).unwrap();
        let mut asked = request(tdes_ksn(1), Iso0, block);
        asked.source = stored("in");
        for _ in 0..5 {
            assert_eq!(reason(&call(&bench, &asked).await), "OK");
        }
        asked.pin_block = EncryptedPinBlock::parse(&[9; 8]).unwrap();
        for expected in ["PIN_BLOCK_REJECTED"; 3].into_iter().chain(["BUDGET_SPENT"]) {
            assert_eq!(reason(&call(&bench, &asked).await), expected);
        }
    }

    /// A PAN of 16 digits for each number.
    fn pan(number: usize) -> Pan {
        Pan::parse(&format!("49{number:013}7")).unwrap()
    }

    #[tokio::test]
    async fn one_block_may_be_tried_with_three_cards() {
        let bench = bench(Algorithm::Tdes2, false).await;
        let mut asked = request(tdes_ksn(1), Iso0, EncryptedPinBlock::parse(&[9; 8]).unwrap());
        asked.source = stored("in");
        for number in 0..3 {
            asked.pan = pan(number);
            assert_eq!(reason(&call(&bench, &asked).await), "PIN_BLOCK_REJECTED");
        }
        asked.pan = pan(3);
        assert_eq!(reason(&call(&bench, &asked).await), "BUDGET_SPENT");
        // Nor does another caller get to go on with it, or a terminal that is only named.
        let other = Caller::for_dev_only("other");
        let outcome = translate_pin(&bench.vault, &other, &asked).await;
        assert_eq!(reason(&outcome), "BUDGET_SPENT");
        bench.terminal("t9", "bdk", &tdes_ksn(9), State::Active).await;
        asked.terminal = Some("t9".into());
        assert_eq!(reason(&call(&bench, &asked).await), "BUDGET_SPENT");
        (asked.terminal, asked.pin_block) = (None, EncryptedPinBlock::parse(&[8; 8]).unwrap());
        assert_eq!(reason(&call(&bench, &asked).await), "PIN_BLOCK_REJECTED");
    }

    #[tokio::test]
    async fn a_hundred_rejected_blocks_throttle_a_caller_and_raise_the_alarm() {
        let bench = bench(Algorithm::Tdes2, false).await;
        let block = |number: u8| EncryptedPinBlock::parse(&[number; 8]).unwrap();
        let mut asked = request(tdes_ksn(1), Iso0, block(0));
        asked.source = stored("in");
        for number in 0..100 {
            (asked.pin_block, asked.pan) = (block(number), pan(usize::from(number)));
            assert_eq!(reason(&call(&bench, &asked).await), "PIN_BLOCK_REJECTED");
        }
        (asked.pin_block, asked.pan) = (block(100), pan(100));
        let spent = call(&bench, &asked).await;
        assert_eq!(reason(&spent), "BUDGET_SPENT");
        let event = bench.last_event().await;
        assert_eq!((event.is_done(), event.detail["alarm"].as_str()), (false, "pin_rate"));
        // The key still serves, and every other caller.
        let other = Caller::for_dev_only("other");
        let outcome = translate_pin(&bench.vault, &other, &asked).await;
        assert_eq!(reason(&outcome), "PIN_BLOCK_REJECTED");
        bench.forward(Budget::PinRate.interval_ms());
        assert_eq!(reason(&call(&bench, &asked).await), "PIN_BLOCK_REJECTED");
    }

    #[tokio::test]
    async fn a_terminal_has_a_rate_whatever_card_it_reads() {
        let bench = bench(Algorithm::Tdes2, false).await;
        bench.terminal("t1", "bdk", &tdes_ksn(1), State::Active).await;
        let bad = || EncryptedPinBlock::parse(&[9; 8]).unwrap();
        let asked = |counter: u8| Request {
            pan: pan(usize::from(counter)),
            ..request(tdes_ksn(counter), Iso0, bad())
        };
        for counter in 1..=100 {
            let outcome = call(&bench, &asked(counter)).await;
            assert_eq!(reason(&outcome), "PIN_BLOCK_REJECTED", "{counter}");
        }
        assert_eq!(reason(&call(&bench, &asked(101)).await), "BUDGET_SPENT");
        assert_eq!(bench.last_event().await.detail["alarm"], "pin_rate");
    }

    #[tokio::test]
    async fn strangers_do_not_close_each_other() {
        let bench = bench(Algorithm::Aes128, true).await;
        let bad = |device: u8, counter: u32| Request {
            pan: pan(usize::try_from(u32::from(device) + counter).unwrap()),
            ..request(aes_ksn(device, counter), Iso4, EncryptedPinBlock::parse(&[9; 16]).unwrap())
        };
        for device in 1..=101 {
            let outcome = call(&bench, &bad(device, 1)).await;
            assert_eq!(reason(&outcome), "PIN_BLOCK_REJECTED", "{device}");
        }
        let ksn = aes_ksn(200, 5);
        let good = request(ksn.clone(), Iso4, made(&bench, &ksn, Iso4).await);
        assert_eq!(reason(&call(&bench, &good).await), "OK");
        // Each has a rate of its own.
        for counter in 1..=100 {
            let outcome = call(&bench, &bad(250, counter)).await;
            assert_eq!(reason(&outcome), "PIN_BLOCK_REJECTED", "{counter}");
        }
        assert_eq!(reason(&call(&bench, &bad(250, 101)).await), "BUDGET_SPENT");
        assert_eq!(bench.last_event().await.detail["alarm"], "pin_rate");
        let ksn = aes_ksn(200, 6);
        let good = request(ksn.clone(), Iso4, made(&bench, &ksn, Iso4).await);
        assert_eq!(reason(&call(&bench, &good).await), "OK");
    }

    #[tokio::test]
    async fn genuine_calls_at_once_are_not_refused_for_their_number() {
        let bench = std::sync::Arc::new(bench(Algorithm::Tdes2, false).await);
        let zone = bench.vault.key::<PinEncryption>("in", Operation::Encrypt).await.unwrap();
        let pin = Pin::parse("1234").unwrap();
        let mut calls = Vec::new();
        for number in 0..250 {
            let fill = Fill::draw(bench.vault.rng()).unwrap();
            let pan = pan(number);
            let block = encipher(zone.key(), Iso0, &pin, &pan, &fill).unwrap();
            let source = stored("in");
            let asked = Request { source, pan, ..request(tdes_ksn(1), Iso0, block) };
            let bench = std::sync::Arc::clone(&bench);
            calls.push(tokio::spawn(async move { reason(&call(&bench, &asked).await) }));
        }
        for call in calls {
            assert_eq!(call.await.unwrap(), "OK");
        }
    }

    #[tokio::test]
    async fn a_link_to_another_host_has_counters_on_the_outbound_side() {
        let bench = bench(Algorithm::Aes128, true).await;
        let (inbound, outbound) = (aes_ksn(1, 1), aes_ksn(2, 1));
        let mut asked = request(inbound.clone(), Iso4, made(&bench, &inbound, Iso4).await);
        // One counter can not stand on both sides.
        asked.destination = WorkingKey::Dukpt(dukpt(inbound));
        assert_eq!(reason(&call(&bench, &asked).await), "KSN_REPLAYED");
        asked.destination = WorkingKey::Dukpt(dukpt(outbound.clone()));
        assert_eq!(reason(&call(&bench, &asked).await), "OK");
        let inbound = aes_ksn(1, 2);
        let mut asked = request(inbound.clone(), Iso4, made(&bench, &inbound, Iso4).await);
        asked.destination = WorkingKey::Dukpt(dukpt(outbound));
        assert_eq!(reason(&call(&bench, &asked).await), "KSN_REPLAYED");
        // To make a PIN block is a registered terminal's own part.
        let own = aes_ksn(3, 1);
        bench.terminal("t3", "bdk", &own, State::Active).await;
        asked.destination = WorkingKey::Dukpt(dukpt(own));
        assert_eq!(reason(&call(&bench, &asked).await), "KEY_USAGE_MISMATCH");
    }
}
