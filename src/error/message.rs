//! What a refusal tells its client, in words: what is wrong and what to do.

use std::borrow::Cow;

use super::{Doubt, Error, Fault, READ_ONLY, Unreached};

impl Error {
    /// The text for the client: what is wrong and what to do. It never holds a secret or an upstream's words.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::InvalidJson { message } => Cow::Borrowed(message),
            Self::BadRequest { message, .. } => Cow::Borrowed(message),
            Self::MissingKey => "a key is needed: send Authorization: Bearer and the gateway key".into(),
            Self::InvalidKey => "this key is not valid here: ask the gateway's operator for one that is".into(),
            Self::OriginRefused => {
                "this origin may not call: add it to server.cors.allowed_origins, or to the key's own origins".into()
            }
            Self::UserMismatch => {
                "user: this token is for another user: leave the field out, or ask for a token".into()
            }
            Self::ModelNotAllowed { param } => unusable(param).into(),
            Self::RouteNotAllowed { route } => format!("this key, or this token, is not for {route}").into(),
            Self::NotFound => "no such path: submit to /grok/v1/videos/generations or /grok/v1/videos/edits, \
                               poll /grok/v1/videos/{request_id}"
                .into(),
            Self::NotOffered => "video extensions are not offered by this API".into(),
            Self::NoTokens => "this gateway is open to everyone: there are no tokens, send none".into(),
            Self::UnknownJob => "no job with this request_id".into(),
            // A submission to a path that is nearly right ends here.
            Self::MethodNotAllowed { allow: allow @ READ_ONLY } => {
                format!("this path takes {allow}: submit to /grok/v1/videos/generations or /grok/v1/videos/edits")
                    .into()
            }
            Self::MethodNotAllowed { allow } => format!("this path takes {allow}").into(),
            Self::RequestTimeout => "the body did not arrive in time: send it again, faster".into(),
            Self::OutcomeUnknown { doubt, .. } => doubtful(doubt).into(),
            Self::BodyTooLarge { limit } => {
                format!("the body is longer than {limit} bytes: give images by their URL, or smaller").into()
            }
            Self::UnsupportedMediaType { param } => {
                let wanted = match *param {
                    "Content-Encoding" => "send the body as it is, without this header",
                    _ => "send application/json, in UTF-8",
                };
                format!("{param}: {wanted}").into()
            }
            Self::MisdirectedRequest => "this host is not served here: see server.allowed_hosts".into(),
            Self::InvalidRequest(faults) => first_of(faults),
            Self::IdempotencyKeyReused => "this Idempotency-Key was used with another body: choose a new key".into(),
            Self::UriTooLong => "the request target is too long: an id has 128 characters at most".into(),
            Self::HeaderTooLarge => "the header is too large: send fewer or shorter fields".into(),
            Self::RateLimited { limit, .. } => {
                let seconds = self.retry_after().unwrap_or(1);
                format!("the limit {limit} is reached: try again in {seconds} s").into()
            }
            Self::BudgetExhausted { limit, .. } => {
                format!("the budget {limit} does not hold this job: {}", hope(limit)).into()
            }
            Self::Internal => "an error of the gateway itself: try again, and tell its operator".into(),
            Self::UpstreamUnreachable(why) => unreached(why).into(),
            Self::PollTimeout => "the upstream did not answer in time: the job goes on, poll again".into(),
            Self::PollUnreadable => {
                "the upstream answered with something that is no answer of its API: the job goes on, poll again".into()
            }
            Self::UpstreamInvalidAnswer => {
                "the upstream answered with something that is no answer of its API: nothing was made; \
                 tell the gateway's operator to check upstream.url"
                    .into()
            }
            Self::UpstreamKeyRefused => {
                "the upstream refused the gateway's own key: tell the gateway's operator".into()
            }
            Self::Overloaded { what } => format!("too much at once ({what}): try again shortly").into(),
            Self::LedgerUnavailable => "the ledger cannot be reached, so nothing is bought: try again shortly".into(),
            Self::Draining => "this gateway is shutting down: nothing was sent, try again".into(),
            Self::LoopDetected => "this request has passed through this gateway before: check upstream.url".into(),
            Self::Aborted => "the client left before its body was complete".into(),
        }
    }
}

