//! The bodies of submissions' answers: ids and errors in all the forms that the API and its relays use
//! (`UPSTREAM.md` §3 and §4).

use serde_json::{Map, Value};

use crate::request::route::RequestId;

/// What the body of a 2xx tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A job has this id.
    Created(RequestId),
    /// It names an error by which nothing was made.
    Refused,
    /// Neither: it proves nothing.
    Nothing,
}

/// Reads the body of a 2xx. A usable id wins over an error beside it: an id in hand is never withheld.
pub(super) fn read_success(body: &[u8]) -> Told {
    let Some(object) = object(body) else { return Told::Nothing };
    let wrapped = || object.get("data")?.get("task_id");
    let id = |value: Option<&Value>| value.and_then(Value::as_str).and_then(RequestId::parse);
    if let Some(request_id) = id(object.get("request_id")).or_else(|| id(wrapped())) {
        return Told::Created(request_id);
    }
    let codes = Codes::of(&object);
    let known = codes.failures().all(|code| NOTHING_MADE.iter().any(|known| known.eq_ignore_ascii_case(code)));
    let refused = codes.failures().next().is_some() && known && !Value::Object(object).holds_id();
    if refused { Told::Refused } else { Told::Nothing }
}

/// The codes of the API's own error: `{"error":{…}}`, xAI's `{"code","error"}`, or the flat `{"code","message"}`.
/// `None`: it is none of them.
pub(super) fn own_error_codes(body: &[u8]) -> Option<Codes> {
    let object = object(body)?;
    let text = |name| object.get(name).is_some_and(Value::is_string);
    let own = match object.get("error") {
        Some(Value::Object(error)) => error.contains_key("message") || error.contains_key("code"),
        Some(Value::String(_)) => text("code"),
        _ => text("code") && text("message"),
    };
    own.then(|| Codes::of(&object))
}

/// Whether a body is one JSON object.
pub(super) fn is_object(body: &[u8]) -> bool {
    object(body).is_some()
}

/// The codes that a body names: its own and its error's.
#[derive(Debug)]
pub(super) struct Codes(Vec<String>);

impl Codes {
    fn of(object: &Map<String, Value>) -> Self {
        let named = [object.get("code"), object.get("error").and_then(|error| error.get("code"))];
        let text = |code: &Value| match code {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        Self(named.into_iter().flatten().filter_map(text).collect())
    }

    /// Whether it is among them.
    pub(super) fn contains(&self, code: &str) -> bool {
        self.0.iter().any(|named| named == code)
    }

    /// Those that do not speak of success.
    fn failures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|code| !SUCCESS.iter().any(|word| word.eq_ignore_ascii_case(code)))
    }
}

fn object(body: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// Whether anything in a value could be the id of something that was made.
trait HoldsId {
    fn holds_id(&self) -> bool;
}

impl HoldsId for Value {
    fn holds_id(&self) -> bool {
        match self {
            Value::Object(object) => object.iter().any(|(name, value)| {
                let there = !(value.is_null() || value.as_str() == Some(""));
                there && is_id_name(name) || value.holds_id()
            }),
            Value::Array(list) => list.iter().any(HoldsId::holds_id),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
}

/// `id`, `task_id`, `taskId`, `uuid`, `TASK-ID`; not `paid` or `invalid`.
fn is_id_name(name: &str) -> bool {
    let camel = name.ends_with("Id") || name.ends_with("ID");
    let lower = name.to_ascii_lowercase();
    camel
        || matches!(lower.as_str(), "id" | "ids" | "uuid" | "guid")
        || lower.ends_with("_id")
        || lower.ends_with("-id")
}

/// Codes that speak of success, or of nothing.
const SUCCESS: [&str; 6] = ["", "success", "succeeded", "ok", "0", "200"];

/// Codes of a 2xx by which certainly no job was made: the account cannot pay, the key is not good, the body is not
/// valid. A closed list: what is not here leaves the outcome unknown. Moderation is not here, because it is billed.
const NOTHING_MADE: [&str; 22] = [
    "insufficient_user_quota",
    "pre_consume_token_quota_failed",
    "insufficient_quota",
    "insufficient_balance",
    "quota_exceeded",
    "token_quota_exceeded",
    "billing_hard_limit_reached",
    "invalid_api_key",
    "invalid_token",
    "incorrect_api_key",
    "authentication_error",
    "unauthorized",
    "access_denied",
    "permission_denied",
    "invalid_request",
    "invalid_request_error",
    "invalid_argument",
    "invalid-argument",
    "invalid_parameter",
    "missing_required_parameter",
    "Client specified an invalid argument",
    "model_not_found",
];
