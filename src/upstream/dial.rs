//! A new connection to the upstream: name, TCP, TLS, all within one deadline. Proxy variables of the environment are
//! not read: the key goes to the configured origin and nowhere else. Nothing of HTTP has been sent when this fails.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use crate::error::Unreached;
use crate::upstream::origin::Origin;
use crate::upstream::resolver::Resolver;
use crate::upstream::tls;

/// What opens connections.
pub(super) struct Dialer {
    origin: Origin,
    resolver: Resolver,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Dialer {
    /// Towards `origin`; `config` is used if that is `https`. `None`: the host can stand in no certificate.
    pub(super) fn new(origin: Origin, config: Arc<rustls::ClientConfig>, timeout: Duration) -> Option<Self> {
        let tls = match origin.tls() {
            true => Some((TlsConnector::from(config), ServerName::try_from(origin.host().to_owned()).ok()?)),
            false => None,
        };
        let resolver = Resolver::system(origin.host(), origin.port());
        Some(Self { origin, resolver, tls, timeout })
    }

    /// Asks another than the system's resolver.
    #[cfg(test)]
    pub(super) fn set_resolver(&mut self, resolver: Resolver) {
        self.resolver = resolver;
    }

    /// A connection, ready for its first byte of HTTP.
    pub(super) async fn dial(&self) -> Result<Stream, Unreached> {
        let deadline = Instant::now() + self.timeout;
        let tcp = self.connect(deadline).await?;
        // Without it a request in two writes would wait for a delayed acknowledgement. It is not worth failing for.
        _ = tcp.set_nodelay(true);
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        match timeout_at(deadline, connector.connect(name.clone(), tcp)).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                debug!(%error, "the TLS handshake with the upstream failed");
                Err(tls::reason(&error))
            }
            Err(_) => Err(Unreached::Timeout),
        }
    }

    /// The first address that takes a connection. Each gets an equal share of the time that is left, so that a dead
    /// first one does not use it up.
    async fn connect(&self, deadline: Instant) -> Result<TcpStream, Unreached> {
        let addresses = self.addresses(deadline).await?;
        let mut failure = Unreached::Dns;
        for (index, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            failure = match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    debug!(%address, %error, "an address of the upstream takes no connection");
                    if error.kind() == io::ErrorKind::TimedOut { Unreached::Timeout } else { Unreached::Refused }
                }
                Err(_) => Unreached::Timeout,
            };
        }
        Err(failure)
    }

    async fn addresses(&self, deadline: Instant) -> Result<Arc<[SocketAddr]>, Unreached> {
        match self.origin.address() {
            Some(address) => Ok([SocketAddr::new(address, self.origin.port())].into()),
            None => self.resolver.resolve(deadline).await,
        }
    }
}

/// A connection's bytes, with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket itself.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Says farewell where the protocol has one. A plain connection ends when it is dropped, without a `shutdown` before.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
