//! An answer and its bytes. Nothing here goes through an HTTP library: every byte on the wire is ours, so that it
//! can be wrong in exactly the way a test wants.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::fault::{Form, Malformed, Odd};
use super::plan::Framing;

/// An answer before it is bytes.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields, but for those that frame the body.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// An answer without a body.
    pub(super) fn empty(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// An answer with a body.
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }.header("content-type", content_type)
    }

    /// An answer with a JSON body.
    pub(super) fn json(status: u16, body: &Value) -> Answer {
        Answer::new(status, "application/json", body.to_string())
    }

    /// A page.
    pub(super) fn html(status: u16) -> Answer {
        Answer::new(status, "text/html; charset=utf-8", PAGE)
    }

    /// An error in one of the forms that clients meet.
    pub(super) fn error(status: u16, form: &Form) -> Answer {
        let message = format!("simulated answer with status {status} (request id: 20261122-simulated)");
        match form {
            Form::Comet(code) => Answer::json(
                status,
                &json!({"error": {"message": message, "type": "comet_api_error", "param": "", "code": code}}),
            ),
            Form::Xai(code) => Answer::json(status, &json!({"code": code, "error": message})),
            Form::Flat(code) => Answer::json(status, &json!({"code": code, "message": message, "data": null})),
            Form::Html => Answer::html(status),
            Form::Empty => Answer::empty(status),
            Form::Text { content_type, body } => Answer::new(status, content_type, body.clone()),
        }
    }

    /// A 2xx that is not what it should be. `id` is the id of the job, where the oddity shows one.
    pub(super) fn odd(odd: &Odd, id: &str) -> Answer {
        let body = match odd {
            Odd::NoBody => return Answer::new(200, "application/json", Bytes::new()),
            Odd::Html => return Answer::html(200),
            Odd::HalfJson => return Answer::new(200, "application/json", format!(r#"{{"request_id":"{id}"#)),
            Odd::Marked => {
                return Answer::new(200, "application/json", format!("\u{feff}{{\"request_id\":\"{id}\"}}"));
            }
            Odd::Accepted => return Answer::json(202, &json!({"request_id": id})),
            Odd::Object => json!({}),
            Odd::NullId => json!({"request_id": null}),
            Odd::NumberId => json!({"request_id": 12_345_678}),
            Odd::EmptyId => json!({"request_id": ""}),
            Odd::LongId => json!({"request_id": "a".repeat(10 * 1024)}),
            Odd::BadId => json!({"request_id": "a\r\nset-cookie: b=\"c\"<script>"}),
            Odd::Wrapped => json!({"code": "success", "message": "", "data": {"task_id": id}}),
            Odd::Error => json!({"error": {"message": "quota is used up", "code": "insufficient_user_quota"}}),
            Odd::ErrorWithId => {
                json!({"error": {"message": "quota is used up", "code": "insufficient_user_quota"}, "request_id": id})
            }
            Odd::Code(code) => json!({"code": code, "message": "simulated", "data": null}),
        };
        Answer::json(200, &body)
    }

    /// An answer that holds `key` in two header fields and in its body, and where in the body the key's middle is.
    pub(super) fn key_echo(status: u16, key: &str) -> (Answer, usize) {
        let message = format!("Incorrect API key provided: {key}. Find your key in the console.");
        let answer = Answer::json(
            status,
            &json!({"error": {"message": message, "type": "comet_api_error", "param": "", "code": "invalid_api_key"}}),
        )
        .header("www-authenticate", &format!("Bearer realm=\"simulated\", error_description=\"{key}\""))
        .header("x-echo", key);
        let start = memchr::memmem::find(&answer.body, key.as_bytes()).unwrap_or(0);
        (answer, start + key.len() / 2)
    }

    /// The same with one more header field.
    pub(super) fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, its body filled up with spaces to that length.
    pub(super) fn padded(self, length: usize) -> Answer {
        let mut body = self.body.to_vec();
        body.resize(length.clamp(body.len(), body.len().max(MAX_PADDED)), b' ');
        Answer { body: body.into(), ..self }
    }

    /// The same with a gzip body.
    pub(super) fn encoded(self) -> Answer {
        let body = super::gzip::encode(&self.body);
        Answer { body: body.into(), ..self }.header("content-encoding", "gzip")
    }

    /// The pieces in which the answer is written. A HEAD gets no body.
    pub(super) fn pieces(&self, framing: Framing, to_head: bool) -> Vec<Bytes> {
        let mut start = self.head();
        match framing {
            // RFC 9110 section 8.6: no length with 1xx and 204.
            _ if self.status == 204 => start.put_slice(b"\r\n"),
            Framing::Length => start.put_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes()),
            Framing::Chunked(_) => start.put_slice(b"transfer-encoding: chunked\r\n\r\n"),
            Framing::UntilClose => start.put_slice(b"connection: close\r\n\r\n"),
        }
        if to_head || matches!(self.status, 204 | 304) {
            return vec![start.freeze()];
        }
        let Framing::Chunked(size) = framing else {
            start.put_slice(&self.body);
            return vec![start.freeze()];
        };
        let mut pieces = vec![start.freeze()];
        pieces.extend(self.body.chunks(size.max(1)).map(chunk));
        pieces.push(Bytes::from_static(b"0\r\n\r\n"));
        pieces
    }

    /// The answer in broken HTTP. Whether the connection must end behind it stands beside the bytes.
    pub(super) fn malformed(&self, malformed: Malformed) -> (Bytes, bool) {
        let body = &self.body;
        let length = body.len();
        let mut bytes = self.head();
        let mut ends = false;
        match malformed {
            Malformed::TwoLengths => {
                let shorter = length.saturating_sub(1);
                bytes.put_slice(format!("content-length: {shorter}\r\ncontent-length: {length}\r\n\r\n").as_bytes());
                bytes.put_slice(body);
            }
            Malformed::LengthAndChunked => {
                bytes.put_slice(b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n");
                bytes.put_slice(&chunk(body));
                bytes.put_slice(b"0\r\n\r\n");
            }
            Malformed::FoldedHeader => {
                bytes.put_slice(format!("x-folded: one\r\n two\r\ncontent-length: {length}\r\n\r\n").as_bytes());
                bytes.put_slice(body);
            }
            Malformed::WrongVersion => {
                bytes = BytesMut::from(&b"HTTP/2.0 200 OK\r\n"[..]);
                bytes.put_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
                bytes.put_slice(body);
            }
            Malformed::NoStatusLine => {
                bytes = BytesMut::from(&body[..]);
                ends = true;
            }
            Malformed::HugeHeader => {
                bytes.put_slice(b"x-huge: ");
                bytes.put_bytes(b'a', 1 << 20);
                bytes.put_slice(format!("\r\ncontent-length: {length}\r\n\r\n").as_bytes());
                bytes.put_slice(body);
            }
            Malformed::BadChunk => {
                bytes.put_slice(b"transfer-encoding: chunked\r\n\r\nzz\r\n");
                bytes.put_slice(body);
                bytes.put_slice(b"\r\n0\r\n\r\n");
            }
            Malformed::MissingLastChunk => {
                bytes.put_slice(b"transfer-encoding: chunked\r\n\r\n");
                bytes.put_slice(&chunk(body));
                ends = true;
            }
            Malformed::BytesAfterEnd => {
                bytes.put_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
                bytes.put_slice(body);
                bytes.put_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"smuggled\":1}\n");
            }
            Malformed::ControlByte => {
                bytes.put_slice(format!("x-control: a\x01b\r\ncontent-length: {length}\r\n\r\n").as_bytes());
                bytes.put_slice(body);
            }
        }
        (bytes.freeze(), ends)
    }

    /// Status line and header fields, without the empty line.
    fn head(&self) -> BytesMut {
        let mut head = BytesMut::with_capacity(256 + self.body.len());
        head.put_slice(b"HTTP/1.1 ");
        head.put_slice(self.status.to_string().as_bytes());
        head.put_slice(b" ");
        head.put_slice(reason(self.status).as_bytes());
        head.put_slice(b"\r\n");
        for (name, value) in &self.headers {
            head.put_slice(name.as_bytes());
            head.put_slice(b": ");
            head.put_slice(value.as_bytes());
            head.put_slice(b"\r\n");
        }
        head
    }
}

