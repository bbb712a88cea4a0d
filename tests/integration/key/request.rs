//! What goes upstream beside the key: only what is on the list, whatever the client sends (R-01 to R-07, R-78, T-03,
//! T-05, T-06).

use std::net::Ipv4Addr;

use reelgate::simulator::{Fault, Received};
use tokio::net::TcpListener;

use crate::support::{Door, GENERATIONS, Line, Scene};

/// As long as every body that [`only_the_list_goes_on`] sends.
const BODY: &str = r#"{"prompt":"000"}"#;

/// The fields of a request as they came: names in small letters, sorted.
fn fields(received: &Received) -> Vec<(String, String)> {
    let head = String::from_utf8(received.head.to_vec()).unwrap();
    let mut fields: Vec<_> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        // Each request's own, and nothing of the client's (R-71).
        .filter(|(name, _)| *name != "traceparent")
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    fields.sort();
    fields
}

/// What a submission's header, or a poll's, must be, to the letter.
fn wanted(scene: &Scene, is_submission: bool, accept: &str, version: &str) -> Vec<(String, String)> {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut fields = vec![
        field("accept", accept),
        field("accept-encoding", "identity"),
        field("authorization", &format!("Bearer {}", scene.key)),
        field("host", &scene.upstream.address().to_string()),
        field("user-agent", concat!("reelgate/", env!("CARGO_PKG_VERSION"))),
        field("via", &format!("{version} {}", pseudonym(scene))),
    ];
    if is_submission {
        // Our own, on a connection that carries nothing else.
        fields.push(field("connection", "close"));
        fields.push(field("content-length", &BODY.len().to_string()));
        fields.push(field("content-type", "application/json"));
    }
    fields.sort();
    fields
}

/// The gateway's own name, as the upstream saw it.
fn pseudonym(scene: &Scene) -> String {
    let received = scene.upstream.received();
    let (_, via) = fields(received.last().unwrap()).into_iter().find(|(name, _)| name == "via").unwrap();
    let name = via.rsplit(' ').next().unwrap();
    let digits = name.strip_prefix("reelgate-").expect("a name of ours");
    assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    name.to_owned()
}

