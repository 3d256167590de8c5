//! A static key of a registered terminal, derived again in the call that uses it.

use super::activation::derive_again;
use super::activation::record::{Terminal, TerminalKey};
use super::transaction_key::{Behind, Sender, check_in_service, read_terminal};
use super::{Error, activation};
use crate::key::usage::{StoredUsage, Usage};
use crate::key::{Algorithm, Key};
use crate::vault::{Caller, KeyAttributes, KeyUsage, Reason, Vault, Versioned, Work};

/// A static key of a registered terminal, as a call names it.
#[derive(Debug, Clone)]
pub struct SlotKey {
    /// The id in `terminals/{id}`.
    pub terminal: String,
    /// The slot that the terminal keeps it in.
    pub slot: u8,
}

impl SlotKey {
    /// The derivation key; nothing for a terminal that the caller does not know, or that has no
    /// such key.
    pub(super) async fn behind(&self, vault: &Vault, caller: &Caller) -> Result<Behind, Error> {
        let terminal = vault.get::<Terminal>(&self.terminal).await?;
        let seen = terminal.filter(|one| one.record.check_seen(vault, caller).is_ok());
        let Some(terminal) = seen else {
            return Ok(Behind::nothing(Reason::TerminalNotFound));
        };
        let found = self.of(&terminal.record).map(|key| key.key.derivation_key.clone());
        Ok(Behind::found(found, Reason::KeyNotFound))
    }

    /// The key among those that the terminal last confirmed. Those before a re-key serve no more:
    /// a slot does not tell one from the other, as a KSN does.
    fn of<'a>(&self, terminal: &'a Terminal) -> Option<&'a TerminalKey> {
        let keys = terminal.keys.as_ref()?;
        keys.terminal_keys.iter().find(|key| key.key.slot == self.slot)
    }

    /// Derives the key for a terminal that is in service, and refuses what may not serve.
    ///
    /// `name` is what [`Self::behind`] found; `named` is the terminal, where the call names it once
    /// more: it must be the same.
    pub(super) async fn find<U: StoredUsage>(
        &self,
        (name, named): (Option<&str>, Option<&str>),
        (vault, caller): (&Vault, &Caller),
        work: &mut Work,
    ) -> Result<FoundSlotKey<U>, Error> {
        work.detail("slot", self.slot.to_string());
        if named.is_some_and(|named| named != self.terminal) {
            return Err(Error::refused(Reason::TerminalNotFound));
        }
        let terminal = read_terminal((vault, caller), work, &self.terminal).await?;
        check_in_service(&terminal.record)?;
        // The one that the caller was authorised for.
        let key = self.of(&terminal.record);
        let key = key.filter(|key| name == Some(key.key.derivation_key.as_str()));
        let key = key.ok_or(Error::refused(Reason::KeyNotFound))?;
        let code = key.key.usage.code();
        let usage = KeyUsage::from_code(code).filter(|_| U::CODES.contains(&code));
        let usage = usage.ok_or(Error::refused(Reason::KeyUsageMismatch))?;
        let algorithm = key.key.algorithm;
        let material = derive_again(vault, work, &terminal.record, key).await?;
        let key = Key::from_material(algorithm, material)
            .map_err(|_| activation::broken("a terminal key has another length"))?;
        let attributes = KeyAttributes::usual(usage, algorithm);
        Ok(FoundSlotKey { key, usage, attributes, terminal: Box::new(terminal) })
    }
}

/// A static key of a terminal, ready to work.
pub(super) struct FoundSlotKey<U: Usage> {
    key: Key<U>,
    usage: KeyUsage,
    attributes: KeyAttributes,
    terminal: Box<Versioned<Terminal>>,
}

impl<U: StoredUsage> FoundSlotKey<U> {
    /// The key.
    pub(super) const fn key(&self) -> &Key<U> {
        &self.key
    }

    /// Its usage.
    pub(super) const fn usage(&self) -> KeyUsage {
        self.usage
    }

    /// Its algorithm.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// What it may do: the usual of its usage and algorithm.
    pub(super) const fn attributes(&self) -> &KeyAttributes {
        &self.attributes
    }

    /// Whose key it is.
    pub(super) fn sender(&self) -> Sender<'_> {
        Sender::Registered(&self.terminal)
    }
}
