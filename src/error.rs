//! Every refusal: its status, its code, and what the client is told. The cause behind it goes to the log alone.

mod message;

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;

/// One thing that is wrong with a body: which field, by which rule, in words for whoever wrote the frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field's path, `image.url`; empty for the body as a whole.
    pub param: String,
    /// The rule's name: the JSON Schema keyword, or `unknown_field`, `near_miss`.
    pub code: &'static str,
    /// What is wrong and what is allowed. Without the field's name, which stands beside it.
    pub message: String,
}

impl Fault {
    /// As it is told; a fault of the body as a whole has no field.
    pub fn to_json(&self) -> serde_json::Value {
        let param = Some(&self.param).filter(|param| !param.is_empty());
        serde_json::json!({"param": param, "code": self.code, "message": self.message})
    }
}

/// Why an outcome is in doubt, and so which status tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// An earlier submission of the same prompt is held (409).
    Held,
    /// The connection broke, or the answer could not be understood (502).
    Broken,
    /// No answer came in time (504).
    Silent,
}

/// How a call to the upstream failed before any byte of it was sent: RFC 9209's error types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// The name has no address.
    Dns,
    /// The connection was refused or reset.
    Refused,
    /// No connection in time.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The upstream's certificate is not trusted. Unlike the others this does not pass: somebody must mend it.
    Certificate,
}

impl Unreached {
    /// The `error` parameter of `Proxy-Status` (RFC 9209 §2.3).
    pub const fn proxy_status(self) -> &'static str {
        match self {
            Self::Dns => "dns_error",
            Self::Refused => "connection_refused",
            Self::Timeout => "connection_timeout",
            Self::Tls => "tls_protocol_error",
            Self::Certificate => "tls_certificate_error",
        }
    }

    /// The same for the operator's log, with what decides it.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Dns => "the name in upstream.url has no address",
            Self::Refused => "the connection was refused or reset",
            Self::Timeout => "no connection within upstream.connect_timeout",
            Self::Tls => "the TLS handshake failed",
            Self::Certificate => {
                "the upstream's certificate is not trusted: it is by no authority of upstream.roots, for another name \
                 than upstream.url has, or out of date"
            }
        }
    }
}

/// A request that is not served, and why. What the client reads is [`Error::message`]; `DESIGN.md` §5 lists the codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.code())]
pub enum Error {
    /// The body is not strict JSON (RFC 8259).
    InvalidJson {
        /// What is wrong, with line and column.
        message: String,
    },
    /// The request itself is malformed.
    BadRequest {
        /// The header or part that is wrong.
        param: &'static str,
        /// What is wrong and what to do.
        message: Cow<'static, str>,
    },
    /// There is no gateway key.
    MissingKey,
    /// What was presented is no gateway key or token, or none that is good.
    InvalidKey,
    /// A page of a foreign origin tried to call.
    OriginRefused,
    /// A token is for another user than the body names.
    UserMismatch,
    /// The team, or its key, may not ask for this model.
    ModelNotAllowed {
        /// The field that names it.
        param: &'static str,
    },
    /// The key is not for this.
    RouteNotAllowed {
        /// Its name in the configuration.
        route: &'static str,
    },
    /// No such path.
    NotFound,
    /// A path of xAI's that this API does not offer.
    NotOffered,
    /// A token was asked for where nobody needs one.
    NoTokens,
    /// No job has this id, or none of this team's.
    UnknownJob,
    /// The path exists, the method does not.
    MethodNotAllowed {
        /// The `Allow` header's value.
        allow: &'static str,
    },
    /// The body did not come in time.
    RequestTimeout,
    /// Nobody knows whether the upstream made, and billed, a job.
    OutcomeUnknown {
        /// Why.
        doubt: Doubt,
        /// When asking again makes sense; at least 61 s (`MONEY.md` M14).
        retry_after: Duration,
    },
    /// The body is longer than `server.max_body`.
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The body is not plain `application/json`.
    UnsupportedMediaType {
        /// `Content-Type` or `Content-Encoding`.
        param: &'static str,
    },
    /// The Host is none of ours.
    MisdirectedRequest,
    /// The body breaks its schema.
    InvalidRequest(Vec<Fault>),
    /// The idempotency key came before with another body.
    IdempotencyKeyReused,
    /// The request target is too long.
    UriTooLong,
    /// The header is too large.
    HeaderTooLarge,
    /// A limit is reached.
    RateLimited {
        /// The limit's name: `user.generations`, `address.requests`, ….
        limit: &'static str,
        /// When it is over.
        retry_after: Duration,
    },
    /// A budget is used up.
    BudgetExhausted {
        /// The budget's name: `user.per_day`, `total.seconds_per_month`, ….
        limit: &'static str,
        /// When the next day or month begins; a token's budget is never renewed.
        retry_after: Option<Duration>,
    },
    /// Our own fault.
    Internal,
    /// Nothing was sent: the upstream could not be reached.
    UpstreamUnreachable(Unreached),
    /// A poll was not answered in time.
    PollTimeout,
    /// The upstream answered a submission with something that is no answer; nothing was made.
    UpstreamInvalidAnswer,
    /// It answered a poll so.
    PollUnreadable,
    /// The upstream refused our key.
    UpstreamKeyRefused,
    /// More work at once than the configuration allows.
    Overloaded {
        /// What is full.
        what: &'static str,
    },
    /// The ledger cannot be written, so nothing may be bought.
    LedgerUnavailable,
    /// The process is ending; nothing was sent.
    Draining,
    /// The request has passed through this gateway before (RFC 9110 §7.6.3).
    LoopDetected,
    /// The client went before its body was complete; nobody reads the answer.
    Aborted,
}

