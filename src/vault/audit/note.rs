//! Signed notes, and checkpoints as such: C2SP tlog-checkpoint and signed-note, Ed25519.
//!
//! ```text
//! firstkey/{log}/{node}        the origin, which is also the name of the key
//! 4711                         how many events
//! base64 of the root           32 octets
//!
//! — name base64                4 octets of the key's id, 64 of the signature of the lines above
//! ```
//!
//! The id of a key is the beginning of SHA-256(name || 0A || 01 || public key); written out to
//! verify with, a key is `name+id in hexadecimals+base64 of 01 and the public key`.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};

use crate::crypto::digest::sha256;
use crate::crypto::ed25519::{self, Ed25519Key};
use crate::crypto::merkle::{self, Hash, ProofInvalid, Root};

/// Why a note is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// No signature in it is by this key.
    #[error("the checkpoint is not signed by this key")]
    KeyOther,
    /// It is no checkpoint, or the key is none.
    #[error("this is no checkpoint, or no key to verify one with")]
    Malformed,
    /// A signature in the name of the key is not its.
    #[error("the signature of the checkpoint does not verify")]
    SignatureInvalid,
}

/// A key that checkpoints are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// The key of a log.
    pub(crate) fn new(name: String, key: &Ed25519Key) -> Self {
        Self { name, public: key.public() }
    }

    /// Reads a key as signed-note writes it.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(id), Some(key)) = (name, id, key) else {
            return Err(NoteError::Malformed);
        };
        let key = BASE64.decode(key.as_bytes()).map_err(|_| NoteError::Malformed)?;
        let public = key.strip_prefix(&[ED25519]).and_then(|public| public.try_into().ok());
        let key = Self { name: name.to_owned(), public: public.ok_or(NoteError::Malformed)? };
        let sound = is_name(name) && HEXLOWER.encode(&key.id()) == id;
        sound.then_some(key).ok_or(NoteError::Malformed)
    }

    /// The name, which is the origin of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Verifies what the key signed besides checkpoints: see [`super::LogSigner`].
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), NoteError> {
        ed25519::verify(&self.public, message, signature).map_err(|_| NoteError::SignatureInvalid)
    }

    fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[ED25519], &self.public]);
        *hash.first_chunk().expect("4 of 32 octets")
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519], self.public.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&key))
    }
}

/// How many events a log has, and the root of the tree over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log it is.
    pub origin: String,
    /// The tree.
    pub root: Root,
}

impl Checkpoint {
    /// The signed note.
    pub(super) fn sign(&self, key: &Ed25519Key) -> String {
        let text =
            format!("{}\n{}\n{}\n", self.origin, self.root.size, BASE64.encode(&self.root.hash));
        sign_text(&text, &self.origin, key)
    }

    /// Reads a note that the key signed. Signatures of others beside it, such as of witnesses, are
    /// passed over.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let checkpoint = Self::read(signed_text(note, key)?).ok_or(NoteError::Malformed)?;
        if checkpoint.origin == key.name { Ok(checkpoint) } else { Err(NoteError::KeyOther) }
    }

    /// Verifies that an event, by its sequence from 1, is among those covered.
    pub fn verify_event(
        &self,
        sequence: u64,
        event: &str,
        proof: &[Hash],
    ) -> Result<(), ProofInvalid> {
        let index = sequence.checked_sub(1).ok_or(ProofInvalid)?;
        merkle::verify_inclusion(&self.root, event.as_bytes(), index, proof)
    }

    /// Verifies that the events covered begin with those that an older checkpoint covers.
    pub fn verify_continues(&self, older: &Self, proof: &[Hash]) -> Result<(), ProofInvalid> {
        if self.origin != older.origin {
            return Err(ProofInvalid);
        }
        merkle::verify_consistency(&older.root, &self.root, proof)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, hash) = (lines.next()?, lines.next()?, lines.next()?);
        // Lines of an extension may follow; ours has none.
        let is_plain = size == "0" || !size.starts_with(['0', '+']);
        let size = size.parse().ok().filter(|_| is_plain)?;
        let hash = BASE64.decode(hash.as_bytes()).ok()?.try_into().ok()?;
        let whole = !origin.is_empty() && lines.all(|line| !line.is_empty());
        whole.then(|| Self { origin: origin.to_owned(), root: Root { size, hash } })
    }
}

/// The note of a text, which ends with its line end, signed by the key of this name.
pub(super) fn sign_text(text: &str, name: &str, key: &Ed25519Key) -> String {
    let id = VerifierKey::new(name.to_owned(), key).id();
    let signed = [id.as_slice(), &key.sign(text.as_bytes())].concat();
    format!("{text}\n{SIGNED_BY}{name} {}\n", BASE64.encode(&signed))
}

