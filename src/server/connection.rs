//! One connection: which protocol it speaks, by looking at its first bytes without taking them, and then hyper with
//! every limit and deadline set. No state of a connection is without an end.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::drain::{Drain, Phase};
use super::exchange::{answer, caught};
use super::settings::Settings;
use super::stream::{Stream, Tcp, WriteTimeout};
use super::tally::{Closed, Tally};
use super::tls::{Certificates, HTTP_2};
use super::{Handler, Peer};

/// How one worker serves its connections.
pub(super) struct Connections<H> {
    handler: Rc<H>,
    http1: http1::Builder,
    /// For connections that carry one request only.
    http1_once: http1::Builder,
    http2: http2::Builder<Spawner>,
    certificates: Option<Arc<Certificates>>,
    handshake_timeout: Duration,
    first_byte_timeout: Duration,
    first_header_timeout: Duration,
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
        Rc::new(Self {
            handler: Rc::new(handler),
            http1: http1_builder(settings, true),
            http1_once: http1_builder(settings, false),
            http2: http2_builder(&tally),
            certificates,
            handshake_timeout: settings.tls.handshake_timeout,
            first_byte_timeout: settings.first_byte_timeout,
            first_header_timeout: settings.header_timeout.min(FIRST_HEADER_TIMEOUT),
            write_timeout: settings.write_timeout,
            drain,
            tally,
        })
    }

    /// Serves a connection to its end. An error is a reason of ours to end it.
    pub(super) async fn serve(self: Rc<Self>, socket: TcpStream, peer: Peer) -> Result<(), Closed> {
        // Without it an answer in two writes waits for the client's delayed acknowledgement.
        let _ = socket.set_nodelay(true);
        if let Some(certificates) = self.certificates.clone() {
            // Boxed, since its state would make the connections larger that need none of it.
            return Box::pin(self.serve_tls(socket, peer, &certificates)).await;
        }
        match self.protocol(&socket).await? {
            Protocol::Http1 => self.serve_http1(socket, peer).await,
            // Boxed, since it is rare and its state would make every connection's larger.
            Protocol::Http2 => Box::pin(self.serve_http2(socket, peer)).await,
            Protocol::Nothing => Ok(()),
        }
    }

    /// The same, behind TLS.
    async fn serve_tls(
        self: Rc<Self>,
        socket: TcpStream,
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

    async fn serve_http1<S>(self: Rc<Self>, socket: S, peer: Peer) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Tcp + Unpin + 'static,
    {
        let stream = Stream::new(socket, self.write_timeout);
        let has_begun = Rc::new(Cell::new(false));
        let service = service_fn({
            let (this, has_begun, is_sending) = (Rc::clone(&self), Rc::clone(&has_begun), stream.is_sending());
            move |request| {
                has_begun.set(true);
                let (this, is_sending) = (Rc::clone(&this), Rc::clone(&is_sending));
                async move {
                    let answer = this.exchange(request, peer).await?;
                    // An answer that closes may leave something unread; any other has read the whole request.
                    is_sending.set(answer.headers().contains_key(CONNECTION));
                    Ok::<_, Infallible>(answer)
                }
            }
        });
        // A connection that comes while we close is served once: `Connection: close` stands in its answer.
        let is_last_call = self.drain.phase() >= Phase::Closing;
        let builder = if is_last_call { &self.http1_once } else { &self.http1 };
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut first_header = Some(Box::pin(sleep(self.first_header_timeout)));
        let mut closing = pin!(self.drain.reached(Phase::Closing));
        let mut is_winding_down = is_last_call;
        let ended = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
                    return Poll::Ready(Ok(ended));
                }
                if has_begun.get() {
                    first_header = None;
                }
                if first_header.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready()) {
                    return Poll::Ready(Err(Closed::Header));
                }
                if is_winding_down || closing.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                is_winding_down = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        })
        .await?;
        if ended.as_ref().is_err_and(hyper::Error::is_user) {
            // Where the end of the connection marks the end of the body (HTTP/1.0), an orderly one would make what was
            // cut look complete.
            connection.into_parts().io.into_inner().reset();
        }
        Closed::outcome(ended, Closed::Header)
    }

    pub(super) async fn serve_http2<S>(self: Rc<Self>, socket: S, peer: Peer) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = TokioIo::new(Stream::new(socket, self.write_timeout));
        let life = Rc::new(Life::begin(peer));
        let service = service_fn({
            let (this, life) = (Rc::clone(&self), Rc::clone(&life));
            move |request| {
                life.begin_request();
                let (this, life) = (Rc::clone(&this), Rc::clone(&life));
                async move {
                    let Ok(answer) = this.exchange(request, peer).await;
                    Ok::<_, Infallible>(answer.map(|body| Followed { body: Box::pin(body), life }))
                }
            }
        });
        let mut connection = pin!(self.http2.serve_connection(io, service));
        // GOAWAY loses nothing, so it comes when the drain begins; a connection that is younger waits for its end.
        let last_phase = if self.drain.is_draining() { Phase::Closing } else { Phase::Draining };
        let mut closing = pin!(self.drain.reached(last_phase));
        let mut timer = Box::pin(sleep_until(life.looked_at_next()));
        let mut over: Option<Closed> = None;
        poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    let ended = Closed::outcome(ended, Closed::Idle);
                    return Poll::Ready(over.map_or(ended, Err));
                }
                let is_due = timer.as_mut().poll(context).is_ready();
                if let (Some(reason), true) = (over, is_due) {
                    return Poll::Ready(Err(reason));
                }
                if over.is_none() {
                    over = life.over(is_due);
                    if over.is_none() && closing.as_mut().poll(context).is_ready() {
                        over = Some(Closed::Drain);
                    }
                    if over.is_some() {
                        connection.as_mut().graceful_shutdown();
                        timer.as_mut().reset(Instant::now() + WIND_DOWN);
                        continue;
                    }
                }
                if !is_due {
                    return Poll::Pending;
                }
                timer.as_mut().reset(life.looked_at_next());
            }
        })
        .await
    }

    async fn exchange(self: Rc<Self>, request: Request<Incoming>, peer: Peer) -> Result<Response<H::Body>, Infallible> {
        Ok(answer(Rc::clone(&self.handler), request, peer, &self.drain, &self.tally).await)
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

fn http1_builder(settings: &Settings, keep_alive: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout.min(LONGEST_IDLE))
        .keep_alive(keep_alive)
        .half_close(false)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .writev(false);
    builder
}

