//! Shares of the master key: what each says of itself in clear, and how enough of them give the
//! key back.

use std::fmt;

use super::Entry;
use super::text::{ROW_LEN_BYTES, Rows, TextInvalid};
use crate::crypto::constant_time_eq;
use crate::crypto::rng::Rng;
use crate::crypto::sharing::{self, SECRET_LEN_BYTES, SHARES_MAX, SplitError, THRESHOLD_MIN};
use crate::key::Material;
use crate::memory::{SecretPage, SecretPageUnavailable, with_wiped_stack};

/// Rows of a share on paper: its heading, and its octets.
pub(super) const SHARE_ROWS: usize = 1 + SECRET_LEN_BYTES / ROW_LEN_BYTES;

/// What a share says of itself. No secret: it tells which shares belong together, and how many
/// are enough.
///
/// ```text
/// octet   0      01, the version of the form
///         1      threshold, from 2
///         2      index, from 1
///         3      shares, 16 at most
/// octets  4..8   set id, drawn anew for each master key
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    threshold: u8,
    index: u8,
    shares: u8,
    set_id: [u8; Self::SET_ID_LEN_BYTES],
}

/// Octets that no share of this version begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadingInvalid {
    /// 2 <= threshold <= shares <= 16, and an index among them, does not hold.
    #[error("a threshold, index or number of shares that can not be")]
    Numbers,
    /// A version of the form that is not known here.
    #[error("a share of version {found}, and only version 1 is known here")]
    Version {
        /// The version that the share has.
        found: u8,
    },
}

impl Heading {
    /// Octets of a heading.
    pub const LEN_BYTES: usize = ROW_LEN_BYTES;
    /// Octets of a set id.
    pub const SET_ID_LEN_BYTES: usize = 4;
    /// The one version of the form.
    const VERSION: u8 = 1;

    /// Reads a heading.
    pub fn parse(octets: &[u8; Self::LEN_BYTES]) -> Result<Self, HeadingInvalid> {
        let [version, threshold, index, shares, set_id @ ..] = *octets;
        if version != Self::VERSION {
            return Err(HeadingInvalid::Version { found: version });
        }
        let is_threshold = (THRESHOLD_MIN..=shares).contains(&threshold);
        if !is_threshold || shares > SHARES_MAX || !(1..=shares).contains(&index) {
            return Err(HeadingInvalid::Numbers);
        }
        Ok(Self { threshold, index, shares, set_id })
    }

    /// The 8 octets.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN_BYTES] {
        let [a, b, c, d] = self.set_id;
        [Self::VERSION, self.threshold, self.index, self.shares, a, b, c, d]
    }

    /// How many shares give the secret.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Which share it is, from 1.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// How many shares there are.
    #[must_use]
    pub fn shares(&self) -> u8 {
        self.shares
    }

    /// What all shares of one master key have in common, and no others.
    #[must_use]
    pub fn set_id(&self) -> [u8; Self::SET_ID_LEN_BYTES] {
        self.set_id
    }

    /// Which public field keeps two shares from being of one set; none where they may be.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> Option<HeadingField> {
        if self.set_id != other.set_id {
            return Some(HeadingField::SetId);
        }
        if self.threshold != other.threshold {
            return Some(HeadingField::Threshold);
        }
        (self.shares != other.shares).then_some(HeadingField::Shares)
    }
}

/// A public field of a heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadingField {
    /// What all shares of one master key have in common.
    SetId,
    /// How many shares there are.
    Shares,
    /// How many shares give the secret.
    Threshold,
}

impl fmt::Display for HeadingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetId => "set id",
            Self::Shares => "number of shares",
            Self::Threshold => "threshold",
        })
    }
}

/// Why shares were not combined. Only what stands in clear on them is told: whether one of them is
/// wrong is not known here, and which one is known nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CombineError {
    /// Shares of different sets.
    #[error("the shares differ in their {field}")]
    HeadingsDiffer {
        /// The first field in which they differ.
        field: HeadingField,
    },
    /// One index came twice.
    #[error("share {index} is there twice")]
    IndexTwice {
        /// The index.
        index: u8,
    },
    /// No page for the secret.
    #[error(transparent)]
    PageUnavailable(#[from] SecretPageUnavailable),
    /// Fewer shares than the threshold.
    #[error("{given} of {threshold} shares")]
    TooFew {
        /// How many there are.
        given: usize,
        /// How many there must be.
        threshold: u8,
    },
}

/// A share of the master key. Wiped on drop.
pub struct Share {
    heading: Heading,
    value: Material,
}

impl Share {
    /// Octets of a share in an envelope: its heading, and its secret octets.
    pub const LEN_BYTES: usize = Heading::LEN_BYTES + SECRET_LEN_BYTES;

