//! A vendor's manifest: terminals as lines of a CSV file, registered in batches.
//!
//! The first line names the columns, in any order:
//!
//! ```text
//! id,serial,model,merchant_id,terminal_id,merchant_name,standing,profile,device_authority
//! till-7,SN-0007,simulator,000000000000001,00000001,Corner Shop,approved,dev-aes,dev-vendor
//! ```
//!
//! Terminals that hold a master key have it, by its id, in `master_key` in place of the authority.
//! `standing` may be missing or empty: `approved`. The file is read as a whole before anything is
//! sent; what is wrong with the form of its lines is told all at once. What is wrong with a value
//! is the service's to say.

use std::collections::HashMap;

use csv::{ReaderBuilder, StringRecord, Trim};
use prost::Message as _;

use crate::crypto::digest;
use crate::grpc::client::{Client, ClientError};
use crate::grpc::proto;
use crate::grpc::proto::create_terminal_result::Result as Registered;

/// The columns that a manifest has, with a value in each line.
const COLUMNS: [&str; 7] =
    ["id", "serial", "model", "merchant_id", "terminal_id", "merchant_name", "profile"];

/// What a terminal proves itself by: a line has one of both, so a manifest needs one of both.
const CREDENTIALS: [&str; 2] = [DEVICE_AUTHORITY, MASTER_KEY];
const DEVICE_AUTHORITY: &str = "device_authority";
const MASTER_KEY: &str = "master_key";

/// The column that it may have besides.
const STANDING: &str = "standing";

/// The longest line, in bytes.
const LINE_LEN_BYTES_MAX: usize = 4_096;

/// Lines in one call: as long as they may be, they stay below the 512 KiB of a batch.
const LINES_PER_CALL: usize = 100;

/// Tells apart the request ids that are derived here from those that may be derived elsewhere.
const REQUEST_ID_LABEL: &[u8] = b"firstkey manifest line;";

/// A line with nothing wrong in its form.
#[derive(Clone)]
pub struct Line {
    /// Its number in the file, from 1; the header is a line.
    pub number: u64,
    /// What it asks for. The request id follows from the rest: the same line again is the same
    /// request.
    pub registration: proto::CreateTerminalRequest,
}

/// What is wrong with the form of a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {cause}")]
pub struct Malformed {
    /// Its number in the file, from 1.
    pub number: u64,
    /// What is wrong.
    pub cause: String,
}

/// Reads a manifest. All that is wrong with it is told at once.
pub fn parse(file: &[u8]) -> Result<Vec<Line>, Vec<Malformed>> {
    let mut reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_reader(file);
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return Err(vec![Malformed { number: 1, cause: error.to_string() }]),
    };
    let wrong = faults_of_header(&header);
    if !wrong.is_empty() {
        let fault = |cause| Malformed { number: 1, cause };
        return Err(wrong.into_iter().map(fault).collect());
    }
    let (mut lines, mut malformed) = (Vec::new(), Vec::new());
    let mut taken = HashMap::new();
    let mut record = StringRecord::new();
    loop {
        let number = number_at(file, reader.position());
        let read = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => line(number, &header, &record, &mut taken),
            Err(_) => Err(vec![Malformed { number, cause: "is not UTF-8 text".to_owned() }]),
        };
        match read {
            Ok(line) => lines.push(line),
            Err(wrong) => malformed.extend(wrong),
        }
    }
    if malformed.is_empty() { Ok(lines) } else { Err(malformed) }
}

/// The number of the line that is read next: the reader passes over empty lines without counting
/// them before it has read on.
fn number_at(file: &[u8], position: &csv::Position) -> u64 {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = file.get(start..).unwrap_or_default().iter();
    let ends = rest.take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let passed = ends.filter(|byte| **byte == b'\n').count();
    position.line().saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
}

fn faults_of_header(header: &StringRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    for column in COLUMNS {
        if !header.iter().any(|name| name == column) {
            wrong.push(format!("there is no column `{column}`"));
        }
    }
    if !header.iter().any(|name| CREDENTIALS.contains(&name)) {
        wrong.push("there is no column `device_authority` or `master_key`".to_owned());
    }
    for (index, name) in header.iter().enumerate() {
        let is_known = COLUMNS.contains(&name) || CREDENTIALS.contains(&name) || name == STANDING;
        if !is_known {
            wrong.push(format!("the column `{}` is unknown", name.escape_default()));
        } else if header.iter().take(index).any(|other| other == name) {
            wrong.push(format!("the column `{name}` is there twice"));
        }
    }
    wrong
}

