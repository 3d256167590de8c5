//! Reads and writes the header of a key block: what a key is for, in clear and bound to it.

use super::Version;

/// The header of a key block (ANSI X9.143, 6.3; TR-31:2018, A.2).
///
/// ```text
/// 0       version                       7       algorithm
/// 1..5    length of the whole block     8       mode of use
/// 5..7    key usage                     9..11   key version number
/// 11      exportability                 14      key context
/// 12..14  number of optional blocks     15      reserved
/// 16..    optional blocks
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the block is protected.
    pub version: Version,
    /// What the key is for, such as `B0` for a base derivation key (6.3.1).
    pub usage: [u8; 2],
    /// The key's algorithm: `A` for AES, `T` for TDES, `H` for HMAC (6.3.2).
    pub algorithm: u8,
    /// What may be done with the key, such as `X` for deriving others (6.3.3).
    pub mode: u8,
    /// The key's version, `00` for none (6.3.4).
    pub key_version: [u8; 2],
    /// Whether the key may go to another: `E`, `N` or `S` (6.3.5).
    pub exportability: u8,
    /// Where the block may be used: `0` anywhere, `1` storage, `2` exchange (6.3.7).
    pub context: u8,
    /// `0`, for later use.
    pub reserved: u8,
    optional: Vec<OptionalBlock>,
}

/// What is wrong with the text of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderInvalid {
    /// A character that a header can not hold.
    #[error("a character is not allowed in a key block header")]
    Character,
    /// An optional block's id stands twice.
    #[error("an optional block occurs twice")]
    Duplicate,
    /// The text is shorter than a header.
    #[error("the text is shorter than a key block header")]
    Length,
    /// The length field is not four digits.
    #[error("the length field is not four decimal digits")]
    LengthField,
    /// An optional block has a malformed id, length or content.
    #[error("an optional block is malformed")]
    OptionalBlock,
    /// The number of optional blocks is not two digits, or there are too many.
    #[error("the number of optional blocks is malformed")]
    OptionalBlockCount,
    /// No such version of key blocks.
    #[error("the key block version is unknown")]
    Version,
}

impl Header {
    /// Characters before the first optional block.
    pub const FIXED_LEN: usize = 16;
    /// The most optional blocks that the count can tell.
    const OPTIONAL_MAX: usize = 99;

    /// A header without optional blocks, for a key of version `00` that is not exportable.
    #[must_use]
    pub fn new(version: Version, usage: [u8; 2], algorithm: u8, mode: u8) -> Self {
        Self {
            version,
            usage,
            algorithm,
            mode,
            key_version: *b"00",
            exportability: b'N',
            context: b'0',
            reserved: b'0',
            optional: Vec::new(),
        }
    }

    /// Reads the header at the beginning of a text; tells it and how many characters it has.
    /// What follows the header is not looked at.
    pub fn parse(text: &str) -> Result<(Self, usize), HeaderInvalid> {
        let bytes = text.as_bytes();
        let fixed: &[u8; Self::FIXED_LEN] = bytes.first_chunk().ok_or(HeaderInvalid::Length)?;
        let version = Version::from_letter(fixed[0]).ok_or(HeaderInvalid::Version)?;
        if !fixed[1..5].iter().all(u8::is_ascii_digit) {
            return Err(HeaderInvalid::LengthField);
        }
        let count = decimal(&fixed[12..14]).ok_or(HeaderInvalid::OptionalBlockCount)?;
        if !fixed.iter().all(u8::is_ascii_alphanumeric) {
            return Err(HeaderInvalid::Character);
        }
        let mut header = Self {
            version,
            usage: [fixed[5], fixed[6]],
            algorithm: fixed[7],
            mode: fixed[8],
            key_version: [fixed[9], fixed[10]],
            exportability: fixed[11],
            context: fixed[14],
            reserved: fixed[15],
            optional: Vec::new(),
        };
        let mut len = Self::FIXED_LEN;
        for _ in 0..count {
            let (block, block_len) = OptionalBlock::parse(&bytes[len..])?;
            header.push(block)?;
            len += block_len;
        }
        Ok((header, len))
    }

