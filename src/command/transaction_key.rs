//! The key of one side of a call: a static key, the transaction key of a terminal's KSN, or the
//! static key in a terminal's slot.
//!
//! Who is behind a KSN decides what may be done under it. A terminal that is registered here is
//! served only while it is in service, and its own side of a key (making a PIN block, making the
//! MAC of a request) is played by that terminal alone. A KSN that nobody here knows is served only
//! under a base derivation key that is `open` to terminals that were injected elsewhere.

use super::activation::index::KeyIndex;
use super::activation::record::{KeyStanding, Terminal};
use super::{Error, InitialKey, Ksn, SlotKey, manage_keys};
use crate::activation::Call;
use crate::dukpt::{DerivationError, KeyKind};
use crate::key::Algorithm;
use crate::key::usage::BaseDerivation;
use crate::vault::{
    self, Caller, Claim, ClaimRequest, KeyAttributes, KeyRecord, KeyUse, Operation, Purpose,
    Reason, StoredKey, UnixMillis, Vault, Versioned, Work, key_of,
};

/// The key that a call names.
#[derive(Debug, Clone)]
pub enum WorkingKey {
    /// The transaction key of a KSN.
    Dukpt(DukptKey),
    /// The static key in a slot of a terminal.
    Slot(SlotKey),
    /// The id in `keys/{id}` of a static key, or a version of it.
    Static(String),
}

/// The transaction key of a KSN.
#[derive(Debug, Clone)]
pub struct DukptKey {
    /// The id in `keys/{id}` of the base derivation key, or a version of it; none to find it by the
    /// key set id.
    pub base_derivation_key: Option<String>,
    /// The key serial number.
    pub ksn: Ksn,
    /// The kind of the working key, for AES; none for that of the base derivation key.
    pub kind: Option<KeyKind>,
}

/// Which side of a transaction key the caller plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The host's: it deciphers PIN blocks, verifies requests and makes responses.
    Host,
    /// The terminal's: towards another host, which injected the key.
    Terminal,
}

impl Side {
    /// The name of the KSN in the audit event: a translation may have one on each side.
    const fn ksn_detail(self) -> &'static str {
        match self {
            Self::Host => "ksn",
            Self::Terminal => "ksn_outbound",
        }
    }
}

/// A transaction key that may serve, not yet derived.
#[derive(Debug)]
pub(super) struct TransactionKey {
    bdk: StoredKey<BaseDerivation>,
    ksn: Ksn,
    kind: Option<KeyKind>,
    terminal: Option<Box<Versioned<Terminal>>>,
}

/// The stored key behind one that a call names, or a version of it: for the policy and the audit
/// event before anything else is looked at. Where there is none, what the call is told then.
pub(super) struct Behind(Result<String, Reason>);

impl Behind {
    /// A stored key, whether there is one of this name or not.
    pub(super) const fn key(name: String) -> Self {
        Self(Ok(name))
    }

    /// A stored key, if the call leads to one.
    pub(super) fn found(name: Option<String>, otherwise: Reason) -> Self {
        Self(name.ok_or(otherwise))
    }

    /// Nothing.
    pub(super) const fn nothing(reason: Reason) -> Self {
        Self(Err(reason))
    }

    /// The name.
    pub(super) fn name(&self) -> Option<&str> {
        self.0.as_deref().ok()
    }

    /// The resource that a call is about.
    pub(super) fn resource(&self) -> String {
        // The hyphen stands for one that is not known (as in Google's improvement proposal 159).
        manage_keys::resource(self.name().map_or("-", key_of))
    }

    /// The key as the policy is asked about it.
    pub(super) fn used(&self) -> KeyUse<'_> {
        KeyUse::of(self.0.as_deref().map_err(|reason| *reason))
    }
}

impl WorkingKey {
    /// The stored key behind it; see [`DukptKey::behind`] and [`SlotKey::behind`].
    pub(super) async fn behind(&self, vault: &Vault, caller: &Caller) -> Result<Behind, Error> {
        match self {
            Self::Dukpt(key) => key.behind(vault).await,
            Self::Slot(key) => key.behind(vault, caller).await,
            Self::Static(name) => Ok(Behind::key(name.clone())),
        }
    }
}