/// An interim answer.
pub(super) fn interim(status: u16) -> Bytes {
    let hint = if status == 103 { "link: </simulated>; rel=preload\r\n" } else { "" };
    format!("HTTP/1.1 {status} {}\r\n{hint}\r\n", reason(status)).into()
}

/// One chunk with its frame.
fn chunk(part: impl AsRef<[u8]>) -> Bytes {
    let part = part.as_ref();
    let mut bytes = BytesMut::with_capacity(part.len() + 12);
    bytes.put_slice(format!("{:x}\r\n", part.len()).as_bytes());
    bytes.put_slice(part);
    bytes.put_slice(b"\r\n");
    bytes.freeze()
}

/// The reason phrase.
fn reason(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Simulated")
}

/// The longest body that padding makes.
const MAX_PADDED: usize = 64 * 1024 * 1024;
/// What a wrong path and a failing edge look like.
const PAGE: &str = "<!doctype html>\n<html><head><title>Simulated page</title></head>\n\
<body><h1>This page is simulated.</h1></body></html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[Bytes]) -> String {
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn each_framing_marks_the_end_of_the_body() {
        let answer = Answer::new(200, "text/plain", "hello");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
        for (framing, want) in [
            (Framing::Length, "content-length: 5\r\n\r\nhello"),
            (Framing::Chunked(3), "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
            (Framing::UntilClose, "connection: close\r\n\r\nhello"),
        ] {
            assert_eq!(text(&answer.pieces(framing, false)), format!("{head}{want}"));
        }
        assert!(text(&answer.pieces(Framing::Length, true)).ends_with("content-length: 5\r\n\r\n"));
        assert_eq!(text(&Answer::empty(204).pieces(Framing::Length, false)), "HTTP/1.1 204 No Content\r\n\r\n");
    }

    #[test]
    fn t02_the_echoed_key_can_be_cut_in_its_middle() {
        let (answer, middle) = Answer::key_echo(401, "sk-0123456789");
        assert!(answer.body[..middle].ends_with(b"sk-012"));
        assert!(answer.body[middle..].starts_with(b"3456789"));
        assert_eq!(answer.headers.iter().filter(|(_, value)| value.contains("sk-0123456789")).count(), 2);
    }
}
