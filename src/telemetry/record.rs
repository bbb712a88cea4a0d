//! What is known of one request: told to while it is served, carried inside its answer's body, and written when
//! it is dropped: one log line and its counts, exactly once, also for a client that leaves.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http_body::Body;
use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::WorkerTelemetry;
pub use super::body::Recorded;
use super::labels::{RouteLabel, Saved, SubmissionOutcome};
use super::line::name;
use super::request_ids::X_REQUEST_ID;
use super::settings::Level;
use super::submission_count::SubmissionCount;
use crate::access::teams::Pass;
use crate::bill::money::Amount;
use crate::error::Error;
use crate::request::fingerprint::Short;
use crate::request::head::Head;
use crate::request::route::RequestId;
use crate::request::trace::Trace;

/// One request.
pub struct Record {
    telemetry: WorkerTelemetry,
    begun: Instant,
    client: IpAddr,
    method: Method,
    route: RouteLabel,
    request_id: HeaderValue,
    trace: Option<Box<Trace>>,
    pass: Option<Rc<Pass>>,
    status: Option<StatusCode>,
    count: Option<SubmissionCount>,
    outcome: Option<SubmissionOutcome>,
    fingerprint: Option<Short>,
    job: Option<RequestId>,
    upstream: Option<(Option<StatusCode>, Duration)>,
    saved: Option<(Saved, Amount)>,
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
    /// Begins the record of a request that has just been read. It is boxed, because it moves with the answer.
    pub fn begin(telemetry: &WorkerTelemetry, peer: SocketAddr, head: &Head<'_>) -> Box<Self> {
        let route = RouteLabel::of(&head.method, head.uri.path());
        telemetry.metrics.requests_in_flight.inc();
        let request_id = telemetry.request_ids.of(&head.header);
        Box::new(Self {
            telemetry: telemetry.clone(),
            begun: Instant::now(),
            client: peer.ip(),
            method: head.method.clone(),
            route,
            trace: Trace::carried(&head.header, request_id.to_str().unwrap_or_default()).map(Box::new),
            request_id,
            pass: None,
            status: None,
            count: route.is_submission().then(|| SubmissionCount::begin(&telemetry.metrics)),
            outcome: None,
            fingerprint: None,
            job: None,
            upstream: None,
            saved: None,
            error: None,
            cause: None,
            bytes_in: 0,
            bytes_out: 0,
            body: Passage::Open,
        })
    }

    /// The request's id, as its answer and its log line state it.
    pub fn request_id(&self) -> &str {
        // Only visible ASCII is ever taken or made.
        self.request_id.to_str().unwrap_or_default()
    }

    /// The trace that the request belongs to, if its client named one.
    pub fn trace(&self) -> Option<Trace> {
        self.trace.as_deref().cloned()
    }

    /// What the request is for.
    pub const fn route(&self) -> RouteLabel {
        self.route
    }

    /// Who asks: the team, and the gateway key that it shows.
    pub fn by(&mut self, pass: &Rc<Pass>) {
        self.pass = Some(Rc::clone(pass));
    }

    /// The first digits of the submission's fingerprint.
    pub fn fingerprint(&mut self, short: Short) {
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

    /// What the submission did not cost, because its job was there already.
    pub fn saved(&mut self, reason: Saved, amount: Amount) {
        self.saved = Some((reason, amount));
        if let Some(pass) = &self.pass {
            self.telemetry.metrics.money.saved(&pass.team.name, reason, amount);
        }
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
        if let Error::UpstreamUnreachable(unreached) = error {
            self.cause(unreached.cause());
        }
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
    pub fn follow<B: Body>(mut self: Box<Self>, mut answer: Response<B>) -> Response<Recorded<B>> {
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
        let mut line = log.line_of(level, "request");
        line.plain(name!("request_id"), self.request_id());
        if let Some(trace) = &self.trace {
            line.plain(name!("trace_id"), trace.id());
        }
        line.address(name!("client.address"), self.client);
        if let Some(pass) = &self.pass {
            // Their names are checked by the configuration.
            line.plain(name!("team"), &pass.team.name);
            if let Some(key) = &pass.key {
                line.plain(name!("key"), &key.id);
            }
        }
        line.plain(name!("route"), self.route.name());
        line.plain(name!("method"), method_name(&self.method));
        line.number(name!("status"), status.as_u16().into());
        if let Some(outcome) = self.outcome {
            line.plain(name!("outcome"), outcome.name());
        }
        if let Some(fingerprint) = &self.fingerprint {
            line.plain(name!("fingerprint"), fingerprint.as_str());
        }
        if let Some(job) = &self.job {
            line.plain(name!("job"), job.as_str());
        }
        if let Some((reason, amount)) = &self.saved {
            line.dollars(name!("saved_usd"), *amount);
            line.plain(name!("saved_by"), reason.name());
        }
        line.milliseconds(name!("duration_ms"), duration);
        if let Some((status, duration)) = self.upstream {
            if let Some(status) = status {
                line.number(name!("upstream_status"), status.as_u16().into());
            }
            line.milliseconds(name!("upstream_ms"), duration);
        }
        line.number(name!("bytes_in"), self.bytes_in);
        line.number(name!("bytes_out"), self.bytes_out);
        if let Some(error) = self.error {
            line.plain(name!("error"), error);
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
        // Its handling panics just now, and the exchange answers in its place.
        if self.status.is_none() && std::thread::panicking() {
            self.status = Some(Error::Internal.status());
            self.body = Passage::Complete;
            self.error = Some(Error::Internal.code());
            self.telemetry.metrics.refused(&Error::Internal);
            self.telemetry.note_panicked(self.request_id.clone());
            if let Some(count) = &self.count {
                count.panicked();
                self.outcome = Some(SubmissionOutcome::of_refusal(&Error::Internal));
            }
        }
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

/// A method as the log names it. One that nobody knows may be as long as a head (T-71).
const fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "other",
    }
}

/// The status under which a request counts whose client went before it was answered. It is never sent.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests;
