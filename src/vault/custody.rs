//! Custody: how the master key of a store comes to be known.
//!
//! One row stands in clear, for it is read before anything opens. It holds no secret: which master
//! key it is, and by whom or what it is kept. An HMAC under that master key covers the rest of it:
//! the right master key is known by it before a record is touched, and an edit is found. An older
//! row of it asks for a master key that does not open the head of the chain.

use serde::{Deserialize, Serialize};

use super::core::expected;
use super::error::Error;
use super::hexadecimals;
use super::master::MasterKey;
use super::open::OpenError;
use super::record::{Kind, Versioned};
use super::seal::Realm;
use super::store::{Change, Store, Write};
use crate::agreement::label;
use crate::crypto::{constant_time_eq, hmac};

/// By whom or what a master key is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Seal {
    /// Everybody: a development service has a master key that was published.
    Dev,
    /// A PKCS#11 token, which unwraps it.
    Pkcs11 {
        /// The serial number of the token.
        token: String,
        /// The `CKA_ID` of the wrapping key in it, in hexadecimals.
        key_id: String,
        /// The master key, AES key wrap with padding (RFC 5649): [`Seal::WRAPPED_LEN_BYTES`].
        #[serde(with = "hexadecimals")]
        wrapped: Vec<u8>,
    },
    /// Custodians, of whom as many as the threshold combine their shares.
    Shamir {
        /// Tells shares of this master key from those of others.
        #[serde(with = "hexadecimals")]
        set_id: [u8; 4],
        /// How many shares give the master key: 2 or more.
        threshold: u8,
        /// How many there are: as many as the threshold, or more.
        shares: u8,
    },
}

impl Seal {
    /// Octets of a wrapped master key: one semiblock more than the key.
    pub const WRAPPED_LEN_BYTES: usize = MasterKey::LEN_BYTES + 8;
    /// The most shares of a master key.
    pub const SHARES_MAX: u8 = 16;

    /// The stable word for the status and the audit event.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Pkcs11 { .. } => "pkcs11",
            Self::Shamir { .. } => "shamir",
        }
    }

    /// Whether it is well formed, and fit for the realm: outside development nothing is kept by
    /// everybody.
    #[must_use]
    pub fn fits(&self, realm: Realm) -> bool {
        match self {
            Self::Dev => realm == Realm::Dev,
            Self::Pkcs11 { wrapped, .. } => wrapped.len() == Self::WRAPPED_LEN_BYTES,
            Self::Shamir { threshold, shares, .. } => {
                (2..=*shares).contains(threshold) && *shares <= Self::SHARES_MAX
            }
        }
    }
}

/// What a store says of its master key, in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custody {
    /// The number of the master key: from 1, one more with each rotation.
    pub generation: u32,
    realm: Realm,
    /// By whom or what it is kept.
    pub seal: Seal,
    #[serde(with = "hexadecimals")]
    check: [u8; 32],
}

impl Custody {
    pub(super) const KIND: Kind = Kind::new("seal");
    pub(super) const ID: &str = "seal";

    /// Says how a master key is kept, and puts the check on it.
    pub(super) fn new(generation: u32, realm: Realm, seal: Seal, master: &MasterKey) -> Self {
        let mut custody = Self { generation, realm, seal, check: [0; 32] };
        custody.check = custody.check_under(master);
        custody
    }

    /// Reads what a store says; none for one that is not begun.
    ///
    /// Nothing of it is proven before [`Custody::accepts`].
    pub async fn read(store: &dyn Store) -> Result<Option<Self>, OpenError> {
        Ok(Self::read_versioned(store).await?.map(|found| found.record))
    }

    pub(super) async fn read_versioned(
        store: &dyn Store,
    ) -> Result<Option<Versioned<Self>>, OpenError> {
        let row = store.get(Self::KIND, Self::ID).await.map_err(|_| OpenError::Unavailable)?;
        let Some(row) = row else { return Ok(None) };
        let custody: Option<Self> = serde_json::from_slice(&row.sealed).ok();
        let custody = custody.filter(|custody| custody.seal.fits(custody.realm));
        let record = custody.ok_or(OpenError::CustodyInvalid)?;
        Ok(Some(Versioned { version: Some(row.version), record }))
    }

    /// The realm of the store.
    #[must_use]
    pub const fn realm(&self) -> Realm {
        self.realm
    }

