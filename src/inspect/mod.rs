//! What people hold in their hands, explained without keys: a key block, a key serial number, the
//! slip of a component or share.

use data_encoding::HEXUPPER_PERMISSIVE;

use crate::component::{self, Held, TextInvalid};
use crate::dukpt::{AesKsn, KsnInvalid, TdesKsn};
use crate::keyblock::{self, Header, HeaderInvalid};

/// Something that was explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What it is.
    pub what: String,
    /// Where its form is laid down.
    pub source: &'static str,
    /// Its parts, in their order.
    pub parts: Vec<Part>,
    /// Whether nothing is wrong that can be seen without keys.
    pub is_sound: bool,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it stands, counted from 0 and without the last: characters of a key block, bits or
    /// octets of a key serial number, rows of a slip.
    pub at: String,
    /// What it is called.
    pub field: String,
    /// What stands there; nothing where that is secret.
    pub value: String,
    /// What it means.
    pub meaning: String,
}

/// Why nothing was explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExplained {
    /// It begins as a key block does, and is none.
    #[error("not a key block: {0}")]
    KeyBlock(#[from] HeaderInvalid),
    /// It is not a key serial number.
    #[error("not a key serial number: 8, 9, 10 or 12 octets in hexadecimals")]
    KeySerialNumber,
    /// It is not a slip.
    #[error("not a component or share: {0}")]
    Slip(#[from] TextInvalid),
    /// It is nothing that is known here.
    #[error(
        "neither a key block nor a key serial number; a component or share is read from standard \
         input"
    )]
    Unknown,
}

/// Explains a key block or key serial number, whichever it is.
pub fn recognised(text: &str) -> Result<Explanation, NotExplained> {
    key_block(text).or_else(|_| key_serial_number(text)).map_err(|_| NotExplained::Unknown)
}

/// Explains a key block: each field of its header, and how long the rest is.
pub fn key_block(text: &str) -> Result<Explanation, NotExplained> {
    let text = text.trim();
    if !text.is_ascii() {
        return Err(HeaderInvalid::Character.into());
    }
    let (header, header_len) = Header::parse(text)?;
    let version = header.version;
    let mut parts = Vec::new();
    let mut at = 0;
    for row in keyblock::explain(&header) {
        // The explanation has the fields in the order of the header; the length alone, which is of
        // the block and not of the header, stands in between.
        let len = match row.field {
            "optional block" => header.optional()[parts.len() - FIXED_FIELDS].len_chars(),
            _ => row.value.len(),
        };
        parts.push(part(range(at, at + len), row.field, row.value, row.meaning));
        at += len;
        if at == 1 {
            let (value, actual) = (&text[1..5], text.len());
            let is_right = value.parse() == Ok(actual);
            let meaning = if is_right { "characters of the whole block" } else { WRONG_LENGTH };
            parts.push(part("1..5", "length", value, meaning));
            at = 5;
        }
    }
    let mac_start = text.len().checked_sub(2 * version.mac_len()).filter(|at| *at >= header_len);
    let is_hex = text[header_len..].bytes().all(|octet| octet.is_ascii_hexdigit());
    let key_len = mac_start.map_or(0, |mac_start| (mac_start - header_len) / 2);
    let is_whole = is_hex && key_len > 0 && key_len.is_multiple_of(version.cipher_block_len());
    if let Some(mac_start) = mac_start {
        let meaning = format!("{key_len} octets, encrypted: the key, its length and padding");
        parts.push(part(
            range(header_len, mac_start),
            "key",
            &text[header_len..mac_start],
            meaning,
        ));
        let meaning = "authenticates header and key; not checked, as that takes the key under \
                       which the block is";
        parts.push(part(range(mac_start, text.len()), "MAC", &text[mac_start..], meaning));
    }
    let has_length = text[1..5].parse() == Ok(text.len());
    let broken = if is_whole && has_length { "" } else { ", cut or damaged" };
    Ok(Explanation {
        what: format!("key block of version {}{broken}", char::from(version.letter())),
        source: "ANSI X9.143:2021, 6",
        parts,
        is_sound: is_whole && has_length,
    })
}

/// Fields of the header before the first optional block, the length among them.
const FIXED_FIELDS: usize = 10;

const WRONG_LENGTH: &str = "characters of the whole block, which it does not have";

/// Explains a key serial number: of TDES where it has 8 to 10 octets, of AES where it has 12.
pub fn key_serial_number(text: &str) -> Result<Explanation, NotExplained> {
    let digits: String = text.split_ascii_whitespace().collect();
    let octets = HEXUPPER_PERMISSIVE.decode(digits.as_bytes());
    let octets = octets.map_err(|_| NotExplained::KeySerialNumber)?;
    match octets.len() {
        8..=TdesKsn::LEN_BYTES => Ok(tdes(&octets)),
        AesKsn::LEN_BYTES => Ok(aes(&octets)),
        _ => Err(NotExplained::KeySerialNumber),
    }
}

