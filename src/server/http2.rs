//! HTTP/2 on one connection: hyper with every limit set, and a life that ends: no connection for ever, none without any
//! progress.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::connection::{BUFFER_BYTES, Connections};
use super::drain::Phase;
use super::exchange::answer;
use super::sending::Streams;
use super::settings::Http2;
use super::socket::Connected;
use super::stream::Stream;
use super::tally::Closed;
use super::{Handler, Peer};

impl<H: Handler> Connections<H> {
    /// Serves a connection to its end.
    pub(super) async fn serve_http2<S>(self: Rc<Self>, connection: S, peer: Peer) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Connected + Unpin + 'static,
    {
        let io = TokioIo::new(Stream::new(connection));
        let life = Rc::new(Life::begin(peer, self.life));
        let service = service_fn({
            let (this, life) = (Rc::clone(&self), Rc::clone(&life));
            move |request| {
                life.begin_request();
                let (this, life) = (Rc::clone(&this), Rc::clone(&life));
                async move {
                    // Boxed, so that what answered a request is given back while its answer waits for a window.
                    let (handler, of_body) = (Rc::clone(&this.handler), Some(Rc::clone(&life)));
                    let answering = answer(handler, request, peer, of_body, &this.drain, &this.tally);
                    let answer = Box::pin(answering).await;
                    Ok::<_, Infallible>(answer.map(|body| this.streams.begin(body, life)))
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
}

/// The builder of HTTP/2 connections.
pub(super) fn builder<H: Handler>(settings: &Http2, streams: &Streams<H>) -> http2::Builder<Streams<H>> {
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.header_list)
        .header_table_size(4 << 10)
        .max_local_error_reset_streams(256)
        .max_pending_accept_reset_streams(20)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout);
    builder
}

/// How long connections may live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    idle_timeout: Duration,
    max_age: Duration,
    max_requests: u32,
}

impl Bounds {
    pub(super) fn new(settings: &Http2) -> Self {
        let Http2 { idle_timeout, max_age, max_requests, .. } = *settings;
        Self { idle_timeout, max_age, max_requests }
    }
}

/// How long an HTTP/2 connection lives: no connection for ever, none without any progress.
#[derive(Debug)]
pub(super) struct Life {
    aged_at: Instant,
    progress_at: Cell<Instant>,
    requests: Cell<u32>,
    /// How many bytes of answers that the client has no room for were fetched.
    pub(super) fetched: Cell<usize>,
    bounds: Bounds,
}

impl Life {
    fn begin(peer: Peer, bounds: Bounds) -> Self {
        let now = Instant::now();
        // Connections that began together do not all end together.
        let spread = bounds.max_age * u32::from(peer.address.port() % 600) / SPREAD;
        let aged_at = now + bounds.max_age.saturating_sub(spread);
        Self { aged_at, progress_at: Cell::new(now), requests: Cell::new(0), fetched: Cell::new(0), bounds }
    }

    fn begin_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
        self.progress();
    }

    /// There is progress, now.
    pub(super) fn progress(&self) -> Instant {
        let now = Instant::now();
        self.progress_at.set(now);
        now
    }

    /// When time alone may end this connection.
    fn looked_at_next(&self) -> Instant {
        self.aged_at.min(self.progress_at.get() + self.bounds.idle_timeout)
    }

    /// Why this connection should end; the clock is asked only if a timer says so.
    fn over(&self, is_due: bool) -> Option<Closed> {
        if self.requests.get() >= self.bounds.max_requests {
            return Some(Closed::Age);
        }
        let now = is_due.then(Instant::now)?;
        match () {
            () if now >= self.aged_at => Some(Closed::Age),
            () if now >= self.progress_at.get() + self.bounds.idle_timeout => Some(Closed::Idle),
            () => None,
        }
    }
}

/// How long the streams of an HTTP/2 connection that has been told to go may still take.
pub(super) const WIND_DOWN: Duration = Duration::from_secs(120);
/// Connections that began together end over a sixth of the age that they may have.
const SPREAD: u32 = 3600;
