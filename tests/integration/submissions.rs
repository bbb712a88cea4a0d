//! The way of a submission: one job for identical prompts, hits, joins, wishes.

use serde_json::json;

use crate::support::{GENERATIONS, Scene};

#[tokio::test]
async fn the_seeds_prompt_becomes_a_job_and_the_same_prompt_again_is_a_hit() {
    let scene = Scene::start().await;
    let body = r#"{ "prompt": "A candle flickers on a wooden table." }"#;
    let first = scene.post_text(GENERATIONS, body, &[]).await;
    assert_eq!(first.cache_status(), "reelgate; fwd=miss; stored");
    let again = scene.post(GENERATIONS, &json!({"prompt": "A candle flickers on a wooden table."}), &[]).await;
    assert_eq!(again.request_id(), first.request_id());
    assert!(again.cache_status().starts_with("reelgate; hit; ttl="), "{}", again.cache_status());
    assert_eq!(again.body, first.body);
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.upstream.received()[0].body, body.as_bytes(), "the body goes on byte for byte");
    scene.poll_until(&first.request_id(), "\"done\"").await;
    assert_eq!(scene.metric("submissions_total{outcome=\"hit\"}").await, 1.0);
    assert_eq!(scene.metric("jobs_total{outcome=\"done\"}").await, 1.0);
    scene.end().await;
}
