//! What the admin listener refuses, in the form of all our errors.

use std::borrow::Cow;

use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{JSON_TYPE, Shown, respond};
use crate::error::Error;

/// A request that is not served, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: Value,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, param: Option<&str>, message: impl Into<Cow<'static, str>>) -> Self {
        let (message, kind) =
            (message.into(), if status.is_server_error() { "api_error" } else { "invalid_request_error" });
        let body = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
        Self { status, body, header: None }
    }

    /// The operators' key is needed.
    pub(super) fn unauthorized() -> Self {
        let refusal = Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_key",
            Some("Authorization"),
            "send the key that admin.key_env names: Authorization: Bearer …",
        );
        Self { header: Some((WWW_AUTHENTICATE, "Bearer realm=\"reelgate admin\"")), ..refusal }
    }

    /// There is no key that could open this.
    pub(super) fn no_key() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "admin_key_needed",
            None,
            "admin.listen is not loopback, so this needs a key: set admin.key_env to the name of an environment \
             variable that holds one, and restart",
        )
    }

    /// The ledger is not open yet.
    pub(super) fn starting() -> Self {
        let refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ledger_unavailable",
            None,
            "the gateway is starting, and its ledger is not open yet: /readyz says when it is",
        );
        Self { header: Some((RETRY_AFTER, "1")), ..refusal }
    }

    /// A parameter, or a part of the path, that cannot be read.
    pub(super) fn bad(param: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", Some(param), message)
    }

    /// There is nothing of this name.
    pub(super) fn missing(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", None, message)
    }

    /// It is in no state for that.
    pub(super) fn conflict(code: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, None, message)
    }

    pub(super) fn into_response(self) -> Response<Shown> {
        let mut answer = respond(self.status, JSON_TYPE, self.body.to_string().into());
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let header = match error {
            Error::MethodNotAllowed { allow } => Some((ALLOW, allow)),
            _ => None,
        };
        Self { status: error.status(), body: error.body(), header }
    }
}
