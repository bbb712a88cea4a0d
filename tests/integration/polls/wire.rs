//! Polls on a bad line: what is cut never looks complete, what is slow still flows, and a GET may be asked once more.

use std::net::Ipv4Addr;
use std::time::Duration;

use hyper::{HeaderMap, Method};
use reelgate::simulator::{CutAt, End, Fault, How, Malformed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{is_hit, path, poll_with};
use crate::support::{Answer, Line, SOON, Scene, together};

/// No head of the simulated upstream is shorter, in bytes.
const HEAD: usize = 90;

/// A scene with one worker, so that each poll finds the connection of the one before.
async fn one_worker() -> Scene {
    Scene::with(|config, _| config.server.workers = 1).await
}

/// The length of an answer's head and body on the upstream's wire, as far as it can be told from here.
async fn length_of_a_failure(scene: &Scene, id: &str) -> usize {
    poll_with(scene, id, failure()).await.body.unwrap().len()
}

async fn line(scene: &Scene) -> Line {
    Line::http1(scene.gateway().address()).await
}

fn failure() -> Fault {
    Fault::End(End::failed("invalid_argument", "told by one byte more"))
}

#[tokio::test]
async fn f1a_inv8_a_cut_poll_never_looks_complete() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    let body = length_of_a_failure(&scene, &id).await;
    let places =
        (1..body).step_by(body / 7).map(CutAt::Within).chain((body..body + HEAD).step_by(20).map(CutAt::Within));
    for at in places.chain([CutAt::BeforeEnd]) {
        for how in [How::Fin, How::Reset] {
            for framing in [None, Some(Fault::Chunked { bytes: 11 })] {
                let cut = Fault::Cut { at, how, accepted: false };
                let fault: Vec<_> = [failure(), cut.clone()].into_iter().chain(framing).collect();
                // Where nothing of the answer came, a GET is asked once more: that one is cut too.
                scene.upstream.next_poll(Fault::All(fault.clone()));
                scene.upstream.always_poll(Some(Fault::All(fault)));
                let answer = scene.poll(&id).await;
                scene.upstream.always_poll(None);
                match answer.status {
                    502 => assert_eq!(answer.code(), "upstream_invalid_answer", "{cut:?}"),
                    200 => assert!(answer.body.is_none(), "{cut:?}: {}", answer.text()),
                    other => panic!("{other} for {cut:?}"),
                }
            }
        }
    }
    assert_eq!(scene.poll(&id).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn inv8_a_cut_poll_does_not_look_complete_to_http_1_0_and_2_either() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    let cut = |framing: Option<Fault>| {
        let cut = Fault::cut(CutAt::BeforeEnd, How::Fin);
        Fault::All([failure(), cut].into_iter().chain(framing).collect())
    };
    let mut line = Line::http2(scene.gateway().address()).await;
    for framing in [None, Some(Fault::Chunked { bytes: 11 })] {
        scene.upstream.next_poll(cut(framing.clone()));
        let answer = line.ask("GET", &path(&id), &[], "").await.whole().await;
        assert_eq!((answer.status, answer.body), (200, None));
        assert_eq!(line.ask("GET", &path(&id), &[], "").await.whole().await.status, 200, "the others are not hurt");

        scene.upstream.next_poll(cut(framing.clone()));
        let mut stream = TcpStream::connect(scene.gateway().address()).await.unwrap();
        stream.write_all(format!("GET {} HTTP/1.0\r\nHost: a\r\n\r\n", path(&id)).as_bytes()).await.unwrap();
        let mut told = Vec::new();
        let end = tokio::time::timeout(SOON, stream.read_to_end(&mut told)).await.unwrap();
        let text = String::from_utf8_lossy(&told).into_owned();
        assert!(text.starts_with("HTTP/1.0 200") || end.is_err(), "{text}");
        let has_length = text.to_ascii_lowercase().contains("content-length:");
        // Without a length the end of the connection is the end of the body: only a reset can tell.
        assert!(has_length || end.is_err(), "{framing:?}: {text}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r39_broken_http_is_an_error_and_its_connection_is_not_used_again() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    for malformed in [
        Malformed::TwoLengths,
        Malformed::LengthAndChunked,
        Malformed::FoldedHeader,
        Malformed::WrongVersion,
        Malformed::NoStatusLine,
        Malformed::HugeHeader,
        Malformed::BadChunk,
        Malformed::MissingLastChunk,
        Malformed::BytesAfterEnd,
        Malformed::ControlByte,
    ] {
        scene.upstream.next_poll(Fault::All(vec![failure(), Fault::Malformed(malformed)]));
        let answer = match line(&scene).await.try_ask("GET", &path(&id), &[], "").await {
            Ok(open) => open.whole().await,
            // The answer had begun, so that it could only be broken off.
            Err(_) => Answer { status: 0, headers: HeaderMap::new(), body: None },
        };
        match malformed {
            Malformed::BadChunk | Malformed::MissingLastChunk => assert_eq!(answer.body, None, "{malformed:?}"),
            // A whole answer stands before what is too much.
            Malformed::BytesAfterEnd => assert_eq!(answer.json()["status"], "failed"),
            _ => assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()), "{malformed:?}"),
        }
        let bad = scene.upstream.received().last().unwrap().connection;
        assert_eq!(scene.poll(&id).await.status, 200);
        assert_ne!(scene.upstream.received().last().unwrap().connection, bad, "{malformed:?}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r40_a_body_where_none_may_be_is_nobodys_next_answer() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    let smuggled = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let answer = poll_with(&scene, &id, Fault::Garbage(smuggled.into())).await;
    assert!(answer.status == 502 || (answer.status == 204 && answer.text().is_empty()), "{}", answer.status);
    let bad = scene.upstream.received().last().unwrap().connection;
    assert!(scene.poll(&id).await.text().contains("pending"));
    assert_ne!(scene.upstream.received().last().unwrap().connection, bad);
    scene.end().await;
}

#[tokio::test]
async fn r40_where_a_body_was_told_that_may_not_be_the_next_poll_has_another_connection() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    for (told, again) in [("", true), ("Content-Length: 5\r\n", false), ("Transfer-Encoding: chunked\r\n", false)] {
        // The body that may not be comes later, or never: nothing tells yet.
        let answer = poll_with(&scene, &id, Fault::Garbage(format!("HTTP/1.1 204 None\r\n{told}\r\n").into())).await;
        assert_eq!((answer.status, answer.text()), (204, String::new()), "{told}");
        let before = scene.upstream.received().last().unwrap().connection;
        assert!(scene.poll(&id).await.text().contains("status"));
        assert_eq!(scene.upstream.received().last().unwrap().connection == before, again, "{told}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r39_m32_an_answer_in_a_transfer_coding_is_neither_passed_nor_believed() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    for codings in ["gzip, chunked", "chunked\r\nTransfer-Encoding: chunked", "gzip"] {
        for status in ["200 OK", "400 Bad Request"] {
            // Whatever it hides is not what it seems to be.
            let body = r#"{"request_id":"r-hidden"}"#;
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nTransfer-Encoding: {codings}\r\n\r\n");
            let fault = Fault::Garbage(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into());
            let answer = poll_with(&scene, &id, fault.clone()).await;
            assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()), "{status} {codings}");
            scene.upstream.next_submission(fault);
            let answer = scene.submit(&format!("{status} {codings}")).await;
            assert_eq!(answer.refusal(), (502, "outcome_unknown".to_owned()), "{status} {codings}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn r23_interim_answers_are_not_the_answer_and_an_unasked_101_is_none() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    let answer = poll_with(&scene, &id, Fault::All(vec![failure(), Fault::Interim(vec![100, 102, 103])])).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("failed")));
    for head in ["Upgrade: websocket\r\nConnection: upgrade\r\n", ""] {
        let switch = format!("HTTP/1.1 101 Switching Protocols\r\n{head}\r\n");
        // A second chance is a GET's right; it meets the same.
        let fault = Fault::Garbage(switch.into_bytes());
        scene.upstream.always_poll(Some(fault));
        let answer = scene.poll(&id).await;
        scene.upstream.always_poll(None);
        assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()), "{head}");
    }
    assert_eq!(scene.poll(&id).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn f09_lim11_an_answer_that_is_looked_at_whole_has_the_time_of_a_poll() {
    let scene = Scene::with(|config, _| {
        config.server.workers = 1;
        config.upstream.poll_timeout = Duration::from_secs(1);
    })
    .await;
    let id = scene.submit("a").await.request_id();
    // The head comes in one step, and no pause is too long.
    let slow = Fault::Trickle { bytes: 400, every: Duration::from_millis(300) };
    scene.upstream.always_poll(Some(Fault::All(vec![failure(), Fault::Padded(4000), slow])));
    assert_eq!(scene.ask(Method::HEAD, &path(&id), &[], "").await.status, 504);
    // What is passed on as it comes may take longer.
    let flowing = scene.poll(&id).await;
    assert_eq!((flowing.status, flowing.text().len()), (200, 4000));
    scene.end().await;
}

#[tokio::test]
async fn a_slow_answer_flows_its_first_bytes_come_before_its_last_are_sent() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    for framing in [None, Some(Fault::Chunked { bytes: 8 }), Some(Fault::UntilClose)] {
        let slow = Fault::Trickle { bytes: 16, every: Duration::from_millis(20) };
        scene.upstream.next_poll(Fault::All([failure(), slow].into_iter().chain(framing.clone()).collect()));
        let answered = scene.upstream.counts().answered;
        let mut line = line(&scene).await;
        let mut answer = line.ask("GET", &path(&id), &[], "").await;
        let first = answer.piece().await.unwrap().unwrap();
        assert_eq!(scene.upstream.counts().answered, answered, "{framing:?}: it was buffered");
        let rest = answer.whole().await.body.unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&[first, rest].concat()).unwrap();
        assert_eq!(whole["status"], "failed");
        assert!(scene.upstream.wait_until(|counts| counts.answered > answered, SOON).await);
    }
    scene.end().await;
}

#[tokio::test]
async fn f1a_of_many_polls_none_waits_for_the_answers_of_others_if_the_upstream_is_slow() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    scene.upstream.always_poll(Some(Fault::Delay(SOON * 2)));
    let begun = scene.upstream.polls();
    tokio::select! {
        answers = together((0..100).map(|_| scene.poll(&id))) => panic!("{} answers came", answers.len()),
        all = scene.upstream.wait_until(|counts| counts.polls >= begun + 100, SOON) => assert!(all),
    }
    scene.upstream.always_poll(None);
    assert_eq!(scene.poll(&id).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn f1a_silence_is_504_before_the_answer_and_a_cut_within_it() {
    let scene = Scene::with(|config, _| config.upstream.poll_timeout = Duration::from_millis(400)).await;
    let id = scene.submit("a").await.request_id();
    for fault in [Fault::Stall, Fault::Delay(Duration::from_secs(60)), Fault::cut(CutAt::Within(20), How::Stall)] {
        let answer = poll_with(&scene, &id, fault.clone()).await;
        assert_eq!(answer.refusal(), (504, "upstream_timeout".to_owned()), "{fault:?}");
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(answer.header("proxy-status"), "reelgate; error=http_response_timeout");
        assert!(is_hit(&scene, "a", &id).await);
    }
    let polls = scene.upstream.polls();
    assert_eq!(polls, 3, "what was too slow is not asked again");
    let answer = poll_with(&scene, &id, Fault::All(vec![failure(), Fault::cut(CutAt::BeforeEnd, How::Stall)])).await;
    assert_eq!((answer.status, answer.body), (200, None));
    assert_eq!(scene.poll(&id).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn a_hundred_polls_share_one_connection() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    let before = scene.upstream.connections();
    for round in 0..100 {
        let framing = (round % 2 == 0).then_some(Fault::Chunked { bytes: 20 });
        let answer = poll_with(&scene, &id, Fault::All(framing.into_iter().collect())).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(scene.upstream.connections() - before, 1);
    scene.end().await;
}

#[tokio::test]
async fn f06_a_pooled_connection_that_died_is_replaced_and_the_client_sees_nothing() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    for round in 0..100 {
        let how = if round % 2 == 0 { How::Fin } else { How::Reset };
        let answer = poll_with(&scene, &id, Fault::cut(CutAt::AfterAnswer, how)).await;
        assert_eq!(answer.status, 200, "round {round}");
        assert!(answer.body.is_some() || how == How::Reset, "round {round}: a reset may overtake the body");
    }
    assert_eq!(scene.poll(&id).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn f06_a_get_that_met_no_answer_is_asked_once_more_and_not_twice() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    for at in [CutAt::Request(20), CutAt::BeforeAnswer] {
        for how in [How::Fin, How::Reset] {
            assert_eq!(scene.poll(&id).await.status, 200, "a connection waits");
            let polls = scene.upstream.received().len();
            assert_eq!(poll_with(&scene, &id, Fault::cut(at, how)).await.status, 200);
            assert_eq!(scene.upstream.received().len() - polls, 2, "{at:?} {how:?}");
            let polls = scene.upstream.received().len();
            scene.upstream.always_poll(Some(Fault::cut(at, how)));
            let answer = scene.poll(&id).await;
            scene.upstream.always_poll(None);
            assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()), "{at:?} {how:?}");
            assert_eq!(scene.upstream.received().len() - polls, 2, "{at:?} {how:?}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn t01_a_redirect_is_neither_followed_nor_shown() {
    let scene = one_worker().await;
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let location = format!("http://{}/grok/v1/videos/x", elsewhere.local_addr().unwrap());
    let id = scene.submit("a").await.request_id();
    for status in [300, 301, 302, 303, 304, 307, 308] {
        for location in [location.clone(), path("other"), format!("{}/other", scene.upstream.origin())] {
            let polls = scene.upstream.polls();
            let answer = poll_with(&scene, &id, Fault::Redirect { status, location }).await;
            assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()), "{status}");
            assert_eq!(answer.header("location"), "");
            assert_eq!(scene.upstream.polls() - polls, 1, "{status}");
        }
    }
    let nobody = std::future::poll_fn(|context| std::task::Poll::Ready(elsewhere.poll_accept(context).is_pending()));
    assert!(nobody.await, "somebody followed");
    scene.end().await;
}

#[tokio::test]
async fn m21_an_encoded_answer_passes_but_an_encoded_error_does_not() {
    let scene = one_worker().await;
    let id = scene.submit("a").await.request_id();
    let answer = poll_with(&scene, &id, Fault::All(vec![failure(), Fault::Encoded])).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, "gzip"));
    assert!(answer.body.unwrap().starts_with(b"\x1f\x8b"));
    assert_eq!(scene.metric("polls_unread_total{reason=\"encoded\"}").await, 1.0);
    for end in [End::Moderated, End::NotFound] {
        // It may hold the key, and nobody could see it (M32).
        let answer = poll_with(&scene, &id, Fault::All(vec![Fault::End(end), Fault::Encoded])).await;
        assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()));
    }
    let asked = scene.upstream.received();
    let head = String::from_utf8_lossy(&asked.last().unwrap().head).to_ascii_lowercase();
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "M21");
    scene.end().await;
}
