//! The bill: prices, budgets, jobs at once, what is settled, lost and saved (`MONEY.md` M29), and dry runs.

use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::bill::money::Amount;
use reelgate::bill::settings::Ending;
use reelgate::simulator::{CutAt, End, Fault, How, Options};
use serde_json::{Value, json};

use super::support::process::Served;
use super::support::{Answer, Folder, GENERATIONS, Scene, eventually, random_key, together};

fn dollars(text: &str) -> Option<Amount> {
    Amount::parse(text)
}

/// One second of 480p: five cents.
async fn second(scene: &Scene, user: &str, prompt: &str) -> Answer {
    scene.post(GENERATIONS, &json!({"prompt": prompt, "duration": 1, "user": user}), &[]).await
}

fn failed() -> End {
    End::Failed { code: "internal_error".to_owned(), message: "lost".to_owned() }
}

fn exhausted(answer: &Answer, budget: &str) {
    assert_eq!(answer.refusal(), (402, "budget_exhausted".to_owned()), "{}", answer.text());
    assert_eq!(answer.json()["error"]["param"], budget);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=31 * 86_400).contains(&seconds), "until the next day or month: {seconds}");
}

fn close(value: f64, want: f64) -> bool {
    (value - want).abs() < 1e-9
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m29_a_budget_is_exact_under_two_hundred_at_once() {
    let scene = Scene::with(|config, options| {
        config.budgets.user.per_day = dollars("1.00");
        options.answer_delay = Duration::from_millis(50);
    })
    .await;
    let prompts: Vec<String> = (0..200).map(|number| format!("prompt {number}")).collect();
    let answers = together(prompts.iter().map(|prompt| second(&scene, "ada", prompt))).await;
    let created = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, scene.upstream.posts()), (20, 20), "a dollar holds twenty seconds");
    answers.iter().filter(|answer| answer.status != 200).for_each(|answer| exhausted(answer, "user.per_day"));
    assert_eq!(second(&scene, "bob", "bob's").await.status, 200, "another user has a budget of its own");
    assert_eq!(scene.metric("limited_total{kind=\"budget\",limit=\"user\"}").await, 180.0);
    assert!(close(scene.metric("spend_usd_total{team=\"open\"}").await, 1.05));
    scene.end().await;
}

#[tokio::test]
async fn m29_what_was_refused_or_not_sent_is_given_back() {
    let scene = Scene::with(|config, _| config.budgets.total.per_day = dollars("0.75")).await;
    scene.upstream.next_submission(Fault::RateLimited { retry_after: Some(1) });
    let whole = json!({"prompt": "p", "duration": 15});
    assert_eq!(scene.post(GENERATIONS, &whole, &[]).await.status, 429);
    assert_eq!(scene.post(GENERATIONS, &whole, &[]).await.status, 200);
    exhausted(&second(&scene, "ada", "other").await, "total.per_day");
    assert_eq!(scene.post(GENERATIONS, &whole, &[]).await.status, 200, "a hit costs nothing");
    scene.end().await;
}

#[tokio::test]
async fn m20_m29_a_job_that_failed_gives_its_money_back_and_one_that_was_refused_does_not() {
    let scene = Scene::with(|config, _| config.budgets.user.per_day = dollars("0.75")).await;
    let refused = End::Failed { code: "invalid_argument".to_owned(), message: "it cannot be rendered".to_owned() };
    for (prompt, end, left) in [("one", failed(), 0.75), ("two", End::Moderated, 0.70), ("four", refused, 0.65)] {
        let id = second(&scene, "ada", prompt).await.request_id();
        assert!(scene.upstream.finish(&id, end));
        scene.poll(&id).await;
        let told = dry(&scene, "three").await;
        assert!(close(told["left"]["user.per_day"].as_f64().unwrap(), left), "{told}");
    }
    assert!(close(scene.metric("spend_returned_usd_total{team=\"open\"}").await, 0.05));
    assert!(close(scene.metric("spend_lost_usd_total{reason=\"moderated\",team=\"open\"}").await, 0.10));
    scene.end().await;
}

