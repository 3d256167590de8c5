//! Listeners: from a socket to a connection of which it is known who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::crowd::{Arrival, Crowd};
use super::guard::Guarded;
use super::tls::Tls;
use crate::grpc::{Peer, Plane};

/// How long a listener rests when the system has no connection to give, for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// How many connections may wait to be served.
const READY_MAX: usize = 64;

/// A socket, and how connections come in by it.
pub struct Listener {
    socket: TcpListener,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Plain,
    Tls(Arc<Tls>),
}

/// Tells when a certificate expires, in Unix time; none where there is no certificate.
pub(super) type Expiry = Box<dyn Fn() -> Option<u64> + Send + Sync>;

impl Listener {
    /// Serves the planes of `tls` to whom their authorities certify.
    #[must_use]
    pub const fn tls(socket: TcpListener, tls: Arc<Tls>) -> Self {
        Self { socket, way: Way::Tls(tls) }
    }

    /// Asks when its certificate expires.
    pub(super) fn expiry(&self) -> Expiry {
        let way = self.way.clone();
        Box::new(move || match &way {
            Way::Plain => None,
            Way::Tls(tls) => Some(tls.expiry()),
        })
    }

    /// What callers show their certificates to; none where they show none.
    pub(super) const fn asks(&self) -> Option<&Arc<Tls>> {
        match &self.way {
            Way::Plain => None,
            Way::Tls(tls) => Some(tls),
        }
    }

    /// Serves every plane to whoever connects, in plain text; refused but on loopback.
    pub fn plain_for_dev_only(socket: TcpListener) -> io::Result<Self> {
        if socket.local_addr()?.ip().is_loopback() {
            Ok(Self { socket, way: Way::Plain })
        } else {
            let told = "plain text is served on loopback only";
            Err(io::Error::new(io::ErrorKind::InvalidInput, told))
        }
    }
}

/// Accepts on every listener until `draining`; gives the connections as they become ready.
pub(super) fn accept_all(
    listeners: Vec<Listener>,
    crowd: &Arc<Crowd>,
    draining: &CancellationToken,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(READY_MAX);
    for listener in listeners {
        tokio::spawn(accept(listener, Arc::clone(crowd), ready.clone(), draining.clone()));
    }
    connections
}

/// Accepts until `draining`, and then closes the socket.
async fn accept(
    listener: Listener,
    crowd: Arc<Crowd>,
    ready: mpsc::Sender<io::Result<Connection>>,
    draining: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = draining.cancelled() => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // One that is too many is closed at once.
                let Some(arrival) = crowd.arrive(address) else { continue };
                let (way, gives_way) = (listener.way.clone(), arrival.gives_way());
                let guest = Guest { stream, address, arrival, crowd: Arc::clone(&crowd) };
                let (ready, draining) = (ready.clone(), draining.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = draining.cancelled() => {}
                        () = gives_way.cancelled() => {}
                        () = welcome(guest, way, ready) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// A connection before it is known who is at its other end.
struct Guest {
    stream: TcpStream,
    address: SocketAddr,
    arrival: Arrival,
    crowd: Arc<Crowd>,
}

/// Takes one connection through its handshake, in time or not at all.
async fn welcome(guest: Guest, way: Way, ready: mpsc::Sender<io::Result<Connection>>) {
    let Guest { stream, address, arrival, crowd } = guest;
    let time_max = Duration::from_secs(crowd.limits().step_seconds);
    let is_tls = matches!(way, Way::Tls(_));
    let connected = match way {
        Way::Plain => plain(stream, address),
        Way::Tls(tls) => {
            match tokio::time::timeout(time_max, handshake(stream, address, &tls)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
    };
    match connected {
        Ok((stream, peer)) => {
            let name = peer.identity.as_ref().map(|identity| identity.name.as_str());
            let Some(seat) = crowd.settle(address, name) else { return };
            drop(arrival);
            // In plain text there is the caller of development alone.
            let is_stranger = is_tls && peer.identity.is_none();
            let refused = Arc::clone(&peer.refused);
            let stream = Guarded::new(stream, crowd.limits(), seat, is_stranger, refused);
            // Nobody takes it once the service drains.
            drop(ready.send(Ok(Connection { stream, peer })).await);
        }
        Err(error) => tracing::info!(%address, %error, "a connection was refused"),
    }
}

/// A stream, and who is at its other end.
type Connected = (Box<dyn Stream>, Peer);

fn plain(stream: TcpStream, address: SocketAddr) -> io::Result<Connected> {
    stream.set_nodelay(true)?;
    let address = Some(address.ip());
    let peer = Peer { address, planes: Plane::ALL.to_vec(), ..Peer::default() };
    Ok((Box::new(stream), peer))
}

async fn handshake(stream: TcpStream, address: SocketAddr, tls: &Tls) -> io::Result<Connected> {
    stream.set_nodelay(true)?;
    let handshake = tls.begin();
    let stream = TlsAcceptor::from(Arc::clone(&handshake.config)).accept(stream).await?;
    let identity = match stream.get_ref().1.peer_certificates() {
        Some(certificates) => {
            let identity = handshake.identify(certificates);
            Some(Arc::new(identity.map_err(io::Error::other)?))
        }
        None => None,
    };
    let (address, planes) = (Some(address.ip()), tls.planes().to_vec());
    let peer = Peer { address, planes, identity, ..Peer::default() };
    Ok((Box::new(stream), peer))
}

/// A connection that came in, with what is known of its other end.
pub(super) struct Connection {
    stream: Guarded<Box<dyn Stream>>,
    peer: Peer,
}

/// A stream, enciphered or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
