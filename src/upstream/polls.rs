//! Polls: one worker's connections to the upstream, kept on a stack. A request, its client's socket and its upstream
//! socket stay on one thread, so there is no pool to share and nothing to wait for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Unreached};
use crate::request::route::RequestId;
use crate::upstream::client::Upstream;
use crate::upstream::headers::Passed;
use crate::upstream::poll_key::{PollKey, PollKeys};
use crate::upstream::wire::{Framing, Head, Names, Wire, WireError};

/// One worker's way to ask about jobs.
pub struct Polls {
    upstream: Arc<Upstream>,
    /// The last one used is on top; the oldest lies at the bottom.
    idle: Mutex<Vec<Idle>>,
    keys: PollKeys,
    /// How the fields of the last answer were called.
    names: Mutex<Names>,
}

/// A connection that waits for its next poll.
struct Idle {
    connection: Box<Connection>,
    /// When the last one began: what the time is at its end is not worth asking for.
    since: Instant,
}

/// Boxed, because it goes from hand to hand.
struct Connection {
    wire: Wire,
    /// Put off for each poll: to put a timer off costs next to nothing, to make one does not.
    patience: Pin<Box<Sleep>>,
}

impl Polls {
    /// No connection yet.
    pub fn new(upstream: Arc<Upstream>) -> Arc<Self> {
        let keys = PollKeys::new(upstream.clone());
        Arc::new(Self { upstream, idle: Mutex::default(), keys, names: Mutex::default() })
    }

    /// The key of this id, as long as it is known, else the one that new requests carry.
    pub fn key(&self, id: Option<&str>) -> Arc<PollKey> {
        self.keys.get(&self.upstream, id)
    }

    /// Asks about a job, with this key, begun `now`. The answer's headers are cleaned; its body is to be relayed by
    /// [`crate::upstream::relay`].
    ///
    /// # Errors
    /// Why there is no answer that may be passed on.
    pub async fn get(
        self: &Arc<Self>,
        key: &Arc<PollKey>,
        id: &RequestId,
        passed: &Passed,
        now: Instant,
    ) -> Result<Response<PolledBody>, PollFailure> {
        let (head, connection) = self.ask(id, passed, key, now).await?;
        match head.status {
            StatusCode::UNAUTHORIZED => return Err(PollFailure::KeyRefused),
            // A redirect would lead the key astray, and an encoded error may hide it (M32).
            status if !(200..=299).contains(&status.as_u16()) && (head.is_encoded || !is_error(status)) => {
                return Err(PollFailure::Broken);
            }
            _ => {}
        }
        let Head { framing, keeps, is_encoded: encoded, .. } = head;
        let mut body = PolledBody {
            framing,
            connection: Some(connection),
            broken: None,
            keeps,
            home: self.clone(),
            key: key.clone(),
            encoded,
            begun: now,
        };
        body.settle();
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        Ok(answer)
    }

