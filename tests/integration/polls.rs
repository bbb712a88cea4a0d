//! The way of a poll: what passes, what it does to the entry, and how it fares on a bad line.

mod entries;
mod flat;
mod shown;
mod wire;

use reelgate::simulator::Fault;
use serde_json::json;

use crate::support::{Answer, Scene};

/// The path of a job.
fn path(id: &str) -> String {
    format!("/grok/v1/videos/{id}")
}

/// A poll that meets a fault.
async fn poll_with(scene: &Scene, id: &str, fault: Fault) -> Answer {
    scene.upstream.next_poll(fault);
    scene.poll(id).await
}

/// Whether the prompt of a job still leads to that job.
async fn is_hit(scene: &Scene, prompt: &str, id: &str) -> bool {
    let answer = scene.submit(prompt).await;
    let is_hit = answer.cache_status().starts_with("reelgate; hit; ttl=");
    assert_eq!(answer.request_id() == id, is_hit, "{}", answer.cache_status());
    is_hit
}

/// A complete answer with this body.
fn answers(status: u16, body: &serde_json::Value) -> Fault {
    let form = reelgate::simulator::Form::Text { content_type: "application/json".to_owned(), body: body.to_string() };
    Fault::status(status, form)
}

/// The relay's record of a job, as far as its time goes.
fn wrapped(finish_time: u64) -> serde_json::Value {
    let video = json!({"url": "https://vidgen.x.ai/v.mp4", "duration": 1, "respect_moderation": true});
    json!({"code": "success", "message": "", "data": {
        "status": "SUCCESS", "fail_reason": "https://vidgen.x.ai/v.mp4", "finish_time": finish_time, "progress": "100%",
        "data": {"status": "done", "video": video}}})
}
