//! An upstream that tells the key: in a body, in headers, cut in two (T-02, M32); and one that refuses it (F-17).

use std::time::Duration;

use reelgate::simulator::{Fault, Form};
use reelgate::telemetry::settings::Level;
use serde_json::json;

use crate::support::{Line, Scene};

/// What the simulated upstream says of a key.
fn message(key: &str) -> String {
    format!("Incorrect API key provided: {key}. Find your key in the console.")
}

async fn talkative() -> Scene {
    Scene::with(|config, _| config.log.level = Level::Debug).await
}

#[tokio::test]
async fn t02_m32_a_polled_answer_comes_with_stars_in_place_of_the_key() {
    let scene = talkative().await;
    let id = scene.submit("a").await.request_id();
    let masked = message(&"*".repeat(scene.key.len()));
    for status in [200, 400, 403, 404, 429, 500, 503] {
        let echo = Fault::KeyEcho { status };
        for how in [
            None,
            Some(Fault::Trickle { bytes: 1, every: Duration::ZERO }),
            Some(Fault::Trickle { bytes: 13, every: Duration::from_millis(2) }),
        ] {
            scene.upstream.next_poll(Fault::All([echo.clone()].into_iter().chain(how.clone()).collect()));
            let answer = scene.poll(&id).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.json()["error"]["message"], masked, "{status} {how:?}");
            for name in ["x-echo", "www-authenticate"] {
                assert_eq!(answer.header(name), "", "{status}");
            }
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn t02_m32_a_submissions_answer_comes_with_stars_in_place_of_the_key() {
    let scene = talkative().await;
    let masked = message(&"*".repeat(scene.key.len()));
    for (number, status) in [400, 402, 403, 404, 422, 429, 500, 503].into_iter().enumerate() {
        scene.upstream.next_submission(Fault::KeyEcho { status });
        let answer = scene.submit(&format!("prompt {number}")).await;
        assert_eq!((answer.status, answer.json()["error"]["message"].as_str()), (status, Some(masked.as_str())));
        for name in ["x-echo", "www-authenticate"] {
            assert_eq!(answer.header(name), "", "{status}");
        }
    }
    // A 2xx that refuses passes too, and so does what leaves the outcome unknown.
    for (number, status) in [200, 502, 504].into_iter().enumerate() {
        scene.upstream.next_submission(Fault::KeyEcho { status });
        let answer = scene.submit(&format!("other {number}")).await;
        assert_eq!((answer.status, answer.json()["error"]["message"].as_str()), (status, Some(masked.as_str())));
    }
    // Of a 401 the client is told in our words.
    scene.upstream.next_submission(Fault::KeyEcho { status: 401 });
    let answer = scene.submit("last").await;
    assert_eq!(answer.refusal(), (502, "upstream_key_refused".to_owned()));
    assert!(!answer.text().contains("***"), "{}", answer.text());
    scene.end().await;
}

#[tokio::test]
async fn m32_a_job_whose_answer_holds_the_key_is_told_without_it_to_all_its_twins() {
    let scene = talkative().await;
    let body = json!({"request_id": "job-1", "debug": scene.key});
    let form = Form::Text { content_type: "application/json".to_owned(), body: body.to_string() };
    scene.upstream.next_submission(Fault::status(200, form).and_accepted());
    let first = scene.submit("a").await;
    let second = scene.submit("a").await;
    for answer in [first, second] {
        assert_eq!(answer.json()["debug"], "*".repeat(scene.key.len()));
    }
    scene.end().await;
}

#[tokio::test]
async fn m32_a_key_in_an_answer_that_is_unwrapped_or_only_headed_is_masked_too() {
    let scene = Scene::with(|config, _| config.polls.shape = reelgate::jobs::settings::Shape::Flat).await;
    let id = scene.submit("a").await.request_id();
    let data = json!({"task_id": id, "status": "FAILURE", "fail_reason": message(&scene.key), "data": null});
    let form = Form::Text {
        content_type: "application/json".to_owned(),
        body: json!({"code": "success", "data": data}).to_string(),
    };
    scene.upstream.next_poll(Fault::All(vec![Fault::status(200, form), Fault::Chunked { bytes: 10 }]));
    let answer = scene.poll(&id).await;
    assert_eq!(answer.json()["error"]["message"], message(&"*".repeat(scene.key.len())));
    scene.upstream.next_poll(Fault::KeyEcho { status: 403 });
    let answer = scene.ask(hyper::Method::HEAD, &format!("/grok/v1/videos/{id}"), &[], "").await;
    assert_eq!((answer.status, answer.header("x-echo")), (403, ""));
    scene.end().await;
}

/// Polls on a connection of its own and gives the answer's bytes.
async fn raw_poll(scene: &Scene, id: &str) -> String {
    let poll = format!("GET /grok/v1/videos/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    String::from_utf8(scene.raw(poll.as_bytes()).await).unwrap()
}

#[tokio::test]
async fn inv1_a_key_in_a_reason_phrase_or_in_trailers_ends_here() {
    let scene = talkative().await;
    let id = scene.submit("a").await.request_id();
    let key = scene.key.clone();
    let phrase = format!("HTTP/1.1 403 {key}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}");
    let trailers = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\n{{}}\r\n0\r\nX-Sum: {key}\r\n\r\n"
    );
    let interim =
        format!("HTTP/1.1 103 {key}\r\nLink: <{key}>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}");
    for (bytes, status) in [(&phrase, "403 Forbidden"), (&trailers, "200 OK"), (&interim, "200 OK")] {
        scene.upstream.next_poll(Fault::Garbage(bytes.clone().into_bytes()));
        let answer = raw_poll(&scene, &id).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}");
        assert!(!answer.to_ascii_lowercase().contains("x-sum"), "R-05: {answer}");
    }
    scene.upstream.next_submission(Fault::Garbage(phrase.into_bytes()));
    let body = r#"{"prompt":"b"}"#;
    let lines = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    let answer = scene.raw_submission(&lines, body).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    scene.end().await;
}

#[tokio::test]
async fn m32_an_encoded_error_may_hide_the_key_and_is_replaced() {
    let scene = talkative().await;
    for (number, status) in [400, 403, 500, 503].into_iter().enumerate() {
        let echo = Fault::All(vec![Fault::KeyEcho { status }, Fault::Encoded]);
        scene.upstream.next_submission(echo.clone());
        let answer = scene.submit(&format!("prompt {number}")).await;
        assert_eq!(answer.header("content-encoding"), "", "{status}");
        assert!(!answer.code().is_empty() && answer.status >= 500, "{status}: {}", answer.status);
        scene.upstream.next_poll(echo);
        assert_eq!(scene.poll("x").await.refusal(), (502, "upstream_invalid_answer".to_owned()), "{status}");
    }
    scene.end().await;
}

#[tokio::test]
async fn t02_over_http2_the_key_is_masked_as_well() {
    let scene = talkative().await;
    let id = scene.submit("a").await.request_id();
    let mut line = Line::http2(scene.gateway().address()).await;
    scene.upstream.next_poll(Fault::KeyEcho { status: 403 });
    let answer = line.ask("GET", &format!("/grok/v1/videos/{id}"), &[], "").await.whole().await;
    scene.see(&answer.raw());
    assert_eq!(answer.json()["error"]["message"], message(&"*".repeat(scene.key.len())));
    scene.end().await;
}

#[tokio::test]
async fn f17_a_refused_key_is_our_fault_is_seen_and_heals() {
    let scene = talkative().await;
    let id = scene.submit("a").await.request_id();
    for fault in [Fault::named("401").unwrap(), Fault::KeyEcho { status: 401 }, Fault::status(401, Form::Html)] {
        scene.upstream.next_poll(fault.clone());
        let answer = scene.poll(&id).await;
        assert_eq!(answer.refusal(), (502, "upstream_key_refused".to_owned()), "{fault:?}");
        assert_eq!(answer.header("www-authenticate"), "", "the client's key is not asked for");
        assert_eq!(scene.admin("/readyz").await.json(), json!({"degraded": ["upstream_key"]}));
        assert_eq!(scene.admin("/readyz").await.status, 200, "hits and polls go on");
        assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 1.0);
        // What tells nothing about the key heals nothing.
        scene.upstream.next_poll(Fault::status(503, Form::Html));
        scene.poll(&id).await;
        assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 1.0);
        assert_eq!(scene.poll(&id).await.status, 200);
        assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 0.0);
        assert_eq!(scene.admin("/readyz").await.json(), json!({"degraded": []}));

        scene.upstream.next_submission(fault.clone());
        let answer = scene.submit("b").await;
        assert_eq!(answer.refusal(), (502, "upstream_key_refused".to_owned()), "{fault:?}");
        assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 1.0);
        assert_eq!(scene.poll(&id).await.status, 200, "a poll may heal what a submission has seen");
        assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 0.0);
    }
    assert_eq!(scene.upstream.accepted().len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn f17_a_403_is_about_the_request_and_passes() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let forbidden = || Fault::status(403, Form::xai("permission-denied"));
    scene.upstream.next_poll(forbidden());
    let answer = scene.poll(&id).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("permission-denied")));
    scene.upstream.next_submission(forbidden());
    let answer = scene.submit("b").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("permission-denied")));
    assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 0.0);
    scene.end().await;
}
