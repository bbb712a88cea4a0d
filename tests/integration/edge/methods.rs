//! What a request wants done (RFC 9110 §9), and for whom a connection is something else than HTTP.

use reelgate::simulator::Fault;
use serde_json::Value;

use crate::support::{GENERATIONS, Scene, answers};

const METHODS: [&str; 14] = [
    "GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "get", "post", "Post", "PROPFIND", "QUERY",
    "X",
];

#[tokio::test]
async fn h4_r14_t07_each_path_has_its_methods_and_no_request_is_echoed() {
    let scene = Scene::start().await;
    let mut good = scene.good_client().await;
    let id = scene.submit("a").await.request_id();
    let before = scene.upstream.counts().requests;
    let job = format!("/grok/v1/videos/{id}");
    let paths = [
        (GENERATIONS, "POST, OPTIONS"),
        (&job, "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/grok/v1/client_tokens", "POST, OPTIONS"),
        ("/nothing", ""),
    ];
    let mut polls = 0;
    for (path, allow) in paths {
        for method in METHODS {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Marker: zebra\r\nConnection: close\r\n");
            let answered = scene.raw(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).await;
            let text = String::from_utf8(answered).unwrap();
            scene.note_submissions(u64::from(path == GENERATIONS && method != "OPTIONS"));
            let status: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
            let is_allowed = allow.split(", ").any(|allowed| allowed == method);
            let want = match (path, method) {
                ("/nothing", _) => 404,
                (_, "OPTIONS") => 204,
                // Neither has a body of JSON.
                (GENERATIONS, "POST") => 415,
                ("/grok/v1/client_tokens", "POST") => 404,
                _ if is_allowed => 200,
                _ => 405,
            };
            polls += u64::from(path == job && is_allowed && method != "OPTIONS");
            if want == 404 {
                assert!((400..500).contains(&status), "{method} {path}: {text}");
            } else {
                assert_eq!(status, want, "{method} {path}: {text}");
            }
            assert!(want != 405 || text.contains(&format!("\r\nallow: {allow}\r\n")), "{method} {path}: {text}");
            assert!(!text.contains("zebra"), "{method} {path} is echoed: {text}");
        }
    }
    good.is_served().await;
    assert_eq!(scene.upstream.counts().requests as u64, before as u64 + polls);
    scene.end().await;
}

#[tokio::test]
async fn r08_r15_options_is_answered_here_however_far_it_may_go() {
    let scene = Scene::start().await;
    for (target, status, allow) in [
        ("*", 204, "GET, HEAD, POST, OPTIONS"),
        (GENERATIONS, 204, "POST, OPTIONS"),
        ("/grok/v1/videos/a", 204, "GET, HEAD, OPTIONS"),
        ("/nothing", 404, ""),
        ("*/x", 400, ""),
    ] {
        for forwards in ["", "Max-Forwards: 0\r\n", "Max-Forwards: 7\r\n", "Max-Forwards: x\r\n"] {
            let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{forwards}Connection: close\r\n\r\n");
            let answers = scene.exchange(request).await;
            assert_eq!(answers.len(), 1);
            assert_eq!((answers[0].status, answers[0].header("allow")), (status, allow), "{target} {forwards}");
        }
    }
    for request in ["GET *", "POST *", "GET */x", "TRACE *"] {
        let statuses = scene
            .statuses(format!("{request} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n"))
            .await;
        assert_eq!(statuses, [400], "{request}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

#[tokio::test]
async fn h3_r13_connect_makes_no_tunnel_in_any_form() {
    let scene = Scene::start().await;
    let next = "GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for target in ["h:443", "127.0.0.1:1", "/grok/v1/videos/a", GENERATIONS, "http://h/", "*", "h"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: h:443\r\n\r\n{next}");
        let statuses = scene.statuses(request).await;
        assert!(statuses == [405] || statuses == [400], "{target}: {statuses:?}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

#[tokio::test]
async fn r24_an_upgrade_is_not_made_and_the_request_is_served_as_it_is() {
    let scene = Scene::start().await;
    for upgrade in [
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: TLS/1.3\r\nConnection: upgrade\r\n",
        "Upgrade: h2c\r\n",
    ] {
        let body = format!(r#"{{"prompt":"{}"}}"#, upgrade.len());
        let first = format!(
            "POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{upgrade}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let next = "GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        scene.note_submissions(1);
        let answers = answers(&scene.raw((first + next).as_bytes()).await);
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 200], "{upgrade}");
        assert!(answers[0].headers.contains_key("cache-status") && answers[0].header("upgrade").is_empty());
    }
    scene.end().await;
}

#[tokio::test]
async fn r18_an_http_1_0_client_gets_neither_chunks_nor_a_100() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let body = r#"{"prompt":"b"}"#;
    let head = format!("POST {GENERATIONS} HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n");
    let answers = scene.exchange(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200]);
    // A poll whose length is not known ends with its connection, and is not chunked.
    scene.upstream.next_poll(Fault::Chunked { bytes: 7 });
    let poll = scene.raw(format!("GET /grok/v1/videos/{id} HTTP/1.0\r\n\r\n").as_bytes()).await;
    let poll = String::from_utf8(poll).unwrap();
    assert!(poll.starts_with("HTTP/1.0 200 OK\r\n") && !poll.to_lowercase().contains("transfer-encoding"), "{poll}");
    let (_, body) = poll.split_once("\r\n\r\n").unwrap();
    assert!(serde_json::from_str::<Value>(body).is_ok(), "{poll}");
    scene.end().await;
}
