//! Requests that are served, refused, left and cut: each is counted once, and its line says which.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::{Value, json};

use super::*;
use crate::request::fingerprint::Fingerprint;
use crate::telemetry::Telemetry;
use crate::telemetry::settings::Settings;

const GENERATIONS: &str = "/grok/v1/videos/generations";

/// What was written, for a test to read.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A body of these frames, which does not know its end before it comes.
struct Chunks(VecDeque<Result<Frame<Bytes>, &'static str>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.0.pop_front())
    }
}

struct Fixture {
    telemetry: Arc<Telemetry>,
    output: Output,
}

impl Fixture {
    fn at(level: Level) -> Self {
        let output = Output::default();
        let settings = Settings { level, ..Settings::default() };
        Self { telemetry: Telemetry::with_output(&settings, Box::new(output.clone())).unwrap(), output }
    }

    fn new() -> Self {
        Self::at(Level::Info)
    }

    fn begin(&self, method: &str, path: &str) -> Box<Record> {
        let request =
            hyper::Request::builder().method(method).uri(path).header("x-request-id", "mine-1").body(()).unwrap();
        Record::begin(
            &WorkerTelemetry::new(&self.telemetry),
            "192.0.2.7:5000".parse().unwrap(),
            &Head::of(&request.into_parts().0),
        )
    }

    fn lines(&self) -> Vec<Value> {
        assert!(self.telemetry.flush(Duration::from_secs(10)));
        let bytes = self.output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn submissions(&self) -> Vec<(&'static str, u64)> {
        let count = |outcome: &SubmissionOutcome| (outcome.name(), self.telemetry.metrics.submissions.value(*outcome));
        SubmissionOutcome::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }

    fn answers(&self, route: RouteLabel, status: u16) -> u64 {
        self.telemetry.metrics.requests.value(route, StatusCode::from_u16(status).unwrap())
    }
}

fn answer<B>(status: u16, body: B) -> Response<B> {
    Response::builder().status(status).body(body).unwrap()
}

#[tokio::test]
async fn inv10_a_served_submission_counts_once_and_writes_one_line() {
    let fixture = Fixture::new();
    let mut record = fixture.begin("POST", GENERATIONS);
    assert_eq!(fixture.telemetry.metrics.requests_in_flight.get(), 1);
    record.by(&Rc::new(Pass::open()));
    record.fingerprint(Fingerprint::from_hex(&"0123456789ab".repeat(6)[..64]).unwrap().short());
    record.job(&RequestId::parse("job-1").unwrap());
    record.bytes_in(42);
    record.upstream(Some(StatusCode::OK), Duration::from_micros(2_500));
    record.outcome(SubmissionOutcome::Created);
    let answer = record.follow(answer(200, Full::new(Bytes::from_static(b"{\"request_id\":1}"))));
    assert_eq!(answer.headers()["x-request-id"], "mine-1");
    assert_eq!(answer.body().size_hint().exact(), Some(16));
    answer.into_body().collect().await.unwrap();

    let lines = fixture.lines();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for (field, want) in [
        ("level", json!("info")),
        ("message", json!("request")),
        ("request_id", json!("mine-1")),
        ("client.address", json!("192.0.2.7")),
        ("team", json!("open")),
        ("route", json!("generations")),
        ("method", json!("POST")),
        ("status", json!(200)),
        ("outcome", json!("created")),
        ("fingerprint", json!("0123456789ab")),
        ("job", json!("job-1")),
        ("upstream_status", json!(200)),
        ("upstream_ms", json!(2.5)),
        ("bytes_in", json!(42)),
        ("bytes_out", json!(16)),
        ("client_left", Value::Null),
        ("error", Value::Null),
    ] {
        assert_eq!(line[field], want, "{field}");
    }
    assert_eq!(fixture.submissions(), [("created", 1)]);
    assert_eq!(fixture.answers(RouteLabel::Generations, 200), 1);
    assert_eq!(fixture.telemetry.metrics.request_duration.count(RouteLabel::Generations), 1);
    assert_eq!(fixture.telemetry.metrics.requests_in_flight.get(), 0);
}

#[test]
fn inv10_a_client_that_leaves_early_is_counted_once_too() {
    let fixture = Fixture::new();
    drop(fixture.begin("POST", GENERATIONS));
    assert_eq!(fixture.submissions(), [("aborted", 1)]);
    assert_eq!(fixture.answers(RouteLabel::Generations, 499), 1);
    assert_eq!(fixture.telemetry.metrics.requests_in_flight.get(), 0);
    let lines = fixture.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["client_left"], &lines[0]["outcome"]), (&json!(true), &json!("aborted")));
}

