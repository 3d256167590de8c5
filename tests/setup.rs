//! A service that is set up by `firstkeyd init`, and one for development over TLS: as programs.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "setup/custody.rs"]
mod custody;
#[path = "setup/firstkeyd.rs"]
mod firstkeyd;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use firstkey::component::Share;
use firstkey::crypto::certificate::certificates_from_pem;
use firstkey::grpc::client::{Client, Refusal};
use firstkey::grpc::proto::ListTerminalsRequest;
use rustix::process::Signal;
use serde_json::Value;

use crate::firstkeyd::Firstkeyd;

const FIRSTKEY: &str = env!("CARGO_BIN_EXE_firstkey");
const FIRSTKEYD: &str = env!("CARGO_BIN_EXE_firstkeyd");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that goes when the test ends, and the shares of the master key of its store.
struct Folder(PathBuf, Mutex<Vec<Share>>);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("firstkey-test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path, Mutex::default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What `firstkeyd init` makes, for a free port of loopback.
    fn initialised() -> Self {
        let folder = Self::new();
        let made = init(&folder.path("fk"), &["--listen", "127.0.0.1:0"]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn init(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(FIRSTKEYD).arg("init").arg(folder).args(arguments).output().unwrap()
}

/// A running service.
struct Service {
    process: Firstkeyd,
    url: String,
}

impl Service {
    /// Starts what `init` made, and has its custodians open it.
    fn start(folder: &Folder) -> Self {
        let service = Self::start_sealed(folder);
        // On a thread of its own, which has no runtime yet.
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let mut shares = folder.1.lock().unwrap();
                let folder = folder.path("fk");
                runtime.block_on(custody::open(&service.url, &folder, &mut shares));
            });
            opening.join().unwrap();
        });
        service
    }

    /// Starts what `init` made.
    fn start_sealed(folder: &Folder) -> Self {
        Self::start_with(&["--config", folder.path("fk/firstkeyd.toml").to_str().unwrap()])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let mut command = Command::new(FIRSTKEYD);
        command.arg("serve").args(arguments).current_dir(ROOT);
        let (process, address) = Firstkeyd::serving(&mut command);
        Self { process, url: format!("https://{address}") }
    }
}

/// The tool, as whoever has the certificate `{plane}/{holder}` below a folder.
fn firstkey(service: &Service, folder: &Path, who: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(FIRSTKEY);
    command.args(arguments).current_dir(ROOT);
    command.env("FIRSTKEY_SERVER", &service.url);
    command.env("FIRSTKEY_CA", folder.join("authorities/server.crt"));
    if let Some(who) = who {
        command.env("FIRSTKEY_CERT", folder.join(format!("clients/{who}.crt")));
        command.env("FIRSTKEY_KEY", folder.join(format!("clients/{who}.key")));
    }
    command.output().unwrap()
}

