//! Where a message ends (RFC 9112 §2, §5–7). Two readers that disagree about it are how one request hides in another:
//! what can be read in two ways is refused and its connection closed, and what goes upstream is framed anew.

use std::fmt::Write as _;
use std::time::Duration;

use crate::support::{GENERATIONS, Scene};

const BODY: &str = r#"{"prompt":"a"}"#;
/// A whole second request, which must never become one.
const HIDDEN: &str = "GET /openapi.json HTTP/1.1\r\nHost: a\r\nX-Request-Id: hidden\r\n\r\n";

/// A submission with these lines, and these bytes behind its header.
fn submission(lines: &str, rest: &str) -> String {
    format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lines}\r\n{rest}")
}

/// One chunk with the whole body, by this line of its length, then the end.
fn chunked(length: &str, end: &str) -> String {
    format!("{length}\r\n{BODY}\r\n{end}")
}

/// Every one of these is refused at once by one answer with one of these statuses, its connection is closed, and nothing
/// goes upstream.
async fn all_refused(requests: &[String], statuses: &[u16]) {
    let scene = Scene::with(|config, _| config.server.read_timeout = Duration::from_secs(1)).await;
    let mut good = scene.good_client().await;
    for request in requests {
        let answers = scene.exchange(request.clone() + HIDDEN).await;
        let got: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let is_refused = matches!(got[..], [status] if statuses.contains(&status));
        assert!(is_refused, "{got:?} for {:?}", request.get(..300).unwrap_or(request));
        assert_ne!(answers[0].header("x-request-id"), "hidden", "{request:?}");
    }
    good.is_served().await;
    assert!(!scene.log.text().contains("hidden"), "a hidden request was read");
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

/// Every one of these is served as the one request that it is.
async fn all_served(requests: &[String]) {
    for request in requests {
        let scene = Scene::start().await;
        let statuses = scene.statuses(request).await;
        assert_eq!(statuses, [200], "{request:?}");
        let received = scene.upstream.received();
        assert_eq!((received.len(), &received[0].body[..]), (1, BODY.as_bytes()), "{request:?}");
        scene.end().await;
    }
}

#[tokio::test]
async fn h5_r20_r30_a_length_beside_a_coding_is_read_by_the_coding_and_ends_the_connection() {
    let scene = Scene::start().await;
    for (lines, rest) in [
        ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", chunked("e", "0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", chunked("e", "0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", chunked("E", "0\r\n\r\n")),
        ("Content-Length: 600\r\nTransfer-Encoding: chunked\r\n", chunked("00000e", "0\r\n\r\n")),
    ] {
        let answers = scene.exchange(submission(lines, &rest) + HIDDEN).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200], "{lines}");
    }
    assert!(!scene.log.text().contains("hidden"), "a hidden request was read");
    // One prompt: one submission, framed by one length of ours.
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.upstream.received()[0].body, BODY);
    scene.end().await;
}

#[tokio::test]
async fn h6_r31_only_chunked_once_and_alone_is_a_transfer_coding_and_only_of_http_1_1() {
    let codings = [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \r\nContent-Length: 14\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\r\n",
    ];
    let mut requests: Vec<_> = codings.iter().map(|lines| submission(lines, &chunked("e", "0\r\n\r\n"))).collect();
    let in_http_1_0 = submission("Transfer-Encoding: chunked\r\n", &chunked("e", "0\r\n\r\n"));
    requests.push(in_http_1_0.replace("HTTP/1.1\r\nHost: a\r\nContent", "HTTP/1.0\r\nHost: a\r\nContent"));
    all_refused(&requests, &[400, 501]).await;
    all_served(
        &["Transfer-Encoding: chunked\r\n", "TRANSFER-ENCODING:\tChunked \r\n"]
            .map(|lines| submission(&format!("{lines}Connection: close\r\n"), &chunked("e", "0\r\n\r\n"))),
    )
    .await;
}

