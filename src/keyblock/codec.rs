//! Turns a header, a key and its padding into a key block and back, in each of the versions.
//!
//! ```text
//! block      header, E(length of the key in bits || key || padding), MAC     the last two in hex
//! A, C       keys: KBPK xor 45.. and KBPK xor 4D..; CBC, IV: first 8 octets of the header
//!            MAC: CBC-MAC over header and cryptogram, 4 octets
//! B, D       keys: CMAC derivation; CBC, IV: the MAC; MAC: CMAC over header and clear data
//! E          keys: CMAC derivation; counter mode from the MAC; MAC: as D
//! ```
//!
//! See TR-31:2018, 5.3; ANSI X9.143, 7; ISO 20038:2017.

use data_encoding::{HEXUPPER, HEXUPPER_PERMISSIVE};
use zeroize::Zeroizing;

use super::{BLOCK_LEN_MAX, Header, HeaderInvalid, Version};
use crate::crypto::aes::Aes;
use crate::crypto::tdes::Tdes;
use crate::crypto::{KeyLengthInvalid, cbc_mac, cmac, constant_time_eq};
use crate::key::Material;

/// What is wrong with a key block. Told to nobody outside: see
/// [`KeyBlockRejected`](super::KeyBlockRejected).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Defect {
    #[error("header: {0}")]
    Header(#[from] HeaderInvalid),
    #[error("the cryptogram or the MAC is not hexadecimal")]
    Hex,
    #[error("the key block protection key has a length that the version does not take")]
    KbpkLength,
    #[error("the length of the key does not fit")]
    KeyLength,
    #[error("the block is too short, too long, or no multiple of the cipher's block")]
    Length,
    #[error("the length field does not tell the length of the block")]
    LengthField,
    #[error("the MAC does not verify")]
    Mac,
}

/// What a key block held.
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) key: Material,
    /// The random octets after the key.
    pub(crate) padding: Material,
}

/// Makes a block of a header's text, whose length field is filled in, a key and its padding.
pub(crate) fn seal(
    kbpk: &[u8],
    header_text: &str,
    key: &[u8],
    padding: &[u8],
) -> Result<String, Defect> {
    let (header, header_len) = Header::parse(header_text)?;
    if header_len != header_text.len() {
        return Err(Defect::Length);
    }
    let mut clear = Zeroizing::new(Vec::with_capacity(LENGTH_LEN + key.len() + padding.len()));
    let key_bits = key.len().checked_mul(8).and_then(|bits| u16::try_from(bits).ok());
    let key_bits = key_bits.filter(|bits| *bits > 0).ok_or(Defect::KeyLength)?;
    clear.extend_from_slice(&key_bits.to_be_bytes());
    clear.extend_from_slice(key);
    clear.extend_from_slice(padding);

    let version = header.version;
    let total = header_len + 2 * (clear.len() + version.mac_len());
    let block_len =
        u16::try_from(total).ok().filter(|len| *len <= BLOCK_LEN_MAX).ok_or(Defect::Length)?;
    if total % version.block_len() != 0 {
        return Err(Defect::Length);
    }
    let header_text = header.encode(block_len)?;
    let keys = Keys::derive(version, kbpk)?;
    let mac = keys.encipher(&header_text, &mut clear)?;
    Ok(format!("{header_text}{}{}", HEXUPPER.encode(&clear), HEXUPPER.encode(&mac)))
}

/// Opens a block. The MAC stands over the header as it was received; the length field, and what
/// the clear data says of the key's length, are looked at only when it holds.
pub(crate) fn open(kbpk: &[u8], text: &str) -> Result<Opened, Defect> {
    let (header, header_len) = Header::parse(text)?;
    let version = header.version;
    // A header is ASCII, so this is a character boundary; what follows may be anything.
    let (header_text, rest) = text.split_at_checked(header_len).ok_or(Defect::Length)?;
    let cryptogram_len = rest
        .len()
        .checked_sub(2 * version.mac_len())
        .filter(|len| *len > 2 * LENGTH_LEN && text.len().is_multiple_of(version.block_len()))
        .ok_or(Defect::Length)?;
    let (cryptogram, mac) = rest.split_at_checked(cryptogram_len).ok_or(Defect::Hex)?;
    let mut data = decode(cryptogram)?;
    let mac = decode(mac)?;

    let keys = Keys::derive(version, kbpk)?;
    let expected = keys.decipher(header_text, &mac, &mut data)?;
    if !constant_time_eq(&expected, &mac) {
        return Err(Defect::Mac);
    }
    if Header::declared_len(text) != Some(text.len()) {
        return Err(Defect::LengthField);
    }
    let (key_bits, rest) = data.split_first_chunk().ok_or(Defect::KeyLength)?;
    let key_bits = usize::from(u16::from_be_bytes(*key_bits));
    if key_bits == 0 || key_bits % 8 != 0 {
        return Err(Defect::KeyLength);
    }
    let (key, padding) = rest.split_at_checked(key_bits / 8).ok_or(Defect::KeyLength)?;
    Ok(Opened { header, key: Material::copied_from(key), padding: Material::copied_from(padding) })
}

