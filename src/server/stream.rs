//! A client's socket with two manners more: it gives up on a client that does not read, and it closes gently. Bytes
//! that lie unread when a socket is closed make the kernel send a reset, which can take the answer from the client's
//! hands; so after the last answer what a client may still be sending is read and dropped, for a while.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::pulse::Pulse;

/// A socket with a write timeout and a gentle end.
#[derive(Debug)]
pub(super) struct Stream<S> {
    socket: S,
    write_timeout: Duration,
    /// Runs only while the socket takes no more bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    pulse: Rc<Pulse>,
    /// What was read and not understood yet; it comes first.
    unread: Bytes,
    linger: Option<Linger>,
}

/// What is left of the time and the bytes for which a closed connection is still read.
#[derive(Debug)]
struct Linger {
    over: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> Stream<S> {
    pub(super) fn new(socket: S, write_timeout: Duration) -> Self {
        Self { socket, write_timeout, stalled: None, pulse: Rc::default(), unread: Bytes::new(), linger: None }
    }

    /// Its signs of life.
    pub(super) fn pulse(&self) -> Rc<Pulse> {
        Rc::clone(&self.pulse)
    }

    /// The same, with something that is to be read once more, before anything that comes.
    pub(super) fn with_unread(mut self, unread: Bytes) -> Self {
        self.unread = unread;
        self
    }

    /// Whether something is to be read once more.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The socket takes no bytes: an error if that has lasted too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.pulse.set_busy(true);
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, WriteTimeout)))
    }
}

/// A client's connection as TCP sees it.
pub(super) trait Tcp {
    /// The socket.
    fn socket(&self) -> &TcpStream;
}

impl Tcp for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Tcp for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl<S: Tcp> Stream<S> {
    /// The socket beneath.
    pub(super) fn socket(&self) -> &TcpStream {
        self.socket.socket()
    }

    /// Closes the socket by a reset, so that nobody takes its end for the end of an answer.
    pub(super) fn reset(self) {
        // If it fails, the socket has been reset already.
        let _ = self.socket.socket().set_zero_linger();
    }
}

impl<S: AsyncRead + Unpin> Stream<S> {
    /// Reads and drops what still comes, within its bounds.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger =
            self.linger.get_or_insert_with(|| Linger { over: Box::pin(sleep(LINGER_TIME)), bytes: LINGER_BYTES });
        let mut space = [0; 8192];
        while self.pulse.is_sending() && linger.bytes > 0 {
            let mut dropped = ReadBuf::new(&mut space);
            match Pin::new(&mut self.socket).poll_read(context, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {
                    linger.bytes = linger.bytes.saturating_sub(dropped.filled().len());
                }
                Poll::Ready(_) => self.pulse.set_sending(false),
                Poll::Pending => return linger.over.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.remaining();
        if this.unread.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(context, buffer))?;
        } else {
            buffer.put_slice(&this.unread.split_to(before.min(this.unread.len())));
        }
        if before > 0 {
            this.pulse.set_sending(buffer.remaining() < before);
            this.pulse.moved();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.socket).poll_write(context, bytes) {
            Poll::Pending => this.poll_stalled(context),
            written @ Poll::Ready(_) => {
                if this.stalled.take().is_some() {
                    this.pulse.set_busy(false);
                }
                this.pulse.moved();
                written
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.pulse.set_busy(true);
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(context))?;
        }
        this.poll_linger(context).map(Ok)
    }
}

/// Marks the error of a client that does not read, so that it can be counted as one.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read in time")]
pub(super) struct WriteTimeout;

/// How long a connection is still read after its last answer.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How many bytes are still read after the last answer.
const LINGER_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn lim15_a_client_that_does_not_read_is_given_up_and_one_that_reads_slowly_is_not() {
        let (mut client, socket) = duplex(100);
        let mut stream = Stream::new(socket, TIMEOUT);
        let slow = tokio::spawn(async move {
            let mut read = [0; 100];
            for _ in 0..4 {
                sleep(TIMEOUT - Duration::from_secs(1)).await;
                client.read_exact(&mut read).await.unwrap();
            }
            client
        });
        stream.write_all(&[7; 500]).await.unwrap();
        let client = slow.await.unwrap();

        let start = Instant::now();
        let error = stream.write_all(&[7; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.get_ref().is_some_and(|inner| inner.is::<WriteTimeout>()));
        assert!(start.elapsed() >= TIMEOUT && start.elapsed() < TIMEOUT + Duration::from_secs(1));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn f33_a_closed_stream_drops_what_still_comes_until_the_client_is_done() {
        let (mut client, socket) = duplex(1000);
        let mut stream = sending(socket, &mut client).await;
        let start = Instant::now();
        let sender = tokio::spawn(async move {
            client.write_all(&vec![7; 500_000]).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
        });
        stream.shutdown().await.unwrap();
        sender.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn f33_the_drain_ends_after_a_second_or_a_mebibyte() {
        let (mut client, socket) = duplex(1000);
        let mut stream = sending(socket, &mut client).await;
        let start = Instant::now();
        stream.shutdown().await.unwrap();
        assert!((LINGER_TIME..LINGER_TIME * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
        drop(client);

        let (mut client, socket) = duplex(64 << 10);
        let mut stream = sending(socket, &mut client).await;
        let sender = tokio::spawn(async move { client.write_all(&vec![7; 3 << 20]).await });
        let start = Instant::now();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(sender.await.unwrap().is_err(), "more than the bound was read");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_not_waited_for() {
        let start = Instant::now();
        for is_done in [true, false] {
            let (mut client, socket) = duplex(1000);
            let mut stream = sending(socket, &mut client).await;
            if is_done {
                stream.pulse().set_sending(false);
            } else {
                client.shutdown().await.unwrap();
                assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
            }
            stream.shutdown().await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    /// A stream from which a first byte has been read.
    async fn sending(socket: DuplexStream, client: &mut DuplexStream) -> Stream<DuplexStream> {
        let mut stream = Stream::new(socket, TIMEOUT);
        client.write_all(&[7]).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 1);
        stream
    }
}
