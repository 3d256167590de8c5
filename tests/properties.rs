//! Properties that hold for every input: round trips, and parsers that never panic.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use firstkey::component::{Assurance, Component, Entry, Share, TextInvalid};
use firstkey::crypto::rng::SystemRng;
use firstkey::dukpt::{AesInitialKeyId, AesKsn, TdesInitialKeyId, TdesKsn};
use firstkey::key::usage::{InitialDukpt, KeyBlockProtection, PinEncryption};
use firstkey::key::{Algorithm, Key};
use firstkey::keyblock::{self, Header, OptionalBlock, Version};
use firstkey::pin::{
    self, EncryptedPinBlock, Fill, Pan, PanForm, Pin, PinBlockFormat, Translation,
};
use firstkey::vectors;
use proptest::prelude::*;

fn key<U: firstkey::key::usage::Usage>(algorithm: Algorithm) -> Key<U> {
    Key::generate(algorithm, &SystemRng::new()).unwrap()
}

fn fill() -> Fill {
    Fill::draw(&SystemRng::new()).unwrap()
}

prop_compose! {
    fn optional_blocks()(
        blocks in prop::collection::btree_map("[A-Z0-9]{2}", "[ -~]{0,40}", 0..6),
        long in prop::option::of("[ -~]{240,400}"),
    ) -> Vec<OptionalBlock> {
        let id = |text: &str| <[u8; 2]>::try_from(text.as_bytes()).unwrap();
        blocks
            .into_iter()
            .filter(|(name, _)| name != "PB" && name != "CT")
            .map(|(name, data)| OptionalBlock::new(id(&name), data).unwrap())
            .chain(long.map(|data| OptionalBlock::new(*b"CT", data).unwrap()))
            .collect()
    }
}

/// Text that begins as a header does, so that a parser gets far.
fn header_like() -> impl Strategy<Value = String> {
    concat!(
        "[A-E][0-9]{4}[A-Z0-9]{2}[A-Z][A-Z][0-9c]{2}[ENS]0[0-3]00",
        "([A-Z0-9]{2}0[0-9A-F][ -~]{0,12}){0,3}.{0,40}",
    )
}

/// Text that is nearly a file of vectors.
fn vectors_like() -> impl Strategy<Value = String> {
    concat!(
        "\\{\"vectors\": \\[",
        "(\\{(\"(op|id|key|ksn|bdk|pan|expect)\": (\"[a-z_0-9]{0,16}\"|[0-9]|null|\\{\\}),?){0,5}",
        "\\},?){0,3}\\]\\}",
    )
}

