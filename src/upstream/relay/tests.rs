//! Answers on their way, over real sockets.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::{HeaderMap, Version};
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::request::head::Header;
use crate::request::route::RequestId;
use crate::upstream::headers::Passed;
use crate::upstream::polls::Polls;
use crate::upstream::scripted::{Act, KEY, Scripted, json, say};

/// What a witness saw: the bytes, and whether they were all.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

/// Keeps what it sees; the frame waits for `gate` once it has seen a whole JSON object.
struct Notes {
    seen: Seen,
    told: mpsc::UnboundedSender<()>,
    gate: Option<Arc<Notify>>,
}

impl Witness for Notes {
    fn saw(&mut self, status: StatusCode, so_far: &[u8], complete: bool) -> Option<Before> {
        assert_eq!(status, StatusCode::OK);
        self.seen.lock().unwrap().push((String::from_utf8_lossy(so_far).into_owned(), complete));
        _ = self.told.send(());
        let gate = self.gate.clone()?;
        serde_json::from_slice::<serde_json::Value>(so_far).ok()?;
        Some(Box::pin(async move { gate.notified().await }))
    }

    fn unread(&mut self, why: Unread) {
        self.seen.lock().unwrap().push((why.name().to_owned(), false));
    }
}

fn notes(gate: Option<Arc<Notify>>) -> (Option<Box<dyn Witness>>, Seen, mpsc::UnboundedReceiver<()>) {
    let (told, tells) = mpsc::unbounded_channel();
    let seen = Seen::default();
    (Some(Box::new(Notes { seen: seen.clone(), told, gate })), seen, tells)
}

async fn start(script: Vec<Act>, patience: Duration) -> (Scripted, Arc<Polls>) {
    let upstream = Scripted::start(vec![script]).await;
    let polls = Polls::new(upstream.upstream(|settings| settings.poll_timeout = patience));
    (upstream, polls)
}