#[track_caller]
fn succeed(service: &Service, folder: &Path, who: Option<&str>, arguments: &[&str]) -> String {
    let output = firstkey(service, folder, who, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_is_made_is_whole_private_and_made_once() {
    let folder = Folder::new();
    let made = init(&folder.path("fk"), &["--trust-domain", "example.test", "--name", "localhost"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let steps = text(&made.stdout);
    for told in ["firstkeyd serve --config", "firstkey status", "policy check", "seal init"] {
        assert!(steps.contains(told), "{told}: {steps}");
    }
    let mut waiting = vec![folder.path("fk")];
    let mut files = 0;
    while let Some(path) = waiting.pop() {
        let bits = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(bits & 0o077, 0, "{} is its owner's alone", path.display());
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files += 1;
        }
    }
    // Five authorities, the service, and fifteen certificates of callers, each with its key.
    assert_eq!(files, 3 + 2 * (5 + 1 + 15));
    let policy = fs::read_to_string(folder.path("fk/policy.toml")).unwrap();
    assert!(policy.contains("spiffe://example.test/officer/officer-1"), "{policy}");
    let key = fs::read(folder.path("fk/tls/server.key")).unwrap();
    let again = init(&folder.path("fk"), &[]);
    assert!(!again.status.success());
    assert!(text(&again.stderr).contains("is not empty"), "{}", text(&again.stderr));
    assert_eq!(fs::read(folder.path("fk/tls/server.key")).unwrap(), key);
    let strange = init(&folder.path("other"), &["--trust-domain", "exa mple"]);
    assert!(text(&strange.stderr).contains("is no domain"), "{}", text(&strange.stderr));
    let impossible = init(&folder.path("other"), &["--name", "näme"]);
    assert!(!impossible.status.success());
    // Nothing is left of what failed.
    let left: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|one| one.unwrap().path()).collect();
    assert_eq!(left, [folder.path("fk")]);
    // An empty folder that is there is taken.
    fs::create_dir(folder.path("empty")).unwrap();
    assert!(init(&folder.path("empty"), &[]).status.success());
}

#[test]
fn what_is_made_serves_those_it_knows_and_nobody_else() {
    let folder = Folder::initialised();
    let made = folder.path("fk");
    let service = Service::start(&folder);
    let list = ["terminal", "list"];
    assert!(succeed(&service, &made, Some("terminals/operator-1"), &list).contains("TERMINAL"));
    for (who, told) in [
        (None, "CALLER_UNKNOWN"),
        (Some("admin/operator-1"), "POLICY_DENIED"),
        (Some("activation/relay-1"), "POLICY_DENIED"),
    ] {
        let refused = firstkey(&service, &made, who, &list);
        assert_eq!(refused.status.code(), Some(5), "{who:?}");
        assert!(text(&refused.stderr).contains(told), "{}", text(&refused.stderr));
    }
    // One certificate more, of a caller that the policy does not know by then.
    let more = Command::new(FIRSTKEYD)
        .args(["certificate", "--plane", "terminals"])
        .args(["--name", "spiffe://firstkey.internal/backend/switch-2", "--authorities"])
        .arg(made.join("authorities"))
        .arg("--out")
        .arg(made.join("clients/terminals/switch-2"))
        .output()
        .unwrap();
    assert!(more.status.success(), "{}", text(&more.stderr));
    let refused = firstkey(&service, &made, Some("terminals/switch-2"), &list);
    assert!(text(&refused.stderr).contains("CALLER_UNKNOWN"), "{}", text(&refused.stderr));
    // The tool says what it lacks.
    let plain = Command::new(FIRSTKEY).args(list).args(["--server", &service.url]).output();
    assert!(text(&plain.unwrap().stderr).contains("--ca"));
    // Ended and started again, over the same store.
    service.process.signal(Signal::TERM);
    service.process.hear("every acknowledged call is durable");
    drop(service);
    let service = Service::start(&folder);
    succeed(&service, &made, Some("terminals/operator-1"), &list);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_certificates_and_the_deny_list_again_and_drops_no_call() {
    let folder = Folder::initialised();
    let made = folder.path("fk");
    fs::copy(made.join("denied.txt"), made.join("denied.txt.begun")).unwrap();
    let service = Service::start(&folder);
    let who = "terminals/operator-1";
    let client =
        Client::connect_with(&service.url, &custody::credentials(&made, who)).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let calling = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                let mut terminals = client.terminals();
                let call = terminals.list_terminals(ListTerminalsRequest::default()).await;
                assert!(call.is_ok(), "no call is dropped");
            }
        }
    });
    let before = shown(&service, &made).await;
    let renewed = made.join("renewed");
    let more = Command::new(FIRSTKEYD)
        .args(["certificate", "--host", "localhost", "--host", "127.0.0.1", "--authorities"])
        .arg(made.join("authorities"))
        .arg("--out")
        .arg(&renewed)
        .output()
        .unwrap();
    assert!(more.status.success(), "{}", text(&more.stderr));
    for ending in ["crt", "key"] {
        let (from, to) = (format!("renewed.{ending}"), format!("tls/server.{ending}"));
        fs::rename(made.join(from), made.join(to)).unwrap();
    }
    service.process.signal(Signal::HUP);
    service.process.hear("reloaded certificates");
    let after = shown(&service, &made).await;
    assert_ne!(before, after, "new connections see the new certificate");
    let file = fs::read(made.join("tls/server.crt")).unwrap();
    assert_eq!(after, certificates_from_pem(&file).unwrap()[0]);
    // A deny list that is broken is not taken.
    fs::write(made.join("denied.txt"), "anna\n").unwrap();
    service.process.signal(Signal::HUP);
    let told = service.process.hear("not reloaded");
    assert!(told.contains("line 1 is neither"), "{told}");
    stop.cancel();
    calling.await.expect("every call was answered");
    // One that is not holds on the connection that is open, whatever is wrong with certificates.
    let list = "spiffe://firstkey.internal/operator/operator-1\n";
    fs::write(made.join("denied.txt"), list).unwrap();
    fs::write(made.join("tls/server.crt"), "none").unwrap();
    service.process.signal(Signal::HUP);
    let told = service.process.hear("not reloaded");
    assert!(told.contains("the service's certificate"), "{told}");
    service.process.hear("what is broken was left");
    assert_eq!(shown(&service, &made).await, after);
    let mut terminals = client.terminals();
    let call = terminals.list_terminals(ListTerminalsRequest::default()).await;
    assert_eq!(Refusal::from(call.err().expect("it is denied")).reason, "CALLER_UNKNOWN");
    // Mended, certificates are taken too.
    fs::write(made.join("tls/server.crt"), file).unwrap();
    service.process.signal(Signal::HUP);
    service.process.hear("reloaded certificates");
    // An authority that others may write is not.
    let admin = made.join("authorities/admin.crt");
    fs::set_permissions(&admin, fs::Permissions::from_mode(0o620)).unwrap();
    service.process.signal(Signal::HUP);
    let told = service.process.hear("not reloaded");
    assert!(told.contains("admin.crt may be written by others"), "{told}");
    service.process.hear("what is broken was left");
    reloads_are_audited(&service, &made, list);
}