fn tdes(given: &[u8]) -> Explanation {
    let missing = TdesKsn::LEN_BYTES - given.len();
    let mut octets = [0xff; TdesKsn::LEN_BYTES];
    octets[missing..].copy_from_slice(given);
    let [.., a, b, c, d] = octets;
    let low = u32::from_be_bytes([a, b, c, d]);
    let (counter, upper) = (low & TDES_COUNTER_BITS, u32::from(octets[5]) << 11 | low >> 21);
    let mut parts = Vec::new();
    if missing > 0 {
        let meaning = format!("{missing} octets that were not given, as hosts fill them");
        parts.push(part(range(0, 8 * missing), "filled", "FF".repeat(missing), meaning));
    }
    let key_set = HEXUPPER_PERMISSIVE.encode(&octets[..5]);
    parts.push(part("0..40", "key set id", key_set, "names the base derivation key"));
    let device = format!("{upper:05X}");
    parts.push(part("40..59", "device number", device, format!("device {upper} of the key set")));
    let usable = TdesKsn::parse(&octets).map(|ksn| (ksn.rank(), TdesKsn::rank_max()));
    let value = format!("{counter:06X}");
    parts.push(part("59..80", "counter", value, meaning_of_counter(counter, usable)));
    Explanation {
        what: "key serial number of TDES DUKPT, in bits".to_owned(),
        source: "ANSI X9.24-1:2009, 7.2 and annex A",
        parts,
        is_sound: usable.is_ok(),
    }
}

/// The low 21 bits.
const TDES_COUNTER_BITS: u32 = 0x1f_ffff;

fn aes(octets: &[u8]) -> Explanation {
    let hex = |octets: &[u8]| HEXUPPER_PERMISSIVE.encode(octets);
    let counter = octets[8..].iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet));
    let usable = AesKsn::parse(octets).map(|ksn| (ksn.rank(), AesKsn::rank_max()));
    let meaning = if counter == u32::MAX {
        "the counter of the update key, and of no transaction".to_owned()
    } else {
        meaning_of_counter(counter, usable)
    };
    let parts = vec![
        part("0..4", "base derivation key id", hex(&octets[..4]), "names the base derivation key"),
        part("4..8", "derivation id", hex(&octets[4..8]), "names the device's initial key"),
        part("8..12", "counter", hex(&octets[8..]), meaning),
    ];
    Explanation {
        what: "key serial number of AES DUKPT, in octets".to_owned(),
        source: "ANSI X9.24-3:2017, 6.3",
        parts,
        is_sound: usable.is_ok() || counter == u32::MAX,
    }
}

fn meaning_of_counter(counter: u32, usable: Result<(u64, u64), KsnInvalid>) -> String {
    match usable {
        Ok((rank, last)) => {
            format!("{counter}: transaction {rank} of {last} under its initial key")
        }
        Err(KsnInvalid::CounterZero) => {
            "zero: names the initial key, and no transaction".to_owned()
        }
        Err(KsnInvalid::CounterWeight) => {
            let ones = counter.count_ones();
            format!("{counter}: {ones} one bits, more than any counter of a terminal has")
        }
        Err(KsnInvalid::Length) => "none".to_owned(),
    }
}

/// Explains a slip, and shows nothing of the secret on it.
pub fn slip(text: &str) -> Result<Explanation, NotExplained> {
    let inspected = component::inspect(text)?;
    let is_sound = inspected.is_sound();
    let mut parts = Vec::new();
    let what = match inspected.holds {
        Held::Share(Ok(heading)) => {
            let [_, threshold, index, shares, ..] = heading.to_bytes();
            let say = |number: u8, meaning: &str| (format!("{number:02X}"), meaning.to_owned());
            for (at, field, (value, meaning)) in [
                ("0", "version", say(1, "of the form")),
                ("1", "threshold", say(threshold, "shares that give the master key")),
                ("2", "index", say(index, "which share it is")),
                ("3", "shares", say(shares, "shares that there are")),
            ] {
                parts.push(part(format!("row 0, octet {at}"), field, value, meaning));
            }
            let set_id = HEXUPPER_PERMISSIVE.encode(&heading.set_id());
            let meaning = "what all shares of this master key have in common";
            parts.push(part("row 0, octets 4..8", "set id", set_id, meaning));
            format!("share {index} of {shares} of a master key; any {threshold} give it")
        }
        Held::Share(Err(error)) => {
            parts.push(part("row 0", "heading", "", error.to_string()));
            "share of a master key".to_owned()
        }
        Held::Component(check_values) => {
            for (algorithm, check_value) in check_values {
                let meaning = format!("if it is of an {algorithm} key; compare it with the slip");
                parts.push(part("all rows", "check value", check_value.to_string(), meaning));
            }
            format!("component of {} octets", inspected.rows.len() * 8)
        }
    };
    for (number, agrees) in inspected.rows {
        let meaning = match agrees {
            Some(true) => "agrees with its check group",
            Some(false) => "WRONG: does not agree with its check group",
            None => "has no check group: only the check value tells whether it is right",
        };
        parts.push(part(format!("row {number}"), "8 octets", "", meaning));
    }
    Ok(Explanation { what, source: "firstkey, src/component/text.rs", parts, is_sound })
}