    /// The length that the header's text declares for the whole block.
    #[must_use]
    pub(super) fn declared_len(text: &str) -> Option<usize> {
        decimal(text.as_bytes().get(1..5)?)
    }

    /// Writes the header as the beginning of a block of `block_len` characters.
    pub fn encode(&self, block_len: u16) -> Result<String, HeaderInvalid> {
        if block_len > super::BLOCK_LEN_MAX {
            return Err(HeaderInvalid::LengthField);
        }
        let [u0, u1] = self.usage;
        let [v0, v1] = self.key_version;
        let fields = [
            u0,
            u1,
            self.algorithm,
            self.mode,
            v0,
            v1,
            self.exportability,
            self.context,
            self.reserved,
        ];
        if !fields.iter().all(u8::is_ascii_alphanumeric) {
            return Err(HeaderInvalid::Character);
        }
        let [u0, u1, algorithm, mode, v0, v1, exportability, context, reserved] =
            fields.map(char::from);
        let version = char::from(self.version.letter());
        let count = self.optional.len();
        let mut text = format!(
            "{version}{block_len:04}{u0}{u1}{algorithm}{mode}{v0}{v1}{exportability}\
             {count:02}{context}{reserved}"
        );
        for block in &self.optional {
            block.write_to(&mut text);
        }
        Ok(text)
    }

    /// The optional blocks in their order.
    #[must_use]
    pub fn optional(&self) -> &[OptionalBlock] {
        &self.optional
    }

    /// The content of the optional block with that id.
    #[must_use]
    pub fn find(&self, id: [u8; 2]) -> Option<&str> {
        self.optional.iter().find(|block| block.id == id).map(OptionalBlock::data)
    }

    /// Adds an optional block at the end.
    pub fn push(&mut self, block: OptionalBlock) -> Result<(), HeaderInvalid> {
        if self.find(block.id).is_some() {
            return Err(HeaderInvalid::Duplicate);
        }
        if self.optional.len() == Self::OPTIONAL_MAX {
            return Err(HeaderInvalid::OptionalBlockCount);
        }
        self.optional.push(block);
        Ok(())
    }

    /// Takes an optional block out and tells it.
    pub fn remove(&mut self, id: [u8; 2]) -> Option<OptionalBlock> {
        let at = self.optional.iter().position(|block| block.id == id)?;
        Some(self.optional.remove(at))
    }

    /// Characters of the header as it stands.
    #[must_use]
    pub fn len_chars(&self) -> usize {
        Self::FIXED_LEN + self.optional.iter().map(OptionalBlock::len_chars).sum::<usize>()
    }

    /// Makes the header a multiple of the cipher's block by a padding block `PB` at its end, and
    /// by none where it is one already (6.3.6). A padding block that stood there is replaced.
    pub(super) fn align(&mut self) -> Result<(), HeaderInvalid> {
        self.remove(PADDING_BLOCK);
        let unit = self.version.block_len();
        let mut missing = (unit - self.len_chars() % unit) % unit;
        if missing == 0 {
            return Ok(());
        }
        // A padding block can not be shorter than its own id and length.
        if missing < OptionalBlock::SHORT_HEAD_LEN {
            missing += unit;
        }
        let fill = "0".repeat(missing - OptionalBlock::SHORT_HEAD_LEN);
        self.push(OptionalBlock::new(PADDING_BLOCK, fill)?)
    }
}

/// The id of the padding block.
const PADDING_BLOCK: [u8; 2] = *b"PB";

/// One optional block of a header, kept exactly as it came, whatever its id.
///
/// ```text
/// short      id, length as 2 hex digits, content
/// extended   id, 00, number of length digits as 2 hex digits, length, content
/// ```
///
/// The length counts everything from the id on (ANSI X9.143, 6.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalBlock {
    id: [u8; 2],
    data: String,
    length: LengthForm,
}