#[test]
fn inv10_a_request_that_panics_counts_as_what_is_answered() {
    let fixture = Fixture::new();
    for (method, path) in [("POST", GENERATIONS), ("GET", "/grok/v1/videos/job-1")] {
        let record = fixture.begin(method, path);
        let worker = record.telemetry.clone();
        let panics = std::panic::AssertUnwindSafe(move || {
            let _held = record;
            panic!("as the test wants it");
        });
        std::panic::catch_unwind(panics).unwrap_err();
        let named = worker.name_panicked(answer(500, ()));
        assert_eq!(named.headers()["x-request-id"], "mine-1");
        assert!(worker.name_panicked(answer(500, ())).headers().is_empty(), "it is named once");
    }
    assert_eq!(fixture.submissions(), [("unavailable", 1)]);
    assert_eq!([RouteLabel::Generations, RouteLabel::Poll].map(|route| fixture.answers(route, 500)), [1, 1]);
    for line in fixture.lines() {
        assert_eq!((&line["level"], &line["error"]), (&json!("warn"), &json!("internal_error")));
        assert_eq!(line.get("client_left"), None);
    }
}

#[test]
fn inv10_an_attempt_counts_as_what_it_became_though_its_client_left() {
    let fixture = Fixture::new();
    let record = fixture.begin("POST", GENERATIONS);
    let count = record.count().unwrap().clone();
    drop(record);
    assert_eq!(fixture.submissions(), []);
    count.settle(SubmissionOutcome::Created);
    assert_eq!(fixture.submissions(), [("created", 1)]);
    assert!(fixture.begin("GET", "/grok/v1/videos/job-1").count().is_none());
}

#[tokio::test]
async fn inv10_a_refusal_states_outcome_limit_and_level() {
    let fixture = Fixture::new();
    let wait = Duration::from_secs(3);
    for (path, error) in [
        (GENERATIONS, Error::RateLimited { limit: "user.generations", retry_after: wait }),
        (GENERATIONS, Error::Internal),
        (GENERATIONS, Error::Aborted),
        ("/grok/v1/videos/job-1", Error::PollTimeout),
    ] {
        let mut record = fixture.begin("POST", path);
        record.refused(&error);
        record.cause("why");
        let answer = record.follow(answer(error.status().as_u16(), Full::new(Bytes::from_static(b"no"))));
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(fixture.submissions(), [("limited", 1), ("unavailable", 1), ("aborted", 1)]);
    assert_eq!(fixture.answers(RouteLabel::Generations, 499), 1, "a client that went was not answered");
    let seen: Vec<_> = fixture
        .lines()
        .iter()
        .map(|line| (line["level"].clone(), line["error"].clone(), line["cause"].clone()))
        .collect();
    let want =
        [("info", "rate_limited"), ("warn", "internal_error"), ("info", "bad_request"), ("warn", "upstream_timeout")];
    assert_eq!(seen, want.map(|(level, error)| (json!(level), json!(error), json!("why"))));
    let text = String::from_utf8(fixture.telemetry.metrics.text().to_vec()).unwrap();
    assert!(text.contains("reelgate_limited_total{kind=\"generations\",limit=\"user\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_line_tells_a_client_that_left_from_a_body_that_broke_and_from_one_that_is_never_read() {
    let chunks = |last: Option<Result<Frame<Bytes>, &'static str>>| {
        let mut chunks = vec![Ok(Frame::data(Bytes::from_static(b"abc")))];
        chunks.extend(last);
        Chunks(chunks.into())
    };
    let fixture = Fixture::new();
    let path = "/grok/v1/videos/job-1";
    let mut left =
        fixture.begin("GET", path).follow(answer(200, chunks(Some(Ok(Frame::data(Bytes::new())))))).into_body();
    left.frame().await.unwrap().unwrap();
    drop(left);
    let mut broken = fixture.begin("GET", path).follow(answer(200, chunks(Some(Err("cut"))))).into_body();
    broken.frame().await.unwrap().unwrap();
    broken.frame().await.unwrap().unwrap_err();
    let mut whole = fixture.begin("GET", path).follow(answer(200, chunks(None))).into_body();
    while whole.frame().await.is_some() {}
    drop(fixture.begin("HEAD", path).follow(answer(200, chunks(None))));
    drop(fixture.begin("GET", path).follow(answer(200, Empty::<Bytes>::new())));
    drop((broken, whole));
    let seen: Vec<_> = fixture
        .lines()
        .iter()
        .map(|line| (line["level"].clone(), line["client_left"].clone(), line["bytes_out"].clone()))
        .collect();
    let want = [
        (json!("info"), json!(true), json!(3)),
        (json!("warn"), Value::Null, json!(3)),
        (json!("info"), Value::Null, json!(3)),
        (json!("info"), Value::Null, json!(0)),
        (json!("info"), Value::Null, json!(0)),
    ];
    assert_eq!(seen, want);
    assert_eq!(fixture.answers(RouteLabel::Poll, 200), 5);
    assert_eq!(fixture.telemetry.metrics.requests_in_flight.get(), 0);
}

#[tokio::test]
async fn a_level_above_the_line_keeps_the_counts_and_leaves_the_line_out() {
    let fixture = Fixture::at(Level::Warn);
    let record = fixture.begin("GET", "/nothing");
    let body = record.follow(answer(404, Full::<Bytes>::from("no"))).into_body();
    let _: Result<_, Infallible> = body.collect().await;
    assert_eq!(fixture.lines(), Vec::<Value>::new());
    assert_eq!(fixture.answers(RouteLabel::Other, 404), 1);
    fixture.telemetry.log.set_level(Level::Info);
    drop(fixture.begin("GET", "/nothing"));
    assert_eq!(fixture.lines().len(), 1);
}
