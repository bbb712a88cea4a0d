//! Bodies of requests: read whole, within a limit of bytes each and in all, and within a deadline that follows the
//! bytes. What is refused is refused before the first byte is asked for, so that no `100 Continue` invites it.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::http2::Life;
use super::settings::Settings;
use crate::error::Error;

/// The body of a request as it comes. If it is dropped before its end, the answer closes the connection.
#[derive(Debug)]
pub struct Upload {
    incoming: Incoming,
    reading: Reading,
    /// The life of its connection, if that wants to see progress.
    life: Option<Rc<Life>>,
}

impl Upload {
    pub(super) fn new(incoming: Incoming, life: Option<Rc<Life>>) -> (Self, Reading) {
        let reading = Reading((!incoming.is_end_stream()).then(|| Arc::new(AtomicBool::new(true))));
        (Self { incoming, reading: reading.clone(), life }, reading)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.reading.end();
        }
        if let (Some(life), Some(Ok(_))) = (&self.life, &frame) {
            life.progress();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Whether a request's body has been read to its end; nothing for a request without one.
#[derive(Clone, Debug)]
pub(super) struct Reading(Option<Arc<AtomicBool>>);

impl Reading {
    pub(super) fn is_unread(&self) -> bool {
        self.0.as_ref().is_some_and(|unread| unread.load(Ordering::Relaxed))
    }

    fn end(&self) {
        if let Some(unread) = &self.0 {
            unread.store(false, Ordering::Relaxed);
        }
    }
}

/// How long a body may be, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    max_body: u64,
    read_timeout: Duration,
    /// Bytes that buy another second.
    min_rate: u64,
}

impl Limits {
    /// The limits of the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            max_body: settings.max_body,
            read_timeout: settings.read_timeout.min(LONGEST),
            min_rate: settings.min_rate.max(1),
        }
    }

    /// The same, for bodies that are never long.
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.max_body = self.max_body.min(bytes);
        self
    }

    /// When the next bytes must have come. Each that came allows for more time, so that a slow body may be long; but never
    /// for more than `read_timeout` from now, so that what has stalled does not keep its memory for what it sent before.
    pub(super) fn allow(&self, deadline: Instant, now: Instant, bytes: usize) -> Instant {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let more = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.min_rate);
        (deadline + more).min(now + self.read_timeout)
    }
}

/// A complete body and its share of [`BodyMemory`], which is given back with the body's last clone or slice.
struct Held {
    bytes: Bytes,
    _permit: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body whole. It keeps its share of `memory` as long as any of it is in memory.
///
/// # Errors
/// [`Error::BodyTooLarge`], [`Error::Overloaded`] when there is no memory for it, [`Error::RequestTimeout`],
/// [`Error::Aborted`] when the client left or cut it short, [`Error::BadRequest`] when its chunks are malformed.
pub async fn read(upload: Upload, limits: &Limits, memory: &BodyMemory) -> Result<Bytes, Error> {
    let too_large = Error::BodyTooLarge { limit: limits.max_body };
    let announced = upload.size_hint().exact();
    if announced.is_some_and(|length| length > limits.max_body) {
        return Err(too_large);
    }
    let mut gathered = Gathered::begin(memory, announced)?;
    let mut upload = upload;
    // Most bodies are there with their header, and need no clock.
    let mut deadline = None;
    loop {
        let frame = tokio::select! {
            biased;
            frame = upload.frame() => frame,
            () = async { sleep_until(*deadline.get_or_insert_with(|| Instant::now() + limits.read_timeout)).await } => {
                return Err(Error::RequestTimeout);
            }
        };
        let Some(frame) = frame.transpose().map_err(|error| broken(&error))? else { break };
        // Trailers are dropped.
        let Ok(data) = frame.into_data() else { continue };
        deadline = deadline.map(|deadline| limits.allow(deadline, Instant::now(), data.len()));
        gathered.add(data, limits.max_body)?;
        if upload.is_end_stream() {
            break;
        }
    }
    Ok(gathered.finish())
}

/// What has come of a body.
struct Gathered {
    permit: Reservation,
    announced: Option<u64>,
    length: u64,
    /// The only frame so far: bodies that come in one are not copied.
    single: Bytes,
    joined: BytesMut,
}

impl Gathered {
    /// What is announced must fit now, but memory is taken for what has come: announcing is cheap, and whoever only
    /// announces must not keep the others out.
    fn begin(memory: &BodyMemory, announced: Option<u64>) -> Result<Self, Error> {
        let mut permit = memory.reserve(announced.unwrap_or(0))?;
        permit.shrink_to(0);
        Ok(Self { permit, announced, length: 0, single: Bytes::new(), joined: BytesMut::new() })
    }