#[tokio::test]
async fn h7_r32_a_length_is_digits_alone_and_one_number() {
    let lines = [
        "Content-Length: +14\r\n",
        "Content-Length: -14\r\n",
        "Content-Length: 0x0e\r\n",
        "Content-Length: 14 14\r\n",
        "Content-Length: 14,14\r\n",
        "Content-Length: 14, 15\r\n",
        "Content-Length: 14\r\nContent-Length: 15\r\n",
        "Content-Length: 15\r\nContent-Length: 14\r\n",
        "Content-Length: 14.0\r\n",
        "Content-Length: 14;a\r\n",
        "Content-Length: e\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 184467440737095516300000000014\r\n",
    ];
    all_refused(&lines.map(|lines| submission(lines, BODY)), &[400]).await;
    // Too long to be read, but lengths.
    let lines = ["Content-Length: 9223372036854775808\r\n", "Content-Length: 18446744073709551613\r\n"];
    all_refused(&lines.map(|lines| submission(lines, BODY)), &[400, 413]).await;
    let lines = ["Content-Length: 14\r\n", "Content-Length:  \t14 \r\n", "Content-Length: 000014\r\n"];
    all_served(&lines.map(|lines| submission(&format!("{lines}Connection: close\r\n"), BODY))).await;
}

#[tokio::test]
async fn h17_h18_r33_a_malformed_chunk_is_a_400_that_closes() {
    let end = "0\r\n\r\n";
    let extension = format!("e;{}", "x".repeat(20 << 10));
    let mut rests = vec![
        chunked("0x1", end),
        chunked("1e", end),
        chunked("d", end),
        chunked("-e", end),
        chunked("+e", end),
        chunked("e e", end),
        chunked("g", end),
        chunked("", end),
        chunked("1000000000000000e", end),
        chunked(&extension, end),
        format!("e\n{BODY}\r\n{end}"),
        format!("e\r{BODY}\r\n{end}"),
        format!("e\r\n{BODY}{end}"),
        format!("e\r\n{BODY}\n{end}"),
        format!("e\r\n{BODY}\r{end}"),
        chunked("e", "0\r\nX y: z\r\n\r\n"),
        chunked("e", "0\r\nX\r\n\r\n"),
    ];
    // What would be a chunk of the length of an int that has wrapped around.
    rests.push(chunked("1000000000000000000000000000000000000000e", end));
    let requests: Vec<_> = rests.iter().map(|rest| submission("Transfer-Encoding: chunked\r\n", rest)).collect();
    all_refused(&requests, &[400]).await;
    // More than there is of it, and than there may be: nothing tells before the time is over.
    let endless = ["f", "1000", "fffffff", "ffffffffffffffff"]
        .map(|length| submission("Transfer-Encoding: chunked\r\n", &format!("{length}\r\n{BODY}")));
    all_refused(&endless, &[400, 408]).await;
    let rests = [chunked("e;a=b;c=\"d\"", end), chunked("0e", end), chunked("E ", end), chunked("e", "000\r\n\r\n")];
    all_served(&rests.map(|rest| submission("Transfer-Encoding: chunked\r\nConnection: close\r\n", &rest))).await;
}

#[tokio::test]
async fn r33_t62_a_body_in_chunks_of_one_byte_is_a_body() {
    let scene = Scene::start().await;
    let body = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(60_000));
    let mut rest = String::new();
    for byte in body.chars() {
        write!(rest, "1\r\n{byte}\r\n").unwrap();
    }
    let request = submission("Transfer-Encoding: chunked\r\nConnection: close\r\n", &(rest + "0\r\n\r\n"));
    assert_eq!(scene.statuses(request).await, [200]);
    assert_eq!(scene.upstream.received()[0].body, body);
    scene.end().await;
}

#[tokio::test]
async fn h8_r34_a_header_that_is_not_one_is_a_400() {
    let post = |lines: &str| submission(&format!("{lines}Content-Length: 14\r\n"), BODY);
    let mut requests: Vec<_> = [
        "X-A : b\r\n",
        "X-A\t: b\r\n",
        "X-A: b\r\n c\r\n",
        "X-A: b\r\n\tc\r\n",
        ": b\r\n",
        "X-A: b\0c\r\n",
        "X-A: b\rc\r\n",
        "X-A\0: b\r\n",
        "X A: b\r\n",
        "X-\u{e9}: b\r\n",
        "X(A): b\r\n",
        "X-A\r\n",
        "X-A: \u{7f}\r\n",
    ]
    .iter()
    .map(|lines| post(lines))
    .collect();
    requests.extend(
        [
            "GET  /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /openapi.json  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /openapi.json HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /openapi.json HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET /openapi.json HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET /openapi.json HTTP/3.0\r\nHost: a\r\n\r\n",
            "GET /openapi.json http/1.1\r\nHost: a\r\n\r\n",
            "GET /openapi.json HTTP/01.1\r\nHost: a\r\n\r\n",
            "GET /openapi.json\r\nHost: a\r\n\r\n",
            "GET /openapi.json\r\n\r\n",
            "G\0T /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
            "G{T /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n",
        ]
        .map(str::to_owned),
    );
    all_refused(&requests, &[400]).await;
}

