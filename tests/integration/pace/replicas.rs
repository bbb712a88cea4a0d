//! One pace for all replicas over one Redis (`MONEY.md` M27): no more is sent than by one, and each has its share.

use std::time::Duration;

use reelgate::simulator::{Fault, Options, Simulator};
use serde_json::json;
use tokio::time::Instant;

use crate::support::redis::{RedisServer, Replica};
use crate::support::{Answer, eventually, random_key, together};

struct Fleet {
    upstream: Simulator,
    redis: RedisServer,
    replicas: Vec<Replica>,
}

impl Fleet {
    async fn start(count: usize, pace: &str) -> Self {
        let (key, redis) = (random_key(), RedisServer::start().await);
        let upstream = Simulator::start(Options { key: Some(key.clone()), ..Options::default() }).await.unwrap();
        let more = [("REELGATE_UPSTREAM__PACE", pace), ("REELGATE_UPSTREAM__QUEUE_WAIT", "60s")];
        let mut replicas = Vec::new();
        for _ in 0..count {
            replicas.push(Replica::start(&upstream, &key, &redis.url(), &more).await);
        }
        Self { upstream, redis, replicas }
    }

    async fn submit(&self, replica: usize, user: &str, prompt: &str) -> Answer {
        self.replicas[replica].submit_with(&json!({"prompt": prompt, "user": user}), &[]).await
    }

    /// How long after `begun` each submission had come, and its body, in the order in which they came.
    fn arrivals(&self, begun: Instant) -> Vec<(Duration, String)> {
        let received = self.upstream.received();
        let posts = received.iter().filter(|received| received.method == "POST");
        let mut arrivals: Vec<_> = posts
            .map(|post| {
                let body = String::from_utf8_lossy(&post.body).into_owned();
                (post.at.saturating_duration_since(begun), body)
            })
            .collect();
        arrivals.sort_unstable();
        arrivals
    }

    async fn end(self) {
        for replica in self.replicas {
            replica.end().await;
        }
    }
}

