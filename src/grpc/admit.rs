//! The door: who calls, and whether such a caller may make such a call, before a body is read.
//!
//! ```text
//! path -> plane and action;  peer -> certificate -> principal of the policy -> caller
//! gate open?  not too many?  the peer's plane?  known?  the role's call?
//! then the service, with vault and caller, and a message that is bounded
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::bounds::{bounded, explained, held};
use super::denied::DenyList;
use super::metrics::Metrics;
use super::pace::{CallLimits, Pace, Who, source_of};
use super::peer::{Identity, Peer, Plane, Shut};
use super::places::Place;
use super::status::from_error;
use super::{SEAL_SERVICE, SERVICE_NAMES};
use crate::command::Error;
use crate::vault::{Action, Caller, Entry, Gate, Reason, Vault};

/// What the door puts beside a request that it lets in.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) vault: Arc<Vault>,
    pub(super) caller: Caller,
    pub(super) recheck: Recheck,
    /// Is cancelled when streams are to end.
    pub(super) ending: CancellationToken,
    pace: Arc<Pace>,
    /// Is cancelled when the call is not waited for any longer.
    cut: CancellationToken,
}

impl Admitted {
    /// Charges a message that does the work of so many calls, the first of which was charged at the
    /// door; what is too much is refused, and audited.
    pub(super) async fn charge(&self, action: Action, calls: usize) -> Result<(), Error> {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        match self.pace.take_rest(&self.vault, &self.caller, calls) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.vault.refuse(&self.caller, action, error).await.into()),
        }
    }
}

/// What the door puts beside a request to the seal while there is no vault: whose certificate.
#[derive(Clone)]
pub(super) struct AtSeal(pub(super) Arc<Identity>);

/// The certificate that let a caller in, to be looked at again while an answer goes on. There is
/// none where terminals call, and in development.
#[derive(Clone, Default)]
pub(super) struct Recheck(Option<(Arc<Identity>, DenyList)>);

impl Recheck {
    /// The certificate.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.0.as_ref().map(|(identity, _)| Arc::clone(identity))
    }

    /// Refuses to go on for whom the door would not let in any more.
    pub(super) fn check(&self, vault: &Vault) -> Result<(), Error> {
        let shut = self.0.as_ref().and_then(|(one, denied)| one.shut_out_by(denied, vault.now()));
        shut.map_or(Ok(()), |_| Err(Error::refused(Reason::CallerUnknown)))
    }
}

/// How callers are told apart.
#[derive(Clone)]
pub enum Trust {
    /// By their certificates, as the listener verified them and the policy knows them, save those
    /// on the deny list.
    Certificates(DenyList),
    /// Not at all: a development service has one caller.
    ForDevOnly(Caller),
}

/// Puts the door before the services.
#[derive(Clone)]
pub struct Admission {
    gate: Arc<Gate>,
    trust: Trust,
    pace: Arc<Pace>,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// A door before a gate, where calls are counted.
    #[must_use]
    pub fn new(gate: Arc<Gate>, trust: Trust, limits: CallLimits, metrics: Arc<Metrics>) -> Self {
        Self { gate, trust, pace: Arc::new(Pace::new(limits)), metrics }
    }

    /// Lets a call to the seal in while there is no vault: whose certificate the authority of the
    /// plane has made may help to open it. Who that is by the policy, only the policy can tell.
    fn admit_outside(&self, peer: &Peer) -> Result<(AtSeal, Place<Who>), Error> {
        let Trust::Certificates(denied) = &self.trust else {
            return Err(Error::refused(Reason::VaultSealed));
        };
        let taken = self.pace.take_outside(peer.address);
        let place = taken.and_then(|()| self.pace.place_of_unknown(peer.address));
        if place.is_err() {
            peer.refused.fetch_add(1, Ordering::Relaxed);
        }
        let place = place?;
        let identity = peer.outside(Plane::Admin, denied, self.gate.now());
        Ok((AtSeal(identity.map_err(Error::refused)?), place))
    }

    /// Lets a call in, with the place that is its own until it has been answered.
    async fn admit(
        &self,
        call: Call,
        peer: &Peer,
    ) -> Result<(Admitted, Option<Place<Who>>), Error> {
        let Entry { vault, ending, cut } = self.gate.admit()?;
        // What waits for the others to be cut off is not cut off itself.
        let cut = if call.action == Action::Seal { CancellationToken::new() } else { cut };
        let entered = match &self.trust {
            Trust::ForDevOnly(caller) => Ok(caller.clone()),
            Trust::Certificates(denied) => peer.enter(call.plane, denied, &vault),
        };
        // Before anything that costs more: who makes too many calls is not told who may make them.
        let caller = entered.as_ref().unwrap_or_else(|shut| &shut.caller);
        let place = match self.pace.begin(&vault, caller, call.action, peer.address) {
            Ok(place) => place,
            Err(error) => {
                peer.refused.fetch_add(1, Ordering::Relaxed);
                return Err(vault.refuse(caller, call.action, error).await.into());
            }
        };
        let caller = match entered {
            Ok(caller) => caller,
            Err(shut) => {
                let Shut { caller, rule } = *shut;
                let source = peer.address.map(source_of);
                return Err(vault.turn_away(&caller, call.action, rule, source).await.into());
            }
        };
        vault.authorise(&caller, call.action).await?;
        let recheck = match &self.trust {
            Trust::Certificates(denied) => {
                Recheck(peer.identity.clone().map(|identity| (identity, denied.clone())))
            }
            Trust::ForDevOnly(_) => Recheck::default(),
        };
        let admitted =
            Admitted { vault, caller, recheck, ending, pace: Arc::clone(&self.pace), cut };
        Ok((admitted, place))
    }

