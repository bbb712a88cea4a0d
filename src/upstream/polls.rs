//! Polls: one worker's connections to the upstream, kept on a stack. A request, its client's socket and its upstream
//! socket stay on one thread, so there is no pool to share and nothing to wait for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Unreached};
use crate::request::route::RequestId;
use crate::upstream::client::{Driver, Upstream};
use crate::upstream::headers::{self, Passed, PollHeaders};
use crate::upstream::key::UpstreamKey;

/// One worker's way to ask about jobs.
pub struct Polls {
    upstream: Arc<Upstream>,
    /// The last one used is on top; the oldest lies at the bottom.
    idle: Mutex<Vec<Idle>>,
    /// The headers for the key used last.
    headers: Mutex<Option<(Arc<UpstreamKey>, Arc<PollHeaders>)>>,
}

/// A connection that waits for its next poll.
struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// Put off for each poll: to put a timer off costs next to nothing, to make one does not.
    patience: Pin<Box<Sleep>>,
    /// Dropped, it closes the connection.
    _driver: Driver,
}

impl Polls {
    /// No connection yet.
    pub fn new(upstream: Arc<Upstream>) -> Arc<Self> {
        Arc::new(Self { upstream, idle: Mutex::default(), headers: Mutex::default() })
    }

    /// Asks about a job. The answer's headers are cleaned; its body is to be relayed by [`crate::upstream::relay`].
    ///
    /// # Errors
    /// Why there is no answer that may be passed on.
    pub async fn get(self: &Arc<Self>, id: &RequestId, passed: &Passed) -> Result<Response<PolledBody>, PollFailure> {
        self.get_by(self.upstream.key(), id, passed, Instant::now()).await
    }

    /// The same, with a key of this job's own, begun `now`.
    ///
    /// # Errors
    /// Why there is no answer that may be passed on.
    pub async fn get_by(
        self: &Arc<Self>,
        key: Arc<UpstreamKey>,
        id: &RequestId,
        passed: &Passed,
        now: Instant,
    ) -> Result<Response<PolledBody>, PollFailure> {
        let (response, connection) = self.ask(id, passed, &key, now).await?;
        let (mut parts, incoming) = response.into_parts();
        let encoded = headers::is_encoded(&parts.headers);
        match parts.status {
            _ if headers::is_ambiguous(&parts.headers) => return Err(PollFailure::Broken),
            StatusCode::UNAUTHORIZED => return Err(PollFailure::KeyRefused),
            // A redirect would lead the key astray, and an encoded error may hide it (M32).
            status if !(200..=299).contains(&status.as_u16()) && (encoded || !is_error(status)) => {
                return Err(PollFailure::Broken);
            }
            _ => {}
        }
        headers::answer(&mut parts.headers, key.pattern());
        // hyper would pass on the upstream's own reason phrase, which nobody reads but which may hold the key.
        parts.extensions.clear();
        let mut body = PolledBody { incoming, connection: Some(connection), home: self.clone(), key, encoded };
        body.settle();
        Ok(Response::from_parts(parts, body))
    }

