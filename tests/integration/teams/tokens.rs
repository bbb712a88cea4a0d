//! Tokens for browsers: one user, a while, and never more than the key they were made with.

use hyper::Method;
use reelgate::simulator::Options;
use rustix::process::Signal;
use serde_json::json;

use super::deployment::Deployment;
use super::{LAB, STUDIO, bearer, poll_as, post_as, scene, sha256, submit_as, token_as, token_for, two_teams};
use crate::support::{Answer, GENERATIONS, SOON, eventually};

#[tokio::test]
async fn a_token_submits_and_polls_for_its_user_and_the_body_stays_as_it_came() {
    let scene = scene(|_, _| {}).await;
    let answer = token_as(&scene, STUDIO, &json!({"user": "alice", "expires_in": 60})).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let told = answer.json();
    assert_eq!(
        (&told["user"], &told["expires_in"], &told["token_type"]),
        (&json!("alice"), &json!(60), &json!("Bearer"))
    );
    let token = told["token"].as_str().unwrap();
    assert!(token.starts_with("rgt_"), "{token}");

    let body = "{ \"prompt\" : \"as it came\" }";
    let made = scene.post_text(GENERATIONS, body, &[("authorization", &bearer(token))]).await.request_id();
    assert_eq!(scene.upstream.received()[0].body, body.as_bytes());
    assert_eq!(poll_as(&scene, token, &made).await.status, 200);
    let own = post_as(&scene, token, &json!({"prompt": "b", "user": "alice"})).await;
    assert_eq!(own.status, 200);
    // The team's backend meets the same job.
    let hit = scene.post_text(GENERATIONS, body, &[("authorization", &bearer(STUDIO))]).await;
    assert_eq!(hit.request_id(), made);
    let log = scene.log.text();
    assert!(!log.contains("rgt_") && !log.contains("alice"), "{log}");
    scene.end().await;
}

#[tokio::test]
async fn another_user_in_the_body_is_refused_also_where_it_would_be_a_hit() {
    let scene = scene(|_, _| {}).await;
    let token = token_for(&scene, STUDIO, "Zoe\u{308}").await;
    let ask = |user: &str| json!({"prompt": "a candle", "user": user});
    post_as(&scene, STUDIO, &ask("bob")).await.request_id();
    let refused = post_as(&scene, &token, &ask("bob")).await;
    assert_eq!(refused.refusal(), (403, "user_mismatch".to_owned()));
    assert_eq!(refused.json()["error"]["param"], "user");
    for spelling in ["Zo\u{eb}", "Zoe\u{308}"] {
        assert_eq!(post_as(&scene, &token, &ask(spelling)).await.status, 200, "{spelling}");
    }
    // The body's own faults come first.
    let faulty = json!({"prompt": "", "user": "bob"});
    assert_eq!(post_as(&scene, &token, &faulty).await.status, 422);
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("submissions_total{outcome=\"denied\"}").await, 1.0);
    scene.end().await;
}

#[tokio::test]
async fn a_token_makes_no_tokens_and_may_be_narrower_but_never_wider_than_its_key() {
    let studio = "models = [\"grok-imagine-video\", \"grok-imagine-video-1.5\"]";
    let scene = super::scene_of(&two_teams(studio, ""), |_, _| {}).await;
    let token = token_for(&scene, STUDIO, "alice").await;
    let refused = token_as(&scene, &token, &json!({"user": "bob"})).await;
    assert_eq!(refused.refusal(), (403, "route_not_allowed".to_owned()));

    let narrow = json!({"user": "alice", "models": ["grok-imagine-video"], "routes": ["generations"]});
    let narrow = token_as(&scene, STUDIO, &narrow).await.json()["token"].as_str().unwrap().to_owned();
    let job = submit_as(&scene, &narrow, "a candle").await.request_id();
    let dear = post_as(&scene, &narrow, &json!({"prompt": "b", "model": "grok-imagine-video-1.5"})).await;
    assert_eq!(dear.refusal(), (403, "model_not_allowed".to_owned()));
    assert_eq!(poll_as(&scene, &narrow, &job).await.refusal(), (403, "route_not_allowed".to_owned()));

    let wide = token_as(&scene, STUDIO, &json!({"user": "alice", "models": ["another"]})).await;
    assert_eq!(wide.refusal(), (403, "model_not_allowed".to_owned()));
    for (body, param) in [
        (json!({}), "user"),
        (json!({"user": "alice", "expires_in": 3601}), "expires_in"),
        (json!({"user": "alice", "expires_in": 0}), "expires_in"),
        (json!({"user": "alice", "routes": ["client_tokens"]}), "routes"),
        (json!({"user": "alice", "limit": 1}), "limit"),
    ] {
        let answer = token_as(&scene, STUDIO, &body).await;
        assert_eq!(answer.refusal(), (422, "invalid_request".to_owned()), "{body}");
        assert_eq!(answer.json()["error"]["param"], param);
    }
    let big = json!({"user": "alice", "models": vec!["m".repeat(100); 1000]});
    assert_eq!(token_as(&scene, STUDIO, &big).await.refusal(), (413, "body_too_large".to_owned()));
    scene.end().await;
}