/// Looks at the audit log: what was in force at the start and after each of the five reloads.
fn reloads_are_audited(service: &Service, made: &Path, list: &str) {
    let list = hexadecimals(list.as_bytes());
    let begun = hexadecimals(&fs::read(made.join("denied.txt.begun")).unwrap());
    let authority = fs::read(made.join("authorities/admin.crt")).unwrap();
    let authority = hexadecimals(&certificates_from_pem(&authority).unwrap()[0]);
    let log = made.join("events.jsonl");
    let export = ["audit", "export", "--out", log.to_str().unwrap()];
    succeed(service, made, Some("admin/auditor-1"), &export);
    let events = fs::read_to_string(log).unwrap();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["action"] == "StartService" || event["action"] == "ReloadSettings")
        .map(|event| {
            assert_eq!(event["caller"], "service");
            assert_eq!(event["detail"]["authorities.admin"], authority.as_str());
            let text = |name: &str| event["detail"][name].as_str().unwrap_or_default().to_owned();
            (text("denied"), text("failed"))
        })
        .collect();
    let expected = [
        (&begun, ""),
        (&begun, ""),
        (&begun, "denied"),
        (&list, "certificates"),
        (&list, ""),
        (&list, "certificates"),
    ];
    assert_eq!(told, expected.map(|(denied, failed)| (denied.clone(), failed.to_owned())));
}

fn hexadecimals(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&firstkey::crypto::digest::sha256(&[bytes]))
}

