//! What operators and support see of the ledger, and what they may do to it.

mod commands;
mod offline;
mod pages;

use hyper::Method;
use serde_json::Value;

use crate::support::{Answer, Scene, ask};

/// Asks the admin listener for something with another method than GET, or with headers.
async fn admin(scene: &Scene, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = ask(scene.gateway().admin_address(), method, path, headers, "").await;
    scene.see(&answer.raw());
    answer
}

/// A page of jobs.
async fn jobs(scene: &Scene, query: &str) -> Vec<Value> {
    let answer = scene.admin(&format!("/admin/jobs{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()["jobs"].as_array().unwrap().clone()
}

/// One field of each.
fn field<'a>(lines: &'a [Value], name: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[name].as_str().unwrap_or("-")).collect()
}

/// Status and code of a refusal, whose form is that of all our errors.
fn refused(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    let error = body["error"].as_object().unwrap();
    assert!(error["message"].is_string() && error["type"].is_string() && error.contains_key("param"), "{body}");
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("application/json", "no-store"));
    (answer.status, error["code"].as_str().unwrap().to_owned())
}