    /// Asks, and once more on a new connection if the first one failed before an answer: a GET buys nothing.
    async fn ask(
        &self,
        id: &RequestId,
        passed: &Passed,
        key: &Arc<UpstreamKey>,
        now: Instant,
    ) -> Result<(Response<Incoming>, Connection), PollFailure> {
        let deadline = now + self.upstream.poll_timeout;
        let headers = self.headers(key);
        let request = || self.upstream.poll_request(id, passed, &headers, Empty::new()).ok_or(PollFailure::Broken);
        let first = match self.take(now) {
            Some(connection) => connection,
            None => self.connect(deadline).await?,
        };
        match first.ask(request()?, deadline).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Silent) => Err(PollFailure::Timeout),
            Err(Failure::Broken(error)) if error.is_parse() => Err(PollFailure::Broken),
            Err(Failure::Broken(_)) => {
                let second = self.connect(deadline).await?.ask(request()?, deadline).await;
                second.map_err(|failure| match failure {
                    Failure::Silent => PollFailure::Timeout,
                    Failure::Broken(_) => PollFailure::Broken,
                })
            }
        }
    }

    fn headers(&self, key: &Arc<UpstreamKey>) -> Arc<PollHeaders> {
        let mut last = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, headers)) if Arc::ptr_eq(of, key) => headers.clone(),
            _ => last.insert((key.clone(), Arc::new(self.upstream.poll_headers(key)))).1.clone(),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, PollFailure> {
        // Small requests are cheaper copied into one buffer than written from two (`writev`).
        let opening = timeout_at(deadline, self.upstream.open(false));
        let opened = opening.await.map_err(|_| PollFailure::Timeout)?;
        let (sender, driver) = opened.map_err(PollFailure::Unreached)?;
        Ok(Connection { sender, patience: Box::pin(sleep_until(deadline)), _driver: driver })
    }

    /// The connection used last, if it is still good.
    fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(top) = idle.pop() {
            if now.saturating_duration_since(top.since) >= self.upstream.idle_timeout {
                idle.clear();
                return None;
            }
            if !top.connection.sender.is_closed() {
                return Some(top.connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    fn give_back(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.upstream.idle_connections {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes the connections that have waited too long, or that the upstream has closed. To be called now and then.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept_for = self.upstream.idle_timeout;
        idle.retain(|one| one.since.elapsed() < kept_for && !one.connection.sender.is_closed());
    }

    /// How many connections wait.
    pub fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How long a piece of an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.upstream.poll_timeout
    }

    /// Where tasks that outlive a request are counted.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.upstream.tasks
    }
}

impl Connection {
    async fn ask(
        mut self,
        request: Request<Empty<Bytes>>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Self), Failure> {
        self.patience.as_mut().reset(deadline);
        let response = tokio::select! {
            biased;
            response = async {
                // The driver says when the last answer is wholly behind it.
                self.sender.ready().await?;
                self.sender.send_request(request).await
            } => response?,
            () = self.patience.as_mut() => return Err(Failure::Silent),
        };
        Ok((response, self))
    }
}

/// Why a connection gave no answer.
enum Failure {
    /// None came in time.
    Silent,
    /// It broke, or what came is none.
    Broken(hyper::Error),
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

/// Whether a status is an error of the upstream's.
fn is_error(status: StatusCode) -> bool {
    (400..=599).contains(&status.as_u16())
}

/// Why a poll has no answer that may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollFailure {
    /// The upstream could not be reached.
    Unreached(Unreached),
    /// It did not answer in time.
    Timeout,
    /// The connection broke, or what came is no answer.
    Broken,
    /// It refused our key.
    KeyRefused,
}

impl From<PollFailure> for Error {
    fn from(failure: PollFailure) -> Self {
        match failure {
            PollFailure::Unreached(why) => Self::UpstreamUnreachable(why),
            PollFailure::Timeout => Self::UpstreamTimeout,
            PollFailure::Broken => Self::UpstreamInvalidAnswer,
            PollFailure::KeyRefused => Self::UpstreamKeyRefused,
        }
    }
}

/// The body of a polled answer. Read to its end, it gives its connection back; dropped before, it closes it.
pub struct PolledBody {
    incoming: Incoming,
    connection: Option<Connection>,
    home: Arc<Polls>,
    key: Arc<UpstreamKey>,
    encoded: bool,
}

impl PolledBody {
    /// Whether it is in a content coding, so that it cannot be read on the way.
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }

    /// The key that it was asked for with.
    pub fn key(&self) -> &UpstreamKey {
        &self.key
    }

    pub(super) fn home(&self) -> &Polls {
        &self.home
    }

    fn settle(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            self.home.give_back(connection);
        }
    }
}

impl Body for PolledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => {
                if let Some(connection) = self.connection.take() {
                    self.home.give_back(connection);
                }
            }
            Poll::Ready(Some(Ok(_))) => self.settle(),
            Poll::Ready(Some(Err(_))) => self.connection = None,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests;
