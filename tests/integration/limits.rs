//! Limits: exact under concurrency, taken only where they should be, given back, and told to the client in numbers
//! that hold (`MONEY.md` M24; T-31, T-33, T-35, R-61, R-62).

use std::collections::BTreeMap;
use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::simulator::{Fault, Form};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::support::{Answer, GENERATIONS, SOON, Scene, together};

fn rate(count: u32, seconds: u64) -> Option<Rate> {
    Some(Rate { count, per: Duration::from_secs(seconds) })
}

/// So long a window that nothing comes back within a test.
fn day(count: u32) -> Option<Rate> {
    rate(count, 86_400)
}

/// `"name";q=5;w=60, …` as a map of maps: the form is checked as strictly as it is written.
fn parse(header: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut limits = BTreeMap::new();
    for item in header.split(", ").filter(|item| !item.is_empty()) {
        let (name, parameters) = item.split_once(';').unwrap();
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).expect("a quoted name");
        let parameter = |text: &str| {
            let (key, value) = text.split_once('=').unwrap();
            (key.to_owned(), value.parse().unwrap())
        };
        limits.insert(name.to_owned(), parameters.split(';').map(parameter).collect());
    }
    limits
}

/// How many more a limit lets through, by an answer.
fn remaining(answer: &Answer, limit: &str) -> u64 {
    parse(answer.header("ratelimit"))[limit]["r"]
}

