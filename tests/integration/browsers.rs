//! Web pages: which may call, what their browsers are told, and that a foreign one cannot spend.

mod chromium;

use hyper::Method;
use reelgate::config::Config;
use reelgate::simulator::{Options, Shape};
use serde_json::json;

use super::support::{Answer, EDITS, GENERATIONS, Scene};

const APP: &str = "https://app.example";

fn with_app(config: &mut Config, _: &mut Options) {
    config.server.cors.allowed_origins = vec![APP.to_owned()];
}

/// What the published SDKs and tracers send from a page, and what we define ourselves; browsers sort the names.
pub(super) const REAL_CLIENTS: [&str; 20] = [
    "authorization",
    "cache-control",
    "content-type",
    "idempotency-key",
    "openai-organization",
    "openai-project",
    "pragma",
    "reelgate-dry-run",
    "reelgate-variation",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
    "x-stainless-arch",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-retry-count",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
];

/// The page may read this answer, and everything of ours in it.
fn granted(answer: &Answer) {
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    assert_eq!(answer.header("vary"), "Origin");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    for name in [
        "x-request-id",
        "cache-status",
        "ratelimit-policy",
        "ratelimit",
        "retry-after",
        "x-should-retry",
        "reelgate-warning",
        "reelgate-upstream-request-id",
    ] {
        assert!(exposed.split(", ").any(|each| each == name), "{name}: {exposed}");
    }
}

#[tokio::test]
async fn r73_a_preflight_is_answered_here_and_costs_nothing() {
    let scene = Scene::with(with_app).await;
    let wanted = REAL_CLIENTS.join(",");
    for (path, method) in
        [(GENERATIONS, "POST"), (EDITS, "POST"), ("/grok/v1/videos/abc", "GET"), ("/openapi.json", "GET")]
    {
        let headers =
            [("origin", APP), ("access-control-request-method", method), ("access-control-request-headers", &wanted)];
        let answer = scene.ask(Method::OPTIONS, path, &headers, "").await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        assert!(answer.header("access-control-allow-methods").contains(method));
        assert_eq!(answer.header("access-control-allow-headers"), wanted);
        assert!(answer.header("vary").contains("Origin"));
        assert_eq!(answer.header("ratelimit"), "");
    }
    assert_eq!(scene.metric("requests_total{route=\"preflight\",status=\"204\"}").await, 4.0);
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

#[tokio::test]
async fn r73_an_allowed_page_reads_successes_and_errors() {
    let scene = Scene::with(with_app).await;
    let page = [("origin", APP)];
    let created = scene.submit_with("a", &page).await;
    granted(&created);
    granted(&scene.submit_with("a", &page).await);
    let id = created.request_id();
    granted(&scene.ask(Method::GET, &format!("/grok/v1/videos/{id}"), &page, "").await);
    for (method, path, status) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, GENERATIONS, 405),
        (Method::POST, GENERATIONS, 415),
        (Method::GET, "/grok/v1/videos/unknown", 404),
    ] {
        let answer = scene.ask(method, path, &page, "").await;
        assert_eq!(answer.status, status);
        granted(&answer);
    }
    let invalid = scene.post(GENERATIONS, &json!({}), &page).await;
    assert_eq!(invalid.status, 422);
    granted(&invalid);
    scene.end().await;
}

#[tokio::test]
async fn r73_answers_to_no_page_say_that_pages_get_others() {
    for (varies, scene) in [("Origin", Scene::with(with_app).await), ("", Scene::start().await)] {
        let created = scene.submit("a").await;
        let poll = format!("/grok/v1/videos/{}", created.request_id());
        let mut all = vec![created, scene.submit("a").await];
        for (method, path) in [
            (Method::GET, poll.as_str()),
            (Method::HEAD, &poll),
            (Method::GET, "/openapi.json"),
            (Method::OPTIONS, "/openapi.json"),
            (Method::GET, "/nothing"),
        ] {
            all.push(scene.ask(method, path, &[], "").await);
        }
        for answer in all {
            let found: Vec<_> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found.join(", "), varies, "{answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn r74_a_foreign_page_is_refused_before_anything_is_spent() {
    let scene = Scene::with(with_app).await;
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example:8443",
        "null",
    ] {
        let page = [("origin", origin)];
        let answer = scene.submit_with("a", &page).await;
        assert_eq!(answer.refusal(), (403, "origin_refused".to_owned()), "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        // What a browser sends without asking first.
        let headers = [("origin", origin), ("content-type", "text/plain")];
        assert_eq!(scene.ask(Method::POST, GENERATIONS, &headers, "{\"prompt\":\"a\"}").await.status, 403);
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        let preflight = scene.ask(Method::OPTIONS, GENERATIONS, &headers, "").await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (403, ""), "{origin}");
    }
    let answer = scene.submit_with("a", &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(answer.refusal(), (403, "origin_refused".to_owned()));
    assert_eq!(scene.upstream.connections(), 0);
    assert_eq!(scene.metric("submissions_total{outcome=\"denied\"}").await, 11.0);
    scene.end().await;
}

#[tokio::test]
async fn r74_our_own_page_may_call_but_not_under_a_rebound_name() {
    let scene = Scene::start().await;
    let own = format!("http://{}", scene.gateway().address());
    scene.submit_with("a", &[("origin", &own)]).await.request_id();
    let rebound = [("origin", "http://rebound.example"), ("host", "rebound.example")];
    assert_eq!(scene.submit_with("b", &rebound).await.refusal(), (403, "origin_refused".to_owned()));
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn r73_the_upstreams_own_grants_are_dropped() {
    let scene = Scene::with(|config, options| {
        with_app(config, options);
        options.shape = Shape::default();
        options.headers = vec![
            ("access-control-allow-origin".to_owned(), "*".to_owned()),
            ("access-control-allow-credentials".to_owned(), "true".to_owned()),
        ];
    })
    .await;
    let id = scene.submit("a").await.request_id();
    let path = format!("/grok/v1/videos/{id}");
    granted(&scene.ask(Method::GET, &path, &[("origin", APP)], "").await);
    let plain = scene.poll(&id).await;
    assert_eq!(plain.header("access-control-allow-origin"), "");
    assert_eq!(plain.header("access-control-allow-credentials"), "");
    scene.end().await;
}
