//! Every refusal of `DESIGN.md` §5: provoked over a real socket, with its status, its code and what it says to do.

use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{CutAt, Fault, Form, How};
use serde_json::{Value, json};

use super::support::{Answer, EDITS, GENERATIONS, SOON, Scene, together};

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Checks status and code of an error of ours.
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.refusal(), (status, code.to_owned()), "{}", answer.text());
}

/// `error.param` and `error.message`.
fn details(answer: &Answer) -> (String, String) {
    let body = answer.json();
    let text = |field: &str| body["error"][field].as_str().unwrap_or_default().to_owned();
    (text("param"), text("message"))
}

#[tokio::test]
async fn the_errors_body_is_that_of_the_example() {
    let scene = Scene::start().await;
    let answer = scene.post(GENERATIONS, &json!({"prompt": "a", "duration": 20}), &[]).await;
    refused(&answer, 422, "invalid_request");
    assert_eq!(
        answer.json(),
        json!({"error": {
            "message": "duration: 20 is greater than the maximum of 15",
            "type": "invalid_request_error", "param": "duration", "code": "invalid_request"},
            "errors": [{"param": "duration", "code": "maximum", "message": "20 is greater than the maximum of 15"}]})
    );
    scene.end().await;
}

#[tokio::test]
async fn t41_400_invalid_json_tells_line_and_column() {
    let scene = Scene::start().await;
    let depth = "[".repeat(40) + &"]".repeat(40);
    let empty = scene.post_text(GENERATIONS, "", &[]).await;
    refused(&empty, 400, "invalid_json");
    assert!(details(&empty).1.contains("empty"), "{}", empty.text());
    for body in [
        "{",
        "{\"prompt\":\"a\",}",
        "{\"prompt\":\"a\"} x",
        "{\"prompt\":\"a\",\"prompt\":\"b\"}",
        "{\"prompt\":\"a\",\"p\\u0072ompt\":\"b\"}",
        "{\"prompt\":\"\\ud800\"}",
        "{\"prompt\":\"a\",\"seed\":1e999}",
        "{\"prompt\":\"a\",\"seed\":99999999999999999999}",
        &format!("{{\"prompt\":\"a\",\"x\":{depth}}}"),
    ] {
        let answer = scene.post_text(GENERATIONS, body, &[]).await;
        refused(&answer, 400, "invalid_json");
        let (_, message) = details(&answer);
        assert!(message.contains("line 1") && message.contains("column"), "{body}: {message}");
    }
    let answer = scene.post_text(EDITS, "{\n \"prompt\": nope}", &[]).await;
    assert!(details(&answer).1.contains("line 2"), "{}", answer.text());
    assert_eq!(scene.upstream.counts().connections, 0);
    assert_eq!(scene.metric("submissions_total{outcome=\"invalid\"}").await, 11.0);
    scene.end().await;
}

#[tokio::test]
async fn r17_400_bad_request_names_the_header_or_part() {
    let scene = Scene::start().await;
    let long = "k".repeat(256);
    let query = format!("{GENERATIONS}?api_key=x");
    let cases: [(&str, Headers<'_>, &str); 6] = [
        (&query, &[], "query"),
        (GENERATIONS, &[("idempotency-key", "a"), ("idempotency-key", "a")], "Idempotency-Key"),
        (GENERATIONS, &[("idempotency-key", "")], "Idempotency-Key"),
        (GENERATIONS, &[("idempotency-key", &long)], "Idempotency-Key"),
        (GENERATIONS, &[("reelgate-variation", "")], "Reelgate-Variation"),
        (GENERATIONS, &[("host", "a b")], "Host"),
    ];
    for (path, headers, param) in cases {
        let answer = scene.post(path, &json!({"prompt": "a"}), headers).await;
        refused(&answer, 400, "bad_request");
        assert_eq!(details(&answer).0, param, "{}", answer.text());
    }
    let poll = scene.ask(Method::GET, "/grok/v1/videos/abc?x=1", &[], "").await;
    refused(&poll, 400, "bad_request");
    assert_eq!(scene.upstream.counts().connections, 0);
    scene.end().await;
}

#[tokio::test]
async fn t04_404_not_found_and_nothing_unknown_is_forwarded() {
    let scene = Scene::start().await;
    let long = format!("/grok/v1/videos/{}", "a".repeat(129));
    for path in [
        "/",
        "/metrics",
        "/v1/chat/completions",
        "/grok/v1/videos",
        "/grok/v1/videos/",
        "/grok/v1/videos/..",
        "/grok/v1/videos/%2e%2e",
        "/grok/v1/videos/a%2Fb",
        "/grok/v1/videos/a;b",
        "/grok/v1/videos/a/content",
        "//grok/v1/videos/a",
        "/GROK/v1/videos/generations",
        &long,
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            refused(&scene.ask(method, path, &[], "").await, 404, "not_found");
        }
    }
    let answer = scene.ask(Method::POST, "/grok/v1/videos/extensions", &[], "{}").await;
    refused(&answer, 404, "not_found");
    assert!(details(&answer).1.contains("extensions are not offered"), "{}", answer.text());
    assert_eq!(scene.upstream.counts().connections, 0);
    scene.end().await;
}

