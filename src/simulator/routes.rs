//! What the simulated upstream answers to a request: its routes are those of CometAPI's Grok surface and the videos
//! that its polls point at.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::answer::Answer;
use super::fault::{Fault, Form};
use super::job::{self, End, Job};
use super::plan::{Content, Framing, Plan};
use super::reader::Head;
use super::state::{Kind, State};
use super::{control, video};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A POST to one of the two submission routes.
    Submission,
    /// A GET or HEAD of the job with this id.
    Poll(&'a str),
    /// A video.
    Video,
    /// The control route.
    Control,
    /// Anything else.
    Elsewhere,
}

/// What goes back.
pub(super) enum Reply {
    /// An answer.
    Proper(Answer),
    /// Bytes, and whether the connection ends behind them.
    Raw(Bytes, bool),
}

impl<'a> Route<'a> {
    /// The route of a request.
    pub(super) fn of(head: &'a Head) -> Self {
        let path = head.path.as_str();
        if path == "/simulator" || path.starts_with("/simulator/") {
            return Self::Control;
        }
        if video::is_video(path) {
            return Self::Video;
        }
        let Some(rest) = path.strip_prefix("/grok/v1/videos/") else { return Self::Elsewhere };
        match (head.method.as_str(), rest) {
            ("POST", "generations" | "edits") => Self::Submission,
            ("GET" | "HEAD", id) if !id.is_empty() && !id.contains(['/', '?']) => Self::Poll(id),
            _ => Self::Elsewhere,
        }
    }

    /// Which faults apply.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Submission => Some(Kind::Submission),
            Self::Poll(_) => Some(Kind::Poll),
            Self::Video | Self::Control | Self::Elsewhere => None,
        }
    }
}

/// Answers a request. A prompt may add to the plan.
pub(super) fn answer(state: &State, head: &Head, body: &[u8], plan: &mut Plan) -> Reply {
    let usual = match Route::of(head) {
        Route::Control => return Reply::Proper(control::answer(state, head, body)),
        Route::Video => {
            state.count(|counts| counts.videos += 1);
            return Reply::Proper(video::answer(head));
        }
        // The real one sends whoever loses the way to a page.
        Route::Elsewhere => return Reply::Proper(Answer::html(301).header("location", "https://simulated.invalid/")),
        Route::Submission | Route::Poll(_) if !authorized(state, head) => {
            state.count(|counts| counts.unauthorized += 1);
            return Reply::Proper(Answer::error(401, &Form::comet("invalid_api_key")));
        }
        Route::Submission => submission(state, head, body, plan),
        Route::Poll(id) => (poll(state, id, plan), id.to_owned()),
    };
    dressed(state, head, plan, usual)
}

/// The usual answer and the id it speaks of, as the plan wants it.
fn dressed(state: &State, head: &Head, plan: &mut Plan, (usual, id): (Answer, String)) -> Reply {
    let mut answer = match &plan.content {
        Content::Usual => usual,
        Content::Raw(bytes) => return Reply::Raw(bytes.clone().into(), false),
        Content::Malformed(malformed) => {
            let (bytes, ends) = usual.malformed(*malformed);
            return Reply::Raw(bytes, ends);
        }
        Content::Odd(odd) => Answer::odd(odd, &id),
        Content::KeyEcho(status) => {
            let (answer, middle) = Answer::key_echo(*status, bearer(head).unwrap_or_default());
            plan.framing = Framing::Chunked(middle);
            answer
        }
        Content::Status { status, form, headers } => {
            let mut answer = Answer::error(*status, form);
            answer.headers.extend(headers.iter().cloned());
            answer
        }
    };
    answer.headers.extend(plan.headers.iter().chain(&state.options.headers).cloned());
    Reply::Proper(answer.header("x-request-id", &format!("simulated-{}", state.next_answer())))
}

/// The usual answer to a submission, and the id in it. The job is made here, if the plan makes one.
fn submission(state: &State, head: &Head, body: &[u8], plan: &mut Plan) -> (Answer, String) {
    let id = new_id();
    let fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => return (refused(400, "the body is not a JSON object"), id),
    };
    let prompt = fields.get("prompt").and_then(Value::as_str).unwrap_or_default();
    marks(prompt).for_each(|fault| plan.add(&fault));
    let Some(duration) = duration(&fields) else {
        return (refused(400, "duration must be a whole number from 1 to 15"), id);
    };
    if fields.contains_key("duration") && fields.contains_key("seconds") {
        return (refused(422, "duration and seconds are the same field"), id);
    }
    if plan.makes_job() {
        state.keep(new_job(state, head, &id, fields.clone(), duration, plan));
    }
    (Answer::json(200, &json!({"request_id": id})), id)
}

fn new_job(state: &State, head: &Head, id: &str, fields: Map<String, Value>, duration: u64, plan: &Plan) -> Job {
    let text = |name: &str, default: &str| fields.get(name).and_then(Value::as_str).unwrap_or(default).to_owned();
    let prompt: String = text("prompt", "").chars().take(PROMPT_LENGTH).collect();
    let model = text("model", "grok-imagine-video");
    let images = u64::from(fields.get("image").is_some_and(Value::is_object));
    let references = fields.get("reference_images").and_then(Value::as_array).map_or(0, Vec::len);
    let images = images.saturating_add(u64::try_from(references).unwrap_or(u64::MAX));
    let cost = job::cost(&model, &text("resolution", "480p"), duration, images);
    // Upstream takes an empty prompt and fails later.
    let blank = prompt.trim().is_empty() && images == 0 && !head.path.ends_with("/edits");
    let end = match &plan.end {
        Some(end) => end.clone(),
        None if blank => End::failed("invalid_argument", "Prompt cannot be empty"),
        None => state.options.default_end.clone(),
    };
    Job {
        request_id: id.to_owned(),
        canonical: canonical(fields),
        prompt,
        model,
        duration,
        created: Instant::now(),
        created_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        end,
        pending: plan.pending.unwrap_or(state.options.default_pending),
        takes: state.options.job_duration,
        cost,
    }
}