impl DukptKey {
    /// The version of the base derivation key; nothing for a key set that nobody here has.
    ///
    /// Of a key that is named without a version it is the one whose key set the KSN is of:
    /// terminals with keys of a former version go on when it is rotated.
    pub(super) async fn behind(&self, vault: &Vault) -> Result<Behind, Error> {
        let version = vault.key_of_set(&self.ksn.key_set_id()).await?;
        let Some(name) = &self.base_derivation_key else {
            return Ok(Behind::found(version, Reason::KeyNotFound));
        };
        let version = version.filter(|version| key_of(version) == name);
        Ok(Behind::key(version.unwrap_or_else(|| name.clone())))
    }
}

/// The terminal that a call with a static key names must be in service. It is what the caller says
/// and nothing proves, so no budget hangs on it: an attacker would name another with each call, or
/// close one that has nothing to do with it.
pub(super) async fn check_named_terminal(
    (vault, caller): (&Vault, &Caller),
    work: &mut Work,
    named: Option<&str>,
) -> Result<(), Error> {
    let Some(id) = named else { return Ok(()) };
    let terminal = read_terminal((vault, caller), work, id).await?;
    check_in_service(&terminal.record)
}

/// A transaction key that a call asks for.
pub(super) struct Wanted<'a> {
    /// The key as the call names it.
    pub(super) key: &'a DukptKey,
    /// What [`DukptKey::behind`] found.
    pub(super) name: Option<&'a str>,
    /// Which side of it the caller plays.
    pub(super) side: Side,
    /// The id of the terminal, where the call names it: it must be that of the KSN.
    pub(super) terminal: Option<&'a str>,
}

impl Wanted<'_> {
    /// Finds the base derivation key and the terminal of the KSN, and refuses what may not serve.
    pub(super) async fn find(
        self,
        (vault, caller): (&Vault, &Caller),
        work: &mut Work,
    ) -> Result<TransactionKey, Error> {
        let ksn = &self.key.ksn;
        work.detail(self.side.ksn_detail(), data_encoding::HEXUPPER.encode(ksn.bytes()));
        let name = self.name.ok_or(Error::refused(Reason::KeyNotFound))?;
        let bdk = vault.key::<BaseDerivation>(name, Operation::DeriveWorking).await?;
        work.uses(&bdk);
        check_key_set(bdk.record(), ksn)?;
        let version = bdk.record().version_name();
        let id = ksn.initial_key_id();
        let found = terminal_of(vault, &version, &id).await?;
        if self.terminal.is_some() && self.terminal != found.as_deref() {
            return Err(Error::refused(Reason::TerminalNotFound));
        }
        let terminal = match found {
            None => {
                check_strangers(bdk.record())?;
                None
            }
            Some(terminal) => {
                // Read first: of a terminal that the caller may not know nothing else is told.
                let terminal = read_terminal((vault, caller), work, &terminal).await?;
                if self.side == Side::Terminal {
                    return Err(Error::refused(Reason::KeyUsageMismatch));
                }
                check_serves(&terminal.record, &version, &id, vault.now())?;
                Some(Box::new(terminal))
            }
        };
        let key = TransactionKey { bdk, ksn: ksn.clone(), kind: self.key.kind, terminal };
        // A key of AES may have working keys of TDES.
        work.uses_algorithm(key.algorithm());
        Ok(key)
    }
}

