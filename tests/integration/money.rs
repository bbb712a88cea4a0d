//! Nothing is paid twice: hits, joins, wishes, variations, idempotency keys, and who shares with whom (`DESIGN.md` §3.1,
//! `MONEY.md` M13–M16, M30).

use std::time::Duration;

use reelgate::jobs::settings::{By, Scope};
use reelgate::simulator::{CutAt, Fault, Form, How};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Door, EDITS, GENERATIONS, SOON, Scene, together};

const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const STORED: &str = "reelgate; fwd=miss; stored";
const COLLAPSED: &str = "reelgate; fwd=miss; collapsed";
const WISHED: &str = "reelgate; fwd=request; stored";

/// Long enough for everything that a test does meanwhile.
const A_WHILE: Fault = Fault::Delay(Duration::from_secs(2));

async fn submit_as(scene: &Scene, user: &str, headers: &[(&str, &str)]) -> Answer {
    scene.post(GENERATIONS, &json!({"prompt": "A candle.", "user": user}), headers).await
}

/// Waits until so many POSTs have arrived upstream.
async fn posts_become(scene: &Scene, posts: u64) {
    assert!(scene.upstream.wait_until(|counts| counts.posts >= posts, SOON).await, "no POST {posts}");
}

fn is_hit(answer: &Answer) -> bool {
    answer.cache_status().starts_with("reelgate; hit; ttl=")
}

#[tokio::test]
async fn t68_a_hundred_equal_submissions_at_once_are_one_post_and_one_job() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(A_WHILE);
    let answers = together((0..100).map(|_| scene.submit("A candle."))).await;
    let id = answers[0].request_id();
    assert!(answers.iter().all(|answer| answer.request_id() == id && answer.body == answers[0].body));
    let served = |status| answers.iter().filter(|answer| answer.cache_status() == status).count();
    assert_eq!((served(STORED), served(COLLAPSED)), (1, 99));
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("submissions_total{outcome=\"created\"}").await, 1.0);
    assert_eq!(scene.metric("submissions_total{outcome=\"join\"}").await, 99.0);
    scene.end().await;
}

