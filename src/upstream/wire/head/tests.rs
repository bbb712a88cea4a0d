use proptest::prelude::*;

use super::*;
use crate::upstream::key::UpstreamKey;

const KEY: &str = "sk-Zx81kPq0LmN7vTrY2aBcD3eFgH4iJ5kL6mN7oP8q";

fn read(head: &[u8]) -> (Result<Option<Head>, Malformed>, Bytes) {
    let mut come = Bytes::copy_from_slice(head);
    (Reading::new(UpstreamKey::parse(KEY).unwrap().pattern(), &Mutex::default()).head(&mut come), come)
}

/// The head of an answer with these fields.
fn head(status: &str, fields: &str) -> Result<Head, Malformed> {
    read(format!("{status}\r\n{}\r\n", fields.replace('\n', "\r\n")).as_bytes()).0.map(Option::unwrap)
}

fn shown(head: &Head) -> Vec<String> {
    head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn r39_the_framing_is_certain_or_the_head_is_refused() {
    let length = |length| Ok((Framing::Length(length), true));
    for (status, fields, want) in [
        ("HTTP/1.1 200 OK", "Content-Length: 2\n", length(2)),
        ("HTTP/1.1 200", "content-length:18446744073709551615 \n", length(u64::MAX)),
        ("HTTP/1.1 204 No Content", "", length(0)),
        ("HTTP/1.1 204 No Content", "Content-Length: 0\n", length(0)),
        ("HTTP/1.1 205 Reset Content", "Content-Length: 0\n", length(0)),
        ("HTTP/1.1 304 Not Modified", "", length(0)),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\n", Ok((Chunk::Size.into(), true))),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked \n", Ok((Chunk::Size.into(), true))),
        ("HTTP/1.1 200 OK", "", Ok((Framing::UntilClosed, false))),
        ("HTTP/1.1 200 OK", "Content-Length: 2\nConnection: x, Close\n", Ok((Framing::Length(2), false))),
        (
            "HTTP/1.1 200 OK",
            "Connection: close\nContent-Length: 2\nConnection: keep-alive\n",
            Ok((Framing::Length(2), false)),
        ),
        ("HTTP/1.0 200 OK", "Content-Length: 2\n", Ok((Framing::Length(2), false))),
        ("HTTP/1.0 200 OK", "Content-Length: 2\nConnection: Keep-Alive\n", length(2)),
        ("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "Content-Length: 2\nTransfer-Encoding: chunked\n", Err(Malformed)),
        ("HTTP/1.1 204 No", "Content-Length: 2\nTransfer-Encoding: chunked\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "Content-Length: 2\nContent-Length: 2\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "Content-Length: 2, 2\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "Content-Length: +2\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "Content-Length:\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "Content-Length: 18446744073709551616\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "x: a\n folded\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "x : a\n", Err(Malformed)),
        ("HTTP/1.1 200 OK", "no field\n", Err(Malformed)),
        ("HTTP/1.1 101 Switching Protocols", "", Err(Malformed)),
        ("HTTP/1.1 99 No", "", Err(Malformed)),
        ("HTTP/2.0 200 OK", "", Err(Malformed)),
    ] {
        let found = head(status, fields).map(|head| (head.framing, head.keeps));
        assert_eq!(found, want, "{status} {fields}");
    }
}

#[test]
fn r39_m32_only_chunked_once_and_alone_is_a_transfer_coding() {
    for codings in [
        "gzip, chunked",
        "gzip",
        "identity",
        "chunked, chunked",
        "chunked,",
        "chunked;q=1",
        "",
        "chunked\nTransfer-Encoding: chunked",
        "gzip\ntransfer-encoding: chunked",
        "chunked\nTransfer-Encoding:",
    ] {
        for status in ["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad", "HTTP/1.1 204 No"] {
            let found = head(status, &format!("Transfer-Encoding: {codings}\n"));
            assert_eq!(found.err(), Some(Malformed), "{status} {codings}");
        }
    }
}

#[test]
fn r40_where_a_body_was_told_that_may_not_be_the_connection_is_not_kept() {
    for (status, fields, framing) in [
        ("HTTP/1.1 204 No Content", "Content-Length: 5\n", Framing::Length(0)),
        ("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked\n", Framing::Length(0)),
        ("HTTP/1.0 204 No Content", "Content-Length: 5\nConnection: keep-alive\n", Framing::Length(0)),
        ("HTTP/1.1 205 Reset Content", "Content-Length: 5\n", Framing::Length(5)),
        ("HTTP/1.1 205 Reset Content", "Transfer-Encoding: chunked\n", Chunk::Size.into()),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 7\n", Framing::Length(0)),
        ("HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked\n", Framing::Length(0)),
        ("HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK", "Content-Length: 2\n", Framing::Length(2)),
        (
            "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK",
            "Content-Length: 2\n",
            Framing::Length(2),
        ),
    ] {
        let found = head(status, fields).map(|head| (head.framing, head.keeps));
        assert_eq!(found, Ok((framing, false)), "{status} {fields}");
    }
    let harmless = "HTTP/1.1 103 Early\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK";
    assert!(head(harmless, "Content-Length: 2\n").unwrap().keeps);
}

#[test]
fn r01_r03_r77_what_is_not_for_the_client_is_not_taken_up_and_the_rest_keeps_its_order() {
    let fields = format!(
        "Connection: X-Up ,, close\nConnection: x-other, content-length\nX-Up: 1\nx-other: 1\nKeep-Alive: timeout=5\n\
         Proxy-Authenticate: Basic\nTE: trailers\nTrailer: x-sum\nUpgrade: h2\nSet-Cookie: a=b\nset-cookie: c=d\n\
         Strict-Transport-Security: max-age=1\nAlt-Svc: h3\nClear-Site-Data: *\nPublic-Key-Pins: x\n\
         Proxy-Connection: keep-alive\nProxy-Authorization: Basic x\nProxy-Authentication-Info: x\nNEL: {{}}\n\
         Report-To: {{}}\nReporting-Endpoints: a=\"https://a.example/\"\nService-Worker-Allowed: /\n\
         Expect-CT: max-age=1\nRefresh: 0\nAccept-CH: ECT\nCritical-CH: ECT\nProxy-Status: cdn; next-hop=a\n\
         Access-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: *\nServer: cloudflare\nWWW-Authenticate: Bearer {KEY}\nX-Debug: fine\n\
         x-debug: {KEY}\nX-Many: 1\nContent-Type: application/json\nContent-Length: 2\nX-Request-Id: up-1\n\
         X-Request-Id: up-2\nRetry-After: 7\nx-many: 2\n"
    );
    let head = head("HTTP/1.1 200 Spoken by sk-", &fields).unwrap();
    let want = [
        "proxy-status: cdn; next-hop=a",
        "x-many: 1",
        "x-many: 2",
        "content-type: application/json",
        "content-length: 2",
        "reelgate-upstream-request-id: up-1",
        "retry-after: 7",
    ];
    assert_eq!(shown(&head), want);
    assert!(!head.is_encoded);
}

#[test]
fn m32_a_coding_is_told() {
    for (fields, is_encoded) in [
        ("Content-Encoding: gzip\n", true),
        ("Content-Encoding: Identity\n", false),
        ("Content-Encoding:\n", false),
        ("Content-Encoding: identity\ncontent-encoding: br\n", true),
    ] {
        assert_eq!(head("HTTP/1.1 200 OK", fields).unwrap().is_encoded, is_encoded, "{fields}");
    }
}

#[test]
fn r23_interim_heads_are_passed_over_and_what_follows_the_head_stays() {
    let raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 9\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
    let (found, rest) = read(raw);
    let found = found.unwrap().unwrap();
    assert_eq!((found.status, shown(&found)), (StatusCode::NOT_FOUND, vec!["content-length: 2".to_owned()]));
    assert_eq!(rest, "{}");
}

#[test]
fn f19_r23_interim_heads_without_end_are_no_answer() {
    let after = |interim| format!("{}HTTP/1.1 204 None\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(interim));
    assert!(read(after(MOST_INTERIM).as_bytes()).0.unwrap().is_some());
    assert_eq!(read(after(MOST_INTERIM + 1).as_bytes()).0.err(), Some(Malformed));
}

#[test]
fn lim11_heads_without_end_are_no_answer() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(LONGEST));
    assert_eq!(read(long.as_bytes()).0.err(), Some(Malformed));
    assert_eq!(read(format!("{long}\r\n\r\n").as_bytes()).0.err(), Some(Malformed));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(MOST_FIELDS + 1));
    assert_eq!(read(many.as_bytes()).0.err(), Some(Malformed));
}

