//! Jobs that nobody polls are polled by us (`MONEY.md` M23).

use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::simulator::{End, Fault, How, Odd, Options, Pending};
use rustix::process::Signal;
use tokio::time::Instant;

use super::support::process::Served;
use super::support::{SOON, Scene, eventually, random_key};

const BY_US: &str = "upstream_requests_total{operation=\"watch\",outcome=\"ok\"}";

/// A scene that looks at a job after `quiet`.
async fn watching(quiet: Option<Duration>, change: impl FnOnce(&mut reelgate::config::Config, &mut Options)) -> Scene {
    Scene::with(|config, options| {
        config.polls.watch = quiet;
        change(config, options);
    })
    .await
}

const QUICK: Option<Duration> = Some(Duration::from_millis(50));

#[tokio::test]
async fn m23_a_job_that_no_client_polls_is_seen_to_its_end() {
    let scene = watching(QUICK, |config, _| config.running.user = Some(1)).await;
    let id = scene.submit("a candle").await.request_id();
    assert_eq!(scene.submit("a lamp").await.status, 429, "its place among the running is taken");
    scene.metric_becomes("jobs_total{outcome=\"done\"}", 1.0).await;
    assert_eq!(scene.metric("jobs_running").await, 0.0);
    assert_eq!(scene.metric("entries{state=\"done\"}").await, 1.0);
    assert!(scene.metric(BY_US).await >= 1.0);
    assert_eq!(scene.metric("upstream_requests_total{operation=\"poll\",outcome=\"ok\"}").await, 0.0);
    assert_eq!(scene.submit("a candle").await.request_id(), id, "it is a hit as after a client's poll");
    assert_eq!(scene.submit("a lamp").await.status, 200);
    let looks_at = |id: &str| scene.upstream.received().iter().filter(|one| one.path.ends_with(id)).count();
    let looks = looks_at(&id);
    scene.metric_becomes("jobs_total{outcome=\"done\"}", 2.0).await;
    assert_eq!(looks_at(&id), looks, "a job that has ended is not looked at any more");
    for received in scene.upstream.received().iter().filter(|received| received.method == "GET") {
        let head = String::from_utf8_lossy(&received.head).to_ascii_lowercase();
        assert!(head.contains(&format!("authorization: bearer {}", scene.key)), "it is asked for with our key");
        assert!(head.contains("accept-encoding: identity"), "so that it can be read");
    }
    scene.end().await;
}

#[tokio::test]
async fn m23_a_job_that_failed_unseen_frees_its_prompt() {
    let scene = watching(QUICK, |_, options| options.default_end = End::failed("internal_error", "boom")).await;
    scene.allow_buying_again();
    let id = scene.submit("a candle").await.request_id();
    scene.metric_becomes("jobs_total{outcome=\"failed\"}", 1.0).await;
    assert_ne!(scene.submit("a candle").await.request_id(), id);
    scene.end().await;
}

#[tokio::test]
async fn m23_off_leaves_jobs_to_their_clients() {
    let scene = watching(None, |_, _| {}).await;
    let id = scene.submit("a candle").await.request_id();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(scene.upstream.polls(), 0);
    scene.poll_until(&id, "\"done\"").await;
    scene.end().await;
}

#[tokio::test]
async fn m23_no_more_jobs_are_looked_at_at_once_than_allowed() {
    let scene = watching(QUICK, |config, _| config.polls.watch_concurrency = 2).await;
    scene.upstream.always_poll(Some(Fault::Stall));
    for number in 0..6 {
        scene.submit(&format!("prompt {number}")).await.request_id();
    }
    assert!(scene.upstream.wait_until(|counts| counts.polls >= 2, SOON).await);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(scene.upstream.polls(), 2);
    scene.end().await;
}

#[tokio::test]
async fn m23_looks_keep_to_a_share_of_the_upstreams_pace() {
    let scene = watching(Some(Duration::from_millis(10)), |config, options| {
        config.upstream.pace = Some(Rate { count: 1, per: Duration::from_secs(1) });
        options.job_duration = Duration::from_secs(3600);
    })
    .await;
    let begun = Instant::now();
    for number in 0..6 {
        scene.submit(&format!("prompt {number}")).await.request_id();
    }
    assert!(scene.upstream.wait_until(|counts| counts.polls >= 6, SOON).await);
    let looks = scene.upstream.polls();
    // Four a slot, and what a second may save up.
    let most = 4.0 * begun.elapsed().as_secs_f64() + 5.0;
    assert!(looks as f64 <= most, "{looks} looks, where {most:.1} are our share");
    scene.end().await;
}

#[tokio::test]
async fn m23_a_job_is_looked_at_less_and_less_often() {
    let scene = watching(QUICK, |_, options| options.job_duration = Duration::from_secs(3600)).await;
    scene.submit("a candle").await.request_id();
    assert!(scene.upstream.wait_until(|counts| counts.polls >= 5, SOON).await);
    let looks: Vec<_> = scene.upstream.received().iter().filter(|one| one.method == "GET").map(|one| one.at).collect();
    for (number, pair) in looks.windows(2).enumerate() {
        // The clocks may differ by a little.
        let least = Duration::from_millis(50 * (1 << number)) * 4 / 5;
        assert!(pair[1] - pair[0] >= least, "pause {number} is {:?}", pair[1] - pair[0]);
    }
    scene.end().await;
}

