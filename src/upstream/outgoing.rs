//! A paid request on its way out, and the last check before its first byte (`MONEY.md` M3). Where replicas share a ledger,
//! a process that was frozen since its compare-and-set may have a successor by now: what it has not begun to write it
//! writes no more. The check stands above TLS, right before the bytes themselves.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::clock::{Clock, Reading};

/// Until when the first byte may leave.
#[derive(Clone, Debug)]
pub struct SendBy {
    /// What is asked for the time.
    pub clock: Clock,
    /// When the ledger was asked for `sending`.
    pub issued: Reading,
    /// `ledger.send_by`.
    pub within: Duration,
}

impl SendBy {
    /// Whether it is too late.
    pub fn is_over(&self) -> bool {
        self.clock.reading().since(self.issued) > self.within
    }
}

/// What of a request is still to be written.
pub(super) struct Outgoing {
    rest: Chain<Bytes, Bytes>,
    send_by: Option<SendBy>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not a byte was written.
    Unbegun,
    /// Some of it was.
    Begun,
    /// All of it was.
    Over,
    /// The connection takes no more.
    Broken,
    /// The first byte was refused, and so is all that follows.
    Late,
}

impl Outgoing {
    /// A request whose first byte may leave until then. A body may be 32 MiB: it is written from where it lies. A short one
    /// goes with its head, in one plain write.
    pub(super) fn new(mut head: Vec<u8>, mut body: Bytes, send_by: Option<SendBy>) -> Self {
        if body.len() <= SHORT_BODY {
            head.extend_from_slice(&std::mem::take(&mut body));
        }
        Self { rest: Bytes::from(head).chain(body), send_by, stage: Stage::Unbegun }
    }

    /// Writes as much as is taken now. What goes wrong shows in the answer, or in that there is none.
    pub(super) fn drive(&mut self, stream: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) {
        if !matches!(self.stage, Stage::Unbegun | Stage::Begun) {
            return;
        }
        if let Poll::Ready(written) = self.poll(stream, cx) {
            // An answer may be long in coming: its request is not kept for that.
            self.rest = Bytes::new().chain(Bytes::new());
            if !self.is_late() {
                self.stage = if written.is_ok() { Stage::Over } else { Stage::Broken };
            }
        }
    }

    /// Whether the connection broke while it was written.
    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.stage, Stage::Broken)
    }

    /// Whether the first byte would have left too late: then none was written.
    pub(super) const fn is_late(&self) -> bool {
        matches!(self.stage, Stage::Late)
    }

    fn poll(&mut self, stream: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.rest.has_remaining() {
            // What was not taken at once is checked again.
            if self.stage == Stage::Unbegun && self.send_by.as_ref().is_some_and(SendBy::is_over) {
                self.stage = Stage::Late;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if ready!(pin!(stream.write_buf(&mut self.rest)).poll(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.stage = Stage::Begun;
        }
        Pin::new(stream).poll_flush(cx)
    }
}

/// A body that is copied to its head.
pub(super) const SHORT_BODY: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    /// A request whose first byte may leave for a second, and its clock.
    fn outgoing(body: &str) -> (Outgoing, Arc<AtomicU64>) {
        let millis = Arc::new(AtomicU64::new(50_000));
        let clock = Clock::manual(millis.clone());
        let send_by = SendBy { issued: clock.reading(), clock, within: Duration::from_secs(1) };
        (Outgoing::new(b"head ".to_vec(), body.to_owned().into(), Some(send_by)), millis)
    }

    async fn drive(outgoing: &mut Outgoing, stream: &mut DuplexStream) -> Stage {
        poll_fn(|cx| {
            outgoing.drive(stream, cx);
            Poll::Ready(outgoing.stage)
        })
        .await
    }

    async fn all(stream: DuplexStream, mut far: DuplexStream) -> String {
        drop(stream);
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn m3_only_the_first_byte_is_bound_by_the_limit() {
        let (mut outgoing, millis) = outgoing("body");
        let (mut near, mut far) = duplex(2);
        millis.fetch_add(1_000, Ordering::SeqCst);
        assert_eq!(drive(&mut outgoing, &mut near).await, Stage::Begun);
        millis.fetch_add(60_000, Ordering::SeqCst);
        let mut read = [0; 9];
        let (_, whole) = tokio::join!(
            poll_fn(|cx| {
                outgoing.drive(&mut near, cx);
                if outgoing.stage == Stage::Over { Poll::Ready(()) } else { Poll::Pending }
            }),
            far.read_exact(&mut read),
        );
        assert_eq!((whole.unwrap(), &read[..]), (9, b"head body".as_slice()));
    }

    #[tokio::test]
    async fn m3_what_was_refused_once_is_not_written_later() {
        for body in ["short", &"long".repeat(SHORT_BODY)] {
            let (mut outgoing, millis) = outgoing(body);
            let (mut near, far) = duplex(64);
            millis.fetch_add(1_001, Ordering::SeqCst);
            assert_eq!(drive(&mut outgoing, &mut near).await, Stage::Late);
            millis.fetch_sub(1_000, Ordering::SeqCst);
            assert_eq!(drive(&mut outgoing, &mut near).await, Stage::Late, "it was told that nothing was sent");
            assert!(all(near, far).await.is_empty() && outgoing.is_late());
        }
    }

    #[tokio::test]
    async fn m3_f62_a_first_byte_that_found_no_room_is_checked_again() {
        let (mut outgoing, millis) = outgoing("body");
        let (mut near, mut far) = duplex(1);
        near.write_all(b".").await.unwrap();
        assert_eq!(drive(&mut outgoing, &mut near).await, Stage::Unbegun);
        millis.fetch_add(1_001, Ordering::SeqCst);
        assert_eq!(far.read_u8().await.unwrap(), b'.');
        assert_eq!(drive(&mut outgoing, &mut near).await, Stage::Late);
        assert!(all(near, far).await.is_empty());
    }

    #[tokio::test]
    async fn what_was_written_is_not_kept_and_what_cannot_be_is_given_up() {
        for is_read in [true, false] {
            let body = Bytes::from("x".repeat(2 * SHORT_BODY));
            let mut outgoing = Outgoing::new(b"head ".to_vec(), body.clone(), None);
            let (mut near, far) = duplex(if is_read { 1 << 20 } else { 64 });
            let far = is_read.then_some(far);
            assert_eq!(drive(&mut outgoing, &mut near).await, if is_read { Stage::Over } else { Stage::Broken });
            assert!(body.is_unique(), "nobody else has it any more");
            if let Some(far) = far {
                assert_eq!(all(near, far).await.len(), 5 + body.len());
            }
        }
    }
}