proptest! {
    #[test]
    fn what_is_wrapped_is_unwrapped(
        blocks in optional_blocks(),
        exportability in prop::sample::select(b"ENS".to_vec()),
        aes in any::<bool>(),
    ) {
        let (version, wrapping, algorithm) = if aes {
            (Version::D, Algorithm::Aes256, Algorithm::Aes128)
        } else {
            (Version::B, Algorithm::Tdes3, Algorithm::Tdes2)
        };
        let kbpk: Key<KeyBlockProtection> = key(wrapping);
        let carried: Key<InitialDukpt> = key(algorithm);
        let mut header = Header::new(version, *b"B1", algorithm.header_letter(), b'X');
        header.exportability = exportability;
        for block in blocks {
            header.push(block).unwrap();
        }
        let block = keyblock::wrap_key(&kbpk, &header, &carried, &SystemRng::new()).unwrap();
        let mut opened = keyblock::unwrap(&kbpk, block.as_str()).unwrap();
        prop_assert_eq!(opened.algorithm, algorithm);
        prop_assert_eq!(opened.material.len_bytes(), algorithm.len_bytes());

        // What was read is written again as it stood.
        let len = u16::try_from(block.as_str().len()).unwrap();
        let written = opened.header.encode(len).unwrap();
        prop_assert!(block.as_str().starts_with(&written));

        opened.header.remove(*b"PB");
        prop_assert_eq!(opened.header, header);
    }

    #[test]
    fn a_header_that_is_read_is_written_as_it_stood(text in header_like()) {
        if let Ok((header, len)) = Header::parse(&text) {
            let declared: u16 = text[1..5].parse().unwrap();
            let written = header.encode(declared).unwrap();
            prop_assert_eq!(written, &text[..len]);
            prop_assert!(!keyblock::explain(&header).is_empty());
        }
    }

    #[test]
    fn a_header_of_any_text_never_panics(text in any::<String>()) {
        // Whatever comes of it: that it returns is the property.
        let _ = Header::parse(&text);
    }

    #[test]
    fn a_key_block_of_any_text_is_rejected(text in prop_oneof![any::<String>(), header_like()]) {
        let aes: Key<KeyBlockProtection> = key(Algorithm::Aes128);
        let tdes: Key<KeyBlockProtection> = key(Algorithm::Tdes2);
        prop_assert!(keyblock::unwrap(&aes, &text).is_err());
        prop_assert!(keyblock::unwrap(&tdes, &text).is_err());
    }

    #[test]
    fn a_ksn_of_any_octets_has_a_usable_counter(
        bytes in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        if let Ok(ksn) = TdesKsn::parse(&bytes) {
            prop_assert!(ksn.counter() != 0 && ksn.counter().count_ones() <= 10);
            prop_assert_eq!(ksn.initial_key_id().ksn(ksn.counter()), Ok(ksn));
            prop_assert_eq!(TdesKsn::from_rank(ksn.rank()), Some(ksn.counter()));
        }
        if let Ok(ksn) = AesKsn::parse(&bytes) {
            prop_assert!(ksn.counter() != 0 && ksn.counter().count_ones() <= 16);
            prop_assert_eq!(ksn.initial_key_id().ksn(ksn.counter()), Ok(ksn));
            prop_assert_eq!(AesKsn::from_rank(ksn.rank()), Some(ksn.counter()));
        }
        // Whatever comes of these: that they return is the property.
        let _ = TdesKsn::left_filled(&bytes);
        let _ = TdesInitialKeyId::parse(&bytes);
        let _ = AesInitialKeyId::parse(&bytes);
        let _ = EncryptedPinBlock::parse(&bytes);
    }

    #[test]
    fn ranks_keep_the_order_of_counters(first in any::<u32>(), second in any::<u32>()) {
        let (low, high) = (first.min(second), first.max(second));
        prop_assert!(AesKsn::rank_of(low) <= AesKsn::rank_of(high));
        prop_assert!(TdesKsn::rank_of(low & 0x1F_FFFF) <= TdesKsn::rank_of(low | 0x1F_FFFF));
    }

    #[test]
    fn a_pan_of_any_text_never_panics_and_never_shows_itself(
        text in prop_oneof![any::<String>(), "[0-9]{10,21}"],
    ) {
        match Pan::parse(&text) {
            Ok(pan) => {
                prop_assert!((12..=19).contains(&text.len()));
                let shown = format!("{pan:?}");
                prop_assert!(!shown.contains(&text));
            }
            Err(_) => prop_assert!(
                !(12..=19).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit())
            ),
        }
        // Whatever comes of it: that it returns is the property.
        let _ = Pin::parse(&text);
    }

    #[test]
    fn a_pin_comes_back_from_every_way_round(pin in "[0-9]{4,12}", pan in "[0-9]{13,19}") {
        let formats = [PinBlockFormat::Iso0, PinBlockFormat::Iso3, PinBlockFormat::Iso4];
        let algorithms = [Algorithm::Tdes2, Algorithm::Tdes3, Algorithm::Aes128];
        let keys = algorithms.map(key::<PinEncryption>);
        let (pin, pan) = (Pin::parse(&pin).unwrap(), Pan::parse(&pan).unwrap());
        // Format 0 has no random part, so a PIN that comes back is seen by its block.
        let start =
            pin::encipher(&keys[0], PinBlockFormat::Iso0, &pin, &pan, &fill()).unwrap();
        let step = |block: &EncryptedPinBlock, from: usize, to: usize| {
            let translation = Translation {
                inbound: &keys[from],
                from: formats[from],
                inbound_pan: PanForm::Full,
                outbound: &keys[to],
                to: formats[to],
                outbound_pan: PanForm::Full,
                pan: &pan,
                format_1_inbound: false,
            };
            translation.apply(block, &fill()).unwrap()
        };
        for (middle, last) in [(0, 1), (1, 2), (2, 1), (2, 2), (1, 1)] {
            let block = step(&step(&start, 0, middle), middle, last);
            prop_assert!(pin::verify_form(&keys[last], formats[last], &pan, &block).is_ok());
            prop_assert_eq!(step(&block, last, 0), start);
        }
    }

    #[test]
    fn a_pin_block_of_any_octets_never_panics(octets in prop::array::uniform16(any::<u8>())) {
        let tdes: Key<PinEncryption> = key(Algorithm::Tdes2);
        let aes: Key<PinEncryption> = key(Algorithm::Aes128);
        let pan = Pan::parse("4111111111111111").unwrap();
        for (key, format) in [
            (&tdes, PinBlockFormat::Iso0),
            (&tdes, PinBlockFormat::Iso3),
            (&aes, PinBlockFormat::Iso4),
        ] {
            for length in [8, 16] {
                let block = EncryptedPinBlock::parse(&octets[..length]).unwrap();
                // Whatever comes of it: that it returns is the property.
                let _ = pin::verify_form(key, format, &pan, &block);
            }
        }
    }

    #[test]
    fn the_vector_runner_answers_any_text(text in prop_oneof![any::<String>(), vectors_like()]) {
        let report = vectors::run("any.json", &text);
        prop_assert!(report.to_string().ends_with(" skipped"));
    }

    #[test]
    fn a_component_is_read_as_it_was_written(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        blanks in prop::collection::vec("[ \t\n]{0,2}", 160),
    ) {
        let component = Component::generate(algorithm, &SystemRng::new()).unwrap();
        let rows = component.write();
        let text: String = rows.lines().map(|line| line.text).collect();
        let blanks = blanks.iter().cycle();
        let mut spread = String::new();
        for (letter, blank) in text.chars().zip(blanks) {
            spread.push(letter);
            spread.push_str(blank);
        }
        for text in [text.to_lowercase(), spread] {
            let read = Component::parse(algorithm, Assurance::CheckGroups, &text).unwrap();
            let again: String = read.write().lines().map(|line| line.text.to_owned()).collect();
            prop_assert!(again == rows.lines().map(|line| line.text).collect::<String>());
        }
        let mut entry = Entry::of_component(algorithm, Assurance::CheckGroups);
        for digit in text.chars().filter(|letter| *letter != ' ') {
            entry.press(digit).unwrap();
        }
        prop_assert!(entry.is_complete());
        prop_assert_eq!(Component::typed(entry).unwrap().check_value(), component.check_value());
    }

    #[test]
    fn every_wrong_digit_and_every_swap_in_a_row_is_found(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        row in any::<prop::sample::Index>(),
    ) {
        let component = Component::generate(algorithm, &SystemRng::new()).unwrap();
        let rows = component.write();
        let lines: Vec<&str> = rows.lines().map(|line| line.text).collect();
        let row = row.index(lines.len());
        let refused = |changed: String| {
            let mut lines = lines.clone();
            lines[row] = &changed;
            let read = Component::parse(algorithm, Assurance::CheckGroups, &lines.join("\n"));
            let number = u8::try_from(row + 1).unwrap();
            read.unwrap_err() == TextInvalid::Row { number }
        };
        for (at, right) in lines[row].char_indices().filter(|(_, letter)| *letter != ' ') {
            for wrong in "0123456789ABCDEF".chars().filter(|wrong| *wrong != right) {
                let mut changed = lines[row].to_owned();
                changed.replace_range(at..=at, &wrong.to_string());
                prop_assert!(refused(changed));
            }
        }
        let swaps_groups = (0..5).flat_map(|one| (0..one).map(move |other| (one, other)));
        for (one, other) in swaps_groups {
            let mut groups: Vec<&str> = lines[row].split(' ').collect();
            groups.swap(one, other);
            prop_assert!(groups[one] == groups[other] || refused(groups.join(" ")));
        }
        let digits: Vec<char> = lines[row].chars().filter(|letter| *letter != ' ').collect();
        for at in 1..digits.len() {
            let mut swapped = digits.clone();
            swapped.swap(at - 1, at);
            prop_assert!(swapped == digits || refused(swapped.into_iter().collect()));
        }
    }

    #[test]
    fn a_reader_of_slips_never_panics(
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        text in ".{0,120}|[0-9A-Fa-f \n]{0,220}|(01020102[0-9A-F]{72,200})",
        keys in prop::collection::vec(any::<char>(), 0..60),
    ) {
        let _ = Share::parse(&text);
        let _ = Component::parse(algorithm, Assurance::CheckGroups, &text);
        let _ = Component::parse(algorithm, Assurance::CheckValue(vec![0; 3]), &text);
        let mut entry = Entry::of_share();
        for key in text.chars().chain(keys) {
            match key {
                '0' => drop(entry.take_back()),
                key => drop(entry.press(key)),
            }
            prop_assert!(entry.place().row <= entry.rows());
        }
    }
}
