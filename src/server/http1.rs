//! HTTP/1 on one connection. As long as it has something in work it is hyper's; once it has been idle for a moment it is
//! parked: hyper and its buffers are dropped, and the bare socket waits for the next bytes. Clients that poll are idle
//! nearly always, so what an idle connection costs is what most connections cost.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::Connections;
use super::drain::Phase;
use super::exchange::answer;
use super::pulse::{Look, Pulse, Watch};
use super::settings::Settings;
use super::socket::Connected;
use super::stream::Stream;
use super::tally::Closed;
use super::{Handler, Peer};

/// How a stay with hyper ends.
enum Stay<S> {
    /// There is nothing to do now.
    Idle(Stream<S>),
    /// The connection is over; an error is a reason of ours.
    Over(Result<(), Closed>),
}

impl<H: Handler> Connections<H> {
    /// Serves a connection to its end.
    pub(super) async fn serve_http1<S>(self: Rc<Self>, connection: S, peer: Peer) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Connected<Tcp = TcpStream> + Unpin + 'static,
    {
        let mut stream = Stream::new(connection);
        let mut patience = self.first_header_timeout;
        let mut deadline = Instant::now() + patience;
        let mut moves = stream.pulse().moves();
        loop {
            // Boxed, so that it is gone while the connection is parked.
            match Box::pin(Rc::clone(&self).stay(stream, peer, patience)).await {
                Stay::Over(ended) => return ended,
                Stay::Idle(idle) => stream = idle,
            }
            if stream.pulse().has_begun() {
                patience = self.header_timeout;
            }
            if stream.has_unread() {
                continue;
            }
            // The socket also wakes for what is no byte of HTTP yet, part of a TLS record: that gives no more time.
            let now = Instant::now();
            if std::mem::replace(&mut moves, stream.pulse().moves()) != stream.pulse().moves() {
                deadline = now + patience;
            } else if now >= deadline {
                return Err(Closed::Header);
            }
            tokio::select! {
                biased;
                next = timeout_at(deadline, stream.tcp().readable()) => {
                    // What has become of the socket is told to whoever reads it.
                    _ = next.map_err(|_| Closed::Header)?;
                }
                () = self.drain.reached(Phase::Closing) => return Ok(()),
            }
        }
    }

    /// Hands the connection to hyper until it is over or idle.
    async fn stay<S>(self: Rc<Self>, stream: Stream<S>, peer: Peer, patience: Duration) -> Stay<S>
    where
        S: AsyncRead + AsyncWrite + Connected<Tcp = TcpStream> + Unpin + 'static,
    {
        let pulse = Rc::clone(stream.pulse());
        let service = service_fn({
            let (this, pulse) = (Rc::clone(&self), Rc::clone(&pulse));
            move |request| {
                let (this, work) = (Rc::clone(&this), Work::begin(&pulse));
                async move {
                    let answer = answer(Rc::clone(&this.handler), request, peer, None, &this.drain, &this.tally).await;
                    // An answer that closes may leave something unread; any other has read the whole request.
                    work.0.set_sending(answer.headers().contains_key(CONNECTION));
                    Ok::<_, Infallible>(answer.map(|body| Worked { body, _work: work }))
                }
            }
        });
        // A connection that comes while we close is served once: `Connection: close` stands in its answer.
        let is_last_call = self.drain.phase() >= Phase::Closing;
        let builder = if is_last_call { &self.http1_once } else { &self.http1 };
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut watch = Watch::begin(Instant::now(), patience, self.header_timeout);
        let mut timer = pin!(sleep(watch.pause()));
        let mut told: Option<Waker> = None;
        let mut closing = pin!(self.drain.reached(Phase::Closing));
        let mut is_winding_down = is_last_call;
        let ended = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
                    return Poll::Ready(Ok(Some(ended)));
                }
                if !is_winding_down && closing.as_mut().poll(context).is_ready() {
                    is_winding_down = true;
                    Pin::new(&mut connection).graceful_shutdown();
                    continue;
                }
                // Each poll of a timer costs two locked instructions, and nothing has changed as long as it runs and will
                // wake whoever is asking.
                if !timer.is_elapsed() && told.as_ref().is_some_and(|told| told.will_wake(context.waker())) {
                    return Poll::Pending;
                }
                told = Some(context.waker().clone());
                // Whatever else this task has done: a timer that is not looked at would wake nobody.
                ready!(pin!(unconstrained(timer.as_mut())).poll(context));
                told = None;
                match watch.look(&pulse, Instant::now()) {
                    Look::Again(at) => timer.as_mut().reset(at),
                    Look::TooLong => return Poll::Ready(Err(Closed::Header)),
                    Look::Idle => return Poll::Ready(Ok(None)),
                }
            }
        })
        .await;
        match ended {
            Err(reason) => Stay::Over(Err(reason)),
            Ok(None) => {
                let parts = connection.into_parts();
                // Copied, because what is nearly nothing would keep hyper's whole buffer.
                Stay::Idle(parts.io.into_inner().with_unread(Bytes::copy_from_slice(&parts.read_buf)))
            }
            Ok(Some(ended)) => {
                if ended.as_ref().is_err_and(hyper::Error::is_user) {
                    // Where the end of the connection marks the end of the body (HTTP/1.0), an orderly one would make
                    // what was cut look complete.
                    connection.into_parts().io.into_inner().reset();
                }
                Stay::Over(Closed::outcome(ended, Closed::Header))
            }
        }
    }
}

/// The builder of HTTP/1 connections. Its own timer for headers is off: it would be made anew for each request, and
/// [`Watch`] sees the same from outside.
pub(super) fn builder(settings: &Settings, keep_alive: bool) -> http1::Builder {
    let max_header_size = usize::try_from(settings.headers.bytes).unwrap_or(usize::MAX);
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .keep_alive(keep_alive)
        .half_close(false)
        .max_header_size(max_header_size)
        .max_buf_size(super::connection::BUFFER_BYTES)
        .writev(false);
    builder
}

/// How long the first header of a connection may take, where `server.header_timeout` allows more to idle ones.
pub(super) fn first_header_timeout(settings: &Settings) -> Duration {
    settings.header_timeout.min(FIRST_HEADER_TIMEOUT)
}

/// How long an idle connection is kept, and how long a header may take.
pub(super) fn header_timeout(settings: &Settings) -> Duration {
    settings.header_timeout.min(LONGEST_IDLE)
}

/// A request in work, until its answer's last byte was handed on.
struct Work(Rc<Pulse>);

impl Work {
    fn begin(pulse: &Rc<Pulse>) -> Self {
        pulse.begin_request();
        Self(Rc::clone(pulse))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// An answer's body, and the work that ends with it.
struct Worked<B> {
    body: B,
    _work: Work,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Worked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const FIRST_HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// More than anybody keeps a connection, and little enough to be added to any moment.
const LONGEST_IDLE: Duration = Duration::from_secs(86_400);
