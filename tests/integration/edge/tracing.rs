//! Traces through the gateway (W3C Trace Context): the client's goes on with a parent of ours, or a new one begins.

use std::collections::HashSet;

use crate::support::{Line, Scene};

const ID: &str = "12345678901234567890123456789012";

/// The last request's `traceparent` as trace, parent and flags, and its `tracestate`.
fn last(scene: &Scene) -> ([String; 3], String) {
    let received = scene.upstream.received();
    let head = String::from_utf8(received.last().unwrap().head.to_vec()).unwrap().to_lowercase();
    let all = |name: &str| -> Vec<&str> {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|field| field.0 == name)
            .map(|field| field.1)
            .collect()
    };
    let [parent] = all("traceparent")[..] else { panic!("not one traceparent: {head}") };
    let parts: Vec<_> = parent.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{parent}");
    assert_eq!(parts[0], "00");
    let is_hex = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    assert!(parts.iter().all(is_hex) && parts[1..3].iter().all(|part| part.bytes().any(|byte| byte != b'0')));
    (std::array::from_fn(|part| parts[part + 1].to_owned()), all("tracestate").join("\n"))
}

#[tokio::test]
async fn r71_a_clients_trace_goes_on_with_a_parent_of_ours_and_stands_in_the_log() {
    let scene = Scene::start().await;
    let parent = format!("00-{ID}-1234567890123456-01");
    let trace = [("traceparent", parent.as_str()), ("tracestate", "foo=1, bar=2"), ("tracestate", "baz=3")];
    let id = scene.submit_with("a", &trace).await.request_id();
    let ([trace_id, parent_id, flags], state) = last(&scene);
    assert_eq!((trace_id.as_str(), flags.as_str(), state.as_str()), (ID, "01", "foo=1,bar=2,baz=3"));
    assert_ne!(parent_id, "1234567890123456");
    let mut parents = HashSet::from([parent_id]);
    for _ in 0..20 {
        scene.ask(hyper::Method::GET, &format!("/grok/v1/videos/{id}"), &trace, "").await;
        let ([trace_id, parent_id, _], _) = last(&scene);
        assert_eq!(trace_id, ID);
        assert!(parents.insert(parent_id), "a parent twice");
    }
    let mut line = Line::http2(scene.gateway().address()).await;
    line.ask("GET", &format!("/grok/v1/videos/{id}"), &trace, "").await.whole().await;
    assert_eq!(last(&scene).0[0], ID);
    drop(line);
    let lines = scene.log.lines();
    assert!(lines.iter().filter(|line| line["message"] == "request").all(|line| line["trace_id"] == ID));
    scene.end().await;
}

#[tokio::test]
async fn r71_what_is_no_trace_begins_a_new_one_that_has_the_requests_id() {
    let scene = Scene::start().await;
    let good = format!("00-{ID}-1234567890123456-01");
    for parents in [
        &["garbage"][..],
        &[&good, &good],
        &["00-12345678901234567890123456789012-1234567890123456-01-more"],
        &["ff-12345678901234567890123456789012-1234567890123456-01"],
        &["00-00000000000000000000000000000000-1234567890123456-01"],
        &["00-12345678901234567890123456789012-0000000000000000-01"],
        &["00-1234567890123456789012345678901A-1234567890123456-01"],
    ] {
        let mut headers: Vec<_> = parents.iter().map(|parent| ("traceparent", *parent)).collect();
        headers.push(("tracestate", "foo=1"));
        let answer = scene.ask(hyper::Method::GET, "/grok/v1/videos/a", &headers, "").await;
        let ([trace_id, _, flags], state) = last(&scene);
        assert_eq!((trace_id.as_str(), flags.as_str(), state.as_str()), (answer.header("x-request-id"), "00", ""));
    }
    let own = [("x-request-id", "mine"), ("traceparent", "garbage")];
    scene.ask(hyper::Method::GET, "/grok/v1/videos/a", &own, "").await;
    assert_ne!(last(&scene).0[0], ID);
    // Where nobody traces, nothing is begun.
    scene.ask(hyper::Method::GET, "/grok/v1/videos/a", &[("tracestate", "foo=1")], "").await;
    let head = scene.upstream.received().pop().unwrap().head;
    assert!(!String::from_utf8_lossy(&head).to_ascii_lowercase().contains("trace"));
    scene.end().await;
}

#[tokio::test]
async fn r72_a_request_id_is_one_word_of_64_or_a_new_one() {
    let scene = Scene::start().await;
    let longest = "a".repeat(64);
    let longer = "a".repeat(65);
    for (sent, is_kept) in [
        ("A.b_c-1", true),
        (&longest, true),
        (&longer, false),
        ("a b", false),
        ("a/b", false),
        ("a\tb", false),
        ("\u{1f600}", false),
        ("<script>", false),
        ("", false),
    ] {
        let request =
            format!("GET /openapi.json HTTP/1.1\r\nHost: a\r\nX-Request-Id: {sent}\r\nConnection: close\r\n\r\n");
        let answers = scene.exchange(request).await;
        assert_eq!(answers[0].header("x-request-id") == sent, is_kept, "{sent:?}");
    }
    scene.end().await;
}