    /// Splits a secret into `shares`, of which `threshold` are enough, under a new set id. The
    /// share of index i stands at place i - 1.
    pub fn split(
        secret: &[u8; SECRET_LEN_BYTES],
        threshold: u8,
        shares: u8,
        rng: &dyn Rng,
    ) -> Result<Vec<Self>, SplitError> {
        let mut set_id = [0; Heading::SET_ID_LEN_BYTES];
        rng.fill(&mut set_id)?;
        let values = sharing::split(secret, threshold, shares, rng)?;
        let share = |(index, value): (u8, &zeroize::Zeroizing<[u8; SECRET_LEN_BYTES]>)| Self {
            heading: Heading { threshold, index, shares, set_id },
            value: Material::copied_from(&**value),
        };
        Ok((1..).zip(&values).map(share).collect())
    }

    /// Combines as many shares as the threshold says, or more, into a page of its own.
    ///
    /// What comes out is the secret only if each share is right: the caller holds it against what
    /// it knows of the secret, and says of a failure nothing but that.
    pub fn combine(shares: &[&Self]) -> Result<SecretPage, CombineError> {
        let Some(first) = shares.first() else {
            return Err(CombineError::TooFew { given: 0, threshold: THRESHOLD_MIN });
        };
        for (place, share) in shares.iter().enumerate() {
            if let Some(field) = first.heading.differs_from(&share.heading) {
                return Err(CombineError::HeadingsDiffer { field });
            }
            let index = share.heading.index;
            if shares[..place].iter().any(|other| other.heading.index == index) {
                return Err(CombineError::IndexTwice { index });
            }
        }
        let (given, threshold) = (shares.len(), first.heading.threshold);
        if given < usize::from(threshold) {
            return Err(CombineError::TooFew { given, threshold });
        }
        with_wiped_stack(|| {
            let indexed: Vec<_> =
                shares.iter().map(|share| (share.heading.index, share.value())).collect();
            let mut secret = [0; SECRET_LEN_BYTES];
            sharing::combine(&indexed, &mut secret)
                .expect("from 2 to 16 shares, each with an index of its own");
            Ok(SecretPage::taken_from(&mut secret)?)
        })
    }

    /// Takes a share out of an envelope: its heading, and then its octets.
    pub fn from_bytes(octets: &[u8]) -> Result<Self, TextInvalid> {
        let (heading, value) = octets.split_first_chunk().ok_or(TextInvalid::Length)?;
        if octets.len() != Self::LEN_BYTES {
            return Err(TextInvalid::Length);
        }
        Ok(Self { heading: Heading::parse(heading)?, value: Material::copied_from(value) })
    }

    /// Reads a share as it stands on paper: blanks and line ends anywhere, letters of either case.
    pub fn parse(text: &str) -> Result<Self, TextInvalid> {
        Self::typed(Entry::of_share().with_text(text)?)
    }

    /// Takes a share that was typed.
    pub fn typed(entry: Entry) -> Result<Self, TextInvalid> {
        let (heading, value) = entry.into_share()?;
        Ok(Self { heading, value })
    }

    /// The share as it stands on paper: five rows of 8 octets, each with its check group.
    #[must_use]
    pub fn write(&self) -> Rows {
        // Exposed to be put on paper, for the one custodian whose share it is.
        Rows::of_share(self.heading.to_bytes(), self.value.expose_bytes())
    }

    /// What it says of itself.
    #[must_use]
    pub fn heading(&self) -> Heading {
        self.heading
    }

    /// The share as it travels in an envelope: its heading, and then its octets.
    #[must_use]
    pub fn to_material(&self) -> Material {
        let mut octets = Material::zeroed(Self::LEN_BYTES);
        // Exposed to be copied from one wiped buffer into another.
        let (heading, value) = octets.expose_bytes_mut().split_at_mut(Heading::LEN_BYTES);
        heading.copy_from_slice(&self.heading.to_bytes());
        value.copy_from_slice(self.value.expose_bytes());
        octets
    }

    /// Whether another share is this one, as when it was typed from its slip; in a time that does
    /// not depend on what is secret.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.heading == other.heading && constant_time_eq(self.value(), other.value())
    }

    /// The secret octets, for the arithmetic alone.
    fn value(&self) -> &[u8; SECRET_LEN_BYTES] {
        self.value.expose_bytes().try_into().expect("each door takes this length alone")
    }
}

impl fmt::Debug for Share {
    /// The heading alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Share").field(&self.heading).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rng::SystemRng;

    fn shares(threshold: u8, shares: u8) -> Vec<Share> {
        Share::split(&[0x5c; 32], threshold, shares, &SystemRng::new()).unwrap()
    }