fn part(
    at: impl Into<String>,
    field: impl Into<String>,
    value: impl Into<String>,
    meaning: impl Into<String>,
) -> Part {
    Part { at: at.into(), field: field.into(), value: value.into(), meaning: meaning.into() }
}

fn range(start: usize, end: usize) -> String {
    if end == start + 1 { start.to_string() } else { format!("{start}..{end}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(explanation: &Explanation) -> Vec<(&str, &str, &str)> {
        let parts = explanation.parts.iter();
        parts.map(|part| (&*part.at, &*part.field, &*part.value)).collect()
    }

    #[test]
    fn each_character_of_a_key_block_has_its_place() {
        // TR-31:2018, A.7.3.2.
        let block = "B0104B0TX12S0100KS1800604B120F9292800000\
                     8B6F4A4E8D6DD59D3B3E9E6A6D1B9B8F3C1C8FDF4F2E5C3B8B6F4A4E8D6DD59D";
        let explained = recognised(block).unwrap();
        assert_eq!(
            shown(&explained)[..12],
            [
                ("0", "version", "B"),
                ("1..5", "length", "0104"),
                ("5..7", "usage", "B0"),
                ("7", "algorithm", "T"),
                ("8", "mode of use", "X"),
                ("9..11", "key version", "12"),
                ("11", "exportability", "S"),
                ("12..14", "optional blocks", "01"),
                ("14", "context", "0"),
                ("15", "reserved", "0"),
                ("16..40", "optional block", "KS 00604B120F9292800000"),
                ("40..88", "key", &block[40..88]),
            ]
        );
        assert_eq!(explained.parts[12].at, "88..104");
        assert!(explained.is_sound);
        for damaged in [&block[..103], &block[..50], &block[..40]] {
            let explained = key_block(damaged).unwrap();
            assert!(!explained.is_sound);
            assert!(explained.what.ends_with("cut or damaged"));
        }
        assert!(!key_block(&block.replace("8B6F", "8B6G")).unwrap().is_sound);
        assert_eq!(key_block("B01"), Err(HeaderInvalid::Length.into()));
        assert_eq!(recognised("B01"), Err(NotExplained::Unknown));
    }

    #[test]
    fn a_key_serial_number_is_cut_at_its_bits() {
        // ANSI X9.24-1:2009, annex A.4.
        let explained = recognised("FFFF 9876 5432 10E0 0001").unwrap();
        let expected = [
            ("0..40", "key set id", "FFFF987654"),
            ("40..59", "device number", "19087"),
            ("59..80", "counter", "000001"),
        ];
        assert_eq!(shown(&explained), expected);
        assert!(explained.is_sound);
        let filled = recognised("9876543210E00001").unwrap();
        assert_eq!(shown(&filled)[0], ("0..16", "filled", "FFFF"));
        assert_eq!(shown(&filled)[1..], expected);
        // ANSI X9.24-3:2017, annex B.
        let explained = recognised("123456789012345600000001").unwrap();
        let expected = [
            ("0..4", "base derivation key id", "12345678"),
            ("4..8", "derivation id", "90123456"),
            ("8..12", "counter", "00000001"),
        ];
        assert_eq!(shown(&explained), expected);
        for unusable in ["FFFF9876543210E00000", "FFFF9876543210FFFFFF", "123456789012345600000000"]
        {
            assert!(!recognised(unusable).unwrap().is_sound, "{unusable}");
        }
        let update = recognised("1234567890123456FFFFFFFF").unwrap();
        assert!(update.is_sound && update.parts[2].meaning.contains("update key"));
        for other in ["", "12", "FFFF9876543210E0000", "1234567890123456000000", "XY"] {
            assert_eq!(recognised(other), Err(NotExplained::Unknown), "{other}");
            assert_eq!(key_serial_number(other), Err(NotExplained::KeySerialNumber));
        }
    }
}
