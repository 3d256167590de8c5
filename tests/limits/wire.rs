//! HTTP/2 by hand: frames as an attacker makes them, from an address of the attacker's choice.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

// RFC 9113, 6.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long one write may be held up before the attacker takes it for a refusal.
const HELD_UP_MAX: Duration = Duration::from_secs(8);

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call (RFC 7541, 6), none of them kept in the table.
pub(crate) fn call(path: &str, encoding: Option<&str>) -> Vec<u8> {
    let text = |octets: &mut Vec<u8>, text: &str| {
        octets.push(u8::try_from(text.len()).expect("a short text"));
        octets.extend_from_slice(text.as_bytes());
    };
    // POST, https; then names of the static table by number and of ours by letter.
    let mut block = vec![0x83, 0x87, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "localhost");
    block.extend_from_slice(&[0x0F, 0x10]);
    text(&mut block, "application/grpc");
    for (name, value) in [("te", Some("trailers")), ("grpc-encoding", encoding)] {
        if let Some(value) = value {
            block.push(0x00);
            text(&mut block, name);
            text(&mut block, value);
        }
    }
    block
}

/// The service, as an attacker without a certificate sees it.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

/// A stream, enciphered or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection of the attacker's.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    pub(crate) sent_bytes: u64,
}

impl Wire {
    /// Connects from an address of the loopback network, and goes through the handshake.
    pub(crate) async fn connect(target: &Target, source: Ipv4Addr) -> io::Result<Self> {
        let bare = bare(target.address, source).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(Arc::clone(&target.tls)).connect(name, bare);
        let stream = tokio::time::timeout(HELD_UP_MAX, connecting).await??;
        Ok(Self { stream: Box::new(stream), read: Vec::new(), sent_bytes: 0 })
    }

    /// Connects without a handshake.
    pub(crate) async fn connect_bare(target: &Target, source: Ipv4Addr) -> io::Result<Self> {
        let stream = bare(target.address, source).await?;
        Ok(Self { stream: Box::new(stream), read: Vec::new(), sent_bytes: 0 })
    }

    /// Sends octets as they are, reads what has come meanwhile, and fails when it is cut off.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.send_deaf(octets).await?;
        let mut read = [0; 16 * 1024];
        // What is there is read, and nothing is waited for.
        while let Ok(read_now) =
            tokio::time::timeout(Duration::ZERO, self.stream.read(&mut read)).await
        {
            match read_now? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // The first answers are kept; nobody looks at more.
                len if self.read.len() < 1024 * 1024 => self.read.extend_from_slice(&read[..len]),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a frame of a type was read.
    pub(crate) fn has_read(&self, kind: u8) -> bool {
        let mut rest = &self.read[..];
        while let [a, b, c, this, _, _, _, _, _, after @ ..] = rest {
            if *this == kind {
                return true;
            }
            let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a length");
            rest = after.get(len..).unwrap_or_default();
        }
        false
    }

    /// Sends octets and never reads.
    pub(crate) async fn send_deaf(&mut self, octets: &[u8]) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        let sending = tokio::time::timeout(HELD_UP_MAX, sending);
        sending.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.sent_bytes += u64::try_from(octets.len()).expect("a length");
        Ok(())
    }

    /// Begins as a client does.
    pub(crate) async fn greet(&mut self) -> io::Result<()> {
        self.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await
    }

    /// Waits until the service closes the connection; fails when it does not in this time.
    pub(crate) async fn closed(&mut self, time_max: Duration) -> io::Result<()> {
        let read_away = async {
            let mut read = [0; 16 * 1024];
            while self.stream.read(&mut read).await.is_ok_and(|len| len > 0) {}
        };
        let closed = tokio::time::timeout(time_max, read_away).await;
        closed.map_err(|_| io::Error::other("the service holds on to it"))
    }
}

async fn bare(service: SocketAddr, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream = socket.connect(service).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
