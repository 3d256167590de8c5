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
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::bounds::{bounded, explained, held};
use super::denied::DenyList;
use super::pace::{CallLimits, Pace, Who};
use super::peer::{Identity, Peer, Plane, Shut};
use super::places::Place;
use super::status::from_error;
use crate::command::Error;
use crate::vault::{Action, Caller, Gate, Reason, Vault};

/// What the door puts beside a request that it lets in.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) vault: Arc<Vault>,
    pub(super) caller: Caller,
    pub(super) standing: Standing,
}

/// The certificate that let a caller in, to be looked at again while an answer goes on. There is
/// none where terminals call, and in development.
#[derive(Clone, Default)]
pub(super) struct Standing(Option<(Arc<Identity>, DenyList)>);

impl Standing {
    /// Refuses to go on for whom the door would not let in any more.
    pub(super) fn check(&self, vault: &Vault) -> Result<(), Error> {
        let shut = self.0.as_ref().and_then(|(one, denied)| one.shut_out_by(denied, vault));
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
    pace: Pace,
}

impl Admission {
    /// A door before a gate.
    #[must_use]
    pub fn new(gate: Arc<Gate>, trust: Trust, limits: CallLimits) -> Self {
        Self { gate, trust, pace: Pace::new(limits) }
    }

    /// Lets a call in, with the place that is its own until it has been answered.
    async fn admit(
        &self,
        call: Call,
        peer: &Peer,
    ) -> Result<(Admitted, Option<Place<Who>>), Error> {
        let vault = self.gate.enter()?;
        let entered = match &self.trust {
            Trust::ForDevOnly(caller) => Ok(caller.clone()),
            Trust::Certificates(denied) => peer.enter(call.plane, denied, &vault),
        };
        // Before anything that costs more: who makes too many calls is not told who may make them.
        let caller = entered.as_ref().unwrap_or_else(|shut| &shut.caller);
        let place = match self.pace.begin(&vault, caller, peer.address) {
            Ok(place) => place,
            Err(error) => return Err(vault.refuse(caller, call.action, error).await.into()),
        };
        let caller = match entered {
            Ok(caller) => caller,
            Err(shut) => {
                let Shut { caller, rule } = *shut;
                return Err(vault.turn_away(&caller, call.action, rule).await.into());
            }
        };
        vault.authorise(&caller, call.action).await?;
        let standing = match &self.trust {
            Trust::Certificates(denied) => {
                Standing(peer.identity.clone().map(|identity| (identity, denied.clone())))
            }
            Trust::ForDevOnly(_) => Standing::default(),
        };
        Ok((Admitted { vault, caller, standing }, place))
    }

    /// Lets a call pass that is not one of ours: it opens nothing, and costs little.
    fn pass(&self, peer: &Peer) -> Result<(), Error> {
        match (&self.trust, self.gate.enter()) {
            (Trust::Certificates(_), Ok(vault)) => {
                Ok(self.pace.take_unknown(vault.rates(), peer.address)?)
            }
            // Health is told by a service that failed, too.
            (Trust::ForDevOnly(_), _) | (Trust::Certificates(_), Err(_)) => Ok(()),
        }
    }
}

/// What is called, read from the path.
#[derive(Clone, Copy)]
struct Call {
    plane: Plane,
    action: Action,
}

impl Call {
    /// None for what is not ours: health, reflection, paths that lead nowhere.
    fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix("/firstkey.v1.")?.split_once('/')?;
        Some(Self { plane: Plane::of_service(service)?, action: Action::of_rpc(method)? })
    }
}

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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Self { admission, inner } = self.clone();
        // The one that was polled is the one that is ready.
        let mut inner = std::mem::replace(&mut self.inner, inner);
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
            let Some(call) = Call::of(request.uri().path()) else {
                return match admission.pass(&peer) {
                    Ok(()) => Ok(explained(inner.call(request).await?)),
                    Err(error) => Ok(refusal(&error)),
                };
            };
            let (admitted, place) = match admission.admit(call, &peer).await {
                Ok(admitted) => admitted,
                Err(error) => return Ok(refusal(&error)),
            };
            request.extensions_mut().insert(admitted);
            let request = bounded(request, admission.pace.message_time_max());
            let answer = explained(inner.call(request).await?);
            // What was computed while a self-test failed does not leave either.
            match admission.gate.enter() {
                Ok(_) => Ok(answer.map(|body| held(body, place))),
                Err(error) => Ok(refusal(&error.into())),
            }
        })
    }
}

/// The answer to a call that does not come in.
fn refusal(error: &Error) -> Response<Body> {
    let reason = error.reason();
    if reason == Reason::StoreUnavailable {
        tracing::error!(reason = reason.as_str(), "a refusal was not audited");
    }
    let status: Status = from_error(error);
    status.into_http()
}