/// Who holds the terminal's side of a key.
#[derive(Clone, Copy)]
pub(super) enum Sender<'a> {
    /// A terminal that is registered here, as it was read.
    Registered(&'a Versioned<Terminal>),
    /// Whoever has the initial key of this one.
    Stranger(&'a TransactionKey),
}

impl<'a> Sender<'a> {
    /// The terminal, where it is registered here.
    pub(super) fn terminal(self) -> Option<&'a Terminal> {
        match self {
            Self::Registered(terminal) => Some(&terminal.record),
            Self::Stranger(_) => None,
        }
    }

    /// The same as it was read, where this is its first transaction.
    pub(super) fn first_of(self) -> Option<Versioned<Terminal>> {
        match self {
            Self::Registered(terminal) if terminal.record.first_transaction.is_none() => {
                Some(terminal.clone())
            }
            Self::Registered(_) | Self::Stranger(_) => None,
        }
    }

    /// Whether it is the same: one terminal that is registered here, or one initial key of somebody
    /// who is not.
    pub(super) fn is(self, other: Sender<'_>) -> bool {
        match (self, other) {
            (Self::Registered(one), Sender::Registered(other)) => one.record.id == other.record.id,
            (Self::Stranger(one), Sender::Stranger(other)) => {
                one.bdk.record().resource_name() == other.bdk.record().resource_name()
                    && one.ksn.initial_key_id() == other.ksn.initial_key_id()
            }
            (Self::Registered(_), Sender::Stranger(_))
            | (Self::Stranger(_), Sender::Registered(_)) => false,
        }
    }

    /// The id of the initial key, where no terminal here has it: a stranger's rates of failures
    /// hang on it, so that who invents key serial numbers closes no other.
    pub(super) fn stranger(self) -> Option<Vec<u8>> {
        match self {
            Self::Registered(_) => None,
            Self::Stranger(key) => Some(key.ksn.initial_key_id()),
        }
    }
}

impl TransactionKey {
    /// Whose key it is.
    pub(super) fn sender(&self) -> Sender<'_> {
        match &self.terminal {
            Some(terminal) => Sender::Registered(terminal),
            None => Sender::Stranger(self),
        }
    }

    /// What the base derivation key lets its working keys do.
    pub(super) const fn attributes(&self) -> &KeyAttributes {
        &self.bdk.record().attributes
    }

    /// The algorithm that the working key will have.
    pub(super) fn algorithm(&self) -> Algorithm {
        match (&self.ksn, self.kind) {
            // TDES DUKPT has keys of double length alone (ANSI X9.24-1:2009, 7).
            (Ksn::Tdes(_), _) => Algorithm::Tdes2,
            (Ksn::Aes(_), Some(kind)) => kind.algorithm(),
            (Ksn::Aes(_), None) => self.bdk.record().algorithm,
        }
    }

    /// Derives the initial key, and tells of which kind the working key is to be.
    pub(super) fn derive(&self) -> Result<(InitialKey, KeyKind), Error> {
        let initial = InitialKey::derive(self.bdk.key(), &self.ksn).map_err(underivable)?;
        let kind = self.kind.unwrap_or_else(|| initial.kind());
        Ok((initial, kind))
    }

    /// Claims the counter for a purpose. `input` is everything that the result depends on.
    pub(super) async fn claim(
        &self,
        work: &mut Work,
        purpose: Purpose,
        input: &[u8],
    ) -> Result<Claim, vault::Error> {
        let bdk = self.bdk.record();
        let request = ClaimRequest {
            key_name: &bdk.name,
            key_version: bdk.version,
            initial_key_id: &self.ksn.initial_key_id(),
            purpose,
            rank: self.ksn.rank(),
            input,
            // Where a terminal that was injected elsewhere stands, its first transaction tells.
            first_anywhere: self.terminal.is_none(),
        };
        work.claim(request).await
    }
}

/// A working key that can not be derived: its algorithm does not come from this base key.
pub(super) fn underivable(error: DerivationError) -> Error {
    match error {
        DerivationError::Algorithm | DerivationError::Strength => {
            Error::refused(Reason::KeyUsageMismatch)
        }
        DerivationError::KeyId => {
            vault::Error::incident("an initial key is not of its own KSN", "").into()
        }
    }
}

/// A KSN belongs to the key set of its base derivation key, where that key has one.
fn check_key_set(bdk: &KeyRecord, ksn: &Ksn) -> Result<(), Error> {
    let of_family = match ksn {
        Ksn::Aes(_) => bdk.algorithm.is_aes(),
        Ksn::Tdes(_) => bdk.algorithm.is_tdes(),
    };
    let shown = data_encoding::HEXUPPER.encode(&ksn.key_set_id());
    if of_family && bdk.attributes.key_set_id.as_ref().is_none_or(|id| *id == shown) {
        Ok(())
    } else {
        Err(Error::refused(Reason::KeyUsageMismatch))
    }
}