#[tokio::test]
async fn m31_404_unknown_job_is_the_same_answer_for_every_unknown_id() {
    let scene = Scene::start().await;
    let mut bodies = Vec::new();
    for (id, fault) in [
        ("never-seen", None),
        ("gone", Some(Fault::status(410, Form::comet("gone")))),
        ("no-task", Some(Fault::status(400, Form::flat("task_not_exist")))),
    ] {
        fault.into_iter().for_each(|fault| scene.upstream.next_poll(fault));
        let answer = scene.poll(id).await;
        refused(&answer, 404, "unknown_job");
        bodies.push(answer.text());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(scene.upstream.polls(), 3);
    scene.end().await;
}

#[tokio::test]
async fn r14_405_method_not_allowed_says_which_are() {
    let scene = Scene::start().await;
    for path in [GENERATIONS, EDITS, "/grok/v1/videos/abc", "/openapi.json"] {
        let submits = [GENERATIONS, EDITS].contains(&path);
        let allow = if submits { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" };
        let mut methods = vec!["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "post"];
        methods.extend(if submits { &["GET"][..] } else { &["POST"][..] });
        for method in methods {
            let answer = scene.ask(Method::from_bytes(method.as_bytes()).unwrap(), path, &[], "").await;
            refused(&answer, 405, "method_not_allowed");
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
        }
    }
    assert_eq!(scene.upstream.counts().connections, 0);
    assert_eq!(scene.metric("submissions_total{outcome=\"denied\"}").await, 14.0);
    scene.end().await;
}

#[tokio::test]
async fn r22_408_request_timeout_when_a_body_stops_coming() {
    let scene = Scene::with(|config, _| config.server.read_timeout = Duration::from_millis(200)).await;
    for head in ["", "Expect: 100-continue\r\n"] {
        let answer = scene.raw_submission(&format!("{head}Content-Length: 100\r\n"), "{\"prompt\"").await;
        let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\"request_timeout\"") && answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(scene.upstream.counts().connections, 0);
    scene.end().await;
}

#[tokio::test]
async fn m14_502_and_409_outcome_unknown_warn_and_hold() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Cut { at: CutAt::BeforeAnswer, how: How::Reset, accepted: true });
    for (status, nth) in [(502, "first"), (409, "twin"), (409, "twin again")] {
        let answer = scene.submit("lost").await;
        refused(&answer, status, "outcome_unknown");
        assert_eq!(answer.header("x-should-retry"), "false", "{nth}");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 61, "{nth}");
        let (_, message) = details(&answer);
        for word in ["unknown", "paid", "wait", "Cache-Control: no-cache"] {
            assert!(message.contains(word), "{nth}: {message}");
        }
    }
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn lim4_413_body_too_large_announced_or_not() {
    let scene = Scene::with(|config, _| config.server.max_body = 2000).await;
    let long = json!({"prompt": "a".repeat(2000)}).to_string();
    let announced = scene.post_text(GENERATIONS, &long, &[]).await;
    refused(&announced, 413, "body_too_large");
    assert!(details(&announced).1.contains("2000"), "{}", announced.text());
    let chunk = format!("{:x}\r\n{long}\r\n", long.len());
    let chunked = scene.raw_submission("Transfer-Encoding: chunked\r\n", &chunk).await;
    assert!(chunked.starts_with("HTTP/1.1 413 ") && chunked.contains("connection: close"), "{chunked}");
    assert_eq!(scene.upstream.counts().connections, 0);
    assert_eq!(scene.metric("submissions_total{outcome=\"invalid\"}").await, 2.0);
    scene.end().await;
}

#[tokio::test]
async fn r65_415_unsupported_media_type_says_what_is_taken() {
    let scene = Scene::start().await;
    let cases: [(Headers<'_>, &str); 6] = [
        (&[], "Content-Type"),
        (&[("content-type", "text/plain")], "Content-Type"),
        (&[("content-type", "multipart/form-data; boundary=x")], "Content-Type"),
        (&[("content-type", "application/json; charset=latin1")], "Content-Type"),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], "Content-Encoding"),
        (&[("content-type", "application/json"), ("content-encoding", "br, identity")], "Content-Encoding"),
    ];
    for (headers, param) in cases {
        let answer = scene.ask(Method::POST, GENERATIONS, headers, "{\"prompt\":\"a\"}").await;
        refused(&answer, 415, "unsupported_media_type");
        assert_eq!(details(&answer).0, param);
        let accept = if param == "Content-Type" { "accept" } else { "accept-encoding" };
        assert!(!answer.header(accept).is_empty(), "{param}: {:?}", answer.headers);
    }
    assert_eq!(scene.upstream.counts().connections, 0);
    scene.end().await;
}

