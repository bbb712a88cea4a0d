//! Redis goes back in time (`MONEY.md` M26): it comes back with what it knew a while ago, and its epoch with it.

use std::time::Duration;

use reelgate::simulator::{End, Fault};
use serde_json::json;

use super::super::support::eventually;
use super::super::support::redis::RedisServer;
use super::{Fleet, quick};

/// How it goes back to its last snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// It dies, and is started anew.
    Started,
    /// The same process goes on, as one that was a copy for a while and serves again.
    Reloaded,
}

/// The answer to a prompt once there is one: Redis was away just now.
async fn answer(fleet: &Fleet, replica: usize, prompt: &str) -> (u16, String) {
    let mut last = (0, String::new());
    eventually(prompt, async || {
        let answer = fleet.replicas[replica].submit_with(&json!({"prompt": prompt, "duration": 2}), &[]).await;
        last.0 = answer.status;
        last.1 = if answer.status == 200 { answer.request_id() } else { String::new() };
        answer.status != 503
    })
    .await;
    last
}

/// Two replicas over a Redis that keeps snapshots. One of them buys, before and after the snapshot to which Redis goes
/// back; only the other one is asked then, which has heard of nothing.
async fn nothing_is_bought_again_and_what_was_made_stands(back: Back) {
    let keeps = ["--appendonly", "no", "--enable-debug-command", "yes"];
    // A dollar holds ten of ten cents.
    let more = [("REELGATE_BUDGETS__TEAM__PER_DAY", "1.00")];
    let redis = RedisServer::with(&keeps).await;
    let mut fleet = Fleet::over(redis, 2, quick(), &more).await;
    eventually("it is said that this Redis can lose much", async || {
        fleet.replicas[0].program.output().contains("set appendonly yes")
    })
    .await;
    let (status, before) = answer(&fleet, 0, "before").await;
    assert_eq!(status, 200);
    let (_, fails) = answer(&fleet, 0, "fails").await;
    fleet.upstream.next_submission(Fault::Delay(Duration::from_secs(1)));
    let snapshot = async {
        eventually("it is sent", async || fleet.upstream.posts() == 3).await;
        assert_eq!(fleet.redis.cli(&["SAVE"]), "OK");
    };
    let ((_, under_way), ()) = tokio::join!(answer(&fleet, 0, "under way"), snapshot);
    let mut after = Vec::new();
    for number in 0..5 {
        after.push(answer(&fleet, 0, &format!("after {number}")).await.1);
    }
    // What ended since stays ended, though it comes back alive.
    assert!(fleet.upstream.finish(&fails, End::Failed { code: "internal_error".to_owned(), message: "no".to_owned() }));
    assert!(fleet.replicas[0].poll(&fails).await.text().contains("failed"));
    assert_eq!(fleet.upstream.posts(), 8);

    let epoch = fleet.redis.cli(&["GET", "reelgate:epoch"]);
    if back == Back::Started {
        fleet.redis.kill();
        fleet.redis.again().await;
    } else {
        assert_eq!(fleet.redis.cli(&["DEBUG", "RELOAD", "NOSAVE"]), "OK");
        eventually("a new epoch begins", async || {
            let standing = fleet.redis.cli(&["GET", "reelgate:epoch"]);
            !standing.is_empty() && standing != epoch
        })
        .await;
    }
    for (number, id) in after.iter().enumerate() {
        assert_eq!(answer(&fleet, 1, &format!("after {number}")).await, (200, id.clone()), "{number}");
    }
    assert_eq!(answer(&fleet, 1, "before").await, (200, before));
    assert_eq!(answer(&fleet, 1, "under way").await, (200, under_way));
    assert_eq!(fleet.upstream.posts(), 8, "nothing is bought again");
    let (status, again) = answer(&fleet, 1, "fails").await;
    assert_eq!(status, 200);
    assert_ne!(again, fails, "its entry had ended");
    // Eight of ten cents, of which a failed one may cost nothing, and one more.
    let mut bought = 0;
    while answer(&fleet, 1, &format!("more {bought}")).await.0 == 200 {
        bought += 1;
    }
    assert!((1..=2).contains(&bought), "{bought} more fit into the budget");
    assert_eq!(fleet.redis.cli(&["HGET", "reelgate:h:total", "running"]), (8 + bought).to_string());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m26_f57_a_redis_that_was_started_anew_from_a_snapshot_lets_nothing_be_bought_twice() {
    nothing_is_bought_again_and_what_was_made_stands(Back::Started).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m26_f57_a_redis_that_went_back_under_its_replicas_lets_nothing_be_bought_twice() {
    nothing_is_bought_again_and_what_was_made_stands(Back::Reloaded).await;
}