    fn add(&mut self, data: Bytes, max_body: u64) -> Result<(), Error> {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let length = self.length.saturating_add(size);
        if length > max_body {
            return Err(Error::BodyTooLarge { limit: max_body });
        }
        if self.length == 0 {
            self.permit.grow_to(length)?;
            self.single = data;
        } else if size > 0 {
            self.make_room(length, max_body)?;
            self.joined.extend_from_slice(&data);
        }
        self.length = length;
        Ok(())
    }

    /// Room for `length` bytes in all: for an announced body at once, because pages that nothing was written to cost
    /// nothing; else by doubling.
    fn make_room(&mut self, length: u64, max_body: u64) -> Result<(), Error> {
        let (wanted, taken) = match self.announced {
            Some(announced) => (announced.max(length), length),
            None if length <= self.permit.bytes => (self.permit.bytes, self.permit.bytes),
            None => {
                let doubled = length.saturating_mul(2).min(max_body);
                (doubled, doubled)
            }
        };
        let first = std::mem::take(&mut self.single);
        let is_new = !first.is_empty();
        let is_more = taken > self.permit.bytes;
        if is_more {
            self.permit.grow_to(taken)?;
        }
        if is_new || (is_more && self.announced.is_none()) {
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            self.joined.reserve(wanted.saturating_sub(self.joined.len()));
        }
        self.joined.extend_from_slice(&first);
        Ok(())
    }

    fn finish(self) -> Bytes {
        let bytes = if self.joined.is_empty() { self.single } else { self.joined.freeze() };
        Bytes::from_owner(Held { bytes, _permit: self.permit })
    }
}

/// Why a body broke: its framing was wrong, or its client left.
fn broken(error: &hyper::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
            return Error::BadRequest {
                param: "Transfer-Encoding",
                message: "the chunks of the body are malformed: send it with a Content-Length".into(),
            };
        }
        source = cause.source();
    }
    Error::Aborted
}

/// The bytes of all bodies in memory together; clones share them.
#[derive(Clone, Debug)]
pub struct BodyMemory(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    limit: u64,
    used: AtomicU64,
}

impl BodyMemory {
    /// Room for `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Bound { limit, used: AtomicU64::new(0) }))
    }

    /// The bytes reserved now.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        let mut reservation = Reservation { bound: Arc::clone(&self.0), bytes: 0 };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }
}

/// A share of [`BodyMemory`], given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    bound: Arc<Bound>,
    bytes: u64,
}

impl Reservation {
    fn grow_to(&mut self, bytes: u64) -> Result<(), Error> {
        let Bound { limit, used } = &*self.bound;
        let more = bytes.saturating_sub(self.bytes);
        let fits = |used: u64| used.checked_add(more).filter(|sum| sum <= limit);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| Error::Overloaded { what: "server.body_memory" })?;
        self.bytes += more;
        Ok(())
    }
}

impl Reservation {
    fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bound.used.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.bound.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// More than anybody waits, and little enough to be added to any moment.
const LONGEST: Duration = Duration::from_secs(86_400);
