//! What a poll does to the entry of its job, and when (`MONEY.md` M19 to M22).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use reelgate::bill::money::Amount;
use reelgate::config::Config;
use reelgate::simulator::{CutAt, End, Fault, Form, How, Odd, Options, Pending, Shape};
use reelgate::upstream::key::UpstreamKey;
use serde_json::json;

use super::{answers, is_hit, path, poll_with, wrapped};
use crate::support::{EDITS, Line, Scene, eventually};

/// A scene whose prompts are bought again, because their jobs end.
async fn scene_with(change: impl FnOnce(&mut Config, &mut Options)) -> Scene {
    let scene = Scene::with(change).await;
    scene.allow_buying_again();
    scene
}

#[tokio::test]
async fn m19_m20_t45_what_each_answer_does_to_the_entry() {
    let failed = |code: &str| Fault::End(End::failed(code, "no"));
    for shape in [Shape::Flat, Shape::Wrapper] {
        let scene = scene_with(|_, options| options.shape = shape).await;
        for (number, (fault, stays)) in [
            (Fault::Pending(Pending::Progress), true),
            (Fault::Pending(Pending::Accepted), true),
            (Fault::Pending(Pending::Empty), true),
            (Fault::Pending(Pending::IdOnly), true),
            (Fault::Pending(Pending::UnknownStatus), true),
            (Fault::End(End::Done), true),
            (Fault::End(End::DoneWithoutStatus), true),
            // In the wrapper the URL stands in `fail_reason`.
            (Fault::End(End::DoneWithoutUrl), shape == Shape::Wrapper),
            (failed("internal_error"), false),
            (failed("service_unavailable"), false),
            (Fault::End(End::Expired), false),
            (failed("invalid_argument"), true),
            (failed("permission_denied"), true),
            (failed("failed_precondition"), true),
            (Fault::End(End::Moderated), true),
            (Fault::End(End::Disrespectful), true),
            // A fresh job may not be visible on every node.
            (Fault::End(End::NotFound), true),
            (Fault::End(End::NoTask), true),
        ]
        .into_iter()
        .enumerate()
        {
            let prompt = format!("prompt {number}");
            let id = scene.submit(&prompt).await.request_id();
            poll_with(&scene, &id, fault.clone()).await;
            assert_eq!(is_hit(&scene, &prompt, &id).await, stays, "{fault:?} {shape:?}");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn m19_what_is_no_answer_about_the_job_ends_nothing() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    // From now on a 404 of the API's own would end it.
    poll_with(&scene, &id, Fault::Pending(Pending::Progress)).await;
    for fault in [
        Fault::status(400, Form::comet("invalid_request")),
        Fault::status(400, Form::xai("Client specified an invalid argument")),
        Fault::status(401, Form::comet("invalid_api_key")),
        Fault::status(403, Form::xai("permission-denied")),
        Fault::status(404, Form::Html),
        Fault::status(410, Form::Html),
        Fault::status(422, Form::xai("invalid-argument")),
        Fault::RateLimited { retry_after: Some(1) },
        Fault::status(500, Form::comet("internal_error")),
        Fault::status(502, Form::Html),
        Fault::status(503, Form::flat("get_channel_failed")),
        Fault::status(524, Form::Html),
        Fault::Redirect { status: 301, location: "https://simulated.invalid/".to_owned() },
        Fault::Odd(Odd::Html),
        Fault::Odd(Odd::HalfJson),
        Fault::Odd(Odd::Object),
        Fault::Garbage(b"\x16\x03\x01 this is not HTTP\r\n\r\n".to_vec()),
        Fault::All(vec![Fault::End(End::failed("internal_error", "unread")), Fault::Encoded]),
    ] {
        poll_with(&scene, &id, fault.clone()).await;
        assert!(is_hit(&scene, "a", &id).await, "{fault:?}");
    }
    scene.end().await;
}

#[tokio::test]
async fn m19_a_job_is_missing_only_to_the_key_that_made_it() {
    let scene = scene_with(|_, options| options.key = None).await;
    let use_key = |key: &str| scene.gateway().gateway().upstream.replace_key(UpstreamKey::parse(key).unwrap(), 0);
    let id = scene.submit("a").await.request_id();
    poll_with(&scene, &id, Fault::Pending(Pending::Progress)).await;
    use_key("sk-of-another-account");
    for end in [End::NotFound, End::NoTask] {
        poll_with(&scene, &id, Fault::End(end.clone())).await;
        assert!(is_hit(&scene, "a", &id).await, "{end:?}");
    }
    use_key(&scene.key);
    poll_with(&scene, &id, Fault::End(End::NotFound)).await;
    assert!(!is_hit(&scene, "a", &id).await);
    scene.end().await;
}

#[tokio::test]
async fn m21_t45_whoever_reads_failed_and_posts_at_once_gets_a_new_job() {
    let scene = scene_with(|_, _| {}).await;
    for round in 0..50 {
        let end = Fault::End(if round % 5 == 4 { End::Expired } else { End::failed("internal_error", "boom") });
        let chunked = Fault::Chunked { bytes: 9 };
        // All of the body, but not its end.
        let unended = Fault::cut(CutAt::BeforeEnd, How::Stall);
        let id = scene.submit("a").await.request_id();
        scene.upstream.next_poll(Fault::All(match round % 3 {
            0 => vec![end],
            1 => vec![end, chunked],
            _ => vec![end, chunked, unended],
        }));
        let mut line = Line::http1(scene.gateway().address()).await;
        let mut answer = line.ask("GET", &path(&id), &[], "").await;
        // The client waits only for as much as tells it.
        let mut told = Vec::new();
        while serde_json::from_slice::<serde_json::Value>(&told).is_err() {
            told.extend_from_slice(&answer.piece().await.expect("the answer ended").unwrap());
        }
        assert!(!is_hit(&scene, "a", &id).await, "round {round}");
        scene.see(&told);
    }
    scene.metric_becomes("jobs_total{outcome=\"failed\"}", 40.0).await;
    scene.metric_becomes("jobs_total{outcome=\"expired\"}", 10.0).await;
    assert_eq!(scene.upstream.posts(), 51);
    scene.end().await;
}

#[tokio::test]
async fn m20_a_billed_refusal_stays_a_hit_for_the_refusal_window_and_no_longer() {
    let refusals =
        [End::Moderated, End::Disrespectful, End::failed("invalid_argument", "no"), End::failed("moderated", "no")];
    for (window, stays) in [(Duration::from_secs(600), true), (Duration::ZERO, false)] {
        let scene = scene_with(|config, _| config.dedup.refusal_window = window).await;
        for end in &refusals {
            let prompt = format!("{end:?}");
            let id = scene.submit(&prompt).await.request_id();
            poll_with(&scene, &id, Fault::End(end.clone())).await;
            let again = scene.submit(&prompt).await;
            assert_eq!(again.request_id() == id, stays, "{end:?}");
            if stays {
                let seconds: u64 = again.cache_status().rsplit('=').next().unwrap().parse().unwrap();
                assert!((590..=600).contains(&seconds), "{seconds}");
                // The refusal is shown again, free of charge, and moves nothing.
                poll_with(&scene, &id, Fault::End(end.clone())).await;
                assert!(is_hit(&scene, &prompt, &id).await, "{end:?}");
            }
        }
        assert_eq!(scene.metric("jobs_total{outcome=\"moderated\"}").await, 3.0);
        assert_eq!(scene.metric("jobs_total{outcome=\"failed\"}").await, 1.0);
        scene.end().await;
    }
    let scene = scene_with(|config, _| config.dedup.refusal_window = Duration::from_millis(300)).await;
    let id = scene.submit("a").await.request_id();
    poll_with(&scene, &id, Fault::End(End::Moderated)).await;
    eventually("M20: the window ends", async || scene.submit("a").await.request_id() != id).await;
    scene.end().await;
}

#[tokio::test]
async fn m19_a_404_ends_an_entry_once_the_job_has_been_shown() {
    let missing = [
        Fault::End(End::NotFound),
        Fault::End(End::NoTask),
        Fault::status(410, Form::Empty),
        Fault::status(404, Form::Empty),
    ];
    for shown in [Fault::Pending(Pending::Progress), Fault::Pending(Pending::Empty), Fault::End(End::Done)] {
        let scene = scene_with(|_, _| {}).await;
        for fault in &missing {
            let prompt = format!("{fault:?}");
            let id = scene.submit(&prompt).await.request_id();
            let answer = poll_with(&scene, &id, fault.clone()).await;
            assert!(matches!(answer.status, 400 | 404 | 410), "a known job's answer passes");
            assert!(is_hit(&scene, &prompt, &id).await, "it may not be visible on every node yet: {fault:?}");
            poll_with(&scene, &id, shown.clone()).await;
            assert!(is_hit(&scene, &prompt, &id).await);
            poll_with(&scene, &id, fault.clone()).await;
            assert!(!is_hit(&scene, &prompt, &id).await, "{fault:?} after {shown:?}");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn m19_a_processing_behind_a_done_does_not_go_back() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    poll_with(&scene, &id, Fault::End(End::Done)).await;
    scene.metric_becomes("entries{state=\"done\"}", 1.0).await;
    for pending in [Pending::Progress, Pending::Empty, Pending::IdOnly] {
        poll_with(&scene, &id, Fault::Pending(pending)).await;
        assert_eq!(scene.metric("entries{state=\"done\"}").await, 1.0);
        assert!(is_hit(&scene, "a", &id).await);
    }
    poll_with(&scene, &id, Fault::End(End::Done)).await;
    assert_eq!(scene.metric("jobs_total{outcome=\"done\"}").await, 1.0, "told once");
    assert_eq!(scene.metric("jobs_running").await, 0.0);
    scene.end().await;
}

#[tokio::test]
async fn m1_a_late_end_of_an_old_job_does_not_take_its_successors_entry() {
    let scene = scene_with(|_, _| {}).await;
    let old = scene.submit("a").await.request_id();
    let new = scene.submit_with("a", &[("cache-control", "no-cache")]).await.request_id();
    assert_ne!(new, old);
    poll_with(&scene, &old, Fault::End(End::failed("internal_error", "boom"))).await;
    assert!(is_hit(&scene, "a", &new).await);
    scene.end().await;
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The `ttl` that a hit tells.
async fn ttl(scene: &Scene, prompt: &str) -> u64 {
    let answer = scene.submit(prompt).await;
    let status = answer.cache_status();
    status.strip_prefix("reelgate; hit; ttl=").unwrap_or_else(|| panic!("{status}")).parse().unwrap()
}

#[tokio::test]
async fn m22_the_window_is_counted_from_the_wrappers_finish_time() {
    const WINDOW: u64 = 23 * 3600;
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let created = unix_now().as_secs();
    // What comes first is neither the job's creation, nor its last poll, nor now.
    let finished = created + 3;
    eventually("the finish lies in the past", async || unix_now().as_millis() >= u128::from(finished * 1000 + 1100))
        .await;
    poll_with(&scene, &id, answers(200, &wrapped(finished))).await;
    let before = unix_now();
    let ttl_seen = ttl(&scene, "a").await;
    let after = unix_now();
    let left = |now: Duration| (Duration::from_secs(finished + WINDOW) - now).as_secs();
    // The two clocks may differ by the rounding of a millisecond.
    assert!((left(after).saturating_sub(1)..=left(before)).contains(&ttl_seen), "{ttl_seen}: {before:?} {finished}");
    scene.end().await;

    // Never before its creation, never in the future.
    let scene = Scene::start().await;
    for (prompt, finish_time) in [("past", 1_773_297_014), ("future", created + 1_000_000), ("unset", 0)] {
        let id = scene.submit(prompt).await.request_id();
        poll_with(&scene, &id, answers(200, &wrapped(finish_time))).await;
        let seconds = ttl(&scene, prompt).await;
        assert!((WINDOW - 5..=WINDOW).contains(&seconds), "{prompt}: {seconds}");
    }
    scene.end().await;
}

#[tokio::test]
async fn m22_without_a_finish_time_the_last_unfinished_poll_counts() {
    const WINDOW: u64 = 23 * 3600;
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let created = unix_now();
    let later = |wait: u64| move || unix_now() >= created + Duration::from_millis(wait);
    eventually("some time has passed", async || later(1500)()).await;
    poll_with(&scene, &id, Fault::Pending(Pending::Progress)).await;
    let shown = unix_now();
    eventually("more time has passed", async || later(2600)()).await;
    poll_with(&scene, &id, Fault::End(End::Done)).await;
    let seconds = ttl(&scene, "a").await;
    let since = |from: Duration| unix_now().checked_sub(from).unwrap().as_secs();
    assert!(seconds >= WINDOW - 1 - since(shown), "it is not counted from the creation: {seconds}");
    assert!(seconds < WINDOW - 1, "nor from now: {seconds}");
    scene.end().await;
}

#[tokio::test]
async fn a_head_is_asked_as_a_get_and_read_all_the_same() {
    let scene = scene_with(|_, _| {}).await;
    let id = scene.submit("a").await.request_id();
    scene.upstream.next_poll(Fault::Pending(Pending::Progress));
    let get = scene.poll(&id).await;
    scene.upstream.next_poll(Fault::Pending(Pending::Progress));
    let head = scene.ask(Method::HEAD, &path(&id), &[], "").await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    for name in ["content-type", "content-length", "x-content-type-options"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    scene
        .upstream
        .next_poll(Fault::All(vec![Fault::End(End::failed("internal_error", "boom")), Fault::Chunked { bytes: 5 }]));
    let head = scene.ask(Method::HEAD, &path(&id), &[], "").await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    assert!(!is_hit(&scene, "a", &id).await, "its end was read");
    let polls: Vec<_> = scene.upstream.received().into_iter().filter(|received| received.path == path(&id)).collect();
    assert_eq!(polls.len(), 3);
    assert!(polls.iter().all(|poll| poll.method == "GET"));
    scene.end().await;
}

#[tokio::test]
async fn f1a_a_client_that_leaves_within_a_poll_still_ends_the_entry() {
    let scene = scene_with(|_, _| {}).await;
    let id = scene.submit("a").await.request_id();
    // Slow enough that the client is away before the end, quick enough for the time that is granted to read it.
    scene.upstream.next_poll(Fault::All(vec![
        Fault::End(End::failed("internal_error", "boom")),
        Fault::Trickle { bytes: 8, every: Duration::from_millis(10) },
    ]));
    let mut line = Line::http1(scene.gateway().address()).await;
    let mut answer = line.ask("GET", &path(&id), &[], "").await;
    answer.piece().await.unwrap().unwrap();
    assert_eq!(scene.metric("jobs_total{outcome=\"failed\"}").await, 0.0);
    drop((answer, line));
    scene.metric_becomes("jobs_total{outcome=\"failed\"}", 1.0).await;
    assert!(!is_hit(&scene, "a", &id).await);
    scene.end().await;
}

#[tokio::test]
async fn edits_are_polled_like_generations() {
    let scene = scene_with(|_, _| {}).await;
    let body = json!({"prompt": "a", "video": {"url": "https://example.com/v.mp4"}});
    let id = scene.post(EDITS, &body, &[]).await.request_id();
    poll_with(&scene, &id, Fault::End(End::Expired)).await;
    assert_ne!(scene.post(EDITS, &body, &[]).await.request_id(), id);
    scene.end().await;
}

#[tokio::test]
async fn t78_numbers_that_no_clock_or_bill_can_hold_are_not_believed() {
    let scene = scene_with(|config, _| config.prices.ticks_factor = Amount::parse("1")).await;
    for (number, (finished, seconds, ticks)) in [
        (json!(u64::MAX), json!(u64::MAX), json!(u64::MAX)),
        (json!(u64::MAX / 1000), json!(1e308), json!(u64::MAX)),
        (json!(i64::MIN), json!(-1e308), json!(-1)),
        (json!(1e308), json!("1e308"), json!(1e308)),
        (json!("18446744073709551616"), json!("NaN"), json!("18446744073709551616")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = wrapped(0);
        body["data"]["finish_time"] = finished;
        body["data"]["data"]["video"]["duration"] = seconds;
        body["data"]["data"]["usage"] = json!({"cost_in_usd_ticks": ticks});
        let prompt = format!("prompt {number}");
        let id = scene.submit(&prompt).await.request_id();
        let answer = poll_with(&scene, &id, answers(200, &body)).await;
        assert_eq!(answer.json(), body, "it passes as it came");
        let hit = scene.submit(&prompt).await;
        let left: u64 = hit.cache_status().strip_prefix("reelgate; hit; ttl=").unwrap().parse().unwrap();
        assert!(hit.request_id() == id && (1..=82_800).contains(&left), "{body}: {left}");
        let spent = scene.metric("spend_usd_total{team=\"open\"}").await;
        assert!(spent.is_finite() && spent > 0.0, "{body}: {spent}");
    }
    scene.metric_becomes("jobs_total{outcome=\"done\"}", 5.0).await;
    scene.end().await;
}
