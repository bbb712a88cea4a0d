//! What passes from the upstream to the client, and what the gateway adds of its own.

use std::time::Duration;

use reelgate::simulator::{Fault, Form};

use crate::support::{GENERATIONS, Line, Scene, answers, eventually};

/// Whether it is an IMF-fixdate (RFC 9110 §5.6.7).
fn is_date(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|letter| match letter {
            '0'..='9' => '0',
            'a'..='z' | 'A'..='Z' => 'a',
            other => other,
        })
        .collect();
    shape == "aaa, 00 aaa 0000 00:00:00 aaa" && text.ends_with(" GMT")
}

#[tokio::test]
async fn r09_every_answer_has_one_date_and_none_says_which_server_wrote_it() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let stale = ("Date".to_owned(), "Tue, 15 Nov 1994 08:12:31 GMT".to_owned());
    scene.upstream.next_poll(Fault::Headers(vec![stale.clone(), ("Server".to_owned(), "nginx/1.2.3".to_owned())]));
    let with_date = scene.poll(&id).await;
    assert_eq!(with_date.header("date"), stale.1, "the date is the one of the answer's origin");
    let mut all = vec![with_date, scene.poll(&id).await, scene.submit("a").await, scene.submit("b").await];
    for (method, path) in [("GET", "/nothing"), ("PUT", GENERATIONS), ("OPTIONS", "*"), ("GET", "/openapi.json")] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        all.extend(scene.exchange(request).await);
    }
    all.extend(scene.exchange("GET /openapi.json HTTP/1.2\r\n\r\n").await);
    let mut line = Line::http2(scene.gateway().address()).await;
    all.push(line.ask("GET", &format!("/grok/v1/videos/{id}"), &[], "").await.whole().await);
    drop(line);
    assert_eq!(all.len(), 10);
    for answer in all {
        assert!(is_date(answer.header("date")), "{:?}", answer.headers);
        assert_eq!(answer.header("server"), "");
    }
    scene.end().await;
}

#[tokio::test]
async fn r63_the_upstreams_own_refusals_pass_with_their_retry_after_and_are_kept_nowhere() {
    let scene = Scene::start().await;
    let id = scene.submit("job").await.request_id();
    for (status, after) in [(429, "7"), (429, "Wed, 21 Oct 2099 07:28:00 GMT"), (503, "120")] {
        let refusal = |code: &str| Fault::Status {
            status,
            form: Form::Comet(code.to_owned()),
            headers: vec![("Retry-After".to_owned(), after.to_owned())],
        };
        scene.upstream.next_poll(refusal("busy"));
        let poll = scene.poll(&id).await;
        assert_eq!((poll.status, poll.header("retry-after")), (status, after));
        assert_eq!(poll.header("proxy-status"), format!("reelgate; received-status={status}"));
        assert_eq!(scene.poll(&id).await.status, 200, "the next poll is asked anew");
    }
    // A submission that was refused is not remembered: the next one goes upstream again.
    for status in [429, 503] {
        let prompt = format!("refused with {status}");
        scene.upstream.next_submission(Fault::Status {
            status,
            form: Form::Comet("busy".to_owned()),
            headers: vec![("Retry-After".to_owned(), "1".to_owned())],
        });
        let answer = scene.submit(&prompt).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, "1"));
        assert_eq!(answer.header("proxy-status"), format!("reelgate; received-status={status}"));
        eventually("the upstream may be asked again", async || {
            scene.submit(&prompt).await.cache_status() == "reelgate; fwd=miss; stored"
        })
        .await;
    }
    // What succeeds says nothing of it.
    assert_eq!(scene.poll(&id).await.header("proxy-status"), "");
    scene.end().await;
}

