//! The simulated upstream over real sockets: its routes and its record here, its faults in `faults`.

mod client;
mod faults;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::client::{Client, Seen, field};
use super::{Counts, End, Fault, Options, Pending, Received, Shape, Simulator};

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(10);
/// What a gateway would send.
const KEY: &str = "sk-simulated-key";

fn post(body: &str) -> String {
    format!(
        "POST /grok/v1/videos/generations HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:1\r\nauthorization: Bearer {KEY}\r\n\r\n")
}

fn poll(id: &str) -> String {
    get(&format!("/grok/v1/videos/{id}"))
}

fn control(path: &str, body: Value) -> String {
    let body = body.to_string();
    format!("POST /simulator/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn start(options: Options) -> Simulator {
    Simulator::start(options).await.unwrap()
}

/// Jobs that are done at once.
fn instant() -> Options {
    Options { job_duration: Duration::ZERO, ..Options::default() }
}

/// Jobs that are not done while a test runs.
fn endless() -> Options {
    Options { job_duration: Duration::from_secs(3_600), ..Options::default() }
}

#[tokio::test]
async fn a_job_goes_from_submission_to_a_playable_video() {
    let simulator = start(endless()).await;
    let mut client = Client::connect(&simulator).await;
    let created = client.ask(&post(r#"{"prompt":"A candle flickers.","duration":1}"#)).await;
    assert_eq!(created.status, 200);
    assert_eq!(field(&created.head, "content-type"), Some("application/json"));
    let id = created.id();
    let pending = client.ask(&poll(&id)).await;
    assert_eq!(
        (pending.status, pending.json()),
        (200, json!({"status": "pending", "progress": 0, "model": "grok-imagine-video"}))
    );
    assert!(simulator.finish(&id, End::Done));
    let done = client.ask(&poll(&id)).await.json();
    let url = done["video"]["url"].as_str().unwrap();
    assert_eq!(
        done,
        json!({"status": "done", "progress": 100, "model": "grok-imagine-video",
               "video": {"url": url, "duration": 1, "respect_moderation": true},
               "usage": {"cost_in_usd_ticks": 500_000_000}})
    );
    let path = url.strip_prefix(&simulator.origin()).unwrap();
    let video = client.ask(&get(path)).await;
    assert_eq!((video.status, field(&video.head, "content-type")), (200, Some("video/mp4")));
    assert_eq!(&video.body[4..8], b"ftyp");
    assert_eq!(simulator.counts().videos, 1);
}

#[tokio::test]
async fn edits_make_jobs_too() {
    let simulator = start(instant()).await;
    let edit = post(r#"{"prompt":"","video":{"url":"https://v"}}"#).replace("generations", "edits");
    let mut client = Client::connect(&simulator).await;
    let id = client.ask(&edit).await.id();
    assert_eq!(client.ask(&poll(&id)).await.json()["status"], "done");
}

#[tokio::test]
async fn the_wrapper_shape_nests_what_the_flat_one_shows() {
    let simulator = start(Options { shape: Shape::Wrapper, ..endless() }).await;
    let mut client = Client::connect(&simulator).await;
    let id = client.ask(&post(r#"{"prompt":"a"}"#)).await.id();
    let pending = client.ask(&poll(&id)).await.json();
    assert_eq!((&pending["data"]["status"], &pending["data"]["progress"]), (&json!("SUBMITTED"), &json!("0%")));
    assert_eq!(pending["data"]["data"], Value::Null);
    simulator.finish(&id, End::Done);
    let done = client.ask(&poll(&id)).await.json();
    assert_eq!((&done["code"], &done["data"]["status"]), (&json!("success"), &json!("SUCCESS")));
    assert_eq!(done["data"]["progress"], "100%");
    assert_eq!(done["data"]["fail_reason"], done["data"]["data"]["video"]["url"]);
    simulator.finish(&id, End::failed("internal_error", "boom"));
    let failed = client.ask(&poll(&id)).await.json();
    assert_eq!((&failed["data"]["status"], &failed["data"]["fail_reason"]), (&json!("FAILURE"), &json!("boom")));
    assert_eq!(failed["data"]["data"]["status"], "failed");
    assert_eq!(client.ask(&poll("unknown")).await.json()["code"], "task_not_exist");
}

#[tokio::test]
async fn unfinished_jobs_show_in_each_documented_way() {
    for (shown, status, body) in [
        (Pending::Accepted, 202, r#"{"model":"grok-imagine-video","progress":0,"status":"pending"}"#),
        (Pending::Empty, 202, ""),
        (Pending::UnknownStatus, 200, r#"{"model":"grok-imagine-video","progress":0,"status":"dreaming"}"#),
    ] {
        let simulator = start(Options { default_pending: shown, ..endless() }).await;
        let mut client = Client::connect(&simulator).await;
        let id = client.ask(&post(r#"{"prompt":"a"}"#)).await.id();
        let seen = client.ask(&poll(&id)).await;
        assert_eq!((seen.status, String::from_utf8(seen.body).unwrap().as_str()), (status, body));
        simulator.next_poll(Fault::Pending(Pending::IdOnly));
        assert_eq!(client.ask(&poll(&id)).await.json(), json!({"request_id": id}));
    }
}

#[tokio::test]
async fn jobs_take_their_time_and_then_end() {
    let simulator = start(Options { job_duration: Duration::from_millis(60), ..Options::default() }).await;
    let mut client = Client::connect(&simulator).await;
    let id = client.ask(&post(r#"{"prompt":"a"}"#)).await.id();
    let mut last = 0;
    let done = timeout(BOUND, async {
        loop {
            let shown = client.ask(&poll(&id)).await.json();
            let progress = shown["progress"].as_u64().unwrap();
            assert!(progress >= last, "{progress} after {last}");
            last = progress;
            if shown["status"] == "done" {
                return simulator.accepted()[0].created.elapsed();
            }
        }
    });
    assert!(done.await.unwrap() >= Duration::from_millis(60));
}

#[tokio::test]
async fn requests_without_the_key_are_refused_and_make_nothing() {
    let simulator = start(Options { key: Some("another".to_owned()), ..instant() }).await;
    let mut client = Client::connect(&simulator).await;
    for text in [post(r#"{"prompt":"a"}"#), poll("x"), post("{}").replace("Bearer ", "Basic ")] {
        let seen = client.ask(&text).await;
        assert_eq!((seen.status, &seen.json()["error"]["type"]), (401, &json!("comet_api_error")));
    }
    assert_eq!((simulator.counts().unauthorized, simulator.counts().accepted), (3, 0));
    let open = start(instant()).await;
    let nameless = post(r#"{"prompt":"a"}"#).replace(&format!("authorization: Bearer {KEY}\r\n"), "");
    assert_eq!(Client::connect(&open).await.ask(&nameless).await.status, 401);
}

#[tokio::test]
async fn wrong_paths_and_methods_are_sent_to_a_page() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    for path in ["/", "/v1/videos/generations", "/grok/v1/videos/", "/grok/v1/videos/a/b", "/grok/v1/videos/a?b"] {
        let seen = client.ask(&get(path)).await;
        assert_eq!((seen.status, field(&seen.head, "content-type")), (301, Some("text/html; charset=utf-8")), "{path}");
        assert!(field(&seen.head, "location").is_some());
    }
    assert_eq!(client.ask(&poll("x").replace("GET", "DELETE")).await.status, 301);
    let Counts { requests: 6, posts: 0, polls: 0, .. } = simulator.counts() else { panic!("{:?}", simulator.counts()) };
}

#[tokio::test]
async fn bodies_that_the_real_one_refuses_make_no_job() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    for (body, status) in [
        ("not json", 400),
        ("[]", 400),
        (r#"{"prompt":"a","duration":16}"#, 400),
        (r#"{"prompt":"a","duration":5,"seconds":5}"#, 422),
    ] {
        assert_eq!(client.ask(&post(body)).await.status, status, "{body}");
    }
    assert_eq!((simulator.posts(), simulator.accepted().len()), (4, 0));
    let blank = client.ask(&post(r#"{"prompt":" "}"#)).await.id();
    assert_eq!(client.ask(&poll(&blank)).await.json()["error"]["code"], "invalid_argument");
}

#[tokio::test]
async fn videos_are_served_whole_and_in_ranges() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    let video = get("/videos-of-the-simulator/abc-1.mp4");
    let whole = client.ask(&video).await;
    let length = whole.body.len();
    assert!(length > 10_000);
    let head = client.ask(&video.replace("GET", "HEAD")).await;
    assert_eq!((head.status, field(&head.head, "content-length")), (200, Some(length.to_string().as_str())));
    let ranged = |range: &str| video.replace("\r\n\r\n", &format!("\r\nrange: {range}\r\n\r\n"));
    let part = client.ask(&ranged("bytes=4-7")).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"ftyp"[..]));
    assert_eq!(field(&part.head, "content-range"), Some(format!("bytes 4-7/{length}").as_str()));
    let tail = client.ask(&ranged("bytes=-10")).await;
    assert_eq!((tail.status, &tail.body[..]), (206, &whole.body[length - 10..]));
    let beyond = client.ask(&ranged("bytes=9999999-")).await;
    assert_eq!(
        (beyond.status, field(&beyond.head, "content-range")),
        (416, Some(format!("bytes */{length}").as_str()))
    );
    let changed = client.ask(&ranged("bytes=4-7\r\nif-range: \"other\"")).await;
    assert_eq!((changed.status, changed.body.len()), (200, length));
    assert_eq!(client.ask(&get("/videos-of-the-simulator/a.b.mp4")).await.status, 301);
}

#[tokio::test]
async fn a_head_of_a_job_has_no_body() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    let seen = client.ask(&poll("x").replace("GET", "HEAD")).await;
    assert_eq!((seen.status, simulator.polls()), (404, 1));
    assert_eq!(client.ask(&poll("x")).await.status, 404);
}

#[tokio::test]
async fn requests_are_kept_as_the_bytes_they_were() {
    let simulator = start(instant()).await;
    let mut one = Client::connect(&simulator).await;
    let mut two = Client::connect(&simulator).await;
    let text = post(r#"{"prompt":"a"}"#);
    let (head, body) = text.split_at(text.find("\r\n\r\n").unwrap() + 4);
    let id = one.ask(&text).await.id();
    two.ask(&poll(&id)).await;
    one.ask(&format!("{}EXTRA", poll(&id))).await;
    let received = simulator.received();
    let shown = |kept: &Received| (kept.connection, kept.method.clone(), kept.extra.len(), kept.complete);
    assert_eq!(shown(&received[0]), (1, "POST".to_owned(), 0, true));
    assert_eq!(shown(&received[1]), (2, "GET".to_owned(), 0, true));
    assert_eq!(shown(&received[2]), (1, "GET".to_owned(), 5, true));
    assert_eq!((&received[0].head[..], &received[0].body[..]), (head.as_bytes(), body.as_bytes()));
    assert_eq!(&received[2].extra[..], b"EXTRA");
    let counts = simulator.counts();
    assert_eq!((counts.connections, counts.posts, counts.polls, counts.accepted), (2, 1, 2, 1));
    let sent = text.len() + 2 * poll(&id).len() + "EXTRA".len();
    assert_eq!(counts.bytes, sent as u64);
}

#[tokio::test]
async fn what_is_no_request_is_kept_and_refused() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    client.send("GET / HTTP/1.1\r\nbad header\r\n\r\n").await;
    let (answer, _) = client.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    assert_eq!((simulator.counts().malformed, simulator.counts().requests), (1, 0));
    assert!(simulator.received()[0].head.ends_with(b"bad header\r\n\r\n"));
}

#[tokio::test]
async fn a_client_that_expects_a_100_gets_it() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    let text = post(r#"{"prompt":"a"}"#).replacen("\r\n", "\r\nexpect: 100-continue\r\n", 1);
    let (head, body) = text.split_at(text.find("\r\n\r\n").unwrap() + 4);
    assert_eq!(client.ask(head).await.status, 100);
    assert_eq!(client.ask(body).await.status, 200);
}

#[tokio::test]
async fn the_control_route_shows_what_came_but_no_key() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    for _ in 0..2 {
        client.ask(&post(r#"{"prompt":"A candle."}"#)).await;
    }
    let seen = client.ask(&get("/simulator/")).await;
    assert!(!String::from_utf8_lossy(&seen.body).contains(KEY));
    let shown = seen.json();
    assert_eq!((&shown["counts"]["posts"], &shown["accepted_by_prompt"]["A candle."]), (&json!(2), &json!(2)));
    assert_eq!(shown["received"][0]["body"], r#"{"prompt":"A candle."}"#);
    assert_eq!(
        (&shown["received"][0]["fields"][1], &shown["jobs"][1]["progress"]),
        (&json!("authorization: ***"), &json!(100))
    );
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test]
async fn the_control_route_orders_faults_and_forgets() {
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    let next = json!({"for": "submission", "fault": {"status": {"status": 418}}, "times": 2});
    assert_eq!(client.ask(&control("next", next)).await.status, 204);
    let always = json!({"for": "poll", "fault": "moderated"});
    assert_eq!(client.ask(&control("always", always)).await.status, 204);
    let text = post(r#"{"prompt":"a"}"#);
    let statuses = [client.ask(&text).await.status, client.ask(&text).await.status];
    assert_eq!(statuses, [418, 418]);
    let id = client.ask(&text).await.id();
    assert_eq!(client.ask(&poll(&id)).await.status, 400);
    assert_eq!(client.ask(&control("always", json!({"for": "poll"}))).await.status, 204);
    assert_eq!(client.ask(&poll(&id)).await.status, 200);
    for order in [json!({"for": "poll", "fault": "unheard-of"}), json!({"for": "poll"}), json!(5)] {
        assert_eq!(client.ask(&control("next", order)).await.status, 400);
    }
    let far = control("reset", json!({})).replace("localhost", "example.com");
    assert_eq!(client.ask(&far).await.status, 403);
    let page = control("reset", json!({})).replace("\r\n\r\n", "\r\norigin: http://localhost\r\n\r\n");
    assert_eq!(client.ask(&page).await.status, 403);
    assert_eq!(simulator.accepted().len(), 1);
    assert_eq!(client.ask(&control("reset", json!({}))).await.status, 204);
    assert_eq!(simulator.counts(), Counts { open: 1, ..Counts::default() });
    assert_eq!(client.ask(&poll(&id)).await.status, 404);
}

#[tokio::test]
async fn waiting_ends_with_the_event_or_with_the_bound() {
    let simulator = start(instant()).await;
    assert!(!simulator.wait_until(|counts| counts.posts > 0, Duration::from_millis(1)).await);
    let mut client = Client::connect(&simulator).await;
    let text = post(r#"{"prompt":"a"}"#);
    let (_, seen) = tokio::join!(client.ask(&text), simulator.wait_until(|counts| counts.posts == 1, BOUND));
    assert!(seen);
    drop(client);
    assert!(simulator.wait_until(|counts| counts.open == 0, BOUND).await);
}

#[tokio::test]
async fn a_stopped_simulator_refuses_connections_and_its_address_can_be_taken_again() {
    let simulator = start(instant()).await;
    let address = simulator.address();
    let mut client = Client::connect(&simulator).await;
    client.ask(&poll("x")).await;
    simulator.stop().await;
    client.rest().await;
    assert!(TcpStream::connect(address).await.is_err());
    let again = start(Options { listen: address, ..instant() }).await;
    assert_eq!(Client::connect(&again).await.ask(&poll("x")).await.status, 404);
}
