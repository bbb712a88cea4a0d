//! Reads requests from a raw socket, strictly: what a well-behaved gateway never sends (bare line feeds, two lengths,
//! odd transfer codings) is malformed here. Whatever was read is kept as the bytes it was.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head.
const MAX_HEAD: usize = 64 * 1024;
/// The longest body.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// The longest line in front of a chunk.
const MAX_CHUNK_LINE: usize = 128;
/// The most header fields.
const MAX_FIELDS: usize = 100;

/// The head of a request.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// The method.
    pub method: String,
    /// The target as it stands in the request line.
    pub path: String,
    /// Header fields in their order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// All bytes, the empty line included.
    pub raw: Bytes,
    /// How the body ends.
    body: BodyLength,
    /// Whether the connection ends behind this request.
    pub last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyLength {
    Known(usize),
    Chunked,
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(super) enum Stop {
    /// The peer has ended the connection.
    Ended,
    /// What it sent is not a request.
    Malformed,
    /// As much was read as was allowed.
    Limit,
}

/// A connection, read request by request.
pub(super) struct Reader<S> {
    /// The socket; answers are written here.
    pub stream: S,
    buffer: BytesMut,
    /// All bytes ever read.
    pub total: u64,
}

impl Head {
    /// The value of the first field of that name, which is given in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a body follows.
    pub(super) fn has_body(&self) -> bool {
        self.body != BodyLength::Known(0)
    }

    /// The head in `bytes`, if it is whole: `None` if not yet.
    fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Stop> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Stop::Malformed),
        };
        let raw = bytes.get(..length).ok_or(Stop::Malformed)?;
        let bare_line_feed = memchr::memchr_iter(b'\n', raw).any(|at| raw.get(at.wrapping_sub(1)) != Some(&b'\r'));
        let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version) else {
            return Err(Stop::Malformed);
        };
        if bare_line_feed || raw.starts_with(b"\r\n") {
            return Err(Stop::Malformed);
        }
        let fields: Vec<(String, String)> = request
            .headers
            .iter()
            .map(|field| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned()))
            .collect();
        let mut head = Head {
            method: method.to_owned(),
            path: path.to_owned(),
            fields,
            raw: Bytes::copy_from_slice(raw),
            body: BodyLength::Known(0),
            last: false,
        };
        head.body = head.body_length()?;
        head.last = version == 0 || head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(Some((head, length)))
    }

    /// How the body ends, if the head says it in exactly one way.
    fn body_length(&self) -> Result<BodyLength, Stop> {
        let values = |name| self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str());
        let lengths: Vec<&str> = values("content-length").collect();
        let codings: Vec<&str> = values("transfer-encoding").collect();
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(BodyLength::Known(0)),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(BodyLength::Chunked),
            ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| Stop::Malformed)?;
                if length > MAX_BODY { Err(Stop::Malformed) } else { Ok(BodyLength::Known(length)) }
            }
            _ => Err(Stop::Malformed),
        }
    }
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// Reads from `stream`.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new(), total: 0 }
    }

    /// What has been read and belongs to nothing yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// The next request's head.
    pub(super) async fn head(&mut self) -> Result<Head, Stop> {
        loop {
            if !self.buffer.is_empty()
                && let Some((head, length)) = Head::parse(&self.buffer)?
            {
                let _ = self.buffer.split_to(length);
                return Ok(head);
            }
            self.fill(usize::MAX).await?;
        }
    }

    /// The body that follows `head`. Not more than `limit` bytes are read; what was read before a stop is in `body`.
    pub(super) async fn body(&mut self, head: &Head, limit: usize, body: &mut BytesMut) -> Result<(), Stop> {
        match head.body {
            BodyLength::Known(length) => self.exactly(length, limit, body).await,
            BodyLength::Chunked => self.chunks(limit, body).await,
        }
    }

    async fn exactly(&mut self, length: usize, limit: usize, body: &mut BytesMut) -> Result<(), Stop> {
        let wanted = length.min(limit);
        body.reserve(wanted.min(1 << 20));
        let end = body.len() + wanted;
        loop {
            let missing = end - body.len();
            let ready = self.buffer.len().min(missing);
            body.unsplit(self.buffer.split_to(ready));
            if body.len() == end {
                return if wanted < length { Err(Stop::Limit) } else { Ok(()) };
            }
            self.fill(end - body.len()).await?;
        }
    }

    async fn chunks(&mut self, limit: usize, body: &mut BytesMut) -> Result<(), Stop> {
        loop {
            let line = self.line().await?;
            // Extensions are not refused by RFC 9112, but our own gateway has no reason to send any.
            let digits = std::str::from_utf8(&line).map_err(|_| Stop::Malformed)?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(Stop::Malformed);
            }
            let size = usize::from_str_radix(digits, 16).map_err(|_| Stop::Malformed)?;
            if size > MAX_BODY.saturating_sub(body.len()) {
                return Err(Stop::Malformed);
            }
            if size > 0 {
                self.exactly(size, limit.saturating_sub(body.len()), body).await?;
            }
            if !self.line().await?.is_empty() {
                return Err(Stop::Malformed);
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// A short line, without its end.
    async fn line(&mut self) -> Result<BytesMut, Stop> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let mut line = self.buffer.split_to(end + 2);
                line.truncate(end);
                return if end <= MAX_CHUNK_LINE { Ok(line) } else { Err(Stop::Malformed) };
            }
            if self.buffer.len() > MAX_CHUNK_LINE {
                return Err(Stop::Malformed);
            }
            self.fill(MAX_CHUNK_LINE).await?;
        }
    }

    /// Reads once, not more than about `wanted` bytes.
    async fn fill(&mut self, wanted: usize) -> Result<(), Stop> {
        let step = wanted.clamp(1, 64 * 1024);
        if self.buffer.capacity() - self.buffer.len() < step.min(4096) {
            self.buffer.reserve(step.min(16 * 1024));
        }
        let read: io::Result<usize> = (&mut self.stream).take(step as u64).read_buf(&mut self.buffer).await;
        match read {
            Ok(0) | Err(_) => Err(Stop::Ended),
            Ok(count) => {
                self.total = self.total.saturating_add(count as u64);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(Head, BytesMut, Vec<u8>), Stop> {
        let mut reader = Reader::new(bytes);
        let head = reader.head().await?;
        let mut body = BytesMut::new();
        reader.body(&head, usize::MAX, &mut body).await?;
        let rest = reader.rest().to_vec();
        Ok((head, body, rest))
    }

    #[tokio::test]
    async fn bodies_end_where_their_framing_says() {
        for (text, body, rest) in [
            ("GET / HTTP/1.1\r\n\r\n", "", ""),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "abc", ""),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcdef", "abc", "def"),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nX", "abcde", "X"),
        ] {
            let (head, got, left) = read(text.as_bytes()).await.unwrap();
            assert_eq!((&got[..], &left[..]), (body.as_bytes(), rest.as_bytes()), "{text}");
            assert!(text.as_bytes().starts_with(&head.raw) && head.raw.ends_with(b"\r\n\r\n"));
        }
    }

    #[tokio::test]
    async fn what_is_not_strict_http_is_malformed() {
        for text in [
            "GET / HTTP/1.1\n\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\nabc",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\nabc",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\nabc",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "\x16\x03\x01\x02\x00",
        ] {
            assert!(matches!(read(text.as_bytes()).await, Err(Stop::Malformed)), "{text:?}");
        }
        assert!(matches!(read(b"GET / HT").await, Err(Stop::Ended)));
    }

    #[tokio::test]
    async fn a_limit_stops_inside_the_body() {
        let mut reader = Reader::new(&b"POST / HTTP/1.1\r\ncontent-length: 6\r\n\r\nabcdef"[..]);
        let head = reader.head().await.unwrap();
        let mut body = BytesMut::new();
        assert!(matches!(reader.body(&head, 4, &mut body).await, Err(Stop::Limit)));
        assert_eq!(&body[..], b"abcd");
    }
}