/// Reads a terminal that the caller may know of. A call under its keys stands or falls with it: one
/// that is suspended while the call is under way is not served by it.
pub(super) async fn read_terminal(
    (vault, caller): (&Vault, &Caller),
    work: &mut Work,
    id: &str,
) -> Result<Versioned<Terminal>, Error> {
    let terminal = vault.get::<Terminal>(id).await?;
    let terminal = terminal.ok_or(Error::refused(Reason::TerminalNotFound))?;
    if let Err(hidden) = terminal.record.check_seen(vault, caller) {
        // Not as "terminal": refusals are told apart by that, so each would wait for an event of
        // its own, and the time would tell that there is such a terminal.
        work.detail("terminal_hidden", terminal.record.name());
        return Err(hidden);
    }
    work.expects(&terminal);
    work.detail("terminal", terminal.record.name());
    vault.rates().take_terminal(id)?;
    Ok(terminal)
}

/// The terminal that has an initial key, if one that is registered here has confirmed it.
pub(super) async fn terminal_of(
    vault: &Vault,
    bdk: &str,
    initial_key_id: &[u8],
) -> Result<Option<String>, Error> {
    let index = vault.get::<KeyIndex>(&KeyIndex::id_of(bdk, initial_key_id)).await?;
    Ok(index.map(|index| index.record.terminal))
}

/// Terminals that are not registered here are served under an open base derivation key alone.
pub(super) fn check_strangers(bdk: &KeyRecord) -> Result<(), Error> {
    if bdk.attributes.open { Ok(()) } else { Err(Error::refused(Reason::TerminalNotFound)) }
}

/// A terminal serves with its confirmed keys, and after a re-key for a time with those before.
pub(super) fn check_serves(
    terminal: &Terminal,
    bdk: &str,
    initial_key_id: &[u8],
    now: UnixMillis,
) -> Result<(), Error> {
    check_in_service(terminal)?;
    match terminal.standing_of(bdk, initial_key_id, now) {
        KeyStanding::Serving | KeyStanding::Grace(_) => Ok(()),
        KeyStanding::Replaced => {
            let remedy = "the keys of this KSN are replaced: use those of the last activation";
            Err(not_active(terminal, remedy))
        }
    }
}

/// A terminal's own keys, and calls that name it, serve while it is in service.
pub(super) fn check_in_service(terminal: &Terminal) -> Result<(), Error> {
    // A code plays no part here: the table asks for none.
    let allowed = terminal.state.check(Call::PinOrMac, false);
    allowed.map_err(|refusal| not_active(terminal, refusal.remedy()))
}