/// How the length is written. A short block may come in the extended form and is kept so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LengthForm {
    Extended { digits: usize },
    Short,
}

impl OptionalBlock {
    const SHORT_HEAD_LEN: usize = 4;
    const SHORT_LEN_MAX: usize = 0xFF;
    /// Digits that hold the length of any header that fits into a block.
    const EXTENDED_DIGITS: usize = 4;
    const EXTENDED_DIGITS_MAX: usize = 8;

    /// Makes a block of letters and digits as id and printable ASCII as content.
    pub fn new(id: [u8; 2], data: impl Into<String>) -> Result<Self, HeaderInvalid> {
        let data = data.into();
        if !id.iter().all(u8::is_ascii_alphanumeric) || !data.bytes().all(is_printable) {
            return Err(HeaderInvalid::OptionalBlock);
        }
        let length = if Self::SHORT_HEAD_LEN + data.len() <= Self::SHORT_LEN_MAX {
            LengthForm::Short
        } else {
            LengthForm::Extended { digits: Self::EXTENDED_DIGITS }
        };
        let block = Self { id, data, length };
        if block.len_chars() > usize::from(super::BLOCK_LEN_MAX) {
            return Err(HeaderInvalid::OptionalBlock);
        }
        Ok(block)
    }

    /// The two characters that tell what the block holds.
    #[must_use]
    pub fn id(&self) -> [u8; 2] {
        self.id
    }

    /// What the block holds.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    fn parse(bytes: &[u8]) -> Result<(Self, usize), HeaderInvalid> {
        Self::read(bytes).ok_or(HeaderInvalid::OptionalBlock)
    }

    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (id, rest) = bytes.split_first_chunk::<2>()?;
        let short = hexadecimal(rest.get(..2)?)?;
        let (length, len) = if short == 0 {
            let digits = hexadecimal(rest.get(2..4)?)?;
            if digits == 0 || digits > Self::EXTENDED_DIGITS_MAX {
                return None;
            }
            (LengthForm::Extended { digits }, hexadecimal(rest.get(4..4 + digits)?)?)
        } else {
            (LengthForm::Short, short)
        };
        let data = bytes.get(length.head_len()..len)?;
        if !id.iter().all(u8::is_ascii_alphanumeric) || !data.iter().copied().all(is_printable) {
            return None;
        }
        let data = data.iter().copied().map(char::from).collect();
        Some((Self { id: *id, data, length }, len))
    }

    /// Characters of the block, its id and length among them.
    #[must_use]
    pub fn len_chars(&self) -> usize {
        self.length.head_len() + self.data.len()
    }

    fn write_to(&self, text: &mut String) {
        let [id_0, id_1] = self.id.map(char::from);
        let len = self.len_chars();
        let head = match self.length {
            LengthForm::Extended { digits } => {
                format!("{id_0}{id_1}00{digits:02X}{len:0digits$X}")
            }
            LengthForm::Short => format!("{id_0}{id_1}{len:02X}"),
        };
        text.push_str(&head);
        text.push_str(&self.data);
    }
}

impl LengthForm {
    fn head_len(self) -> usize {
        match self {
            Self::Extended { digits } => 6 + digits,
            Self::Short => OptionalBlock::SHORT_HEAD_LEN,
        }
    }
}

fn is_printable(byte: u8) -> bool {
    (0x20..=0x7E).contains(&byte)
}

fn decimal(digits: &[u8]) -> Option<usize> {
    number(digits, 10)
}

