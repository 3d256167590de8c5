//! `firstkey dev`: a development service in this process, and a terminal's first activation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::Plane;
use firstkey::grpc::client::{Client, Credentials};
use firstkey::server;
use firstkey::server::demonstration::{Demonstration, Line};
use firstkey::server::dev::Pki;
use firstkey::vault::{AuditSettings, Clock as _, Gate};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::cli::{Dev, Output};
use crate::print;
use crate::shared::development::Way;
use crate::shared::{self, SystemClock, access, development};

/// How long calls in flight may take to end.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(dev: Dev, output: Output) -> anyhow::Result<ExitCode> {
    let output = if dev.json { Output::Json } else { output };
    let say = |text: &str| {
        if output == Output::Table {
            print::line(text);
        }
    };
    let way = if dev.tls { Way::Tls } else { Way::PlainText };
    let stop = shared::stop_signal()?;
    let data = Data::at(dev.data.clone())?;
    say(match way {
        Way::PlainText => {
            "firstkey dev: published keys, plain text on loopback, no authentication."
        }
        Way::Tls => "firstkey dev: published keys, TLS with published roles on loopback.",
    });
    say("DEV-ONLY. Never for real PINs.\n");
    let passed = server::run_self_tests()?;
    let service = development::open(data.path(), &dev.keys, AuditSettings::default()).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", dev.port))
        .await
        .with_context(|| format!("can not serve on 127.0.0.1:{}", dev.port))?;
    let address = listener.local_addr()?;
    let url = match way {
        Way::PlainText => format!("http://{address}"),
        Way::Tls => format!("https://{address}"),
    };
    say(&format!("store      {}", data.path().display()));
    say(&format!("service    {url}\n"));

    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async move {
        tokio::select! {
            () = stop => {}
            _ = ended => {}
        }
    };
    let settings = development::settings(&service, listener, way, DRAIN).await?;
    let gate = Gate::open(service.vault);
    let serving = tokio::spawn(server::serve(gate, passed, settings, shutdown));
    let client = connect(&url, &service.access_folder, way).await?;
    demonstrate(&client, &service.pki, output).await?;
    if dev.once {
        let _ = end.send(());
    } else {
        say(&match way {
            Way::PlainText => examples(&url, data.path()),
            Way::Tls => tls_examples(&url, data.path(), &service.access_folder),
        });
    }
    // Without `--once` this waits for the signal; the sender must live until then.
    serving.await.context("the service ended abnormally")??;
    Ok(ExitCode::SUCCESS)
}

/// Connects as everybody whom the demonstration plays: the terminal, which shows no certificate,
/// and the backend, which has one for each of its planes.
async fn connect(url: &str, folder: &Path, way: Way) -> anyhow::Result<Client> {
    if way == Way::PlainText {
        return Ok(Client::connect(url).await?);
    }
    let terminal = Client::connect_with(url, &credentials(folder, None)?).await?;
    let backend = |plane| credentials(folder, Some((plane, "backend-1")));
    let data = Client::connect_with(url, &backend(Plane::Data)?).await?;
    let terminals = Client::connect_with(url, &backend(Plane::Terminals)?).await?;
    Ok(Client::by_plane(|plane| match plane {
        Plane::Activation | Plane::Admin => terminal.clone(),
        Plane::Data => data.clone(),
        Plane::Terminals => terminals.clone(),
    }))
}

fn credentials(folder: &Path, holder: Option<(Plane, &str)>) -> anyhow::Result<Credentials> {
    let identity = match holder {
        Some((plane, name)) => {
            let stem = access::client(folder, plane, name);
            let certificate = access::read(&access::ending(&stem, "crt"))?;
            let key = Zeroizing::new(access::read(&access::ending(&stem, "key"))?);
            Some((certificate, key))
        }
        None => None,
    };
    Ok(Credentials { authority: access::read(&access::server_authority(folder))?, identity })
}

#[allow(clippy::disallowed_methods, reason = "a stopwatch for what is printed")]
async fn demonstrate(client: &Client, pki: &Pki, output: Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let stopwatch = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let now = || SystemClock.now().seconds();
    let mut tell = |line: Line| match output {
        Output::Table => tell_people(&line),
        Output::Json => print::line(&serde_json::to_string(&line).unwrap_or_default()),
    };
    let rng = SystemRng::new();
    let mut demonstration =
        Demonstration { client, pki, rng: &rng, now: &now, stopwatch: &stopwatch, tell: &mut tell };
    Ok(demonstration.run().await?)
}

