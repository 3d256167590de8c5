//! `firstkeyd init`: a folder with everything that a new service needs.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use firstkey::crypto::certificate::is_uri_name;
use firstkey::grpc::Plane;
use firstkey::server::access::{self as holders, Access};
use firstkey::vault::{Principal, Role};

use crate::certificate::validity_of_days;
use crate::cli::Init;
use crate::say;
use crate::shared::access;
use crate::shared::development::{make_folder, write_new};

/// How long certificates hold, in days.
const CERTIFICATE_DAYS: u64 = 397;
/// How long authorities hold, in days: ten years.
const AUTHORITY_DAYS: u64 = 3_652;
/// How many officers besides the requester approve a marked call.
const VOTES_REQUIRED: u32 = 1;

pub(crate) fn run(arguments: &Init) -> anyhow::Result<ExitCode> {
    let domain = &arguments.trust_domain;
    ensure!(
        is_uri_name(&format!("spiffe://{domain}/role/name")) && !domain.contains('/'),
        "{domain} is no domain: letters, digits, dots and hyphens"
    );
    let folder = &arguments.folder;
    if folder.exists() {
        let mut entries =
            fs::read_dir(folder).with_context(|| format!("{} is no folder", folder.display()))?;
        ensure!(entries.next().is_none(), "{} is not empty: nothing was made", folder.display());
    }
    let whole = std::path::absolute(folder)?;
    let parent = whole.parent().context("the folder can not be the root of all")?;
    // Made beside its place and moved there whole: an interruption leaves all of it or nothing.
    let beside = parent.join(format!(".firstkeyd-init-{}", uuid::Uuid::new_v4()));
    make_folder(&beside)?;
    let made = fill(&beside, arguments)
        .and_then(|()| fs::rename(&beside, &whole).context("can not move the folder in place"));
    if let Err(error) = made {
        // What can not be removed is not in the folder that was asked for.
        let _ = fs::remove_dir_all(&beside);
        return Err(error);
    }
    say(&next_steps(&whole, arguments));
    Ok(ExitCode::SUCCESS)
}

fn fill(folder: &Path, arguments: &Init) -> anyhow::Result<()> {
    let domain = &arguments.trust_domain;
    let authorities = Access::generate(domain, validity_of_days(AUTHORITY_DAYS))?;
    let hosts: Vec<&str> = arguments.names.iter().map(String::as_str).collect();
    let validity = validity_of_days(CERTIFICATE_DAYS);
    let names = access::Names { hosts: &hosts, trust_domain: domain, validity };
    access::write(folder, &authorities, &names)?;
    write_new(&folder.join("denied.txt"), DENIED.as_bytes())?;
    write_new(&folder.join("policy.toml"), policy(domain).as_bytes())?;
    write_new(&folder.join("firstkeyd.toml"), configuration(arguments).as_bytes())
}

const DENIED: &str = "\
# Who is shut out although the certificate verifies: on each line the SHA-256 fingerprint of a
# certificate in hexadecimals, or a URI name. Read at the start and at SIGHUP.
";

fn configuration(arguments: &Init) -> String {
    format!(
        r#"# Settings of firstkeyd. Paths count from this folder.
data = "data"
# The name of this replica in the audit log: lower-case letters, digits, hyphens.
node = "node-1"
# Read at the first start alone; from then on the policy changes by SetPolicy.
policy = "policy.toml"
denied = "denied.txt"
# The newest checkpoint of the audit log, on another disk than the store: without it nobody notices
# a store that is set back as a whole.
# checkpoint = "/srv/firstkey-checkpoint/newest"
# Where /livez, /readyz and /metrics are told, without authentication.
# operations = "127.0.0.1:9443"

# Who keeps the master key of the store: custodians with shares of it (`shamir`), or a key inside a
# token (`pkcs11`), whose PIN is read from a file that only the service's user can read.
[seal]
kind = "shamir"
# kind = "pkcs11"
# module = "/usr/lib/softhsm/libsofthsm2.so"
# token = "firstkey"
# pin_file = "token.pin"

# A listener carries any set of planes; there may be several, for networks that are apart.
[[listener]]
address = "{}"
planes = ["activation", "admin", "data", "terminals"]

[tls]
certificate = "tls/server.crt"
key = "tls/server.key"

# Who certifies the callers of each plane: each its own authorities, and no other is believed.
# Without one for activation, terminals call there and no relays.
[authorities]
activation = "authorities/activation.crt"
admin = "authorities/admin.crt"
data = "authorities/data.crt"
terminals = "authorities/terminals.crt"
"#,
        arguments.listen
    )
}