fn not_active(terminal: &Terminal, remedy: &str) -> Error {
    let state = terminal.state.as_str().to_owned();
    Error::Refused {
        reason: Reason::TerminalNotActive,
        metadata: vec![("state", state), ("remedy", remedy.to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::State;
    use crate::command::testing::{AES_SET, Bench, aes_ksn, dukpt, reason, tdes_ksn};
    use crate::vault::{Action, KeyUsage};

    async fn find(
        bench: &Bench,
        key: &DukptKey,
        terminal: Option<&str>,
    ) -> Result<TransactionKey, Error> {
        let behind = key.behind(&bench.vault).await?;
        let action = Action::VerifyMac;
        let mut work = bench.vault.begin(&bench.caller, action, "keys/-").await?;
        let wanted = Wanted { key, name: behind.name(), side: Side::Host, terminal };
        wanted.find((&bench.vault, &bench.caller), &mut work).await
    }

    #[tokio::test]
    async fn a_key_is_found_by_name_or_by_its_set() {
        let bench = Bench::new().await;
        let open = KeyAttributes { open: true, ..KeyAttributes::default() };
        bench.bdk("bdk", Algorithm::Aes128, open.clone()).await;
        bench.key("other", KeyUsage::BaseDerivation, Algorithm::Aes128, open.clone()).await;
        let set = Some("FFFFFFFF".to_owned());
        let another = KeyAttributes { key_set_id: set, ..open };
        bench.key("another", KeyUsage::BaseDerivation, Algorithm::Aes128, another).await;
        bench
            .key("pin", KeyUsage::PinEncryption, Algorithm::Aes128, KeyAttributes::default())
            .await;
        let of =
            |name: &str, ksn| DukptKey { base_derivation_key: Some(name.into()), ..dukpt(ksn) };
        let found = find(&bench, &dukpt(aes_ksn(1, 1)), None).await.unwrap();
        assert_eq!(found.bdk.record().name, "bdk");
        for (key, expected) in [
            (of("bdk", aes_ksn(1, 1)), "OK"),
            (of("other", aes_ksn(1, 1)), "OK"),
            (of("another", aes_ksn(1, 1)), "KEY_USAGE_MISMATCH"),
            (of("bdk", tdes_ksn(1)), "KEY_USAGE_MISMATCH"),
            (of("pin", aes_ksn(1, 1)), "KEY_USAGE_MISMATCH"),
            (of("none", aes_ksn(1, 1)), "KEY_NOT_FOUND"),
            (dukpt(tdes_ksn(1)), "KEY_NOT_FOUND"),
        ] {
            assert_eq!(reason(&find(&bench, &key, None).await), expected, "{key:?}");
        }
    }

    #[tokio::test]
    async fn only_terminals_in_service_are_served() {
        let bench = Bench::new().await;
        bench.bdk("bdk", Algorithm::Aes128, KeyAttributes::default()).await;
        for (device, state) in (1..).zip(State::ALL) {
            let (id, ksn) = (format!("t{device}"), aes_ksn(device, 1));
            bench.terminal(&id, "bdk", &ksn, state).await;
            let expected = if state.check(Call::PinOrMac, true).is_ok() {
                "OK"
            } else {
                "TERMINAL_NOT_ACTIVE"
            };
            let found = find(&bench, &dukpt(ksn.clone()), None).await;
            assert_eq!(reason(&found), expected, "{state:?}");
            assert_eq!(reason(&find(&bench, &dukpt(ksn.clone()), Some(&id)).await), expected);
            // A named terminal must be that of the KSN.
            let other = find(&bench, &dukpt(ksn), Some("t99")).await;
            assert_eq!(reason(&other), "TERMINAL_NOT_FOUND");
            if let Err(error) = found {
                assert!(error.metadata().contains(&("state", state.as_str().to_owned())));
            }
        }
        let unknown = dukpt(aes_ksn(200, 1));
        assert_eq!(reason(&find(&bench, &unknown, None).await), "TERMINAL_NOT_FOUND");
    }

    #[tokio::test]
    async fn an_open_key_serves_strangers_but_not_closed_terminals() {
        let bench = Bench::new().await;
        let open = KeyAttributes { open: true, ..KeyAttributes::default() };
        bench.bdk("bdk", Algorithm::Aes128, open).await;
        let key = dukpt(aes_ksn(1, 1));
        assert_eq!(reason(&find(&bench, &key, None).await), "OK");
        assert_eq!(reason(&find(&bench, &key, Some("t1")).await), "TERMINAL_NOT_FOUND");
        bench.terminal("t1", "bdk", &key.ksn, State::Suspended).await;
        assert_eq!(reason(&find(&bench, &key, None).await), "TERMINAL_NOT_ACTIVE");
    }

    #[tokio::test]
    async fn keys_before_a_re_key_serve_for_their_time() {
        let bench = Bench::new().await;
        bench.bdk("bdk", Algorithm::Aes128, KeyAttributes::default()).await;
        let (before, after) = (dukpt(aes_ksn(1, 1)), dukpt(aes_ksn(2, 1)));
        bench.terminal("t1", "bdk", &before.ksn, State::Active).await;
        let old = bench.read_terminal("t1").await.keys.unwrap();
        bench.terminal("t1", "bdk", &after.ksn, State::Active).await;
        let until = bench.vault.now().plus_ms(1_000);
        let terminal = bench.read_terminal("t1").await;
        bench.put(Terminal { keys_before: Some((old, until)), ..terminal }).await;
        assert_eq!(reason(&find(&bench, &before, None).await), "OK");
        assert_eq!(reason(&find(&bench, &after, None).await), "OK");
        bench.forward(1_001);
        assert_eq!(reason(&find(&bench, &before, None).await), "TERMINAL_NOT_ACTIVE");
        assert_eq!(reason(&find(&bench, &after, None).await), "OK");
    }

    #[test]
    fn the_set_of_a_ksn_is_the_first_of_its_bytes() {
        assert_eq!(aes_ksn(1, 1).key_set_id(), AES_SET);
    }
}
