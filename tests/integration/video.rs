//! The main job as a whole: a prompt becomes a video that can be played; and the same over HTTP/2.

use std::net::SocketAddr;

use hyper::Method;
use reelgate::simulator::{CutAt, End, Fault, How, Shape};
use serde_json::{Value, json};

use crate::support::{Answer, GENERATIONS, Line, Scene, ask, eventually, together};

/// Downloads a part of a video as a player does: from its own address, without any key.
async fn download(url: &str, range: &str) -> Answer {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    ask(address, Method::GET, &format!("/{path}"), &[("range", range)], "").await
}

/// Whether these are the first bytes of an MP4 file: a box of the type `ftyp` that ends where it says.
fn begins_like_an_mp4(bytes: &[u8]) -> bool {
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    &bytes[4..8] == b"ftyp" && (16..=64).contains(&length) && &bytes[length + 4..length + 8] == b"moov"
}

#[tokio::test]
async fn a_prompt_becomes_a_video_that_can_be_played() {
    for shape in [Shape::Flat, Shape::Wrapper] {
        let scene = Scene::with(|_, options| options.shape = shape).await;
        let body = json!({"prompt": "A candle flickers on a wooden table.", "duration": 3, "resolution": "480p"});
        let id = scene.post(GENERATIONS, &body, &[]).await.request_id();
        let done = scene.poll_until(&id, "\"done\"").await.json();
        let job = if shape == Shape::Flat { &done } else { &done["data"]["data"] };
        assert_eq!((&job["status"], &job["video"]["duration"]), (&json!("done"), &json!(3)));
        let url = job["video"]["url"].as_str().unwrap();
        let first = download(url, "bytes=0-63").await;
        assert_eq!((first.status, first.header("content-type")), (206, "video/mp4"));
        let bytes = first.body.clone().unwrap();
        assert_eq!(bytes.len(), 64);
        assert!(begins_like_an_mp4(&bytes), "{bytes:?}");
        let length: usize = first.header("content-range").rsplit('/').next().unwrap().parse().unwrap();
        let last = download(url, "bytes=-1").await;
        assert_eq!(last.header("content-range"), format!("bytes {}-{0}/{length}", length - 1));
        let whole = download(url, "bytes=0-").await;
        assert_eq!(whole.body.unwrap().len(), length);
        // Whoever asks for the same again gets the same video, and pays nothing.
        assert_eq!(scene.post(GENERATIONS, &body, &[]).await.request_id(), id);
        assert_eq!((scene.upstream.posts(), scene.upstream.counts().videos), (1, 3));
        assert_eq!(scene.metric("jobs_total{outcome=\"done\"}").await, 1.0);
        assert_eq!(scene.metric("jobs_running").await, 0.0);
        scene.end().await;
    }
}

#[tokio::test]
async fn over_http2_by_prior_knowledge_the_main_job_is_the_same() {
    let scene = Scene::start().await;
    let mut line = Line::http2(scene.gateway().address()).await;
    let body = json!({"prompt": "a candle"}).to_string();
    scene.note_submissions(2);
    let json_type = [("content-type", "application/json")];
    let first = line.ask("POST", GENERATIONS, &json_type, &body).await.whole().await;
    assert_eq!(first.cache_status(), "reelgate; fwd=miss; stored");
    let id = first.request_id();
    let again = line.ask("POST", GENERATIONS, &json_type, &body).await.whole().await;
    assert!(again.cache_status().starts_with("reelgate; hit; ttl="));
    assert_eq!((again.request_id(), again.body), (id.clone(), first.body));
    let path = format!("/grok/v1/videos/{id}");
    let mut done = Value::Null;
    eventually("the job is done", async || {
        done = line.ask("GET", &path, &[], "").await.whole().await.json();
        done["status"] == "done"
    })
    .await;
    let first = download(done["video"]["url"].as_str().unwrap(), "bytes=0-63").await;
    assert!(begins_like_an_mp4(&first.body.unwrap()));
    // A HEAD has no body, whatever a GET would get, but says how long that is.
    for path in [path.as_str(), "/grok/v1/videos/of-nobody", "/openapi.json", "/nothing", GENERATIONS] {
        let get = line.ask("GET", path, &[], "").await.whole().await;
        let head = line.ask("HEAD", path, &[], "").await.whole().await;
        assert_eq!((head.status, head.text().as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-length"), get.text().len().to_string(), "{path}");
        let head = scene.ask(Method::HEAD, path, &[], "").await;
        assert_eq!((head.status, head.text().as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-length"), get.text().len().to_string(), "{path}");
    }
    scene.note_submissions(2);
    let refused = line.ask("POST", GENERATIONS, &json_type, "{}").await.whole().await;
    scene.note_submissions(1);
    assert_eq!(refused.refusal(), (422, "invalid_request".to_owned()));
    for received in scene.upstream.received() {
        let head = String::from_utf8_lossy(&received.head).into_owned();
        assert!(head.contains("\r\nvia: ") && head.contains(" HTTP/1.1\r\n"), "{head}");
    }
    drop(line);
    scene.end().await;
}

#[tokio::test]
async fn f22_a_stream_that_is_reset_does_not_hurt_the_others_of_its_connection() {
    let scene = Scene::with(|config, _| config.server.workers = 1).await;
    let id = scene.submit("a").await.request_id();
    let path = format!("/grok/v1/videos/{id}");
    let mut line = Line::http2(scene.gateway().address()).await;
    let slow = || Fault::Trickle { bytes: 16, every: std::time::Duration::from_millis(30) };
    let mut answers = Vec::new();
    for round in 0..6 {
        // Every third is cut by the upstream, every third is left by the client.
        let cut = (round % 3 == 1).then(|| Fault::cut(CutAt::BeforeEnd, How::Reset));
        scene.upstream.next_poll(Fault::All([slow()].into_iter().chain(cut).collect()));
        answers.push(line.ask("GET", &path, &[], "").await);
    }
    let mut round = 0;
    answers.retain_mut(|_| {
        round += 1;
        round % 3 != 0
    });
    let answers = together(answers.into_iter().map(|answer| answer.whole())).await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.is_some(), number % 2 == 0, "{number}");
        answer.body.iter().for_each(|body| assert!(serde_json::from_slice::<Value>(body).is_ok()));
    }
    assert_eq!(line.ask("GET", &path, &[], "").await.whole().await.status, 200, "the connection goes on");
    drop(line);
    scene.end().await;
}

#[tokio::test]
async fn f1a_a_stream_that_is_reset_within_a_poll_still_ends_the_entry() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    let id = scene.submit("a").await.request_id();
    scene.upstream.next_poll(Fault::All(vec![
        Fault::End(End::failed("internal_error", "boom")),
        Fault::Trickle { bytes: 8, every: std::time::Duration::from_millis(10) },
    ]));
    let mut line = Line::http2(scene.gateway().address()).await;
    let mut answer = line.ask("GET", &format!("/grok/v1/videos/{id}"), &[], "").await;
    answer.piece().await.unwrap().unwrap();
    drop(answer);
    scene.metric_becomes("jobs_total{outcome=\"failed\"}", 1.0).await;
    assert_ne!(scene.submit("a").await.request_id(), id);
    drop(line);
    scene.end().await;
}