#[test]
fn h10_bytes_above_ascii_neither_stop_nor_leave_us() {
    let (found, _) = read(b"HTTP/1.1 200 \xff\r\nConnection: \xff, x-up\r\nX-Up: \xff\r\nX-Down: \xff\r\n\r\n");
    let found = found.unwrap().unwrap();
    assert_eq!(found.headers.len(), 1);
    assert_eq!(found.headers["x-down"].as_bytes(), b"\xff");
}

const WHOLE: &str =
    "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\nX-Y: z\r\n\r\n";

proptest! {
    #[test]
    fn a_head_is_whole_at_its_last_byte_and_not_before(cut in 0..WHOLE.len(), rest in ".{0,20}") {
        let (found, left) = read(&WHOLE.as_bytes()[..cut]);
        prop_assert!(found.unwrap().is_none());
        prop_assert!(WHOLE.as_bytes()[..cut].ends_with(&left));
        let (found, left) = read(format!("{WHOLE}{rest}").as_bytes());
        prop_assert_eq!(found.unwrap().unwrap().framing, Framing::Length(2));
        prop_assert_eq!(left, rest);
    }

    #[test]
    fn nothing_that_comes_makes_it_panic(raw in prop::collection::vec(any::<u8>(), 0..300), status in 0_u16..1000) {
        _ = read(&raw);
        _ = read(&[format!("HTTP/1.1 {status} OK\r\n").as_bytes(), &raw].concat());
    }
}
