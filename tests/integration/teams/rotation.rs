//! The upstream key changes while jobs run: each is polled with the key that made it, and a retired one makes no more.

use reelgate::simulator::{Fault, Form, Options};
use rustix::process::Signal;
use serde_json::json;

use super::{LAB, STUDIO, bearer, two_teams};
use crate::support::process::Served;
use crate::support::{Answer, Folder, GENERATIONS, ask, eventually, key_is_absent, random_key};

struct Rotating {
    folder: Folder,
    served: Served,
}

impl Rotating {
    async fn start(key: &str) -> Self {
        let folder = Folder::new();
        let (file, text) = (folder.write("key", key), folder.write("reelgate.toml", &two_teams("", "")));
        let environment = [("COMETAPI_KEY", ""), ("REELGATE_UPSTREAM__KEY_FILE", file.to_str().unwrap())];
        let arguments = ["--config", text.to_str().unwrap()];
        let served = Served::start("", Options::default(), &arguments, &environment).await;
        Self { folder, served }
    }

    async fn rotate(&self, key: &str) {
        self.change("key", key).await;
    }

    /// Another text of a file, reloaded.
    async fn change(&self, file: &str, text: &str) {
        let series = "config_reloads_total{result=\"ok\"}";
        let before = self.served.metric(series).await;
        self.folder.write(file, text);
        self.served.program.signal(Signal::HUP);
        eventually("it is reloaded", async || self.served.metric(series).await > before).await;
    }

    async fn submit(&self, credential: &str, prompt: &str) -> Answer {
        let headers = [("content-type", "application/json"), ("authorization", &*bearer(credential))];
        let body = json!({"prompt": prompt}).to_string();
        ask(self.served.address, hyper::Method::POST, GENERATIONS, &headers, &body).await
    }

    async fn poll(&self, credential: &str, id: &str) -> Answer {
        let path = format!("/grok/v1/videos/{id}");
        ask(self.served.address, hyper::Method::GET, &path, &[("authorization", &bearer(credential))], "").await
    }

    /// With which of these keys the last request went upstream.
    fn last_key(&self, keys: &[&str]) -> usize {
        let received = self.served.upstream.received();
        let head = String::from_utf8_lossy(&received.last().unwrap().head).into_owned();
        keys.iter().position(|key| head.contains(&format!("Bearer {key}\r\n"))).expect("none of these keys")
    }
}

#[tokio::test]
async fn f17_jobs_are_polled_with_the_key_that_made_them_and_a_retired_one_makes_none() {
    let keys: Vec<String> = (0..3).map(|_| random_key()).collect();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let gateway = Rotating::start(all[0]).await;
    let first = gateway.submit(STUDIO, "a").await.request_id();
    gateway.rotate(all[1]).await;
    let second = gateway.submit(LAB, "b").await.request_id();
    assert_eq!(gateway.last_key(&all), 1);
    gateway.rotate(all[2]).await;
    for (team, job, key) in [(STUDIO, &first, 0), (LAB, &second, 1)] {
        assert_eq!(gateway.poll(team, job).await.status, 200);
        assert_eq!(gateway.last_key(&all), key);
    }
    gateway.submit(STUDIO, "c").await.request_id();
    assert_eq!(gateway.last_key(&all), 2);
    // Back again: it pays once more.
    gateway.rotate(all[0]).await;
    gateway.submit(STUDIO, "d").await.request_id();
    assert_eq!(gateway.last_key(&all), 0);
    // No retired key is kept any more, though the one that pays stays.
    gateway.change("reelgate.toml", &(two_teams("", "") + "[upstream]\nretired_keys = 0\n")).await;
    assert_eq!(gateway.poll(LAB, &second).await.status, 200);
    assert_eq!(gateway.last_key(&all), 0);
    let output = gateway.served.end().await;
    for key in all {
        key_is_absent(key, "the output", output.as_bytes());
    }
}

#[tokio::test]
async fn a_retired_key_that_the_upstream_refuses_gives_way_to_the_one_that_pays() {
    let (old, new) = (random_key(), random_key());
    let all = [old.as_str(), new.as_str()];
    let gateway = Rotating::start(&old).await;
    let job = gateway.submit(STUDIO, "a").await.request_id();
    gateway.rotate(&new).await;
    gateway.served.upstream.next_poll(Fault::status(401, Form::comet("invalid_api_key")));
    assert_eq!(gateway.poll(STUDIO, &job).await.status, 200);
    assert_eq!(gateway.last_key(&all), 1);
    // It is not asked with again, and says nothing of the one that pays.
    assert_eq!(gateway.poll(STUDIO, &job).await.status, 200);
    assert_eq!(gateway.last_key(&all), 1);
    assert_eq!(gateway.served.metric("degraded{reason=\"upstream_key\"}").await, 0.0);

    // The one that pays, refused, is our fault: told without the upstream's words, and seen.
    gateway.served.upstream.next_submission(Fault::status(401, Form::comet("invalid_api_key")));
    let refused = gateway.submit(LAB, "b").await;
    assert_eq!(refused.refusal(), (502, "upstream_key_refused".to_owned()));
    assert!(!refused.text().contains("invalid_api_key"), "{}", refused.text());
    assert_eq!(gateway.served.metric("degraded{reason=\"upstream_key\"}").await, 1.0);
    assert!(gateway.served.admin("/readyz").await.text().contains("upstream_key"));
    let running = gateway.submit(LAB, "b").await.request_id();
    assert_eq!(gateway.served.metric("degraded{reason=\"upstream_key\"}").await, 0.0);

    // That a retired key still works heals nothing.
    gateway.rotate(&random_key()).await;
    gateway.served.upstream.next_submission(Fault::status(401, Form::comet("invalid_api_key")));
    assert_eq!(gateway.submit(LAB, "c").await.status, 502);
    assert_eq!(gateway.poll(LAB, &running).await.status, 200);
    assert_eq!(gateway.last_key(&all), 1);
    assert_eq!(gateway.served.metric("degraded{reason=\"upstream_key\"}").await, 1.0);
    gateway.served.end().await;
}