/// Where the ids and serials of the lines before stand.
type Taken = HashMap<(&'static str, String), u64>;

fn line(
    number: u64,
    header: &StringRecord,
    record: &StringRecord,
    taken: &mut Taken,
) -> Result<Line, Vec<Malformed>> {
    let fault = |cause: String| Malformed { number, cause };
    if record.len() != header.len() {
        let (has, needs) = (record.len(), header.len());
        return Err(vec![fault(format!("has {has} fields, the header {needs}"))]);
    }
    if record.as_slice().len() > LINE_LEN_BYTES_MAX {
        return Err(vec![fault(format!("is longer than {LINE_LEN_BYTES_MAX} bytes"))]);
    }
    let cell = |column: &str| {
        let at = header.iter().position(|name| name == column);
        at.and_then(|at| record.get(at)).unwrap_or_default()
    };
    let mut wrong = Vec::new();
    for column in COLUMNS.iter().filter(|column| cell(column).is_empty()) {
        wrong.push(fault(format!("`{column}` is empty")));
    }
    if cell(DEVICE_AUTHORITY).is_empty() == cell(MASTER_KEY).is_empty() {
        wrong.push(fault("has not one of `device_authority` and `master_key`".to_owned()));
    }
    for column in ["id", "serial", MASTER_KEY].into_iter().filter(|name| !cell(name).is_empty()) {
        if let Some(before) = taken.insert((column, cell(column).to_owned()), number) {
            wrong.push(fault(format!("`{column}` stands in line {before} already")));
        }
    }
    let standing = match cell(STANDING) {
        "" | "approved" => proto::MerchantStanding::Approved,
        "pending" => proto::MerchantStanding::Pending,
        "rejected" => proto::MerchantStanding::Rejected,
        _ => {
            wrong.push(fault("`standing` is not approved, pending or rejected".to_owned()));
            proto::MerchantStanding::Unspecified
        }
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Line { number, registration: registration(cell, standing) })
}

fn registration<'a>(
    cell: impl Fn(&str) -> &'a str,
    standing: proto::MerchantStanding,
) -> proto::CreateTerminalRequest {
    let named = |collection: &str, id: &str| match id {
        "" => String::new(),
        id => format!("{collection}/{id}"),
    };
    let kind = match cell(MASTER_KEY) {
        "" => proto::TerminalKind::DeviceCertificate,
        _ => proto::TerminalKind::MasterKey,
    };
    let mut registration = proto::CreateTerminalRequest {
        request_id: String::new(),
        terminal_id: cell("id").to_owned(),
        serial: cell("serial").to_owned(),
        model: cell("model").to_owned(),
        merchant: Some(proto::Merchant {
            merchant_id: cell("merchant_id").to_owned(),
            terminal_id: cell("terminal_id").to_owned(),
            display_name: cell("merchant_name").to_owned(),
        }),
        merchant_standing: standing.into(),
        profile: named("profiles", cell("profile")),
        kind: kind.into(),
        device_authority: named("deviceAuthorities", cell(DEVICE_AUTHORITY)),
        master_key: named("keys", cell(MASTER_KEY)),
    };
    registration.request_id = derived_request_id(&registration);
    registration
}

/// A UUID of version 8 (RFC 9562, 5.8) from the SHA-256 of what is asked for.
fn derived_request_id(registration: &proto::CreateTerminalRequest) -> String {
    let hash = digest::sha256(&[REQUEST_ID_LABEL, &registration.encode_to_vec()]);
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash).for_each(|(byte, of_hash)| *byte = of_hash);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().as_hyphenated().to_string()
}

