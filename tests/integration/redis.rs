//! Several replicas over one Redis (`MONEY.md` M2–M6, M25, M26; F-24, F-50 to F-58): the program itself, more than once.

mod back;
mod keys;
mod slow;

use std::time::Duration;

use reelgate::simulator::{Fault, Options, Simulator};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::support::process::Program;
use super::support::redis::{RedisServer, Replica};
use super::support::{Authority, Folder, SOON, TlsFront, eventually, key_is_absent, random_key, together};

/// Some replicas over one Redis and one upstream.
struct Fleet {
    upstream: Simulator,
    redis: RedisServer,
    key: String,
    replicas: Vec<Replica>,
}

impl Fleet {
    async fn start(replicas: usize, options: Options, more: &[(&str, &str)]) -> Self {
        Self::over(RedisServer::start().await, replicas, options, more).await
    }

    async fn over(redis: RedisServer, replicas: usize, options: Options, more: &[(&str, &str)]) -> Self {
        let key = random_key();
        let upstream = Simulator::start(Options { key: Some(key.clone()), ..options }).await.unwrap();
        let mut fleet = Self { upstream, redis, key, replicas: Vec::new() };
        for _ in 0..replicas {
            fleet.add(more).await;
        }
        fleet
    }

    async fn add(&mut self, more: &[(&str, &str)]) {
        let replica = Replica::start(&self.upstream, &self.key, &self.redis.url(), more).await;
        self.replicas.push(replica);
    }

    /// Ends it; no key and no prompt was kept or said.
    async fn end(self) {
        let contents = self.redis.contents();
        key_is_absent(&self.key, "redis", contents.as_bytes());
        assert!(!contents.contains("a secret prompt"), "a prompt is in redis");
        for replica in self.replicas {
            key_is_absent(&self.key, "an output", replica.end().await.as_bytes());
        }
    }
}