/// Upper-case digits alone: a length has one way to be written.
fn hexadecimal(digits: &[u8]) -> Option<usize> {
    if digits.iter().any(u8::is_ascii_lowercase) { None } else { number(digits, 16) }
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    digits.iter().try_fold(0_usize, |value, &digit| {
        let digit = usize::try_from(char::from(digit).to_digit(radix)?).ok()?;
        value.checked_mul(usize::try_from(radix).ok()?)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_header_and_what_it_holds() {
        // TR-31:2018, A.7.3.2.
        let text = "B0104B0TX12S0100KS1800604B120F9292800000BB68BE8680A400D9";
        let (header, len) = Header::parse(text).unwrap();
        assert_eq!(len, 40);
        assert_eq!(header.usage, *b"B0");
        assert_eq!(header.key_version, *b"12");
        assert_eq!(header.exportability, b'S');
        assert_eq!(header.find(*b"KS"), Some("00604B120F9292800000"));
        assert_eq!(header.encode(104).unwrap(), text[..40]);
        assert_eq!(header.len_chars(), 40);
    }

    #[test]
    fn keeps_unknown_blocks_and_extended_lengths_as_they_came() {
        for text in [
            "D0000P0TE00N0400KS1800604B120F9292800000T104T20600PB0600",
            "B0000P0TE00N0200KS00021600604B120F9292PB0A000000",
            "D0000P0AE00E0100990A ~!\"z\\",
        ] {
            let (header, len) = Header::parse(text).unwrap();
            assert_eq!(len, text.len());
            assert_eq!(header.encode(0).unwrap(), text);
        }
    }

    #[test]
    fn a_long_block_gets_an_extended_length() {
        let mut header = Header::new(Version::D, *b"S0", b'E', b'S');
        header.push(OptionalBlock::new(*b"CT", "A".repeat(251)).unwrap()).unwrap();
        header.push(OptionalBlock::new(*b"CX", "A".repeat(252)).unwrap()).unwrap();
        let text = header.encode(0).unwrap();
        assert_eq!(&text[16..20], "CTFF");
        assert_eq!(&text[16 + 255..16 + 255 + 10], "CX00040106");
        assert_eq!(Header::parse(&text), Ok((header, text.len())));
    }

    #[test]
    fn tells_what_is_wrong() {
        use HeaderInvalid::{
            Character, Duplicate, Length, LengthField, OptionalBlock, OptionalBlockCount, Version,
        };
        for (text, expected) in [
            ("", Length),
            ("D0000P0AE00N000", Length),
            ("F0000P0AE00N0000", Version),
            ("d0000P0AE00N0000", Version),
            ("D00X0P0AE00N0000", LengthField),
            ("D0000P0AE00N0X00", OptionalBlockCount),
            ("D0000P0AE00N-100", OptionalBlockCount),
            ("D0000P?AE00N0000", Character),
            ("D0000P0AE00N0100", OptionalBlock),
            ("D0000P0AE00N0100KS03", OptionalBlock),
            ("D0000P0AE00N0100KS0a123456", OptionalBlock),
            ("D0000P0AE00N0100KS05\u{7f}", OptionalBlock),
            ("D0000P0AE00N0100KS05\u{e9}", OptionalBlock),
            ("D0000P0AE00N0100KS0000", OptionalBlock),
            ("D0000P0AE00N0100KS0009000000001", OptionalBlock),
            ("D0000P0AE00N0100KS0008FFFFFFFF", OptionalBlock),
            ("D0000P0AE00N0200KS04KS04", Duplicate),
        ] {
            assert_eq!(Header::parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn padding_makes_every_header_a_multiple_of_the_block() {
        for version in [Version::B, Version::D] {
            for extra in 0..40 {
                let mut header = Header::new(version, *b"P0", b'A', b'E');
                header.push(super::OptionalBlock::new(*b"99", "x".repeat(extra)).unwrap()).unwrap();
                header.align().unwrap();
                assert_eq!(header.len_chars() % version.block_len(), 0);
                let once = header.clone();
                header.align().unwrap();
                assert_eq!(header, once);
            }
        }
        let mut header = Header::new(Version::D, *b"P0", b'A', b'E');
        header.align().unwrap();
        assert_eq!(header.optional(), []);
    }
}
