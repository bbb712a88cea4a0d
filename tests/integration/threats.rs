//! What the hardening catalogue's threat model asks for and no other file holds: addresses in a body are data (T-70), bodies take
//! memory by their bytes (T-60, T-66), and this crate has no `unsafe` of its own (T-76).

use std::fs;
use std::net::TcpListener;

use hyper::Method;
use reelgate::simulator::Options;
use serde_json::json;

use super::support::process::Served;
use super::support::{EDITS, GENERATIONS, Scene, ask, random_key};

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

/// Bodies of about so many bytes that are made to cost more than they weigh, and what becomes of them.
fn bombs(bytes: usize) -> Vec<(&'static str, String)> {
    let object = |fields: String| format!("{{{fields}}}");
    let many =
        |piece: &dyn Fn(usize) -> String, each: usize| (0..bytes / each).map(piece).collect::<Vec<_>>().join(",");
    vec![
        ("depth", "[".repeat(bytes)),
        ("objects in objects", "{\"a\":".repeat(bytes / 5)),
        ("fields", object(many(&|number| format!("\"k{number:07}\":0"), 13))),
        ("numbers", object(format!("\"prompt\":\"a\",\"n\":[{}]", many(&|_| "0".to_owned(), 2)))),
        ("escapes", object(format!("\"prompt\":\"{}\"", "\\u0041".repeat(bytes / 6)))),
        ("one string", object(format!("\"prompt\":\"{}\"", "a".repeat(bytes)))),
        ("digits", object(format!("\"prompt\":\"a\",\"seed\":{}", "9".repeat(bytes)))),
    ]
}

#[tokio::test]
async fn t60_t66_a_body_takes_a_few_times_its_bytes_whatever_is_in_it() {
    const BYTES: usize = 4 << 20;
    let key = random_key();
    let options = Options { key: Some(key.clone()), ..Options::default() };
    let served = Served::start(&key, options, &[], &[("REELGATE_LIMITS__ADDRESS__REQUESTS", "off")]).await;
    let process = async |name: &str| -> f64 {
        let text = served.admin("/metrics").await.text();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    for (what, body) in bombs(BYTES) {
        let before = process("process_resident_memory_bytes ").await;
        let cpu = process("process_cpu_seconds_total ").await;
        for _ in 0..4 {
            let headers = [("content-type", "application/json")];
            let answer = ask(served.address, Method::POST, GENERATIONS, &headers, &body).await;
            assert!(answer.status == 400 || what == "one string" || what == "escapes", "{what}: {}", answer.status);
        }
        let grown = process("process_resident_memory_bytes ").await - before;
        let cpu = (process("process_cpu_seconds_total ").await - cpu) * 1e9 / (4 * BYTES) as f64;
        // For people: `--nocapture` shows what a byte costs, and no time is asserted.
        eprintln!("{what}: {cpu:.0} ns a byte, {grown} bytes kept of {BYTES}");
        // Four went by one after the other; what one took is given back or used again by the next.
        assert!(grown < 8.0 * BYTES as f64, "{what}: {grown} bytes for {BYTES}");
    }
    served.end().await;
}
