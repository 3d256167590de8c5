//! Explains a key block header in words: what each of its fields says.

use super::{Header, Version};

/// One field of a header: its name, its value as it stands, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The field's name.
    pub field: &'static str,
    /// The characters as they stand in the header.
    pub value: String,
    /// What they mean.
    pub meaning: String,
}

/// Explains every field of a header, the optional blocks last.
#[must_use]
pub fn explain(header: &Header) -> Vec<Explained> {
    let [u0, u1] = header.usage.map(char::from);
    let [v0, v1] = header.key_version.map(char::from);
    let mut rows = vec![
        row("version", one(header.version.letter()), version_meaning(header.version)),
        row("usage", format!("{u0}{u1}"), meaning_of_usage(header.usage)),
        row("algorithm", one(header.algorithm), algorithm_meaning(header.algorithm)),
        row("mode of use", one(header.mode), mode_meaning(header.mode)),
        row("key version", format!("{v0}{v1}"), key_version_meaning(header.key_version)),
        row("exportability", one(header.exportability), export_meaning(header.exportability)),
        row(
            "optional blocks",
            format!("{:02}", header.optional().len()),
            "number of the blocks that follow",
        ),
        row("context", one(header.context), context_meaning(header.context)),
        row(
            "reserved",
            one(header.reserved),
            if header.reserved == b'0' { "as it should be" } else { "not the 0 it should be" },
        ),
    ];
    rows.extend(header.optional().iter().map(|block| {
        let [a, b] = block.id().map(char::from);
        let value = format!("{a}{b} {}", block.data());
        row("optional block", value, block_meaning(block.id()))
    }));
    rows
}

/// What a key usage code means (ANSI X9.143, 6.3.1); nothing for one that is not in the standard.
#[must_use]
pub fn usage_meaning(usage: [u8; 2]) -> Option<&'static str> {
    USAGES.iter().find(|(code, _)| **code == usage).map(|(_, meaning)| *meaning)
}

fn row(field: &'static str, value: String, meaning: impl Into<String>) -> Explained {
    Explained { field, value, meaning: meaning.into() }
}

fn one(character: u8) -> String {
    char::from(character).to_string()
}

fn version_meaning(version: Version) -> &'static str {
    match version {
        Version::A | Version::C => "TDES, variant method; deprecated, the service refuses it",
        Version::B => "TDES, CMAC derivation",
        Version::D => "AES, CMAC derivation, CBC",
        Version::E => "AES, CMAC derivation, counter mode (ISO 20038); the service refuses it",
    }
}

fn meaning_of_usage(usage: [u8; 2]) -> &'static str {
    if usage.iter().all(u8::is_ascii_digit) {
        return "proprietary use, told by its maker";
    }
    usage_meaning(usage).unwrap_or("unknown to the standard")
}

const USAGES: &[(&[u8; 2], &str)] = &[
    (b"B0", "base derivation key (BDK)"),
    (b"B1", "initial DUKPT key (IK)"),
    (b"B2", "base key variant; deprecated"),
    (b"B3", "key derivation key, not of X9.24"),
    (b"C0", "card verification key"),
    (b"D0", "symmetric key for data"),
    (b"D1", "asymmetric key for data"),
    (b"D2", "data encryption key for a decimalization table"),
    (b"D3", "data encryption key for sensitive data"),
    (b"E0", "EMV issuer master key: application cryptograms"),
    (b"E1", "EMV issuer master key: confidentiality of secure messages"),
    (b"E2", "EMV issuer master key: integrity of secure messages"),
    (b"E3", "EMV issuer master key: data authentication code"),
    (b"E4", "EMV issuer master key: dynamic numbers"),
    (b"E5", "EMV issuer master key: card personalization"),
    (b"E6", "EMV issuer master key: other"),
    (b"E7", "EMV asymmetric key pair for PINs"),
    (b"I0", "initialization vector"),
    (b"K0", "key encryption key (KEK)"),
    (b"K1", "key block protection key (KBPK)"),
    (b"K2", "TR-34 asymmetric key pair"),
    (b"K3", "asymmetric key pair for key agreement or wrapping"),
    (b"K4", "ISO 20038 key block protection key"),
    (b"M0", "MAC key, ISO 16609 algorithm 1 with TDES"),
    (b"M1", "MAC key, ISO 9797-1 algorithm 1"),
    (b"M2", "MAC key, ISO 9797-1 algorithm 2"),
    (b"M3", "MAC key, ISO 9797-1 algorithm 3 (retail MAC)"),
    (b"M4", "MAC key, ISO 9797-1 algorithm 4"),
    (b"M5", "MAC key, ISO 9797-1:1999 algorithm 5"),
    (b"M6", "MAC key, ISO 9797-1:2011 algorithm 5 (CMAC)"),
    (b"M7", "HMAC key"),
    (b"M8", "MAC key, ISO 9797-1:2011 algorithm 6"),
    (b"P0", "PIN encryption key"),
    (b"P1", "PIN generation key"),
    (b"S0", "asymmetric key pair for signatures"),
    (b"S1", "asymmetric key pair of a certification authority"),
    (b"S2", "asymmetric key pair, not of X9.24"),
    (b"V0", "PIN verification key, other method"),
    (b"V1", "PIN verification key, IBM 3624"),
    (b"V2", "PIN verification key, Visa PVV"),
    (b"V3", "PIN verification key, X9.132 algorithm 1"),
    (b"V4", "PIN verification key, X9.132 algorithm 2"),
    (b"V5", "PIN verification key, X9.132 algorithm 3"),
];

