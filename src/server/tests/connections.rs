//! Protocols, deadlines and caps.

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper::header::HOST;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;

use super::*;
use crate::server::tally::Closed;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

pub(super) async fn http2_client(server: &Running) -> http2::SendRequest<Empty<Bytes>> {
    let socket = TcpStream::connect(server.servers.address()).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn http2_get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://a{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn http_1_is_served_and_its_connection_is_kept() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    for _ in 0..3 {
        let answer = client.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(server.tally.accepted(), 1);
}

#[tokio::test]
async fn http_2_is_served_by_prior_knowledge() {
    let server = Running::start(settings());
    let mut sender = http2_client(&server).await;
    for path in ["/", "/refuse"] {
        let answer = sender.send_request(http2_get(path)).await.unwrap();
        assert_eq!(answer.version(), hyper::Version::HTTP_2);
        assert!(!answer.headers().contains_key("connection"));
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(server.tally.accepted(), 1);
}

#[tokio::test]
async fn h19_a_preface_in_pieces_is_http_2() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    for piece in ["P", "RI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n"] {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    // The server's SETTINGS: a frame of type 4 on stream 0.
    let mut frame = [0; 9];
    timeout(BOUND, client.0.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!((frame[3], frame[8]), (4, 0));
}

#[tokio::test]
async fn h19_h21_lim2_t63_whoever_says_nothing_whole_is_closed_while_others_are_served() {
    let server = Running::start(settings());
    for (sent, reason, deadline) in [
        ("", Closed::FirstByte, settings().first_byte_timeout),
        ("P", Closed::FirstByte, settings().first_byte_timeout),
        ("PRI * HT", Closed::FirstByte, settings().first_byte_timeout),
        ("G", Closed::Header, settings().header_timeout),
        ("GET / HTTP/1.1\r\nHost: a\r\n", Closed::Header, settings().header_timeout),
        ("POST ", Closed::Header, settings().header_timeout),
    ] {
        let before = server.tally.closed(reason);
        let start = Instant::now();
        let mut client = server.connect().await;
        client.send(sent).await;
        assert!(server.serves().await);
        assert_eq!(client.rest().await, "", "{sent:?}");
        assert!(start.elapsed() >= deadline - Duration::from_millis(20), "{sent:?}: {:?}", start.elapsed());
        assert_until(|| server.tally.closed(reason) == before + 1).await;
    }
}

#[tokio::test]
async fn h22_h24_an_idle_connection_is_closed_after_the_header_timeout() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    client.ask(GET).await;
    let start = Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(start.elapsed() >= settings().header_timeout - Duration::from_millis(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn h24_a_parked_connection_is_served_again_and_closed_in_its_time() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    for pause in [0, 5, 15, 40, 120, 300] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert!(client.ask(GET).await.ends_with("hello"), "after {pause} ms");
    }
    assert_eq!((server.tally.accepted(), server.tally.open()), (1, 1));
    let start = Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(start.elapsed() >= settings().header_timeout - Duration::from_millis(20), "{:?}", start.elapsed());
    assert_until(|| server.tally.closed(Closed::Header) == 1).await;
}

#[tokio::test]
async fn h21_a_header_that_begins_behind_another_request_is_kept_and_has_its_time() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    client.send(format!("{GET}GET / HT")).await;
    assert!(client.answer().await.ends_with("hello"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(client.ask("TP/1.1\r\nHost: a\r\n\r\n").await.ends_with("hello"), "what came before is not lost");

    client.send(format!("{GET}GET / HT")).await;
    assert!(client.answer().await.ends_with("hello"));
    assert_eq!(client.rest().await, "", "a header has no longer than its time");
    assert_until(|| server.tally.closed(Closed::Header) == 1).await;
}

#[tokio::test]
async fn h24_a_client_that_leaves_while_parked_frees_its_place() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    client.ask(GET).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    assert_until(|| server.tally.open() == 0).await;
    assert_eq!(server.tally.closed(Closed::Header), 0);
}

#[tokio::test]
async fn h12_lim3_heads_have_bounds() {
    let server = Running::start(settings());
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(40 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(100));
    for head in [long, many] {
        let mut client = server.connect().await;
        client.send(head).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(63));
    assert!(server.connect().await.ask(fits).await.contains("200 OK"));
}

#[tokio::test]
async fn r13_a_connect_request_makes_no_tunnel() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn lim7_t64_an_address_has_its_cap_and_a_freed_place_is_taken_again() {
    let server = Running::start(Settings { connections_per_address: 2, ..settings() });
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert!(first.ask(GET).await.contains("200 OK"));
    assert!(second.ask(GET).await.contains("200 OK"));
    let mut third = server.connect().await;
    assert_eq!(third.rest().await, "");
    assert_eq!(server.tally.closed(Closed::AddressFull), 1);
    drop(first);
    assert_until(|| server.tally.open() == 1).await;
    assert!(server.serves().await);
}

#[tokio::test]
async fn lim7_all_together_have_a_cap() {
    let server = Running::start(Settings { connections: 1, ..settings() });
    let mut first = server.connect().await;
    assert!(first.ask(GET).await.contains("200 OK"));
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(server.tally.closed(Closed::Full), 1);
}

#[tokio::test]
async fn lim15_t63_f25_a_client_that_does_not_read_is_closed() {
    let server = Running::start(settings());
    let mut reader = server.connect().await;
    reader.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut silent = server.connect().await;
    silent.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut part = vec![0; 1 << 20];
    while server.tally.closed(Closed::Write) == 0 {
        timeout(BOUND, reader.0.read_exact(&mut part)).await.unwrap().unwrap();
    }
    timeout(BOUND, reader.0.read_exact(&mut part)).await.unwrap().unwrap();
    assert_eq!(server.tally.closed(Closed::Write), 1);
    drop(silent);
}

#[tokio::test]
async fn inv9_t77_a_panic_is_an_answer_and_the_connection_goes_on() {
    let mut server = Running::start(settings());
    let mut client = server.connect().await;
    let answer = client.ask("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("internal_error"), "{answer}");
    assert_eq!(server.tally.panics(), 1);
    assert!(client.ask(GET).await.contains("200 OK"));
    let mut sender = http2_client(&server).await;
    assert_eq!(sender.send_request(http2_get("/panic")).await.unwrap().status(), 500);
    assert_eq!(sender.send_request(http2_get("/")).await.unwrap().status(), 200);
    assert_eq!(server.tally.panics(), 2);
    assert_eq!(server.event().await, Event::Began("/panic".to_owned()));
}

#[tokio::test]
async fn h25_h26_a_client_that_leaves_drops_its_request() {
    let mut server = Running::start(settings());
    let mut client = server.connect().await;
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.event().await, Event::Began("/wait".to_owned()));
    drop(client);
    assert_eq!(server.event().await, Event::Dropped("/wait".to_owned()));

    let mut sender = http2_client(&server).await;
    let waiting = tokio::spawn(sender.send_request(http2_get("/wait")));
    assert_eq!(server.event().await, Event::Began("/wait".to_owned()));
    waiting.abort();
    assert_eq!(server.event().await, Event::Dropped("/wait".to_owned()));
    assert_eq!(sender.send_request(http2_get("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn connections_are_spread_over_workers_with_threads_of_their_own() {
    let server = Running::start(Settings { workers: 3, ..settings() });
    let mut threads = std::collections::HashSet::new();
    for _ in 0..64 {
        let answer = server.connect().await.ask("GET /thread HTTP/1.1\r\nHost: a\r\n\r\n").await;
        threads.insert(answer.lines().last().unwrap().to_owned());
    }
    assert!(threads.len() > 1 && threads.iter().all(|thread| thread.starts_with("worker-")), "{threads:?}");
    assert_eq!(server.tally.accepted(), 64);
}

/// Waits until something that another thread does is seen.
pub(super) async fn assert_until(mut is_so: impl FnMut() -> bool) {
    let seen = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(BOUND, seen).await.expect("it never came true");
}

#[tokio::test]
async fn r18_http_1_0_is_closed_after_its_answer_and_never_chunked() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.contains("200 OK") && answer.ends_with("hello") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test]
async fn http_2_uploads_are_read() {
    let server = Running::start(settings());
    let socket = TcpStream::connect(server.servers.address()).await.unwrap();
    let (mut sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let body = Full::<Bytes>::from(vec![b'x'; 1_000_000]);
    let answer = sender.send_request(Request::post("http://a/read").header(HOST, "a").body(body).unwrap()).await;
    let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "1000000 bytes");
}
