//! A client's connection as HTTP reads and writes it: its bytes are signs of life, some are read twice, and it closes
//! gently. Bytes that lie unread when a socket is closed make the kernel send a reset, which can take the answer from the
//! client's hands; so after the last answer what a client may still be sending is read and dropped, for a while.

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

use super::pulse::Pulse;
use super::socket::Connected;

/// A connection with signs of life and a gentle end.
#[derive(Debug)]
pub(super) struct Stream<S> {
    connection: S,
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

impl<S: Connected> Stream<S> {
    pub(super) fn new(connection: S) -> Self {
        Self { connection, unread: Bytes::new(), linger: None }
    }

    /// Its signs of life.
    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        self.connection.socket().pulse()
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
}

impl<S: Connected<Tcp = TcpStream>> Stream<S> {
    /// The socket at the bottom.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.connection.socket().tcp()
    }

    /// Closes the socket by a reset, so that nobody takes its end for the end of an answer.
    pub(super) fn reset(self) {
        // If it fails, the socket has been reset already.
        let _ = self.tcp().set_zero_linger();
    }
}

impl<S: AsyncRead + Connected + Unpin> Stream<S> {
    /// Reads and drops what still comes, within its bounds.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let pulse = Rc::clone(self.pulse());
        let linger =
            self.linger.get_or_insert_with(|| Linger { over: Box::pin(sleep(LINGER_TIME)), bytes: LINGER_BYTES });
        let mut space = [0; 8192];
        while pulse.is_sending() && linger.bytes > 0 {
            let mut dropped = ReadBuf::new(&mut space);
            match Pin::new(&mut self.connection).poll_read(context, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {
                    linger.bytes = linger.bytes.saturating_sub(dropped.filled().len());
                }
                Poll::Ready(_) => pulse.set_sending(false),
                Poll::Pending => return linger.over.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Connected + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.remaining();
        if this.unread.is_empty() {
            ready!(Pin::new(&mut this.connection).poll_read(context, buffer))?;
        } else {
            buffer.put_slice(&this.unread.split_to(before.min(this.unread.len())));
        }
        if before > 0 {
            this.pulse().set_sending(buffer.remaining() < before);
            this.pulse().moved();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Connected + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.connection).poll_write(context, bytes));
        this.pulse().moved();
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.connection).poll_shutdown(context))?;
        }
        this.pulse().set_busy(true);
        this.poll_linger(context).map(Ok)
    }
}

/// How long a connection is still read after its last answer.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How many bytes are still read after the last answer.
const LINGER_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::server::socket::Socket;

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
    async fn sending(socket: DuplexStream, client: &mut DuplexStream) -> Stream<Socket<DuplexStream>> {
        let mut stream = Stream::new(Socket::new(socket, Duration::from_secs(30)));
        client.write_all(&[7]).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 1);
        stream
    }
}
