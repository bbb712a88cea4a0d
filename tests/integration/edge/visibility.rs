//! What an answer says of itself: how it was served, that nobody else may keep it, and what went wrong, always in the
//! same form.

use std::time::Duration;

use hyper::Method;
use reelgate::admission::settings::Rate;
use reelgate::simulator::Fault;
use serde_json::{Value, json};

use crate::support::{Answer, GENERATIONS, Scene, eventually, together};

/// `reelgate; name; name=value; …` as its parameters, which must be those of RFC 9211.
fn cache_status(answer: &Answer) -> Vec<(String, String)> {
    let mut parts = answer.cache_status().split("; ");
    assert_eq!(parts.next(), Some("reelgate"), "{:?}", answer.headers);
    let all: Vec<_> = parts
        .map(|part| {
            part.split_once('=').map_or((part.to_owned(), String::new()), |(n, v)| (n.to_owned(), v.to_owned()))
        })
        .collect();
    assert!(
        all.iter().all(|(name, _)| ["hit", "ttl", "fwd", "stored", "collapsed", "detail"].contains(&name.as_str()))
    );
    all
}

#[tokio::test]
async fn r55_no_answer_to_a_submission_may_be_kept_by_a_cache() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(300)));
    let mut all = together([scene.submit("a"), scene.submit("a")]).await;
    all.push(scene.submit("a").await);
    all.push(scene.post_text(GENERATIONS, "{", &[]).await);
    scene.upstream.next_submission(Fault::RateLimited { retry_after: Some(1) });
    all.push(scene.submit("refused").await);
    assert_eq!(all.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 400, 429]);
    for answer in all {
        assert_eq!(answer.header("cache-control"), "no-store");
        for other in ["age", "expires", "etag", "last-modified", "vary"] {
            assert_eq!(answer.header(other), "", "{other}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn r56_r57_how_a_submission_was_served_agrees_with_what_the_upstream_saw() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(300)));
    let mut served: Vec<_> = together([scene.submit("a"), scene.submit("a")]).await.iter().map(cache_status).collect();
    let hit = cache_status(&scene.submit("a").await);
    served.push(hit[..1].to_vec());
    served.push(cache_status(&scene.submit_with("a", &[("cache-control", "no-cache")]).await));
    let shown: Vec<_> = served
        .iter()
        .map(|one| one.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
        .collect();
    let mut first_two = shown[..2].to_vec();
    first_two.sort();
    assert_eq!(first_two, ["fwd=miss collapsed=", "fwd=miss stored="]);
    assert_eq!(shown[2..], ["hit=", "fwd=request stored="]);
    assert_eq!(scene.upstream.posts(), 2, "as many as say `stored`");
    // A hit says for how long more, in whole seconds.
    let window = reelgate::config::Config::default().dedup.delivery_window.as_secs();
    assert_eq!(hit.len(), 2);
    let ttl: u64 = hit[1].1.parse().unwrap();
    assert!(hit[1].0 == "ttl" && ttl > 0 && ttl <= window, "{hit:?}");
    assert_eq!(scene.submit("a").await.header("age"), "");
    scene.end().await;
}

#[tokio::test]
async fn r58_only_no_cache_asks_for_a_new_job_and_its_job_is_the_next_hit() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    let first = scene.submit("a").await.request_id();
    for directive in ["no-store", "max-age=0", "must-revalidate", "only-if-cached", "no-cachet", "\"no-cache\""] {
        assert_eq!(scene.submit_with("a", &[("cache-control", directive)]).await.request_id(), first, "{directive}");
    }
    for (name, value) in [("pragma", "no-cache"), ("expires", "0"), ("if-none-match", "*"), ("x-no-cache", "1")] {
        assert_eq!(scene.submit_with("a", &[(name, value)]).await.request_id(), first, "{name}");
    }
    let wished = scene.submit_with("a", &[("cache-control", "max-age=0, No-Cache")]).await.request_id();
    assert_ne!(wished, first);
    assert_eq!(scene.submit("a").await.request_id(), wished);
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn r59_every_refusal_of_ours_has_one_form() {
    let scene = Scene::with(|config, _| {
        config.server.allowed_hosts = vec!["ours.example".to_owned()];
        config.limits.user.requests = Some(Rate { count: 1, per: Duration::from_secs(86_400) });
    })
    .await;
    let (host, json) = (("host", "ours.example"), ("content-type", "application/json"));
    let long = format!("/{}", "a".repeat(9000));
    let large = "a".repeat(17_000);
    let id = scene.ask(Method::POST, GENERATIONS, &[host, json], r#"{"prompt":"a"}"#).await.request_id();
    let mut refusals = Vec::new();
    for (status, code, method, path, headers, body) in [
        (400, "invalid_json", Method::POST, GENERATIONS, &[host, json][..], "{"),
        (400, "bad_request", Method::GET, "/openapi.json?a", &[host], ""),
        (403, "origin_refused", Method::POST, GENERATIONS, &[host, json, ("origin", "https://evil.example")], "{}"),
        (404, "not_found", Method::GET, "/nothing", &[host], ""),
        (405, "method_not_allowed", Method::DELETE, GENERATIONS, &[host], ""),
        (414, "uri_too_long", Method::GET, &long, &[host], ""),
        (415, "unsupported_media_type", Method::POST, GENERATIONS, &[host], "{}"),
        (421, "misdirected_request", Method::GET, "/openapi.json", &[("host", "evil.example")], ""),
        (422, "invalid_request", Method::POST, GENERATIONS, &[host, json], "{}"),
        (429, "rate_limited", Method::POST, GENERATIONS, &[host, json], r#"{"prompt":"b"}"#),
        (431, "header_too_large", Method::GET, "/openapi.json", &[host, ("x-large", &large)], ""),
    ] {
        let answer = scene.ask(method, path, headers, body).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{}", answer.text());
        refusals.push(answer);
    }
    for answer in refusals {
        let body = answer.json();
        let fields: Vec<_> = body["error"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields.len(), 4, "{body}");
        assert!(["code", "message", "param", "type"].iter().all(|field| fields.contains(field)), "{body}");
        assert!(body["error"]["param"].is_string() || body["error"]["param"].is_null());
        let faults = body["errors"].as_array().map_or(0, Vec::len);
        assert_eq!(body.as_object().unwrap().len(), 1 + usize::from(faults > 0), "{body}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    // What hyper refuses before it is a request has no body.
    for refused in ["GET / HTTP/1.1\r\nHost : a\r\n\r\n", "NO HTTP AT ALL\r\n\r\n"] {
        let answers = scene.exchange(refused).await;
        assert_eq!((answers[0].status, answers[0].text().as_str()), (400, ""));
    }
    assert!(!id.is_empty());
    scene.end().await;
}

#[tokio::test]
async fn r60_t48_an_idempotency_key_ties_retries_together_in_both_of_its_forms() {
    let scene = Scene::start().await;
    let keyed = async |prompt: &str, key: &str| scene.submit_with(prompt, &[("idempotency-key", key)]).await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(500)));
    let running = together([keyed("a", "k"), keyed("a", "\"k\""), keyed("a", "k")]).await;
    let first = running[0].request_id();
    for again in running.iter().chain([&keyed("a", "\"k\"").await]) {
        assert_eq!((again.request_id(), &again.body), (first.clone(), &running[0].body));
    }
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(keyed("b", "k").await.refusal(), (422, "idempotency_key_reused".to_owned()));
    let two = [("idempotency-key", "k"), ("idempotency-key", "l")];
    assert_eq!(scene.submit_with("a", &two).await.refusal(), (400, "bad_request".to_owned()));
    for odd in ["\"k", "", "\"\"", "a b\u{e9}"] {
        assert_eq!(keyed("a", odd).await.refusal(), (400, "bad_request".to_owned()), "{odd:?}");
    }
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn r65_t61_another_kind_of_body_is_415_and_says_what_is_taken() {
    let scene = Scene::start().await;
    let gzip = "\u{1f}\u{8b}\u{8}";
    for (headers, accepts) in [
        (&[("content-type", "text/plain")][..], ("accept", "application/json")),
        (&[], ("accept", "application/json")),
        (&[("content-type", "")], ("accept", "application/json")),
        (&[("content-type", "application/json; charset=utf-16")], ("accept", "application/json")),
        (&[("content-type", "application/json, text/plain")], ("accept", "application/json")),
        (&[("content-type", "application/x-www-form-urlencoded")], ("accept", "application/json")),
        (&[("content-type", "multipart/form-data; boundary=a")], ("accept", "application/json")),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], ("accept-encoding", "identity")),
        (&[("content-type", "application/json"), ("content-encoding", "br")], ("accept-encoding", "identity")),
        (&[("content-type", "application/json"), ("content-encoding", "identity")], ("accept-encoding", "identity")),
    ] {
        let answer = scene.ask(Method::POST, GENERATIONS, headers, gzip).await;
        assert_eq!(answer.refusal(), (415, "unsupported_media_type".to_owned()), "{headers:?}");
        assert_eq!(answer.header(accepts.0), accepts.1, "{headers:?}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    for good in ["application/json", "APPLICATION/JSON; charset=\"UTF-8\"", "application/json;charset=utf-8"] {
        let answer = scene.ask(Method::POST, GENERATIONS, &[("content-type", good)], r#"{"prompt":"a"}"#).await;
        assert_eq!(answer.status, 200, "{good}");
    }
    scene.end().await;
}

#[tokio::test]
async fn lim10_json_is_bounded_in_depth_fields_and_values_and_a_number_in_what_it_can_say() {
    let scene = Scene::start().await;
    let mut good = scene.good_client().await;
    let deep = |depth: usize| format!(r#"{{"prompt":"a","x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    let fields = |count: usize| {
        let fields: serde_json::Map<String, Value> = (1..count).map(|n| (format!("xq{n}"), json!(1))).collect();
        let mut all = json!(fields);
        all["prompt"] = json!("b");
        all.to_string()
    };
    let values = |count: usize| json!({"prompt": "c", "x": vec![1; count]}).to_string();
    for (body, status) in [
        (deep(32), 200),
        (deep(33), 400),
        (deep(100_000), 400),
        (fields(256), 200),
        (fields(257), 400),
        (values(9_000), 200),
        (values(10_001), 400),
        (format!(r#"{{"prompt":"d","x":{}}}"#, "9".repeat(400)), 400),
        (r#"{"prompt":"e","x":1e400}"#.to_owned(), 400),
    ] {
        let answer = scene.post_text(GENERATIONS, &body, &[]).await;
        let start = &body[..body.len().min(60)];
        assert_eq!(answer.status, status, "{start}: {}", answer.text());
        assert!(status == 200 || answer.code() == "invalid_json", "{start}");
    }
    good.is_served().await;
    eventually("three went upstream", async || scene.upstream.posts() == 3).await;
    scene.end().await;
}
