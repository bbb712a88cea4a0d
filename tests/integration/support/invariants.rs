//! What must hold after every test, whatever it did (`HARDENING.md` §0).

use std::collections::HashMap;

use base64::Engine;

use super::{Scene, eventually, value};

/// Ends the scene and checks.
pub(super) async fn check(mut scene: Scene) {
    *scene.ended.lock().unwrap() = true;
    eventually("INV-7: every request has ended", async || scene.metric("requests_in_flight").await == 0.0).await;
    eventually("INV-7: every body's memory was given back", async || scene.metric("body_memory_bytes").await == 0.0)
        .await;
    settle(&scene).await;
    let metrics = scene.admin("/metrics").await.text();
    reconcile(&scene, &metrics);
    framing(&scene);
    purchases(&scene);
    assert_eq!(value(&metrics, "panics_total"), 0.0, "INV-9: nothing panicked");
    let gateway = scene.gateway.take().unwrap();
    assert!(gateway.stop(std::future::pending()).await, "INV-8: the gateway did not end by itself");
    let seen = std::mem::take(&mut *scene.seen.lock().unwrap());
    for (place, bytes) in [("an answer", seen.as_slice()), ("the log", scene.log.text().as_bytes())] {
        key_is_absent(&scene.key, place, bytes);
    }
    for line in scene.log.lines() {
        assert!(line["time"].is_string() && line["level"].is_string(), "T-71: {line}");
    }
}

/// Waits until what is in flight has been counted.
async fn settle(scene: &Scene) {
    let sent = *scene.submissions.lock().unwrap();
    eventually("INV-10: each submission is counted once", async || {
        let text = scene.admin("/metrics").await.text();
        let counted: f64 = series(&text, "submissions_total").values().sum();
        assert!(counted <= sent as f64, "more submissions were counted than sent: {counted} of {sent}");
        counted == sent as f64
    })
    .await;
}

/// INV-10: what is reported agrees with what the upstream saw.
fn reconcile(scene: &Scene, metrics: &str) {
    let submissions = series(metrics, "submissions_total");
    let upstream = series(metrics, "upstream_requests_total");
    let of = |outcome: &str| submissions[&format!("outcome=\"{outcome}\"")] as usize;
    let called = |operation: &str| -> usize {
        let calls = upstream.iter().filter(|(labels, _)| labels.contains(operation) && !labels.contains("not_sent"));
        calls.map(|(_, count)| *count as usize).sum()
    };
    let counts = scene.upstream.counts();
    assert!(counts.posts as usize <= called("submit"), "INV-10: a POST reached the upstream uncounted: {counts:?}");
    let accepted = counts.accepted as usize;
    assert!(of("created") <= accepted, "INV-10: created {}, accepted {accepted}", of("created"));
    assert!(
        accepted <= of("created") + of("unknown"),
        "INV-10: created {}, unknown {}, accepted {accepted}",
        of("created"),
        of("unknown")
    );
}

/// INV-6: what the upstream got is well-formed, framed once, and made by the gateway.
fn framing(scene: &Scene) {
    assert_eq!(scene.upstream.counts().malformed, 0, "INV-6: the upstream got something malformed");
    for received in scene.upstream.received().iter().filter(|received| received.complete) {
        let head = String::from_utf8_lossy(&received.head).to_ascii_lowercase();
        assert!(received.extra.is_empty(), "INV-6: bytes after the request");
        let path = &received.path;
        let known = path == super::GENERATIONS || path == super::EDITS || path.starts_with("/grok/v1/videos/");
        assert!(known, "INV-6: {path} went upstream");
        for name in [
            "\r\ntransfer-encoding:",
            "\r\ncookie:",
            "\r\nexpect:",
            "\r\nupgrade:",
            "\r\nx-",
            "\r\nte:",
            "\r\ntrailer:",
            "\r\nproxy-",
        ] {
            assert!(!head.contains(name), "INV-6: {name} went upstream: {head}");
        }
        for name in ["\r\nhost:", "\r\nauthorization:", "\r\nvia:"] {
            assert_eq!(head.matches(name).count(), 1, "INV-6: {name} in {head}");
        }
        if received.method == "POST" {
            let length = format!("\r\ncontent-length: {}\r\n", received.body.len());
            assert!(head.contains(&length) && head.matches("content-length").count() == 1, "R-20: {head}");
        }
    }
}

/// INV-2: at most one job for one prompt, unless the caller asked for another.
fn purchases(scene: &Scene) {
    if *scene.bought_again.lock().unwrap() {
        return;
    }
    let mut bought = HashMap::<String, usize>::new();
    for job in scene.upstream.accepted() {
        *bought.entry(format!("{:?}", job.canonical)).or_default() += 1;
    }
    let twice: Vec<_> = bought.into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(twice.is_empty(), "INV-2: paid more than once: {twice:?}");
}

/// INV-1: the key went to the upstream and nowhere else, in no form and in no part.
pub fn key_is_absent(key: &str, place: &str, bytes: &[u8]) {
    let contains = |part: &[u8]| memchr::memmem::find(bytes, part).is_some();
    let base64 = base64::engine::general_purpose::STANDARD.encode(key);
    let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!contains(base64.as_bytes()) && !contains(hex.as_bytes()), "INV-1: the key, encoded, is in {place}");
    for part in key.as_bytes().windows(12) {
        assert!(!contains(part), "INV-1: a part of the key is in {place}");
    }
}

/// The series of one metric: labels and value.
pub(super) fn series(text: &str, name: &str) -> HashMap<String, f64> {
    let prefix = format!("reelgate_{name}{{");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("} "));
    lines.map(|(labels, value)| (labels.to_owned(), value.parse().unwrap())).collect()
}