/// The certificate that the service shows to whoever connects now.
async fn shown(service: &Service, folder: &Path) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let authority = fs::read(folder.join("authorities/server.crt")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(
        certificates_from_pem(&authority).unwrap().into_iter().map(Into::into),
    );
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = service.url.trim_start_matches("https://");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Lets others touch a file.
fn widen(made: &Path, file: &str, bits: u32) {
    fs::set_permissions(made.join(file), fs::Permissions::from_mode(bits)).unwrap();
}

/// Whether files can be given away; run.sh says what does not run otherwise.
fn is_root() -> bool {
    let folder = Folder::new();
    std::os::unix::fs::chown(folder.path("."), Some(65_534), None).is_ok()
}

/// Gives a file away to another user, as only root can.
fn foreign_owner(path: &Path) {
    std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
}

#[test]
fn it_does_not_start_with_files_that_do_not_do() {
    type Spoil = fn(&Path);
    let spoilt: [(&str, Spoil); 12] = [
        ("put another file in the place of", |made| widen(made, "authorities", 0o777)),
        ("firstkeyd.toml may be written by others", |made| widen(made, "firstkeyd.toml", 0o620)),
        ("policy.toml may be written by others", |made| widen(made, "policy.toml", 0o602)),
        ("denied.txt may be written by others", |made| widen(made, "denied.txt", 0o666)),
        ("data.crt may be written by others", |made| widen(made, "authorities/data.crt", 0o664)),
        ("may be read by others", |made| {
            let private = fs::Permissions::from_mode(0o640);
            fs::set_permissions(made.join("tls/server.key"), private).unwrap();
        }),
        ("module, token and pin_file", |made| {
            let file = made.join("firstkeyd.toml");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(file, text.replace("kind = \"shamir\"", "kind = \"pkcs11\"")).unwrap();
        }),
        ("share an authority", |made| {
            let authorities = made.join("authorities");
            fs::copy(authorities.join("admin.crt"), authorities.join("data.crt")).unwrap();
        }),
        ("no authority certifies", |made| {
            let file = made.join("firstkeyd.toml");
            let text = fs::read_to_string(&file).unwrap();
            let without: Vec<_> =
                text.lines().filter(|line| !line.starts_with("data = \"auth")).collect();
            fs::write(file, without.join("\n")).unwrap();
        }),
        ("line 1 is neither", |made| fs::write(made.join("denied.txt"), "anna").unwrap()),
        ("in the policy", |made| fs::write(made.join("policy.toml"), "votes = 1").unwrap()),
        ("holds no policy", |made| {
            let file = made.join("firstkeyd.toml");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(file, text.replace("policy = ", "# policy = ")).unwrap();
        }),
    ];
    let of_another: (&str, Spoil) =
        ("belongs to user 65534", |made| foreign_owner(&made.join("policy.toml")));
    let spoilt = spoilt.into_iter().chain(is_root().then_some(of_another));
    for (told, spoil) in spoilt {
        let folder = Folder::initialised();
        let made = folder.path("fk");
        spoil(&made);
        let mut command = Command::new(FIRSTKEYD);
        let output = command.args(["serve", "--config"]).arg(made.join("firstkeyd.toml")).output();
        let output = output.unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}: {said}");
        assert!(said.contains(told), "{told}: {said}");
        assert!(!said.contains("\"serving\""), "{said}");
    }
}

#[test]
fn the_demonstration_goes_over_tls_too() {
    let folder = Folder::new();
    let output = Command::new(FIRSTKEY)
        .args(["dev", "--tls", "--once", "--json", "--port", "0", "--data"])
        .arg(folder.path("data"))
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(last["outcome"].as_str().unwrap().contains("KSN_REPLAYED"), "{said}");
}

#[test]
fn a_development_service_over_tls_tells_roles_apart() {
    let folder = Folder::new();
    let data = folder.path("data");
    let service = Service::start_with(&[
        "--dev",
        "--tls",
        "--listen",
        "127.0.0.1:0",
        "--data",
        data.to_str().unwrap(),
    ]);
    let (access, pki) = (data.join("dev-tls"), data.join("dev-pki"));
    let (state, pki) = (folder.path("till-7.json"), pki.to_str().unwrap().to_owned());
    let backend = Some("terminals/backend-1");
    let register = ["terminal", "register", "till-7", "--serial", "SN-0007"];
    let refused = firstkey(&service, &access, Some("terminals/operator-1"), &register);
    assert!(text(&refused.stderr).contains("POLICY_DENIED"), "{}", text(&refused.stderr));
    assert!(succeed(&service, &access, backend, &register).contains("REGISTERED"));
    let code = succeed(&service, &access, backend, &["terminal", "code", "till-7"]);
    let simulate = ["terminal", "simulate", "--state", state.to_str().unwrap()];
    let first = ["--pki", pki.as_str(), "--serial", "SN-0007", "--code", code.trim()];
    // The terminal itself shows no certificate: the backend's is for looking up what it is.
    let played = succeed(&service, &access, backend, &[&simulate[..], &first].concat());
    assert!(played.contains("1 of 1 passed"), "{played}");
    succeed(&service, &access, backend, &["terminal", "enable", "till-7"]);
    let purchase = [&simulate[..], &["--purchase", "1250"]].concat();
    let wrong = firstkey(&service, &access, backend, &purchase);
    assert!(text(&wrong.stderr).contains("POLICY_DENIED"), "{}", text(&wrong.stderr));
    let bought = succeed(&service, &access, Some("data/backend-1"), &purchase);
    assert!(bought.contains("MAC verified"), "{bought}");
}