#[tokio::test]
async fn m19_m29_a_job_that_the_upstream_no_longer_knows_costs_its_price() {
    let scene = Scene::with(|config, _| config.budgets.user.per_day = dollars("0.75")).await;
    let id = second(&scene, "ada", "one").await.request_id();
    scene.poll(&id).await;
    scene.upstream.next_poll(Fault::End(End::NotFound));
    scene.poll(&id).await;
    assert!(close(dry(&scene, "two").await["left"]["user.per_day"].as_f64().unwrap(), 0.70));
    // It was only one of the upstream's nodes that did not know it, and it is billed.
    assert!(scene.upstream.finish(&id, End::Done));
    scene.poll(&id).await;
    assert!(close(dry(&scene, "two").await["left"]["user.per_day"].as_f64().unwrap(), 0.70));
    assert!(close(scene.metric("spend_returned_usd_total{team=\"open\"}").await, 0.0));
    scene.end().await;
}

#[tokio::test]
async fn m29_what_becomes_of_failed_jobs_is_configuration() {
    let scene = Scene::with(|config, _| {
        config.budgets.user.per_day = dollars("0.75");
        config.budgets.failed = Ending::Keep;
    })
    .await;
    let id = second(&scene, "ada", "one").await.request_id();
    assert!(scene.upstream.finish(&id, failed()));
    scene.poll(&id).await;
    assert!(close(dry(&scene, "two").await["left"]["user.per_day"].as_f64().unwrap(), 0.70));
    assert!(close(scene.metric("spend_lost_usd_total{reason=\"failed\",team=\"open\"}").await, 0.05));
    scene.end().await;
}

#[tokio::test]
async fn m29_an_unknown_outcome_is_at_risk_and_then_lost() {
    let scene = Scene::with(|config, _| config.dedup.unknown_hold = Duration::from_secs(1)).await;
    let cut = Fault::Cut { at: CutAt::BeforeAnswer, how: How::Reset, accepted: true };
    scene.upstream.next_submission(cut);
    assert_eq!(second(&scene, "ada", "one").await.refusal().1, "outcome_unknown");
    assert!(close(scene.metric("spend_at_risk_usd{team=\"open\"}").await, 0.05));
    eventually("given up when the hold ends", async || {
        close(scene.metric("spend_lost_usd_total{reason=\"unknown\",team=\"open\"}").await, 0.05)
    })
    .await;
    assert_eq!(scene.metric("spend_at_risk_usd{team=\"open\"}").await, 0.0);
    assert_eq!(scene.metric("spend_usd_total{team=\"open\"}").await, 0.0);
    scene.end().await;
}

#[tokio::test]
async fn jobs_at_once_are_bounded_and_a_place_is_free_when_a_job_ends() {
    let scene = Scene::with(|config, options| {
        config.running.user = Some(2);
        options.job_duration = Duration::from_secs(3600);
    })
    .await;
    let first = second(&scene, "ada", "one").await.request_id();
    assert_eq!(second(&scene, "ada", "two").await.status, 200);
    let refused = second(&scene, "ada", "three").await;
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.json()["error"]["param"], "user.running");
    assert_eq!(second(&scene, "ada", "one").await.request_id(), first, "a hit takes no place");
    assert_eq!(second(&scene, "bob", "four").await.status, 200);
    assert!(scene.upstream.finish(&first, End::Done));
    scene.poll(&first).await;
    assert_eq!(second(&scene, "ada", "three").await.status, 200);
    assert_eq!(scene.metric("limited_total{kind=\"running\",limit=\"user\"}").await, 1.0);
    scene.end().await;
}

#[tokio::test]
async fn what_a_hit_a_join_and_a_retry_saved_is_counted() {
    let scene = Scene::with(|_, options| options.answer_delay = Duration::from_millis(200)).await;
    let twins = together(["ada", "bob"].map(|user| second(&scene, user, "one"))).await;
    assert!(twins.iter().all(|answer| answer.status == 200));
    let saved =
        async |reason: &str| scene.metric(&format!("spend_saved_usd_total{{reason=\"{reason}\",team=\"open\"}}")).await;
    assert!(close(saved("join").await, 0.05));
    // The one of both who made the job asks for it again, and so does the other.
    for user in ["ada", "bob"] {
        assert_eq!(second(&scene, user, "one").await.status, 200);
    }
    assert!(close(saved("retry").await, 0.05) && close(saved("hit").await, 0.05));
    eventually("the log tells of the retry", async || {
        let lines = scene.log.lines();
        lines.iter().any(|line| line["saved_by"] == "retry" && line["saved_usd"] == 0.05 && line["outcome"] == "hit")
    })
    .await;
    scene.end().await;
}

