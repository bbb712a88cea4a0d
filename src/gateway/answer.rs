//! What is sent back: bodies, our own errors, and the headers that say how a submission went (`DESIGN.md` §5).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrayvec::ArrayString;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

use crate::error::{Error, Unreached};
use crate::jobs::dedup::Delivery;
use crate::jobs::entry::RETRY_AFTER_DOUBT;
use crate::server::in_flight::Place;
use crate::upstream::outcome::Answer;
use crate::upstream::relay::Relay;

/// The body of an answer.
pub enum Body {
    /// Nothing.
    Empty,
    /// All of it at once; taken when it is handed on.
    Whole(Bytes),
    /// The same, with somebody who wants to know whether it was taken (`MONEY.md` M15).
    Owed(Bytes, Option<Delivery>),
    /// A poll's, as it comes, and its place among the requests in work.
    Relayed(Relay, Option<Place>),
}

impl Body {
    /// A body that comes from the upstream keeps the place of its request: behind it is a connection.
    pub fn keep(&mut self, place: Place) {
        if let Self::Relayed(_, kept) = self {
            *kept = Some(place);
        }
    }
}

/// How a relayed body breaks.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Owed(bytes, delivery) => {
                let bytes = std::mem::take(bytes);
                if let Some(delivery) = delivery.take() {
                    delivery.taken();
                }
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Relayed(relay, _) => Pin::new(relay).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Owed(..) => false,
            Self::Relayed(relay, _) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) | Self::Owed(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relayed(relay, _) => relay.size_hint(),
        }
    }
}

/// How a submission was served, for `Cache-Status` (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// From a job that exists, worth giving out for that much longer.
    Hit(Duration),
    /// The same, though the ledger cannot be asked (M25).
    HitUnasked(Duration),
    /// By a new job.
    Stored,
    /// By a twin's attempt.
    Collapsed,
    /// By a new job that was wished for.
    Wished,
}

impl Served {
    fn cache_status(self) -> HeaderValue {
        match self {
            Self::Hit(ttl) | Self::HitUnasked(ttl) => {
                // On the stack: every hit has one.
                let mut text = ArrayString::<LONGEST_STATUS>::new();
                let detail = if matches!(self, Self::HitUnasked(_)) { "; detail=ledger-unavailable" } else { "" };
                for part in ["reelgate; hit; ttl=", itoa::Buffer::new().format(ttl.as_secs()), detail] {
                    // There is room for the largest number.
                    let _ = text.try_push_str(part);
                }
                HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("reelgate; hit"))
            }
            Self::Stored => HeaderValue::from_static("reelgate; fwd=miss; stored"),
            Self::Collapsed => HeaderValue::from_static("reelgate; fwd=miss; collapsed"),
            Self::Wished => HeaderValue::from_static("reelgate; fwd=request; stored"),
        }
    }
}

/// The answer to a submission that has a job: the body the upstream gave, whoever made it.
pub fn created(body: Bytes, served: Served, delivery: Option<Delivery>) -> Response<Body> {
    let body = match delivery {
        Some(delivery) => Body::Owed(body, Some(delivery)),
        None => Body::Whole(body),
    };
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    // Room for what the limits and the record add, so that the map does not grow on the way out.
    headers.reserve(USUAL_FIELDS);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CACHE_STATUS, served.cache_status());
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    answer
}

/// The upstream's own complete answer, passed on.
pub fn passed(answer: &Answer) -> Response<Body> {
    let mut passed = Response::new(Body::Whole(answer.body.clone()));
    *passed.status_mut() = answer.status;
    *passed.headers_mut() = answer.headers.clone();
    let headers = passed.headers_mut();
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    attribute(&mut passed);
    passed
}

/// Says of a refusal that passes that it is the upstream's and not ours (RFC 9209), behind what others on the way have
/// said.
pub fn attribute<B>(passed: &mut Response<B>) {
    let status = passed.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    if is_refusal && let Ok(received) = HeaderValue::try_from(format!("reelgate; received-status={}", status.as_u16()))
    {
        passed.headers_mut().append(PROXY_STATUS, received);
    }
}

/// What an answer whose outcome is unknown carries, whoever wrote it (`MONEY.md` M14).
pub fn mark_doubt(headers: &mut HeaderMap) {
    headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_DOUBT.as_secs()));
    headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
}

/// Our own error.
pub fn refusal(error: &Error) -> Response<Body> {
    let body = Bytes::from(error.body().to_string());
    let mut answer = Response::new(Body::Whole(body));
    *answer.status_mut() = error.status();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match error {
        // The same submission would meet the same: only time, or the operator, changes it.
        Error::OutcomeUnknown { .. }
        | Error::UpstreamKeyRefused
        | Error::UpstreamUnreachable(Unreached::Certificate) => {
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        // RFC 6750 §3: nothing more is told to who has not tried.
        Error::MissingKey => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"reelgate\""));
        }
        Error::InvalidKey => {
            let challenge = "Bearer realm=\"reelgate\", error=\"invalid_token\"";
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        Error::MethodNotAllowed { allow } => _ = headers.insert(ALLOW, HeaderValue::from_static(allow)),
        Error::UnsupportedMediaType { param: "Content-Encoding" } => {
            headers.insert("accept-encoding", HeaderValue::from_static("identity"));
        }
        Error::UnsupportedMediaType { .. } => _ = headers.insert("accept", JSON),
        _ => {}
    }
    if let Some(kind) = error.proxy_status() {
        let status = HeaderValue::try_from(format!("reelgate; error={kind}"));
        headers.extend(status.ok().map(|status| (PROXY_STATUS, status)));
    }
    answer
}

/// What was asked for, told of this moment.
pub fn told(body: Bytes) -> Response<Body> {
    let mut answer = document(body);
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// A document of our own.
pub fn document(body: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::Whole(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    answer
}

/// Leaves of an answer to a HEAD what a HEAD is told (RFC 9110 §9.3.2). For HTTP/1 hyper does so too, for HTTP/2 not.
pub fn behead(answer: &mut Response<Body>) {
    let body = std::mem::replace(answer.body_mut(), Body::Empty);
    if let (Some(length @ 1..), false) = (body.size_hint().exact(), answer.headers().contains_key(CONTENT_LENGTH)) {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// A request that was never read: hyper's own refusals have no body, and neither has this.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = status;
    answer
}

/// Says which deprecated fields were sent.
pub fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        headers.extend(HeaderValue::try_from(warning.as_str()).ok().map(|warning| (REELGATE_WARNING, warning)));
    }
}

/// More than any `Cache-Status` of ours takes, in bytes.
const LONGEST_STATUS: usize = 96;
/// Room for the fields of the answer to a submission, but for warnings and for what only a page is told.
const USUAL_FIELDS: usize = 8;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const REELGATE_WARNING: HeaderName = HeaderName::from_static("reelgate-warning");
const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