#[tokio::test]
async fn r11_421_misdirected_request_for_a_name_that_is_not_ours() {
    let scene = Scene::with(|config, _| config.server.allowed_hosts = vec!["videos.example".to_owned()]).await;
    for host in ["evil.example", "videos.example.evil.example", "xvideos.example"] {
        let answer = scene.submit_with("a", &[("host", host)]).await;
        refused(&answer, 421, "misdirected_request");
    }
    assert_eq!(scene.upstream.counts().connections, 0);
    for host in ["videos.example", "VIDEOS.example:8080", "localhost"] {
        scene.submit_with("a", &[("host", host)]).await.request_id();
    }
    scene.end().await;
}

#[tokio::test]
async fn m16_422_idempotency_key_reused_with_another_body() {
    let scene = Scene::start().await;
    let first = scene.submit_with("one", &[("idempotency-key", "k1")]).await.request_id();
    let answer = scene.submit_with("two", &[("idempotency-key", "\"k1\"")]).await;
    refused(&answer, 422, "idempotency_key_reused");
    assert_eq!(details(&answer).0, "Idempotency-Key");
    assert_eq!(scene.submit_with("one", &[("idempotency-key", "k1")]).await.request_id(), first);
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn lim3_414_uri_too_long_and_431_header_too_large() {
    let scene = Scene::start().await;
    let path = format!("/{}", "a".repeat(9 << 10));
    refused(&scene.ask(Method::GET, &path, &[], "").await, 414, "uri_too_long");
    let value = "v".repeat(17 << 10);
    refused(&scene.submit_with("a", &[("x-long", &value)]).await, 431, "header_too_large");
    let lines = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let many = format!("GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", lines(63));
    let answer = String::from_utf8(scene.raw(many.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("header_too_large"), "{answer}");
    // Where hyper answers itself, the body is empty.
    let lines = lines(120);
    let answer = scene.raw(format!("GET /openapi.json HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(scene.upstream.counts().connections, 0);
    scene.end().await;
}

#[tokio::test]
async fn f01_502_upstream_unreachable_frees_the_prompt() {
    // A port that nobody listens on any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scene = Scene::with(|config, _| config.upstream.url = format!("http://{free}")).await;
    for _ in 0..2 {
        let answer = scene.submit("a").await;
        refused(&answer, 502, "upstream_unreachable");
        assert_eq!(answer.header("proxy-status"), "reelgate; error=connection_refused");
        assert!(details(&answer).1.contains("nothing was sent"));
        assert!(answer.header("x-should-retry").is_empty());
    }
    refused(&scene.poll("abc").await, 502, "upstream_unreachable");
    assert_eq!(scene.metric("submissions_total{outcome=\"not_sent\"}").await, 2.0);
    scene.end().await;
}

#[tokio::test]
async fn f17_f18_502_upstream_invalid_answer_and_key_refused_are_free() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::named("redirect").unwrap());
    refused(&scene.submit("a").await, 502, "upstream_invalid_answer");
    scene.upstream.next_submission(Fault::named("401").unwrap());
    let answer = scene.submit("a").await;
    refused(&answer, 502, "upstream_key_refused");
    assert!(answer.header("www-authenticate").is_empty(), "the client's key is not asked for");
    assert_eq!(answer.header("x-should-retry"), "false", "an SDK's retry would meet the same");
    assert_eq!(scene.admin("/readyz").await.json(), json!({"degraded": ["upstream_key"]}));
    scene.submit("a").await.request_id();
    assert_eq!(scene.admin("/readyz").await.json(), json!({"degraded": []}));
    scene.end().await;
}

/// A submission that hangs until `answer_delay` is over, and what the second one beside it gets.
async fn beside_a_slow_one(scene: &Scene, prompt: &str) -> Answer {
    let second = async {
        assert!(scene.upstream.wait_until(|counts| counts.posts == 1, SOON).await);
        scene.submit(prompt).await
    };
    let (first, second) = tokio::join!(scene.submit("slow"), second);
    first.request_id();
    second
}

#[tokio::test]
async fn lim9_503_overloaded_names_what_is_full() {
    for (full, prompt) in [
        ("server.requests_in_flight", "other"),
        ("upstream.submissions", "other"),
        ("dedup.max_waiters", "slow"),
        ("dedup.max_entries", "other"),
    ] {
        let scene = Scene::with(|config, options| {
            options.answer_delay = Duration::from_millis(400);
            match full {
                "server.requests_in_flight" => config.server.requests_in_flight = 1,
                "upstream.submissions" => config.upstream.submissions = 1,
                "dedup.max_waiters" => config.dedup.max_waiters = 1,
                _ => config.dedup.max_entries = 1,
            }
        })
        .await;
        let answer = beside_a_slow_one(&scene, prompt).await;
        refused(&answer, 503, "overloaded");
        assert_eq!(details(&answer).0, full);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(scene.upstream.posts(), 1, "{full}");
        assert_eq!(scene.metric("submissions_total{outcome=\"unavailable\"}").await, 1.0, "{full}");
        scene.end().await;
    }
}

#[tokio::test]
async fn lim9_503_overloaded_when_bodies_fill_the_memory() {
    let scene = Scene::with(|config, _| config.server.body_memory = 4096).await;
    let answer = scene.post(GENERATIONS, &json!({"prompt": "a".repeat(5000)}), &[]).await;
    refused(&answer, 503, "overloaded");
    assert_eq!(details(&answer).0, "server.body_memory");
    // What is small still passes, and what was reserved is given back.
    scene.submit("small").await.request_id();
    scene.end().await;
}

#[tokio::test]
async fn f08_f1a_504_outcome_unknown_and_upstream_timeout() {
    let scene = Scene::with(|config, _| {
        config.upstream.submit_timeout = Duration::from_millis(200);
        config.upstream.late_answer = Duration::from_millis(300);
        config.upstream.poll_timeout = Duration::from_millis(200);
    })
    .await;
    scene.upstream.next_submission(Fault::Stall);
    let answer = scene.submit("a").await;
    refused(&answer, 504, "outcome_unknown");
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 61);
    scene.upstream.always_poll(Some(Fault::Stall));
    let answer = scene.poll("abc").await;
    refused(&answer, 504, "upstream_timeout");
    assert!(answer.header("x-should-retry").is_empty());
    scene.end().await;
}

/// A listener whose queue is full: the system leaves a further connection unanswered.
fn unreachable_listener() -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&socket, 0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let waiting = std::iter::from_fn(connect).collect();
    (listener, waiting)
}