    /// Whether this is the master key that is spoken of, and nobody edited what is said of it.
    #[must_use]
    pub fn accepts(&self, master: &MasterKey) -> bool {
        constant_time_eq(&self.check_under(master), &self.check)
    }

    /// The write that puts it in the place of the one that was read.
    pub(super) fn write(custody: &Versioned<Self>) -> Result<Write, Error> {
        let sealed = serde_json::to_vec(&custody.record)
            .map_err(|_| Error::incident("a record has no JSON form", Self::ID))?;
        Ok(Write {
            kind: Self::KIND,
            id: Self::ID.to_owned(),
            expected: expected(custody.version),
            change: Change::Put { index: None, sealed },
        })
    }

    fn check_under(&self, master: &MasterKey) -> [u8; 32] {
        let key = master.subkey(label::AT_REST_CUSTODY, self.realm, &[]);
        let covered = serde_json::to_vec(&(self.generation, self.realm, &self.seal));
        let covered = covered.expect("words and numbers have a JSON form");
        hmac::hmac_sha256(key.as_slice(), &covered)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::master_key;
    use super::*;

    const SHAMIR: Seal = Seal::Shamir { set_id: [1, 2, 3, 4], threshold: 3, shares: 5 };

    fn pkcs11() -> Seal {
        Seal::Pkcs11 { token: "a1b2".into(), key_id: "01".into(), wrapped: vec![9; 40] }
    }

    #[test]
    fn every_edit_is_found_and_so_is_another_master_key() {
        for seal in [Seal::Dev, SHAMIR, pkcs11()] {
            let custody = Custody::new(7, Realm::Dev, seal, &master_key(1));
            assert!(custody.accepts(&master_key(1)));
            assert!(!custody.accepts(&master_key(2)));
            let edits: [fn(&mut Custody); 4] = [
                |custody| custody.generation = 8,
                |custody| custody.realm = Realm::Live,
                |custody| custody.seal = Seal::Shamir { set_id: [1; 4], threshold: 2, shares: 5 },
                |custody| custody.check[31] ^= 1,
            ];
            for (number, edit) in edits.into_iter().enumerate() {
                let mut edited = custody.clone();
                edit(&mut edited);
                assert!(
                    !edited.accepts(&master_key(1)),
                    "edit {number} of {}",
                    custody.seal.as_str()
                );
            }
        }
    }

    #[test]
    fn a_row_reads_as_it_was_written_and_nothing_else_reads() {
        for (seal, text) in [
            (Seal::Dev, r#""seal":"dev""#),
            (SHAMIR, r#""seal":{"shamir":{"set_id":"01020304","threshold":3,"shares":5}}"#),
            (pkcs11(), r#""seal":{"pkcs11":{"token":"a1b2","key_id":"01","wrapped":"0909"#),
        ] {
            let custody = Custody::new(1, Realm::Dev, seal, &master_key(1));
            let written = serde_json::to_string(&custody).unwrap();
            assert!(written.starts_with(&format!(r#"{{"generation":1,"realm":"dev",{text}"#)));
            assert_eq!(serde_json::from_str::<Custody>(&written).unwrap(), custody);
            for (from, to) in [
                ("generation", "generations"),
                ("}", ",\"x\":1}"),
                ("\"check\":\"", "\"check\":\"0"),
            ] {
                let changed = written.replacen(from, to, 1);
                assert!(serde_json::from_str::<Custody>(&changed).is_err(), "{changed}");
            }
        }
    }

    #[test]
    fn a_seal_fits_its_realm_and_its_own_rules() {
        assert!(Seal::Dev.fits(Realm::Dev) && !Seal::Dev.fits(Realm::Live));
        for (threshold, shares, fits) in [
            (2, 2, true),
            (3, 5, true),
            (16, 16, true),
            (1, 5, false),
            (4, 3, false),
            (2, 17, false),
        ] {
            let seal = Seal::Shamir { set_id: [0; 4], threshold, shares };
            assert_eq!(seal.fits(Realm::Live), fits, "{threshold} of {shares}");
        }
        let short =
            Seal::Pkcs11 { token: String::new(), key_id: String::new(), wrapped: vec![0; 39] };
        assert!(pkcs11().fits(Realm::Live) && !short.fits(Realm::Live));
    }
}
