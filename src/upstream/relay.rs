//! A polled answer on its way to the client: every byte as it came, but the key (M32); and a witness reads along, so
//! that an entry has ended before the client can know it (M21). A cut answer stays a cut answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::telemetry::labels::Unread;
use crate::upstream::mask::KeyMask;
use crate::upstream::polls::PolledBody;
use crate::upstream::wire::WireError;

/// What must be done before a frame passes.
pub type Before = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads along.
pub trait Witness: Send {
    /// Is shown all that has come so far, at most 64 KiB, before its last frame passes: when it may be a complete JSON
    /// object, and at its end (`complete`). If it returns a future, the frame waits for that, and it is asked no more.
    fn saw(&mut self, status: StatusCode, so_far: &[u8], complete: bool) -> Option<Before>;

    /// The answer is not shown: whatever it says of its job stays unknown until the next one.
    fn unread(&mut self, why: Unread);
}

/// The body of a polled answer as the client gets it.
pub struct Relay(Option<Box<Passage>>);

/// A body that is being passed on.
struct Passage {
    body: PolledBody,
    mask: KeyMask,
    status: StatusCode,
    witness: Option<Box<dyn Witness>>,
    /// What the witness has been shown, if it did not come in one frame.
    so_far: Vec<u8>,
    /// What a frame waits for, and the frame; an empty one stands for the end.
    waiting: Option<(Before, Bytes)>,
    ended: bool,
    /// What was fetched before the client had room for it.
    fetched: BytesMut,
    /// How the answer was cut behind that.
    cut: Option<RelayError>,
    patience: Option<Pin<Box<Sleep>>>,
    timeout: Duration,
    /// When all of it must have come.
    deadline: Instant,
}

impl Relay {
    /// Takes over an answer.
    pub async fn begin(response: Response<PolledBody>, witness: Option<Box<dyn Witness>>) -> Response<Self> {
        let mut relayed = Self::over(response, witness);
        // One without a body passes with its head, so its witness is heard here.
        if let Some(passage) = relayed.body_mut().0.as_mut().filter(|passage| passage.ended)
            && let Some(before) = passage.tell(&[], true)
        {
            before.await;
        }
        relayed
    }

    fn over(response: Response<PolledBody>, witness: Option<Box<dyn Witness>>) -> Response<Self> {
        let status = response.status();
        let witness = witness.and_then(|mut witness| {
            if response.body().is_encoded() {
                witness.unread(Unread::Encoded);
                return None;
            }
            Some(witness)
        });
        response.map(|body| {
            Self(Some(Box::new(Passage {
                mask: KeyMask::default(),
                status,
                witness,
                so_far: Vec::new(),
                waiting: None,
                ended: body.is_end_stream(),
                fetched: BytesMut::new(),
                cut: None,
                patience: None,
                timeout: body.home().timeout(),
                deadline: body.begun() + body.home().timeout().max(LONGEST_ANSWER),
                body,
            })))
        })
    }

    /// Fetches more of it before the client has room for it, as long as fewer than `most` bytes wait, so that the upstream's
    /// connection need not wait for the client. How many wait then: the next frame has all of them.
    pub fn fetch(&mut self, cx: &mut Context<'_>, most: usize) -> usize {
        let Some(passage) = &mut self.0 else { return 0 };
        while passage.fetched.len() < most && passage.cut.is_none() && !passage.is_read() {
            match passage.poll_frame(cx) {
                Poll::Ready(Some(Ok(piece))) => passage.fetched.extend_from_slice(&piece),
                Poll::Ready(Some(Err(error))) => passage.cut(error),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        passage.fetched.len()
    }

    /// When an answer must have come that is read whole before any of it is passed on.
    pub fn whole_by(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |passage| passage.body.begun() + passage.timeout)
    }

    fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|passage| passage.is_read() && passage.fetched.is_empty())
    }
}

impl Passage {
    /// Whether all of it has come from the upstream and is through.
    fn is_read(&self) -> bool {
        self.ended && self.waiting.is_none() && self.mask.held() == 0
    }

    /// It was cut, which the client is told behind what came before. Nothing may ask the body for more: it has no end.
    fn cut(&mut self, error: RelayError) {
        self.body.abandon();
        self.witness = None;
        self.cut = Some(error);
    }