#[tokio::test]
async fn f02_504_upstream_timeout_without_a_connection_is_certainly_not_sent() {
    let (listener, _waiting) = unreachable_listener();
    let scene = Scene::with(|config, _| {
        config.upstream.url = format!("http://{}", listener.local_addr().unwrap());
        config.upstream.connect_timeout = Duration::from_millis(200);
    })
    .await;
    for _ in 0..2 {
        let answer = scene.submit("a").await;
        refused(&answer, 504, "upstream_timeout");
        assert!(answer.header("x-should-retry").is_empty(), "nothing was sent: asking again is right");
    }
    assert_eq!(scene.metric("submissions_total{outcome=\"not_sent\"}").await, 2.0);
    scene.end().await;
}

#[tokio::test]
async fn lim9_f60_a_silent_upstream_keeps_no_body_in_memory() {
    let scene = Scene::with(|config, _| {
        config.upstream.submit_timeout = Duration::from_millis(100);
        config.upstream.late_answer = Duration::from_millis(200);
    })
    .await;
    scene.upstream.next_submission(Fault::Stall);
    let long = json!({"prompt": "a".repeat(4000), "image": {"url": format!("https://a.example/{}", "b".repeat(4000))}});
    refused(&scene.post(GENERATIONS, &long, &[]).await, 504, "outcome_unknown");
    scene.metric_becomes("upstream_requests_total{operation=\"submit\",outcome=\"unknown\"}", 1.0).await;
    scene.metric_becomes("body_memory_bytes", 0.0).await;
    assert_eq!(scene.upstream.counts().open, 1, "a late answer is still waited for, as long as the hold lasts");
    scene.submit("another").await.request_id();
    scene.end().await;
}

