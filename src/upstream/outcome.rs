//! What became of a submission, read from what the upstream did: not sent, refused, created or unknown
//! (`HARDENING.md` §6.1, `MONEY.md` M17, M18). Pure; when in doubt it says so, because a wrong *refused* buys a second
//! video and a wrong *created* gives out an id that does not exist.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use serde_json::Value;

use crate::error::{Doubt, Error, Unreached};
use crate::request::route::RequestId;

/// A complete answer, read to its end; masked and with clean headers, so that it may be passed on.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without what is not for the client.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The upstream could not be reached.
    Unreached(Unreached),
    /// The process is ending.
    Draining,
    /// The ledger would not let it.
    Ledger,
    /// All who waited have left (M6).
    Left,
    /// Another attempt has taken its place.
    Superseded,
}

/// What a client is told of a refusal.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The upstream's own words.
    Answer(Answer),
    /// Ours, because its words are not for the client.
    Error(Error),
}

/// What became of a submission.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Certainly nothing reached the upstream.
    NotSent(NotSent),
    /// The upstream made nothing.
    Refused(Reply),
    /// The upstream made a job.
    Created {
        /// The job.
        request_id: RequestId,
        /// The upstream's answer.
        answer: Answer,
    },
    /// Nobody knows.
    Unknown {
        /// Why.
        doubt: Doubt,
        /// The upstream's own words, where they may be passed on.
        answer: Option<Answer>,
    },
}

impl Outcome {
    /// Whether it is no outcome for those who still wait: they ask for admission again (M6).
    pub const fn is_void(&self) -> bool {
        matches!(self, Self::NotSent(NotSent::Left | NotSent::Superseded))
    }
}

/// Which answers leave the outcome in doubt, from `[dedup]`.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `dedup.hold_statuses`.
    pub hold_statuses: Vec<u16>,
    /// `dedup.lost_call_codes`.
    pub lost_call_codes: Vec<String>,
}

/// Reads what came back of a request that was sent: a complete answer, or none.
pub fn classify(received: Result<Answer, Doubt>, rules: &Rules) -> Outcome {
    let answer = match received {
        Ok(answer) => answer,
        Err(doubt) => return Outcome::Unknown { doubt, answer: None },
    };
    let status = answer.status;
    let encoded = answer.headers.contains_key(CONTENT_ENCODING);
    if rules.hold_statuses.contains(&status.as_u16()) {
        return doubtful(answer, encoded);
    }
    match status.as_u16() {
        200..=299 if encoded => lost(),
        200..=299 => success(answer),
        300..=399 => Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer)),
        401 => Outcome::Refused(Reply::Error(Error::UpstreamKeyRefused)),
        400..=499 if encoded => Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer)),
        400..=499 => Outcome::Refused(Reply::Answer(answer)),
        500 | 503 if !encoded => server_error(answer, rules),
        // 1xx as a final answer, other 5xx and what is no HTTP status.
        _ => doubtful(answer, encoded),
    }
}

/// A 2xx: created if it has a usable id, refused only if it is an error of a closed list without anything like an id
/// (M18).
fn success(answer: Answer) -> Outcome {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return lost() };
    if let Some(request_id) = usable_id(&body) {
        return Outcome::Created { request_id, answer };
    }
    let codes = codes(&body);
    let says_error = !codes.is_empty() && codes.iter().all(|code| REFUSALS.contains(&code.as_str()));
    if says_error && !names_an_id(&body) { Outcome::Refused(Reply::Answer(answer)) } else { lost() }
}

/// A complete 500 or 503: refused if it is the API's own JSON error and its code does not say that the relay lost its
/// own call (M17).
fn server_error(answer: Answer, rules: &Rules) -> Outcome {
    let own = serde_json::from_slice::<Value>(&answer.body).ok().filter(is_own_error);
    let Some(body) = own else { return doubtful(answer, false) };
    if codes(&body).iter().any(|code| rules.lost_call_codes.contains(code)) {
        return doubtful(answer, false);
    }
    Outcome::Refused(Reply::Answer(answer))
}

/// Unknown; its words are passed on only if they are JSON that can be read.
fn doubtful(answer: Answer, encoded: bool) -> Outcome {
    let doubt = if matches!(answer.status.as_u16(), 504 | 524) { Doubt::Silent } else { Doubt::Broken };
    let passes = !encoded
        && (answer.status.is_client_error() || answer.status.is_server_error())
        && serde_json::from_slice::<Value>(&answer.body).is_ok_and(|body| body.is_object());
    Outcome::Unknown { doubt, answer: passes.then_some(answer) }
}

const fn lost() -> Outcome {
    Outcome::Unknown { doubt: Doubt::Broken, answer: None }
}

