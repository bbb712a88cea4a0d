//! The same answers, read here and by hyper's client: what is taken here, hyper takes for the same. Here more may be
//! refused.

use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::framing::Piece;
use super::head::Reading;
use crate::upstream::key::UpstreamKey;

/// An answer, as far as both tell it: its status, its plain fields, its body.
type Answer = (StatusCode, Vec<String>, Vec<u8>);

/// What is read here of an answer that ends with its connection; `None` for what is refused or cut.
fn ours(wire: &[u8]) -> Option<Answer> {
    let key = UpstreamKey::parse("sk-Zx81kPq0LmN7vTrY2aBcD3eFgH4iJ5kL6mN7oP8q").unwrap();
    let mut come = Bytes::copy_from_slice(wire);
    let head = Reading::new(key.pattern(), &Mutex::default()).head(&mut come).ok()??;
    let (mut framing, mut body) = (head.framing, Vec::new());
    loop {
        match framing.take(&mut come).ok()? {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::More => framing.end_with_connection().ok()?,
            Piece::End => break,
        }
    }
    let fields = head.headers.get_all("x-plain").iter().map(|value| format!("{value:?}")).collect();
    Some((head.status, fields, body))
}

/// The same by hyper.
fn hypers(wire: &[u8]) -> Option<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (near, mut far) = duplex(1 << 20);
        let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        let connection = tokio::spawn(connection);
        let wire = wire.to_vec();
        tokio::spawn(async move {
            let mut asked = [0; 1024];
            assert_ne!(far.read(&mut asked).await.unwrap(), 0);
            far.write_all(&wire).await.unwrap();
            // The end of the connection is seen, and nothing is left unread.
            far.shutdown().await.unwrap();
            let _ = far.read(&mut asked).await;
        });
        let request = Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status();
        let fields = answer.headers().get_all("x-plain").iter().map(|value| format!("{value:?}")).collect();
        let body = answer.into_body().collect().await.ok()?.to_bytes().to_vec();
        connection.abort();
        Some((status, fields, body))
    })
}

const STATUSES: [&str; 16] = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.1 200 ",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 404 Not Found",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 205 Reset Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 600 What",
    "HTTP/1.1 999 What",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 099 What",
    "HTTP/2 200",
    "ICY 200 OK",
];
const FIELDS: [&str; 34] = [
    "Content-Length: 5",
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: 05",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 5,6",
    "Content-Length: ",
    "Content-Length: 0x5",
    "Content-Length: 18446744073709551617",
    "Content-Length : 5",
    "content-length:5 ",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked ",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding:\tchunked\t",
    "Transfer-Encoding: ",
    "Transfer-Encoding: identity",
    "Transfer-Encoding : chunked",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: x-plain",
    "X-Plain: a",
    "x-plain:\tb c\t",
    "X-Plain: \u{e9}",
    "X-Plain: a\r\n b",
    "X-Plain",
    ": a",
    "X-Plain: \u{0}",
];
const ENDS: [&str; 4] = ["\r\n", "\r\n", "\r\n", "\n"];
const BODIES: [&str; 22] = [
    "",
    "hello",
    "hello",
    "hell",
    "hello, and more",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "5\r\nhello\r\n",
    "5\r\nhello\r\n0\r\n",
    "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Plain: t\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "00005\r\nhello\r\n000\r\n\r\n",
    "5;\r\nhello\r\n0;\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
];

#[test]
fn r39_good_answers_are_taken_here_and_by_hyper() {
    for (wire, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Plain: a\r\n\r\nhello", "hello"),
        ("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", "hello"),
        ("HTTP/1.0 200 OK\r\n\r\nhello", "hello"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        let ours = ours(wire.as_bytes());
        assert_eq!(ours.as_ref().map(|(.., body)| &**body), Some(body.as_bytes()), "{wire}");
        assert_eq!(ours, hypers(wire.as_bytes()), "{wire}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn r39_what_is_taken_here_hyper_takes_for_the_same(
        status in prop::sample::select(&STATUSES[..]),
        fields in prop::collection::vec((prop::sample::select(&FIELDS[..]), prop::sample::select(&ENDS[..])), 0..4),
        end in prop::sample::select(&ENDS[..]),
        body in prop::sample::select(&BODIES[..]),
        cut in prop::option::weighted(0.1, 0_usize..200),
    ) {
        let fields: String = fields.iter().map(|(field, end)| [*field, *end].concat()).collect();
        let mut wire = format!("{status}\r\n{fields}{end}{body}").into_bytes();
        wire.truncate(cut.unwrap_or(usize::MAX));
        if let Some(ours) = ours(&wire) {
            let named_away = fields.to_ascii_lowercase().contains("connection: x-plain");
            match hypers(&wire) {
                None => prop_assert!(false, "hyper refuses {:?}, here it is {ours:?}", String::from_utf8_lossy(&wire)),
                Some((status, plain, body)) => {
                    prop_assert_eq!((status, &body), (ours.0, &ours.2), "{}", String::from_utf8_lossy(&wire));
                    prop_assert_eq!(if named_away { Vec::new() } else { plain }, ours.1);
                }
            }
        }
    }
}