#[tokio::test]
async fn lim9_a_body_that_was_sent_leaves_memory_while_its_clients_wait() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_secs(3)));
    // Longer than what is copied to its head.
    let long = json!({"prompt": "a".repeat(4000), "image": {"url": format!("https://a.example/{}", "b".repeat(6000))}});
    {
        let waiting = together([scene.post(GENERATIONS, &long, &[]), scene.post(GENERATIONS, &long, &[])]);
        let checked = async {
            scene.upstream.wait_until(|counts| counts.posts == 1, SOON).await;
            scene.metric_becomes("body_memory_bytes", 0.0).await;
        };
        tokio::select! {
            answers = waiting => panic!("answered: {answers:?}"),
            () = checked => {}
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn r07_508_loop_detected_by_our_own_via() {
    let scene = Scene::start().await;
    scene.submit("first").await.request_id();
    let received = scene.upstream.received();
    let head = String::from_utf8_lossy(&received[0].head).into_owned();
    let via = head.lines().find_map(|line| line.strip_prefix("via: ")).expect("a Via").to_owned();
    let answer = scene.submit_with("second", &[("via", &via)]).await;
    refused(&answer, 508, "loop_detected");
    scene.submit_with("third", &[("via", "1.1 another-gateway")]).await.request_id();
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn r72_x_request_id_is_kept_if_it_is_harmless_and_made_otherwise() {
    let scene = Scene::start().await;
    for good in ["abc", "A.b_c-9", &"x".repeat(64)] {
        assert_eq!(scene.submit_with("a", &[("x-request-id", good)]).await.header("x-request-id"), good);
    }
    let mut made = std::collections::HashSet::new();
    for bad in ["", "a b", "a\"b", "a/b", &"x".repeat(65), "\u{e9}"] {
        let answer = scene.ask(Method::GET, "/nothing", &[("x-request-id", bad)], "").await;
        let id = answer.header("x-request-id").to_owned();
        assert!(id != bad && id.len() >= 16 && made.insert(id), "{bad}");
    }
    scene.end().await;
}

#[tokio::test]
async fn f30_all_faults_are_told_at_once() {
    let scene = Scene::start().await;
    let body = json!({"prompt": " ", "duration": 0, "resolution": "8k", "duratoin": 5, "image": {"url": "ftp://a"}});
    let answer = scene.post(GENERATIONS, &body, &[]).await;
    refused(&answer, 422, "invalid_request");
    let body = answer.json();
    let faults: Vec<&Value> = body["errors"].as_array().unwrap().iter().collect();
    let params: Vec<&str> = faults.iter().map(|fault| fault["param"].as_str().unwrap()).collect();
    for param in ["prompt", "duration", "resolution", "duratoin", "image.url"] {
        assert!(params.contains(&param), "{param}: {body}");
    }
    let near = faults.iter().find(|fault| fault["param"] == "duratoin").unwrap();
    assert_eq!(near["code"], "near_miss");
    assert!(near["message"].as_str().unwrap().contains("duration"), "{near}");
    let total = scene.metric("invalid_total{code=\"near_miss\",param=\"other\"}").await;
    assert_eq!(total, 1.0, "what a client invents is no label");
    scene.end().await;
}
