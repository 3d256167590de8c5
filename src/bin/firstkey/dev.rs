//! `firstkey dev`: a development service in this process, and a terminal's first activation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use firstkey::crypto::rng::SystemRng;
use firstkey::grpc::client::Client;
use firstkey::server;
use firstkey::server::demonstration::{Demonstration, Line};
use firstkey::server::dev::Pki;
use firstkey::vault::{Clock as _, Gate};
use tokio::sync::oneshot;

use crate::cli::{Dev, Output};
use crate::print;
use crate::shared::{self, SystemClock, development};

/// How long calls in flight may take to end.
const DRAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(dev: Dev, output: Output) -> anyhow::Result<ExitCode> {
    let output = if dev.json { Output::Json } else { output };
    let say = |text: &str| {
        if output == Output::Table {
            print::line(text);
        }
    };
    let stop = shared::stop_signal()?;
    let data = Data::at(dev.data.clone())?;
    say("firstkey dev: published keys, plain text on loopback, no authentication.");
    say("DEV-ONLY. Never for real PINs.\n");
    let passed = server::run_self_tests()?;
    let service = development::open(data.path(), &dev.keys).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", dev.port))
        .await
        .with_context(|| format!("can not serve on 127.0.0.1:{}", dev.port))?;
    let url = format!("http://{}", listener.local_addr()?);
    say(&format!("store      {}", data.path().display()));
    say(&format!("service    {url}\n"));

    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async move {
        tokio::select! {
            () = stop => {}
            _ = ended => {}
        }
    };
    let settings = development::settings(listener, DRAIN)?;
    let gate = Gate::open(service.vault);
    let serving = tokio::spawn(server::serve(gate, passed, settings, shutdown));
    demonstrate(&url, &service.pki, output).await?;
    if dev.once {
        let _ = end.send(());
    } else {
        say(&examples(&url, data.path()));
    }
    // Without `--once` this waits for the signal; the sender must live until then.
    serving.await.context("the service ended abnormally")??;
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::disallowed_methods, reason = "a stopwatch for what is printed")]
async fn demonstrate(url: &str, pki: &Pki, output: Output) -> anyhow::Result<()> {
    let client = Client::connect(url).await?;
    let started = Instant::now();
    let stopwatch = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let now = || SystemClock.now().seconds();
    let mut tell = |line: Line| match output {
        Output::Table => tell_people(&line),
        Output::Json => print::line(&serde_json::to_string(&line).unwrap_or_default()),
    };
    let rng = SystemRng::new();
    let mut demonstration = Demonstration {
        client: &client,
        pki,
        rng: &rng,
        now: &now,
        stopwatch: &stopwatch,
        tell: &mut tell,
    };
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

/// Where the store is; a temporary folder goes with the demonstration.
enum Data {
    Kept(PathBuf),
    Temporary(PathBuf),
}

impl Data {
    fn at(path: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = path {
            return Ok(Self::Kept(path));
        }
        let name = format!("firstkey-dev-{}", uuid::Uuid::new_v4().as_simple());
        let path = std::env::temp_dir().join(name);
        development::make_folder(&path)?;
        Ok(Self::Temporary(path))
    }

    fn path(&self) -> &Path {
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