    /// What was fetched, and how it was cut behind that.
    #[cold]
    fn take_fetched(&mut self) -> Option<Result<Bytes, RelayError>> {
        if self.fetched.is_empty() {
            return self.cut.take().map(Err);
        }
        Some(Ok(std::mem::take(&mut self.fetched).freeze()))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RelayError>>> {
        loop {
            if let Some((before, _)) = &mut self.waiting {
                ready!(before.as_mut().poll(cx));
                let frame = self.waiting.take().map(|(_, frame)| frame).filter(|frame| !frame.is_empty());
                if let Some(frame) = frame {
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            if self.ended {
                return Poll::Ready(self.mask.end().map(Ok));
            }
            let data = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.poll_patience(cx));
                    return Poll::Ready(Some(Err(RelayError::Timeout)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(RelayError::Upstream(error)))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some(data),
                    // Trailers are dropped.
                    Err(_) => continue,
                },
                Poll::Ready(None) => None,
            };
            self.patience = None;
            self.ended = data.is_none() || self.body.is_end_stream();
            let data = data.unwrap_or_default();
            let before = self.tell(&data, self.ended);
            let frame = self.mask.frame(self.body.key().pattern(), data);
            match before {
                Some(before) => self.waiting = Some((before, frame)),
                None if frame.is_empty() => {}
                None => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    /// Shows the witness what has come, if it may be complete.
    fn tell(&mut self, data: &[u8], complete: bool) -> Option<Before> {
        let witness = self.witness.as_mut()?;
        if self.so_far.len() + data.len() > MOST_SHOWN {
            // Too long for any answer about a job: it stays unread.
            witness.unread(Unread::Long);
            self.witness = None;
            self.so_far = Vec::new();
            return None;
        }
        let worth_a_look = complete || data.trim_ascii_end().ends_with(b"}");
        let before = if complete && self.so_far.is_empty() {
            witness.saw(self.status, data, true)
        } else {
            self.so_far.extend_from_slice(data);
            if worth_a_look { witness.saw(self.status, &self.so_far, complete) } else { None }
        };
        if before.is_some() || complete {
            self.witness = None;
        }
        before
    }

    /// Ready when no piece has come for too long, or not all of them. The timer is made only when there is something to wait
    /// for.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (timeout, deadline) = (self.timeout, self.deadline);
        let patience =
            self.patience.get_or_insert_with(|| Box::pin(sleep_until(deadline.min(Instant::now() + timeout))));
        patience.as_mut().poll(cx)
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let Some(passage) = &mut self.0 else { return Poll::Ready(None) };
        // Nearly always the client has room, and nothing was fetched before it asks.
        let is_fetched = !passage.fetched.is_empty() || passage.cut.is_some();
        let piece = if is_fetched { passage.take_fetched() } else { ready!(passage.poll_frame(cx)) };
        if !matches!(piece, Some(Ok(_))) {
            // Over, or cut: there is nothing to drain, and a cut connection is closed.
            self.0 = None;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(passage) = &self.0 else { return SizeHint::with_exact(0) };
        let waiting = passage.waiting.as_ref().map_or(0, |(_, frame)| frame.len());
        let kept = u64::try_from(passage.mask.held() + waiting + passage.fetched.len()).unwrap_or(u64::MAX);
        let inner = passage.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(inner.lower().saturating_add(kept));
        hint
    }
}

impl Drop for Relay {
    /// A client that leaves mid-answer must not keep the witness from its end: the rest is read for it, within bounds.
    fn drop(&mut self) {
        let Some(passage) = self.0.take() else { return };
        if passage.witness.is_none() && passage.waiting.is_none() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let tasks = passage.body.home().tasks().clone();
        tasks.spawn_on(drain(passage), &runtime);
    }
}

/// Reads the rest of an answer for its witness.
async fn drain(mut passage: Box<Passage>) {
    let deadline = Instant::now() + DRAIN_TIME;
    let mut left = MOST_SHOWN;
    let rest = async {
        while let Some(Ok(piece)) = std::future::poll_fn(|cx| passage.poll_frame(cx)).await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    };
    // What is not read by then is closed; the next poll will tell.
    _ = tokio::time::timeout_at(deadline, rest).await;
}

/// Why an answer was cut. The client's connection is aborted, so that what it got never looks complete.
#[derive(Debug)]
pub enum RelayError {
    /// The upstream's connection broke.
    Upstream(WireError),
    /// The upstream paused for too long, or took too long in all.
    Timeout,
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(_) => f.write_str("the upstream's answer was cut"),
            Self::Timeout => f.write_str("the upstream took too long over its answer"),
        }
    }
}

impl std::error::Error for RelayError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Upstream(error) => Some(error),
            Self::Timeout => None,
        }
    }
}

/// The most that a witness is shown, and that is drained for it.
const MOST_SHOWN: usize = 64 * 1024;
/// How long an answer may take in all from when it was asked for, where `upstream.poll_timeout` allows no more to its head.
const LONGEST_ANSWER: Duration = Duration::from_secs(90);
/// How long an answer is drained for its witness.
const DRAIN_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
