//! The last check before the first byte of a paid call (`MONEY.md` M3). Where replicas share a ledger, a process that was
//! frozen since its compare-and-set may have a successor by now: what it has not begun to write it writes no more. The
//! check stands above TLS, beside the bytes themselves, so that hyper's having the request changes nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

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

/// The gate of one connection: open until it is given a limit, and shut for good if the first byte comes later than that.
#[derive(Debug, Default)]
pub(super) struct Gate {
    limit: OnceLock<SendBy>,
    shut: CancellationToken,
}

impl Gate {
    /// The first byte may leave until then. A limit once set stands.
    pub(super) fn limit(&self, limit: SendBy) {
        _ = self.limit.set(limit);
    }

    /// Whether it refused the first byte: then none was written.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.is_cancelled()
    }

    /// Resolves when it has refused the first byte.
    pub(super) async fn shut(&self) {
        self.shut.cancelled().await;
    }

    fn pass(&self) -> io::Result<()> {
        if self.limit.get().is_some_and(SendBy::is_over) {
            self.shut.cancel();
        }
        if self.is_shut() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// A stream whose first byte goes through a gate.
pub(super) struct Gated<S> {
    stream: S,
    /// `None` once it has passed.
    gate: Option<Arc<Gate>>,
}

impl<S> Gated<S> {
    pub(super) const fn new(stream: S, gate: Arc<Gate>) -> Self {
        Self { stream, gate: Some(gate) }
    }

    /// Writes by `write` if the gate lets it; what was not taken at once is checked again.
    fn through(&mut self, write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>>
    where
        S: Unpin,
    {
        if let Some(gate) = &self.gate {
            gate.pass()?;
        }
        let written = ready!(write(Pin::new(&mut self.stream)))?;
        if written > 0 {
            self.gate = None;
        }
        Poll::Ready(Ok(written))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().through(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().through(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A gated stream whose first byte may leave for a second, its clock, and what comes out of it.
    fn gated(room: usize) -> (Gated<tokio::io::DuplexStream>, Arc<AtomicU64>, tokio::io::DuplexStream, Arc<Gate>) {
        let millis = Arc::new(AtomicU64::new(50_000));
        let (near, far) = duplex(room);
        let (gate, clock) = (Arc::new(Gate::default()), Clock::manual(millis.clone()));
        gate.limit(SendBy { issued: clock.reading(), clock, within: Duration::from_secs(1) });
        (Gated::new(near, gate.clone()), millis, far, gate)
    }

    #[tokio::test]
    async fn m3_only_the_first_byte_is_bound_by_the_limit() {
        let (mut stream, millis, mut far, gate) = gated(64);
        millis.fetch_add(1_000, Ordering::SeqCst);
        stream.write_all(b"first").await.unwrap();
        millis.fetch_add(60_000, Ordering::SeqCst);
        stream.write_all(b" and the rest").await.unwrap();
        drop(stream);
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        assert_eq!((all.as_str(), gate.is_shut()), ("first and the rest", false));
    }

    #[tokio::test]
    async fn m3_a_gate_that_has_refused_stays_shut() {
        let (mut stream, millis, mut far, gate) = gated(64);
        millis.fetch_add(1_001, Ordering::SeqCst);
        assert!(stream.write(b"late").await.is_err());
        millis.fetch_sub(1_000, Ordering::SeqCst);
        assert!(stream.write(b"later").await.is_err(), "it was told that nothing was sent");
        assert!(stream.write_vectored(&[IoSlice::new(b"later")]).await.is_err());
        drop(stream);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert!(all.is_empty() && gate.is_shut());
    }

    #[tokio::test]
    async fn m3_f62_a_first_byte_that_found_no_room_is_checked_again() {
        let (mut stream, millis, mut far, gate) = gated(1);
        stream.stream.write_all(b".").await.unwrap();
        let mut write = Box::pin(stream.write(b"first"));
        let pending = std::future::poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
        millis.fetch_add(1_001, Ordering::SeqCst);
        assert_eq!(far.read_u8().await.unwrap(), b'.');
        assert!(write.await.is_err() && gate.is_shut());
    }
}
