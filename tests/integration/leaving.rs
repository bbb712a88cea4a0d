//! Clients that leave: before their body ends, while the upstream thinks, alone or all together (`HARDENING.md` F-20 to
//! F-22, T-69, `MONEY.md` M5, M6).

use std::time::Duration;

use reelgate::admission::settings::Rate;
use reelgate::simulator::{Fault, Form};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Door, GENERATIONS, SOON, Scene, together};

const ONE_A_MINUTE: Option<Rate> = Some(Rate { count: 1, per: Duration::from_secs(60) });
const BODY: &str = r#"{"prompt":"A candle."}"#;

/// The head of a submission whose body has this length.
fn head(length: usize) -> String {
    format!(
        "POST {GENERATIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Sends these bytes of a submission, and keeps the connection.
async fn begin(scene: &Scene, bytes: &[u8]) -> TcpStream {
    scene.note_submissions(1);
    let mut stream = TcpStream::connect(scene.gateway().address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Submits the candle, and keeps the connection.
async fn submit(scene: &Scene) -> TcpStream {
    begin(scene, format!("{}{BODY}", head(BODY.len())).as_bytes()).await
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
}

impl Leave {
    fn now(self, stream: TcpStream) {
        if matches!(self, Self::Reset) {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
    }
}

const WAYS: [Leave; 2] = [Leave::Close, Leave::Reset];

/// The id of the only job, found again by the same prompt, without a second POST.
async fn is_kept(scene: &Scene) {
    scene.metric_becomes("entries{state=\"accepted\"}", 1.0).await;
    let again = scene.submit("A candle.").await;
    assert!(again.cache_status().starts_with("reelgate; hit"), "{}", again.cache_status());
    assert_eq!(again.request_id(), scene.upstream.accepted()[0].request_id);
    assert_eq!(scene.upstream.posts(), 1);
}

async fn posts_become(scene: &Scene, posts: u64) {
    assert!(scene.upstream.wait_until(|counts| counts.posts >= posts, SOON).await, "no POST {posts}");
}

#[tokio::test]
async fn f21_a_client_that_leaves_within_its_body_sends_and_takes_nothing() {
    for leave in WAYS {
        let scene = Scene::with(|config, _| {
            config.limits.address.generations = ONE_A_MINUTE;
            config.limits.user.requests = ONE_A_MINUTE;
        })
        .await;
        let whole = format!("{}{BODY}", head(BODY.len()));
        for length in [head(BODY.len()).len(), whole.len() - 1] {
            let stream = begin(&scene, &whole.as_bytes()[..length]).await;
            scene.metric_becomes("requests_in_flight", 1.0).await;
            leave.now(stream);
            scene.metric_becomes("requests_in_flight", 0.0).await;
        }
        scene.metric_becomes("submissions_total{outcome=\"aborted\"}", 2.0).await;
        assert_eq!((scene.upstream.connections(), scene.upstream.posts()), (0, 0), "{leave:?}");
        assert_eq!(scene.submit("A candle.").await.cache_status(), "reelgate; fwd=miss; stored", "{leave:?}");
        scene.end().await;
    }
}

#[tokio::test]
async fn f20_f23_a_client_that_leaves_while_the_upstream_thinks_loses_nothing() {
    for leave in WAYS {
        let scene = Scene::start().await;
        scene.upstream.next_submission(Fault::Delay(Duration::from_millis(500)));
        let stream = submit(&scene).await;
        posts_become(&scene, 1).await;
        leave.now(stream);
        scene.metric_becomes("requests_in_flight", 0.0).await;
        is_kept(&scene).await;
        assert_eq!(scene.metric("submissions_total{outcome=\"created\"}").await, 1.0, "{leave:?}");
        scene.end().await;
    }
}

#[tokio::test]
async fn f20_a_client_that_leaves_after_the_answer_was_written_loses_nothing() {
    for leave in WAYS {
        let scene = Scene::start().await;
        let stream = submit(&scene).await;
        assert!(scene.upstream.wait_until(|counts| counts.answered == 1, SOON).await);
        leave.now(stream);
        is_kept(&scene).await;
        scene.end().await;
    }
}

#[tokio::test]
async fn f20_a_client_that_leaves_at_any_moment_is_one_post_at_most() {
    for leave in WAYS {
        let scene = Scene::start().await;
        scene.upstream.always_submission(Some(Fault::Delay(Duration::from_millis(20))));
        for round in 0..40_u64 {
            let prompt = format!("A candle {round}.");
            let body = json!({"prompt": prompt}).to_string();
            let stream = begin(&scene, format!("{}{body}", head(body.len())).as_bytes()).await;
            // Not to wait for anything: the moment itself is what is tried.
            tokio::time::sleep(Duration::from_micros(round * 300)).await;
            leave.now(stream);
        }
        scene.metric_becomes("requests_in_flight", 0.0).await;
        scene.metric_becomes("entries{state=\"claimed\"}", 0.0).await;
        scene.metric_becomes("entries{state=\"sending\"}", 0.0).await;
        let sent = scene.upstream.posts();
        let found = scene.upstream.accepted();
        assert_eq!(found.len() as u64, sent);
        for round in 0..40 {
            scene.submit(&format!("A candle {round}.")).await.request_id();
        }
        assert_eq!(scene.upstream.posts(), 40, "what was sent is a hit, what was not is sent now");
        scene.forgive_unread(40).await;
        scene.end().await;
    }
}

#[tokio::test]
async fn f20_a_client_that_only_closes_its_sending_side_is_no_second_post() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(300)));
    let mut stream = submit(&scene).await;
    posts_become(&scene, 1).await;
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the gateway did not close");
    scene.see(&answer);
    is_kept(&scene).await;
    scene.end().await;
}

#[tokio::test]
async fn f20_a_stream_of_http2_that_is_reset_loses_nothing() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(500)));
    let stream = TcpStream::connect(scene.gateway().address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = hyper::Request::post(format!("http://{}{GENERATIONS}", scene.gateway().address()))
        .header("content-type", "application/json")
        .body(http_body_util::Full::<bytes::Bytes>::from(BODY))
        .unwrap();
    scene.note_submissions(1);
    let call = tokio::spawn(async move {
        let answer = sender.send_request(request).await;
        (sender, answer)
    });
    posts_become(&scene, 1).await;
    // Dropping the call resets its stream.
    call.abort();
    scene.metric_becomes("requests_in_flight", 0.0).await;
    is_kept(&scene).await;
    driver.abort();
    scene.end().await;
}