#[tokio::test]
async fn m23_what_is_no_answer_ends_nothing_and_is_looked_at_again() {
    let scene = watching(QUICK, |_, _| {}).await;
    for fault in [
        Fault::status(500, reelgate::simulator::Form::Html),
        Fault::Odd(Odd::HalfJson),
        Fault::Pending(Pending::Empty),
        Fault::All(vec![Fault::End(End::failed("internal_error", "unread")), Fault::Encoded]),
        Fault::cut(reelgate::simulator::CutAt::BeforeEnd, How::Reset),
    ] {
        scene.upstream.next_poll(fault);
    }
    let id = scene.submit("a candle").await.request_id();
    scene.metric_becomes("jobs_total{outcome=\"done\"}", 1.0).await;
    assert_eq!(scene.submit("a candle").await.request_id(), id);
    scene.end().await;
}

#[tokio::test]
async fn m23_an_upstream_that_wants_no_more_is_left_alone() {
    let scene = watching(QUICK, |_, _| {}).await;
    scene.upstream.always_poll(Some(Fault::RateLimited { retry_after: Some(60) }));
    for number in 0..3 {
        scene.submit(&format!("prompt {number}")).await.request_id();
    }
    assert!(scene.upstream.wait_until(|counts| counts.polls >= 1, SOON).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Those that were on their way together have all been told.
    assert!(scene.upstream.polls() <= 3, "{} looks", scene.upstream.polls());
    scene.end().await;
}

#[tokio::test]
async fn m23_a_clients_poll_puts_our_look_off() {
    let scene =
        watching(Some(Duration::from_secs(1)), |_, options| options.job_duration = Duration::from_secs(3600)).await;
    let id = scene.submit("a candle").await.request_id();
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_millis(2500) {
        scene.poll(&id).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let looked = scene.metric(BY_US).await;
    // On a machine that slept for so long, the job was indeed quiet.
    assert!(
        looked == 0.0 || longest >= Duration::from_millis(800),
        "{looked} looks; the longest pause was {longest:?}"
    );
    eventually("now nobody polls it", async || scene.metric(BY_US).await >= 1.0).await;
    scene.end().await;
}

#[tokio::test]
async fn m23_f01_that_our_looks_cannot_reach_the_upstream_is_told_once() {
    let key = random_key();
    let options = Options { key: Some(key.clone()), job_duration: Duration::from_secs(3600), ..Options::default() };
    let environment = [("REELGATE_POLLS__WATCH", "50ms"), ("REELGATE_LIMITS__USER__GENERATIONS", "off")];
    let served = Served::start(&key, options, &[], &environment).await;
    for number in 0..8 {
        assert_eq!(served.submit(&format!("prompt {number}")).await.status, 200);
    }
    let Served { upstream, program, admin, .. } = served;
    // Four at once wait for an answer, and then find nobody to ask once more.
    upstream.always_poll(Some(Fault::Stall));
    let looks = upstream.counts().polls;
    assert!(upstream.wait_until(|counts| counts.polls >= looks + 4, SOON).await);
    upstream.stop().await;
    program.says("our own polls cannot reach the upstream").await;
    eventually("all four have met it", async || {
        let metrics = super::support::ask(admin, hyper::Method::GET, "/metrics", &[], "").await.text();
        super::support::value(&metrics, "upstream_requests_total{operation=\"watch\",outcome=\"not_sent\"}") >= 4.0
    })
    .await;
    let output = program.output();
    let told: Vec<_> = output.lines().filter(|line| line.contains("our own polls cannot reach")).collect();
    assert!(told.len() == 1 && told[0].contains("the connection was refused or reset"), "{told:?}");
}

/// How many jobs could be looked at while it drains.
const JOBS: u64 = 24;

#[tokio::test]
async fn m23_nothing_is_looked_at_while_it_drains() {
    let key = random_key();
    let options = Options { key: Some(key.clone()), job_duration: Duration::from_secs(3600), ..Options::default() };
    let environment = [
        ("REELGATE_POLLS__WATCH", "50ms"),
        ("REELGATE_POLLS__WATCH_CONCURRENCY", "2"),
        ("REELGATE_SERVER__SHUTDOWN_GRACE", "4s"),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
    ];
    let served = Served::start(&key, options, &[], &environment).await;
    for number in 0..JOBS {
        assert_eq!(served.submit(&format!("prompt {number}")).await.status, 200);
    }
    served.upstream.next_submission(Fault::Stall);
    let Served { upstream, mut program, address, .. } = served;
    // It keeps the process from ending at once.
    let paid = tokio::spawn(async move {
        let json = [("content-type", "application/json")];
        super::support::ask(address, hyper::Method::POST, super::support::GENERATIONS, &json, r#"{"prompt":"b"}"#).await
    });
    assert!(upstream.wait_until(|counts| counts.posts == JOBS + 1, SOON).await);
    program.signal(Signal::TERM);
    program.says("draining").await;
    let (drains, looks) = (Instant::now(), upstream.polls());
    program.ended().await;
    assert!(drains.elapsed() >= Duration::from_secs(3), "it waited for what was paid: {}", program.output());
    // Four seconds are time enough to look at every job once more. What was in hand may still arrive.
    let more = upstream.polls() - looks;
    assert!(more < JOBS / 2, "{more} looks after {looks}");
    paid.abort();
}
