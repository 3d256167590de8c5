//! What is rejected changes nothing: every rpc, with octets of all sorts, in any order.

use std::future::poll_fn;

use firstkey::grpc::{DESCRIPTORS, DOMAIN};
use prost::Message as _;
use rusqlite::Connection;
use tonic::client::GrpcService as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::Service;

/// How often each rpc is called.
const ROUNDS: usize = 120;

/// The kinds of records that a rejection itself writes: the log of it, and what it costs; and the one
/// by which health finds out whether it can write.
const OF_REJECTIONS: &str = "'event', 'chain', 'checkpoint', 'budget', 'pulse'";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_to_any_rpc_what_is_rejected_changes_nothing() {
    let service = Service::start_durable().await;
    let channel = Endpoint::from_shared(service.url.clone()).unwrap().connect().await.unwrap();
    let mut draw = Draw(0x1234_5678_9ABC_DEF1);
    let paths = paths();
    let before = rows(&service);
    let (mut rejected, mut read) = (0, 0);
    for _ in 0..ROUNDS * paths.len() {
        let path = &paths[draw.below(paths.len())];
        let body = draw.body();
        let status = send(&channel, path, &body).await;
        match status.code() {
            // Calls that only read take an empty message, or one of fields that they do not have.
            Code::Ok => {
                assert!(reads(path), "{path} did something with {body:02X?}");
                read += 1;
            }
            Code::Internal | Code::Unknown => panic!("{path}: {status:?} for {body:02X?}"),
            _ => {
                let info = status.get_details_error_info();
                let info = info.unwrap_or_else(|| panic!("{path}: {status:?} has no reason"));
                assert_eq!(info.domain, DOMAIN);
                rejected += 1;
            }
        }
    }
    assert_eq!(rows(&service), before, "after {rejected} rejections");
    assert!(rejected > ROUNDS * paths.len() / 2, "{rejected} rejected, {read} read");
    service.vault.flush().await.expect("what was counted is written");
    service.vault.verify_chain().await.expect("the chain verifies");
}

/// The path of every rpc that has one answer.
fn paths() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let ours = files.iter().filter(|file| file.package() == "firstkey.v1");
    let services = ours.flat_map(|file| &file.service);
    services
        .flat_map(|service| {
            let methods = service.method.iter().filter(|method| !method.server_streaming());
            methods.map(|method| format!("/firstkey.v1.{}/{}", service.name(), method.name()))
        })
        .collect()
}

fn reads(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    // A request for a certificate is signed anew each time and kept nowhere; a batch tells of each
    // entry that it was refused.
    let others = ["CreateCertificateRequest", "BatchCreateTerminals"];
    others.contains(&method)
        || ["Get", "List", "Lookup", "Inspect", "Check", "Prove"]
            .iter()
            .any(|word| method.starts_with(word))
}

/// Every row that is not of the rejections themselves.
fn rows(service: &Service) -> Vec<(String, String, i64, Vec<u8>)> {
    let path = service.folder_path().join("store").join("firstkey.sqlite3");
    let connection = Connection::open(path).expect("the store's file");
    let query = format!(
        "SELECT kind, id, version, sealed FROM record WHERE kind NOT IN ({OF_REJECTIONS})
         ORDER BY kind, id"
    );
    let mut statement = connection.prepare(&query).expect("the store's table");
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    rows.expect("the rows").map(|row| row.expect("a row")).collect()
}

async fn send(channel: &Channel, path: &str, message: &[u8]) -> Status {
    let len = u32::try_from(message.len()).expect("a short message");
    let body = [&[0], &len.to_be_bytes()[..], message].concat();
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(body)))
        .expect("a request");
    let mut channel = channel.clone();
    poll_fn(|context| channel.poll_ready(context)).await.expect("the connection serves");
    let response = channel.call(request).await.expect("an answer");
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::new(Code::Ok, ""))
}

/// Octets that look random and are the same in each run (xorshift).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a small bound");
        usize::try_from(self.next() % bound).expect("below a small bound")
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    /// Octets of no form, or fields as a message has them, with words that mean something here.
    fn body(&mut self) -> Vec<u8> {
        if self.below(4) == 0 {
            let len = self.below(80);
            return self.octets(len);
        }
        let fields = self.below(7);
        (0..fields).flat_map(|_| self.field()).collect()
    }

    fn field(&mut self) -> Vec<u8> {
        let number = u8::try_from(1 + self.below(14)).expect("a small number");
        if self.below(3) == 0 {
            let value = u8::try_from(self.below(128)).expect("one octet");
            return vec![number << 3, value];
        }
        let content = match self.below(4) {
            0 => {
                let len = self.below(40);
                self.octets(len)
            }
            1 => {
                let inner = self.below(3);
                (0..inner).flat_map(|_| self.field()).take(100).collect()
            }
            _ => WORDS[self.below(WORDS.len())].as_bytes().to_vec(),
        };
        let len = u8::try_from(content.len()).expect("a short field");
        if len > 127 {
            return Vec::new();
        }
        [&[number << 3 | 2, len], content.as_slice()].concat()
    }
}

const WORDS: [&str; 14] = [
    "",
    "keys/dev-bdk-aes",
    "keys/dev-kek",
    "keys/dev-zone-pin-aes",
    "keys/nobody",
    "profiles/dev-aes",
    "terminals/till-1",
    "terminals/till-1/activations/1",
    "deviceAuthorities/dev-vendor",
    "approvals/x",
    "4111111111111111",
    "7d444840-9dc0-11d1-b245-5ffdce74fad2",
    "D0112P0AE00E0000",
    "till-1",
];
