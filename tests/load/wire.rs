//! As much of HTTP/1.1 as both ends of a measurement need: it must cost less than what is measured between them.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use memchr::memmem;

/// A stream of bytes, with or without TLS.
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection, and what was read from it beyond the last message.
pub struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
}

/// The header of a message, and the length of the body that follows.
pub struct Head {
    pub text: Vec<u8>,
    pub body: usize,
}

impl<S: Stream> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: vec![0; 8 << 10], filled: 0, taken: 0 }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next header; `None` if the other end has closed before its first byte.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        loop {
            if let Some(end) = memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                self.taken = end + 4;
                let text = self.buffer[..self.taken].to_vec();
                let body = length(&text)?;
                return Ok(Some(Head { text, body }));
            }
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[self.filled..])?;
            match (read, self.filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.filled += read,
            }
        }
    }

    /// The body, or the first part of it that fits the buffer; the rest is read and forgotten.
    pub fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let mut kept = Vec::new();
        let mut left = head.body;
        while left > 0 {
            if self.taken == self.filled {
                self.taken = 0;
                self.filled = self.stream.read(&mut self.buffer)?;
                if self.filled == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let part = left.min(self.filled - self.taken);
            if kept.len() < KEPT {
                kept.extend_from_slice(&self.buffer[self.taken..self.taken + part]);
            }
            self.taken += part;
            left -= part;
        }
        Ok(kept)
    }

    /// Reads large bodies in fewer pieces.
    pub fn widen(&mut self) {
        self.buffer.resize(256 << 10, 0);
    }
}

impl Head {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        let digits = self.text.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The value of a header. Its name is given in lower case, with its colon.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        value(&self.text, name)
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
pub fn connect(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// How much of a body is kept to be looked at.
const KEPT: usize = 64 << 10;
/// How long an answer may take, under valgrind too.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