/// The text of a note, if the key signed it.
pub(super) fn signed_text<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str, NoteError> {
    if note.contains(|c: char| c.is_ascii_control() && c != '\n') {
        return Err(NoteError::Malformed);
    }
    // The text ends with its line end; an empty line stands between it and the signatures.
    let split = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (&note[..=split], &note[split + 2..]);
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let mut is_signed = false;
    for line in signatures.split('\n') {
        let line = line.strip_prefix(SIGNED_BY).ok_or(NoteError::Malformed)?;
        let (name, value) = line.split_once(' ').ok_or(NoteError::Malformed)?;
        let value = BASE64.decode(value.as_bytes()).map_err(|_| NoteError::Malformed)?;
        let (id, signature) = value.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
        if !is_name(name) {
            return Err(NoteError::Malformed);
        }
        if name == key.name && *id == key.id() {
            let signature = signature.try_into().map_err(|_| NoteError::SignatureInvalid)?;
            ed25519::verify(&key.public, text.as_bytes(), signature)
                .map_err(|_| NoteError::SignatureInvalid)?;
            is_signed = true;
        }
    }
    if is_signed { Ok(text) } else { Err(NoteError::KeyOther) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

/// What a line of a signature begins with: an em dash and a space.
const SIGNED_BY: &str = "\u{2014} ";
/// The octet that says Ed25519.
const ED25519: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(octet: u8) -> (Ed25519Key, VerifierKey) {
        let key = Ed25519Key::from_seed(&[octet; 32]);
        let verifier = VerifierKey::new("firstkey/0011/node-1".to_owned(), &key);
        (key, verifier)
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "firstkey/0011/node-1".to_owned(),
            root: Root { size: 42, hash: [9; 32] },
        }
    }

    #[test]
    fn a_published_note_is_read() {
        // The example of C2SP signed-note.
        let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let verifier = VerifierKey::parse(key).unwrap();
        assert_eq!(verifier.to_string(), key);
        let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL\
                    1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        assert_eq!(signed_text(note, &verifier), Ok("This is an example message.\n"));
        assert!(signed_text(&note.replace("This", "That"), &verifier).is_err());
        assert!(VerifierKey::parse(&key.replace("530d903a", "530d903b")).is_err());
        // Signed, and no checkpoint.
        assert_eq!(Checkpoint::open(note, &verifier), Err(NoteError::Malformed));
    }

    #[test]
    fn what_was_signed_is_read_and_nothing_else() {
        let (key, verifier) = key(7);
        let note = checkpoint().sign(&key);
        assert!(note.starts_with("firstkey/0011/node-1\n42\nCQkJCQkJ"), "{note}");
        assert_eq!(Checkpoint::open(&note, &verifier), Ok(checkpoint()));
        let (other, other_verifier) = self::key(8);
        assert_eq!(Checkpoint::open(&note, &other_verifier), Err(NoteError::KeyOther));
        let forged = note.replace("\n42\n", "\n43\n");
        assert_eq!(Checkpoint::open(&forged, &verifier), Err(NoteError::SignatureInvalid));
        // A witness may sign beside the log.
        let witnessed = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert_eq!(Checkpoint::open(&witnessed, &verifier), Ok(checkpoint()));
        let elsewhere = Checkpoint { origin: "another".to_owned(), ..checkpoint() }.sign(&other);
        assert_eq!(Checkpoint::open(&elsewhere, &verifier), Err(NoteError::KeyOther));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let (key, verifier) = key(7);
        let note = checkpoint().sign(&key);
        for malformed in [
            "",
            "\n\n",
            "firstkey/0011/node-1\n42\n",
            note.trim_end(),
            &note.replace('\u{2014}', "-"),
            &note.replace("\n42", "\r\n42"),
            &note.replace("\n\n", "\n"),
            &format!("{note}\n"),
        ] {
            assert!(Checkpoint::open(malformed, &verifier).is_err(), "{malformed:?}");
        }
        for size in ["042", "+42", "-1", "", "1e3", "18446744073709551616"] {
            let text = format!("o\n{size}\n{}\n", BASE64.encode(&[0; 32]));
            assert_eq!(Checkpoint::read(&text), None, "{size}");
        }
        for text in ["a+b+c", "", "name", "a b+00000000+AQ==", "+x+y"] {
            assert!(VerifierKey::parse(text).is_err(), "{text:?}");
        }
    }
}
