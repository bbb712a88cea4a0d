//! What the upstream answers to a submission. Whatever could hide a paid job is unknown; created needs an id.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use reelgate::config::Config;
use reelgate::request::route::RequestId;
use reelgate::upstream::outcome::{Answer, Outcome, Reply, Rules, classify};
use serde_json::Value;

use super::first_line;

pub const WORDS: &[&str] = &[
    "200",
    "500",
    "503",
    "{\"request_id\":\"abc-1\"}",
    "\"request_id\":",
    "\"data\":{\"task_id\":\"t\"}",
    "\"error\":{\"code\":\"invalid_request\",\"message\":\"m\"}",
    "\"code\":\"insufficient_user_quota\"",
    "\"code\":\"do_request_failed\"",
    "\"code\":0",
    "\"id\":1",
    "success",
    "content-encoding: gzip",
    "<html>",
];

/// A line with the status and perhaps a header field, then the body.
pub fn run(input: &[u8]) {
    let (line, body) = first_line(input);
    let (status, field) = line.split_once(' ').unwrap_or((line, ""));
    let Some(status) = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) else { return };
    // hyper gives no other status for an answer.
    if !(200..=599).contains(&status.as_u16()) {
        return;
    }
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = field.split_once(": ")
        && let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
    {
        headers.insert(name, value);
    }
    let is_encoded = reelgate::upstream::headers::is_encoded(&headers);
    let rules = Rules::from(&Config::default().dedup);
    let answer = Answer { status, headers, body: Bytes::copy_from_slice(body) };
    let json = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    match classify(Ok(answer), &rules) {
        Outcome::Created { request_id, answer } => {
            assert!(status.is_success() && !is_encoded, "made by {status}");
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, body));
            let json = json.expect("an id was read from no JSON");
            let told = [json.get("request_id"), json.pointer("/data/task_id")];
            assert!(told.into_iter().flatten().any(|id| id == request_id.as_str()), "an id that nobody told");
            assert!(request_id.path().concat().bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Outcome::Refused(reply) => {
            let code = status.as_u16();
            assert!(!(501..=599).contains(&code) || code == 503, "{status} proves nothing");
            assert!(!rules.hold_statuses.contains(&code) || code == 500, "{status} holds");
            if status.is_success() {
                let json = json.expect("refused by no JSON");
                assert!(!is_encoded && !has_id(&json), "refused with an id in it");
            }
            if let Reply::Answer(answer) = reply {
                assert!(!is_encoded && !status.is_redirection() && answer.body == body);
            }
        }
        Outcome::Unknown { answer, .. } => {
            assert!(!(300..=499).contains(&status.as_u16()) || rules.hold_statuses.contains(&status.as_u16()));
            if let Some(answer) = answer {
                assert!(answer.status.as_u16() >= 400 && json.is_some(), "it passes and is no error of the API");
            }
            let told = json.as_ref().and_then(|json| json.get("request_id")).and_then(Value::as_str);
            let is_withheld = status.is_success() && !is_encoded && told.and_then(RequestId::parse).is_some();
            assert!(!is_withheld, "an id in hand is never withheld");
        }
        Outcome::NotSent(_) => panic!("an answer came, so it was sent"),
    }
}

/// Whether anything in it is called an id and is something.
fn has_id(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let is_id = ["id", "request_id", "task_id", "uuid"].contains(&name.to_ascii_lowercase().as_str());
            is_id && !value.is_null() && value != "" || has_id(value)
        }),
        Value::Array(items) => items.iter().any(has_id),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
