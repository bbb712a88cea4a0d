//! What a refusal of the upstream says about all other submissions: that they come too fast, or that there is no money
//! left to pay them (`MONEY.md` M27). Pure.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::RETRY_AFTER;

use super::outcome::Answer;

/// What the upstream has no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Patience: it wants nothing for so long.
    TooFast(Duration),
    /// Our money: waiting does not help.
    NoCredit,
}

impl Pressure {
    /// What a refusal says, if anything.
    pub fn of(answer: &Answer) -> Option<Self> {
        let status = answer.status;
        // With whatever status: relays say it with 200 and with 500 too (M18).
        if names_credit(&answer.body) {
            return Some(Self::NoCredit);
        }
        let after = answer.headers.get(RETRY_AFTER).filter(|_| status == StatusCode::TOO_MANY_REQUESTS)?;
        // The other form, a date, is not used by APIs; and what cannot be read slows nobody.
        let seconds = after.to_str().ok()?.trim().parse::<u64>().ok()?;
        Some(Self::TooFast(Duration::from_secs(seconds)))
    }
}

/// The bodies are short: a refusal's is not searched beyond this.
const SEARCHED: usize = 4096;

fn names_credit(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body.get(..SEARCHED).unwrap_or(body)).to_ascii_lowercase();
    CREDIT.iter().any(|phrase| text.contains(phrase))
}

/// How the API and its relays say that the account is empty (`UPSTREAM.md` §4).
const CREDIT: [&str; 7] = [
    "insufficient_user_quota",
    "pre_consume_token_quota_failed",
    "insufficient_quota",
    "insufficient_balance",
    "available credits",
    "spending limit",
    "billing_hard_limit_reached",
];

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::HeaderMap;
    use hyper::header::HeaderValue;

    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.extend(retry_after.map(|value| (RETRY_AFTER, HeaderValue::from_static(value))));
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn m27_a_429_slows_everyone_and_an_empty_account_alarms_instead() {
        for (status, after, body, want) in [
            (429, Some("7"), "{}", Some(Pressure::TooFast(Duration::from_secs(7)))),
            (429, None, "{}", None),
            (429, Some("soon"), "{}", None),
            (503, Some("7"), "{}", None),
            (429, Some("7"), r#"{"error":"used all available credits"}"#, Some(Pressure::NoCredit)),
            (403, None, r#"{"error":{"code":"insufficient_user_quota"}}"#, Some(Pressure::NoCredit)),
            (402, None, r#"{"code":"Insufficient_Quota","message":"no"}"#, Some(Pressure::NoCredit)),
            (200, None, r#"{"error":{"code":"insufficient_user_quota"}}"#, Some(Pressure::NoCredit)),
            (500, None, r#"{"error":{"code":"pre_consume_token_quota_failed"}}"#, Some(Pressure::NoCredit)),
            (400, None, r#"{"error":{"code":"invalid_request"}}"#, None),
        ] {
            assert_eq!(Pressure::of(&answer(status, after, body)), want, "{status} {after:?} {body}");
        }
    }
}
