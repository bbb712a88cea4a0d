//! The order of the checks (`HARDENING.md` §7): a request that fails twice gets the earlier refusal, nothing behind
//! that has run, and a body that is refused for its header is never asked for.

use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::config::Config;
use reelgate::simulator::Fault;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{GENERATIONS, Scene, code_of};

/// What only the whole of a header brings about, and two kinds of body that would be refused later.
const LONG: &str = "Expect: 100-continue\r\nContent-Length: 40000000\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

fn day(count: u32) -> Option<Rate> {
    Some(Rate { count, per: Duration::from_secs(86_400) })
}

/// Sends the head of a submission that expects to be asked for 40 MB, and gives the final answer's status and code.
async fn head_only(scene: &Scene, start: &str, lines: &str) -> (u16, String) {
    let (method, path) = start.split_once(' ').unwrap();
    scene.note_submissions(u64::from(path == GENERATIONS));
    let answer = scene.raw(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n").as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(!answer.contains("100 Continue"), "R-21: the body was asked for: {answer}");
    assert!(answer.contains("connection: close"), "R-37: the body's rest could become a request: {answer}");
    code_of(&answer)
}

#[tokio::test]
async fn r21_the_first_failing_step_answers_and_the_body_is_not_asked_for() {
    let scene = Scene::with(|config, _| {
        config.limits.address.requests = day(100);
        config.server.allowed_hosts = vec!["ours.example".to_owned()];
        config.server.body_memory = 1 << 20;
        config.server.max_body = 50_000_000;
    })
    .await;
    // Our own name in Via, as the upstream sees it.
    scene.poll("abc").await;
    let seen = String::from_utf8_lossy(&scene.upstream.received()[0].head).into_owned();
    let via = seen.lines().find(|line| line.starts_with("via: ")).unwrap().to_owned() + "\r\n";
    let ours = "Host: ours.example\r\n";
    let (evil, origin) = ("Host: evil.example\r\n", "Origin: https://evil.example\r\n");
    let (post, text) = (format!("POST {GENERATIONS}"), "Content-Type: text/plain\r\n");
    let twice = "Idempotency-Key: a\r\nIdempotency-Key: b\r\n";
    let huge = LONG.replace("40000000", "60000000");
    let steps: [(&str, &str, String, u16, &str); 11] = [
        ("4 host, twice", &post, format!("{ours}{ours}{via}"), 400, "bad_request"),
        ("4 host before 5 loop", &post, format!("{evil}{via}"), 421, "misdirected_request"),
        ("5 loop before 6 origin", &post, format!("{ours}{via}{origin}"), 508, "loop_detected"),
        ("6 origin before 7 path", "POST /nothing", format!("{ours}{origin}"), 403, "origin_refused"),
        ("7 path before 10 type", "POST /nothing", format!("{ours}{text}"), 404, "not_found"),
        ("7 query before 10 type", &format!("{post}?a=b"), format!("{ours}{text}"), 400, "bad_request"),
        ("7 method before 10 type", &format!("PUT {GENERATIONS}"), format!("{ours}{text}"), 405, "method_not_allowed"),
        ("10 type before wishes", &post, format!("{ours}{text}{twice}"), 415, "unsupported_media_type"),
        ("wishes before 11 memory", &post, format!("{ours}{JSON}{twice}"), 400, "bad_request"),
        ("11 length before memory", &post, format!("{ours}{JSON}{huge}"), 413, "body_too_large"),
        ("11 memory before 12 body", &post, format!("{ours}{JSON}"), 503, "overloaded"),
    ];
    for (step, start, lines, status, code) in steps {
        let lines = if lines.contains("Expect") { lines } else { lines + LONG };
        assert_eq!(head_only(&scene, start, &lines).await, (status, code.to_owned()), "{step}");
    }
    assert_eq!(scene.upstream.posts(), 0);
    // The query's path is a submission route as well.
    scene.note_submissions(1);
    // Four steps got as far as the address's limit.
    let answer = scene.submit_with("a", &[("host", "ours.example")]).await;
    assert!(answer.header("ratelimit").starts_with("\"address.requests\";r=95"), "{:?}", answer.headers);
    scene.end().await;
}

#[tokio::test]
async fn the_addresss_limit_refuses_before_the_header_is_understood_and_the_body_is_read() {
    let scene = Scene::with(|config, _| config.limits.address.requests = day(1)).await;
    scene.submit("a").await.request_id();
    let lines = format!("Host: a\r\nContent-Type: text/plain\r\n{LONG}");
    let refusal = head_only(&scene, &format!("POST {GENERATIONS}"), &lines).await;
    assert_eq!(refusal, (429, "rate_limited".to_owned()));
    assert_eq!(scene.metric("limited_total{kind=\"requests\",limit=\"address\"}").await, 1.0);
    scene.end().await;
}

#[tokio::test]
async fn json_before_schema_before_the_entry_before_the_limit() {
    let scene = Scene::with(|config: &mut Config, _| config.limits.user.generations = day(1)).await;
    let first = scene.submit_with("a", &[("idempotency-key", "k")]).await.request_id();
    // The generation is spent: whatever reaches the limit is 429.
    for (step, body, key, status, code) in [
        ("13 JSON before 14 schema", "{\"prompt\":1,\"prompt\":2}", "k", 400, "invalid_json"),
        ("14 schema before 15 key", "{\"prompt\":\"b\",\"duration\":99}", "k", 422, "invalid_request"),
        ("15 key before 16 limit", "{\"prompt\":\"b\"}", "k", 422, "idempotency_key_reused"),
        ("16 limit before 19 upstream", "{\"prompt\":\"b\"}", "l", 429, "rate_limited"),
    ] {
        let answer = scene.post_text(GENERATIONS, body, &[("idempotency-key", key)]).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{step}: {}", answer.text());
    }
    assert_eq!(scene.submit("a").await.request_id(), first, "15 a hit returns before 16 the limit");
    assert_eq!((scene.upstream.posts(), scene.upstream.connections()), (1, 1));
    scene.end().await;
}

#[tokio::test]
async fn r36_what_stands_behind_an_unread_body_never_becomes_a_request() {
    let scene = Scene::start().await;
    let head = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n");
    scene.note_submissions(1);
    let answer =
        scene.raw(format!("{head}\r\n0123456789GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    scene.metric_becomes("requests_total{route=\"generations\",status=\"415\"}", 1.0).await;
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

#[tokio::test]
async fn r36_r37_what_a_poll_has_for_a_body_ends_its_connection_however_long_its_answer_takes() {
    let scene = Scene::with(|config, _| config.server.workers = 1).await;
    let id = scene.submit("a").await.request_id();
    let head = format!("GET /grok/v1/videos/{id} HTTP/1.1\r\nHost: a\r\n");
    let hidden = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = format!("Content-Length: {}\r\n\r\n", hidden.len());
    for (framing, rest) in
        [(length.as_str(), hidden), (length.as_str(), ""), ("Transfer-Encoding: chunked\r\n\r\n", "5\r\n")]
    {
        scene.upstream.next_poll(Fault::Delay(Duration::from_millis(300)));
        let answer = String::from_utf8(scene.raw(format!("{head}{framing}{rest}").as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
        assert!(answer.contains("connection: close") && answer.ends_with('}'), "{answer}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r37_a_hit_reads_its_body_to_the_end() {
    let scene = Scene::start().await;
    let hidden = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\n\r\n");
    let body = json!({"prompt": format!("a request in a prompt {hidden}")}).to_string();
    let first = scene.post_text(GENERATIONS, &body, &[]).await.request_id();
    let request = |last: &str| {
        let length = body.len();
        format!(
            "POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{last}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    scene.note_submissions(2);
    let answers = scene.raw((request("") + &request("Connection: close\r\n")).as_bytes()).await;
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches(&first).count(), 2, "{answers}");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
    // The end waits until each submission is counted, and refuses more than were sent.
}

#[tokio::test]
async fn r38_a_body_that_is_cut_short_leaves_nothing_behind() {
    let scene = Scene::start().await;
    let body = json!({"prompt": "cut short"}).to_string();
    let mut stream = TcpStream::connect(scene.gateway().address()).await.unwrap();
    let head = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    let length = body.len() + 1;
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await.unwrap();
    scene.note_submissions(1);
    stream.shutdown().await.unwrap();
    scene.metric_becomes("submissions_total{outcome=\"aborted\"}", 1.0).await;
    assert_eq!(scene.upstream.connections(), 0);
    let whole = scene.post_text(GENERATIONS, &body, &[]).await;
    assert_eq!(whole.cache_status(), "reelgate; fwd=miss; stored");
    scene.end().await;
}
