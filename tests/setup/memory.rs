//! Where secrets must not be: the memory of another process, or whatever else is read; searched.

#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXUPPER};

/// Pages of nothing but zeros are passed: most memory was never written to.
const PAGE: usize = 4096;

/// Octets that are looked for, each by a name.
#[derive(Default)]
pub(crate) struct Wanted {
    all: Vec<(String, Vec<u8>)>,
    /// By their first two octets, so that each place is looked at once.
    begins: Vec<bool>,
}

impl Wanted {
    /// Some octets as they are.
    pub(crate) fn add(&mut self, name: &str, octets: &[u8]) {
        self.begins.resize(1 << 16, false);
        self.begins[begin(octets)] = true;
        self.all.push((name.to_owned(), octets.to_vec()));
    }

    /// A secret in every form that it might be written in: any eight octets of it as they are, as
    /// digits together or in groups, and all of it in base 64, wherever that begins.
    pub(crate) fn add_every_form(&mut self, name: &str, secret: &[u8]) {
        for (place, row) in (1..).zip(secret.chunks(8)) {
            let [upper, lower] = [HEXUPPER.encode(row), HEXLOWER.encode(row)];
            let forms = [
                ("as it is", row.to_vec()),
                ("in groups", in_groups(&upper).into_bytes()),
                ("in groups, lower case", in_groups(&lower).into_bytes()),
                ("in digits", upper.into_bytes()),
                ("in digits, lower case", lower.into_bytes()),
            ];
            for (form, octets) in forms {
                self.add(&format!("{name}, row {place}, {form}"), &octets);
            }
        }
        for before in 0..3 {
            let text = BASE64_NOPAD.encode(&[&vec![0; before], secret].concat());
            // The characters at both ends hold bits of what stands beside.
            let begin = (before * 8).div_ceil(6);
            let inner = &text[begin..text.len() - 1];
            self.add(&format!("{name}, in base 64 after {before}"), inner.as_bytes());
        }
    }

    /// The name of the first that some octets hold.
    pub(crate) fn within(&self, octets: &[u8]) -> Option<&str> {
        octets.windows(2).enumerate().find_map(|(place, two)| {
            if !self.begins[begin(two)] {
                return None;
            }
            let found = self.all.iter().find(|(_, one)| octets[place..].starts_with(one));
            found.map(|(name, _)| name.as_str())
        })
    }
}

fn begin(octets: &[u8]) -> usize {
    usize::from(octets[0]) << 8 | usize::from(octets[1])
}

fn in_groups(digits: &str) -> String {
    let groups = digits.as_bytes().chunks(4).map(|group| str::from_utf8(group).unwrap());
    groups.collect::<Vec<_>>().join(" ")
}

/// The memory of the process of an id.
#[derive(Clone, Copy)]
pub(crate) struct Memory(pub(crate) u32);

impl Memory {
    /// Whether the memory that the process writes to holds some octets.
    pub(crate) fn holds(self, octets: &[u8]) -> bool {
        let mut wanted = Wanted::default();
        wanted.add("", octets);
        self.first_of(&wanted).is_some()
    }

    /// The name of the first of those that the memory which the process writes to holds.
    pub(crate) fn first_of(self, wanted: &Wanted) -> Option<&str> {
        let memory = File::open(self.file("mem")).unwrap();
        let maps = fs::read_to_string(self.file("maps")).unwrap();
        maps.lines().filter(|line| line.contains(" rw")).find_map(|line| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let from = u64::from_str_radix(from, 16).unwrap();
            let len = u64::from_str_radix(to, 16).unwrap() - from;
            let mut octets = vec![0; usize::try_from(len).unwrap()];
            // What can not be read, such as a secret page, is nobody's to find.
            memory.read_exact_at(&mut octets, from).ok()?;
            let pages: Vec<&[u8]> = octets.chunks(PAGE).collect();
            let mut written = pages.split(|page| **page == [0; PAGE][..page.len()]);
            written.find_map(|run| wanted.within(&run.concat()))
        })
    }

    /// The lines of its map that name secret memory.
    pub(crate) fn secret_pages(self) -> usize {
        let maps = fs::read_to_string(self.file("maps")).unwrap();
        maps.lines().filter(|line| line.contains("secretmem")).count()
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
}