/// However late one came: so many cannot have been there any earlier.
fn keep_apart(arrivals: &[(Duration, String)], interval: Duration) {
    for (number, (arrived, _)) in arrivals.iter().enumerate() {
        let least = interval * u32::try_from(number).unwrap();
        assert!(*arrived >= least, "{number} had come after {arrived:?}, and the pace has {least:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_three_replicas_send_no_faster_than_one_would_and_each_has_its_turn() {
    let fleet = Fleet::start(3, "5/second").await;
    let begun = Instant::now();
    // One replica has four times as many as each of the others, and on it one user has most of them.
    let all: Vec<(usize, &str, String)> = (0..18)
        .map(|number| {
            let replica = [0, 0, 0, 0, 1, 2][number % 6];
            let user = if replica == 0 && number % 6 == 3 { "bob" } else { "ada" };
            (replica, user, format!("prompt {number}"))
        })
        .collect();
    let answers = together(all.iter().map(|(replica, user, prompt)| fleet.submit(*replica, user, prompt))).await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
    let arrivals = fleet.arrivals(begun);
    assert_eq!(arrivals.len(), 18);
    keep_apart(&arrivals, Duration::from_millis(200));
    // The replicas with three each are through long before the one with twelve; there the users took turns.
    let place_of = |wanted: &dyn Fn(&(usize, &str, String)) -> bool| {
        let of = |body: &str| all.iter().find(|(_, _, prompt)| body.contains(&format!("\"{prompt}\""))).unwrap();
        arrivals.iter().rposition(|(_, body)| wanted(of(body))).unwrap()
    };
    let last_of_others = place_of(&|(replica, ..)| *replica != 0);
    assert!(last_of_others < 14, "the busy replica went before the others: {last_of_others}");
    let last_of_bob = place_of(&|(_, user, _)| *user == "bob");
    assert!(last_of_bob < 17, "who has few on a replica does not wait for who has many");
    for replica in &fleet.replicas {
        replica.metric_becomes("entries{state=\"claimed\"}", 0.0).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_a_replica_that_dies_in_the_queue_costs_the_others_one_slot_at_most() {
    let mut fleet = Fleet::start(2, "1/second").await;
    let begun = Instant::now();
    assert_eq!(fleet.submit(1, "ada", "first").await.status, 200);
    // It has reserved a slot for one of five when it dies.
    let dies = together((0..5).map(|number| {
        let fleet = &fleet;
        async move { fleet.submit(0, "ada", &format!("lost {number}")).await }
    }));
    tokio::select! {
        _ = dies => panic!("five seconds have not gone by"),
        () = eventually("five wait", async || fleet.replicas[0].metric("entries{state=\"claimed\"}").await >= 5.0) => {}
    }
    fleet.replicas[0].program.signal(rustix::process::Signal::KILL);
    fleet.replicas[0].program.ended().await;
    let lost = fleet.upstream.posts();
    let asked = begun.elapsed();
    assert_eq!(fleet.submit(1, "ada", "second").await.status, 200);
    let waited = begun.elapsed().saturating_sub(asked);
    assert!(waited < Duration::from_secs(5), "it waited for the slots of the dead: {waited:?}");
    keep_apart(&fleet.arrivals(begun), Duration::from_secs(1));
    assert_eq!(fleet.upstream.posts(), lost + 1);
    fleet.replicas.remove(0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_who_leaves_its_turn_takes_nothing_along_over_replicas() {
    let fleet = Fleet::start(2, "1/second").await;
    let begun = Instant::now();
    assert_eq!(fleet.submit(0, "ada", "first").await.status, 200);
    // Two wait on one replica, and one on the other; the one whose turn is next leaves.
    let (leaves, stays) = (fleet.submit(0, "ada", "leaves"), async {
        let (one, other) = (fleet.submit(0, "bob", "stays"), fleet.submit(1, "eve", "elsewhere"));
        tokio::join!(one, other)
    });
    let left = async {
        _ = tokio::time::timeout(Duration::from_millis(300), leaves).await;
    };
    let ((), (one, other)) = tokio::join!(left, stays);
    assert_eq!((one.status, other.status), (200, 200));
    let arrivals = fleet.arrivals(begun);
    keep_apart(&arrivals, Duration::from_secs(1));
    assert!(arrivals.len() <= 4);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_a_429_of_the_upstream_slows_all_replicas() {
    let fleet = Fleet::start(2, "off").await;
    // Both have been sent something, so what they knew of the pace is older than the refusal.
    fleet.upstream.next_submission(Fault::RateLimited { retry_after: Some(3) });
    assert_eq!(fleet.submit(0, "ada", "one").await.status, 429);
    let refused = Instant::now();
    // The other is told in the moment in which it next wants to send; that is after the refused one has said so.
    let paused = eventually("redis knows", async || !fleet.redis.cli(&["KEYS", "*pause"]).is_empty());
    paused.await;
    assert_eq!(fleet.submit(1, "bob", "two").await.status, 200);
    let arrivals = fleet.arrivals(refused);
    let (second, _) = arrivals.last().unwrap();
    assert!(*second >= Duration::from_millis(2_500), "the other replica went on after {second:?}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_without_redis_nobody_is_given_a_slot() {
    let mut fleet = Fleet::start(1, "1/second").await;
    assert_eq!(fleet.submit(0, "ada", "first").await.status, 200);
    fleet.redis.kill();
    let answer = fleet.submit(0, "ada", "second").await;
    assert_eq!(answer.refusal(), (503, "ledger_unavailable".to_owned()));
    assert_eq!(fleet.upstream.posts(), 1);
    fleet.redis.again().await;
    eventually("it goes on", async || fleet.submit(0, "ada", "second").await.status == 200).await;
    fleet.end().await;
}
