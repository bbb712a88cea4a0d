//! What is known of one request: told to while it is served, carried inside its answer's body, and written when
//! it is dropped: one log line and its counts, exactly once, also for a client that leaves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::Telemetry;
pub use super::body::Recorded;
use super::labels::{RouteLabel, SubmissionOutcome};
use super::request_ids::X_REQUEST_ID;
use super::settings::Level;
use super::submission_count::SubmissionCount;
use crate::error::Error;
use crate::request::route::RequestId;

/// One request.
pub struct Record {
    telemetry: Arc<Telemetry>,
    begun: Instant,
    client: IpAddr,
    method: Method,
    route: RouteLabel,
    request_id: HeaderValue,
    team: Option<Arc<str>>,
    status: Option<StatusCode>,
    count: Option<SubmissionCount>,
    outcome: Option<SubmissionOutcome>,
    fingerprint: Option<String>,
    job: Option<RequestId>,
    upstream: Option<(Option<StatusCode>, Duration)>,
    error: Option<&'static str>,
    cause: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    body: Passage,
}

/// How far the answer's body has got.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Not at its end: if the record is dropped now, the client has left.
    Open,
    /// Its last byte was handed on.
    Complete,
    /// Its source failed.
    Broken,
}

impl Record {
    /// Begins the record of a request that has just been read.
    pub fn begin<B>(telemetry: &Arc<Telemetry>, peer: SocketAddr, request: &Request<B>) -> Self {
        let route = RouteLabel::of(request.method(), request.uri().path());
        telemetry.metrics.requests_in_flight.inc();
        Self {
            telemetry: Arc::clone(telemetry),
            begun: Instant::now(),
            client: peer.ip(),
            method: request.method().clone(),
            route,
            request_id: telemetry.request_ids.of(request.headers()),
            team: None,
            status: None,
            count: route.is_submission().then(|| SubmissionCount::begin(&telemetry.metrics)),
            outcome: None,
            fingerprint: None,
            job: None,
            upstream: None,
            error: None,
            cause: None,
            bytes_in: 0,
            bytes_out: 0,
            body: Passage::Open,
        }
    }

    /// The request's id, as its answer and its log line state it.
    pub fn request_id(&self) -> &str {
        // Only visible ASCII is ever taken or made.
        self.request_id.to_str().unwrap_or_default()
    }

    /// What the request is for.
    pub const fn route(&self) -> RouteLabel {
        self.route
    }

    /// The client's address, where it is not the peer's.
    pub const fn client(&mut self, address: IpAddr) {
        self.client = address;
    }

    /// The team that asks.
    pub fn team(&mut self, team: &Arc<str>) {
        self.team = Some(Arc::clone(team));
    }

    /// The first digits of the submission's fingerprint.
    pub fn fingerprint(&mut self, short: String) {
        self.fingerprint = Some(short);
    }

    /// The job that is polled, made or given out.
    pub fn job(&mut self, job: &RequestId) {
        self.job = Some(job.clone());
    }

    /// The length of the request's body.
    pub const fn bytes_in(&mut self, bytes: u64) {
        self.bytes_in = bytes;
    }

    /// What the upstream answered on behalf of this request, if anything, and how long it took.
    pub const fn upstream(&mut self, status: Option<StatusCode>, duration: Duration) {
        self.upstream = Some((status, duration));
    }

    /// What has become of the submission.
    pub fn outcome(&mut self, outcome: SubmissionOutcome) {
        self.outcome = Some(outcome);
        if let Some(count) = &self.count {
            count.settle(outcome);
        }
    }

    /// The refusal that the client is told: counts it, and states the submission's outcome by it.
    pub fn refused(&mut self, error: &Error) {
        self.error = Some(error.code());
        self.telemetry.metrics.refused(error);
        if self.route.is_submission() {
            self.outcome(SubmissionOutcome::of_refusal(error));
        }
    }

    /// Why, in words for the operator. The client is never told; a secret must not be in it.
    pub fn cause(&mut self, cause: impl Into<String>) {
        self.cause = Some(cause.into());
    }

    /// The count of this submission, for the attempt that outlives the request. `None` for what is no submission.
    pub const fn count(&self) -> Option<&SubmissionCount> {
        self.count.as_ref()
    }