fn algorithm_meaning(algorithm: u8) -> &'static str {
    match algorithm {
        b'A' => "AES",
        b'D' => "DES, single length",
        b'E' => "elliptic curve",
        b'H' => "HMAC",
        b'I' => "HMAC, SHA-2 family (ISO 20038)",
        b'J' => "HMAC, SHA-3 family (ISO 20038)",
        b'R' => "RSA",
        b'S' => "DSA",
        b'T' => "TDES",
        b'0'..=b'9' => "proprietary algorithm",
        _ => "unknown to the standard",
    }
}

fn mode_meaning(mode: u8) -> &'static str {
    match mode {
        b'B' => "encrypt and decrypt, wrap and unwrap",
        b'C' => "generate and verify MACs",
        b'D' => "decrypt or unwrap only",
        b'E' => "encrypt or wrap only",
        b'G' => "generate MACs only",
        b'N' => "no restriction beyond the usage",
        b'S' => "sign only",
        b'T' => "sign and decrypt",
        b'V' => "verify only",
        b'X' => "derive other keys only",
        b'Y' => "make key variants only",
        b'0'..=b'9' => "proprietary mode",
        _ => "unknown to the standard",
    }
}

fn key_version_meaning(version: [u8; 2]) -> &'static str {
    match &version {
        b"00" => "the key has no version",
        [b'c', _] => "a component of a key, not the key",
        _ => "the key's version",
    }
}

fn export_meaning(exportability: u8) -> &'static str {
    match exportability {
        b'E' => "may be exported in a trusted key block",
        b'N' => "may not be exported",
        b'S' => "sensitive: exportable also in other ways; the service treats it as N",
        _ => "unknown to the standard",
    }
}

fn context_meaning(context: u8) -> &'static str {
    match context {
        b'0' => "no restriction to storage or exchange",
        b'1' => "for storage only",
        b'2' => "for exchange only",
        _ => "unknown to the standard",
    }
}

fn block_meaning(id: [u8; 2]) -> &'static str {
    match &id {
        b"AL" => "asymmetric key life",
        b"BI" => "base derivation key identifier",
        b"CT" => "public key certificate or chain",
        b"DA" => "what keys may be derived from this one",
        b"FL" => "flags",
        b"HM" => "hash algorithm of an HMAC key",
        b"IK" => "initial key identifier of AES DUKPT",
        b"KC" => "check value of the key",
        b"KP" => "check value of the key block protection key",
        b"KS" => "initial key serial number of TDES DUKPT",
        b"KV" => "key block values version; deprecated",
        b"LB" => "label",
        b"PB" => "padding of the header, without meaning",
        b"PK" => "check value of the key under which a partner had it",
        b"TC" => "time of creation",
        b"TS" => "time stamp of the key block",
        b"WP" => "wrapping pedigree: the weakest key that ever protected this one",
        [b'0'..=b'9', _] => "proprietary, kept as it came",
        _ => "unknown to the standard, kept as it came",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_each_field_and_each_optional_block() {
        // TR-31:2018, A.7.3.2.
        let (header, _) = Header::parse("B0104B0TX12S0100KS1800604B120F9292800000").unwrap();
        let rows = explain(&header);
        assert_eq!(rows.len(), 10);
        assert_eq!(rows[1].meaning, "base derivation key (BDK)");
        assert_eq!(rows[9].value, "KS 00604B120F9292800000");
        assert!(rows.iter().all(|row| !row.meaning.is_empty() && !row.field.is_empty()));
    }

    #[test]
    fn what_is_not_in_the_standard_is_said_to_be_unknown() {
        let (header, _) = Header::parse("D0000Q0?E00N0000".replace('?', "Z").as_str()).unwrap();
        let rows = explain(&header);
        assert_eq!(rows[1].meaning, "unknown to the standard");
        assert_eq!(rows[2].meaning, "unknown to the standard");
        assert_eq!(usage_meaning(*b"10"), None);
        assert_eq!(usage_meaning(*b"P0"), Some("PIN encryption key"));
    }
}