#[tokio::test]
async fn r64_refusals_of_ours_say_by_their_token_what_went_wrong_and_name_nobody() {
    let scene = Scene::with(|config, _| {
        config.upstream.submit_timeout = Duration::from_millis(300);
        config.upstream.late_answer = Duration::from_millis(300);
        config.upstream.poll_timeout = Duration::from_millis(300);
    })
    .await;
    let id = scene.submit("job").await.request_id();
    let upstream = scene.upstream.address().to_string();
    let mut all = Vec::new();
    for (fault, status, polled, submitted) in [
        (Fault::Stall, 504, "http_response_timeout", "http_response_timeout"),
        (Fault::Garbage(b"no HTTP at all\r\n\r\n".to_vec()), 502, "http_protocol_error", "http_response_incomplete"),
        (
            Fault::Redirect { status: 302, location: "http://x/".to_owned() },
            502,
            "http_protocol_error",
            "http_protocol_error",
        ),
    ] {
        // A poll may be asked twice.
        scene.upstream.always_poll(Some(fault.clone()));
        all.push((scene.poll(&id).await, status, polled));
        scene.upstream.always_poll(None);
        scene.upstream.next_submission(fault);
        all.push((scene.submit(&format!("{polled} then {submitted}")).await, status, submitted));
    }
    for (answer, status, token) in all {
        assert_eq!((answer.status, answer.header("proxy-status")), (status, &*format!("reelgate; error={token}")));
        assert!(!String::from_utf8_lossy(&answer.raw()).contains(&upstream), "{answer:?}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r64_r77_what_others_say_of_the_way_stays_and_ours_stands_behind_it() {
    let scene = Scene::start().await;
    let id = scene.submit("job").await.request_id();
    let told = ["first; error=dns_error", "cdn; received-status=503"];
    let headers: Vec<_> = told.iter().map(|status| ("Proxy-Status".to_owned(), (*status).to_owned())).collect();
    for status in [400, 503] {
        let fault = Fault::Status { status, form: Form::comet("invalid_request"), headers: headers.clone() };
        scene.upstream.next_poll(fault.clone());
        let poll = scene.poll(&id).await;
        scene.upstream.next_submission(fault);
        let ours = format!("reelgate; received-status={status}");
        for answer in [poll, scene.submit(&format!("refused by {status}")).await] {
            assert_eq!(answer.status, status);
            let found: Vec<_> = answer.headers.get_all("proxy-status").iter().collect();
            assert_eq!(found, [told[0], told[1], &ours]);
        }
    }
    // Nothing failed, so that nothing is added.
    scene.upstream.next_poll(Fault::Headers(headers));
    assert_eq!(scene.poll(&id).await.headers.get_all("proxy-status").iter().collect::<Vec<_>>(), told);
    scene.end().await;
}

#[tokio::test]
async fn r40_an_answer_without_content_says_no_length_to_anybody() {
    let scene = Scene::start().await;
    let path = format!("/grok/v1/videos/{}", scene.submit("a").await.request_id());
    for told in ["", "Content-Length: 0\r\n", "Content-Length: 5\r\n"] {
        let raw = format!("HTTP/1.1 204 No Content\r\n{told}X-Kept: 1\r\n\r\n");
        scene.upstream.always_poll(Some(Fault::Garbage(raw.into_bytes())));
        for method in ["GET", "HEAD"] {
            let (http1, http2) =
                (Line::http1(scene.gateway().address()).await, Line::http2(scene.gateway().address()).await);
            for mut line in [http1, http2] {
                let answer = line.ask(method, &path, &[], "").await.whole().await;
                assert_eq!((answer.status, answer.header("x-kept"), answer.text()), (204, "1", String::new()));
                assert_eq!(answer.header("content-length"), "", "{method} {told}");
            }
        }
        scene.upstream.always_poll(None);
    }
    scene.end().await;
}

#[tokio::test]
async fn r05_r52_what_comes_by_http_2_goes_on_as_http_1_without_its_pseudo_fields() {
    let scene = Scene::start().await;
    let mut line = Line::http2(scene.gateway().address()).await;
    scene.note_submissions(1);
    let headers = [("content-type", "application/json"), ("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers")];
    let answer = line.ask("POST", GENERATIONS, &headers, r#"{"prompt":"a"}"#).await.whole().await;
    scene.see(&answer.raw());
    let id = answer.request_id();
    line.ask("GET", &format!("/grok/v1/videos/{id}"), &headers, "").await.whole().await;
    drop(line);
    for received in scene.upstream.received() {
        let head = String::from_utf8(received.head.to_vec()).unwrap();
        assert!(head.lines().next().unwrap().ends_with(" HTTP/1.1"), "{head}");
        let names: Vec<_> =
            head.lines().skip(1).filter_map(|line| line.split_once(": ")).map(|field| field.0).collect();
        assert!(names.iter().all(|name| !name.starts_with(':') && **name == name.to_lowercase()), "{head}");
        assert!(!names.contains(&"cookie") && !names.contains(&"te"), "{head}");
        assert_eq!(names.iter().filter(|name| **name == "host").count(), 1, "{head}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r03_r77_r75_a_poll_keeps_what_is_the_clients_and_loses_what_is_the_connections() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    scene.upstream.next_poll(Fault::Headers(vec![
        field("Connection", "X-Up"),
        field("X-Up", "1"),
        field("Keep-Alive", "timeout=5"),
        field("Proxy-Authenticate", "Basic"),
        field("Upgrade", "h2c"),
        field("Strict-Transport-Security", "max-age=1"),
        field("Set-Cookie", "a=b"),
        field("X-Powered-By", "kept"),
    ]));
    let request = format!("GET /grok/v1/videos/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let raw = scene.raw(request.as_bytes()).await;
    let [answer] = &answers(&raw)[..] else { panic!("not one answer") };
    for gone in ["x-up", "keep-alive", "proxy-authenticate", "upgrade", "strict-transport-security", "set-cookie"] {
        assert!(!answer.headers.contains_key(gone), "{gone}: {:?}", answer.headers);
    }
    assert_eq!(answer.header("x-powered-by"), "kept");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    scene.end().await;
}