    /// Puts the record into the answer, to be written when its body ends, and the request's id into its header.
    pub fn follow<B: Body>(mut self, mut answer: Response<B>) -> Response<Recorded<B>> {
        self.status = Some(answer.status());
        answer.headers_mut().insert(X_REQUEST_ID, self.request_id.clone());
        // hyper drops the bodies of these without reading them.
        let unread = self.method == Method::HEAD
            || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || answer.body().is_end_stream();
        if unread {
            self.body = Passage::Complete;
        }
        answer.map(|body| Recorded { body, record: Some(self) })
    }

    /// So many bytes of the answer's body were handed on.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.bytes_out = self.bytes_out.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The answer's body has come to an end.
    pub(super) const fn body_ends(&mut self, passage: Passage) {
        self.body = passage;
    }

    fn client_left(&self) -> bool {
        self.body == Passage::Open || self.outcome == Some(SubmissionOutcome::Aborted)
    }

    fn write_line(&self, status: StatusCode, duration: Duration) {
        let ours_to_mend = self.body == Passage::Broken || (self.error.is_some() && status.is_server_error());
        let level = if ours_to_mend { Level::Warn } else { Level::Info };
        let log = &self.telemetry.log;
        if !log.shows(level) {
            return;
        }
        let mut line = log.line(level, "request");
        line.field("request_id", self.request_id());
        line.field("client.address", &self.client);
        if let Some(team) = &self.team {
            line.field("team", team);
        }
        line.field("route", self.route.name());
        line.field("method", &self.method);
        line.literal("status", status.as_u16());
        if let Some(outcome) = self.outcome {
            line.field("outcome", outcome.name());
        }
        if let Some(fingerprint) = &self.fingerprint {
            line.field("fingerprint", fingerprint);
        }
        if let Some(job) = &self.job {
            line.field("job", job);
        }
        line.milliseconds("duration_ms", duration);
        if let Some((status, duration)) = self.upstream {
            if let Some(status) = status {
                line.literal("upstream_status", status.as_u16());
            }
            line.milliseconds("upstream_ms", duration);
        }
        line.literal("bytes_in", self.bytes_in);
        line.literal("bytes_out", self.bytes_out);
        if let Some(error) = self.error {
            line.field("error", error);
        }
        if let Some(cause) = &self.cause {
            line.field("cause", cause);
        }
        if self.client_left() {
            line.literal("client_left", true);
        }
        log.write(level, line);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        let gone = self.outcome == Some(SubmissionOutcome::Aborted);
        let status = self.status.filter(|_| !gone).unwrap_or_else(client_closed_request);
        if self.route.is_submission() {
            self.outcome.get_or_insert(SubmissionOutcome::Aborted);
        }
        let metrics = &self.telemetry.metrics;
        metrics.requests.inc(self.route, status);
        metrics.request_duration.observe(self.route, duration);
        metrics.requests_in_flight.dec();
        self.write_line(status, duration);
    }
}

/// The status under which a request counts whose client went before it was answered. It is never sent.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::io::Write;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, Empty, Full};
    use serde_json::{Value, json};

    use super::*;
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

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
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

        fn begin(&self, method: &str, path: &str) -> Record {
            let request =
                Request::builder().method(method).uri(path).header("x-request-id", "mine-1").body(()).unwrap();
            Record::begin(&self.telemetry, "192.0.2.7:5000".parse().unwrap(), &request)
        }

        fn lines(&self) -> Vec<Value> {
            assert!(self.telemetry.flush(Duration::from_secs(10)));
            let bytes = self.output.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }

        fn submissions(&self) -> Vec<(&'static str, u64)> {
            let count =
                |outcome: &SubmissionOutcome| (outcome.name(), self.telemetry.metrics.submissions.value(*outcome));
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
        record.team(&"open".into());
        record.fingerprint("0123456789ab".to_owned());
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
            ("/grok/v1/videos/job-1", Error::UpstreamTimeout),
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
        let want = [
            ("info", "rate_limited"),
            ("warn", "internal_error"),
            ("info", "bad_request"),
            ("warn", "upstream_timeout"),
        ];
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
}
