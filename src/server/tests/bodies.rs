//! Bodies: limits, deadlines, memory, and what is left unread.

use super::*;

/// `/read` with a limit of 1000 bytes each and 1500 in all.
fn small() -> Settings {
    Settings { max_body: 1000, body_memory: 1500, ..settings() }
}

fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

#[tokio::test]
async fn lim4_bodies_are_read_by_length_and_by_chunks() {
    let server = Running::start(small());
    let mut client = server.connect().await;
    let thousand = "x".repeat(1000);
    for (headers, body, length) in [
        ("Content-Length: 5\r\n", "hello", 5),
        ("Content-Length: 0\r\n", "", 0),
        ("", "", 0),
        ("Content-Length: 1000\r\n", &thousand, 1000),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n3;ext=1\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", 8),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 0),
    ] {
        let answer = client.ask(post("/read", headers) + body).await;
        assert!(answer.ends_with(&format!("\r\n{length} bytes")), "{headers}: {answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
        assert_eq!(server.known.memory.used(), 0);
    }
    assert_eq!(server.tally.accepted(), 1);
}

#[tokio::test]
async fn r21_a_body_announced_as_too_large_is_refused_without_100_and_without_reading() {
    let server = Running::start(small());
    let mut client = server.connect().await;
    client.send(post("/read", "Content-Length: 1001\r\nExpect: 100-continue\r\n")).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn r21_r22_a_body_that_is_wanted_is_invited_and_may_also_come_uninvited() {
    let server = Running::start(small());
    let mut client = server.connect().await;
    let head = post("/read", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    let mut invited = [0; 25];
    client.send(&head).await;
    timeout(BOUND, client.0.read_exact(&mut invited)).await.unwrap().unwrap();
    assert_eq!(&invited, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(client.ask("hello").await.ends_with("5 bytes"));

    client.send(head.clone() + "hello").await;
    let answers = client.answer().await + &client.answer().await;
    assert!(answers.ends_with("5 bytes"), "{answers}");

    client.send(&head).await;
    let answer = client.rest().await;
    assert!(answer.contains("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn lim4_chunks_beyond_the_limit_are_refused() {
    let server = Running::start(small());
    let mut client = server.connect().await;
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    client.send(post("/read", "Transfer-Encoding: chunked\r\n") + &chunk + &chunk + "1\r\nx\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(server.known.memory.used(), 0);
}

#[tokio::test]
async fn h23_t63_a_body_that_does_not_come_is_a_408() {
    let server = Running::start(small());
    for (headers, part) in [
        ("Content-Length: 10\r\n", ""),
        ("Content-Length: 10\r\n", "x"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhel"),
        ("Transfer-Encoding: chunked\r\n", ""),
    ] {
        let mut client = server.connect().await;
        client.send(post("/read", headers) + part).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{headers}: {answer}");
        assert_eq!(server.known.memory.used(), 0);
    }
}

#[tokio::test]
async fn h17_malformed_chunks_are_a_400_that_closes() {
    let server = Running::start(small());
    for chunks in ["zz\r\n", "0x1\r\nx\r\n", "fffffffffffffffff\r\nx", "-1\r\n", "3\r\nabcd\r\n"] {
        let mut client = server.connect().await;
        client.send(post("/read", "Transfer-Encoding: chunked\r\n") + chunks).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"), "{chunks}: {answer}");
        assert!(answer.contains("Transfer-Encoding"), "{answer}");
    }
}

#[tokio::test]
async fn f21_r38_a_body_that_ends_early_is_aborted() {
    let server = Running::start(small());
    for (headers, part) in [("Content-Length: 10\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")] {
        let mut client = server.connect().await;
        client.send(post("/read", headers) + part).await;
        client.0.shutdown().await.unwrap();
        let answer = client.rest().await;
        assert!(answer.is_empty() || answer.ends_with("Aborted"), "{answer}");
        assert!(server.serves().await);
        assert_eq!(server.known.memory.used(), 0);
    }
}

#[tokio::test]
async fn lim8_f60_bodies_share_a_memory_and_give_it_back() {
    let mut server = Running::start(Settings { read_timeout: BOUND, ..small() });
    let mut first = server.connect().await;
    first.send(post("/read", "Content-Length: 1000\r\n") + &"x".repeat(999)).await;
    assert_eq!(server.event().await, Event::Began("/read".to_owned()));
    connections::assert_until(|| server.known.memory.used() == 999).await;

    let mut second = server.connect().await;
    second.send(post("/read", "Content-Length: 502\r\nExpect: 100-continue\r\n")).await;
    let refused = second.rest().await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("server.body_memory"), "{refused}");

    let mut third = server.connect().await;
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    third.send(post("/read", "Transfer-Encoding: chunked\r\n") + &chunk + "1\r\nx\r\n0\r\n\r\n").await;
    assert!(third.rest().await.starts_with("HTTP/1.1 503 "));
    assert_eq!(server.known.memory.used(), 999);

    let mut fourth = server.connect().await;
    assert!(fourth.ask(post("/read", "Content-Length: 500\r\n") + &"x".repeat(500)).await.ends_with("500 bytes"));

    drop(first);
    connections::assert_until(|| server.known.memory.used() == 0).await;
}

#[tokio::test]
async fn lim8_t66_f60_a_body_that_is_only_announced_takes_no_memory_from_others() {
    let mut server = Running::start(Settings { read_timeout: BOUND, ..small() });
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        client.send(post("/read", "Content-Length: 1000\r\n") + "x").await;
        assert_eq!(server.event().await, Event::Began("/read".to_owned()));
        waiting.push(client);
    }
    connections::assert_until(|| server.known.memory.used() == 20).await;
    let mut good = server.connect().await;
    assert!(good.ask(post("/read", "Content-Length: 1000\r\n") + &"x".repeat(1000)).await.ends_with("1000 bytes"));
}

#[tokio::test(start_paused = true)]
async fn lim4_h23_the_time_for_a_body_follows_what_came_and_never_a_standstill() {
    let limits = Limits::new(&Settings { read_timeout: Duration::from_secs(30), ..Settings::default() });
    let start = tokio::time::Instant::now();
    let (mut now, mut deadline) = (start, start + Duration::from_secs(30));
    // A burst of 31 MiB buys no more than the next thirty seconds.
    deadline = limits.allow(deadline, now, 31 << 20);
    assert_eq!(deadline, now + Duration::from_secs(30));
    // A byte now and then does not put the end off.
    for _ in 0..100 {
        now += Duration::from_millis(290);
        deadline = limits.allow(deadline, now, 1);
    }
    assert!(deadline < start + Duration::from_secs(31), "{:?}", deadline - start);
    // 64 KiB a second may go on for ever.
    for second in 1..1000 {
        now = start + Duration::from_secs(second);
        let before = deadline;
        deadline = limits.allow(deadline, now, 64 << 10);
        assert!(deadline > now && deadline >= before.min(now + Duration::from_secs(30)));
    }
}

#[tokio::test]
async fn r36_r37_what_is_left_of_a_refused_body_never_becomes_a_request() {
    let mut server = Running::start(settings());
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for headers in [format!("Content-Length: {}\r\n", smuggled.len()), "Content-Length: 4000\r\n".to_owned()] {
        let mut client = server.connect().await;
        client.send(post("/refuse", &headers) + smuggled).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert_eq!(server.event().await, Event::Began("/refuse".to_owned()));
    }
    assert!(server.events.try_recv().is_err());
}

#[tokio::test]
async fn r37_the_body_of_a_get_closes_its_connection() {
    let server = Running::start(settings());
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.contains("200 OK") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn r30_length_and_coding_together_end_the_connection() {
    let mut server = Running::start(settings());
    let mut client = server.connect().await;
    client.send(post("/read", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\nX").await;
    let answer = client.rest().await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(server.event().await, Event::Began("/read".to_owned()));
    assert!(server.events.try_recv().is_err());
}

#[tokio::test]
async fn f33_h15_a_refusal_is_readable_while_the_client_still_sends() {
    let server = Running::start(settings());
    let body = Bytes::from(vec![b'x'; 600_000]);
    for _ in 0..50 {
        let mut client = server.connect().await;
        client.send(post("/refuse", "Content-Length: 20000000\r\n")).await;
        // Half of a mebibyte is drained; the client reads only afterwards.
        client.send(&body).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("refused"), "{answer}");
    }
}
