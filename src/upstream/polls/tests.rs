//! Polls over real sockets.

use http_body_util::BodyExt;
use hyper::{HeaderMap, Version};

use super::*;
use crate::request::head::Header;
use crate::upstream::key::UpstreamKey;
use crate::upstream::scripted::{Act, KEY, PSEUDONYM, Scripted, json, say};

fn id() -> RequestId {
    RequestId::parse("r-1").unwrap()
}

async fn ask(polls: &Arc<Polls>) -> Result<Response<PolledBody>, PollFailure> {
    let passed = Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_11, polls.upstream.via());
    polls.get(&polls.key(None), &id(), &passed, Instant::now()).await
}

async fn read(polls: &Arc<Polls>) -> (StatusCode, Bytes) {
    let response = ask(polls).await.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn polls_share_a_connection_and_carry_only_our_headers() {
    let upstream =
        Scripted::start(vec![vec![json("200 OK", r#"{"status":"pending"}"#)], vec![json("404 Not Found", "{}")]]).await;
    let polls = Polls::new(upstream.upstream(|_| {}));
    assert_eq!(read(&polls).await, (StatusCode::OK, Bytes::from_static(br#"{"status":"pending"}"#)));
    assert_eq!(polls.idle(), 1);
    assert_eq!(read(&polls).await, (StatusCode::NOT_FOUND, Bytes::from_static(b"{}")));
    let received = upstream.received();
    assert_eq!(received.iter().map(|one| one.connection).collect::<Vec<_>>(), [0, 0]);
    let want = format!(
        "GET /grok/v1/videos/r-1 HTTP/1.1\r\nhost: {}\r\nuser-agent: reelgate/{}\r\naccept: application/json\r\n\
         accept-encoding: identity\r\nvia: 1.1 {PSEUDONYM}\r\nauthorization: Bearer {KEY}\r\n\r\n",
        upstream.address,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(received[0].text, want);
    assert_eq!(received[1].text, want);
}

#[tokio::test]
async fn f06_a_poll_that_failed_before_an_answer_is_asked_once_more_on_a_new_connection() {
    let good = || vec![json("200 OK", "{}")];
    let upstream = Scripted::start(vec![good(), vec![Act::Close], good(), vec![Act::Reset], vec![Act::Reset]]).await;
    let polls = Polls::new(upstream.upstream(|_| {}));
    assert_eq!(read(&polls).await.1, "{}");
    assert_eq!(read(&polls).await.1, "{}");
    assert_eq!(ask(&polls).await.err(), Some(PollFailure::Broken), "not a third time");
    assert_eq!(upstream.received().iter().map(|one| one.connection).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
}

#[tokio::test]
async fn f06_a_connection_that_the_upstream_closed_while_idle_is_not_seen_by_the_client() {
    let close = || vec![json("200 OK", "{}"), Act::Close];
    let upstream = Scripted::start(vec![close(), close(), close()]).await;
    let polls = Polls::new(upstream.upstream(|_| {}));
    for _ in 0..3 {
        assert_eq!(read(&polls).await.1, "{}");
        upstream.ended(1).await;
    }
    assert_eq!(upstream.received().len(), 3);
}

#[tokio::test]
async fn r39_r40_bytes_behind_an_answer_never_become_the_next_one() {
    let extra = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
    for first in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}{extra}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{extra}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{extra}"),
    ] {
        let upstream = Scripted::start(vec![vec![say(&first)], vec![json("200 OK", r#"{"right":1}"#)]]).await;
        let polls = Polls::new(upstream.upstream(|_| {}));
        read(&polls).await;
        assert_eq!(read(&polls).await.1, r#"{"right":1}"#, "{first}");
        assert_eq!(upstream.received().last().unwrap().connection, 1);
    }
}

#[tokio::test]
async fn r39_f18_what_is_no_answer_is_not_passed() {
    for (raw, failure) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            PollFailure::Broken,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", PollFailure::Broken),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", PollFailure::Broken),
        ("HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n", PollFailure::Broken),
        ("HTTP/2.0 200 OK\r\n\r\n", PollFailure::Broken),
        ("{\"status\":\"done\"}\r\n\r\n", PollFailure::Broken),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", PollFailure::Broken),
        ("HTTP/1.1 301 Moved\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", PollFailure::Broken),
        ("HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", PollFailure::Broken),
        ("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}", PollFailure::KeyRefused),
    ] {
        let upstream = Scripted::start(vec![vec![say(raw), Act::Hang]]).await;
        let polls = Polls::new(upstream.upstream(|_| {}));
        assert_eq!(ask(&polls).await.err(), Some(failure), "{raw}");
        upstream.ended(1).await;
        assert_eq!((upstream.received().len(), polls.idle()), (1, 0), "{raw}");
    }
}

#[tokio::test]
async fn r23_interim_answers_are_no_answer() {
    let raw = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let upstream = Scripted::start(vec![vec![say(raw), json("200 OK", "{}")]]).await;
    assert_eq!(read(&Polls::new(upstream.upstream(|_| {}))).await, (StatusCode::OK, Bytes::from_static(b"{}")));
}

#[tokio::test]
async fn a_silent_upstream_is_given_up_in_time_and_its_connection_closed() {
    let upstream = Scripted::start(vec![vec![Act::Hang]]).await;
    let polls = Polls::new(upstream.upstream(|settings| settings.poll_timeout = Duration::from_millis(50)));
    assert_eq!(ask(&polls).await.err(), Some(PollFailure::Timeout));
    upstream.ended(1).await;
    assert_eq!(Error::from(PollFailure::Timeout), Error::PollTimeout);
}

#[tokio::test]
async fn f01_an_upstream_that_is_not_there_is_unreached() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Scripted::start(vec![]).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let polls = Polls::new(upstream.upstream(|settings| settings.url = url));
    assert_eq!(ask(&polls).await.err(), Some(PollFailure::Unreached(Unreached::Refused)));
}

#[tokio::test]
async fn lim12_idle_connections_are_bounded_in_number_and_age() {
    let upstream = Scripted::start(vec![vec![json("200 OK", "{}")]; 6]).await;
    let polls = Polls::new(upstream.upstream(|settings| {
        settings.idle_connections = 2;
        settings.idle_timeout = Duration::from_secs(3600);
    }));
    let answers = [ask(&polls).await, ask(&polls).await, ask(&polls).await];
    for answer in answers {
        answer.unwrap().into_body().collect().await.unwrap();
    }
    assert_eq!(polls.idle(), 2);
    polls.sweep();
    assert_eq!(polls.idle(), 2);
    upstream.ended(1).await;

    let short = Polls::new(upstream.upstream(|settings| settings.idle_timeout = Duration::ZERO));
    read(&short).await;
    assert_eq!(short.idle(), 1);
    short.sweep();
    assert_eq!(short.idle(), 0);
    upstream.ended(1).await;
    read(&short).await;
    read(&short).await;
    let connections: Vec<usize> = upstream.received().iter().map(|one| one.connection).collect();
    assert_eq!(connections, [0, 1, 2, 3, 4, 5], "none that is too old is used again");
}

#[tokio::test]
async fn f17_a_new_key_is_used_at_once() {
    let upstream = Scripted::start(vec![vec![json("200 OK", "{}")]; 2]).await;
    let behind = upstream.upstream(|_| {});
    let polls = Polls::new(behind.clone());
    read(&polls).await;
    behind.replace_key(UpstreamKey::parse("sk-another-key").unwrap(), 0);
    read(&polls).await;
    let received = upstream.received();
    assert!(received[0].text.contains(KEY) && received[1].text.contains("Bearer sk-another-key\r\n"));
}
