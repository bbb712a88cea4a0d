//! Proxies in front (`server.trusted_proxies`; R-70): whose word about a client's address counts, for limits, for wrong
//! keys and in the log, and that the upstream learns no address.

use std::time::Duration;

use reelgate::admission::settings::Rate;
use serde_json::json;

use super::support::{GENERATIONS, Scene, eventually};

/// A scene that lets one submission a day through from each address; loopback is a proxy if asked.
async fn one_a_day(is_trusted: bool) -> Scene {
    Scene::with(|config, _| {
        config.limits.address.generations = Some(Rate { count: 1, per: Duration::from_secs(86_400) });
        if is_trusted {
            config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        }
    })
    .await
}

#[tokio::test]
async fn r70_clients_behind_a_trusted_proxy_are_told_apart() {
    let scene = one_a_day(true).await;
    let from = async |fields: &[(&str, &str)], prompt: &str| {
        scene.post(GENERATIONS, &json!({"prompt": prompt}), fields).await.status
    };
    assert_eq!(from(&[("x-forwarded-for", "192.0.2.1")], "one").await, 200);
    assert_eq!(from(&[("x-forwarded-for", "192.0.2.1")], "two").await, 429);
    assert_eq!(from(&[("x-forwarded-for", "6.6.6.6, 192.0.2.1")], "two").await, 429, "what a client invents");
    assert_eq!(from(&[("forwarded", "for=\"[2001:db8::1]:4711\"")], "two").await, 200);
    assert_eq!(from(&[("x-forwarded-for", "192.0.2.9")], "three").await, 200);
    eventually("the log names the client", async || {
        scene.log.requests().iter().any(|line| line["client.address"] == "192.0.2.9")
    })
    .await;
    let sent = scene.upstream.received();
    assert!(!sent.is_empty());
    for request in sent {
        let head = String::from_utf8_lossy(&request.head).to_ascii_lowercase();
        assert!(!head.contains("forwarded") && !head.contains("192.0.2."), "the upstream learns no address: {head}");
    }
    scene.end().await;
}

#[tokio::test]
async fn r70_without_trust_a_named_address_is_a_word() {
    let scene = one_a_day(false).await;
    for (number, want) in [(1, 200), (2, 429), (3, 429)] {
        let address = format!("192.0.2.{number}");
        let fields = [("x-forwarded-for", address.as_str()), ("x-real-ip", &address)];
        let body = json!({"prompt": format!("prompt {number}")});
        assert_eq!(scene.post(GENERATIONS, &body, &fields).await.status, want, "{number}");
    }
    scene.end().await;
}
