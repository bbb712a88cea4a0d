//! What became of a submission, seen from outside: the upstream's answers and faults by their outcome, and the state that
//! each leaves behind (`MONEY.md` M12, M14, M17, M18, `HARDENING.md` F-01 to F-18).

use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::simulator::{CutAt, Fault, Form, How, Malformed, Odd};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Answer, Door, GENERATIONS, Scene};

/// What the next identical submission meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// A new POST.
    Free,
    /// 409.
    Held,
    /// The job.
    Hit,
}

/// What a client is told.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// Our own error.
    Ours(u16, &'static str),
    /// The upstream's own words, of this status.
    Theirs(u16),
    /// The id of a job.
    Job,
}

use After::{Free, Held, Hit};
use Told::{Job, Ours, Theirs};

const BROKEN: Told = Ours(502, "outcome_unknown");
const SILENT: Told = Ours(504, "outcome_unknown");
const INVALID: Told = Ours(502, "upstream_invalid_answer");

/// Submits a prompt that meets `fault`, and then again; each row has a prompt of its own.
async fn row(scene: &Scene, fault: &Fault, told: Told, after: After) {
    let prompt = format!("{fault:?}").replace(['[', ']'], "").chars().take(500).collect::<String>();
    let before = scene.upstream.posts();
    let connections = scene.upstream.connections();
    scene.upstream.next_submission(fault.clone());
    let answer = scene.submit(&prompt).await;
    check_told(&answer, told, after, fault);
    assert_eq!(scene.upstream.connections(), connections + 1, "one connection for one POST: {fault:?}");
    check_after(scene, &prompt, &answer, after, fault).await;
    assert_eq!(scene.upstream.posts() - before, if after == Free { 2 } else { 1 }, "{fault:?}");
}

fn check_told(answer: &Answer, told: Told, after: After, fault: &Fault) {
    match told {
        Ours(status, code) => {
            assert_eq!(answer.status, status, "{fault:?}: {}", answer.text());
            assert_eq!(answer.code(), code, "{fault:?}");
        }
        Theirs(status) => {
            assert_eq!(answer.status, status, "{fault:?}: {}", answer.text());
            assert!(!answer.text().contains("\"type\":\"api_error\""), "{fault:?}: {}", answer.text());
            assert_eq!(answer.header("cache-control"), "no-store", "{fault:?}");
        }
        Job => assert!(!id(answer).is_empty(), "{fault:?}"),
    }
    let in_doubt = after == Held;
    let is_vain = in_doubt || matches!(told, Ours(_, "upstream_key_refused"));
    assert_eq!(answer.header("x-should-retry") == "false", is_vain, "{fault:?}: {:?}", answer.headers);
    if in_doubt {
        check_wait(answer);
    }
}

/// The id in an answer, which is the upstream's own body: xAI's form, or CometAPI's wrapper.
fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let id = body["request_id"].as_str().or_else(|| body["data"]["task_id"].as_str());
    id.expect("an id").to_owned()
}

/// M14: clients that sleep up to a minute and retry by themselves must not.
fn check_wait(answer: &Answer) {
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!(seconds >= 61, "Retry-After: {seconds}");
    assert_eq!(answer.header("x-should-retry"), "false");
}

