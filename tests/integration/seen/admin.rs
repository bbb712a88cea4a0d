//! The listener for operators: what it shows, to whom, and that the public one shows none of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::Method;
use reelgate::config::Config;
use reelgate::run::Running;
use reelgate::simulator::{Fault, Options, Simulator};
use reelgate::telemetry::Telemetry;
use reelgate::upstream::key::UpstreamKey;
use serde_json::json;

use crate::support::{GENERATIONS, Line, SOON, Scene, Sink, ask, eventually};

#[tokio::test]
async fn a_serving_gateway_is_alive_and_ready() {
    let scene = Scene::start().await;
    let alive = scene.admin("/livez").await;
    assert_eq!((alive.status, alive.text()), (200, "ok\n".to_owned()));
    let ready = scene.admin("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"degraded": []})));
    scene.end().await;
}

#[tokio::test]
async fn t73_a_thousand_questions_about_health_are_answered_and_ask_nobody() {
    // A look of our own at the job would be a question too.
    let scene = Scene::with(|config, _| config.polls.watch = None).await;
    scene.submit("a").await.request_id();
    let counts = async || {
        let text = scene.admin("/metrics").await.text();
        let kept =
            |line: &&str| ["reelgate_ledger_operations", "reelgate_upstream"].iter().any(|name| line.starts_with(name));
        let lines: Vec<_> =
            text.lines().filter(kept).filter(|line| !line.contains("seconds")).map(str::to_owned).collect();
        assert!(lines.len() > 10, "{text}");
        let seen = scene.upstream.counts();
        (lines, seen.connections, seen.posts, seen.polls)
    };
    let before = counts().await;
    let mut line = Line::http1(scene.gateway().admin_address()).await;
    for number in 0..1000 {
        let path = if number % 2 == 0 { "/readyz" } else { "/livez" };
        assert_eq!(line.ask("GET", path, &[], "").await.whole().await.status, 200, "{number}");
    }
    assert_eq!(counts().await, before);
    scene.end().await;
}

#[tokio::test]
async fn a_refused_key_is_shown_as_degraded_until_it_is_taken_again() {
    let scene = Scene::start().await;
    let refused = Fault::status(401, reelgate::simulator::Form::comet("invalid_api_key"));
    scene.upstream.next_submission(refused);
    assert_eq!(scene.submit("a").await.refusal(), (502, "upstream_key_refused".to_owned()));
    let ready = scene.admin("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"degraded": ["upstream_key"]})), "hits and polls go on");
    assert_eq!(scene.metric("degraded{reason=\"upstream_key\"}").await, 1.0);
    assert_eq!(scene.submit("a").await.status, 200);
    assert_eq!(scene.admin("/readyz").await.json(), json!({"degraded": []}));
    scene.end().await;
}

#[tokio::test]
async fn t72_the_admin_listener_answers_to_hosts_that_nobody_else_can_be() {
    let scene = Scene::with(|config, _| config.server.allowed_hosts = vec!["Metrics.internal".to_owned()]).await;
    let address = scene.gateway().admin_address();
    for (host, status) in [
        ("127.0.0.1", 200),
        ("localhost:9", 200),
        ("[::1]:1", 200),
        ("metrics.internal", 200),
        ("rebound.example", 421),
        ("127.0.0.1.example", 421),
        ("", 421),
    ] {
        for path in ["/metrics", "/livez", "/readyz"] {
            let answer = ask(address, Method::GET, path, &[("host", host)], "").await;
            assert_eq!(answer.status, status, "{host} {path}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn t72_the_admin_listener_takes_get_and_head_of_its_pages_only() {
    let scene = Scene::start().await;
    let address = scene.gateway().admin_address();
    for path in ["/metrics", "/livez", "/readyz"] {
        let got = ask(address, Method::GET, path, &[], "").await;
        let head = ask(address, Method::HEAD, path, &[], "").await;
        assert_eq!((head.status, head.text()), (got.status, String::new()), "{path}");
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            let answer = ask(address, method, path, &[], "").await;
            assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{path}");
        }
    }
    for path in ["/", "/metrics/", "//metrics", "/healthz", "/admin", GENERATIONS] {
        assert_eq!(ask(address, Method::GET, path, &[], "").await.status, 404, "{path}");
    }
    scene.end().await;
}

#[tokio::test]
async fn t07_t72_the_public_listener_shows_nothing_of_it() {
    let scene = Scene::start().await;
    for path in ["/metrics", "/livez", "/readyz", "/healthz", "/health", "/admin/jobs", "/dashboard", "/debug/pprof"] {
        for method in [Method::GET, Method::POST, Method::HEAD] {
            let answer = scene.ask(method.clone(), path, &[], "").await;
            assert_eq!(answer.status, 404, "{method} {path}");
            assert!(!answer.text().contains("reelgate_"), "{method} {path}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn a_draining_gateway_is_alive_and_not_ready_until_what_was_paid_has_come() {
    let options = Options { key: Some("the-upstream-key-of-this-test".to_owned()), ..Options::default() };
    let upstream = Simulator::start(options).await.unwrap();
    upstream.next_submission(Fault::Delay(Duration::from_millis(2500)));
    let mut config = Config::default();
    config.ledger.kind = reelgate::jobs::settings::Kind::Memory;
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.admin.listen = config.server.listen;
    config.server.workers = 1;
    config.upstream.url = upstream.origin();
    let log = Sink::default();
    let telemetry = Telemetry::with_output(&config.log, Box::new(log.clone())).unwrap();
    let key = UpstreamKey::parse("the-upstream-key-of-this-test").unwrap();
    let gateway = Running::start(config, key, telemetry, None).await.unwrap();
    let (address, admin) = (gateway.address(), gateway.admin_address());
    let json = [("content-type", "application/json")];
    let paid = tokio::spawn(async move { ask(address, Method::POST, GENERATIONS, &json, r#"{"prompt":"a"}"#).await });
    assert!(upstream.wait_until(|counts| counts.posts == 1, SOON).await);

    let stopping = tokio::spawn(gateway.stop(std::future::pending()));
    eventually("it is not ready", async || ask(admin, Method::GET, "/readyz", &[], "").await.status == 503).await;
    let ready = ask(admin, Method::GET, "/readyz", &[], "").await;
    assert_eq!(ready.json(), json!({"phase": "draining", "degraded": []}));
    assert_eq!(ask(admin, Method::GET, "/livez", &[], "").await.status, 200);
    assert_eq!(ask(admin, Method::GET, "/metrics", &[], "").await.status, 200);
    assert_eq!(paid.await.unwrap().status, 200, "what was paid is delivered");
    assert!(stopping.await.unwrap(), "it ended by itself");
    assert_eq!(log.requests().len(), 1, "the last line is written");
}
