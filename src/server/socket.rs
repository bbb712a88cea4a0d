//! A client's socket that gives up on a client that does not read. It lies beneath TLS, because what a client takes is
//! seen only there: TLS itself takes an answer from hyper at once and may hold it for as long as the client likes.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::pulse::Pulse;

/// A socket with a write timeout.
#[derive(Debug)]
pub(super) struct Socket<T> {
    tcp: T,
    write_timeout: Duration,
    /// Runs only while the socket takes no more bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    pulse: Rc<Pulse>,
}

impl<T> Socket<T> {
    /// Gives up once it has taken no bytes for `write_timeout`.
    pub(super) fn new(tcp: T, write_timeout: Duration) -> Self {
        Self { tcp, write_timeout, stalled: None, pulse: Rc::default() }
    }

    /// The socket as TCP sees it.
    pub(super) fn tcp(&self) -> &T {
        &self.tcp
    }

    /// Its signs of life.
    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        &self.pulse
    }

    /// What a write has come to: an error if the socket has taken no bytes for too long.
    fn taken(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.pulse.set_busy(false);
            }
            return written;
        }
        self.pulse.set_busy(true);
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, WriteTimeout)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.taken(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.taken(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// A client's connection, in the clear or within TLS.
pub(super) trait Connected {
    /// What the socket is made of.
    type Tcp;

    /// The socket at its bottom.
    fn socket(&self) -> &Socket<Self::Tcp>;
}

impl<T> Connected for Socket<T> {
    type Tcp = T;

    fn socket(&self) -> &Socket<T> {
        self
    }
}

impl<T> Connected for TlsStream<Socket<T>> {
    type Tcp = T;

    fn socket(&self) -> &Socket<T> {
        self.get_ref().0
    }
}

/// Marks the error of a client that does not read, so that it can be counted as one.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read in time")]
pub(super) struct WriteTimeout;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn lim15_a_client_that_does_not_read_is_given_up_and_one_that_reads_slowly_is_not() {
        let (mut client, tcp) = duplex(100);
        let mut socket = Socket::new(tcp, TIMEOUT);
        let slow = tokio::spawn(async move {
            let mut read = [0; 100];
            for _ in 0..4 {
                sleep(TIMEOUT - Duration::from_secs(1)).await;
                client.read_exact(&mut read).await.unwrap();
            }
            client
        });
        socket.write_all(&[7; 500]).await.unwrap();
        let client = slow.await.unwrap();

        let start = Instant::now();
        let error = socket.write_all(&[7; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.get_ref().is_some_and(|inner| inner.is::<WriteTimeout>()));
        assert!(start.elapsed() >= TIMEOUT && start.elapsed() < TIMEOUT + Duration::from_secs(1));
        drop(client);
    }
}
