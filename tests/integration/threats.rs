//! What the hardening catalogue's threat model asks for and no other file holds: addresses in a body are data (T-70), and
//! this crate has no `unsafe` of its own (T-76).

use std::fs;
use std::net::TcpListener;

use serde_json::json;

use super::support::{EDITS, GENERATIONS, Scene};

#[tokio::test]
async fn t70_addresses_in_a_body_are_passed_on_and_never_asked() {
    let scene = Scene::start().await;
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let url = format!("http://{}/latest/meta-data", inside.local_addr().unwrap());
    let image = json!({"prompt": "a", "image": {"url": url}});
    let video = json!({"prompt": "a", "video": {"url": url}});
    for (path, body) in [(GENERATIONS, image), (EDITS, video)] {
        let id = scene.post(path, &body, &[]).await.request_id();
        scene.poll_until(&id, "\"done\"").await;
    }
    for received in scene.upstream.received().iter().filter(|received| received.method == "POST") {
        assert!(String::from_utf8_lossy(&received.body).contains(&url), "the upstream gets it as it was sent");
    }
    assert!(inside.accept().is_err(), "somebody has asked it");
    scene.end().await;
}

#[test]
fn t76_unsafe_code_is_forbidden_here() {
    let manifest: toml::Table = toml::from_str(&fs::read_to_string("Cargo.toml").unwrap()).unwrap();
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    // Only what is built by `cargo test` has these lints; no file may switch them off by itself.
    let mut folders = vec!["src".into(), std::path::PathBuf::from("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let switch = ["allow(", "unsafe_code)"].concat();
                assert!(!text.contains(&switch), "{}", entry.display());
            }
        }
    }
}
