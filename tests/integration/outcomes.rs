//! What became of a submission, seen from outside: the upstream's answers and faults by their outcome, and the state that
//! each leaves behind (`MONEY.md` M12, M14, M17, M18, `HARDENING.md` F-01 to F-18).

use std::time::{Duration, Instant};

use reelgate::admission::settings::Rate;
use reelgate::simulator::{CutAt, Fault, Form, How, Malformed, Odd};
use serde_json::json;

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
    assert_eq!(answer.header("x-should-retry") == "false", in_doubt, "{fault:?}: {:?}", answer.headers);
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