fn http2_builder(tally: &Arc<Tally>) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(Spawner(Arc::clone(tally)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(16 << 10)
        .header_table_size(4 << 10)
        .max_local_error_reset_streams(256)
        .max_pending_accept_reset_streams(20)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Runs the streams of an HTTP/2 connection on the thread of the connection.
#[derive(Clone)]
struct Spawner(Arc<Tally>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let tally = Arc::clone(&self.0);
        tokio::task::spawn_local(async move {
            if caught(stream).await.is_err() {
                tally.add_panic();
                tracing::error!("the answer of a request panicked: it was cut off");
            }
        });
    }
}

/// How long an HTTP/2 connection lives: no connection for ever, none without any progress.
struct Life {
    aged_at: Instant,
    progress_at: Cell<Instant>,
    requests: Cell<u32>,
}

impl Life {
    fn begin(peer: Peer) -> Self {
        let now = Instant::now();
        // Connections that began together do not all end together.
        let spread = Duration::from_secs(u64::from(peer.address.port() % 600));
        Self { aged_at: now + MAX_AGE - spread, progress_at: Cell::new(now), requests: Cell::new(0) }
    }

    fn begin_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
        self.progress();
    }

    fn progress(&self) {
        self.progress_at.set(Instant::now());
    }

    /// When time alone may end this connection.
    fn looked_at_next(&self) -> Instant {
        self.aged_at.min(self.progress_at.get() + MAX_IDLE)
    }

    /// Why this connection should end; the clock is asked only if a timer says so.
    fn over(&self, is_due: bool) -> Option<Closed> {
        if self.requests.get() >= MAX_REQUESTS {
            return Some(Closed::Age);
        }
        let now = is_due.then(Instant::now)?;
        match () {
            () if now >= self.aged_at => Some(Closed::Age),
            () if now >= self.progress_at.get() + MAX_IDLE => Some(Closed::Idle),
            () => None,
        }
    }
}

/// An answer's body on HTTP/2, whose frames are signs of life.
struct Followed<B> {
    body: Pin<Box<B>>,
    life: Rc<Life>,
}

impl<B: Body<Data = Bytes>> Body for Followed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = self.body.as_mut().poll_frame(context);
        if frame.is_ready() {
            self.life.progress();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Closed {
    /// The end of a connection, with our reason for it if it was ours. `timeout` is what hyper's own timer means.
    fn outcome(ended: hyper::Result<()>, timeout: Self) -> Result<(), Self> {
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
/// How long the first header of a connection may take, where `server.header_timeout` allows more to idle ones.
const FIRST_HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Past this hyper's timer could overflow.
const LONGEST_IDLE: Duration = Duration::from_secs(86_400);
/// How long a connection without a first byte is kept when the listener closes.
const LAST_CALL: Duration = Duration::from_millis(100);
/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's header.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// The most that hyper buffers in each direction.
const BUFFER_BYTES: usize = 64 << 10;
/// How long an HTTP/2 connection may make no progress at all.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(300);
/// How long an HTTP/2 connection may live.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3600);
/// How many requests an HTTP/2 connection may carry.
pub(super) const MAX_REQUESTS: u32 = 10_000;
/// How long the streams of an HTTP/2 connection that has been told to go may still take.
pub(super) const WIND_DOWN: Duration = Duration::from_secs(120);