/// Checks a refusal by a limit and gives its `Retry-After`.
fn limited(answer: &Answer, limit: &str) -> u64 {
    assert_eq!(answer.refusal(), (429, "rate_limited".to_owned()), "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!((error["param"].as_str(), error["type"].as_str()), (Some(limit), Some("rate_limit_error")));
    let seconds = answer.header("retry-after").parse().expect("whole seconds");
    assert!(seconds >= 1);
    let standing = &parse(answer.header("ratelimit"))[limit];
    assert_eq!((standing["r"], standing["t"]), (0, seconds), "R-62: t agrees with Retry-After");
    seconds
}

async fn submit_as(scene: &Scene, user: &str, prompt: &str) -> Answer {
    scene.post(GENERATIONS, &json!({"prompt": prompt, "user": user}), &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_a_quota_of_five_lets_exactly_five_of_two_hundred_through() {
    let scene = Scene::with(|config, options| {
        config.limits.user.generations = day(5);
        options.answer_delay = Duration::from_millis(100);
    })
    .await;
    let prompts: Vec<String> = (0..200).map(|number| format!("prompt {number}")).collect();
    let answers = together(prompts.iter().map(|prompt| submit_as(&scene, "one", prompt))).await;
    let created = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, scene.upstream.posts()), (5, 5));
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        limited(answer, "user.generations");
    }
    assert_eq!(scene.metric("limited_total{kind=\"generations\",limit=\"user\"}").await, 195.0);
    assert_eq!(scene.metric("submissions_total{outcome=\"limited\"}").await, 195.0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t31_a_thousand_invented_users_do_not_get_past_the_fuse() {
    let scene = Scene::with(|config, _| {
        config.limits.user.generations = day(6);
        config.limits.total.generations = day(20);
    })
    .await;
    let users: Vec<String> = (0..1000).map(|number| format!("invented {number}")).collect();
    let mut created = 0;
    for batch in users.chunks(100) {
        let answers = together(batch.iter().map(|user| submit_as(&scene, user, user))).await;
        created += answers.iter().filter(|answer| answer.status == 200).count();
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            limited(answer, "total.generations");
        }
    }
    assert_eq!((created, scene.upstream.posts()), (20, 20));
    scene.end().await;
}

#[tokio::test]
async fn t34_a_hit_takes_no_generation_but_a_request() {
    let scene = Scene::with(|config, _| {
        config.limits.user.generations = day(2);
        config.limits.user.requests = day(5);
    })
    .await;
    let first = scene.submit("a").await;
    assert_eq!((remaining(&first, "user.generations"), remaining(&first, "user.requests")), (1, 4));
    for left in (1..4).rev() {
        let hit = scene.submit("a").await;
        assert_eq!(hit.request_id(), first.request_id());
        assert_eq!(remaining(&hit, "user.requests"), left);
        assert!(!hit.header("ratelimit").contains("generations"), "{:?}", hit.headers);
    }
    assert_eq!(remaining(&scene.submit("b").await, "user.generations"), 0);
    limited(&scene.submit("a").await, "user.requests");
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn a_twin_that_joins_takes_no_generation() {
    let scene = Scene::with(|config, options| {
        config.limits.user.generations = day(2);
        options.answer_delay = Duration::from_millis(200);
    })
    .await;
    let answers = together((0..20).map(|_| scene.submit("same"))).await;
    let ids: Vec<String> = answers.iter().map(Answer::request_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(remaining(&scene.submit("another").await, "user.generations"), 0);
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn r61_after_retry_after_seconds_the_request_succeeds() {
    let scene = Scene::with(|config, _| {
        config.limits.user.generations = rate(1, 1);
        config.limits.address.requests = rate(100, 1);
    })
    .await;
    let mut refused = None;
    // Faster than one a second, or the test could not meet the limit.
    for prompt in 0..20 {
        let answer = scene.submit(&prompt.to_string()).await;
        if answer.status == 429 {
            refused = Some((prompt, limited(&answer, "user.generations")));
            break;
        }
    }
    let (prompt, seconds) = refused.expect("twenty in a row got past one a second");
    // Waiting is what is tested here.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    scene.submit(&prompt.to_string()).await.request_id();
    scene.end().await;
}

#[tokio::test]
async fn r61_t34_the_address_too_is_served_again_after_retry_after() {
    let scene = Scene::with(|config, _| config.limits.address.requests = rate(2, 1)).await;
    let mut refused = None;
    // Faster than two a second, or the test could not meet the limit.
    for _ in 0..20 {
        let answer = scene.submit("a").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let seconds = limited(&refused.expect("twenty at once got past two a second"), "address.requests");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    scene.submit("a").await.request_id();
    scene.end().await;
}

#[tokio::test]
async fn t34_whatever_comes_takes_a_request_of_its_address_before_its_body_is_read() {
    let scene = Scene::with(|config, _| config.limits.address.requests = day(5)).await;
    let made = scene.submit("a").await.request_id();
    assert_eq!(scene.submit("a").await.request_id(), made, "a hit");
    for (body, code) in [("{", "invalid_json"), ("{\"prompt\":\"\"}", "invalid_request"), ("[]", "invalid_request")] {
        assert_eq!(scene.post_text(GENERATIONS, body, &[]).await.code(), code);
    }
    limited(&scene.submit("a").await, "address.requests");
    // It is told without the body, which would be asked for otherwise.
    let answer = scene.raw_submission("Content-Length: 20\r\nExpect: 100-continue\r\n", "").await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    // Nobody else has to pay for it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(scene.gateway().address()).await.unwrap();
    let head = format!("POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    let request = head + "Connection: close\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}";
    other.write_all(request.as_bytes()).await.unwrap();
    scene.note_submissions(1);
    let mut answer = String::new();
    tokio::time::timeout(SOON, other.read_to_string(&mut answer)).await.expect("it is answered").unwrap();
    scene.see(answer.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&made), "{answer}");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn r62_policies_and_standings_are_lists_of_quoted_names_and_nobody_is_named() {
    let scene = Scene::with(|config, _| {
        config.limits.user.requests = rate(60, 60);
        config.limits.user.generations = rate(6, 3600);
        config.limits.team.requests = rate(1000, 3600);
        config.limits.address.requests = day(600);
        config.limits.total.generations = rate(60, 60);
    })
    .await;
    let answer = submit_as(&scene, "somebody@example.org", "a").await;
    let policy = parse(answer.header("ratelimit-policy"));
    let standing = parse(answer.header("ratelimit"));
    for (name, count, window) in [
        ("user.requests", 60, 60),
        ("user.generations", 6, 3600),
        ("team.requests", 1000, 3600),
        ("address.requests", 600, 86_400),
        ("total.generations", 60, 60),
    ] {
        assert_eq!((policy[name]["q"], policy[name]["w"]), (count, window), "{name}");
        assert_eq!(standing[name]["r"], count - 1, "{name}");
        assert!((1..=window).contains(&standing[name]["t"]), "{name}");
    }
    assert_eq!(policy.len(), 5);
    assert!(!String::from_utf8_lossy(&answer.raw()).contains("somebody"), "no partition key in clear");
    let refused = scene.post(GENERATIONS, &json!({}), &[]).await;
    assert_eq!(refused.status, 422);
    assert_eq!(remaining(&refused, "address.requests"), 598, "errors tell it as well");
    scene.end().await;
}

#[tokio::test]
async fn m24_what_the_team_refuses_takes_nothing_from_the_user() {
    let scene = Scene::with(|config, _| {
        config.limits.user.generations = day(3);
        config.limits.team.generations = day(2);
    })
    .await;
    assert_eq!(remaining(&submit_as(&scene, "one", "a").await, "user.generations"), 2);
    submit_as(&scene, "two", "b").await.request_id();
    for prompt in ["c", "d", "e", "f"] {
        let refused = submit_as(&scene, "one", prompt).await;
        limited(&refused, "team.generations");
        assert_eq!(remaining(&refused, "user.generations"), 2);
    }
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn m24_what_was_not_sent_gives_its_generation_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scene = Scene::with(|config, _| {
        config.upstream.url = format!("http://{free}");
        config.limits.user.generations = day(2);
        config.limits.total.generations = day(2);
    })
    .await;
    for prompt in ["a", "b", "c", "d", "e"] {
        let answer = scene.submit(prompt).await;
        assert_eq!(answer.refusal(), (502, "upstream_unreachable".to_owned()));
        assert_eq!(remaining(&answer, "user.generations"), 1);
    }
    scene.end().await;
}

#[tokio::test]
async fn what_the_upstream_refused_stays_taken() {
    let scene = Scene::with(|config, _| config.limits.user.generations = day(2)).await;
    scene.upstream.next_submission(Fault::status(400, Form::comet("invalid_request")));
    assert_eq!(scene.submit("a").await.status, 400);
    scene.submit("b").await.request_id();
    limited(&scene.submit("c").await, "user.generations");
    scene.end().await;
}

#[tokio::test]
async fn without_a_user_the_address_is_counted_and_a_user_is_not() {
    let scene = Scene::with(|config, _| config.limits.user.generations = day(1)).await;
    scene.submit("a").await.request_id();
    limited(&scene.submit("b").await, "user.generations");
    submit_as(&scene, "one", "b").await.request_id();
    submit_as(&scene, "two", "c").await.request_id();
    limited(&submit_as(&scene, "one", "d").await, "user.generations");
    // Nobody can choose the name of the nameless.
    for user in ["127.0.0.1", "anonymous", "open"] {
        submit_as(&scene, user, user).await.request_id();
    }
    scene.end().await;
}

#[tokio::test]
async fn t33_a_users_two_spellings_in_unicode_share_a_bucket() {
    let scene = Scene::with(|config, _| config.limits.user.generations = day(1)).await;
    submit_as(&scene, "Zo\u{eb}", "a").await.request_id();
    limited(&submit_as(&scene, "Zoe\u{308}", "b").await, "user.generations");
    submit_as(&scene, "Zoe", "c").await.request_id();
    scene.end().await;
}

#[tokio::test]
async fn a_request_once_taken_stays_taken_and_polls_take_none() {
    let scene = Scene::with(|config, _| {
        config.limits.user.requests = day(3);
        config.limits.user.generations = day(1);
    })
    .await;
    let id = scene.submit("a").await.request_id();
    limited(&scene.submit("b").await, "user.generations");
    for _ in 0..10 {
        assert_eq!(scene.poll(&id).await.status, 200);
    }
    limited(&scene.submit("c").await, "user.generations");
    limited(&scene.submit("a").await, "user.requests");
    assert!(scene.upstream.wait_until(|counts| counts.polls == 10, SOON).await);
    scene.end().await;
}
