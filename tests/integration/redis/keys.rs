//! Idempotency keys that merely hit (`MONEY.md` M16), over several replicas.

use serde_json::json;

use super::super::support::eventually;
use super::{Fleet, quick};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m16_redis_a_key_that_merely_hit_refuses_another_body_and_wins_over_no_cache() {
    let fleet = Fleet::start(2, quick(), &[]).await;
    let id = fleet.replicas[0].submit("one").await.request_id();
    let (one, other) = (json!({"prompt": "one"}), json!({"prompt": "other"}));
    let submit =
        async |replica: usize, body, headers: &[(&str, &str)]| fleet.replicas[replica].submit_with(body, headers).await;
    let reused = (422, "idempotency_key_reused".to_owned());
    // The same replica knows it at once.
    let (key, no_cache) = (("idempotency-key", "here"), ("cache-control", "no-cache"));
    assert_eq!(submit(0, &one, &[key]).await.request_id(), id);
    assert_eq!(submit(0, &other, &[key]).await.refusal(), reused);
    assert_eq!(submit(0, &one, &[key, no_cache]).await.request_id(), id);
    let key = ("idempotency-key", "there");
    assert_eq!(submit(0, &one, &[key]).await.request_id(), id);
    eventually("both are in redis", async || fleet.redis.cli(&["ZCARD", "reelgate:hits"]) == "2").await;
    assert_eq!(submit(1, &other, &[key]).await.refusal(), reused);
    assert_eq!(submit(1, &one, &[key, no_cache]).await.request_id(), id);
    assert_eq!(fleet.upstream.posts(), 1);
    fleet.end().await;
}