/// The text about a model, or the models of a token, that may not be asked for.
fn unusable(param: &str) -> &'static str {
    match param {
        "models" => "models: this team, or this key, may not use all of these models, and a token is never wider",
        _ => "model: this team, or this key, may not use this model; name one, and only as model",
    }
}

/// What may be done where a budget is used up.
fn hope(budget: &str) -> &'static str {
    match budget {
        of_token if of_token.starts_with("token.") => "ask for another token",
        of_month if of_month.ends_with("month") => "it is renewed with the next month (UTC)",
        _ => "it is renewed with the next day (UTC)",
    }
}

/// The text of the first fault, and how many more there are.
fn first_of(faults: &[Fault]) -> Cow<'static, str> {
    let Some(fault) = faults.first() else { return "the body is invalid".into() };
    let named = match fault.param.as_str() {
        "" => fault.message.clone(),
        param => format!("{param}: {}", fault.message),
    };
    match faults.len() {
        1 => named.into(),
        more => format!("{named} (and {} more, see errors)", more - 1).into(),
    }
}

/// The text where nothing was sent.
const fn unreached(why: &Unreached) -> &'static str {
    match why {
        Unreached::Certificate => {
            "the upstream's certificate is not trusted: nothing was sent; tell the gateway's operator to check upstream.roots"
        }
        Unreached::Dns | Unreached::Refused | Unreached::Timeout | Unreached::Tls => {
            "the upstream could not be reached: nothing was sent, try again"
        }
    }
}

/// The text of an unknown outcome.
const fn doubtful(doubt: &Doubt) -> &'static str {
    match doubt {
        Doubt::Held => {
            "the outcome of an earlier submission of this prompt is unknown, and it may have been paid: \
             wait, or send Cache-Control: no-cache, and a new Idempotency-Key if it had one, to buy a new job all the same"
        }
        Doubt::Broken => {
            "the upstream's answer was lost or unreadable: the outcome is unknown, and the job may have been paid: \
             wait, or send Cache-Control: no-cache, and a new Idempotency-Key if it had one, to buy a new job all the same"
        }
        Doubt::Silent => {
            "the upstream has not answered in time: the outcome is unknown, and the job may have been paid: \
             wait, or send Cache-Control: no-cache, and a new Idempotency-Key if it had one, to buy a new job all the same"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_say_what_to_do_instead() {
        for (error, wanted) in [
            (Error::UnsupportedMediaType { param: "Content-Type" }, "Content-Type: send application/json, in UTF-8"),
            (
                Error::UnsupportedMediaType { param: "Content-Encoding" },
                "Content-Encoding: send the body as it is, without this header",
            ),
            (
                Error::RateLimited { limit: "user.generations", retry_after: Duration::from_millis(9_001) },
                "the limit user.generations is reached: try again in 10 s",
            ),
            (
                Error::MethodNotAllowed { allow: READ_ONLY },
                "this path takes GET, HEAD, OPTIONS: submit to /grok/v1/videos/generations or /grok/v1/videos/edits",
            ),
            (
                Error::BudgetExhausted { limit: "team.seconds_per_month", retry_after: Some(Duration::ZERO) },
                "the budget team.seconds_per_month does not hold this job: it is renewed with the next month (UTC)",
            ),
            (
                Error::BudgetExhausted { limit: "token.budget_usd", retry_after: None },
                "the budget token.budget_usd does not hold this job: ask for another token",
            ),
            (Error::MethodNotAllowed { allow: "POST, OPTIONS" }, "this path takes POST, OPTIONS"),
        ] {
            assert_eq!(error.message(), wanted);
        }
    }
}
