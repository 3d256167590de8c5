//! A real service over TLS, beside one in plain text over the same vault that prepares things.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firstkey::crypto::certificate::authority::Validity;
use firstkey::crypto::certificate::certificate_to_pem;
use firstkey::grpc::client::{Client, ClientError, Credentials};
use firstkey::grpc::{DenyList, Plane, Trust};
use firstkey::server::access::{Access, HOLDERS, Issued};
use firstkey::server::dev::Pki;
use firstkey::server::{
    Limits, Listener, Material, Operations, Settings, Tls, dev, run_self_tests, serve,
};
use firstkey::vault::{Gate, Policy};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{BEGIN_SECONDS, Service, TempFolder, TestClock, has_begun};

/// Holds by the clock of the tests and by that of the system, which the client goes by.
pub(crate) const DECADES: Validity =
    Validity { not_before: 1_500_000_000, not_after: 2_500_000_000 };

/// A day by the clock of the tests, from where they begin.
pub(crate) const DAY: Validity =
    Validity { not_before: BEGIN_SECONDS - 3_600, not_after: BEGIN_SECONDS + 86_400 };

/// A service that tells callers apart by their certificates, with the development policy.
///
/// `service.plain` is the same service in plain text for one caller who may do everything: to
/// prepare keys and terminals, and to look at what came of a call.
pub(crate) struct TlsService {
    pub(crate) plain: Service,
    pub(crate) access: Access,
    pub(crate) denied: DenyList,
    pub(crate) gate: Arc<Gate>,
    /// Of each listener, in the order of its address in `urls`.
    pub(crate) tls: Vec<Arc<Tls>>,
    pub(crate) urls: Vec<String>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl TlsService {
    /// With one listener that carries every plane, over a store in memory.
    pub(crate) async fn start() -> Self {
        Self::start_over(Service::start().await, &[&Plane::ALL], dev::policy()).await
    }

    /// With one listener that carries every plane, over `SQLite`.
    pub(crate) async fn start_durable() -> Self {
        Self::start_over(Service::start_durable().await, &[&Plane::ALL], dev::policy()).await
    }

    /// With a policy of the test's own.
    pub(crate) async fn start_with(policy: Policy) -> Self {
        Self::start_over(Service::start().await, &[&Plane::ALL], policy).await
    }

    /// With limits of the test's own.
    pub(crate) async fn start_within(limits: Limits) -> Self {
        Self::begin(Service::start().await, &[&Plane::ALL], dev::policy(), limits).await
    }

    /// With a listener for each set of planes.
    pub(crate) async fn start_over(plain: Service, carried: &[&[Plane]], policy: Policy) -> Self {
        Self::begin(plain, carried, policy, Limits::default()).await
    }

    async fn begin(plain: Service, carried: &[&[Plane]], policy: Policy, limits: Limits) -> Self {
        let access = Access::generate("TEST", DECADES).expect("authorities");
        plain.vault.install_policy(policy).await.expect("a policy");
        let material = material(&access);
        let (mut tls, mut urls, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
        for planes in carried {
            let one = Tls::new(planes.to_vec(), &material, plain.clock.clone()).expect("TLS");
            let one = Arc::new(one);
            let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let port = socket.local_addr().expect("an address").port();
            urls.push(format!("https://localhost:{port}"));
            listeners.push(Listener::tls(socket, Arc::clone(&one)));
            tls.push(one);
        }
        let denied = DenyList::default();
        let settings = Settings {
            listeners,
            trust: Trust::Certificates(denied.clone()),
            reflection: false,
            drain: Duration::from_secs(5),
            limits,
            operations: Operations::default(),
            token: None,
        };
        let gate = Gate::open(Arc::clone(&plain.vault));
        let shutdown = CancellationToken::new();
        let proof = run_self_tests().expect("the self-tests pass");
        let before = plain.vault.log_size().await.expect("the log is read");
        let served = serve(Arc::clone(&gate), proof, settings, shutdown.clone().cancelled_owned());
        let serving = tokio::spawn(async move { served.await.expect("it serves to its end") });
        has_begun(&plain.vault, before).await;
        Self { plain, access, denied, gate, tls, urls, shutdown, serving }
    }

    /// What the first listener is called.
    pub(crate) fn url(&self) -> &str {
        &self.urls[0]
    }

    /// A connection of a holder of the development policy, such as `officer-1`, to a plane.
    pub(crate) async fn client(&self, holder: &str, plane: Plane) -> Client {
        let holder = HOLDERS.iter().find(|one| one.name == holder).expect("a holder");
        let name = holder.uri_name(dev::TRUST_DOMAIN);
        self.connect(Some(&self.issue(&name, plane))).await.expect("the service answers")
    }

    /// A connection without a certificate, as a terminal has it.
    pub(crate) async fn terminal(&self) -> Client {
        self.connect(None).await.expect("the service answers")
    }

    /// A certificate of a plane for any name.
    pub(crate) fn issue(&self, uri_name: &str, plane: Plane) -> Issued {
        self.access.issue_client(plane, uri_name, DECADES).expect("a certificate")
    }

    /// A connection to the first listener with a certificate, or without.
    pub(crate) async fn connect(&self, issued: Option<&Issued>) -> Result<Client, ClientError> {
        Client::connect_with(self.url(), &self.credentials(issued)).await
    }

    /// How a client of this service presents itself.
    pub(crate) fn credentials(&self, issued: Option<&Issued>) -> Credentials {
        let identity = issued.map(|issued| {
            let key = Zeroizing::new(issued.key.as_bytes().to_vec());
            (issued.certificate.clone().into_bytes(), key)
        });
        Credentials { authority: authority(&self.access), identity }
    }

    /// Ends the service, as a signal does, and gives back what it served from.
    pub(crate) async fn stop(self) -> (Option<TempFolder>, Pki, Arc<TestClock>) {
        let Self { plain, shutdown, serving, gate, .. } = self;
        drop(gate);
        shutdown.cancel();
        serving.await.expect("it served to its end");
        plain.stop().await
    }
}

/// What TLS is made of, with a certificate of the service's that is made anew.
pub(crate) fn material(access: &Access) -> Material {
    let server = access.issue_server(&["localhost", "127.0.0.1"], DECADES).expect("a certificate");
    let authorities: BTreeMap<Plane, Vec<u8>> = access
        .planes
        .iter()
        .map(|(plane, authority)| (*plane, certificate_to_pem(authority.root_der()).into_bytes()))
        .collect();
    Material {
        certificate: server.certificate.into_bytes(),
        key: Zeroizing::new(server.key.as_bytes().to_vec()),
        authorities,
    }
}

fn authority(access: &Access) -> Vec<u8> {
    certificate_to_pem(access.server.root_der()).into_bytes()
}
