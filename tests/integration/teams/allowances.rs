//! Client tokens with limits of their own: beside all others, one decision, each token counted by itself.

use reelgate::simulator::{End, Options};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::deployment::Deployment;
use super::replicas::Replicas;
use super::{STUDIO, post_as, scene, scene_of, submit_as, token_as, two_teams};
use crate::support::{Answer, GENERATIONS, Scene, together};

const TOKENS: &str = "/grok/v1/client_tokens";

fn wish(limits: &Value) -> Value {
    json!({"user": "alice", "limits": limits})
}

fn token(answer: &Answer) -> String {
    answer.json()["token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

async fn limited(scene: &Scene, limits: Value) -> String {
    token(&token_as(scene, STUDIO, &wish(&limits)).await)
}

/// Two seconds: ten cents.
fn job(prompt: &str) -> Value {
    json!({"prompt": prompt, "duration": 2})
}

fn refused(answer: &Answer, status: u16, limit: &str) {
    let code = if status == 402 { "budget_exhausted" } else { "rate_limited" };
    assert_eq!(answer.refusal(), (status, code.to_owned()), "{}", answer.text());
    assert_eq!(answer.json()["error"]["param"], limit);
    // What a token may spend in its life does not come back, so nobody is told to wait for it.
    match status {
        402 => assert_eq!(answer.header("retry-after"), "", "{limit}"),
        _ => assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{limit}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m24_a_tokens_generations_hold_to_the_number_and_its_refusals_take_nothing_else() {
    let scene = scene_of(&two_teams("limits.user.generations = \"5/day\"", ""), |_, _| {}).await;
    let one = limited(&scene, json!({"generations": "3/day"})).await;
    let prompts: Vec<String> = (0..30).map(|number| format!("prompt {number}")).collect();
    let answers = together(prompts.iter().map(|prompt| submit_as(&scene, &one, prompt))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
    answers.iter().filter(|answer| answer.status != 200).for_each(|answer| refused(answer, 429, "token.generations"));
    assert!(answers[0].header("ratelimit-policy").starts_with("\"token.generations\";q=3;w=86400, "));
    // A hit makes no job.
    let made = answers.iter().position(|answer| answer.status == 200).unwrap();
    assert_eq!(submit_as(&scene, &one, &prompts[made]).await.status, 200);
    // Another token of the same user has its own, and the user's limit stands above both: two of five are left.
    let other = limited(&scene, json!({"generations": "1000/second", "requests": "1000/second"})).await;
    for number in 0..2 {
        assert_eq!(submit_as(&scene, &other, &format!("other {number}")).await.status, 200);
    }
    refused(&submit_as(&scene, &other, "other 2").await, 429, "user.generations");
    assert_eq!(scene.upstream.posts(), 5);
    assert_eq!(scene.metric("limited_total{kind=\"generations\",limit=\"token\"}").await, 27.0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m29_a_tokens_budget_holds_to_the_tick_and_gets_back_what_was_not_spent() {
    let scene = scene(|config, _| config.limits.user.generations = None).await;
    let token = limited(&scene, json!({"budget_usd": 0.35, "requests": "1000/second"})).await;
    let bodies: Vec<Value> = (0..20).map(|number| job(&format!("prompt {number}"))).collect();
    let answers = together(bodies.iter().map(|body| post_as(&scene, &token, body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3, "ten cents each");
    answers.iter().filter(|answer| answer.status != 200).for_each(|answer| refused(answer, 402, "token.budget_usd"));
    assert_eq!(scene.metric("limited_total{kind=\"budget\",limit=\"token\"}").await, 17.0);
    // What is left is told, and a job that failed gives its price back.
    let dry = [("authorization", &*super::bearer(&token)), ("reelgate-dry-run", "1")];
    let preview = scene.post(GENERATIONS, &job("new"), &dry).await.json();
    assert_eq!((&preview["outcome"], &preview["param"]), (&json!("budget_exhausted"), &json!("token.budget_usd")));
    assert_eq!(preview.get("retry_after"), None);
    assert!((preview["left"]["token.budget_usd"].as_f64().unwrap() - 0.05).abs() < 1e-9, "{preview}");
    let id = answers.iter().find(|answer| answer.status == 200).unwrap().request_id();
    assert!(scene.upstream.finish(&id, End::Failed { code: "internal_error".to_owned(), message: "no".to_owned() }));
    assert!(super::poll_as(&scene, &token, &id).await.text().contains("failed"));
    assert_eq!(post_as(&scene, &token, &job("after the failure")).await.status, 200);
    refused(&post_as(&scene, &token, &job("one more")).await, 402, "token.budget_usd");
    // Seconds of video are another unit, and a token without a budget has none.
    let seconds = limited(&scene, json!({"budget_seconds": 5})).await;
    for number in 0..2 {
        assert_eq!(post_as(&scene, &seconds, &job(&format!("second {number}"))).await.status, 200);
    }
    refused(&post_as(&scene, &seconds, &job("second 2")).await, 402, "token.budget_seconds");
    assert_eq!(post_as(&scene, STUDIO, &job("the team goes on")).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn what_is_no_limit_makes_no_token() {
    let scene = scene(|_, _| {}).await;
    for (limits, param) in [
        (json!({"generations": "off"}), "limits.generations"),
        (json!({"requests": 5}), "limits.requests"),
        (json!({"budget_usd": 0}), "limits.budget_usd"),
        (json!({"budget_seconds": -1}), "limits.budget_seconds"),
        (json!({"per_day": 5}), "limits.per_day"),
        (json!([]), "limits"),
    ] {
        let answer = token_as(&scene, STUDIO, &wish(&limits)).await;
        assert_eq!(answer.refusal(), (422, "invalid_request".to_owned()), "{limits}");
        assert_eq!(answer.json()["error"]["param"], param);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m7_a_tokens_budget_is_used_up_after_a_restart_too() {
    let mut deployment = Deployment::start(&two_teams("", "")).await;
    let token = token(&deployment.ask(STUDIO, TOKENS, &wish(&json!({"budget_usd": 0.15}))).await);
    assert_eq!(deployment.ask(&token, GENERATIONS, &job("one")).await.status, 200);
    refused(&deployment.ask(&token, GENERATIONS, &job("two")).await, 402, "token.budget_usd");
    deployment.served.program.signal(Signal::KILL);
    deployment.again(Options::default()).await;
    refused(&deployment.ask(&token, GENERATIONS, &job("two")).await, 402, "token.budget_usd");
    deployment.served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m25_a_tokens_limits_hold_over_all_replicas() {
    let off = "limits.user.generations = \"off\"\nlimits.user.requests = \"off\"";
    let fleet = Replicas::start(&two_teams(off, "")).await;
    for (limits, number, status, limit) in [
        (json!({"generations": "4/day"}), 4, 429, "token.generations"),
        (json!({"requests": "6/day"}), 6, 429, "token.requests"),
        (json!({"budget_usd": 0.55}), 5, 402, "token.budget_usd"),
        (json!({"budget_seconds": 7}), 3, 402, "token.budget_seconds"),
    ] {
        let token = token(&fleet.post(0, STUDIO, TOKENS, &wish(&limits)).await);
        let bodies: Vec<Value> = (0..20).map(|number| job(&format!("{limit} {number}"))).collect();
        let asked = bodies.iter().enumerate().map(|(place, body)| fleet.post(place % 2, &token, GENERATIONS, body));
        let answers = together(asked).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), number, "{limit}");
        answers.iter().filter(|answer| answer.status != 200).for_each(|answer| refused(answer, status, limit));
    }
    assert_eq!(fleet.upstream.posts(), 18);
}