/// The id of the new job: `request_id`, or the wrapper's `data.task_id`.
fn usable_id(body: &Value) -> Option<RequestId> {
    let parse = |id: &Value| id.as_str().and_then(RequestId::parse);
    body.get("request_id").and_then(parse).or_else(|| body.get("data")?.get("task_id").and_then(parse))
}

/// Whether a field named like an id stands at any depth, with anything in it.
fn names_an_id(body: &Value) -> bool {
    match body {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let is_id = name == "id" || name.ends_with("_id") || name.ends_with("id") && name.contains("task");
            let filled = !matches!(value, Value::Null) && value.as_str() != Some("");
            (is_id && filled) || names_an_id(value)
        }),
        Value::Array(elements) => elements.iter().any(names_an_id),
        _ => false,
    }
}

/// The error codes that a body states, in any of the API's three forms; a code of success is none.
fn codes(body: &Value) -> Vec<String> {
    let nested = body.get("error").and_then(|error| error.get("code").or_else(|| error.get("type")));
    let outer = body.get("code").filter(|code| code.as_str() != Some("success"));
    [nested, outer]
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|code| code.trim().to_ascii_lowercase())
        .collect()
}

/// CometAPI's `{"error":{…}}`, xAI's `{"code","error"}`, the relay's flat `{"code","message"}` (`UPSTREAM.md` §4).
fn is_own_error(body: &Value) -> bool {
    let is_text = |name: &str| body.get(name).is_some_and(Value::is_string);
    let nested = body.get("error").and_then(Value::as_object).is_some_and(|error| error.contains_key("message"));
    nested || (is_text("code") && is_text("error")) || (is_text("code") && is_text("message"))
}

