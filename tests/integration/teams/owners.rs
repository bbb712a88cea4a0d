//! Whose a job is (M31, T-43): another team's is like one that nobody knows, also after a restart, and whoever met it
//! owns it.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method;
use reelgate::jobs::settings::{Adopt, By, Ownership, Scope};
use reelgate::simulator::{Options, Shape};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::deployment::Deployment;
use super::{LAB, STUDIO, bearer, poll_as, post_as, scene, scene_of, submit_as, token_for, two_teams};
use crate::support::{Answer, GENERATIONS, SOON, Scene, eventually, together};

/// What a client can see of an answer, but its own name and moment.
fn shown(answer: &Answer) -> (u16, Vec<String>, Vec<u8>) {
    let names = answer.headers.iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let headers = names.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    (answer.status, headers, answer.body.clone().unwrap_or_default().to_vec())
}

fn is_unknown(answer: &Answer) -> bool {
    answer.refusal() == (404, "unknown_job".to_owned())
}

#[tokio::test]
async fn inv5_m31_r66_t42_t43_another_teams_job_is_byte_for_byte_like_one_that_nobody_knows() {
    let scene = scene(|_, _| {}).await;
    let job = submit_as(&scene, STUDIO, "a candle").await.request_id();
    assert_eq!(poll_as(&scene, STUDIO, &job).await.status, 200);
    let polls = scene.upstream.counts().polls;
    let (others, unknown) = (poll_as(&scene, LAB, &job).await, poll_as(&scene, LAB, "nobodys").await);
    assert!(is_unknown(&others));
    assert_eq!(shown(&others), shown(&unknown));
    for path in [format!("/grok/v1/videos/{job}"), "/grok/v1/videos/nobodys".to_owned()] {
        let head = scene.ask(Method::HEAD, &path, &[("authorization", &bearer(LAB))], "").await;
        assert_eq!((head.status, head.text().len()), (404, 0));
    }
    assert_eq!(scene.upstream.counts().polls, polls, "the upstream was not asked");
    // INV-5: the same prompt of the other team is its own job.
    let other = submit_as(&scene, LAB, "a candle").await;
    assert_eq!(other.cache_status(), "reelgate; fwd=miss; stored");
    assert_ne!(other.request_id(), job);
    scene.allow_buying_again();
    scene.end().await;
}

#[tokio::test]
async fn inv5_t42_the_scope_says_who_shares() {
    // Without a word it is the team; each team has two users and a prompt without one.
    for (scope, jobs) in [(None, 2), (Some(Scope::User), 6), (Some(Scope::Team), 2), (Some(Scope::Global), 1)] {
        let scene = scene(|config, _| config.dedup.scope = scope.unwrap_or(config.dedup.scope)).await;
        scene.allow_buying_again();
        let mut ids = [const { BTreeSet::new() }; 2];
        for _ in 0..2 {
            for (ids, key) in ids.iter_mut().zip([STUDIO, LAB]) {
                for user in [json!({"user": "ann"}), json!({"user": "ben"}), json!({})] {
                    let mut body = json!({"prompt": "a candle"});
                    body.as_object_mut().unwrap().extend(user.as_object().unwrap().clone());
                    let answer = post_as(&scene, key, &body).await;
                    let is_new = ids.insert(answer.request_id()) && scope != Some(Scope::Global);
                    let stored = answer.cache_status() == "reelgate; fwd=miss; stored";
                    assert!(
                        stored || !is_new,
                        "{scope:?} {key}: another team's job is no hit: {}",
                        answer.cache_status()
                    );
                }
            }
        }
        let shared = ids[0].intersection(&ids[1]).count();
        assert_eq!(shared, usize::from(scope == Some(Scope::Global)), "{scope:?}: jobs that both teams were given");
        assert_eq!(scene.upstream.posts(), jobs, "{scope:?}");
        scene.end().await;
    }
}

#[tokio::test]
async fn m28_t47_a_team_that_floods_pushes_out_its_own_and_nothing_of_another() {
    let scene = scene(|config, options| {
        config.dedup.max_entries = 12;
        options.job_duration = Duration::ZERO;
    })
    .await;
    let done = async |key, prompt: String| {
        let id = submit_as(&scene, key, &prompt).await.request_id();
        eventually("done", async || poll_as(&scene, key, &id).await.text().contains("\"done\"")).await;
        id
    };
    let mut ours = Vec::new();
    for number in 0..3 {
        ours.push(done(STUDIO, format!("ours {number}")).await);
    }
    for number in 0..30 {
        done(LAB, format!("flood {number}")).await;
    }
    for (number, id) in ours.iter().enumerate() {
        let hit = submit_as(&scene, STUDIO, &format!("ours {number}")).await;
        assert_eq!((hit.request_id(), hit.cache_status().starts_with("reelgate; hit")), (id.clone(), true));
    }
    scene.allow_buying_again();
    assert_eq!(submit_as(&scene, LAB, "flood 0").await.cache_status(), "reelgate; fwd=miss; stored");
    scene.end().await;
}

