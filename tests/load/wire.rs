//! As much of HTTP/1.1 as both ends of a measurement need: it must cost less than what is measured between them. It
//! goes on where it stopped, so that one thread can keep many connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use memchr::memmem;
use rustls::{ConnectionCommon, SideData, StreamOwned};

/// A stream of bytes, with or without TLS, of either side's kind.
pub enum Stream<C> {
    Plain(TcpStream),
    Secure(Box<StreamOwned<C, TcpStream>>),
}

/// A connection: what is being read from it, and what could not be sent yet.
pub struct Wire<C> {
    stream: Stream<C>,
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
    /// The header of the message that is being read, once it is whole.
    header: Vec<u8>,
    /// What of its body is still to come.
    left: usize,
    /// The first part of its body.
    body: Vec<u8>,
    unsent: Vec<u8>,
}

/// A message that has come whole.
pub struct Message<'w> {
    pub header: &'w [u8],
    /// Its body, or the first part of it.
    pub body: &'w [u8],
}

impl<C, S> Wire<C>
where
    C: Deref<Target = ConnectionCommon<S>> + DerefMut,
    S: SideData,
{
    pub fn new(stream: Stream<C>) -> Self {
        let (buffer, unsent) = (vec![0; 8 << 10], Vec::new());
        Self { stream, buffer, filled: 0, taken: 0, header: Vec::new(), left: 0, body: Vec::new(), unsent }
    }

    /// Sends as much as the other end takes, and keeps the rest. Whether that was all.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut sent = 0;
        if self.unsent.is_empty() {
            while sent < bytes.len() {
                match self.stream.write(&bytes[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        match self.stream.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            flushed => flushed.map(|()| self.unsent.is_empty()),
        }
    }

    /// Goes on sending what could not be sent. Whether that was all.
    pub fn resume(&mut self) -> io::Result<bool> {
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    /// The next message, if all of it is here.
    pub fn receive(&mut self) -> io::Result<Option<Message<'_>>> {
        if self.left == 0 {
            if !self.read_header()? {
                return Ok(None);
            }
            self.left = length(&self.header)?;
            self.body.clear();
            if self.left > KEPT && self.buffer.len() < LARGE {
                self.buffer.resize(LARGE, 0);
            }
        }
        while self.left > 0 {
            if self.taken == self.filled {
                (self.taken, self.filled) = (0, 0);
                if !self.fill()? {
                    return Ok(None);
                }
            }
            let part = self.left.min(self.filled - self.taken);
            if self.body.len() < KEPT {
                self.body.extend_from_slice(&self.buffer[self.taken..self.taken + part]);
            }
            self.taken += part;
            self.left -= part;
        }
        Ok(Some(Message { header: &self.header, body: &self.body }))
    }

    /// Whether the next header is whole, which then is in `header`.
    fn read_header(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        loop {
            if let Some(end) = memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                self.taken = end + 4;
                self.header.clear();
                self.header.extend_from_slice(&self.buffer[..self.taken]);
                return Ok(true);
            }
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.filled * 2, 0);
            }
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    /// Reads once; `false` if there is nothing yet.
    fn fill(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl<C> Wire<C> {
    pub fn stream(&self) -> &Stream<C> {
        &self.stream
    }
}

impl<C> Stream<C> {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(stream) => &stream.sock,
        }
    }
}

impl<C> AsFd for Wire<C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.socket().as_fd()
    }
}

impl<C, S> Read for Stream<C>
where
    C: Deref<Target = ConnectionCommon<S>> + DerefMut,
    S: SideData,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl<C, S> Write for Stream<C>
where
    C: Deref<Target = ConnectionCommon<S>> + DerefMut,
    S: SideData,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(stream) => stream.flush(),
        }
    }
}

impl Message<'_> {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        let digits = self.header.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The value of a header. Its name is given in lower case, with its colon.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        value(self.header, name)
    }

    /// Nothing but an error, if it is not the answer that a measurement needs.
    pub fn good(&self) -> io::Result<()> {
        if self.status() == 200 {
            return Ok(());
        }
        let text = [String::from_utf8_lossy(self.header), String::from_utf8_lossy(self.body)].concat();
        Err(io::Error::other(text))
    }
}

fn value<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let (start, rest) = line.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.trim_ascii())
    })
}

fn length(text: &[u8]) -> io::Result<usize> {
    if value(text, "transfer-encoding:").is_some() {
        return Err(io::Error::other("a body without a length"));
    }
    let Some(digits) = value(text, "content-length:") else { return Ok(0) };
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| io::Error::other("a length that is no number"))
}

/// A TCP connection that sends at once.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// How much of a body is kept to be looked at.
const KEPT: usize = 64 << 10;
/// How much is read at once of a larger one.
const LARGE: usize = 256 << 10;
/// How long an answer may take, under valgrind too.
pub const PATIENCE: Duration = Duration::from_secs(60);