    #[test]
    fn enough_shares_give_the_secret_through_envelope_and_paper() {
        let split = shares(3, 5);
        let set_id = split[0].heading().set_id();
        for (index, share) in (1..).zip(&split) {
            let heading = share.heading();
            let told = (heading.threshold(), heading.index(), heading.shares(), heading.set_id());
            assert_eq!(told, (3, index, 5, set_id));
        }
        let by_envelope = Share::from_bytes(split[4].to_material().expose_bytes()).unwrap();
        let text: Vec<String> =
            split[1].write().lines().map(|line| line.text.to_lowercase()).collect();
        let by_paper = Share::parse(&text.join("\n")).unwrap();
        assert!(by_envelope.is_same(&split[4]) && by_paper.is_same(&split[1]));
        assert!(!by_paper.is_same(&split[4]));
        let combined = Share::combine(&[&by_envelope, &split[2], &by_paper]).unwrap();
        combined.with_bytes(|secret| assert_eq!(secret, &[0x5c; 32]));
        let all: Vec<&Share> = split.iter().collect();
        Share::combine(&all).unwrap().with_bytes(|secret| assert_eq!(secret, &[0x5c; 32]));
    }

    #[test]
    fn shares_that_do_not_belong_together_are_told_by_what_is_public() {
        let split = shares(3, 5);
        let refused = |shares: &[&Share]| Share::combine(shares).unwrap_err();
        let too_few = CombineError::TooFew { given: 2, threshold: 3 };
        assert_eq!(refused(&[&split[0], &split[1]]), too_few);
        assert_eq!(refused(&[]), CombineError::TooFew { given: 0, threshold: 2 });
        let twice = CombineError::IndexTwice { index: 2 };
        assert_eq!(refused(&[&split[0], &split[1], &split[1]]), twice);
        let differ = |field| CombineError::HeadingsDiffer { field };
        let other_set = shares(3, 5);
        let mixed = refused(&[&split[0], &split[1], &other_set[2]]);
        assert_eq!(mixed, differ(HeadingField::SetId));
        let mut octets = split[2].to_material();
        octets.expose_bytes_mut()[1] = 2;
        let other = Share::from_bytes(octets.expose_bytes()).unwrap();
        let mixed = refused(&[&split[0], &split[1], &other]);
        assert_eq!(mixed, differ(HeadingField::Threshold));
        octets.expose_bytes_mut()[1..4].copy_from_slice(&[3, 3, 6]);
        let other = Share::from_bytes(octets.expose_bytes()).unwrap();
        assert_eq!(refused(&[&split[0], &split[1], &other]), differ(HeadingField::Shares));
    }

    #[test]
    fn a_wrong_share_gives_another_secret_and_is_not_told_apart() {
        let split = shares(3, 5);
        let mut octets = split[2].to_material();
        octets.expose_bytes_mut()[39] ^= 1;
        let wrong = Share::from_bytes(octets.expose_bytes()).unwrap();
        let combined = Share::combine(&[&split[0], &split[1], &wrong]).unwrap();
        combined.with_bytes(|secret| assert_ne!(secret, &[0x5c; 32]));
    }

    #[test]
    fn headings_that_can_not_be_are_refused() {
        let valid = [1, 3, 5, 5, 0xde, 0xad, 0xbe, 0xef];
        assert_eq!(Heading::parse(&valid).unwrap().to_bytes(), valid);
        let refused = |change: (usize, u8)| {
            let mut octets = valid;
            octets[change.0] = change.1;
            Heading::parse(&octets).unwrap_err()
        };
        for change in [(1, 0), (1, 1), (1, 6), (2, 0), (2, 6), (3, 4), (3, 2), (3, 17), (3, 0)] {
            assert_eq!(refused(change), HeadingInvalid::Numbers, "{change:?}");
        }
        for found in [0, 2, 255] {
            assert_eq!(refused((0, found)), HeadingInvalid::Version { found });
        }
        let share = &shares(2, 2)[0];
        let octets = share.to_material();
        for len_bytes in [0, 7, 8, 39] {
            let refused = Share::from_bytes(&octets.expose_bytes()[..len_bytes]);
            assert_eq!(refused.unwrap_err(), TextInvalid::Length);
        }
        let longer = [octets.expose_bytes(), &[0]].concat();
        assert_eq!(Share::from_bytes(&longer).unwrap_err(), TextInvalid::Length);
        assert!(format!("{share:?}").starts_with("Share(Heading { threshold: 2, index: 1"));
    }

    #[test]
    fn numbers_that_can_not_be_and_a_silent_source_give_no_shares() {
        let refused = Share::split(&[0x5c; 32], 1, 3, &SystemRng::new()).unwrap_err();
        assert_eq!(refused, SplitError::NumbersInvalid);
    }
}
