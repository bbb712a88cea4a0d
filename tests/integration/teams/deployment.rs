//! The program as a deployment runs it: with a configuration file and a ledger on disk.

use hyper::Method;
use reelgate::simulator::Options;
use rustix::process::Signal;
use serde_json::json;

use super::bearer;
use crate::support::process::Served;
use crate::support::{Answer, Folder, GENERATIONS, ask, eventually, random_key};

/// The program with two teams, over a ledger on disk.
pub(super) struct Deployment {
    folder: Folder,
    key: String,
    pub(super) served: Served,
}

impl Deployment {
    /// Starts it with this configuration file.
    pub(super) async fn start(text: &str) -> Self {
        let (folder, key) = (Folder::new(), random_key());
        folder.write("reelgate.toml", text);
        let options = Options { key: Some(key.clone()), ..Options::default() };
        let served = serve(&folder, &key, options).await;
        Self { folder, key, served }
    }

    /// Posts a body.
    pub(super) async fn ask(&self, credential: &str, path: &str, body: &serde_json::Value) -> Answer {
        let headers = [("content-type", "application/json"), ("authorization", &*bearer(credential))];
        ask(self.served.address, Method::POST, path, &headers, &body.to_string()).await
    }

    /// A token for alice.
    pub(super) async fn token(&self, credential: &str) -> String {
        let answer = self.ask(credential, "/grok/v1/client_tokens", &json!({"user": "alice"})).await;
        answer.json()["token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    }

    /// Submits a prompt.
    pub(super) async fn submit(&self, credential: &str, prompt: &str) -> Answer {
        self.ask(credential, GENERATIONS, &json!({"prompt": prompt})).await
    }

    /// Polls a job.
    pub(super) async fn poll(&self, credential: &str, id: &str) -> Answer {
        let headers = [("authorization", &*bearer(credential))];
        ask(self.served.address, Method::GET, &format!("/grok/v1/videos/{id}"), &headers, "").await
    }

    /// Starts it anew, once it has ended, in front of another upstream.
    pub(super) async fn again(&mut self, options: Options) {
        self.served.program.ended().await;
        self.served = serve(&self.folder, &self.key, Options { key: Some(self.key.clone()), ..options }).await;
    }

    /// The status of a submission.
    pub(super) async fn status(&self, credential: &str) -> u16 {
        self.ask(credential, GENERATIONS, &json!({"prompt": "a candle"})).await.status
    }

    /// Brings another configuration file into force.
    pub(super) async fn reload(&self, text: &str) {
        let series = "config_reloads_total{result=\"ok\"}";
        let before = self.served.metric(series).await;
        self.folder.write("reelgate.toml", text);
        self.served.program.signal(Signal::HUP);
        eventually("the reload is done", async || self.served.metric(series).await > before).await;
    }
}

async fn serve(folder: &Folder, key: &str, options: Options) -> Served {
    let (file, data) = (folder.path("reelgate.toml"), folder.path("data"));
    let environment = [("REELGATE_LEDGER__KIND", "disk"), ("REELGATE_LEDGER__PATH", data.to_str().unwrap())];
    Served::start(key, options, &["--config", file.to_str().unwrap()], &environment).await
}
