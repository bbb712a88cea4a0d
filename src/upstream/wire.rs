//! A connection to the upstream: a request goes out, its answer comes in, and then the next one may follow. hyper's client
//! drives each connection by a task of its own and hands everything to and fro between the two, which was a quarter of
//! a poll's instructions. What is parsed, httparse parses; what can be read in two ways is refused (`HARDENING.md` R-39).

mod framing;
mod head;
mod names;
#[cfg(test)]
mod against_hyper;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::coop::unconstrained;

use crate::upstream::dial::Stream;
use crate::upstream::mask::KeyPattern;
use crate::upstream::outgoing::Outgoing;
pub(super) use framing::Framing;
use framing::Piece;
pub(super) use head::Head;
use head::Reading;
pub use head::cleaned;
pub(super) use names::Names;

/// A connection that carries one request after the other.
pub(super) struct Wire {
    stream: Stream,
    /// What has come and was not taken yet: nothing between two answers.
    come: Bytes,
}

impl Wire {
    /// Over a stream that has carried nothing of HTTP yet.
    pub(super) const fn new(stream: Stream) -> Self {
        Self { stream, come: Bytes::new() }
    }

    /// Sends a request and reads the head of its answer, cleaned of what is not for clients.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(
        &mut self,
        request: Vec<u8>,
        key: &KeyPattern,
        names: &Mutex<Names>,
    ) -> Result<Head, WireError> {
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        // Many wait for their answers at a time: what they need no more is soon another's.
        drop(request);
        let mut reading = Reading::new(key, names);
        poll_fn(|cx| self.poll_head(cx, &mut reading)).await
    }

    /// Sends what is outgoing and reads the head of its answer, which may come before all of it has gone.
    ///
    /// # Errors
    /// Why there is no answer; [`Outgoing::is_late`] tells whether nothing was sent.
    pub(super) async fn exchange(
        &mut self,
        outgoing: &mut Outgoing,
        key: &KeyPattern,
        names: &Mutex<Names>,
    ) -> Result<Head, WireError> {
        let mut reading = Reading::new(key, names);
        poll_fn(|cx| {
            outgoing.drive(&mut self.stream, cx);
            if outgoing.is_late() { Poll::Ready(Err(WireError::cut())) } else { self.poll_head(cx, &mut reading) }
        })
        .await
    }

    /// The next piece of the body of an answer, while the rest of its request goes; `None` at its end.
    pub(super) fn poll_answer(
        &mut self,
        outgoing: &mut Outgoing,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, WireError>> {
        outgoing.drive(&mut self.stream, cx);
        let ends_with_connection = *framing == Framing::UntilClosed;
        match ready!(self.poll_piece(framing, cx))? {
            // The system tells of a reset once: told to who writes, it is a plain end to who reads.
            None if ends_with_connection && outgoing.is_broken() => Poll::Ready(Err(WireError::cut())),
            piece => Poll::Ready(Ok(piece)),
        }
    }

    /// Tells the other side that nothing more comes, where the protocol has a word for that, as far as it goes at once.
    pub(super) async fn say_farewell(&mut self) {
        poll_fn(|cx| {
            _ = Pin::new(&mut self.stream).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, reading: &mut Reading<'_>) -> Poll<Result<Head, WireError>> {
        loop {
            let from = self.come.len();
            if ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Err(WireError::cut()));
            }
            // Every head ends in a line's end.
            let fresh = self.come.get(from..).unwrap_or_default();
            if from > 0 && memchr::memchr(b'\n', fresh).is_none() && self.come.len() < head::LONGEST {
                continue;
            }
            if let Some(head) = reading.head(&mut self.come)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// The next piece of the body that is framed like this; `None` at its end.
    pub(super) fn poll_piece(
        &mut self,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, WireError>> {
        loop {
            match framing.take(&mut self.come)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(data))),
                Piece::End => return Poll::Ready(Ok(None)),
                Piece::More => {}
            }
            if ready!(self.poll_more(cx))? == 0 {
                framing.end_with_connection().map_err(|Malformed| WireError::cut())?;
            }
        }
    }

    /// Whether nothing has come that nobody asked for, not even the end of the connection. If something has, the connection
    /// is of no more use: a byte of it may be gone.
    pub(super) fn is_quiet(&mut self) -> bool {
        if let Stream::Plain(tcp) = &self.stream {
            // Asked without a waker, which whoever reads next would have to replace.
            let is_silent = tcp.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            return is_silent && self.come.is_empty();
        }
        // Whatever else this task has read before, here it is told the truth.
        let mut more = pin!(unconstrained(poll_fn(|cx| self.poll_more(cx))));
        let is_silent = more.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        is_silent && self.come.is_empty()
    }

    /// The same by the system's own word: what the runtime has not been told yet counts too.
    pub(super) async fn is_quiet_now(&mut self) -> bool {
        // What has come may be TLS's own, and there may be more of that.
        for _ in 0..MOST_LOOKS {
            if !self.is_quiet() {
                return false;
            }
            let tcp = self.stream.tcp();
            let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            if recv(tcp, &mut [0_u8; 1][..], peek).is_err_and(|error| error == Errno::WOULDBLOCK) {
                return true;
            }
            // It has come: this waits for no more than the runtime.
            if tcp.readable().await.is_err() {
                return false;
            }
        }
        false
    }

    /// Whether all that has come was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.come.is_empty()
    }

    /// Reads what there is. How many bytes have come: none at the end of the connection.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, which is at hand: a buffer of each connection's own would be fetched from afar for every answer.
        let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
        let mut read = ReadBuf::uninit(&mut space);
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
            // A broken record is told before what came whole in front of it.
            _ = Pin::new(&mut self.stream).poll_read(cx, &mut read);
            if read.filled().is_empty() {
                return Poll::Ready(Err(error));
            }
        }
        let fresh = read.filled();
        if self.come.is_empty() {
            self.come = Bytes::copy_from_slice(fresh);
        } else {
            let mut come = BytesMut::from(std::mem::take(&mut self.come));
            come.extend_from_slice(fresh);
            self.come = come.freeze();
        }
        Poll::Ready(Ok(fresh.len()))
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub enum WireError {
    /// The connection broke.
    Cut(io::Error),
    /// What came is no answer.
    Malformed(Malformed),
}

impl WireError {
    fn cut() -> Self {
        Self::Cut(io::ErrorKind::UnexpectedEof.into())
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Cut(error)
    }
}

impl From<Malformed> for WireError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(_) => f.write_str("the connection broke"),
            Self::Malformed(_) => f.write_str("what came is no answer of HTTP/1.1"),
        }
    }
}

impl std::error::Error for WireError {}

/// What came is no answer, or one that can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How often one looks for what has come before a paid call.
const MOST_LOOKS: usize = 4;
/// As much is read at once; most answers are shorter.
const READ_AT_ONCE: usize = 8 * 1024;