async fn relay(polls: &Arc<Polls>, witness: Option<Box<dyn Witness>>) -> Response<Relay> {
    let via = crate::upstream::headers::Via::new("reelgate-0a1b2c3d").unwrap();
    let passed = Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_11, &via);
    let response = polls.get(&polls.key(None), &RequestId::parse("r").unwrap(), &passed, Instant::now()).await.unwrap();
    Relay::begin(response, witness).await
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn one_frame_passes_with_its_length_and_is_seen_whole() {
    let (_upstream, polls) = start(vec![json("200 OK", r#"{"status":"done"}"#)], LONG).await;
    let (witness, seen, _) = notes(None);
    let response = relay(&polls, witness).await;
    assert_eq!(response.headers()["content-length"], "17");
    assert_eq!(response.body().size_hint().exact(), Some(17));
    assert!(!response.body().is_end_stream());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), r#"{"status":"done"}"#);
    assert_eq!(*seen.lock().unwrap(), [(r#"{"status":"done"}"#.to_owned(), true)]);
    assert_eq!(polls.idle(), 1);
}

#[tokio::test]
async fn m21_the_last_frame_waits_until_its_witness_is_done() {
    let (second, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let script = vec![
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{\"status\":\r\n"),
        Act::Wait(second.clone()),
        say("9\r\n\"failed\"}\r\n"),
        Act::Hang,
    ];
    let (_upstream, polls) = start(script, LONG).await;
    let (witness, seen, mut tells) = notes(Some(gate.clone()));
    let mut body = relay(&polls, witness).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), r#"{"status":"#);
    assert!(seen.lock().unwrap().is_empty(), "half an object is not worth a look");
    second.notify_one();
    let mut frame = next_frame(&mut body);
    tokio::select! {
        biased;
        _ = &mut frame => panic!("the frame passed before its witness was done"),
        _ = tells.recv() => {}
    }
    assert!(std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx).is_pending())).await);
    gate.notify_one();
    assert_eq!(frame.await.unwrap(), r#""failed"}"#);
    assert_eq!(*seen.lock().unwrap(), [(r#"{"status":"failed"}"#.to_owned(), false)]);
}

/// The next frame's data, as a future that can be polled by hand.
fn next_frame(body: &mut Relay) -> Pin<Box<dyn Future<Output = Option<Bytes>> + '_>> {
    Box::pin(async { body.frame().await?.ok()?.into_data().ok() })
}

#[tokio::test]
async fn m21_an_answer_without_a_body_is_seen_before_its_head_passes() {
    let (_upstream, polls) = start(vec![json("200 OK", "")], LONG).await;
    let (witness, seen, _) = notes(None);
    let response = relay(&polls, witness).await;
    assert_eq!(*seen.lock().unwrap(), [(String::new(), true)]);
    assert!(response.body().is_end_stream());
    assert_eq!(response.body().size_hint().exact(), Some(0));
}

#[tokio::test]
async fn m21_a_client_that_leaves_does_not_keep_the_witness_from_the_end() {
    let rest = Arc::new(Notify::new());
    let head = say("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"status\":");
    let (_upstream, polls) = start(vec![head, Act::Wait(rest.clone()), say("\"failed\"}")], LONG).await;
    let (witness, seen, mut tells) = notes(None);
    let mut body = relay(&polls, witness).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    rest.notify_one();
    tells.recv().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(r#"{"status":"failed"}"#.to_owned(), true)]);
}

#[tokio::test]
async fn m21_a_client_that_leaves_without_reading_leaves_the_witness_the_whole() {
    let (_upstream, polls) = start(vec![json("200 OK", r#"{"a":1}"#)], LONG).await;
    let (witness, seen, mut tells) = notes(None);
    drop(relay(&polls, witness).await);
    tells.recv().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(r#"{"a":1}"#.to_owned(), true)]);
}

#[tokio::test]
async fn a_client_that_leaves_a_long_answer_closes_the_connection() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n{}", "x".repeat(200_000));
    let (upstream, polls) = start(vec![say(&long), Act::Hang], LONG).await;
    let (witness, seen, _) = notes(None);
    let mut body = relay(&polls, witness).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    upstream.ended(1).await;
    assert_eq!(*seen.lock().unwrap(), [("long".to_owned(), false)]);
    assert_eq!(polls.idle(), 0);
}

#[tokio::test]
async fn f1a_r39_a_cut_answer_ends_in_an_error() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"status\":",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
    ] {
        let (upstream, polls) = start(vec![say(raw), Act::Close], LONG).await;
        let (witness, seen, _) = notes(None);
        let cut = relay(&polls, witness).await.into_body().collect().await;
        assert!(matches!(cut, Err(RelayError::Upstream(_))), "{raw}");
        assert!(seen.lock().unwrap().iter().all(|(_, complete)| !complete), "{raw}");
        upstream.ended(1).await;
        assert_eq!(polls.idle(), 0);
    }
}

#[tokio::test]
async fn an_upstream_that_pauses_too_long_ends_in_an_error() {
    let raw = say("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"status\":");
    let (upstream, polls) = start(vec![raw, Act::Hang], Duration::from_millis(50)).await;
    let cut = relay(&polls, None).await.into_body().collect().await;
    assert!(matches!(cut, Err(RelayError::Timeout)));
    upstream.ended(1).await;
}

/// Fetches until nothing more comes for now, or until `most` bytes wait.
async fn fetch(body: &mut Relay, most: usize) -> usize {
    std::future::poll_fn(|cx| Poll::Ready(body.fetch(cx, most))).await
}

#[tokio::test]
async fn f09_lim11_an_answer_that_drips_for_ever_is_cut_in_time() {
    let head = say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
    let (upstream, polls) = start(vec![head, Act::Drip], LONG).await;
    let begun = Instant::now();
    let mut body = relay(&polls, None).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    // From here on both ends wait for the clock alone.
    tokio::time::pause();
    assert!(matches!(body.collect().await, Err(RelayError::Timeout)));
    let lasted = begun.elapsed();
    assert!(lasted >= LONGEST_ANSWER && lasted < LONGEST_ANSWER + LONG, "{lasted:?}");
    upstream.ended(1).await;
}

#[tokio::test]
async fn m21_what_the_client_has_no_room_for_is_fetched_and_read_and_its_connection_goes_home() {
    let (second, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let script = vec![
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{\"status\":\r\n"),
        Act::Wait(second.clone()),
        say("9\r\n\"failed\"}\r\n"),
        Act::Wait(second.clone()),
        say("0\r\n\r\n"),
    ];
    let (_upstream, polls) = start(script, LONG).await;
    let (witness, _, mut tells) = notes(Some(gate.clone()));
    let mut body = relay(&polls, witness).await.into_body();
    assert_eq!(fetch(&mut body, usize::MAX).await, 10);
    second.notify_one();
    tokio::select! {
        biased;
        _ = tells.recv() => {}
        () = std::future::poll_fn(|cx| {
            assert_eq!(body.fetch(cx, usize::MAX), 10, "it passed before its witness was done");
            Poll::Pending
        }) => {}
    }
    gate.notify_one();
    second.notify_one();
    std::future::poll_fn(|cx| {
        body.fetch(cx, usize::MAX);
        if polls.idle() == 1 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), r#"{"status":"failed"}"#);
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn inv8_what_was_fetched_of_a_cut_answer_never_looks_complete() {
    let head = say("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"status\":\"failed\"}");
    let (upstream, polls) = start(vec![head, Act::Close], LONG).await;
    let (witness, seen, _) = notes(None);
    let mut body = relay(&polls, witness).await.into_body();
    upstream.ended(1).await;
    // A break is told only when it is asked for once more.
    for _ in 0..3 {
        assert_eq!(fetch(&mut body, usize::MAX).await, 19);
        tokio::task::yield_now().await;
    }
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), r#"{"status":"failed"}"#);
    assert!(!body.is_end_stream());
    assert!(matches!(body.frame().await, Some(Err(RelayError::Upstream(_)))));
    assert_eq!(*seen.lock().unwrap(), [(r#"{"status":"failed"}"#.to_owned(), false)]);
    assert_eq!(polls.idle(), 0);
}

#[tokio::test]
async fn lim11_no_more_is_fetched_than_wanted() {
    let (_upstream, polls) = start(vec![json("200 OK", &"x".repeat(1 << 20))], LONG).await;
    let mut body = relay(&polls, None).await.into_body();
    for _ in 0..100 {
        assert!(fetch(&mut body, 10_000).await < 20_000);
        tokio::task::yield_now().await;
    }
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 1 << 20);
}

#[tokio::test]
async fn t02_m32_the_key_is_masked_across_frames_and_the_length_stands() {
    let (start_of_key, rest_of_key) = KEY.split_at(11);
    let second = Arc::new(Notify::new());
    let body = format!(r#"{{"error":"Incorrect API key: {KEY}"}}"#);
    let head = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\nX-Debug: {KEY}\r\n\r\n", body.len());
    let script = vec![
        say(&format!(r#"{head}{{"error":"Incorrect API key: {start_of_key}"#)),
        Act::Wait(second.clone()),
        say(&format!(r#"{rest_of_key}"}}"#)),
    ];
    let (_upstream, polls) = start(script, LONG).await;
    let response = relay(&polls, None).await;
    assert!(!response.headers().contains_key("x-debug"));
    let mut relayed = response.into_body();
    let first = relayed.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, r#"{"error":"Incorrect API key: "#);
    assert_eq!(relayed.size_hint().exact(), Some((body.len() - first.len()) as u64));
    second.notify_one();
    let rest = relayed.collect().await.unwrap().to_bytes();
    assert_eq!(rest, format!(r#"{}"}}"#, "*".repeat(KEY.len())));
}

#[tokio::test]
async fn t02_a_body_that_ends_in_the_beginning_of_the_key_is_whole() {
    let body = format!("x{}", &KEY[..20]);
    let (_upstream, polls) = start(vec![json("200 OK", &body)], LONG).await;
    let mut relayed = relay(&polls, None).await.into_body();
    assert_eq!(relayed.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
    assert!(!relayed.is_end_stream());
    assert_eq!(relayed.collect().await.unwrap().to_bytes(), &KEY[..20]);
}

#[tokio::test]
async fn r05_trailers_are_dropped() {
    let raw =
        "HTTP/1.1 200 OK\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nAuthorization: x\r\n\r\n";
    let (_upstream, polls) = start(vec![say(raw)], LONG).await;
    let response = relay(&polls, None).await;
    assert!(!response.headers().contains_key("trailer"));
    let collected = response.into_body().collect().await.unwrap();
    assert!(collected.trailers().is_none());
    assert_eq!(collected.to_bytes(), "{}");
}

#[tokio::test]
async fn an_encoded_answer_passes_unread() {
    let raw = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}";
    let (_upstream, polls) = start(vec![say(raw)], LONG).await;
    let (witness, seen, _) = notes(None);
    assert_eq!(relay(&polls, witness).await.into_body().collect().await.unwrap().to_bytes(), "{}");
    assert_eq!(*seen.lock().unwrap(), [("encoded".to_owned(), false)]);
}
