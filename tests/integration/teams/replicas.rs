//! Teams over several replicas and one Redis: a token of one is a token of all, and so are owners and limits.

use hyper::Method;
use reelgate::simulator::{Options, Simulator};
use serde_json::{Value, json};

use super::{LAB, MODE, STUDIO, bearer, key, team, two_teams};
use crate::support::process::Program;
use crate::support::redis::RedisServer;
use crate::support::{Answer, Folder, GENERATIONS, ask, random_key, together};

pub(super) struct Replicas {
    pub(super) upstream: Simulator,
    redis: RedisServer,
    _folder: Folder,
    running: Vec<(Program, std::net::SocketAddr)>,
}

impl Replicas {
    pub(super) async fn start(text: &str) -> Self {
        let (key, folder, redis) = (random_key(), Folder::new(), RedisServer::start().await);
        let upstream = Simulator::start(Options { key: Some(key.clone()), ..Options::default() }).await.unwrap();
        let (file, origin, url) = (folder.write("reelgate.toml", text), upstream.origin(), redis.url());
        let environment = [
            ("COMETAPI_KEY", key.as_str()),
            ("REELGATE_UPSTREAM__URL", &origin),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            ("REELGATE_SERVER__WORKERS", "2"),
            ("REELGATE_LEDGER__KIND", "redis"),
            ("REELGATE_REDIS_URL", &url),
            // A loaded machine may be slow.
            ("REELGATE_LEDGER__TIMEOUT", "1s"),
        ];
        let mut running = Vec::new();
        for _ in 0..2 {
            let mut program = Program::start(&["serve", "--config", file.to_str().unwrap()], &environment);
            let (address, _) = program.serving().await;
            running.push((program, address));
        }
        Self { upstream, redis, _folder: folder, running }
    }

    pub(super) async fn post(&self, replica: usize, credential: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("authorization", &*bearer(credential))];
        ask(self.running[replica].1, Method::POST, path, &headers, &body.to_string()).await
    }

    async fn submit(&self, replica: usize, credential: &str, prompt: &str) -> Answer {
        self.post(replica, credential, GENERATIONS, &json!({"prompt": prompt})).await
    }

    async fn poll(&self, replica: usize, credential: &str, id: &str) -> u16 {
        let headers = [("authorization", &*bearer(credential))];
        ask(self.running[replica].1, Method::GET, &format!("/grok/v1/videos/{id}"), &headers, "").await.status
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m31_owners_and_tokens_are_the_same_on_every_replica() {
    let off = "[limits.user]\ngenerations = \"off\"\n";
    let text = two_teams("", "") + "[dedup]\nscope = \"global\"\n[polls]\nownership = \"user\"\n" + off;
    let fleet = Replicas::start(&text).await;
    let mut tokens = Vec::new();
    for (replica, user) in [(0, "alice"), (1, "bob")] {
        let made = fleet.post(replica, STUDIO, "/grok/v1/client_tokens", &json!({"user": user})).await;
        tokens.push(made.json()["token"].as_str().unwrap().to_owned());
    }
    let [alice, bob] = [tokens[0].as_str(), tokens[1].as_str()];
    let job = fleet.submit(1, alice, "a candle").await.request_id();
    for replica in 0..2 {
        let seen = [alice, bob, STUDIO, LAB].map(|who| fleet.poll(replica, who, &job));
        let [alice, bob, studio, lab] = seen;
        assert_eq!((alice.await, bob.await, studio.await, lab.await), (200, 404, 200, 404), "on {replica}");
    }
    // Whoever meets it on one replica owns it on the other, which remembers the job without that owner.
    assert_eq!(fleet.submit(0, LAB, "a candle").await.request_id(), job);
    assert_eq!((fleet.poll(1, LAB, &job).await, fleet.poll(0, LAB, &job).await), (200, 200));
    assert_eq!(fleet.submit(1, bob, "a candle").await.request_id(), job);
    assert_eq!((fleet.poll(0, bob, &job).await, fleet.poll(1, bob, &job).await), (200, 200));
    assert_eq!(fleet.upstream.posts(), 1);
    let contents = fleet.redis.contents();
    for secret in ["alice", "bob", "rg_", "rgt_"] {
        assert!(!contents.contains(secret), "{secret} is in redis");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_a_teams_own_limits_hold_over_replicas() {
    let studio = "limits.team.generations = \"4/day\"\nlimits.user.generations = \"off\"";
    let lab = "limits.user.generations = \"3/day\"";
    let fleet = Replicas::start(&two_teams(studio, lab)).await;
    let prompts: Vec<String> = (0..40).map(|number| format!("prompt {number}")).collect();
    let asked = prompts.iter().enumerate().map(|(number, prompt)| {
        let key = if number % 4 < 2 { STUDIO } else { LAB };
        fleet.submit(number % 2, key, prompt)
    });
    let answers = together(asked).await;
    let created = |of_studio: bool| {
        let of_team = answers.iter().enumerate().filter(|(number, _)| (number % 4 < 2) == of_studio);
        of_team.filter(|(_, answer)| answer.status == 200).count()
    };
    assert_eq!((created(true), created(false)), (4, 3));
    assert_eq!(fleet.upstream.posts(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_without_redis_one_teams_polls_go_on_at_a_replica_that_did_not_make_the_job() {
    let text = [MODE, &team("studio", &[key("one", STUDIO, "")], "")].concat();
    let mut fleet = Replicas::start(&text).await;
    let id = fleet.submit(0, STUDIO, "a candle").await.request_id();
    fleet.redis.kill();
    for replica in [0, 1] {
        assert_eq!(fleet.poll(replica, STUDIO, &id).await, 200, "at {replica}");
    }
    fleet.redis.again().await;
    assert_eq!(fleet.poll(1, STUDIO, &id).await, 200);
}