#[tokio::test]
async fn a_refused_wish_for_a_token_is_told_in_its_own_words() {
    let scene = super::scene_of(&two_teams("models = [\"grok-imagine-video\"]", ""), |_, _| {}).await;
    let alice = |field: &str, value: serde_json::Value| json!({"user": "alice", field: value});
    for (body, status, param, code, part) in [
        (json!({"user": ""}), 422, "user", "minLength", "must not be empty"),
        (alice("expires_in", json!(0)), 422, "expires_in", "minimum", "from 1 to 3600"),
        (alice("expires_in", json!(-5)), 422, "expires_in", "minimum", "from 1 to 3600"),
        (alice("expires_in", json!(3601)), 422, "expires_in", "maximum", "from 1 to 3600"),
        (alice("expires_in", json!("900")), 422, "expires_in", "type", "whole number of seconds"),
        (alice("expires_in", json!(1.5)), 422, "expires_in", "type", "whole number of seconds"),
        (alice("usr", json!("x")), 422, "usr", "near_miss", "did you mean user?"),
        (alice("expiresin", json!(60)), 422, "expiresin", "near_miss", "did you mean expires_in?"),
        (alice("colour", json!("x")), 422, "colour", "unknown_field", "is not known here"),
        (
            alice("limits", json!({"generation": "5/hour"})),
            422,
            "limits.generation",
            "near_miss",
            "did you mean generations?",
        ),
        (alice("models", json!(["x"])), 403, "models", "", "models: "),
    ] {
        let answer = token_as(&scene, STUDIO, &body).await;
        let told = answer.json();
        assert_eq!((answer.status, &told["error"]["param"]), (status, &json!(param)), "{body}: {told}");
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains(part) && !message.contains("leave it out"), "{body}: {message}");
        if status == 422 {
            assert_eq!(told["errors"][0]["code"], code, "{body}");
        } else {
            assert!(answer.code() == "model_not_allowed" && !message.contains("only as model"), "{message}");
        }
    }
    let empty = scene.post_text("/grok/v1/client_tokens", " ", &[("authorization", &bearer(STUDIO))]).await;
    assert_eq!(empty.refusal(), (400, "invalid_json".to_owned()));
    assert!(empty.text().contains("with a user") && !empty.text().contains("prompt"), "{}", empty.text());
    scene.end().await;
}

#[tokio::test]
async fn a_forged_or_foreign_token_is_as_invalid_as_any_key() {
    let (one, other) = (scene(|_, _| {}).await, scene(|_, _| {}).await);
    let token = token_for(&one, STUDIO, "alice").await;
    let refused = |answer: Answer| answer.refusal() == (401, "invalid_key".to_owned());
    assert!(refused(submit_as(&other, &token, "a candle").await), "another gateway's");
    let (head, signature) = token.rsplit_once('.').unwrap();
    let unsigned = "rgt_eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0".to_owned() + &head[head.find('.').unwrap()..] + ".";
    let cut = format!("{head}.{}", &signature[1..]);
    for forged in [unsigned, cut, head.to_owned(), token["rgt_".len()..].to_owned()] {
        assert!(refused(submit_as(&one, &forged, "a candle").await), "{forged}");
    }
    assert_eq!(submit_as(&one, &token, "a candle").await.status, 200);
    // It is nobody's in the other team either: its team stands in it.
    assert_eq!(token_for(&one, LAB, "alice").await.split('.').count(), 3);
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let scene = scene(|_, _| {}).await;
    let answer = token_as(&scene, STUDIO, &json!({"user": "alice", "expires_in": 1})).await;
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(submit_as(&scene, &token, "a candle").await.status, 200);
    eventually("the token has expired", async || submit_as(&scene, &token, "a candle").await.status == 401).await;
    eventually("the cause is told", async || scene.log.text().contains("expired token")).await;
    scene.end().await;
}