    /// Asks, and once more on a new connection if the first one failed before an answer: a GET buys nothing.
    async fn ask(
        &self,
        id: &RequestId,
        passed: &Passed,
        key: &PollKey,
        now: Instant,
    ) -> Result<(Head, Box<Connection>), PollFailure> {
        let deadline = now + self.upstream.poll_timeout;
        let request = || key.heads().poll(id, passed);
        let mut connection = match self.take(now) {
            Some(connection) => connection,
            None => Box::pin(self.connect(deadline)).await?,
        };
        let mut answer = connection.ask(request(), key, &self.names, deadline).await;
        if matches!(answer, Err(Failure::Cut)) {
            connection = Box::pin(self.connect(deadline)).await?;
            answer = connection.ask(request(), key, &self.names, deadline).await;
        }
        match answer {
            Ok(head) => Ok((head, connection)),
            Err(Failure::Silent) => Err(PollFailure::Timeout),
            Err(Failure::Cut | Failure::Malformed) => Err(PollFailure::Broken),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Box<Connection>, PollFailure> {
        let opened = timeout_at(deadline, self.upstream.wire()).await.map_err(|_| PollFailure::Timeout)?;
        let wire = opened.map_err(PollFailure::Unreached)?;
        Ok(Box::new(Connection { wire, patience: Box::pin(sleep_until(deadline)) }))
    }

    /// The connection used last, if it is still good.
    fn take(&self, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut top) = idle.pop() {
            let is_fresh = now.saturating_duration_since(top.since) < self.upstream.idle_timeout;
            if is_fresh && top.connection.wire.is_quiet() {
                return Some(top.connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end, for a poll that began then.
    fn give_back(&self, connection: Box<Connection>, since: Instant) {
        // What came behind an answer is never the next one.
        if !connection.wire.is_empty() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.upstream.idle_connections {
            idle.push(Idle { connection, since });
        }
    }

    /// Closes the connections that have waited too long, or that the upstream has closed. To be called now and then.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept_for = self.upstream.idle_timeout;
        idle.retain_mut(|one| one.since.elapsed() < kept_for && one.connection.wire.is_quiet());
    }

    /// How many connections wait.
    pub fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How long a piece of an answer may take, and an answer that is read whole before any of it is passed on.
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
        &mut self,
        request: Vec<u8>,
        key: &PollKey,
        names: &Mutex<Names>,
        deadline: Instant,
    ) -> Result<Head, Failure> {
        self.patience.as_mut().reset(deadline);
        tokio::select! {
            biased;
            head = self.wire.ask(request, key.pattern(), names) => Ok(head?),
            () = self.patience.as_mut() => Err(Failure::Silent),
        }
    }
}

/// Why a connection gave no answer.
enum Failure {
    /// None came in time.
    Silent,
    /// It broke before one came.
    Cut,
    /// What came is none.
    Malformed,
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Cut(_) => Self::Cut,
            WireError::Malformed(_) => Self::Malformed,
        }
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
            PollFailure::Timeout => Self::PollTimeout,
            PollFailure::Broken => Self::PollUnreadable,
            PollFailure::KeyRefused => Self::UpstreamKeyRefused,
        }
    }
}

/// The body of a polled answer. Read to its end, it gives its connection back; dropped before, it closes it.
pub struct PolledBody {
    framing: Framing,
    /// None once it was given back, or broke.
    connection: Option<Box<Connection>>,
    /// How it broke, until that is told.
    broken: Option<WireError>,
    /// Whether the connection may carry another poll.
    keeps: bool,
    home: Arc<Polls>,
    key: Arc<PollKey>,
    encoded: bool,
    begun: Instant,
}

impl PolledBody {
    /// Whether it is in a content coding, so that it cannot be read on the way.
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }

    /// The key that it was asked for with.
    pub fn key(&self) -> &PollKey {
        &self.key
    }

    /// When the poll began that it answers.
    pub(super) const fn begun(&self) -> Instant {
        self.begun
    }

    /// Nothing more is wanted of it: its connection is closed.
    pub(super) fn abandon(&mut self) {
        self.connection = None;
    }

    pub(super) fn home(&self) -> &Polls {
        &self.home
    }

    /// Nothing more is wanted of the connection once the body is over.
    fn settle(&mut self) {
        if self.framing.is_over()
            && let Some(connection) = self.connection.take().filter(|_| self.keeps)
        {
            self.home.give_back(connection, self.begun);
        }
    }
}

impl Body for PolledBody {
    type Data = Bytes;
    type Error = WireError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else { return Poll::Ready(this.broken.take().map(Err)) };
        match ready!(connection.wire.poll_piece(&mut this.framing, cx)) {
            Ok(data) => {
                this.settle();
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
            Err(error) => {
                this.connection = None;
                this.broken = Some(error);
                // What came before goes out first: whoever is told of a break drops at once what it still holds.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.framing.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests;