/// Sends a submission and a poll with these header lines, and compares what came upstream with the list.
async fn only_the_list_goes_on(scene: &Scene, lines: &str, accept: &str) {
    // Each is a prompt of its own, so that it goes on.
    let body = BODY.replace("000", &format!("{:03}", scene.upstream.posts()));
    let answer = scene.raw_submission(&format!("Content-Length: {}\r\n{lines}", BODY.len()), &body).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(fields(scene.upstream.received().last().unwrap()), wanted(scene, true, accept, "1.1"), "{lines}");
    let poll = format!("GET /grok/v1/videos/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    scene.raw(poll.as_bytes()).await;
    assert_eq!(scene.upstream.received().last().unwrap().method, "GET", "{lines}");
    assert_eq!(fields(scene.upstream.received().last().unwrap()), wanted(scene, false, accept, "1.1"), "{lines}");
    assert_eq!(scene.upstream.received().last().unwrap().path, "/grok/v1/videos/x");
}

#[tokio::test]
async fn t05_r78_a_hundred_client_headers_stay_here() {
    let names = "Authorization Cookie Cookie2 X-Api-Key Api-Key X_Api_Key Xai-Api-Key OpenAI-Organization OpenAI-Project \
        Anthropic-Version Proxy-Authorization Proxy-Connection Keep-Alive TE Upgrade Forwarded X-Forwarded-For \
        X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Server X-Forwarded-Prefix X-Forwarded-User \
        X-Forwarded-Authorization X-Real-IP X-Client-IP True-Client-IP CF-Connecting-IP CF-Ray Fastly-Client-IP \
        X-Cluster-Client-IP X-Original-URL X-Original-Host X-Rewrite-URL X-HTTP-Method X-HTTP-Method-Override \
        X-Method-Override X-Host Base-URL Api-Base X-Base-Url X-Upstream X-Upstream-Url X-Target X-Channel-Id \
        New-Api-User Specific-Channel-Id User-Agent X-Stainless-Lang X-Stainless-Retry-Count X-Stainless-Timeout \
        X-Stainless-OS X-Request-Id X-Correlation-Id X-Trace-Id Traceparent Tracestate Baggage B3 X-B3-TraceId \
        X-Amzn-Trace-Id X-Cloud-Trace-Context Uber-Trace-Id DNT Referer Accept-Language Accept-Charset Accept-Encoding \
        Cache-Control Pragma If-Match If-None-Match If-Modified-Since If-Unmodified-Since If-Range Range From \
        Idempotency-Key X-Idempotency-Key Reelgate-Variation Reelgate-Team Reelgate-User Max-Forwards Warning \
        Sec-Fetch-Site Sec-Fetch-Mode Sec-Fetch-Dest Sec-CH-UA Content-Language Content-Location Content-MD5 Digest \
        Content-Disposition Link Prefer Priority Save-Data Early-Data CDN-Loop X-Requested-With X-CSRF-Token \
        X-Foo-Bar x_underscore Host-Override X-Url-Scheme Front-End-Https X-ARR-SSL Ssl-Client-Cert";
    let scene = Scene::start().await;
    let names: Vec<&str> = names.split_whitespace().collect();
    assert!(names.len() >= 100);
    // All headers together would be more than a request may have.
    for some in names.chunks(40) {
        let lines: String = some.iter().map(|name| format!("{name}: 1\r\n")).collect();
        only_the_list_goes_on(&scene, &format!("{lines}Connection: close\r\n"), "application/json").await;
    }
    for odd in [
        "Authorization: Bearer one\r\nAuthorization: Bearer two\r\n",
        "Authorization: Basic YTpi\r\n",
        "authorization:Bearer\r\n",
        "AUTHORIZATION: bearer  x \r\n",
        "Accept: text/html\r\n",
        "Content-Type-Options: x\r\n",
    ] {
        let accept = if odd.starts_with("Accept") { "text/html" } else { "application/json" };
        only_the_list_goes_on(&scene, &format!("{odd}Connection: close\r\n"), accept).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn r01_r02_r03_r04_t06_a_connection_list_takes_nothing_of_ours() {
    let scene = Scene::start().await;
    for lines in [
        "Connection: Authorization, Content-Type, Host, traceparent, Via, close\r\n",
        "Connection: close\r\nCONNECTION: x-foo ,, authorization\r\nConnection: ,via,  HOST\r\nX-Foo: 1\r\n",
        "Connection: close, accept, accept-encoding, user-agent, content-length\r\n",
        "Connection: close, TE\r\nTE: trailers\r\nUpgrade: websocket\r\nProxy-Authorization: Basic eDp5\r\n",
        "Connection: close, keep-alive\r\nKeep-Alive: timeout=9\r\nProxy-Connection: close\r\n",
    ] {
        only_the_list_goes_on(&scene, lines, "application/json").await;
    }
    scene.end().await;
}

#[tokio::test]
async fn r05_trailers_of_a_submission_end_here() {
    let scene = Scene::start().await;
    let chunked = format!(
        "{:x}\r\n{BODY}\r\n0\r\nAuthorization: Bearer x\r\nContent-Length: 3\r\nHost: evil.example\r\nX-Sum: 1\r\n\r\n",
        BODY.len()
    );
    let lines = "Transfer-Encoding: chunked\r\nTrailer: Authorization, X-Sum\r\nConnection: close\r\n";
    let answer = scene.raw_submission(lines, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = scene.upstream.received();
    assert_eq!(fields(&received[0]), wanted(&scene, true, "application/json", "1.1"));
    assert_eq!(received[0].body, BODY);
    scene.end().await;
}

#[tokio::test]
async fn t03_no_request_chooses_where_the_key_goes() {
    let scene = Scene::start().await;
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let foreign = elsewhere.local_addr().unwrap();
    let url = format!("http://{foreign}/");
    let body = serde_json::json!({"prompt": "a", "api_base": url, "base_url": url, "url": url, "endpoint": url,
        "image": {"url": format!("{url}a.png")}});
    let headers = [
        ("x-forwarded-host", foreign.to_string()),
        ("x-original-url", format!("{url}x")),
        ("x-rewrite-url", url.clone()),
        ("x-http-method-override", "DELETE".to_owned()),
        ("forwarded", format!("host={foreign}")),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let id = scene.post(GENERATIONS, &body, &headers).await.request_id();
    scene.ask(hyper::Method::GET, &format!("/grok/v1/videos/{id}"), &headers, "").await;
    let absolute = format!("GET http://{foreign}/grok/v1/videos/{id} HTTP/1.1\r\nHost: {foreign}\r\nConnection: close");
    scene.raw(format!("{absolute}\r\n\r\n").as_bytes()).await;
    // And a redirect, which is an upstream's way to choose.
    for status in [301, 302, 303, 307, 308] {
        scene.upstream.next_submission(Fault::Redirect { status, location: url.clone() });
        let answer = scene.submit("b").await;
        assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()));
        assert_eq!(answer.header("location"), "");
    }
    let nobody = std::future::poll_fn(|context| std::task::Poll::Ready(elsewhere.poll_accept(context).is_pending()));
    assert!(nobody.await, "somebody connected elsewhere");
    scene.end().await;
}

#[tokio::test]
async fn r06_via_names_the_clients_version_and_follows_those_before() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let name = pseudonym(&scene);
    let last =
        || fields(scene.upstream.received().last().unwrap()).into_iter().find(|(name, _)| name == "via").unwrap().1;
    assert_eq!(last(), format!("1.1 {name}"));
    for (version, lines, want) in [
        ("1.0", "", format!("1.0 {name}")),
        ("1.1", "Via: 1.0 a, 1.1 b.example:80 (a comment)\r\nvia: 2 c\r\n", {
            format!("1.0 a, 1.1 b.example:80 (a comment), 2 c, 1.1 {name}")
        }),
        ("1.1", "Via: 1.1 reelgate-00000000\r\n", format!("1.1 reelgate-00000000, 1.1 {name}")),
    ] {
        let poll = format!("GET /grok/v1/videos/{id} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
        scene.raw(poll.as_bytes()).await;
        assert_eq!(last(), want);
    }
    let mut line = Line::http2(scene.gateway().address()).await;
    line.ask("GET", &format!("/grok/v1/videos/{id}"), &[("via", "1.1 a")], "").await.whole().await;
    assert_eq!(last(), format!("1.1 a, 2 {name}"));
    drop(line);
    scene.end().await;
}

#[tokio::test]
async fn r07_a_request_that_has_been_here_is_508_on_every_way() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let name = pseudonym(&scene);
    let before = scene.upstream.counts().requests;
    for via in [format!("1.1 {name}"), format!("1.0 a, 2 {} (x), 1.1 b", name.to_uppercase())] {
        let answer = scene.submit_with("b", &[("via", &via)]).await;
        assert_eq!(answer.refusal(), (508, "loop_detected".to_owned()));
        assert_eq!(answer.header("proxy-status"), "reelgate; error=proxy_loop_detected");
        let answer = scene.ask(hyper::Method::GET, &format!("/grok/v1/videos/{id}"), &[("via", &via)], "").await;
        assert_eq!(answer.refusal(), (508, "loop_detected".to_owned()));
    }
    assert_eq!(scene.upstream.counts().requests, before);
    scene.end().await;
}

#[tokio::test]
async fn r07_f19_an_upstream_that_is_the_gateway_itself_is_one_508_and_no_storm() {
    let mut door = Door::closed();
    let scene = Scene::with(|config, _| config.upstream.url = door.origin()).await;
    door.open(scene.gateway().address());
    // The first one comes back once.
    scene.note_submissions(1);
    let answer = scene.submit("a").await;
    assert_eq!(answer.refusal(), (508, "loop_detected".to_owned()));
    let answer = scene.poll("x").await;
    assert_eq!(answer.refusal(), (508, "loop_detected".to_owned()));
    assert_eq!(scene.metric("requests_total{route=\"generations\",status=\"508\"}").await, 2.0);
    assert_eq!(scene.metric("requests_total{route=\"poll\",status=\"508\"}").await, 2.0);
    assert_eq!(scene.upstream.counts().requests, 0);
    scene.end().await;
}
