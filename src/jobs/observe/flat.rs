//! `polls.shape = "flat"`: CometAPI's wrapper taken off, for clients that only know xAI's form.
//! Reads by the same rules as [`read`], so that what a client is told and what the entry believes never differ.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::{Seen, Word, read};

/// The answer of a poll (a 2xx) in xAI's form; `None` if it has that form already, or is nothing that we know.
/// A failed answer loses a `video` without a `url`: clients choke on it.
pub fn flatten(body: &[u8]) -> Option<Vec<u8>> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else { return None };
    if text(&answer, "status").is_none()
        && let Some(Value::Object(task)) = answer.get_mut("data").map(Value::take)
    {
        let flat = unwrap(task, read(StatusCode::OK, body))?;
        return serde_json::to_vec(&flat).ok();
    }
    drop_empty_video(&mut answer).then(|| serde_json::to_vec(&answer).ok())?
}

/// xAI's object for a relay's record of which this was seen.
fn unwrap(mut task: Map<String, Value>, seen: Seen) -> Option<Map<String, Value>> {
    let inner = match task.remove("data") {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    };
    let word = text(&inner, "status").map(Word::of);
    match seen {
        Seen::Nothing | Seen::Missing | Seen::KeyRefused => None,
        Seen::Unfinished if word.is_some() => Some(inner),
        Seen::Unfinished => Some(pending(&task)),
        Seen::Done(_) => Some(done(&task, inner)),
        Seen::Expired(_) if word == Some(Word::Expired) => Some(inner),
        Seen::Expired(_) => Some(object(json!({"status": "expired"}))),
        // The job's own words, where it has ended by itself.
        Seen::Failed { .. } | Seen::Moderated(_) if matches!(word, Some(Word::Done | Word::LikeDone)) => Some(inner),
        // Clients repeat an internal error, and would meet the same refusal again.
        Seen::Failed { refusal: true, .. } => Some(failed(&task, inner, "invalid_argument", "the job was refused")),
        Seen::Failed { refusal: false, .. } => Some(failed(&task, inner, "internal_error", "the job failed")),
        Seen::Moderated(_) => Some(failed(&task, inner, "invalid_argument", "rejected by content moderation")),
    }
}

fn pending(task: &Map<String, Value>) -> Map<String, Value> {
    let mut answer = object(json!({"status": "pending", "progress": progress(task.get("progress"))}));
    if let Some(id) = text(task, "task_id") {
        answer.insert("request_id".to_owned(), id.into());
    }
    answer
}

fn done(task: &Map<String, Value>, mut inner: Map<String, Value>) -> Map<String, Value> {
    inner.insert("status".to_owned(), "done".into());
    let has_video = inner
        .get("video")
        .and_then(Value::as_object)
        .is_some_and(|video| text(video, "url").is_some() || video.get("file_output").is_some_and(Value::is_object));
    if let (false, Some(url)) = (has_video, text(task, "fail_reason")) {
        let url = Value::from(url);
        match inner.get_mut("video").and_then(Value::as_object_mut) {
            Some(video) => drop(video.insert("url".to_owned(), url)),
            None => drop(inner.insert("video".to_owned(), json!({"url": url}))),
        }
    }
    inner
}

/// A failure that has code and message in any case, because clients print them.
fn failed(task: &Map<String, Value>, mut inner: Map<String, Value>, code: &str, message: &str) -> Map<String, Value> {
    inner.insert("status".to_owned(), "failed".into());
    drop_empty_video(&mut inner);
    let told = inner.get("error").and_then(Value::as_object);
    let sentence = inner.get("error").and_then(Value::as_str).filter(|sentence| !sentence.trim().is_empty());
    let code = told.and_then(|error| text(error, "code")).or(text(&inner, "code")).unwrap_or(code);
    let told_message = told.and_then(|error| text(error, "message")).or(sentence).or(text(task, "fail_reason"));
    let error = json!({"code": code, "message": told_message.unwrap_or(message)});
    inner.insert("error".to_owned(), error);
    inner
}

/// Takes a `video` without a `url` out of a failed answer, and says whether there was one.
fn drop_empty_video(answer: &mut Map<String, Value>) -> bool {
    let is_failed = text(answer, "status").map(Word::of) == Some(Word::Failed);
    let is_empty = match answer.get("video") {
        Some(Value::Object(video)) => !video.get("url").is_some_and(Value::is_string),
        Some(_) => true,
        None => false,
    };
    is_failed && is_empty && answer.remove("video").is_some()
}

/// 0 to 99, from `"57%"` or `57`; 0 where nothing is told.
fn progress(told: Option<&Value>) -> u64 {
    let percent = match told {
        Some(Value::String(text)) => text.trim().trim_end_matches('%').trim().parse().ok(),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    percent.unwrap_or(0).min(99)
}

/// A field that is a text and not blank.
fn text<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v str> {
    object.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}
