//! A change of the key by which prompts have their names (`MONEY.md` M9): what was bought or is held under the former one
//! is not bought again, on disk and in Redis; and replicas that do not agree on it do not begin.

use std::time::Duration;

use reelgate::simulator::{Fault, Form, Options, Simulator};
use serde_json::json;

use super::support::process::Program;
use super::support::redis::{RedisServer, Replica};
use super::support::{Folder, eventually, random_key};

const FIRST: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const THIRD: &str = "3333333333333333333333333333333333333333333333333333333333333333";

/// With this key from the environment.
fn keyed(key: &str) -> [(&'static str, &str); 2] {
    [("REELGATE_DEDUP__KEY_ENV", "THE_KEY"), ("THE_KEY", key)]
}

/// And with this one before it.
fn after<'a>(key: &'a str, former: &'a str) -> [(&'static str, &'a str); 4] {
    let [first, second] = keyed(key);
    [first, second, ("REELGATE_DEDUP__FORMER_KEY_ENV", "FORMER"), ("FORMER", former)]
}

/// One gateway after the other over the same ledger.
struct Scene {
    upstream: Simulator,
    key: String,
    url: String,
}

impl Scene {
    async fn start(url: String) -> Self {
        let key = random_key();
        let options = Options { key: Some(key.clone()), job_duration: Duration::from_millis(50), ..Options::default() };
        Self { upstream: Simulator::start(options).await.unwrap(), key, url }
    }

    async fn gateway(&self, more: &[(&str, &str)]) -> Replica {
        Replica::start(&self.upstream, &self.key, &self.url, more).await
    }

    /// Buys one, leaves another unknown, and keys a third.
    async fn buy(&self, gateway: &Replica) -> (String, String) {
        let id = gateway.submit("a candle").await.request_id();
        self.upstream.next_submission(Fault::status(500, Form::Html));
        assert_eq!(gateway.submit("a lamp").await.status, 502);
        let keyed = gateway.submit_with(&json!({"prompt": "a torch"}), &[("idempotency-key", "k-1")]).await;
        (id, keyed.request_id())
    }

    /// All of that is as it was.
    async fn stands(&self, gateway: &Replica, (id, keyed): &(String, String)) {
        let posts = self.upstream.posts();
        assert_eq!(gateway.submit("a candle").await.request_id(), *id);
        assert_eq!(gateway.submit("a lamp").await.refusal(), (409, "outcome_unknown".to_owned()));
        let again = gateway.submit_with(&json!({"prompt": "a torch"}), &[("idempotency-key", "k-1")]).await;
        assert_eq!(again.request_id(), *keyed);
        let reused = gateway.submit_with(&json!({"prompt": "another"}), &[("idempotency-key", "k-1")]).await;
        assert_eq!(reused.refusal(), (422, "idempotency_key_reused".to_owned()));
        assert_eq!(self.upstream.posts(), posts, "nothing is bought again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_after_a_change_of_key_what_the_file_knows_under_the_former_one_blocks_as_before() {
    let folder = Folder::new();
    let path = folder.path("data");
    let on_disk = [("REELGATE_LEDGER__KIND", "disk"), ("REELGATE_LEDGER__PATH", path.to_str().unwrap())];
    let scene = Scene::start(String::new()).await;
    // From the file's own key to the environment's, and again with the same one: the file remembers the change.
    let gateway = scene.gateway(&on_disk).await;
    let bought = scene.buy(&gateway).await;
    gateway.end().await;
    for _ in 0..2 {
        let gateway = scene.gateway(&[&on_disk[..], &keyed(FIRST)].concat()).await;
        scene.stands(&gateway, &bought).await;
        gateway.end().await;
    }
    let gateway = scene.gateway(&[&on_disk[..], &keyed(FIRST)].concat()).await;
    let posts = scene.upstream.posts();
    let new = gateway.submit("a new one").await.request_id();
    assert_eq!((scene.upstream.posts(), gateway.submit("a new one").await.request_id()), (posts + 1, new.clone()));
    let output = gateway.end().await;
    assert!(!output.contains(FIRST));
    // From one of the environment's to another.
    let gateway = scene.gateway(&[&on_disk[..], &keyed(SECOND)].concat()).await;
    assert_eq!(gateway.submit("a new one").await.request_id(), new);
    assert_eq!(scene.upstream.posts(), posts + 1);
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_replicas_over_redis_change_their_key_together_and_none_begins_with_a_strange_one() {
    let redis = RedisServer::start().await;
    let scene = Scene::start(redis.url()).await;
    // From the key that stands in Redis to the environment's.
    let stored = scene.gateway(&[]).await;
    let bought = scene.buy(&stored).await;
    stored.end().await;
    let first = scene.gateway(&keyed(FIRST)).await;
    scene.stands(&first, &bought).await;
    let new = first.submit("a new one").await.request_id();
    // Redis forgets everything, that id too, and is told again.
    redis.cli(&["FLUSHALL"]);
    eventually("the prompt is known again", async || {
        first.submit("a new one").await.header("cache-status").contains("; hit;")
    })
    .await;

    // Who does not know the key in use would buy everything again.
    let url = redis.url();
    for (more, told) in [(&keyed(SECOND)[..], "dedup.former_key_env"), (&[], "dedup.key_env is not set")] {
        let all = [
            ("COMETAPI_KEY", "k"),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            ("REELGATE_LEDGER__KIND", "redis"),
            ("REELGATE_REDIS_URL", url.as_str()),
        ];
        let (status, output) = Program::run(&["serve"], &[&all[..], more].concat()).await;
        assert!(status == 1 && output.contains(told), "{status}: {output}");
        assert!(!output.contains(SECOND), "{output}");
    }
    first.end().await;

    // Two that run beside each other, each with the other's as its former one: a change without a pause.
    let (one, other) = (scene.gateway(&after(FIRST, THIRD)).await, scene.gateway(&after(THIRD, FIRST)).await);
    let posts = scene.upstream.posts();
    assert_eq!(other.submit("a new one").await.request_id(), new);
    let newer = other.submit("a newer one").await.request_id();
    assert_eq!(one.submit("a newer one").await.request_id(), newer);
    assert_eq!(scene.upstream.posts(), posts + 1);
    for gateway in [one, other] {
        gateway.end().await;
    }
}
