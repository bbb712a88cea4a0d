//! The log: one JSON line a request, whose fields are a contract; nothing of a prompt, nothing that breaks a line.

use std::collections::BTreeSet;

use hyper::Method;
use reelgate::simulator::{CutAt, Fault, How};
use reelgate::telemetry::settings::Level;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Door, EDITS, GENERATIONS, Scene, eventually};

/// The request's line, once it is written.
async fn line_of(scene: &Scene, request_id: &str) -> Value {
    let of_it =
        || -> Vec<Value> { scene.log.requests().into_iter().filter(|line| line["request_id"] == request_id).collect() };
    eventually("a line a request", async || !of_it().is_empty()).await;
    let lines = of_it();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

fn fields(line: &Value) -> BTreeSet<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What every request's line has.
const ALWAYS: [&str; 10] = [
    "bytes_in",
    "bytes_out",
    "client.address",
    "duration_ms",
    "level",
    "message",
    "method",
    "request_id",
    "route",
    "status",
];

fn always_and<'a>(more: &[&'a str]) -> BTreeSet<&'a str> {
    ALWAYS.iter().chain(["time"].iter()).chain(more).copied().collect()
}

#[tokio::test]
async fn a_request_leaves_one_line_that_says_what_became_of_it() {
    let scene = Scene::start().await;
    let bought = scene.submit("a kite").await;
    let job = bought.request_id();
    let line = line_of(&scene, bought.header("x-request-id")).await;
    assert_eq!(fields(&line), always_and(&["team", "outcome", "fingerprint", "job", "upstream_ms"]));
    let want = json!({"level": "info", "client.address": "127.0.0.1", "team": "open", "route": "generations",
        "method": "POST", "status": 200, "outcome": "created", "job": job, "bytes_in": 19});
    for (name, value) in want.as_object().unwrap() {
        assert_eq!(line[name], *value, "{name}");
    }
    assert_eq!(line["bytes_out"], bought.text().len());
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["upstream_ms"].as_f64().unwrap() > 0.0);
    let fingerprint = line["fingerprint"].as_str().unwrap();
    assert!(fingerprint.len() == 12 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{fingerprint}");

    let hit = scene.submit_with("a kite", &[("x-request-id", "the-clients-own")]).await;
    assert_eq!(hit.header("x-request-id"), "the-clients-own", "a valid one is kept");
    let line = line_of(&scene, "the-clients-own").await;
    assert_eq!(fields(&line), always_and(&["team", "outcome", "fingerprint", "job", "saved_usd", "saved_by"]));
    assert_eq!((&line["outcome"], &line["job"]), (&json!("hit"), &json!(job)));
    assert_eq!(line["fingerprint"], fingerprint, "twins are seen as twins");

    let poll = scene.poll(&job).await;
    let line = line_of(&scene, poll.header("x-request-id")).await;
    assert_eq!(fields(&line), always_and(&["team", "job", "upstream_status", "upstream_ms"]));
    assert_eq!((&line["route"], &line["upstream_status"]), (&json!("poll"), &json!(200)));

    let wrong = scene.post(GENERATIONS, &json!({"prompt": "a", "duration": 20}), &[]).await;
    let line = line_of(&scene, wrong.header("x-request-id")).await;
    assert_eq!(fields(&line), always_and(&["team", "outcome", "error"]));
    assert_eq!((&line["outcome"], &line["error"]), (&json!("invalid"), &json!("invalid_request")));

    let nowhere = scene.ask(Method::GET, "/nowhere", &[], "").await;
    let line = line_of(&scene, nowhere.header("x-request-id")).await;
    assert_eq!(fields(&line), always_and(&["team", "error"]));
    assert_eq!((&line["route"], &line["status"], &line["error"]), (&json!("other"), &json!(404), &json!("not_found")));
    scene.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_has_its_line_too() {
    let scene = Scene::start().await;
    let mut client = TcpStream::connect(scene.gateway().address()).await.unwrap();
    scene.note_submissions(1);
    let head = format!(
        "POST {EDITS} HTTP/1.1\r\nhost: localhost\r\nx-request-id: it-left\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    scene.metric_becomes("requests_in_flight", 1.0).await;
    drop(client);
    let line = line_of(&scene, "it-left").await;
    assert_eq!((&line["status"], &line["outcome"]), (&json!(499), &json!("aborted")));
    assert_eq!(line["client_left"], true);
    scene.end().await;
}

#[tokio::test]
async fn t71_no_prompt_user_or_url_is_in_the_log_or_the_metrics() {
    let scene = Scene::with(|config, _| config.log.level = Level::Debug).await;
    // The events of the whole process too; the marker is this test's alone.
    scene.gateway().gateway().telemetry.log.install().unwrap();
    let marker = "zyxmarkerzyx";
    let image = format!("https://{marker}.example/a.png?{marker}");
    for duration in [json!(5), json!(99), json!(marker)] {
        let body = json!({"prompt": marker, "user": marker, "duration": duration, "image": {"url": image},
            "output": {"upload_url": image}, "model": format!("{marker} "), (marker): marker});
        let own = [("idempotency-key", marker), ("authorization", marker), ("cookie", marker), ("x-own", marker)];
        scene.post(GENERATIONS, &body, &own).await;
        let edit = json!({"prompt": marker, "video": {"url": image, "file_id": marker}, "duratoin": marker});
        scene.post(EDITS, &edit, &[]).await;
    }
    scene.post_text(GENERATIONS, &format!("{{\"prompt\": \"{marker}\" {marker}"), &[]).await;
    for fault in [
        Fault::cut(CutAt::BeforeAnswer, How::Reset),
        Fault::Status {
            status: 400,
            form: reelgate::simulator::Form::comet(marker),
            headers: vec![("x-marker".to_owned(), marker.to_owned())],
        },
        Fault::Garbage(marker.as_bytes().to_vec()),
    ] {
        scene.upstream.next_submission(fault.clone());
        scene.submit(&format!("{marker} {fault:?}")).await;
    }
    scene.metric_becomes("requests_in_flight", 0.0).await;
    eventually("all lines", async || scene.log.requests().len() == 10).await;
    assert!(!scene.log.text().contains(marker), "{}", scene.log.text());
    let metrics = scene.admin("/metrics").await.text();
    assert!(!metrics.contains(marker));
    scene.end().await;
}

#[tokio::test]
async fn t71_nothing_a_client_sends_breaks_a_line() {
    let scene = Scene::start().await;
    let hostile = "\n{\"level\":\"error\",\"message\":\"forged\"}\r\n\u{1b}[2J\u{202e}\u{2028}\u{9b}\0\"\\";
    scene.post(GENERATIONS, &json!({"prompt": hostile, "model": hostile}), &[]).await;
    scene.post(GENERATIONS, &json!({"prompt": hostile, "user": hostile}), &[]).await;
    scene.post(GENERATIONS, &json!({"prompt": "a", (hostile): hostile, "duratoin": hostile}), &[]).await;
    for header in ["x-request-id", "user-agent", "origin", "host", "idempotency-key"] {
        for value in ["\u{202e}txt", "\u{1b}[2J", "\"forged\": \"yes\"", "a\tb"] {
            let head = format!("GET /{value} HTTP/1.1\r\n{header}: {value}\r\nconnection: close\r\n\r\n");
            scene.raw(head.as_bytes()).await;
            let head = format!("GET /a HTTP/1.1\r\nhost: a\r\n{header}: {value}\r\nconnection: close\r\n\r\n");
            scene.raw(head.as_bytes()).await;
        }
    }
    scene.metric_becomes("requests_in_flight", 0.0).await;
    eventually("the lines of the submissions", async || scene.log.requests().len() >= 3).await;
    let text = scene.log.text();
    let unseen = |character: char| character.is_control() || matches!(character, '\u{200b}'..='\u{202e}' | '\u{feff}');
    for line in text.lines() {
        assert!(!line.chars().any(unseen), "{line:?}");
        let value: Value = serde_json::from_str(line).unwrap();
        assert_ne!(value["message"], "forged", "{line}");
        assert!(value.get("forged").is_none(), "{line}");
    }
    scene.end().await;
}

#[tokio::test]
async fn t71_a_method_that_nobody_knows_takes_no_room_in_the_log() {
    let scene = Scene::start().await;
    let long = "A".repeat(31_000);
    for (method, told) in [(long.as_str(), "other"), ("PROPFIND", "other"), ("get", "other"), ("PATCH", "PATCH")] {
        let id = format!("asked-by-{}", &method[..3]);
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: {id}\r\n\r\n");
        scene.raw(request.as_bytes()).await;
        let line = line_of(&scene, &id).await;
        assert_eq!(line["method"], told);
        assert!(line.to_string().len() < 1_000, "{} bytes", line.to_string().len());
    }
    scene.end().await;
}

#[tokio::test]
async fn f01_f03_the_log_tells_why_the_upstream_could_not_be_reached() {
    let closed = Door::closed();
    for (url, want) in [
        (closed.origin(), "the connection was refused or reset"),
        ("http://no-such-host.invalid".to_owned(), "the name in upstream.url has no address"),
    ] {
        let scene = Scene::with(|config, _| {
            config.upstream.url = url;
            config.upstream.allow_http = true;
        })
        .await;
        for answer in [scene.submit("a").await, scene.poll("b").await] {
            assert_eq!(answer.refusal(), (502, "upstream_unreachable".to_owned()));
            let line = line_of(&scene, answer.header("x-request-id")).await;
            assert_eq!((&line["error"], &line["cause"]), (&json!("upstream_unreachable"), &json!(want)));
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn the_level_says_which_requests_leave_a_line() {
    let scene = Scene::with(|config, _| config.log.level = Level::Warn).await;
    let quiet = scene.submit("quiet").await;
    assert_eq!(quiet.status, 200);
    assert_eq!(scene.ask(Method::GET, "/nowhere", &[], "").await.status, 404);
    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Reset));
    let ours = scene.submit_with("lost", &[("x-request-id", "lost")]).await;
    assert_eq!(ours.refusal(), (502, "outcome_unknown".to_owned()));
    let line = line_of(&scene, "lost").await;
    assert_eq!((&line["level"], &line["error"]), (&json!("warn"), &json!("outcome_unknown")));
    let levels: BTreeSet<_> = scene.log.lines().iter().map(|line| line["level"].as_str().unwrap().to_owned()).collect();
    assert_eq!(levels, BTreeSet::from(["warn".to_owned()]), "{}", scene.log.text());
    assert_eq!(scene.log.requests().len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_loses_lines_counts_them_and_holds_nobody_up() {
    let scene = Scene::start().await;
    scene.log.block();
    let request = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(40));
    let last = "GET /b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let many = request.repeat(400) + last;
    for _ in 0..100 {
        let answers = scene.raw(many.as_bytes()).await;
        assert!(answers.starts_with(b"HTTP/1.1 404"));
        if scene.metric("log_lines_dropped_total").await > 0.0 {
            break;
        }
    }
    assert!(scene.metric("log_lines_dropped_total").await > 0.0);
    assert_eq!(scene.submit("served all the same").await.status, 200);
    scene.log.unblock();
    eventually("what was kept is written", async || scene.log.text().len() > 1 << 19).await;
    let again = scene.ask(Method::GET, "/c", &[], "").await;
    let id = again.header("x-request-id");
    eventually("there is room again", async || scene.log.text().contains(id)).await;
    scene.end().await;
}