impl Error {
    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::InvalidJson { .. } | Self::BadRequest { .. } | Self::Aborted => StatusCode::BAD_REQUEST,
            Self::MissingKey | Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::OriginRefused | Self::UserMismatch | Self::ModelNotAllowed { .. } | Self::RouteNotAllowed { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound | Self::NotOffered | Self::NoTokens | Self::UnknownJob => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::OutcomeUnknown { doubt: Doubt::Held, .. } => StatusCode::CONFLICT,
            Self::OutcomeUnknown { doubt: Doubt::Broken, .. }
            | Self::UpstreamUnreachable(
                Unreached::Dns | Unreached::Refused | Unreached::Tls | Unreached::Certificate,
            )
            | Self::UpstreamInvalidAnswer
            | Self::PollUnreadable
            | Self::UpstreamKeyRefused => StatusCode::BAD_GATEWAY,
            Self::OutcomeUnknown { doubt: Doubt::Silent, .. }
            | Self::UpstreamUnreachable(Unreached::Timeout)
            | Self::PollTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::InvalidRequest(_) | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BudgetExhausted { .. } => StatusCode::PAYMENT_REQUIRED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded { .. } | Self::LedgerUnavailable | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
        }
    }

    /// The stable `error.code`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } => "invalid_json",
            Self::BadRequest { .. } | Self::Aborted => "bad_request",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::OriginRefused => "origin_refused",
            Self::UserMismatch => "user_mismatch",
            Self::ModelNotAllowed { .. } => "model_not_allowed",
            Self::RouteNotAllowed { .. } => "route_not_allowed",
            Self::NotFound | Self::NotOffered | Self::NoTokens => "not_found",
            Self::UnknownJob => "unknown_job",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            Self::MisdirectedRequest => "misdirected_request",
            Self::InvalidRequest(_) => "invalid_request",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::UriTooLong => "uri_too_long",
            Self::HeaderTooLarge => "header_too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::BudgetExhausted { .. } => "budget_exhausted",
            Self::Internal => "internal_error",
            Self::UpstreamUnreachable(Unreached::Timeout) | Self::PollTimeout => "upstream_timeout",
            Self::UpstreamUnreachable(_) => "upstream_unreachable",
            Self::UpstreamInvalidAnswer | Self::PollUnreadable => "upstream_invalid_answer",
            Self::UpstreamKeyRefused => "upstream_key_refused",
            Self::Overloaded { .. } => "overloaded",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::Draining => "draining",
            Self::LoopDetected => "loop_detected",
        }
    }

    /// The field or header at fault, where there is one.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::InvalidRequest(faults) => {
                faults.first().map(|fault| fault.param.as_str()).filter(|param| !param.is_empty())
            }
            Self::BadRequest { param, .. } | Self::UnsupportedMediaType { param } | Self::ModelNotAllowed { param } => {
                Some(param)
            }
            Self::IdempotencyKeyReused => Some("Idempotency-Key"),
            Self::RateLimited { limit, .. } | Self::BudgetExhausted { limit, .. } => Some(limit),
            Self::Overloaded { what } => Some(what),
            Self::MissingKey | Self::InvalidKey => Some("Authorization"),
            Self::OriginRefused => Some("Origin"),
            Self::UserMismatch => Some("user"),
            Self::RouteNotAllowed { route } => Some(route),
            Self::MisdirectedRequest => Some("Host"),
            _ => None,
        }
    }

    /// All faults of the body, where the body is at fault.
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::InvalidRequest(faults) => faults,
            _ => &[],
        }
    }

    /// `error.type`, as CometAPI's clients know it: whose fault it is.
    pub fn kind(&self) -> &'static str {
        match self.status().as_u16() {
            429 => "rate_limit_error",
            status if status < 500 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// Whole seconds for `Retry-After`, at least 1, where waiting helps.
    pub fn retry_after(&self) -> Option<u64> {
        let wait = match self {
            Self::OutcomeUnknown { retry_after, .. } | Self::RateLimited { retry_after, .. } => *retry_after,
            Self::BudgetExhausted { retry_after, .. } => (*retry_after)?,
            Self::Overloaded { .. } | Self::LedgerUnavailable | Self::Draining => Duration::from_secs(1),
            Self::UpstreamUnreachable(Unreached::Certificate) => return None,
            Self::UpstreamUnreachable(_) | Self::PollTimeout => Duration::from_secs(2),
            _ => return None,
        };
        Some(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1))
    }

    /// The `error` parameter of `Proxy-Status` (RFC 9209 §2.3), where the upstream, or the way to it, is at fault.
    pub const fn proxy_status(&self) -> Option<&'static str> {
        match self {
            Self::UpstreamUnreachable(unreached) => Some(unreached.proxy_status()),
            Self::PollTimeout | Self::OutcomeUnknown { doubt: Doubt::Silent, .. } => Some("http_response_timeout"),
            Self::OutcomeUnknown { doubt: Doubt::Broken, .. } => Some("http_response_incomplete"),
            Self::UpstreamInvalidAnswer | Self::PollUnreadable => Some("http_protocol_error"),
            Self::LoopDetected => Some("proxy_loop_detected"),
            _ => None,
        }
    }

    /// The body: CometAPI's error form, with the list of faults beside it where there is one.
    pub fn body(&self) -> serde_json::Value {
        let mut body = serde_json::json!({"error": {
            "message": self.message(),
            "type": self.kind(),
            "param": self.param(),
            "code": self.code(),
        }});
        if let (false, Some(object)) = (self.faults().is_empty(), body.as_object_mut()) {
            object.insert("errors".to_owned(), self.faults().iter().map(Fault::to_json).collect());
        }
        body
    }
}

/// What is only read, as `Allow` says it.
pub const READ_ONLY: &str = "GET, HEAD, OPTIONS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_body_as_a_whole_names_no_field() {
        let fault = |param: &str| Fault { param: param.to_owned(), code: "type", message: "no object".to_owned() };
        let body = Error::InvalidRequest(vec![fault(""), fault("image.url")]).body();
        assert!(body["error"]["param"].is_null() && body["errors"][0]["param"].is_null(), "{body}");
        assert_eq!(body["errors"][1]["param"], "image.url");
    }
}