fn quick() -> Options {
    Options { job_duration: Duration::from_millis(50), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_bought_by_one_replica_is_a_hit_on_all_and_after_a_restart() {
    let mut fleet = Fleet::start(2, quick(), &[]).await;
    let bought = fleet.replicas[0].submit("a secret prompt").await;
    let id = bought.request_id();
    assert_eq!(bought.header("cache-status"), "reelgate; fwd=miss; stored");
    let hit = fleet.replicas[1].submit("a secret prompt").await;
    assert_eq!(hit.request_id(), id);
    assert!(hit.header("cache-status").starts_with("reelgate; hit; ttl="), "{}", hit.header("cache-status"));
    // The end that one replica's poll shows is the end for all.
    eventually("done", async || fleet.replicas[1].poll(&id).await.text().contains("\"done\"")).await;
    fleet.add(&[]).await;
    assert_eq!(fleet.replicas[2].submit("a secret prompt").await.request_id(), id);
    assert_eq!(fleet.upstream.posts(), 1);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f24_a_thousand_at_once_over_three_replicas_make_one_job() {
    let options = Options { answer_delay: Duration::from_secs(1), ..quick() };
    // On a machine that does much else a question to Redis may take long behind a thousand others.
    let fleet = Fleet::start(3, options, &[("REELGATE_LEDGER__TIMEOUT", "10s")]).await;
    let body = json!({"prompt": "one for all"});
    let all = (0..1000).map(|number| {
        let replica = &fleet.replicas[number % 3];
        replica.submit_with(&body, &[])
    });
    let answers = together(all).await;
    let id = answers[0].request_id();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.request_id(), id);
    }
    assert_eq!(fleet.upstream.posts(), 1);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_job_frees_its_prompt_on_all_replicas() {
    let fleet = Fleet::start(2, quick(), &[]).await;
    let id = fleet.replicas[0].submit("one").await.request_id();
    let failed = reelgate::simulator::End::Failed { code: "internal_error".to_owned(), message: "no".to_owned() };
    assert!(fleet.upstream.finish(&id, failed));
    assert!(fleet.replicas[1].poll(&id).await.text().contains("failed"));
    let again = fleet.replicas[0].submit("one").await.request_id();
    assert_ne!(again, id);
    assert_eq!(fleet.upstream.posts(), 2);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_f54_a_replica_that_dies_while_it_sends_leaves_the_prompt_held() {
    let more = [("REELGATE_LEDGER__LEASE", "2s"), ("REELGATE_DEDUP__UNKNOWN_HOLD", "5m")];
    let mut fleet = Fleet::start(2, quick(), &more).await;
    fleet.upstream.next_submission(Fault::Stall);
    let dies = async { fleet.replicas[0].submit("one").await };
    tokio::select! {
        _ = dies => panic!("the upstream never answers"),
        () = eventually("it is sent", async || fleet.upstream.posts() == 1) => {}
    }
    fleet.replicas[0].program.signal(Signal::KILL);
    fleet.replicas[0].program.ended().await;
    fleet.replicas.remove(0);
    eventually("held when the lease has lapsed", async || {
        let answer = fleet.replicas[0].submit_with(&json!({"prompt": "one"}), &[]).await;
        answer.status == 409
    })
    .await;
    assert_eq!(fleet.upstream.posts(), 1);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_f54_a_post_that_takes_longer_than_its_lease_is_one_post_for_all() {
    let more = [
        ("REELGATE_LEDGER__LEASE", "3s"),
        ("REELGATE_LEDGER__SEND_BY", "500ms"),
        ("REELGATE_DEDUP__UNKNOWN_HOLD", "5m"),
    ];
    let fleet = Fleet::start(2, quick(), &more).await;
    fleet.upstream.next_submission(Fault::Delay(Duration::from_secs(7)));
    let mut longest = Duration::ZERO;
    let later = async {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(50)).await;
            longest = longest.max(before.elapsed());
        }
        fleet.replicas[1].submit("one").await
    };
    let (first, second) = tokio::join!(fleet.replicas[0].submit("one"), later);
    assert_eq!(fleet.upstream.posts(), 1);
    // A machine that slept may have let the lease lapse: then the twin is held.
    let slept = longest > Duration::from_secs(1);
    assert!(second.status == 200 || slept && second.status == 409, "{longest:?}: {}", second.text());
    if second.status == 200 {
        assert_eq!(second.request_id(), first.request_id());
    }
    assert_eq!(fleet.replicas[1].submit("one").await.request_id(), first.request_id(), "the late result is kept");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_f54_f62_a_replica_frozen_before_it_sends_posts_nothing_when_it_wakes() {
    let more = [("REELGATE_LEDGER__LEASE", "2s"), ("REELGATE_LEDGER__SEND_BY", "500ms")];
    let fleet = Fleet::start(2, quick(), &more).await;
    // Many times, so that some freezes fall between claim and send.
    for round in 0..6 {
        let prompt = format!("prompt {round}");
        let freezes = fleet.replicas[0].submit(&prompt);
        let freeze = async {
            tokio::time::sleep(Duration::from_micros(300 * round)).await;
            fleet.replicas[0].program.signal(Signal::STOP);
        };
        let woken = async {
            freeze.await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let successor = fleet.replicas[1].submit(&prompt).await;
            fleet.replicas[0].program.signal(Signal::CONT);
            successor
        };
        let (first, second) = tokio::join!(freezes, woken);
        let received = fleet.upstream.received();
        let wanted = format!("\"{prompt}\"");
        let posts = received.iter().filter(|received| String::from_utf8_lossy(&received.body).contains(&wanted));
        assert!(posts.count() <= 1, "{prompt}: {} {}", first.status, second.status);
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_user_hold_over_all_replicas() {
    let more = [("REELGATE_LIMITS__USER__GENERATIONS", "5/day"), ("REELGATE_LIMITS__USER__REQUESTS", "30/day")];
    let fleet = Fleet::start(3, quick(), &more).await;
    let bodies: Vec<_> = (0..60).map(|number| json!({"prompt": format!("p{number}"), "user": "ada"})).collect();
    let all = bodies.iter().enumerate().map(|(number, body)| fleet.replicas[number % 3].submit_with(body, &[]));
    let answers = together(all).await;
    let created = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, fleet.upstream.posts()), (5, 5));
    let refused = |limit: &str| {
        answers.iter().filter(|answer| answer.status == 429 && answer.json()["error"]["param"] == limit).count()
    };
    assert_eq!((refused("user.generations"), refused("user.requests")), (25, 30));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r62_a_dry_run_counts_in_the_limit_of_all_replicas() {
    let fleet = Fleet::start(2, quick(), &[("REELGATE_LIMITS__USER__REQUESTS", "3/day")]).await;
    let body = json!({"prompt": "one", "user": "ada"});
    for (number, left) in [2, 1, 0].iter().enumerate() {
        let answer = fleet.replicas[number % 2].submit_with(&body, &[("reelgate-dry-run", "1")]).await;
        assert!(answer.header("ratelimit").starts_with(&format!("\"user.requests\";r={left};t=")), "{left}");
    }
    for replica in &fleet.replicas {
        let refused = replica.submit_with(&body, &[("reelgate-dry-run", "1")]).await;
        assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
        assert_eq!(refused.header("ratelimit"), format!("\"user.requests\";r=0;t={}", refused.header("retry-after")));
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m29_budgets_hold_over_all_replicas() {
    let more = [("REELGATE_BUDGETS__TEAM__PER_DAY", "1.00")];
    let fleet = Fleet::start(3, quick(), &more).await;
    let bodies: Vec<_> = (0..40).map(|number| json!({"prompt": format!("p{number}"), "duration": 2})).collect();
    let all = bodies.iter().enumerate().map(|(number, body)| fleet.replicas[number % 3].submit_with(body, &[]));
    let answers = together(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 10, "a dollar holds ten of ten cents");
    assert_eq!(answers.iter().filter(|answer| answer.status == 402).count(), 30);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_f51_f53_without_redis_polls_and_hits_go_on_and_new_ones_are_503_until_it_is_back() {
    let more = [("REELGATE_LEDGER__TIMEOUT", "200ms")];
    let mut fleet = Fleet::start(1, quick(), &more).await;
    let id = fleet.replicas[0].submit("one").await.request_id();
    for frozen in [true, false] {
        if frozen {
            fleet.redis.signal(Signal::STOP);
        } else {
            fleet.redis.kill();
        }
        let replica = &fleet.replicas[0];
        let refused = tokio::time::timeout(SOON, replica.submit(&format!("two {frozen}"))).await.unwrap();
        assert_eq!(refused.refusal(), (503, "ledger_unavailable".to_owned()));
        let hit = tokio::time::timeout(SOON, replica.submit("one")).await.unwrap();
        assert_eq!(hit.request_id(), id);
        eventually("hits say that nobody could be asked", async || {
            replica.submit("one").await.header("cache-status").ends_with("; detail=ledger-unavailable")
        })
        .await;
        assert_eq!(replica.poll(&id).await.status, 200);
        assert_eq!(replica.metric("degraded{reason=\"ledger\"}").await, 1.0);
        if frozen {
            fleet.redis.signal(Signal::CONT);
        } else {
            fleet.redis.again().await;
        }
        eventually("it is back", async || replica.submit(&format!("two {frozen}")).await.status == 200).await;
        replica.metric_becomes("degraded{reason=\"ledger\"}", 0.0).await;
    }
    assert_eq!(fleet.upstream.posts(), 3);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_m12_an_id_whose_write_takes_too_long_is_written_when_redis_goes_on() {
    // Redis is slow, and never so slow that a question to it fails.
    let fleet = Fleet::start(1, quick(), &[("REELGATE_LEDGER__TIMEOUT", "30s")]).await;
    fleet.upstream.next_submission(Fault::Delay(Duration::from_secs(1)));
    let freeze = async {
        eventually("it is sent", async || fleet.upstream.posts() == 1).await;
        fleet.redis.signal(Signal::STOP);
    };
    let (bought, ()) = tokio::join!(fleet.replicas[0].submit("one"), freeze);
    let id = bought.request_id();
    fleet.redis.signal(Signal::CONT);
    eventually("it is written", async || fleet.redis.cli(&["ZCARD", "reelgate:in:accepted:open"]) == "1").await;
    assert_eq!(fleet.redis.cli(&["EXISTS", &format!("reelgate:j:{id}")]), "1");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m26_f57_when_redis_forgets_nothing_is_bought_twice() {
    let mut fleet = Fleet::start(2, quick(), &[]).await;
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(fleet.replicas[number % 2].submit(&format!("p{number}")).await.request_id());
    }
    fleet.redis.cli(&["FLUSHALL"]);
    let hits: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
    let answers =
        together(hits.iter().enumerate().map(|(number, prompt)| fleet.replicas[(number + 1) % 2].submit(prompt))).await;
    for (answer, id) in answers.iter().zip(&ids) {
        assert_eq!((answer.status, answer.request_id()), (200, id.clone()), "{}", answer.text());
    }
    fleet.add(&[]).await;
    assert_eq!(fleet.replicas[2].submit("p3").await.request_id(), ids[3], "the fingerprints' key is back too");
    assert_eq!(fleet.upstream.posts(), 10);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f55_what_redis_refuses_is_counted_by_kind() {
    let fleet = Fleet::start(1, quick(), &[]).await;
    let replica = &fleet.replicas[0];
    let id = replica.submit("one").await.request_id();
    for (set, unset, kind) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "full"),
        (["CONFIG", "SET", "min-replicas-to-write", "3"], ["CONFIG", "SET", "min-replicas-to-write", "0"], "other"),
    ] {
        fleet.redis.cli(&set);
        assert_eq!(replica.submit(&format!("two {kind}")).await.refusal(), (503, "ledger_unavailable".to_owned()));
        assert!(replica.metric(&format!("ledger_failures_total{{reason=\"{kind}\"}}")).await >= 1.0, "{kind}");
        assert_eq!(replica.poll(&id).await.status, 200);
        fleet.redis.cli(&unset);
        eventually("it is back", async || replica.submit(&format!("two {kind}")).await.status == 200).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f56_a_value_that_is_not_ours_holds_its_prompt() {
    let fleet = Fleet::start(1, quick(), &[]).await;
    let replica = &fleet.replicas[0];
    let id = replica.submit("one").await.request_id();
    let keys = fleet.redis.cli(&["KEYS", "reelgate:e:*"]);
    for value in ["", "nonsense", "1 {}", "2 00", "1 00000000000000000000000000000000{\"state\":\"claimed\"}"] {
        fleet.redis.cli(&["SET", &keys, value]);
        let answer = replica.submit("one").await;
        assert_eq!(answer.refusal(), (409, "outcome_unknown".to_owned()), "{value:?}");
    }
    assert_eq!(fleet.upstream.posts(), 1);
    assert_eq!(replica.poll(&id).await.status, 200);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_by_tls_and_with_its_password() {
    let key = random_key();
    let upstream = Simulator::start(Options { key: Some(key.clone()), ..quick() }).await.unwrap();
    let redis = RedisServer::with(&["--requirepass", "a-password"]).await;
    let (authority, folder) = (Authority::new(), Folder::new());
    let (to, roots) = (redis.address(), folder.write("roots.pem", &authority.pem()));
    let front = TlsFront::start(authority.acceptor("localhost", 2100), move || to).await;
    let url = front.origin().replace("https://", "rediss://:a-password@");
    let more = [("REELGATE_LEDGER__REDIS_ROOTS", roots.to_str().unwrap())];
    let replica = Replica::start(&upstream, &key, &url, &more).await;
    let id = replica.submit("one").await.request_id();
    assert_eq!(replica.submit("one").await.request_id(), id);
    let output = replica.end().await;
    assert!(!output.contains("a-password"), "the password is in the log");

    // Another authority's certificate, or no password: it does not begin, and says why without the URL.
    let environment = |url: &str, roots: &str| {
        vec![
            ("COMETAPI_KEY", key.clone()),
            ("REELGATE_LEDGER__KIND", "redis".to_owned()),
            ("REELGATE_REDIS_URL", url.to_owned()),
            ("REELGATE_LEDGER__REDIS_ROOTS", roots.to_owned()),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ]
    };
    let stranger = folder.write("stranger.pem", &Authority::new().pem());
    let plain = redis.url();
    for (url, roots, why) in [
        (url.as_str(), stranger.to_str().unwrap(), "redis cannot be used"),
        (plain.as_str(), "", "redis cannot be used (denied)"),
        ("http://:a-password@localhost", "", "cannot be used: expected a URL such as redis:"),
    ] {
        let environment = environment(url, roots);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, output) = Program::run(&["serve"], &environment).await;
        assert_ne!(status, 0);
        assert!(output.contains(why) && !output.contains("a-password"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m26_f57_a_replica_that_is_idle_puts_back_what_it_knows_before_others_claim() {
    let mut fleet = Fleet::start(1, quick(), &[]).await;
    let id = fleet.replicas[0].submit("one").await.request_id();
    fleet.add(&[]).await;
    fleet.redis.cli(&["FLUSHALL"]);
    // Only the new replica is asked, and it has never heard of the prompt.
    assert_eq!(fleet.replicas[1].submit("one").await.request_id(), id);
    assert_eq!(fleet.upstream.posts(), 1);
    fleet.end().await;
}
