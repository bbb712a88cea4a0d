//! One connection: which protocol it speaks, by looking at its first bytes without taking them, and then hyper with
//! every limit and deadline set. No state of a connection is without an end.

use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::drain::{Drain, Phase};
use super::sending::Streams;
use super::settings::Settings;
use super::socket::{Socket, WriteTimeout};
use super::tally::{Closed, Tally};
use super::tls::{Certificates, HTTP_2};
use super::{Handler, Peer, http1, http2};

/// How one worker serves its connections.
pub(super) struct Connections<H: Handler> {
    pub(super) handler: Rc<H>,
    pub(super) http1: hyper::server::conn::http1::Builder,
    /// For connections that carry one request only.
    pub(super) http1_once: hyper::server::conn::http1::Builder,
    pub(super) http2: hyper::server::conn::http2::Builder<Streams<H>>,
    pub(super) streams: Streams<H>,
    pub(super) life: http2::Bounds,
    certificates: Option<Arc<Certificates>>,
    handshake_timeout: Duration,
    first_byte_timeout: Duration,
    pub(super) first_header_timeout: Duration,
    pub(super) header_timeout: Duration,
    write_timeout: Duration,
    pub(super) drain: Drain,
    pub(super) tally: Arc<Tally>,
}

impl<H: Handler> Connections<H> {
    pub(super) fn new(
        handler: H,
        settings: &Settings,
        drain: Drain,
        tally: Arc<Tally>,
        certificates: Option<Arc<Certificates>>,
    ) -> Rc<Self> {
        let streams = Streams::new(Arc::clone(&tally), settings.write_timeout);
        Rc::new(Self {
            handler: Rc::new(handler),
            http1: http1::builder(settings, true),
            http1_once: http1::builder(settings, false),
            http2: http2::builder(&settings.http2, &streams),
            streams,
            life: http2::Bounds::new(&settings.http2),
            certificates,
            handshake_timeout: settings.tls.handshake_timeout,
            first_byte_timeout: settings.first_byte_timeout,
            first_header_timeout: http1::first_header_timeout(settings),
            header_timeout: http1::header_timeout(settings),
            write_timeout: settings.write_timeout,
            drain,
            tally,
        })
    }

    /// Serves a connection to its end. An error is a reason of ours to end it.
    pub(super) async fn serve(self: Rc<Self>, socket: TcpStream, peer: Peer) -> Result<(), Closed> {
        // Without it an answer in two writes waits for the client's delayed acknowledgement.
        let _ = socket.set_nodelay(true);
        let socket = Socket::new(socket, self.write_timeout);
        if let Some(certificates) = self.certificates.clone() {
            // Boxed, since its state would make the connections larger that need none of it.
            return Box::pin(self.serve_tls(socket, peer, &certificates)).await;
        }
        match self.protocol(socket.tcp()).await? {
            Protocol::Http1 => self.serve_http1(socket, peer).await,
            // Boxed, since it is rare and its state would make every connection's larger.
            Protocol::Http2 => Box::pin(self.serve_http2(socket, peer)).await,
            Protocol::Nothing => Ok(()),
        }
    }

    /// The same, behind TLS.
    async fn serve_tls(
        self: Rc<Self>,
        socket: Socket<TcpStream>,
        peer: Peer,
        certificates: &Certificates,
    ) -> Result<(), Closed> {
        let handshake = timeout(self.handshake_timeout, certificates.acceptor().accept(socket));
        let stream = tokio::select! {
            biased;
            done = handshake => match done {
                Ok(Ok(stream)) => stream,
                // The client left without a word, as load balancers do to see whether somebody listens.
                Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(_)) | Err(_) => return Err(Closed::Tls),
            },
            () = self.last_call() => return Err(Closed::Drain),
        };
        if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
            self.serve_http2(stream, peer).await
        } else {
            self.serve_http1(stream, peer).await
        }
    }

    /// Which protocol the client speaks.
    async fn protocol(&self, socket: &TcpStream) -> Result<Protocol, Closed> {
        tokio::select! {
            biased;
            told = timeout(self.first_byte_timeout, sniff(socket)) => told.unwrap_or(Err(Closed::FirstByte)),
            () = self.last_call() => Err(Closed::Drain),
        }
    }

    /// The listener has closed, and a client that connected in the last moment has had time for its first bytes.
    async fn last_call(&self) {
        self.drain.reached(Phase::Closing).await;
        sleep(LAST_CALL).await;
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// The client left without a word.
    Nothing,
}

/// Looks at the first bytes until they tell the protocol. They stay in the socket.
async fn sniff(socket: &TcpStream) -> Result<Protocol, Closed> {
    let mut seen = [0; HTTP2_PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    loop {
        let bytes = match socket.peek(&mut seen).await {
            Ok(count) if count > 0 => seen.get(..count).unwrap_or_default(),
            _ => return Ok(Protocol::Nothing),
        };
        if !HTTP2_PREFACE.starts_with(bytes) {
            return Ok(Protocol::Http1);
        }
        if bytes.len() == HTTP2_PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        // Part of the preface is there, so the socket stays readable and cannot tell when more comes.
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(64));
    }
}

impl Closed {
    /// The end of a connection, with our reason for it if it was ours. `timeout` is what hyper's own timer means.
    pub(super) fn outcome(ended: hyper::Result<()>, timeout: Self) -> Result<(), Self> {
        let Err(error) = ended else { return Ok(()) };
        if error.is_timeout() {
            return Err(timeout);
        }
        if error.is_parse() {
            return Err(Self::Protocol);
        }
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<std::io::Error>() {
                let is_ours = cause.get_ref().is_some_and(|inner| inner.is::<WriteTimeout>());
                return if is_ours { Err(Self::Write) } else { Ok(()) };
            }
            source = cause.source();
        }
        Ok(())
    }
}

/// The first bytes of HTTP/2 (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection without a first byte is kept when the listener closes.
const LAST_CALL: Duration = Duration::from_millis(100);
/// The most that hyper buffers in each direction.
pub(super) const BUFFER_BYTES: usize = 64 << 10;