/// Octets of the key's length before the key.
pub(super) const LENGTH_LEN: usize = 2;

fn decode(hex: &str) -> Result<Zeroizing<Vec<u8>>, Defect> {
    HEXUPPER_PERMISSIVE.decode(hex.as_bytes()).map(Zeroizing::new).map_err(|_| Defect::Hex)
}

/// The encryption and the authentication key of one block, from its protection key.
struct Keys {
    version: Version,
    encryption: Zeroizing<Vec<u8>>,
    authentication: Zeroizing<Vec<u8>>,
}

impl Keys {
    fn derive(version: Version, kbpk: &[u8]) -> Result<Self, Defect> {
        let key_len_fits = match version {
            Version::A | Version::B | Version::C => matches!(kbpk.len(), 16 | 24),
            Version::D | Version::E => matches!(kbpk.len(), 16 | 24 | 32),
        };
        if !key_len_fits {
            return Err(Defect::KbpkLength);
        }
        let (encryption, authentication) = match version {
            Version::A | Version::C => (variant(kbpk, 0x45), variant(kbpk, 0x4D)),
            Version::B => (derive_tdes(kbpk, CBC_KEY)?, derive_tdes(kbpk, MAC_KEY)?),
            Version::D => (derive_aes(kbpk, CBC_KEY)?, derive_aes(kbpk, MAC_KEY)?),
            Version::E => (derive_aes(kbpk, COUNTER_KEY)?, derive_aes(kbpk, MAC_KEY)?),
        };
        Ok(Self { version, encryption, authentication })
    }

    /// Enciphers the data in place and tells the MAC.
    fn encipher(&self, header: &str, data: &mut [u8]) -> Result<Vec<u8>, Defect> {
        if matches!(self.version, Version::A | Version::C) {
            let iv = first_of(header.as_bytes())?;
            Tdes::new(&self.encryption)?.cbc_encrypt(&iv, data).map_err(|_| Defect::Length)?;
            return self.mac(header, data);
        }
        let mac = self.mac(header, data)?;
        match self.version {
            Version::A | Version::B | Version::C => {
                Tdes::new(&self.encryption)?.cbc_encrypt(&first_of(&mac)?, data)
            }
            Version::D => Aes::new(&self.encryption)?.cbc_encrypt(&first_of(&mac)?, data),
            Version::E => {
                count_through(&Aes::new(&self.encryption)?, first_of(&mac)?, data);
                Ok(())
            }
        }
        .map_err(|_| Defect::Length)?;
        Ok(mac)
    }

    /// Deciphers the data in place and tells the MAC that the block should have.
    fn decipher(&self, header: &str, mac: &[u8], data: &mut [u8]) -> Result<Vec<u8>, Defect> {
        match self.version {
            Version::A | Version::C => {
                let expected = self.mac(header, data)?;
                let iv = first_of(header.as_bytes())?;
                Tdes::new(&self.encryption)?.cbc_decrypt(&iv, data).map_err(|_| Defect::Length)?;
                return Ok(expected);
            }
            Version::B => Tdes::new(&self.encryption)?.cbc_decrypt(&first_of(mac)?, data),
            Version::D => Aes::new(&self.encryption)?.cbc_decrypt(&first_of(mac)?, data),
            Version::E => {
                count_through(&Aes::new(&self.encryption)?, first_of(mac)?, data);
                Ok(())
            }
        }
        .map_err(|_| Defect::Length)?;
        self.mac(header, data)
    }

    /// The MAC over the header as it stands and the data: clear data in B, D and E, the
    /// cryptogram in A and C.
    fn mac(&self, header: &str, data: &[u8]) -> Result<Vec<u8>, Defect> {
        let mut message = Zeroizing::new(Vec::with_capacity(header.len() + data.len()));
        message.extend_from_slice(header.as_bytes());
        message.extend_from_slice(data);
        let mut mac = match self.version {
            Version::A | Version::C => cbc_mac::tdes_cbc_mac(&self.authentication, &message)
                .map_err(|_| Defect::Length)?
                .to_vec(),
            Version::B => cmac::tdes_cmac(&self.authentication, &message)?.to_vec(),
            Version::D | Version::E => cmac::aes_cmac(&self.authentication, &message)?.to_vec(),
        };
        mac.truncate(self.version.mac_len());
        Ok(mac)
    }
}

impl From<KeyLengthInvalid> for Defect {
    fn from(_: KeyLengthInvalid) -> Self {
        Self::KbpkLength
    }
}

/// What a derived key is for, in the derivation data (X9.143, 7.3.2; ISO 20038:2017, table 2).
const CBC_KEY: u16 = 0x0000;
const MAC_KEY: u16 = 0x0001;
const COUNTER_KEY: u16 = 0x0002;

