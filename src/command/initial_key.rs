//! The initial key of a terminal below a base derivation key: its id, its derivation, its header in
//! a key block.

use super::Error;
use super::transaction_key::underivable;
use crate::dukpt::{AesInitialKeyId, TdesInitialKeyId};
use crate::key::Key;
use crate::key::usage::{BaseDerivation, InitialDukpt};
use crate::keyblock::{Header, OptionalBlock, Version};
use crate::vault::{self, KeyRecord, Reason, Work};

/// The id of an initial key, of either family.
#[derive(Debug, Clone, Copy)]
pub(super) enum InitialKeyId {
    /// ANSI X9.24-3:2017, 6.3.
    Aes(AesInitialKeyId),
    /// ANSI X9.24-1:2009, 7.2.
    Tdes(TdesInitialKeyId),
}

impl InitialKeyId {
    /// Takes the next id below a base derivation key: durable in the commit of `work`, before
    /// anything that was derived from it leaves. Gaps may come, a second one with the same id can
    /// not.
    pub(super) async fn allocate(work: &mut Work, bdk: &KeyRecord) -> Result<Self, Error> {
        let key_set = bdk.attributes.key_set_id.as_deref();
        // One without a key set gives out no initial keys: they could not be told from others.
        let key_set = key_set.ok_or(Error::refused(Reason::KeyUsageMismatch))?;
        let scope = format!("initial-key/{}/{}", bdk.name, bdk.version);
        let number = work.allocate(&scope, u64::from(bdk.attributes.device_cap)).await?;
        let exhausted = || Error::refused(Reason::KsnExhausted);
        let number = u32::try_from(number).map_err(|_| exhausted())?;
        let key_set = data_encoding::HEXUPPER
            .decode(key_set.as_bytes())
            .map_err(|_| broken("a key set id is not hexadecimal", bdk))?;
        if bdk.algorithm.is_aes() {
            let key_set = key_set.try_into();
            let key_set = key_set.map_err(|_| broken("a key set id is not 4 bytes", bdk))?;
            Ok(Self::Aes(AesInitialKeyId::new(key_set, number.to_be_bytes())))
        } else {
            let key_set = key_set.try_into();
            let key_set = key_set.map_err(|_| broken("a key set id is not 5 bytes", bdk))?;
            TdesInitialKeyId::new(key_set, number).map(Self::Tdes).map_err(|_| exhausted())
        }
    }

    /// Reads an id by its length: 8 bytes for AES, 10 for TDES.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let aes = AesInitialKeyId::parse(bytes).map(Self::Aes);
        aes.or_else(|_| TdesInitialKeyId::parse(bytes).map(Self::Tdes)).ok()
    }

    /// Its bytes: 8 for AES, 10 for TDES.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Aes(id) => id.bytes(),
            Self::Tdes(id) => id.bytes(),
        }
    }

    /// Derives its key; `KEY_USAGE_MISMATCH` where the base derivation key is of another family.
    pub(super) fn derive(&self, bdk: &Key<BaseDerivation>) -> Result<Key<InitialDukpt>, Error> {
        match self {
            Self::Aes(id) => bdk.aes_initial_key(*id).map(Into::into),
            Self::Tdes(id) => bdk.tdes_initial_key(*id).map(Into::into),
        }
        .map_err(underivable)
    }

    /// The header of its key in a key block: usage `B1`, mode `X`, not exportable, and the id in
    /// the optional block of its family (ANSI X9.143:2021, 6.3.9): `IK` the id of an AES key, `KS`
    /// the KSN with a counter of zero.
    pub(super) fn header(
        &self,
        version: Version,
        key: &Key<InitialDukpt>,
    ) -> Result<Header, Error> {
        let option = match self {
            Self::Aes(_) => *b"IK",
            Self::Tdes(_) => *b"KS",
        };
        let unwritten = |_| vault::Error::incident("no optional block of an initial key", "");
        let mut header = Header::new(version, *b"B1", key.algorithm().header_letter(), b'X');
        let id = OptionalBlock::new(option, data_encoding::HEXUPPER.encode(self.bytes()));
        header.push(id.map_err(unwritten)?).map_err(unwritten)?;
        Ok(header)
    }
}

fn broken(what: &'static str, bdk: &KeyRecord) -> Error {
    vault::Error::incident(what, &bdk.name).into()
}
