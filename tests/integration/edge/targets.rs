//! Where a request says that it is going (RFC 9112 §3): Host, the forms of targets, paths and queries.

use crate::support::{GENERATIONS, Scene};

const BODY: &str = r#"{"prompt":"a"}"#;

/// A submission with this target and these lines instead of a Host.
fn submission(target: &str, lines: &str) -> String {
    let length = BODY.len();
    format!(
        "POST {target} HTTP/1.1\r\n{lines}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{BODY}"
    )
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn h1_r10_a_host_that_is_missing_doubled_or_malformed_is_a_400_and_nothing_is_sent() {
    let scene = Scene::start().await;
    let mut good = scene.good_client().await;
    for lines in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a/b\r\n",
        "Host: a@b\r\n",
        "Host: a b\r\n",
        "Host: a,b\r\n",
        "Host: a:99999\r\n",
        "Host: a:1:2\r\n",
        "Host: [::1\r\n",
        "Host: [::1].\r\n",
        "Host: ..\r\n",
        "Host: \u{2}\r\n",
        "Host: é\r\n",
        "Host:\r\n",
        "Host: \r\n",
    ] {
        assert_eq!(scene.statuses(submission(GENERATIONS, lines)).await, [400], "{lines:?}");
    }
    good.is_served().await;
    assert_eq!(scene.upstream.connections(), 0);
    for host in ["a", "A", "a:", "a:80", "[::1]:80", "127.0.0.1", "a."] {
        let lines = format!("Host: {host}\r\n");
        assert_eq!(scene.statuses(submission(GENERATIONS, &lines)).await, [200], "{host}");
    }
    assert_eq!(scene.statuses("GET /openapi.json HTTP/1.0\r\n\r\n").await, [200]);
    scene.end().await;
}

#[tokio::test]
async fn h2_r12_a_whole_url_as_the_target_never_chooses_the_upstream() {
    let scene = Scene::start().await;
    for (target, status) in [
        ("http://evil.example/openapi.json", 200),
        ("https://evil.example/openapi.json", 200),
        ("HTTP://a:80/openapi.json", 200),
        ("http://u:p@a/openapi.json", 400),
        ("https://u@a/openapi.json", 400),
        ("ftp://a/openapi.json", 400),
        ("http:///openapi.json", 400),
        ("http://a", 404),
        ("//evil.example/openapi.json", 404),
        ("openapi.json", 404),
        ("a/openapi.json", 400),
        ("/http://a/openapi.json", 404),
    ] {
        assert_eq!(scene.statuses(get(target)).await, [status], "{target}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    // What is named there is a name for us, and the upstream is the one of the configuration.
    let target = format!("http://evil.example:1{GENERATIONS}");
    assert_eq!(scene.statuses(submission(&target, "Host: other.example\r\n")).await, [200]);
    assert_eq!(scene.upstream.received().last().unwrap().path, GENERATIONS);
    assert_eq!(scene.statuses(submission(&target, "")).await, [400], "Host is needed all the same");
    scene.end().await;
}

#[tokio::test]
async fn r11_r12_with_names_of_our_own_neither_host_nor_target_may_name_another() {
    let scene = Scene::with(|config, _| config.server.allowed_hosts = vec!["ours.example".to_owned()]).await;
    for (target, host, status) in [
        (GENERATIONS.to_owned(), "evil.example", 421),
        (format!("http://evil.example{GENERATIONS}"), "ours.example", 421),
        (format!("http://ours.example{GENERATIONS}"), "evil.example", 200),
        (GENERATIONS.to_owned(), "OURS.example:8080", 200),
    ] {
        let lines = format!("Host: {host}\r\n");
        assert_eq!(scene.statuses(submission(&target, &lines)).await, [status], "{target} {host}");
    }
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn r16_t04_a_path_is_taken_as_it_stands() {
    let scene = Scene::start().await;
    let mut good = scene.good_client().await;
    let long = format!("/grok/v1/videos/{}", "a".repeat(129));
    for path in [
        "/grok/v1/videos/../videos/a",
        "/grok/v1/videos/..",
        "/grok/v1/videos/.",
        "/grok/v1/videos/%2e%2e",
        "/grok/v1/videos/%2E%2E/a",
        "/grok/v1/videos/..%5ca",
        "/grok/v1/videos/a%2Fb",
        "/grok/v1/videos/%252f",
        "/grok/v1/videos/%61",
        "/grok/v1/videos/a%00",
        "/grok/v1/videos/a;x",
        "/grok/v1/videos/a\\b",
        "/grok/v1/videos/a/",
        "/grok/v1/videos/a/b",
        "/grok/v1/videos/a.b",
        "/grok/v1/videos//a",
        "/grok/v1//videos/a",
        "//grok/v1/videos/a",
        "/grok/v1/videos/",
        "/grok/v1/videos",
        "/GROK/v1/videos/a",
        "/grok/v1/videos/é",
        "/grok/v1/videos/a\u{ff0e}\u{ff0e}",
        "/grok/v1/videos/%ff",
        "/grok/v1/videos/a%",
        "/grok/v1/videos/a\u{7f}",
        "/grok/v1/videos/a\u{1}",
        "/grok/v1/videos/a\"",
        "/grok/v1/videos/extensions",
        &long,
    ] {
        let statuses = scene.statuses(get(path)).await;
        assert!(statuses == [404] || statuses == [400], "{path}: {statuses:?}");
    }
    assert_eq!(scene.statuses(get("/grok/v1/videos/generations")).await, [405]);
    good.is_served().await;
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

#[tokio::test]
async fn r16_a_fragment_is_cut_off_and_goes_nowhere() {
    let scene = Scene::start().await;
    assert_eq!(scene.statuses(get("/openapi.json#/../x")).await, [200]);
    let id = scene.submit("a").await.request_id();
    assert_eq!(scene.statuses(get(&format!("/grok/v1/videos/{id}#x"))).await, [200]);
    assert_eq!(scene.upstream.received().last().unwrap().path, format!("/grok/v1/videos/{id}"));
    scene.end().await;
}

#[tokio::test]
async fn r17_a_query_is_refused_on_every_route() {
    let scene = Scene::start().await;
    let long = format!("?a={}", "b".repeat(7000));
    let longer = format!("?a={}", "b".repeat(9000));
    for (query, status) in
        [("?", 400), ("?a=%00", 400), ("?api_key=x", 400), ("?key=sk-x&key=y", 400), (&long, 400), (&longer, 414)]
    {
        let target = format!("{GENERATIONS}{query}");
        assert_eq!(scene.statuses(submission(&target, "Host: a\r\n")).await, [status], "{query}");
        assert_eq!(scene.statuses(get(&format!("/grok/v1/videos/a{query}"))).await, [status], "{query}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}