#[tokio::test]
async fn bodies_that_mean_the_same_share_and_others_do_not() {
    let scene = Scene::start().await;
    let first = scene.post_text(GENERATIONS, r#"{"prompt":"A candle.","duration":8}"#, &[]).await;
    for body in [
        r#"{"duration":8,"prompt":"A candle."}"#,
        r#" { "prompt" : "\u0041 candle." , "duration" : 8.0 } "#,
        r#"{"prompt":"A candle.","duration":8,"user":"ann"}"#,
    ] {
        let again = scene.post_text(GENERATIONS, body, &[]).await;
        assert_eq!(again.request_id(), first.request_id(), "{body}");
        assert!(is_hit(&again), "{body}");
    }
    for (posts, body) in [
        (2, r#"{"prompt":"A candle.","duration":9}"#),
        (3, r#"{"prompt":"A candle."}"#),
        (4, r#"{"prompt":"a candle.","duration":8}"#),
        (5, r#"{"prompt":"A candle.","duration":8,"not_known":1}"#),
    ] {
        let other = scene.post_text(GENERATIONS, body, &[]).await;
        assert_eq!(other.cache_status(), STORED, "{body}");
        assert_eq!(scene.upstream.posts(), posts, "{body}");
    }
    let edit = json!({"prompt": "A candle.", "video": {"url": "https://media.invalid/a.mp4"}});
    assert_eq!(scene.post(EDITS, &edit, &[]).await.cache_status(), STORED);
    assert!(is_hit(&scene.post(EDITS, &edit, &[]).await));
    scene.end().await;
}

#[tokio::test]
async fn a_long_image_is_sent_as_it_came_and_each_of_its_letters_counts() {
    let scene = Scene::start().await;
    let letters = "AbC/+9z0".repeat(80_000);
    let body =
        |letters: &str| format!(r#"{{"prompt":"A candle.","image":{{"url":"data:image/png;base64,{letters}"}}}}"#);
    let first = scene.post_text(GENERATIONS, &body(&letters), &[]).await;
    assert_eq!(first.cache_status(), STORED);
    assert_eq!(scene.upstream.received().last().unwrap().body, body(&letters).as_bytes());
    // In other words: with a user and an escape, so that all of it is parsed.
    let escaped =
        format!(r#"{{"user":"ann","image":{{"url":"data:image\/png;base64,{letters}"}},"prompt":"A candle."}}"#);
    let parsed = escaped.replacen(";base64,AbC", ";base64,\\u0041bC", 1);
    for again in [body(&letters), escaped, parsed] {
        let again = scene.post_text(GENERATIONS, &again, &[]).await;
        assert!(is_hit(&again) && again.request_id() == first.request_id());
    }
    for (posts, at) in [(2, 0), (3, letters.len() / 2), (4, letters.len() - 1)] {
        let mut other = letters.clone();
        other.replace_range(at..=at, "x");
        assert_eq!(scene.post_text(GENERATIONS, &body(&other), &[]).await.cache_status(), STORED, "{at}");
        assert_eq!(scene.upstream.posts(), posts, "{at}");
    }
    let broken = scene.post_text(GENERATIONS, &body(&format!("{letters}-")), &[]).await;
    assert_eq!((broken.status, scene.upstream.posts()), (422, 4));
    assert!(broken.text().contains("image.url"));
    scene.end().await;
}

#[tokio::test]
async fn m13_a_wish_buys_once_and_its_repetition_meets_its_own_job() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    let first = submit_as(&scene, "ann", &[]).await;
    for not_a_wish in [
        &[NO_CACHE, ("pragma", "no-cache")][..],
        &[("cache-control", "max-age=0")],
        &[("cache-control", "no-store")],
        &[("pragma", "no-cache")],
    ] {
        let answer = submit_as(&scene, "ann", not_a_wish).await;
        assert_eq!((answer.request_id(), is_hit(&answer)), (first.request_id(), true), "{not_a_wish:?}");
    }
    let wished = submit_as(&scene, "ann", &[NO_CACHE]).await;
    assert_eq!(wished.cache_status(), WISHED);
    assert_ne!(wished.request_id(), first.request_id());
    // An SDK's repetition of the same click.
    let again = submit_as(&scene, "ann", &[NO_CACHE]).await;
    assert_eq!((again.request_id(), is_hit(&again)), (wished.request_id(), true));
    let plain = submit_as(&scene, "ben", &[]).await;
    assert_eq!(plain.request_id(), wished.request_id(), "the wish replaced the entry");
    assert_eq!(scene.upstream.posts(), 2);
    let others = submit_as(&scene, "ben", &[NO_CACHE]).await;
    assert_eq!(others.cache_status(), WISHED);
    assert_eq!(scene.upstream.posts(), 3);
    scene.end().await;
}

#[tokio::test]
async fn m13_a_wish_beside_a_plain_attempt_in_flight_posts_anew() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    scene.upstream.next_submission(A_WHILE);
    let (plain, wished) = tokio::join!(submit_as(&scene, "ann", &[]), async {
        posts_become(&scene, 1).await;
        submit_as(&scene, "ann", &[NO_CACHE]).await
    });
    assert_eq!((plain.cache_status(), wished.cache_status()), (STORED, WISHED));
    assert_ne!(plain.request_id(), wished.request_id());
    assert_eq!(submit_as(&scene, "ben", &[]).await.request_id(), wished.request_id());
    assert_eq!(scene.upstream.posts(), 2);
    // The replaced attempt's job is not lost: it can be polled.
    scene.poll_until(&plain.request_id(), "\"done\"").await;
    scene.end().await;
}

#[tokio::test]
async fn m13_a_wish_in_flight_is_joined_by_its_repetition() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(A_WHILE);
    let (first, again) = tokio::join!(submit_as(&scene, "ann", &[NO_CACHE]), async {
        posts_become(&scene, 1).await;
        submit_as(&scene, "ann", &[NO_CACHE]).await
    });
    assert_eq!((first.cache_status(), again.cache_status()), (WISHED, COLLAPSED));
    assert_eq!(first.request_id(), again.request_id());
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn m13_a_wish_whose_outcome_is_unknown_holds_its_repetition() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Fin));
    let lost = submit_as(&scene, "ann", &[NO_CACHE]).await;
    assert_eq!(lost.refusal(), (502, "outcome_unknown".to_owned()));
    let again = submit_as(&scene, "ann", &[NO_CACHE]).await;
    assert_eq!(again.refusal(), (409, "outcome_unknown".to_owned()));
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(submit_as(&scene, "ben", &[NO_CACHE]).await.cache_status(), WISHED);
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn a_wish_that_makes_nothing_leaves_the_older_job_in_place() {
    let scene = Scene::start().await;
    let first = submit_as(&scene, "ann", &[]).await;
    scene.upstream.next_submission(Fault::status(400, Form::comet("invalid_request")));
    assert_eq!(submit_as(&scene, "ann", &[NO_CACHE]).await.status, 400);
    let again = submit_as(&scene, "ann", &[]).await;
    assert_eq!((again.request_id(), is_hit(&again)), (first.request_id(), true));
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn a_variation_is_another_take_and_itself_deduplicated() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    let plain = scene.submit("A candle.").await;
    let second = scene.submit_with("A candle.", &[("reelgate-variation", "2")]).await;
    assert_eq!(second.cache_status(), STORED);
    assert_ne!(second.request_id(), plain.request_id());
    let again = scene.submit_with("A candle.", &[("reelgate-variation", "2")]).await;
    assert_eq!((again.request_id(), is_hit(&again)), (second.request_id(), true));
    assert_eq!(scene.submit("A candle.").await.request_id(), plain.request_id());
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn an_idempotency_key_brings_its_own_job_and_no_other() {
    let scene = Scene::start().await;
    let key = [("idempotency-key", "order-1")];
    let first = scene.submit_with("A candle.", &key).await;
    assert_eq!(first.cache_status(), STORED);
    for headers in [&key[..], &[("idempotency-key", "\"order-1\"")], &[key[0], NO_CACHE]] {
        let again = scene.submit_with("A candle.", headers).await;
        assert_eq!((again.request_id(), is_hit(&again)), (first.request_id(), true), "{headers:?}");
    }
    let other = scene.submit_with("A lamp.", &key).await;
    assert_eq!(other.refusal(), (422, "idempotency_key_reused".to_owned()));
    assert_eq!(other.json()["error"]["param"], "Idempotency-Key");
    // A key that merely hit is bound all the same (M16).
    let late = [("idempotency-key", "order-2")];
    assert_eq!(scene.submit_with("A candle.", &late).await.request_id(), first.request_id());
    assert_eq!(scene.submit_with("A lamp.", &late).await.code(), "idempotency_key_reused");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn an_idempotency_key_in_flight_is_joined_even_by_a_wish() {
    let scene = Scene::start().await;
    let key = ("idempotency-key", "order-1");
    let keyed = [key];
    scene.upstream.next_submission(A_WHILE);
    let (first, again, other) = tokio::join!(
        scene.submit_with("A candle.", &keyed),
        async {
            posts_become(&scene, 1).await;
            scene.submit_with("A candle.", &[key, NO_CACHE]).await
        },
        async {
            posts_become(&scene, 1).await;
            scene.submit_with("A lamp.", &keyed).await
        }
    );
    assert_eq!(again.request_id(), first.request_id());
    assert_eq!(again.cache_status(), COLLAPSED);
    assert_eq!(other.code(), "idempotency_key_reused");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn an_idempotency_key_is_free_again_after_a_refusal_by_the_upstream() {
    let scene = Scene::start().await;
    let key = [("idempotency-key", "order-1")];
    scene.upstream.next_submission(Fault::status(422, Form::xai("invalid-argument")));
    assert_eq!(scene.submit_with("A candle.", &key).await.status, 422);
    assert_eq!(scene.submit_with("A lamp.", &key).await.cache_status(), STORED);
    assert_eq!(scene.submit_with("A candle.", &key).await.code(), "idempotency_key_reused");
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn an_idempotency_key_is_free_again_if_nothing_was_sent() {
    let mut door = Door::closed();
    let scene = Scene::with(|config, _| config.upstream.url = door.origin()).await;
    let key = [("idempotency-key", "order-1")];
    assert_eq!(scene.submit_with("A candle.", &key).await.code(), "upstream_unreachable");
    door.open(scene.upstream.address());
    assert_eq!(scene.submit_with("A lamp.", &key).await.cache_status(), STORED);
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn an_idempotency_key_stays_refused_while_its_outcome_is_unknown() {
    let scene = Scene::start().await;
    let key = ("idempotency-key", "order-1");
    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Fin));
    assert_eq!(scene.submit_with("A candle.", &[key]).await.refusal(), (502, "outcome_unknown".to_owned()));
    for headers in [&[key][..], &[key, NO_CACHE]] {
        let again = scene.submit_with("A candle.", headers).await;
        assert_eq!(again.refusal(), (409, "outcome_unknown".to_owned()), "{headers:?}");
    }
    assert_eq!(scene.submit_with("A lamp.", &[key]).await.code(), "idempotency_key_reused");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

async fn keys_alone_share() -> Scene {
    let scene = Scene::with(|config, _| config.dedup.by = By::IdempotencyKey).await;
    scene.allow_buying_again();
    scene
}

#[tokio::test]
async fn where_keys_alone_share_identical_bodies_are_as_many_jobs() {
    let scene = keys_alone_share().await;
    scene.upstream.always_submission(Some(Fault::Delay(Duration::from_millis(300))));
    let answers = together((0..4).map(|_| scene.submit("A candle."))).await;
    let ids: std::collections::HashSet<_> = answers.iter().map(Answer::request_id).collect();
    assert_eq!((ids.len(), scene.upstream.posts()), (4, 4));
    let fifth = scene.submit("A candle.").await;
    assert_eq!((fifth.cache_status(), scene.upstream.posts()), (STORED, 5));
    let key = [("idempotency-key", "order-1")];
    let keyed = together((0..4).map(|_| scene.submit_with("A candle.", &key))).await;
    assert!(keyed.iter().all(|answer| answer.request_id() == keyed[0].request_id()));
    assert!(!ids.contains(&keyed[0].request_id()));
    assert_eq!(scene.upstream.posts(), 6);
    assert_eq!(scene.submit_with("A lamp.", &key).await.code(), "idempotency_key_reused");
    let other = scene.submit_with("A candle.", &[("idempotency-key", "order-2")]).await;
    assert_eq!((other.cache_status(), scene.upstream.posts()), (STORED, 7));
    scene.end().await;
}

#[tokio::test]
async fn m15_f23_an_undelivered_job_is_adopted_once() {
    let scene = keys_alone_share().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_secs(1)));
    let body = r#"{"prompt":"A candle."}"#;
    let mut stream = TcpStream::connect(scene.gateway().address()).await.unwrap();
    let request = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    scene.note_submissions(1);
    stream.write_all(request.as_bytes()).await.unwrap();
    posts_become(&scene, 1).await;
    drop(stream);
    scene.metric_becomes("requests_in_flight", 0.0).await;
    scene.metric_becomes("entries{state=\"accepted\"}", 1.0).await;
    let adopted = scene.post_text(GENERATIONS, body, &[]).await;
    assert_eq!(adopted.request_id(), scene.upstream.accepted()[0].request_id);
    assert_eq!(scene.upstream.posts(), 1);
    let next = scene.post_text(GENERATIONS, body, &[]).await;
    assert_eq!((next.cache_status(), scene.upstream.posts()), (STORED, 2));
    scene.end().await;
}

#[tokio::test]
async fn m15_an_unknown_outcome_still_holds_an_equal_keyless_submission() {
    let scene = keys_alone_share().await;
    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Reset));
    assert_eq!(scene.submit("A candle.").await.refusal(), (502, "outcome_unknown".to_owned()));
    assert_eq!(scene.submit("A candle.").await.refusal(), (409, "outcome_unknown".to_owned()));
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.submit("A lamp.").await.cache_status(), STORED);
    scene.end().await;
}

#[tokio::test]
async fn with_dedup_off_nothing_is_shared() {
    let scene = Scene::with(|config, _| config.dedup.by = By::Off).await;
    scene.allow_buying_again();
    let one = scene.submit("A candle.").await;
    let two = scene.submit("A candle.").await;
    assert_ne!(one.request_id(), two.request_id());
    assert_eq!((two.cache_status(), scene.upstream.posts()), (STORED, 2));
    scene.end().await;
}

#[tokio::test]
async fn an_idempotency_key_reaches_no_further_than_the_scope() {
    let scene = Scene::with(|config, _| config.dedup.scope = Scope::User).await;
    let key = [("idempotency-key", "order-1")];
    submit_as(&scene, "ann", &key).await.request_id();
    let body = json!({"prompt": "A lamp.", "user": "ben"});
    assert_eq!(scene.post(GENERATIONS, &body, &key).await.cache_status(), STORED, "another user's key");
    let body = json!({"prompt": "A lamp.", "user": "ann"});
    assert_eq!(scene.post(GENERATIONS, &body, &key).await.code(), "idempotency_key_reused");
    scene.end().await;
}

#[tokio::test]
async fn m30_the_signature_of_a_url_does_not_buy_a_second_video() {
    let scene = Scene::with(|config, _| config.dedup.url_ignore = vec!["sig".to_owned(), "exp".to_owned()]).await;
    let of = |url: &str| -> Value { json!({"prompt": "A candle.", "image": {"url": url}}) };
    let first = of("https://media.invalid/a.png?v=1&sig=AAA&exp=1");
    let made = scene.post(GENERATIONS, &first, &[]).await;
    let again = scene.post(GENERATIONS, &of("https://media.invalid/a.png?v=1&sig=BBB&exp=2"), &[]).await;
    assert_eq!((again.request_id(), is_hit(&again)), (made.request_id(), true));
    assert_eq!(scene.upstream.received()[0].body, first.to_string().as_bytes(), "the bytes upstream are unchanged");
    for other in ["https://media.invalid/a.png?v=2&sig=AAA&exp=1", "https://media.invalid/b.png?v=1&sig=AAA&exp=1"] {
        assert_eq!(scene.post(GENERATIONS, &of(other), &[]).await.cache_status(), STORED, "{other}");
    }
    assert_eq!(scene.upstream.posts(), 3);
    scene.end().await;
}

#[tokio::test]
async fn m30_without_url_ignore_each_url_is_another_prompt() {
    let scene = Scene::start().await;
    for sig in ["AAA", "BBB"] {
        let body = json!({"prompt": "A candle.", "image": {"url": format!("https://media.invalid/a.png?sig={sig}")}});
        assert_eq!(scene.post(GENERATIONS, &body, &[]).await.cache_status(), STORED);
    }
    scene.end().await;
}