/// Codes with which a 2xx may say that it made nothing: quota, authorization, validation (M18).
const REFUSALS: [&str; 16] = [
    "insufficient_user_quota",
    "pre_consume_token_quota_failed",
    "insufficient_quota",
    "quota_exceeded",
    "rate_limit_exceeded",
    "invalid_api_key",
    "access_denied",
    "unauthorized",
    "permission_denied",
    "invalid_request",
    "invalid_request_error",
    "invalid_argument",
    "invalid-argument",
    "client specified an invalid argument",
    "model_not_found",
    "get_channel_failed",
];

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn rules() -> Rules {
        let dedup = crate::jobs::settings::Dedup::default();
        Rules { hold_statuses: dedup.hold_statuses, lost_call_codes: dedup.lost_call_codes }
    }

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// One word for an outcome, with what the client gets.
    fn word(outcome: &Outcome) -> String {
        match outcome {
            Outcome::NotSent(_) => "not sent".to_owned(),
            Outcome::Refused(Reply::Answer(answer)) => format!("refused {}", answer.status.as_u16()),
            Outcome::Refused(Reply::Error(error)) => format!("refused {}", error.code()),
            Outcome::Created { request_id, .. } => format!("created {request_id}"),
            Outcome::Unknown { doubt, answer: None } => format!("unknown {doubt:?}"),
            Outcome::Unknown { answer: Some(answer), .. } => format!("unknown, passing {}", answer.status.as_u16()),
        }
    }

    fn read(status: u16, body: &str) -> String {
        word(&classify(Ok(answer(status, body)), &rules()))
    }

    #[test]
    fn f12_m18_a_2xx_is_created_only_with_a_usable_id() {
        for (status, body, want) in [
            (200, r#"{"request_id":"4b2cd27e-0b0d"}"#, "created 4b2cd27e-0b0d"),
            (202, r#"{"request_id":"a","status":"pending"}"#, "created a"),
            (200, r#"{"code":"success","data":{"task_id":"t_1"}}"#, "created t_1"),
            (200, "{}", "unknown Broken"),
            (200, "", "unknown Broken"),
            (202, "", "unknown Broken"),
            (204, "", "unknown Broken"),
            (200, r#"{"request_id":null}"#, "unknown Broken"),
            (200, r#"{"request_id":7}"#, "unknown Broken"),
            (200, r#"{"request_id":""}"#, "unknown Broken"),
            (200, r#"{"request_id":"a/b"}"#, "unknown Broken"),
            (200, r#"{"request_id":"a\r\nX: y"}"#, "unknown Broken"),
            (200, r#"{"request_id":"<script>"}"#, "unknown Broken"),
            (200, r#"{"request_id":"abc"#, "unknown Broken"),
            (200, "<html>ok</html>", "unknown Broken"),
            (200, r#"["a"]"#, "unknown Broken"),
            (200, r#"{"code":"success","data":null}"#, "unknown Broken"),
        ] {
            assert_eq!(read(status, body), want, "{status} {body}");
        }
        let long = format!(r#"{{"request_id":"{}"}}"#, "a".repeat(10_000));
        assert_eq!(read(200, &long), "unknown Broken");
    }

    #[test]
    fn f13_m18_a_2xx_is_refused_only_by_a_known_code_and_without_anything_like_an_id() {
        for (body, want) in [
            (r#"{"error":{"message":"no money (request id: 7)","code":"insufficient_user_quota"}}"#, "refused 200"),
            (r#"{"code":"invalid_request","message":"bad"}"#, "refused 200"),
            (r#"{"code":"invalid_request","message":"bad","data":null}"#, "refused 200"),
            (r#"{"error":{"message":"who knows","code":"something_new"}}"#, "unknown Broken"),
            (r#"{"error":{"message":"no code"}}"#, "unknown Broken"),
            (r#"{"error":"text only"}"#, "unknown Broken"),
            (r#"{"code":"invalid_request","message":"bad","data":{"task_id":"not usable!"}}"#, "unknown Broken"),
            (r#"{"code":"invalid_request","data":{"deep":[{"video_id":"x"}]}}"#, "unknown Broken"),
            (r#"{"code":"do_request_failed","message":"lost"}"#, "unknown Broken"),
        ] {
            assert_eq!(read(200, body), want, "{body}");
        }
    }

    #[test]
    fn m17_a_500_or_503_is_refused_only_as_the_apis_own_error() {
        for (status, body, want) in [
            (500, r#"{"error":{"message":"m","type":"comet_api_error","code":"invalid_request"}}"#, "refused 500"),
            (500, r#"{"error":{"message":"m","code":""}}"#, "refused 500"),
            (503, r#"{"code":"model_not_found","message":"m"}"#, "refused 503"),
            (503, r#"{"code":"The service is overloaded","error":"m"}"#, "refused 503"),
            (500, r#"{"code":"do_request_failed","message":"m"}"#, "unknown, passing 500"),
            (500, r#"{"error":{"message":"m","code":"bad_response_status_code"}}"#, "unknown, passing 500"),
            (500, r#"{"code":"fail_to_fetch_task","message":"m","data":null}"#, "unknown, passing 500"),
            (500, r#"{"whatever":1}"#, "unknown, passing 500"),
            (500, "<html>", "unknown Broken"),
            (503, "", "unknown Broken"),
            (501, r#"{"error":{"message":"m","code":"x"}}"#, "unknown, passing 501"),
            (502, r#"{"error":{"message":"m","code":"x"}}"#, "unknown, passing 502"),
            (502, "<html>", "unknown Broken"),
            (504, "<html>", "unknown Silent"),
            (524, "", "unknown Silent"),
            (520, "error code: 520", "unknown Broken"),
            (599, "", "unknown Broken"),
        ] {
            assert_eq!(read(status, body), want, "{status} {body}");
        }
    }

    #[test]
    fn f14_f18_4xx_pass_401_is_ours_and_a_redirect_made_nothing() {
        for (status, want) in [
            (400, "refused 400"),
            (402, "refused 402"),
            (403, "refused 403"),
            (404, "refused 404"),
            (413, "refused 413"),
            (422, "refused 422"),
            (429, "refused 429"),
            (401, "refused upstream_key_refused"),
            (301, "refused upstream_invalid_answer"),
            (302, "refused upstream_invalid_answer"),
            (307, "refused upstream_invalid_answer"),
            (308, "refused upstream_invalid_answer"),
        ] {
            assert_eq!(read(status, r#"{"error":{"message":"m"}}"#), want);
        }
    }

    #[test]
    fn t61_an_encoded_answer_is_not_guessed_at() {
        let encoded = |status| {
            let mut answer = answer(status, r#"{"request_id":"a"}"#);
            answer.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            word(&classify(Ok(answer), &rules()))
        };
        assert_eq!(encoded(200), "unknown Broken");
        assert_eq!(encoded(500), "unknown Broken");
        assert_eq!(encoded(400), "refused upstream_invalid_answer");
    }

    #[test]
    fn no_complete_answer_is_unknown() {
        for doubt in [Doubt::Broken, Doubt::Silent] {
            let outcome = classify(Err(doubt), &rules());
            assert!(matches!(outcome, Outcome::Unknown { doubt: said, answer: None } if said == doubt));
        }
    }

    #[test]
    fn hold_statuses_are_configuration() {
        let rules = Rules { hold_statuses: vec![429], lost_call_codes: Vec::new() };
        assert_eq!(word(&classify(Ok(answer(429, "{}")), &rules)), "unknown, passing 429");
        let own = r#"{"code":"do_request_failed","message":"m"}"#;
        assert_eq!(word(&classify(Ok(answer(500, own)), &rules)), "refused 500");
        assert_eq!(word(&classify(Ok(answer(502, own)), &rules)), "unknown, passing 502");
    }
}