/// Registers the terminals of the lines and tells what became of each, in their order.
///
/// Sent again after an interruption, or within 24 hours, a line that was registered is told the
/// same.
pub async fn register(
    client: &Client,
    lines: &[Line],
    tell: &mut (dyn FnMut(&Line, Registered) + Send),
) -> Result<(), ClientError> {
    for lines in lines.chunks(LINES_PER_CALL) {
        let entries = lines.iter().map(|line| line.registration.clone()).collect();
        let request = proto::BatchCreateTerminalsRequest { entries };
        let answer = client.terminals().batch_create_terminals(request).await?.into_inner();
        if answer.results.len() != lines.len() {
            return Err(ClientError::Incomplete("results"));
        }
        for (line, result) in lines.iter().zip(answer.results) {
            tell(line, result.result.ok_or(ClientError::Incomplete("results.result"))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "id,serial,model,merchant_id,terminal_id,merchant_name,standing,profile,device_authority";
    const TILL: &str = "till,SN-1,simulator,000000000000001,00000001,Café,,dev-aes,dev-vendor";

    fn causes(file: &str) -> Vec<String> {
        let malformed = parse(file.as_bytes()).err().unwrap_or_default();
        malformed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_says_what_is_registered_and_its_columns_stand_in_any_order() {
        let lines = parse(format!("{HEADER}\n{TILL}\n").as_bytes()).unwrap();
        let registration = &lines[0].registration;
        assert_eq!(lines[0].number, 2);
        assert_eq!(registration.terminal_id, "till");
        assert_eq!(registration.profile, "profiles/dev-aes");
        assert_eq!(registration.device_authority, "deviceAuthorities/dev-vendor");
        let approved: i32 = proto::MerchantStanding::Approved.into();
        assert_eq!(registration.merchant_standing, approved);
        assert_eq!(registration.merchant.as_ref().unwrap().display_name, "Café");
        let id = uuid::Uuid::parse_str(&registration.request_id).unwrap();
        assert_eq!(id.get_version_num(), 8);

        // Another order, blanks around, quotes, a byte order mark, no `standing`: the same request.
        let other = "\u{feff}device_authority , profile,merchant_name,terminal_id,merchant_id,\
                     model,serial,id\r\ndev-vendor,dev-aes,\"Café\", 00000001,000000000000001,\
                     simulator,SN-1,till\r\n";
        let other = parse(other.as_bytes()).unwrap();
        assert!(&other[0].registration == registration);
        let changed = TILL.replace("Café", "Bar");
        let changed = parse(format!("{HEADER}\n{changed}").as_bytes()).unwrap();
        assert_ne!(changed[0].registration.request_id, registration.request_id);
    }

    #[test]
    fn all_that_is_malformed_is_told_at_once_with_its_line() {
        let rejected = TILL.replace("Café,,", "Bar,no,").replace("SN-1", "");
        let file = format!("{HEADER}\n{TILL}\n\nshort,line\n{rejected}\n");
        for file in [file.replace('\n', "\r\n"), file] {
            assert_eq!(
                causes(&file),
                [
                    "line 4: has 2 fields, the header 9",
                    "line 5: `serial` is empty",
                    "line 5: `id` stands in line 2 already",
                    "line 5: `standing` is not approved, pending or rejected",
                ]
            );
        }
        let long = TILL.replace("Café", &"n".repeat(LINE_LEN_BYTES_MAX));
        assert_eq!(causes(&format!("{HEADER}\n{long}")), ["line 2: is longer than 4096 bytes"]);
        let mut bytes = format!("{HEADER}\n{TILL}\n").into_bytes();
        bytes.extend(b"\xff\n");
        assert_eq!(parse(&bytes).err().unwrap()[0].to_string(), "line 3: is not UTF-8 text");
    }

    #[test]
    fn a_terminal_proves_itself_by_a_certificate_or_a_master_key() {
        let header = format!("{HEADER},master_key");
        let second = TILL.replace("till", "b").replace("-1", "-2").replace("dev-vendor", "");
        let with_key = format!("{header}\n{TILL},\n{second},master-7");
        let lines = parse(with_key.as_bytes()).unwrap();
        let kinds: Vec<i32> = lines.iter().map(|line| line.registration.kind).collect();
        let master_key: i32 = proto::TerminalKind::MasterKey.into();
        assert_eq!(kinds, [proto::TerminalKind::DeviceCertificate.into(), master_key]);
        assert_eq!(lines[1].registration.master_key, "keys/master-7");
        assert_eq!(lines[1].registration.device_authority, "");

        let neither = TILL.replace("dev-vendor", "");
        let both = TILL.replace("till", "b").replace("-1", "-2");
        let cause = "has not one of `device_authority` and `master_key`";
        assert_eq!(
            causes(&format!("{header}\n{neither},\n{both},master-7")),
            [format!("line 2: {cause}"), format!("line 3: {cause}")]
        );
        let other = TILL.replace("till", "c").replace("-1", "-3").replace("dev-vendor", "");
        assert_eq!(
            causes(&format!("{with_key}\n{other},master-7")),
            ["line 4: `master_key` stands in line 3 already"]
        );
    }

    #[test]
    fn the_header_names_each_column_once_and_no_other() {
        let file = format!("{},color,id\n", HEADER.replace("serial", "Serial"));
        assert_eq!(
            causes(&file),
            [
                "line 1: there is no column `serial`",
                "line 1: the column `Serial` is unknown",
                "line 1: the column `color` is unknown",
                "line 1: the column `id` is there twice",
            ]
        );
        assert_eq!(causes("").len(), COLUMNS.len() + 1);
        assert!(parse(HEADER.as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn the_longest_lines_of_a_call_fit_into_a_batch() {
        let overhead = 256;
        let longest = LINES_PER_CALL * (LINE_LEN_BYTES_MAX + overhead);
        assert!(longest <= crate::grpc::BATCH_LEN_BYTES_MAX);
    }
}