async fn dry(scene: &Scene, prompt: &str) -> Value {
    let body = json!({"prompt": prompt, "duration": 1, "user": "ada"});
    let answer = scene.post(GENERATIONS, &body, &[("reelgate-dry-run", "1")]).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_buys_nothing() {
    let scene = Scene::with(|config, options| {
        config.budgets.user.per_day = dollars("0.75");
        options.answer_delay = Duration::from_millis(100);
    })
    .await;
    let told = dry(&scene, "one").await;
    assert_eq!(
        (&told["dry_run"], &told["outcome"], &told["price_usd"]),
        (&json!(true), &json!("created"), &json!(0.05))
    );
    assert_eq!(told["left"], json!({"user.per_day": 0.75}));
    assert_eq!(scene.upstream.posts(), 0);

    let id = second(&scene, "ada", "one").await.request_id();
    let told = dry(&scene, "one").await;
    assert_eq!((&told["outcome"], &told["request_id"]), (&json!("hit"), &json!(id)));
    assert_eq!(told["left"], json!({"user.per_day": 0.7}));

    let whole = json!({"prompt": "long", "duration": 15, "user": "ada"});
    let told = scene.post(GENERATIONS, &whole, &[("reelgate-dry-run", "1")]).await.json();
    assert_eq!((&told["outcome"], &told["param"]), (&json!("budget_exhausted"), &json!("user.per_day")));

    let invalid = scene.post(GENERATIONS, &json!({"duration": 99}), &[("reelgate-dry-run", "1")]).await;
    assert_eq!(invalid.refusal(), (422, "invalid_request".to_owned()));
    let wrong = scene.submit_with("one", &[("reelgate-dry-run", "yes")]).await;
    assert_eq!(wrong.refusal(), (400, "bad_request".to_owned()));
    assert_eq!((scene.upstream.posts(), scene.metric("submissions_total{outcome=\"dry_run\"}").await), (1, 3.0));
    scene.end().await;
}

#[tokio::test]
async fn a_dry_run_tells_the_limit_that_a_new_job_would_meet() {
    let day = Duration::from_secs(86_400);
    let scene = Scene::with(|config, _| config.limits.user.generations = Some(Rate { count: 1, per: day })).await;
    assert_eq!(dry(&scene, "one").await["outcome"], "created");
    assert_eq!(second(&scene, "ada", "one").await.status, 200);
    let told = dry(&scene, "two").await;
    assert_eq!((&told["outcome"], &told["param"]), (&json!("rate_limited"), &json!("user.generations")), "{told}");
    assert!(told["retry_after"].as_u64().unwrap() > 80_000, "{told}");
    assert_eq!(second(&scene, "ada", "two").await.refusal(), (429, "rate_limited".to_owned()));
    scene.end().await;
}

#[tokio::test]
async fn a_dry_run_of_a_held_prompt_renews_nothing() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Cut { at: CutAt::BeforeAnswer, how: How::Fin, accepted: true });
    assert_eq!(second(&scene, "ada", "one").await.refusal().1, "outcome_unknown");
    for _ in 0..2 {
        let told = dry(&scene, "one").await;
        assert_eq!(told["outcome"], "outcome_unknown");
        assert!((61..=600).contains(&told["retry_after"].as_u64().unwrap()), "{told}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m29_what_was_spent_survives_a_restart() {
    let (key, folder) = (random_key(), Folder::new());
    let path = folder.path("ledger").display().to_string();
    let environment = [
        ("REELGATE_LEDGER__KIND", "disk"),
        ("REELGATE_LEDGER__PATH", path.as_str()),
        ("REELGATE_BUDGETS__USER__PER_DAY", "0.75"),
    ];
    let options = || Options { key: Some(key.clone()), job_duration: Duration::from_millis(10), ..Options::default() };
    let served = Served::start(&key, options(), &[], &environment).await;
    let id = served.submit("one").await.request_id();
    eventually("the job is done", async || served.poll(&id).await.text().contains("done")).await;
    assert_eq!(served.submit("two").await.status, 402, "0.40 of 0.75 are spent");
    served.end().await;

    let served = Served::start(&key, options(), &[], &environment).await;
    let answer = served.submit("three").await;
    assert_eq!(answer.refusal(), (402, "budget_exhausted".to_owned()));
    served.end().await;
}