async fn check_after(scene: &Scene, prompt: &str, first: &Answer, after: After, fault: &Fault) {
    let again = scene.submit(prompt).await;
    match after {
        Free => assert_eq!(again.cache_status(), "reelgate; fwd=miss; stored", "{fault:?}: {}", again.text()),
        Held => {
            assert_eq!(again.refusal(), (409, "outcome_unknown".to_owned()), "{fault:?}");
            check_wait(&again);
        }
        Hit => {
            assert_eq!(id(&again), id(first), "{fault:?}");
            assert!(again.cache_status().starts_with("reelgate; hit"), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn m17_what_an_error_status_says_of_the_money() {
    let scene = Scene::start().await;
    let comet = |status, code| Fault::status(status, Form::comet(code));
    for (fault, told, after) in [
        (comet(500, "internal_error"), Theirs(500), Free),
        (comet(500, "invalid_request"), Theirs(500), Free),
        (Fault::status(500, Form::xai("internal")), Theirs(500), Free),
        (Fault::status(500, Form::flat("internal_error")), Theirs(500), Free),
        (Fault::status(503, Form::flat("get_channel_failed")), Theirs(503), Free),
        (comet(500, "do_request_failed"), Theirs(500), Held),
        (Fault::status(500, Form::flat("fail_to_fetch_task")), Theirs(500), Held),
        (comet(503, "bad_response_status_code"), Theirs(503), Held),
        (comet(500, "read_response_body_failed"), Theirs(500), Held),
        (Fault::status(500, Form::Html), BROKEN, Held),
        (Fault::status(500, Form::Empty), BROKEN, Held),
        (Fault::status(503, Form::Html), BROKEN, Held),
        (comet(501, "not_implemented"), Theirs(501), Held),
        (comet(502, "bad_gateway"), Theirs(502), Held),
        (Fault::status(502, Form::Html), BROKEN, Held),
        (comet(504, "timeout"), Theirs(504), Held),
        (Fault::status(504, Form::Html), SILENT, Held),
        (Fault::status(520, Form::Html), BROKEN, Held),
        (Fault::status(524, Form::Html).and_accepted(), SILENT, Held),
        (Fault::status(524, Form::Empty), SILENT, Held),
        (Fault::All(vec![comet(500, "internal_error"), Fault::Encoded]), BROKEN, Held),
        (Fault::All(vec![comet(502, "bad_gateway"), Fault::Encoded]), BROKEN, Held),
    ] {
        row(&scene, &fault, told, after).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn f14_a_complete_4xx_passes_and_is_free() {
    let scene = Scene::start().await;
    for status in [400, 402, 403, 404, 409, 413, 422, 429] {
        row(&scene, &Fault::status(status, Form::comet("refused")), Theirs(status), Free).await;
    }
    row(&scene, &Fault::status(400, Form::Html), Theirs(400), Free).await;
    row(&scene, &Fault::status(401, Form::comet("invalid_api_key")), Ours(502, "upstream_key_refused"), Free).await;
    let encoded = Fault::All(vec![Fault::status(400, Form::comet("refused")), Fault::Encoded]);
    row(&scene, &encoded, INVALID, Free).await;
    scene.end().await;
}

#[tokio::test]
async fn f15_a_429_passes_with_its_retry_after_and_is_not_tried_again() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::RateLimited { retry_after: Some(17) });
    let answer = scene.submit("A candle.").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "17"));
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn f18_a_redirect_made_nothing_and_is_not_followed() {
    let scene = Scene::start().await;
    for status in [301, 302, 303, 307, 308] {
        let fault = Fault::Redirect { status, location: format!("{}/elsewhere", scene.upstream.origin()) };
        row(&scene, &fault, INVALID, Free).await;
    }
    assert!(scene.upstream.received().iter().all(|received| received.path == GENERATIONS));
    scene.end().await;
}

#[tokio::test]
async fn m18_what_a_2xx_says_of_the_money() {
    let scene = Scene::start().await;
    let code = |code: &str| Fault::Odd(Odd::Code(code.to_owned()));
    for (fault, told, after) in [
        (Fault::Odd(Odd::Wrapped), Job, Hit),
        (Fault::Odd(Odd::Accepted), Job, Hit),
        (Fault::Odd(Odd::ErrorWithId), Job, Hit),
        (Fault::Odd(Odd::Error), Theirs(200), Free),
        (code("insufficient_user_quota"), Theirs(200), Free),
        (code("something_else"), BROKEN, Held),
        (code("success"), BROKEN, Held),
        (Fault::Odd(Odd::Object), BROKEN, Held),
        (Fault::Odd(Odd::NoBody), BROKEN, Held),
        (Fault::Odd(Odd::NullId), BROKEN, Held),
        (Fault::Odd(Odd::NumberId), BROKEN, Held),
        (Fault::Odd(Odd::EmptyId), BROKEN, Held),
        (Fault::Odd(Odd::LongId), BROKEN, Held),
        (Fault::Odd(Odd::BadId), BROKEN, Held),
        (Fault::Odd(Odd::Html), BROKEN, Held),
        (Fault::Odd(Odd::HalfJson), BROKEN, Held),
        (Fault::Odd(Odd::Marked), BROKEN, Held),
        (Fault::Encoded, BROKEN, Held),
        (Fault::Padded(2 << 20), BROKEN, Held),
        (Fault::Padded(30_000), Job, Hit),
        (Fault::Chunked { bytes: 7 }, Job, Hit),
        (Fault::UntilClose, Job, Hit),
        (Fault::Interim(vec![100, 103]), Job, Hit),
        (Fault::Trickle { bytes: 64, every: Duration::from_millis(2) }, Job, Hit),
    ] {
        row(&scene, &fault, told, after).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn f11_broken_http_leaves_the_outcome_unknown() {
    let scene = Scene::start().await;
    for malformed in [
        Malformed::TwoLengths,
        Malformed::FoldedHeader,
        Malformed::WrongVersion,
        Malformed::NoStatusLine,
        Malformed::HugeHeader,
        Malformed::BadChunk,
        Malformed::MissingLastChunk,
        Malformed::ControlByte,
        Malformed::LengthAndChunked,
    ] {
        row(&scene, &Fault::Malformed(malformed), BROKEN, Held).await;
    }
    row(&scene, &Fault::Malformed(Malformed::BytesAfterEnd), Job, Hit).await;
    let garbage = Fault::Garbage(b"\x16\x03\x01 this is not HTTP\r\n\r\n".to_vec());
    row(&scene, &garbage, BROKEN, Held).await;
    scene.end().await;
}

/// Where the upstream's connection ends, and what is known then.
const CUTS: [(CutAt, bool); 8] = [
    (CutAt::BeforeRead, false),
    (CutAt::Request(30), false),
    (CutAt::AfterHeader, false),
    (CutAt::Request(450), false),
    (CutAt::BeforeAnswer, false),
    (CutAt::BeforeAnswer, true),
    (CutAt::Within(25), true),
    (CutAt::BeforeEnd, true),
];

/// A scene in which silence is short, and what follows it long.
async fn impatient() -> Scene {
    Scene::with(|config, _| {
        config.upstream.submit_timeout = Duration::from_millis(300);
        config.upstream.late_answer = Duration::from_millis(300);
    })
    .await
}

#[tokio::test]
async fn f05_f07_f10_a_cut_anywhere_is_one_post_at_most_and_leaves_the_outcome_unknown() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    for how in [How::Fin, How::Reset] {
        for (at, accepted) in CUTS {
            let what = format!("{at:?} {how:?} {accepted}");
            // Long enough for a cut in the midst of the body.
            let prompt = format!("{what} {}", "a candle ".repeat(100));
            let before = scene.upstream.counts();
            scene.upstream.next_submission(Fault::Cut { at, how, accepted });
            let answer = scene.submit(&prompt).await;
            assert_eq!(answer.refusal(), (502, "outcome_unknown".to_owned()), "{what}");
            assert_eq!(answer.header("proxy-status"), "reelgate; error=http_response_incomplete", "{what}");
            check_wait(&answer);
            let again = scene.submit(&prompt).await;
            assert_eq!(again.refusal(), (409, "outcome_unknown".to_owned()), "{what}");
            check_wait(&again);
            let counts = scene.upstream.counts();
            assert_eq!(counts.connections, before.connections + 1, "{what}");
            assert_eq!(counts.cut, before.cut + 1, "{what}");
            assert!(counts.posts <= before.posts + 1, "{what}");
            // A wish overrides the hold, and buys one more.
            let wished = scene.submit_with(&prompt, &[("cache-control", "no-cache")]).await;
            assert_eq!(wished.cache_status(), "reelgate; fwd=request; stored", "{what}");
            assert_eq!(scene.submit(&prompt).await.request_id(), wished.request_id(), "{what}");
            assert_eq!(scene.upstream.posts(), counts.posts + 1, "{what}");
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn f05_f08_silence_anywhere_is_one_post_at_most_and_leaves_the_outcome_unknown() {
    let scene = impatient().await;
    for (number, (at, accepted)) in CUTS.into_iter().enumerate() {
        let what = format!("{at:?} {accepted}");
        let prompt = format!("{what} {}", "a candle ".repeat(100));
        let before = scene.upstream.connections();
        scene.upstream.next_submission(Fault::Cut { at, how: How::Stall, accepted });
        let answer = scene.submit(&prompt).await;
        assert_eq!(answer.refusal(), (504, "outcome_unknown".to_owned()), "{what}");
        check_wait(&answer);
        scene.metric_becomes("entries{state=\"unknown\"}", (number + 1) as f64).await;
        let again = scene.submit(&prompt).await;
        assert_eq!(again.refusal(), (409, "outcome_unknown".to_owned()), "{what}");
        assert_eq!(scene.upstream.connections(), before + 1, "{what}");
    }
    scene.end().await;
}

#[tokio::test]
async fn f05_a_connection_that_ends_before_anything_is_read_is_told_as_what_is_certain() {
    let scene = Scene::start().await;
    let mut not_sent = 0;
    for how in [How::Fin, How::Reset] {
        for round in 0..10 {
            let prompt = format!("{how:?} {round}");
            let before = scene.upstream.posts();
            scene.upstream.next_connection(how);
            let answer = scene.submit(&prompt).await;
            assert_eq!((answer.status, scene.upstream.posts()), (502, before), "{prompt}");
            let again = scene.submit(&prompt).await;
            // Whether a byte was written before the end was seen is a race; what is told must fit what follows.
            match answer.code().as_str() {
                "upstream_unreachable" => {
                    assert_eq!(again.status, 200, "{prompt}");
                    not_sent += 1;
                }
                "outcome_unknown" => assert_eq!(again.status, 409, "{prompt}"),
                code => panic!("{prompt}: {code}"),
            }
        }
    }
    let counted = scene.metric("upstream_requests_total{operation=\"submit\",outcome=\"not_sent\"}").await;
    assert_eq!(counted, f64::from(not_sent));
    scene.end().await;
}

#[tokio::test]
async fn f05_an_answer_that_came_whole_counts_whatever_happens_to_its_connection() {
    let scene = Scene::start().await;
    for how in [How::Fin, How::Stall] {
        row(&scene, &Fault::Cut { at: CutAt::AfterAnswer, how, accepted: true }, Job, Hit).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn f01_a_refused_connection_is_not_sent_and_gives_everything_back() {
    let mut door = Door::closed();
    let scene = Scene::with(|config, _| {
        config.upstream.url = door.origin();
        config.limits.total.generations = Some(Rate { count: 1, per: Duration::from_secs(60) });
    })
    .await;
    for _ in 0..3 {
        let answer = scene.submit("A candle.").await;
        assert_eq!(answer.refusal(), (502, "upstream_unreachable".to_owned()));
        assert_eq!(answer.header("proxy-status"), "reelgate; error=connection_refused");
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(answer.header("x-should-retry"), "");
        assert_eq!(scene.metric("entries{state=\"claimed\"}").await, 0.0);
    }
    door.open(scene.upstream.address());
    assert_eq!(scene.submit("A candle.").await.cache_status(), "reelgate; fwd=miss; stored");
    assert_eq!(scene.submit("A lamp.").await.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("submissions_total{outcome=\"not_sent\"}").await, 3.0);
    scene.end().await;
}

#[tokio::test]
async fn f02_a_connection_that_never_comes_is_not_sent() {
    let mut door = Door::blocked().await;
    let scene = Scene::with(|config, _| {
        config.upstream.url = door.origin();
        config.upstream.connect_timeout = Duration::from_millis(300);
        config.limits.total.generations = Some(Rate { count: 1, per: Duration::from_secs(60) });
    })
    .await;
    let answer = scene.submit("A candle.").await;
    assert_eq!(answer.refusal(), (504, "upstream_timeout".to_owned()));
    assert_eq!(answer.header("proxy-status"), "reelgate; error=connection_timeout");
    door.open(scene.upstream.address());
    assert_eq!(scene.submit("A candle.").await.cache_status(), "reelgate; fwd=miss; stored");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn f08_a_twin_joins_what_is_still_awaited_and_the_late_answer_is_a_hit() {
    let scene = Scene::with(|config, _| config.upstream.submit_timeout = Duration::from_millis(300)).await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_secs(3)));
    let first = scene.submit("A candle.").await;
    assert_eq!(first.refusal(), (504, "outcome_unknown".to_owned()));
    check_wait(&first);
    let twin = scene.submit("A candle.").await;
    assert_eq!(twin.refusal(), (504, "outcome_unknown".to_owned()));
    check_wait(&twin);
    scene.metric_becomes("entries{state=\"accepted\"}", 1.0).await;
    let late = scene.submit("A candle.").await;
    assert_eq!(late.request_id(), scene.upstream.accepted()[0].request_id);
    assert!(late.cache_status().starts_with("reelgate; hit"));
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("submissions_total{outcome=\"join\"}").await, 1.0);
    scene.end().await;
}

#[tokio::test]
async fn m12_f08_an_answer_after_the_last_moment_still_turns_the_hold_into_a_hit() {
    let scene = impatient().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_secs(3)));
    assert_eq!(scene.submit("A candle.").await.refusal(), (504, "outcome_unknown".to_owned()));
    scene.metric_becomes("entries{state=\"unknown\"}", 1.0).await;
    assert_eq!(scene.submit("A candle.").await.refusal(), (409, "outcome_unknown".to_owned()));
    scene.metric_becomes("entries{state=\"accepted\"}", 1.0).await;
    assert_eq!(scene.submit("A candle.").await.request_id(), scene.upstream.accepted()[0].request_id);
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn m12_f08_a_late_refusal_frees_the_prompt() {
    let scene = impatient().await;
    let refusal = Fault::status(422, Form::xai("invalid-argument"));
    scene.upstream.next_submission(Fault::All(vec![refusal, Fault::Delay(Duration::from_secs(2))]));
    assert_eq!(scene.submit("A candle.").await.refusal(), (504, "outcome_unknown".to_owned()));
    scene.metric_becomes("entries{state=\"unknown\"}", 1.0).await;
    scene.metric_becomes("entries{state=\"unknown\"}", 0.0).await;
    assert_eq!(scene.submit("A candle.").await.cache_status(), "reelgate; fwd=miss; stored");
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn f09_an_answer_byte_by_byte_is_bounded_as_a_whole() {
    let scene = impatient().await;
    scene.upstream.next_submission(Fault::Trickle { bytes: 1, every: Duration::from_millis(30) });
    assert_eq!(scene.submit("A candle.").await.refusal(), (504, "outcome_unknown".to_owned()));
    assert_eq!(scene.upstream.counts().answered, 0, "the client was told before the answer's end");
    scene.metric_becomes("entries{state=\"accepted\"}", 1.0).await;
    scene.submit("A candle.").await.request_id();
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

/// How long an unknown outcome holds in the tests of its end.
const HOLD: Duration = Duration::from_secs(2);

/// Asks again and again, each time as `user` says, until it is not held. Says how long that took from `since`.
async fn until_free(scene: &Scene, since: Instant, user: impl Fn(usize) -> String) -> (Duration, Answer) {
    for number in 0.. {
        let body = json!({"prompt": "A candle.", "user": user(number)});
        let answer = scene.post(GENERATIONS, &body, &[]).await;
        if answer.status != 409 {
            return (since.elapsed(), answer);
        }
        assert!(since.elapsed() < HOLD * 4, "the hold never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!()
}

async fn held_scene() -> (Scene, Instant) {
    let scene = Scene::with(|config, _| config.dedup.unknown_hold = HOLD).await;
    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Fin));
    let body = json!({"prompt": "A candle.", "user": "ann"});
    let begun = Instant::now();
    assert_eq!(scene.post(GENERATIONS, &body, &[]).await.refusal(), (502, "outcome_unknown".to_owned()));
    (scene, begun)
}

#[tokio::test]
async fn m14_to_those_who_never_asked_the_prompt_is_free_when_the_hold_ends() {
    let (scene, begun) = held_scene().await;
    let (waited, answer) = until_free(&scene, begun, |number| format!("user-{number}")).await;
    assert_eq!(answer.cache_status(), "reelgate; fwd=miss; stored");
    assert!(waited >= HOLD && waited < HOLD * 2, "{waited:?}");
    // What is accepted for one is a hit for all, for the refused too.
    let body = json!({"prompt": "A candle.", "user": "ann"});
    assert_eq!(scene.post(GENERATIONS, &body, &[]).await.request_id(), answer.request_id());
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}

#[tokio::test]
async fn m14_a_caller_refused_in_the_last_moments_stays_refused_to_the_hard_end() {
    let (scene, begun) = held_scene().await;
    let (waited, answer) = until_free(&scene, begun, |_| "ann".to_owned()).await;
    assert_eq!(answer.cache_status(), "reelgate; fwd=miss; stored");
    assert!(waited >= HOLD * 2, "{waited:?}");
    assert_eq!(scene.upstream.posts(), 2);
    scene.end().await;
}