/// The usual answer to a poll; an end or a pending form of the plan is shown this once.
fn poll(state: &State, id: &str, plan: &Plan) -> Answer {
    let Some(mut job) = state.memory().jobs.get(id).cloned() else { return job::unknown_job(state.options.shape) };
    let mut age = job.created.elapsed();
    if let Some(end) = &plan.end {
        job.end = end.clone();
        age = age.max(job.takes);
    }
    if let Some(pending) = plan.pending {
        job.pending = pending;
        job.end = End::Never;
    }
    job.answer(state.options.shape, age, &format!("{}{}", state.origin, video::path(id)))
}

/// The faults that a prompt names, as in "A candle. [simulate: fail, slow]".
fn marks(prompt: &str) -> impl Iterator<Item = Fault> {
    prompt
        .split("[simulate:")
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .flat_map(|(names, _)| names.split(','))
        .filter_map(|name| Fault::named(name.trim()))
}

/// The seconds of a body: a number or a numeric text, 8 without one. `None` if out of range.
fn duration(fields: &Map<String, Value>) -> Option<u64> {
    let seconds = match fields.get("duration").or_else(|| fields.get("seconds")) {
        None | Some(Value::Null) => 8,
        Some(Value::String(text)) => text.parse().ok()?,
        Some(number) => number.as_u64()?,
    };
    (1..=15).contains(&seconds).then_some(seconds)
}

/// The body without `user`, keys sorted, whole numbers without a fraction. Long ones are replaced by their hash.
fn canonical(mut fields: Map<String, Value>) -> String {
    fields.remove("user");
    let mut value = Value::Object(fields);
    settle(&mut value);
    let text = value.to_string();
    if text.len() <= CANONICAL_LENGTH { text } else { format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()) }
}

/// Writes each whole number without a fraction and sorts all keys.
fn settle(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|double| number.is_f64() && double.fract() == 0.0);
            if let Some(integer) = whole.and_then(|double| format!("{double:.0}").parse::<i64>().ok()) {
                *value = integer.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(fields) => {
            fields.sort_keys();
            fields.values_mut().for_each(settle);
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn refused(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"code": "Client specified an invalid argument", "error": message}))
}

/// Whether the request holds the key; without a configured key, whether it holds any.
fn authorized(state: &State, head: &Head) -> bool {
    let sent = bearer(head);
    match &state.options.key {
        Some(key) => sent == Some(key.as_str()),
        None => sent.is_some_and(|sent| !sent.is_empty()),
    }
}

fn bearer(head: &Head) -> Option<&str> {
    head.field("authorization")?.strip_prefix("Bearer ")
}

/// A random id that looks like a UUID (RFC 9562, version 4).
fn new_id() -> String {
    let mut bytes = [0; 16];
    // The simulator has nothing to protect: without randomness ids repeat, and that is seen.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{number:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// The most characters of a prompt that are remembered.
const PROMPT_LENGTH: usize = 200;
/// The longest canonical body that is remembered as text.
const CANONICAL_LENGTH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn bodies_that_mean_the_same_are_canonically_equal() {
        let one = canonical(object(r#"{"prompt": "a", "duration": 8, "image": {"url": "u", "a": 1.5}}"#));
        let two = canonical(object(r#"{"user":"x","image":{"a":1.5,"url":"u"},"duration":8.0,"prompt":"\u0061"}"#));
        assert_eq!(one, two);
        assert_eq!(one, r#"{"duration":8,"image":{"a":1.5,"url":"u"},"prompt":"a"}"#);
        assert_ne!(one, canonical(object(r#"{"prompt": "a", "duration": 9}"#)));
        assert!(canonical(object(&json!({"image": "a".repeat(5_000)}).to_string())).starts_with("blake3:"));
    }

    #[test]
    fn durations_may_be_numbers_or_texts_and_default_to_8() {
        for (text, want) in [
            (r#"{}"#, Some(8)),
            (r#"{"duration": 1}"#, Some(1)),
            (r#"{"seconds": "15"}"#, Some(15)),
            (r#"{"duration": 16}"#, None),
            (r#"{"duration": 0}"#, None),
            (r#"{"duration": "long"}"#, None),
            (r#"{"duration": 1.5}"#, None),
        ] {
            assert_eq!(duration(&object(text)), want, "{text}");
        }
    }

    #[test]
    fn a_prompt_can_name_faults() {
        let named = |prompt| marks(prompt).collect::<Vec<_>>();
        assert_eq!(named("A candle. [simulate: fail]"), [Fault::named("fail").unwrap()]);
        assert_eq!(named("[simulate:slow, moderated] x").len(), 2);
        assert_eq!(named("[simulate: unheard-of] [simulate: fail"), []);
    }

    #[test]
    fn ids_look_like_random_uuids() {
        let id = new_id();
        assert_eq!((id.len(), id.chars().nth(14), id.matches('-').count()), (36, Some('4'), 4));
        assert!(matches!(id.chars().nth(19), Some('8' | '9' | 'a' | 'b')), "{id}");
        assert_ne!(id, new_id());
    }
}
