//! The upstream's pace, over sockets: slots one at a time, a refusal that takes nothing, and everybody slowed by an
//! upstream that says so (`MONEY.md` M27; F-15).

mod replicas;

use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::simulator::{Fault, Form};
use serde_json::json;
use tokio::time::Instant;

use super::support::{Answer, GENERATIONS, Scene, together};

fn rate(count: u32, seconds: u64) -> Option<Rate> {
    Some(Rate { count, per: Duration::from_secs(seconds) })
}

async fn submit_as(scene: &Scene, user: &str, prompt: &str) -> Answer {
    scene.post(GENERATIONS, &json!({"prompt": prompt, "user": user}), &[]).await
}

fn paced(answer: &Answer) -> u64 {
    assert_eq!(answer.refusal(), (429, "rate_limited".to_owned()), "{}", answer.text());
    assert_eq!(answer.json()["error"]["param"], "upstream.pace");
    answer.header("retry-after").parse().expect("whole seconds")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_submissions_go_out_one_at_a_time() {
    let scene = Scene::with(|config, _| config.upstream.pace = rate(4, 1)).await;
    let begun = Instant::now();
    let prompts: Vec<String> = (0..5).map(|number| format!("prompt {number}")).collect();
    let answers = together(prompts.iter().map(|prompt| submit_as(&scene, "ada", prompt))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(begun.elapsed() >= Duration::from_secs(1), "four intervals lie between five slots");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_who_gets_no_slot_in_time_is_told_when_and_nothing_is_taken() {
    let scene = Scene::with(|config, _| {
        config.upstream.pace = rate(1, 60);
        config.upstream.queue_wait = Duration::from_secs(60);
        config.limits.user.generations = rate(2, 86_400);
        config.running.user = Some(2);
    })
    .await;
    assert_eq!(submit_as(&scene, "ada", "one").await.status, 200);
    // The next slot is a minute away; whoever would come after that is refused at once.
    let waits = async { scene.post(GENERATIONS, &json!({"prompt": "two", "user": "bob"}), &[]).await };
    let refused = async {
        scene.metric_becomes("entries{state=\"claimed\"}", 1.0).await;
        let first = submit_as(&scene, "ada", "three").await;
        let seconds = paced(&first);
        assert!((61..=120).contains(&seconds), "{seconds}");
        // Nothing was taken by any of these, or the second generation of the user would be gone.
        for _ in 0..3 {
            paced(&submit_as(&scene, "ada", "three").await);
        }
    };
    tokio::select! {
        answer = waits => panic!("no slot could be free yet: {}", answer.text()),
        () = refused => {}
    }
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("limited_total{kind=\"pace\",limit=\"upstream\"}").await, 4.0);
    scene.metric_becomes("entries{state=\"claimed\"}", 0.0).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m5_a_twin_does_not_inherit_a_refusal_by_the_pace() {
    let scene = Scene::with(|config, _| {
        config.upstream.pace = rate(1, 1);
        config.upstream.queue_wait = Duration::from_millis(1_500);
    })
    .await;
    let prompts = ["one", "two", "two", "two"];
    let answers = together(prompts.map(|prompt| submit_as(&scene, "ada", prompt))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{:?}", statuses(&answers));
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_429_of_the_upstream_slows_everyone_for_as_long_as_it_says() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::RateLimited { retry_after: Some(2) });
    assert_eq!(submit_as(&scene, "ada", "one").await.status, 429);
    let begun = Instant::now();
    let answers = together(["bob", "eve"].map(|user| submit_as(&scene, user, user))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "they waited until the upstream takes them again");
    scene.end().await;
}

#[tokio::test]
async fn m27_an_empty_account_alarms_and_slows_nobody() {
    let scene = Scene::start().await;
    let body = json!({"code": "rate-limit", "error": "Your team has used all available credits"}).to_string();
    scene.upstream.next_submission(Fault::Status {
        status: 429,
        form: Form::Text { content_type: "application/json".to_owned(), body },
        headers: vec![("Retry-After".to_owned(), "60".to_owned())],
    });
    assert_eq!(submit_as(&scene, "ada", "one").await.status, 429);
    assert_eq!(scene.metric("degraded{reason=\"upstream_credit\"}").await, 1.0);
    assert_eq!(submit_as(&scene, "ada", "two").await.status, 200);
    assert_eq!(scene.metric("degraded{reason=\"upstream_credit\"}").await, 0.0);
    scene.end().await;
}

#[tokio::test]
async fn t78_no_retry_after_of_the_upstream_holds_anybody_for_longer_than_a_minute() {
    for (after, is_a_number) in [
        ("18446744073709551615", true),
        ("9223372036854775808", true),
        ("4294967296", true),
        ("99999999999999999999", false),
        ("-1", false),
        ("1e9", false),
    ] {
        let scene = Scene::start().await;
        let headers = vec![("Retry-After".to_owned(), after.to_owned())];
        scene.upstream.next_submission(Fault::Status { status: 429, form: Form::Comet("busy".to_owned()), headers });
        let refused = submit_as(&scene, "ada", "one").await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, after), "it passes as it came");
        let next = submit_as(&scene, "bob", "two").await;
        if is_a_number {
            assert!((1..=60).contains(&paced(&next)), "{after}: {}", next.header("retry-after"));
        } else {
            assert_eq!(next.status, 200, "{after}: what cannot be read slows nobody");
        }
        scene.end().await;
    }
}
