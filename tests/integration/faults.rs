//! A network that fails at each byte that matters, on both sides of the gateway (F-05, F-20, F-21, F-23, F-25): at most one
//! paid call, and no job is lost.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Failure, Fault, FaultProxy, GENERATIONS, SOON, Scene, Towards, eventually};

const CUTS: [Failure; 3] = [Failure::Reset, Failure::Close, Failure::Stall];

/// A submission as bytes, the length of its head, and its prompt.
fn submission(number: usize) -> (Vec<u8>, usize, String) {
    let prompt = format!("a candle, number {number:04}");
    let body = json!({"prompt": prompt}).to_string();
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (format!("{head}{body}").into_bytes(), head.len(), prompt)
}

/// Whether these bytes hold this prompt whole.
fn is_of(body: &[u8], prompt: &str) -> bool {
    String::from_utf8_lossy(body).contains(&format!("{prompt}\""))
}

/// Sends it through the proxy and reads what comes, for at most so long.
async fn send(proxy: &FaultProxy, bytes: &[u8], patience: Duration) -> Vec<u8> {
    // One that is reset at once may already be an error here.
    let Ok(mut client) = TcpStream::connect(proxy.address).await else { return Vec::new() };
    _ = client.write_all(bytes).await;
    let mut answer = Vec::new();
    _ = tokio::time::timeout(patience, client.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f21_r38_a_request_that_is_cut_at_any_byte_buys_nothing() {
    let scene = Scene::start().await;
    let proxy = FaultProxy::start(scene.gateway().address()).await;
    let mut number = 0;
    for how in CUTS {
        let (bytes, head, _) = submission(0);
        for at in [0, 1, head / 2, head - 1, head, (head + bytes.len()) / 2, bytes.len() - 1] {
            number += 1;
            let (bytes, _, prompt) = submission(number);
            proxy.next(Fault { towards: Towards::Server, at, how });
            scene.note_submissions(1);
            send(&proxy, &bytes, Duration::from_millis(50)).await;
            assert_eq!(scene.upstream.posts(), number as u64 - 1, "{how:?} at {at}");
            // Whole, it is a new job.
            let answer = scene.submit(&prompt).await;
            assert!(answer.cache_status().contains("stored"), "{how:?} at {at}: {}", answer.cache_status());
        }
    }
    drop(proxy);
    scene.metric_becomes("connections", 0.0).await;
    scene.metric_becomes("requests_in_flight", 0.0).await;
    scene.forgive_unread(21).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_f23_f25_an_answer_that_is_cut_at_any_byte_loses_no_job() {
    let scene = Scene::start().await;
    let proxy = FaultProxy::start(scene.gateway().address()).await;
    let mut number = 100;
    for how in CUTS {
        for at in [0, 1, 15, 100, 300] {
            number += 1;
            let (bytes, _, prompt) = submission(number);
            proxy.next(Fault { towards: Towards::Client, at, how });
            scene.note_submissions(1);
            let before = scene.upstream.posts();
            let answer = send(&proxy, &bytes, Duration::from_millis(50)).await;
            assert!(answer.len() <= at, "{how:?} at {at}");
            eventually("the job is made", async || scene.upstream.posts() == before + 1).await;
            let again = scene.submit(&prompt).await;
            assert_eq!(again.status, 200);
            assert_eq!(scene.upstream.posts(), before + 1, "{how:?} at {at}: it was bought again");
        }
    }
    drop(proxy);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_f07_f10_a_call_that_is_cut_at_any_byte_is_one_call_at_most() {
    let proxy = FaultProxy::begin().await;
    let url = format!("http://{}", proxy.address);
    let scene = Scene::with(|config, _| {
        config.upstream.submit_timeout = Duration::from_millis(300);
        config.upstream.url = url;
    })
    .await;
    proxy.lead_to(scene.upstream.address());
    for (place, towards, at) in [
        ("nothing", Towards::Server, 0),
        ("no answer", Towards::Client, 0),
        ("a byte of the answer", Towards::Client, 1),
        ("half the answer", Towards::Client, 120),
    ] {
        for how in CUTS {
            let prompt = format!("{place}, {how:?}");
            proxy.next(Fault { towards, at, how });
            let first = scene.submit(&prompt).await;
            assert!([502, 504].contains(&first.status), "{prompt}: {}", first.text());
            let second = scene.submit(&prompt).await;
            // Where nothing arrived it may be sent again; else it is held, or what came late is told.
            let twins = scene.upstream.received().iter().filter(|got| is_of(&got.body, &prompt)).count();
            assert!(twins <= 1, "{prompt}: {twins} calls, then {}", second.text());
            assert!([200, 409, 502, 504].contains(&second.status), "{prompt}: {}", second.text());
            assert!(scene.upstream.accepted().len() <= scene.upstream.posts() as usize);
        }
    }
    drop(proxy);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_an_answer_that_trickles_is_whole() {
    let proxy = FaultProxy::begin().await;
    let url = format!("http://{}", proxy.address);
    let scene = Scene::with(|config, _| config.upstream.url = url).await;
    proxy.lead_to(scene.upstream.address());
    proxy.next(Fault { towards: Towards::Client, at: 5, how: Failure::Trickle });
    let answer = tokio::time::timeout(SOON, scene.submit("slow, and whole")).await.expect("it ends");
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(proxy);
    scene.end().await;
}