fn variant(kbpk: &[u8], mask: u8) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(kbpk.iter().map(|octet| octet ^ mask).collect())
}

/// ```text
/// derivation data: counter (1), usage (2), 00, algorithm (2), length of the key in bits (2)
/// ```
fn derivation_data(counter: u8, usage: u16, algorithm: u16, bits: u16) -> [u8; 8] {
    let [u0, u1] = usage.to_be_bytes();
    let [a0, a1] = algorithm.to_be_bytes();
    let [b0, b1] = bits.to_be_bytes();
    [counter, u0, u1, 0, a0, a1, b0, b1]
}

fn derive_tdes(kbpk: &[u8], usage: u16) -> Result<Zeroizing<Vec<u8>>, Defect> {
    let (algorithm, bits) = if kbpk.len() == 16 { (0x0000, 128) } else { (0x0001, 192) };
    let mut derived = Zeroizing::new(vec![0; kbpk.len()]);
    for (counter, part) in (1..).zip(derived.chunks_mut(8)) {
        let block = Zeroizing::new(cmac::tdes_cmac(
            kbpk,
            &derivation_data(counter, usage, algorithm, bits),
        )?);
        part.copy_from_slice(&block[..part.len()]);
    }
    Ok(derived)
}

fn derive_aes(kbpk: &[u8], usage: u16) -> Result<Zeroizing<Vec<u8>>, Defect> {
    let (algorithm, bits) = match kbpk.len() {
        16 => (0x0002, 128),
        24 => (0x0003, 192),
        _ => (0x0004, 256),
    };
    let mut derived = Zeroizing::new(vec![0; kbpk.len()]);
    for (counter, part) in (1..).zip(derived.chunks_mut(16)) {
        let block = Zeroizing::new(cmac::aes_cmac(
            kbpk,
            &derivation_data(counter, usage, algorithm, bits),
        )?);
        part.copy_from_slice(&block[..part.len()]);
    }
    Ok(derived)
}

/// Counter mode: the MAC is the first counter block (ISO 20038:2017, 7).
fn count_through(cipher: &Aes, first: [u8; 16], data: &mut [u8]) {
    let mut counter = u128::from_be_bytes(first);
    for part in data.chunks_mut(16) {
        let mut stream = Zeroizing::new(counter.to_be_bytes());
        cipher.encrypt_block(&mut stream);
        for (octet, mask) in part.iter_mut().zip(stream.iter()) {
            *octet ^= mask;
        }
        counter = counter.wrapping_add(1);
    }
}

fn first_of<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Defect> {
    bytes.first_chunk().copied().ok_or(Defect::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXUPPER.decode(text.as_bytes()).unwrap()
    }

    /// TR-31:2018, annex A.7, and ISO 20038:2017, annex B.2: protection key, block, key.
    const PRINTED: &[(&str, &str, &str)] = &[
        (
            "89E88CF7931444F334BD7547FC3F380C",
            "A0072P0TE00E0000F5161ED902807AF26F1D62263644BD24192FDB3193C730301CEE8701",
            "F039121BEC83D26B169BDCD5B22AAF8F",
        ),
        (
            "DD7515F2BFC17F85CE48F3CA25CB21F6",
            "B0080P0TE00E000094B420079CC80BA3461F86FE26EFC4A3B8E4FA4C5F5341176EED7B727B8A248E",
            "3F419E1CB7079442AA37474C2EFBF8B8",
        ),
        (
            "B8ED59E0A279A295E9F5ED7944FD06B9",
            concat!(
                "C0096B0TX12S0100KS1800604B120F9292800000",
                "BFB9B689CB567E66FC3FEE5AD5F52161FC6545B9D60989015D02155C"
            ),
            "EDB380DD340BC2620247D445F5B8D678",
        ),
        (
            "88E1AB2A2E3DD38C1FA039A536500CC8A87AB9D62DC92C01058FA79F44657DE6",
            concat!(
                "D0112P0AE00E0000B82679114F470F540165EDFBF7E250FCEA43F810D215F8D2",
                "07E2E417C07156A27E8E31DA05F7425509593D03A457DC34"
            ),
            "3F419E1CB7079442AA37474C2EFBF8B8",
        ),
        (
            "3235362D62697420414553207772617070696E67202849534F20323030333829",
            concat!(
                "E0084B0TV16N0000B2AE5E26BBA7F246E84D5EA24167E208A6B66EF2E27E55A5",
                "2DB52F0AEACB94C57547"
            ),
            "777261707065642033444553206B6579",
        ),
    ];

    #[test]
    fn opens_and_seals_what_the_standards_print() {
        for (kbpk, block, key) in PRINTED {
            let opened = open(&hex(kbpk), block).unwrap();
            assert_eq!(opened.key.expose_bytes(), hex(key));
            let header = opened.header.encode(0).unwrap();
            let again =
                seal(&hex(kbpk), &header, opened.key.expose_bytes(), opened.padding.expose_bytes());
            assert_eq!(again.as_deref(), Ok(*block));
        }
    }
}
