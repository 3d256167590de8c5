//! Re-enciphers a PIN block from one key and format to another, for the same PAN.

use super::transaction_key::{
    Side, TransactionKey, Wanted, named_terminal, resource_of, underivable,
};
use super::{Error, WorkingKey, activation, give_up, retrying};
use crate::key::Key;
use crate::key::usage::PinEncryption;
use crate::pin::{
    EncryptedPinBlock, Fill, FormatForbidden, Pan, PanForm, PinBlockFormat, Translation,
};
use crate::vault::{
    self, Action, Budget, Caller, HashPurpose, KeyAttributes, Operation, Purpose, Reason,
    StoredKey, Vault, Work,
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
/// block turns out to be: one look per counter. A rejected block is charged to the budget of the
/// terminal, or of the caller, with this PAN.
///
/// The identical call within five minutes is computed again. In formats 3 and 4 its block differs
/// from the first in the random fill, never in the PIN.
pub async fn translate_pin(
    vault: &Vault,
    caller: &Caller,
    request: &Request,
) -> Result<EncryptedPinBlock, Error> {
    retrying(|| async {
        let source = request.source.name(vault).await?;
        let destination = request.destination.name(vault).await?;
        let action = Action::TranslatePin;
        let mut work = vault.begin(caller, action, resource_of(source.as_deref())).await?;
        vault.authorise(caller, action, &resource_of(destination.as_deref())).await?;
        let names = Names { source: source.as_deref(), destination: destination.as_deref() };
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
struct Names<'a> {
    source: Option<&'a str>,
    destination: Option<&'a str>,
}

enum Outcome {
    Rejected,
    Translated(EncryptedPinBlock),
}

async fn translate(
    vault: &Vault,
    caller: &Caller,
    work: &mut Work,
    names: Names<'_>,
    request: &Request,
) -> Result<Outcome, Error> {
    let destination = destination(vault, work, names.destination, request).await?;
    let source = source(vault, work, names.source, request).await?;
    let (inbound, outbound) = (source.key.open()?, destination.open()?);
    let translation = Translation {
        inbound: inbound.key(),
        from: request.source_format,
        inbound_pan: request.pan_form,
        outbound: outbound.key(),
        to: request.destination_format,
        outbound_pan: request.pan_form,
        pan: &request.pan,
        format_1_inbound: carries(&source.key.attributes().pin_formats_in, PinBlockFormat::Iso1),
    };
    translation.check().map_err(forbidden)?;
    if !carries(&source.key.attributes().pin_formats_in, request.source_format)
        || !carries(&destination.attributes().pin_formats_out, request.destination_format)
    {
        return Err(Error::refused(Reason::TranslationForbidden));
    }

    let hash = request.hash(vault, names);
    work.request(hash);
    note_pan(vault, work, &request.pan);
    // The counters first: they become spent in the commit, whatever the PIN block turns out to be.
    // Each side has its own input, so one counter can not stand on both.
    source.key.claim(work, &[b"source".as_slice(), &hash].concat()).await?;
    destination.claim(work, &[b"destination".as_slice(), &hash].concat()).await?;
    reserve(work, caller, source.terminal.as_deref(), &request.pan).await?;

    let fill = Fill::draw(vault.rng())
        .map_err(|_| vault::Error::incident("the random number generator failed", ""))?;
    let Ok(block) = translation.apply(&request.pin_block, &fill) else {
        return Ok(Outcome::Rejected);
    };
    if let Some(terminal) = source.first_of {
        activation::first_transaction(vault, work, &terminal, "TranslatePin").await?;
    }
    Ok(Outcome::Translated(block))
}

/// The side that a PIN block comes from.
struct Source {
    key: PinKey,
    /// The id of the terminal, where it is known.
    terminal: Option<String>,
    /// The same, where this is its first transaction.
    first_of: Option<String>,
}

async fn source(
    vault: &Vault,
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<Source, Error> {
    let terminal = request.terminal.as_deref();
    match &request.source {
        WorkingKey::Dukpt(key) => {
            let wanted = Wanted { key, name, side: Side::Host, terminal };
            let key = wanted.find(vault, work).await?;
            let terminal = key.terminal().map(|found| found.id.clone());
            let first = key.terminal().is_some_and(|found| found.first_transaction.is_none());
            let first_of = terminal.clone().filter(|_| first);
            Ok(Source { key: PinKey::Dukpt(key), terminal, first_of })
        }
        WorkingKey::Static(name) => {
            let terminal = named_terminal(vault, work, terminal).await?.map(|found| found.id);
            let key = vault.key(name, Operation::Decrypt).await?;
            work.uses(&key);
            Ok(Source { key: PinKey::Static(key), terminal, first_of: None })
        }
    }
}

/// The side that a PIN block goes to. To make one is a terminal's part, so a transaction key here
/// is that of a link to another host.
async fn destination(
    vault: &Vault,
    work: &mut Work,
    name: Option<&str>,
    request: &Request,
) -> Result<PinKey, Error> {
    match &request.destination {
        WorkingKey::Dukpt(key) => {
            let wanted = Wanted { key, name, side: Side::Terminal, terminal: None };
            Ok(PinKey::Dukpt(wanted.find(vault, work).await?))
        }
        WorkingKey::Static(name) => {
            let key = vault.key(name, Operation::Encrypt).await?;
            work.uses(&key);
            Ok(PinKey::Static(key))
        }
    }
}

/// The PIN key of one side.
enum PinKey {
    Dukpt(TransactionKey),
    Static(StoredKey<PinEncryption>),
}

impl PinKey {
    const fn attributes(&self) -> &KeyAttributes {
        match self {
            Self::Dukpt(key) => key.attributes(),
            Self::Static(key) => &key.record().attributes,
        }
    }

    fn open(&self) -> Result<Opened<'_>, Error> {
        match self {
            Self::Dukpt(key) => {
                let (initial, kind) = key.derive()?;
                initial.pin_key(kind).map(Opened::Derived).map_err(underivable)
            }
            Self::Static(key) => Ok(Opened::Stored(key.key())),
        }
    }

    async fn claim(&self, work: &mut Work, input: &[u8]) -> Result<(), Error> {
        match self {
            // Fresh or a repetition: both compute. What is spent by another input is an error.
            Self::Dukpt(key) => key.claim(work, Purpose::Pin, input).await.map(|_| ()),
            Self::Static(_) => Ok(()),
        }
        .map_err(Error::from)
    }
}

/// A PIN key ready to work.
enum Opened<'a> {
    Derived(Key<PinEncryption>),
    Stored(&'a Key<PinEncryption>),
}

impl Opened<'_> {
    const fn key(&self) -> &Key<PinEncryption> {
        match self {
            Self::Derived(key) => key,
            Self::Stored(key) => key,
        }
    }
}

impl Request {
    /// Everything that the result depends on.
    fn hash(&self, vault: &Vault, names: Names<'_>) -> [u8; 32] {
        let side = |key: &WorkingKey, format: PinBlockFormat| match key {
            WorkingKey::Dukpt(key) => {
                let ksn = data_encoding::HEXUPPER.encode(key.ksn.bytes());
                format!("{ksn} {:?} {format:?}", key.kind)
            }
            WorkingKey::Static(_) => format!("{format:?}"),
        };
        // Exposed to a keyed hash alone.
        let pan = self.pan.expose_digits();
        vault.keyed_hash(
            HashPurpose::RequestBody,
            &[
                names.source.unwrap_or_default().as_bytes(),
                side(&self.source, self.source_format).as_bytes(),
                self.pin_block.bytes(),
                names.destination.unwrap_or_default().as_bytes(),
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

/// Reserves a place in the budget of failures: of the terminal, or of the caller, with this PAN.
async fn reserve(
    work: &mut Work,
    caller: &Caller,
    terminal: Option<&str>,
    pan: &Pan,
) -> Result<(), Error> {
    // Exposed to a keyed hash alone, which is the budget's id.
    let pan = pan.expose_digits();
    let subject: [&[u8]; 3] = match terminal {
        Some(terminal) => [b"terminal", terminal.as_bytes(), pan.as_bytes()],
        None => [b"caller", caller.name().as_bytes(), pan.as_bytes()],
    };
    Ok(work.reserve(Budget::Pin, &subject).await?)
}