fn tell_people(line: &Line) {
    let step = line.step.map_or("  ".to_owned(), |step| format!("{step:>2}"));
    let whom = format!("{} -> {}", line.from, line.to);
    let ms = format!("{}.{} ms", line.took_us / 1000, line.took_us % 1000 / 100);
    let took = if line.took_us == 0 { String::new() } else { ms };
    print::line(&format!("{step}  {whom:<22} {:<20} {took:>9}", line.call));
    print::line(&format!("    {}", line.outcome));
    print::line(&format!("    because: {}\n", line.because));
}

/// Calls to paste, for tools that speak gRPC with reflection.
fn examples(url: &str, data: &Path) -> String {
    let address = url.trim_start_matches("http://");
    let tool = std::env::current_exe().unwrap_or_else(|_| "firstkey".into());
    let tool = tool.display();
    format!(
        "The service stays up; Ctrl-C ends it. In another terminal:

  {tool} terminal list --server {url}
  {tool} terminal register till-7 --serial SN-0007 --server {url}
  {tool} terminal code till-7 --server {url}
  {tool} terminal simulate --state till-7.json --pki {}/{} \\
      --serial SN-0007 --code THE-CODE-HERE --server {url}

With buf (or grpcurl -plaintext {address}), where it is installed: the sample PIN block of ANSI
X9.24-1:2009, A.4, under its KSN, to AES format 4. With another block under the KSN it is a replay.

  buf curl --protocol grpc --http2-prior-knowledge \\
      {url}/firstkey.v1.PinService/TranslatePin -d '{{
    \"source\": {{\"dukpt\": {{\"ksn\": \"//+YdlQyEOAAAQ==\"}}}},
    \"sourceFormat\": \"PIN_BLOCK_FORMAT_ISO_0\", \"pinBlock\": \"G5wYReuZOno=\",
    \"destination\": {{\"staticKey\": \"keys/dev-zone-pin-aes\"}},
    \"destinationFormat\": \"PIN_BLOCK_FORMAT_ISO_4\", \"pan\": \"4012345678909\"}}'
",
        data.display(),
        development::PKI,
    )
}

/// Calls to paste for a service that tells callers apart: each as whoever may make it.
fn tls_examples(url: &str, data: &Path, folder: &Path) -> String {
    let tool = std::env::current_exe().unwrap_or_else(|_| "firstkey".into());
    let tool = tool.display();
    let ca = access::server_authority(folder);
    let who = |plane, name| {
        let stem = access::client(folder, plane, name);
        let (cert, key) = (access::ending(&stem, "crt"), access::ending(&stem, "key"));
        format!("--cert {} --key {}", cert.display(), key.display())
    };
    format!(
        "The service stays up; Ctrl-C ends it. In another terminal:

  export FIRSTKEY_SERVER={url} FIRSTKEY_CA={ca}
  {tool} terminal list {operator}
  {tool} terminal register till-7 --serial SN-0007 {terminals}
  {tool} terminal code till-7 {terminals}
  {tool} terminal simulate --state till-7.json --pki {data}/{pki} \\
      --serial SN-0007 --code THE-CODE-HERE {terminals}
  {tool} terminal enable till-7 {terminals}
  {tool} terminal simulate --state till-7.json --purchase 1250 {data_plane}

The certificates of every role lie in {clients}: one opens one plane.
",
        ca = ca.display(),
        data = data.display(),
        pki = development::PKI,
        clients = folder.join(access::CLIENTS).display(),
        operator = who(Plane::Terminals, "operator-1"),
        terminals = who(Plane::Terminals, "backend-1"),
        data_plane = who(Plane::Data, "backend-1"),
    )
}

/// Where the store is; a temporary folder goes with the demonstration.
pub(crate) enum Data {
    Kept(PathBuf),
    Temporary(PathBuf),
}

impl Data {
    pub(crate) fn at(path: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = path {
            return Ok(Self::Kept(path));
        }
        let name = format!("firstkey-dev-{}", uuid::Uuid::new_v4().as_simple());
        let path = std::env::temp_dir().join(name);
        development::make_folder(&path)?;
        Ok(Self::Temporary(path))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self {
            // What can not be removed stays where it was said to be.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