#[tokio::test]
async fn h9_r35_a_bare_line_feed_ends_a_header_line_and_never_a_chunks() {
    let with_feeds = submission("Content-Length: 14\r\nConnection: close\r\n", "").replace("\r\n", "\n") + BODY;
    all_served(&[with_feeds]).await;
    let chunks = chunked("e", "0\r\n\r\n");
    all_refused(
        &[
            submission("Transfer-Encoding: chunked\r\n", &chunks.replacen("\r\n", "\n", 1)),
            submission("Transfer-Encoding: chunked\r\n", &format!("e\r\n{BODY}\n0\r\n\r\n")),
        ],
        &[400],
    )
    .await;
    // Two readers of these would see the same two lines, the second of which has no name.
    all_refused(&[submission("X-A: b\n\rX-B: c\r\nContent-Length: 14\r\n", BODY)], &[400]).await;
}

#[tokio::test]
async fn h29_r36_a_request_behind_a_request_is_read_in_order_or_not_at_all() {
    let scene = Scene::start().await;
    let first = submission(&format!("Content-Length: {}\r\n", BODY.len()), BODY);
    let second = HIDDEN.replace("hidden", "second");
    let third = "HEAD /openapi.json HTTP/1.1\r\nHost: a\r\nX-Request-Id: third\r\nConnection: close\r\n\r\n";
    scene.note_submissions(1);
    let text = String::from_utf8(scene.raw((first + &second + third + HIDDEN).as_bytes()).await).unwrap();
    let places: Vec<_> =
        ["request_id\":", "x-request-id: second", "x-request-id: third"].map(|part| text.find(part)).into();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {text}");
    assert!(!text.contains("hidden") && !scene.log.text().contains("hidden"), "read behind the last one: {text}");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn h13_h14_h16_expectations_and_trailers_are_met_or_left() {
    // Nothing but 100-continue is known; another is left alone, as RFC 9110 §10.1.1 allows.
    let close = "Connection: close\r\n";
    let trailers = "0\r\nContent-Length: 3\r\nAuthorization: x\r\nTransfer-Encoding: gzip\r\nHost: b\r\n\r\n";
    all_served(&[
        submission(&format!("Expect: banana\r\nContent-Length: 14\r\n{close}"), BODY),
        submission(&format!("Expect: \r\nContent-Length: 14\r\n{close}"), BODY),
        submission(&format!("Transfer-Encoding: chunked\r\n{close}"), &chunked("e", trailers)),
    ])
    .await;
    let scene = Scene::start().await;
    let head = submission("Expect: 100-Continue\r\nContent-Length: 14\r\nConnection: close\r\n", "");
    assert_eq!(scene.statuses(head + BODY).await.last(), Some(&200), "the body came uninvited");
    scene.end().await;
}

#[tokio::test]
async fn h10_h11_r78_odd_names_and_bytes_beyond_ascii_stay_here() {
    let scene = Scene::start().await;
    let head = submission("X_Api_Key: k\r\nAccept: caf\u{e9}\r\nX-Name: \u{e9}\r\nContent-Length: 14\r\n", BODY);
    let request = head.replace("Host: a\r\n", "Host: a\r\nConnection: close\r\n");
    assert_eq!(scene.statuses(request).await, [200]);
    let sent = String::from_utf8(scene.upstream.received()[0].head.to_vec()).expect("ASCII alone goes upstream");
    assert!(sent.is_ascii() && !sent.to_lowercase().contains("api_key"), "{sent}");
    scene.end().await;
}

#[tokio::test]
async fn h15_a_body_that_is_refused_unread_is_told_that_the_connection_ends() {
    let scene = Scene::start().await;
    let body = "x".repeat(512 << 10);
    for (lines, status) in [("Content-Type: text/plain\r\n", 415), ("Content-Encoding: gzip\r\n", 415)] {
        let head = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
        let answers = scene.exchange(head + &body).await;
        assert_eq!((answers[0].status, answers[0].header("connection")), (status, "close"));
    }
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}