    /// Lets a call pass that is not one of ours: it opens nothing, and costs little. A watcher of
    /// the health keeps its place as long as it watches.
    fn pass(&self, peer: &Peer) -> Result<Option<Place<Who>>, Error> {
        if matches!(self.trust, Trust::ForDevOnly(_)) {
            return Ok(None);
        }
        // Health is told by a service that failed or is sealed, too.
        let taken = match self.gate.enter() {
            Ok(vault) => self.pace.take_unknown(vault.rates(), peer.address),
            Err(_) => self.pace.take_outside(peer.address),
        };
        let place = taken.and_then(|()| self.pace.place_of_unknown(peer.address));
        if place.is_err() {
            peer.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Some(place?))
    }
}

/// What is called, read from the path.
#[derive(Clone, Copy)]
struct Call {
    plane: Plane,
    action: Action,
    /// The service and the method in words of this program.
    name: (&'static str, &'static str),
}

impl Call {
    /// None for what is not ours: health, reflection, paths that lead nowhere.
    fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix("/firstkey.v1.")?.split_once('/')?;
        let named = |name: &&&str| name.strip_prefix("firstkey.v1.") == Some(service);
        let plane = Plane::of_service(service)?;
        // One that this release does not have yet is refused here as well.
        let service = SERVICE_NAMES.iter().find(named).copied().unwrap_or(OTHER.0);
        let action = Action::of_rpc(method)?;
        // A batch is one call of its own, though each of its entries is told as if it came alone.
        let method = if method == BATCH { BATCH } else { action.as_str() };
        Some(Self { plane, action, name: (service, method) })
    }
}

/// The one call whose action is named after another.
const BATCH: &str = "BatchCreateTerminals";

impl<S> Layer<S> for Admission {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { admission: self.clone(), inner }
    }
}

/// The services behind the door.
#[derive(Clone)]
pub struct Door<S> {
    admission: Admission,
    inner: S,
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { admission, inner } = self.clone();
        // The one that was polled is the one that is ready.
        let inner = std::mem::replace(&mut self.inner, inner);
        Box::pin(async move {
            let metrics = Arc::clone(&admission.metrics);
            let began_us = (metrics.stopwatch)();
            let call = Call::of(request.uri().path());
            let answer = admission.lead(call, inner, request).await?;
            let took_us = (metrics.stopwatch)().saturating_sub(began_us);
            // Of a stream, how it began.
            let failed = Status::from_header_map(answer.headers());
            let failed = failed.filter(|status| status.code() != Code::Ok);
            metrics.answered(call.map_or(OTHER, |call| call.name), failed.as_ref(), took_us);
            Ok(answer)
        })
    }
}

impl Admission {
    /// Leads a call through the door, or answers it there.
    async fn lead<S>(
        self,
        call: Option<Call>,
        mut inner: S,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let Some(call) = call else {
            let place = match self.pass(&peer) {
                Ok(place) => place,
                Err(error) => return Ok(refusal(&error)),
            };
            // Reflection, which development alone has, asks again and again in one call.
            let is_of_health = request.uri().path().starts_with(HEALTH);
            let request = if is_of_health { self.bounded(request) } else { request };
            return Ok(explained(inner.call(request).await?).map(|body| held(body, place)));
        };
        let is_of_seal = call.name.0 == SEAL_SERVICE;
        let admitted = match self.admit(call, &peer).await {
            Err(error) if is_of_seal && error.reason() == Reason::VaultSealed => {
                self.admit_outside(&peer).map(|(at_seal, place)| {
                    request.extensions_mut().insert(at_seal);
                    (CancellationToken::new(), Some(place))
                })
            }
            admitted => admitted.map(|(admitted, place)| {
                let cut = admitted.cut.clone();
                request.extensions_mut().insert(admitted);
                (cut, place)
            }),
        };
        let (cut, place) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return Ok(refusal(&error)),
        };
        let request = self.bounded(request);
        let answered = cut.run_until_cancelled_owned(inner.call(request));
        // A vault that is sealed waits for its calls, but not for ever.
        let Some(answer) = answered.await else {
            return Ok(refusal(&Error::refused(Reason::VaultSealed)));
        };
        let answer = explained(answer?);
        // What was computed while a self-test failed does not leave either.
        match self.gate.expect_sound() {
            Ok(()) => Ok(answer.map(|body| held(body, place))),
            Err(error) => Ok(refusal(&error.into())),
        }
    }

    fn bounded(&self, request: Request<Body>) -> Request<Body> {
        bounded(request, self.pace.message_time_max())
    }
}

/// Where the paths of health calls begin.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Under what is counted whatever is not one of our calls.
const OTHER: (&str, &str) = ("other", "other");

/// The answer to a call that does not come in.
fn refusal(error: &Error) -> Response<Body> {
    let reason = error.reason();
    if reason == Reason::StoreUnavailable {
        tracing::error!(reason = reason.as_str(), "a refusal was not audited");
    }
    let status: Status = from_error(error);
    status.into_http()
}
