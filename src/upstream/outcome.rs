//! What became of a submission: not sent, refused, created or unknown (`HARDENING.md` §6.1, `MONEY.md` M17, M18). Pure.
//! Whatever could hide a paid job is *unknown*; *refused* needs a proof that nothing was made.

mod body;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;

use crate::error::{Doubt, Error, Unreached};
use crate::jobs::settings::Dedup;
use crate::request::route::RequestId;
use crate::upstream::headers;
use body::Told;

/// A complete answer of the upstream, cleaned of what is not for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without hop-by-hop fields and framing.
    pub headers: HeaderMap,
    /// Its body, with the key masked.
    pub body: Bytes,
}

/// What the waiters of a refused submission are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The upstream's own words.
    Answer(Answer),
    /// Ours, because the upstream's are not for clients.
    Error(Error),
}

/// Why certainly nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The process is ending.
    Draining,
    /// All who waited had left.
    Left,
    /// The upstream could not be reached.
    Unreached(Unreached),
    /// Somebody else holds the entry.
    Superseded,
    /// The ledger could not be written, or not soon enough (M3).
    Ledger,
    /// There was no slot of the upstream's pace within this time (M27).
    Paced(Duration),
}

impl NotSent {
    /// What a client is told.
    pub const fn error(self) -> Error {
        match self {
            Self::Draining => Error::Draining,
            Self::Left => Error::Aborted,
            Self::Unreached(why) => Error::UpstreamUnreachable(why),
            Self::Superseded | Self::Ledger => Error::LedgerUnavailable,
            Self::Paced(retry_after) => Error::RateLimited { limit: "upstream.pace", retry_after },
        }
    }
}

/// Why there is no complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The connection was gone before a byte of the request was written.
    NotSent(Unreached),
    /// The first byte would have left too late, and did not (M3).
    TooLate,
    /// The request may have arrived.
    InDoubt(Doubt),
    /// An answer of this status came, with a body longer than any of the API's.
    TooLong(StatusCode),
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Certainly nothing was sent.
    NotSent(NotSent),
    /// It was refused; nothing was made.
    Refused(Reply),
    /// The job exists.
    Created {
        /// Its id.
        request_id: RequestId,
        /// The upstream's answer: status 200 and its body; the headers that it is told with are ours.
        answer: Answer,
    },
    /// Nobody knows whether a job was made.
    Unknown {
        /// Why.
        doubt: Doubt,
        /// The upstream's own error, if it may pass.
        answer: Option<Answer>,
    },
}

impl Outcome {
    /// Whether it is none: whoever still waits goes through admission again (M6).
    pub const fn is_void(&self) -> bool {
        matches!(self, Self::NotSent(NotSent::Left | NotSent::Superseded))
    }

    /// Whether it came from a limit: then it is no outcome for a twin, who asks for admission by itself (M5).
    pub const fn is_paced(&self) -> bool {
        matches!(self, Self::NotSent(NotSent::Paced(_)))
    }

    const fn broken() -> Self {
        Self::Unknown { doubt: Doubt::Broken, answer: None }
    }
}

/// Which answers leave the outcome in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `dedup.hold_statuses`.
    pub hold_statuses: Vec<u16>,
    /// `dedup.lost_call_codes`.
    pub lost_call_codes: Vec<String>,
}

impl From<&Dedup> for Rules {
    fn from(dedup: &Dedup) -> Self {
        Self { hold_statuses: dedup.hold_statuses.clone(), lost_call_codes: dedup.lost_call_codes.clone() }
    }
}

/// Reads what came back, or why nothing did.
pub fn classify(answer: Result<Answer, Unanswered>, rules: &Rules) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Unanswered::NotSent(why)) => return Outcome::NotSent(NotSent::Unreached(why)),
        Err(Unanswered::TooLate) => return Outcome::NotSent(NotSent::Ledger),
        Err(Unanswered::InDoubt(doubt)) => return Outcome::Unknown { doubt, answer: None },
        Err(Unanswered::TooLong(status)) => return too_long(status, rules),
    };
    let holds = rules.hold_statuses.contains(&answer.status.as_u16());
    match answer.status.as_u16() {
        200..=299 => success(answer),
        300..=399 => Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer)),
        500 | 503 => own_error(answer, holds, rules),
        _ if holds => unknown(answer),
        401 => Outcome::Refused(Reply::Error(Error::UpstreamKeyRefused)),
        400..=499 if headers::is_encoded(&answer.headers) => {
            Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer))
        }
        400..=499 => Outcome::Refused(Reply::Answer(answer)),
        _ => unknown(answer),
    }
}

/// A status alone: enough for a refusal, too little for anything else.
fn too_long(status: StatusCode, rules: &Rules) -> Outcome {
    match status.as_u16() {
        code if rules.hold_statuses.contains(&code) => Outcome::Unknown { doubt: doubt(status), answer: None },
        401 => Outcome::Refused(Reply::Error(Error::UpstreamKeyRefused)),
        300..=499 => Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer)),
        _ => Outcome::Unknown { doubt: doubt(status), answer: None },
    }
}

/// A 2xx: created with a usable id; refused only if it says so in words we know and nothing in it looks like an id.
fn success(answer: Answer) -> Outcome {
    if headers::is_encoded(&answer.headers) {
        return Outcome::broken();
    }
    match body::read_success(&answer.body) {
        Told::Created(request_id) => {
            // Its headers keep all bytes that came with them, and an outcome is kept for a while.
            let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: answer.body };
            Outcome::Created { request_id, answer }
        }
        Told::Refused => Outcome::Refused(Reply::Answer(answer)),
        Told::Nothing => Outcome::broken(),
    }
}

/// A 500 or 503: refused if it is the API's own error and not one by which a relay lost its own call.
fn own_error(answer: Answer, holds: bool, rules: &Rules) -> Outcome {
    if headers::is_encoded(&answer.headers) {
        return unknown(answer);
    }
    let Some(codes) = body::own_error_codes(&answer.body) else { return unknown(answer) };
    // CometAPI's disguised 4xx is refused whatever the configuration says of 500.
    let disguised = answer.status == StatusCode::INTERNAL_SERVER_ERROR && codes.contains("invalid_request");
    let lost = rules.lost_call_codes.iter().any(|code| codes.contains(code));
    if disguised || !holds && !lost { Outcome::Refused(Reply::Answer(answer)) } else { unknown(answer) }
}

/// Nobody knows; the upstream's error passes if it is JSON. (A page would be shown as if it were the API's word.)
fn unknown(answer: Answer) -> Outcome {
    let passes =
        answer.status.as_u16() >= 400 && !headers::is_encoded(&answer.headers) && body::is_object(&answer.body);
    Outcome::Unknown { doubt: doubt(answer.status), answer: passes.then_some(answer) }
}

/// A gateway's time-out tells of silence, everything else of a broken call.
fn doubt(status: StatusCode) -> Doubt {
    match status.as_u16() {
        504 | 524 => Doubt::Silent,
        _ => Doubt::Broken,
    }
}
