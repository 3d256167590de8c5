//! How the seal stands, for whoever is to do something about it.

use std::time::Duration;

use super::attempt::Attempt;
use super::opening::set_of;
use super::token::TokenTrouble;
use super::{Desk, Keeper, ShareSet};
use crate::command::Error;
use crate::command::ceremony::record::Ceremony;
use crate::crypto::digest::sha256;
use crate::vault::{self, Custody, Phase, RotationProgress, Seal, UnixMillis};

/// How long a status waits for whoever is opening or sealing the vault.
const GLANCE: Duration = Duration::from_millis(100);

/// How the seal stands.
#[derive(Debug)]
pub struct Status {
    /// Where the gate stands.
    pub phase: Phase,
    /// Who keeps the master key, and its number; none where the store is empty.
    pub custody: Option<(Seal, u32)>,
    /// The shares that were given, while it is sealed.
    pub attempt: Option<AttemptStatus>,
    /// How the token was the last time; none before that.
    pub token: Option<Result<(), TokenTrouble>>,
    /// A master key whose shares are being distributed.
    pub distribution: Option<DistributionStatus>,
    /// The rotation under way.
    pub rotation: Option<RotationProgress>,
    /// Why the vault did not open under the right master key; empty where it did.
    pub fault: String,
}

/// An attempt to open the vault.
#[derive(Clone, Debug)]
pub struct AttemptStatus {
    /// What shares are bound to.
    pub id: [u8; 16],
    /// The key that envelopes are for.
    pub key: Vec<u8>,
    /// When it ends.
    pub expires: UnixMillis,
    /// Who has given a share.
    pub givers: Vec<String>,
    /// How many attempts failed before.
    pub failed: u32,
}

/// A master key on its way.
#[derive(Debug)]
pub struct DistributionStatus {
    /// What shares are bound to.
    pub id: [u8; 16],
    /// The shares.
    pub set: ShareSet,
    /// The key that envelopes of confirmations are for.
    pub key: Vec<u8>,
    /// When it is forgotten.
    pub expires: UnixMillis,
    /// Its custodians.
    pub keepers: Vec<KeeperStatus>,
    /// The ceremony that it belongs to.
    pub ceremony: Option<Ceremony>,
}

/// One custodian of a distribution.
#[derive(Clone, Debug)]
pub struct KeeperStatus {
    /// The URI name of the certificate.
    pub name: String,
    /// Whether the share was taken.
    pub taken: bool,
    /// Whether it was confirmed.
    pub confirmed: bool,
}

/// SHA-256 of a key that envelopes are for: what is compared by eye.
#[must_use]
pub fn fingerprint(key: &[u8]) -> [u8; 32] {
    sha256(&[key])
}

impl Keeper {
    /// How the seal stands. While it is sealed, an attempt is begun for those who have shares.
    pub async fn status(&self) -> Result<Status, Error> {
        self.gate.expect_sound()?;
        let phase = self.gate.phase();
        let vault = self.gate.enter().ok();
        let custody = match self.gate.opener() {
            Some(opener) => Custody::read(&*opener.store).await,
            None => Ok(None),
        };
        let (custody, unread) = match custody {
            Ok(custody) => (custody, String::new()),
            Err(error) => (None, error.to_string()),
        };
        let custody = custody.map(|custody| (custody.seal, custody.generation));
        let dev = || vault.as_ref().map(|vault| (Seal::Dev, vault.generation()));
        let custody = if self.gate.opener().is_none() { dev() } else { custody };
        let mut status = Status {
            phase,
            custody,
            attempt: None,
            token: None,
            distribution: None,
            rotation: vault.as_ref().and_then(|vault| vault.rotation()),
            fault: unread,
        };
        // Whoever opens or seals it holds the desk; the phase says so.
        let Ok(mut desk) = tokio::time::timeout(GLANCE, self.desk()).await else {
            return Ok(status);
        };
        status.phase = self.gate.phase();
        if let Some(vault) = &vault {
            desk.look_at_ceremony(vault).await?;
        }
        if status.phase == Phase::Sealed {
            status.attempt = self.attempt(&mut desk, status.custody.as_ref())?;
        }
        status.token = desk.token;
        status.distribution = self.distribution(&desk);
        if status.fault.is_empty() {
            status.fault.clone_from(&desk.fault);
        }
        Ok(status)
    }

    /// How many shares were given, and how many are needed.
    pub async fn progress(&self) -> Option<(usize, u8)> {
        let custody = self.custody().await.ok()??;
        let set = set_of(&custody.seal)?;
        let given = self.desk().await.attempt.as_ref().map_or(0, |one| one.givers().len());
        Some((given, set.threshold))
    }

    /// The attempt under way; where there is none, or it is over, another.
    fn attempt(
        &self,
        desk: &mut Desk,
        custody: Option<&(Seal, u32)>,
    ) -> Result<Option<AttemptStatus>, Error> {
        let Some(set) = custody.and_then(|(seal, _)| set_of(seal)) else { return Ok(None) };
        let now = self.gate.now();
        if !desk.attempt.as_ref().is_some_and(|one| one.is_current(set, now)) {
            let begun = Attempt::begin(set, &*self.opener()?.rng, now);
            let failed = |_| vault::Error::incident("no key for an attempt", super::RESOURCE);
            desk.attempt = Some(begun.map_err(failed)?);
        }
        Ok(desk.attempt.as_ref().map(|one| AttemptStatus {
            id: one.id,
            key: one.key.public().to_vec(),
            expires: one.expires,
            givers: one.givers(),
            failed: desk.failed_attempts,
        }))
    }

    fn distribution(&self, desk: &Desk) -> Option<DistributionStatus> {
        let now = self.gate.now();
        let one = desk.distribution.as_ref().filter(|one| now < one.expires)?;
        let keepers = one.keepers.iter().map(|keeping| KeeperStatus {
            name: keeping.name.clone(),
            taken: keeping.is_taken(),
            confirmed: keeping.confirmed,
        });
        Some(DistributionStatus {
            id: one.id,
            set: one.set,
            key: one.key.public().to_vec(),
            expires: one.expires,
            keepers: keepers.collect(),
            ceremony: one.ceremony.as_ref().map(|held| held.record.copy_of_shares()),
        })
    }

    /// Looks whether the token is there that the next start will need; none where there is none.
    pub async fn look_at_token(&self) -> Option<Result<(), TokenTrouble>> {
        let token = self.token.as_ref()?;
        if self.gate.phase() != Phase::Open {
            return None;
        }
        let custody = self.custody().await.ok()??;
        let Seal::Pkcs11 { token: serial, .. } = custody.seal else { return None };
        let found = token.look(serial).await;
        self.desk().await.token = Some(found);
        Some(found)
    }
}