#[tokio::test]
async fn m31_what_the_upstream_does_not_know_is_told_by_the_same_bytes_in_all_its_forms() {
    for shape in [Shape::Flat, Shape::Wrapper] {
        let scene = scene(|config, options| {
            config.polls.adopt_unknown = Adopt::Yes;
            options.shape = shape;
        })
        .await;
        let ours = submit_as(&scene, STUDIO, "a candle").await.request_id();
        let others = poll_as(&scene, LAB, &ours).await;
        for _ in 0..2 {
            assert_eq!(shown(&poll_as(&scene, LAB, "nobodys").await), shown(&others), "{shape:?}");
        }
        assert!(scene.upstream.counts().polls >= 2, "it was asked");
        scene.end().await;
    }
}

#[tokio::test]
async fn m31_with_ownership_off_everybody_polls() {
    let scene = scene(|config, _| config.polls.ownership = Ownership::Off).await;
    let job = submit_as(&scene, STUDIO, "a candle").await.request_id();
    assert_eq!(poll_as(&scene, LAB, &job).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn m31_an_unknown_id_belongs_to_the_first_team_that_polls_it_if_it_may() {
    // Jobs that another gateway made on the same account.
    let elsewhere = Scene::with(|_, options| options.key = None).await;
    let behind = elsewhere.upstream.origin();
    let job = elsewhere.submit("a candle").await.request_id();
    let adopting = scene(|config, _| {
        config.polls.adopt_unknown = Adopt::Yes;
        config.upstream.url.clone_from(&behind);
    })
    .await;
    let first = poll_as(&adopting, LAB, &job).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(is_unknown(&poll_as(&adopting, STUDIO, &job).await));
    assert_eq!(poll_as(&adopting, LAB, &job).await.status, 200);
    // Of many at once one team is the first.
    let job = elsewhere.submit("a lamp").await.request_id();
    let answers = together((0..40).map(|number| {
        let key = if number % 2 == 0 { STUDIO } else { LAB };
        poll_as(&adopting, key, &job)
    }))
    .await;
    let of_team = |team: usize| answers.iter().skip(team).step_by(2).filter(|answer| answer.status == 200).count();
    assert!([(20, 0), (0, 20)].contains(&(of_team(0), of_team(1))), "{} {}", of_team(0), of_team(1));
    adopting.end().await;

    // With several teams nobody gets it by default.
    let careful = scene(|config, _| config.upstream.url.clone_from(&behind)).await;
    let polls = elsewhere.upstream.counts().polls;
    assert!(is_unknown(&poll_as(&careful, LAB, &job).await));
    assert_eq!(elsewhere.upstream.counts().polls, polls, "the upstream was not asked");
    careful.end().await;

    // With one it is nobody else's.
    let one = two_teams("", "").split("[[teams]]\nname = \"lab\"").next().unwrap().to_owned();
    let alone = scene_of(&one, |config, _| config.upstream.url.clone_from(&behind)).await;
    assert_eq!(poll_as(&alone, STUDIO, &job).await.status, 200);
    alone.end().await;
    elsewhere.end().await;
}

#[tokio::test]
async fn inv5_m31_t42_with_a_global_scope_every_joiner_owns_it_and_learns_nothing_of_the_others() {
    let scene = scene(|config, options| {
        config.dedup.scope = Scope::Global;
        options.answer_delay = Duration::from_millis(300);
    })
    .await;
    let answers = together((0..6).map(|number| {
        let key = if number % 2 == 0 { STUDIO } else { LAB };
        submit_as(&scene, key, "a candle")
    }))
    .await;
    let job = answers[0].request_id();
    for answer in &answers {
        assert_eq!(answer.request_id(), job);
        assert!(!answer.text().contains("studio") && !answer.text().contains("lab"));
    }
    for key in [STUDIO, LAB] {
        assert_eq!(poll_as(&scene, key, &job).await.status, 200);
    }
    // A hit owns as well, and only the first one writes.
    let job = submit_as(&scene, STUDIO, "a lamp").await.request_id();
    assert!(is_unknown(&poll_as(&scene, LAB, &job).await));
    for _ in 0..3 {
        let hit = submit_as(&scene, LAB, "a lamp").await;
        assert_eq!(hit.request_id(), job);
        assert!(hit.cache_status().starts_with("reelgate; hit"));
    }
    assert_eq!(poll_as(&scene, LAB, &job).await.status, 200);
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn m16_with_a_global_scope_an_idempotency_key_says_nothing_to_another_team() {
    for by in [By::IdempotencyKey, By::Off] {
        let scene = scene(|config, _| (config.dedup.scope, config.dedup.by) = (Scope::Global, by)).await;
        let order = async |key: &str, prompt: &str| {
            let headers = [("authorization", &*bearer(key)), ("idempotency-key", "order-1")];
            scene.post(GENERATIONS, &json!({"prompt": prompt}), &headers).await
        };
        let job = order(STUDIO, "a candle").await.request_id();
        assert_eq!(order(STUDIO, "a candle").await.request_id(), job);
        let other = order(LAB, "a candle").await;
        assert_eq!(other.cache_status(), "reelgate; fwd=miss; stored", "{by:?}");
        assert_ne!(other.request_id(), job);
        scene.allow_buying_again();
        scene.end().await;
    }
}

#[tokio::test]
async fn m31_a_dry_run_tells_no_id_that_may_not_be_polled() {
    let scene = scene(|config, _| config.dedup.scope = Scope::Global).await;
    let dry = async |key: &str| {
        let headers = [("authorization", &*bearer(key)), ("reelgate-dry-run", "1")];
        scene.post(GENERATIONS, &json!({"prompt": "a candle"}), &headers).await.json()
    };
    let job = submit_as(&scene, STUDIO, "a candle").await.request_id();
    for (key, id) in [(STUDIO, json!(job)), (LAB, Value::Null)] {
        let told = dry(key).await;
        assert_eq!((&told["outcome"], &told["request_id"]), (&json!("hit"), &id));
    }
    assert_eq!(submit_as(&scene, LAB, "a candle").await.request_id(), job);
    assert_eq!(dry(LAB).await["request_id"], job, "it owns it now");
    scene.end().await;
}

#[tokio::test]
async fn m31_with_tokens_a_job_may_be_one_users_alone() {
    let scene = scene(|config, _| config.polls.ownership = Ownership::User).await;
    let (alice, bob) = (token_for(&scene, STUDIO, "alice").await, token_for(&scene, STUDIO, "bob").await);
    let of_lab = token_for(&scene, LAB, "alice").await;
    let job = submit_as(&scene, &alice, "a candle").await.request_id();
    assert_eq!(poll_as(&scene, &alice, &job).await.status, 200);
    for other in [&*bob, &of_lab, LAB] {
        assert!(is_unknown(&poll_as(&scene, other, &job).await));
    }
    // The team's backend sees what its users do, and speaks for them.
    assert_eq!(poll_as(&scene, STUDIO, &job).await.status, 200);
    let behalf = post_as(&scene, STUDIO, &json!({"prompt": "for bob", "user": "bob"})).await.request_id();
    assert_eq!(poll_as(&scene, &bob, &behalf).await.status, 200);
    assert!(is_unknown(&poll_as(&scene, &alice, &behalf).await));
    // Who meets it owns it.
    assert_eq!(submit_as(&scene, &bob, "a candle").await.request_id(), job);
    assert_eq!(poll_as(&scene, &bob, &job).await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn m31_the_owners_of_a_job_are_bounded() {
    let scene = scene(|config, _| {
        config.polls.ownership = Ownership::User;
        config.polls.max_owners = 2;
    })
    .await;
    let ask = |user: &str| json!({"prompt": "a candle", "user": user});
    for user in ["a", "b", "a"] {
        post_as(&scene, STUDIO, &ask(user)).await.request_id();
    }
    let full = post_as(&scene, STUDIO, &ask("c")).await;
    assert_eq!(full.refusal(), (503, "overloaded".to_owned()));
    assert_eq!(full.json()["error"]["param"], "polls.max_owners");
    scene.end().await;
}

#[tokio::test]
async fn m31_owners_survive_a_kill() {
    let text = two_teams("", "") + "[dedup]\nscope = \"global\"\n[limits.user]\ngenerations = \"off\"\n";
    let mut deployment = Deployment::start(&text).await;
    let made = deployment.submit(STUDIO, "a candle").await.request_id();
    let shared = deployment.submit(STUDIO, "a lamp").await.request_id();
    assert_eq!(deployment.submit(LAB, "a lamp").await.request_id(), shared, "a hit, which owns before it is told");
    deployment.served.program.signal(Signal::KILL);
    deployment.again(Options::default()).await;
    // Another upstream now, so what it answers is its own; whose the ids are is the ledger's word.
    for (key, job, known) in [(STUDIO, &made, true), (LAB, &made, false), (STUDIO, &shared, true), (LAB, &shared, true)]
    {
        let polls = deployment.served.upstream.counts().polls;
        assert_eq!(deployment.poll(key, job).await.status, 404);
        let asked = deployment.served.upstream.wait_until(|counts| counts.polls > polls, SOON / 20).await;
        assert_eq!(asked, known, "{key} {job}");
    }
    deployment.served.end().await;
}