#[tokio::test]
async fn t69_f22_when_the_first_of_fifty_leaves_the_others_are_served_by_one_post() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_secs(3)));
    let leader = submit(&scene).await;
    posts_become(&scene, 1).await;
    let (answers, ()) = tokio::join!(together((0..50).map(|_| scene.submit("A candle."))), async {
        scene.metric_becomes("requests_in_flight", 51.0).await;
        Leave::Reset.now(leader);
        scene.metric_becomes("requests_in_flight", 50.0).await;
    });
    let id = answers[0].request_id();
    for answer in &answers {
        assert_eq!((answer.request_id(), answer.cache_status()), (id.clone(), "reelgate; fwd=miss; collapsed"));
    }
    is_kept(&scene).await;
    scene.end().await;
}

#[tokio::test]
async fn t69_f22_when_all_leave_after_the_send_the_job_is_kept() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_secs(3)));
    let streams = together((0..50).map(|_| submit(&scene))).await;
    scene.metric_becomes("requests_in_flight", 50.0).await;
    posts_become(&scene, 1).await;
    for stream in streams {
        Leave::Reset.now(stream);
    }
    scene.metric_becomes("requests_in_flight", 0.0).await;
    is_kept(&scene).await;
    scene.end().await;
}

#[tokio::test]
async fn m6_when_all_leave_before_the_send_nothing_is_sent_and_everything_is_given_back() {
    let mut door = Door::blocked().await;
    let scene = Scene::with(|config, _| {
        config.upstream.url = door.origin();
        config.upstream.connect_timeout = Duration::from_secs(60);
        config.limits.total.generations = ONE_A_MINUTE;
    })
    .await;
    let streams = together((0..20).map(|_| submit(&scene))).await;
    scene.metric_becomes("requests_in_flight", 20.0).await;
    scene.metric_becomes("entries{state=\"claimed\"}", 1.0).await;
    for stream in streams {
        Leave::Close.now(stream);
    }
    scene.metric_becomes("requests_in_flight", 0.0).await;
    scene.metric_becomes("entries{state=\"claimed\"}", 0.0).await;
    door.open(scene.upstream.address());
    assert_eq!(scene.submit("A candle.").await.cache_status(), "reelgate; fwd=miss; stored");
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn m6_while_one_of_them_stays_the_attempt_goes_on() {
    let mut door = Door::blocked().await;
    let scene = Scene::with(|config, _| {
        config.upstream.url = door.origin();
        config.upstream.connect_timeout = Duration::from_secs(60);
    })
    .await;
    let leader = submit(&scene).await;
    scene.metric_becomes("entries{state=\"claimed\"}", 1.0).await;
    let (answer, ()) = tokio::join!(scene.submit("A candle."), async {
        scene.metric_becomes("requests_in_flight", 2.0).await;
        Leave::Close.now(leader);
        scene.metric_becomes("requests_in_flight", 1.0).await;
        door.open(scene.upstream.address());
    });
    assert_eq!(answer.cache_status(), "reelgate; fwd=miss; collapsed");
    is_kept(&scene).await;
    scene.end().await;
}

#[tokio::test]
async fn m5_the_twins_of_a_refused_attempt_fail_together() {
    let scene = Scene::start().await;
    let refusal = Fault::status(422, Form::xai("invalid-argument"));
    scene.upstream.next_submission(Fault::All(vec![refusal, Fault::Delay(Duration::from_secs(2))]));
    let answers = together((0..30).map(|_| scene.submit("A candle."))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (422, &answers[0].body));
    }
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("submissions_total{outcome=\"refused_upstream\"}").await, 1.0);
    assert_eq!(scene.metric("submissions_total{outcome=\"join\"}").await, 29.0);
    assert_eq!(scene.submit("A candle.").await.cache_status(), "reelgate; fwd=miss; stored");
    scene.end().await;
}