fn policy(domain: &str) -> String {
    let policy = holders::policy(domain, VOTES_REQUIRED, Vec::new());
    let principals: String = policy.principals.iter().map(principal).collect();
    format!(
        r#"# Who may call. What no line allows is denied.

# How many officers besides the requester approve what one of them may not do alone.
votes_required = {}
{principals}
# What a backend may do with which key; patterns end in *. For example:
#
# [[grant]]
# key = "keys/zone-*"
# principals = ["spiffe://{domain}/backend/backend-1"]
# calls = ["TranslatePin"]
# pin_formats_in = ["ISO_0"]
# pin_formats_out = ["ISO_4"]
"#,
        policy.votes_required
    )
}

fn principal(principal: &Principal) -> String {
    let Principal { name, person, role, profiles, .. } = principal;
    let role = role.as_str();
    let more = match (person.as_str(), profiles.as_slice()) {
        ("", []) => String::new(),
        ("", profiles) => format!("profiles = {profiles:?}\n"),
        (person, _) => format!("person = \"{person}\"\n"),
    };
    format!("\n[[principal]]\nname = \"{name}\"\nrole = \"{role}\"\n{more}")
}

/// The custodians, as arguments.
fn custodians(domain: &str) -> String {
    let custodians = holders::HOLDERS.iter().filter(|holder| holder.role == Role::Custodian);
    let names = custodians.map(|holder| format!("--custodian {}", holder.uri_name(domain)));
    names.collect::<Vec<_>>().join(" \\\n       ")
}

fn next_steps(folder: &Path, arguments: &Init) -> String {
    let shown = |name: &str| folder.join(name).display().to_string();
    let host = arguments.names.first().map_or("localhost", String::as_str);
    let url = format!("https://{host}:{}", arguments.listen.port());
    let call = |holder: &str| {
        let client = access::client(folder, Plane::Admin, holder);
        format!(
            "--server {url} \\\n       --ca {} \\\n       --cert {} \\\n       --key {}",
            access::server_authority(folder).display(),
            access::ending(&client, "crt").display(),
            access::ending(&client, "key").display()
        )
    };
    let domain = &arguments.trust_domain;
    format!(
        "Made {folder}. Next:

  1. Look through {policy}: who is known by which name, and which backend may use
     which key. It is read until the master key is made; later: firstkey policy set.

  2. Name a file on another disk as `checkpoint` in {config}: without it,
     nobody notices a store that is set back as a whole.

  3. Start it; it is sealed:

     firstkeyd serve --config {config}

  4. An officer has its master key made, for custodians who open it together from then on:

     firstkey seal init --threshold 2 {custodians} \\
       {officer}

     Each custodian then takes a share, writes it down, and reads it back, with their own
     certificate in the place of the officer's: firstkey seal share. At each later start as many of
     them as the threshold says open it: firstkey seal unseal.

  5. Ask it how it stands, and why somebody may do something or may not:

     firstkey status \\
       {operator}

     firstkey policy check spiffe://{domain}/backend/backend-1 TranslatePin keys/zone-1 \\
       {officer}

  6. Hand out clients/ to its holders, each their own, and delete it here.

  7. Take the keys of the authorities (authorities/*.key) off this machine: who has them can make
     certificates for anybody. One more caller: firstkeyd certificate --help. Certificates hold for
     {CERTIFICATE_DAYS} days; renew them, and the service's own, before, and send SIGHUP.",
        folder = folder.display(),
        custodians = custodians(domain),
        policy = shown("policy.toml"),
        config = shown("firstkeyd.toml"),
        operator = call("operator-1"),
        officer = call("officer-1"),
    )
}