#[tokio::test]
async fn r73_a_page_of_an_allowed_origin_may_send_its_token() {
    let origins = vec!["https://app.example".to_owned()];
    let scene = scene(|config, _| config.server.cors.allowed_origins = origins).await;
    let token = token_for(&scene, STUDIO, "alice").await;
    let preflight = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let granted = scene.ask(Method::OPTIONS, GENERATIONS, &preflight, "").await;
    assert_eq!(granted.header("access-control-allow-headers"), "authorization,content-type");
    let headers = [("authorization", &*bearer(&token)), ("origin", "https://app.example")];
    let answer = scene.submit_with("a candle", &headers).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "https://app.example"));
    // A page can read why it was refused.
    let headers = [("authorization", "Bearer x"), ("origin", "https://app.example")];
    let answer = scene.submit_with("a candle", &headers).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, "https://app.example"));
    let tokens = scene.ask(Method::OPTIONS, "/grok/v1/client_tokens", &preflight, "").await;
    assert_eq!(tokens.header("access-control-allow-methods"), "POST, OPTIONS");
    scene.end().await;
}

#[tokio::test]
async fn a_reload_stops_a_removed_teams_keys_and_tokens_at_once_and_keeps_the_others() {
    let both = two_teams("", "");
    let deployment = Deployment::start(&both).await;
    let (studio, lab) = (deployment.token(STUDIO).await, deployment.token(LAB).await);
    for credential in [STUDIO, LAB, &studio, &lab] {
        assert_eq!(deployment.status(credential).await, 200);
    }
    let without_lab = both.split("[[teams]]\nname = \"lab\"").next().unwrap().to_owned();
    deployment.reload(&without_lab).await;
    deployment.served.program.says("teams.lab").await;
    for (credential, status) in [(STUDIO, 200), (&*studio, 200), (LAB, 401), (&*lab, 401)] {
        assert_eq!(deployment.status(credential).await, status);
    }
    assert_eq!(deployment.served.metric("config_changes_total{section=\"teams\"}").await, 1.0);
    // Another key under the same id is another key; and a key that is switched off takes its tokens along.
    deployment.reload(&both.replace(&sha256(LAB), &sha256("another"))).await;
    assert_eq!((deployment.status(&lab).await, deployment.status("another").await), (401, 200));
    deployment.reload(&both.replacen("\" }]", "\", disabled = true }]", 1)).await;
    for (credential, status) in [(STUDIO, 401), (&*studio, 401), (LAB, 200), (&*lab, 200)] {
        assert_eq!(deployment.status(credential).await, status);
    }
    deployment.reload(&both).await;
    assert_eq!((deployment.status(&studio).await, deployment.status(STUDIO).await), (200, 200));
    let output = deployment.served.end().await;
    assert!(!output.contains("rg_") && !output.contains("rgt_"), "{output}");
}

#[tokio::test]
async fn m9_a_token_survives_a_restart_over_the_same_ledger() {
    let mut deployment = Deployment::start(&two_teams("", "")).await;
    let token = deployment.token(STUDIO).await;
    assert_eq!(deployment.status(&token).await, 200);
    deployment.served.program.signal(Signal::KILL);
    deployment.again(Options::default()).await;
    assert_eq!(deployment.status(&token).await, 200);
    assert!(deployment.served.upstream.wait_until(|counts| counts.posts <= 1, SOON).await);
    deployment.served.end().await;
}