#[tokio::test]
async fn m5_the_twins_of_an_attempt_that_was_not_sent_fail_together() {
    let door = Door::blocked().await;
    let scene = Scene::with(|config, _| {
        config.upstream.url = door.origin();
        config.upstream.connect_timeout = Duration::from_secs(2);
    })
    .await;
    let answers = together((0..30).map(|_| scene.submit("A candle."))).await;
    for answer in &answers {
        assert_eq!(answer.refusal(), (504, "upstream_timeout".to_owned()));
    }
    let tried = scene.metric("upstream_requests_total{operation=\"submit\",outcome=\"not_sent\"}").await;
    assert_eq!(tried, 1.0, "they failed one after another");
    scene.end().await;
}

#[tokio::test]
async fn m5_a_twin_within_its_limits_does_not_inherit_a_refusal_by_a_limit() {
    let scene = Scene::with(|config, _| config.limits.user.generations = ONE_A_MINUTE).await;
    let of = |prompt: &str, user: &str| json!({"prompt": prompt, "user": user});
    scene.post(GENERATIONS, &of("A lamp.", "ann"), &[]).await.request_id();
    let (ann, ben) = (of("A candle.", "ann"), of("A candle.", "ben"));
    let both = [&ann, &ben, &ann, &ben].map(|body| scene.post(GENERATIONS, body, &[]));
    for (answer, user) in together(both).await.into_iter().zip(["ann", "ben", "ann", "ben"]) {
        match user {
            "ben" => _ = answer.request_id(),
            _ if answer.status == 200 => assert_ne!(answer.cache_status(), "reelgate; fwd=miss; stored"),
            _ => assert_eq!(answer.refusal(), (429, "rate_limited".to_owned())),
        }
    }
    assert_eq!(scene.upstream.posts(), 2);
    // A hit takes no generation.
    scene.post(GENERATIONS, &ann, &[]).await.request_id();
    scene.end().await;
}
