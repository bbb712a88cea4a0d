//! What a poll's answer tells of its job. A part of an answer is never taken for the whole, and a client is told what
//! the entry believes.

use std::mem::discriminant;
use std::time::Duration;

use hyper::StatusCode;
use reelgate::jobs::observe::{Facts, Seen, flatten, read};
use serde_json::Value;

use super::first_line;

pub const WORDS: &[&str] = &[
    "200",
    "202",
    "400",
    "404",
    "\"status\":\"done\"",
    "\"status\":\"failed\"",
    "\"status\":\"SUCCESS\"",
    "\"status\":\"FAILURE\"",
    "\"status\":\"expired\"",
    "\"status\":\"pending\"",
    "\"data\":{}",
    "\"data\":{\"data\":{}}",
    "\"task_id\":\"t\"",
    "\"request_id\":\"t\"",
    "\"video\":{\"url\":\"https://a/\",\"duration\":8}",
    "\"video\":{}",
    "\"video\":{\"respect_moderation\":false}",
    "\"file_output\":{\"file_id\":\"f\"}",
    "\"fail_reason\":\"https://a/\"",
    "\"finish_time\":1790000000",
    "\"progress\":\"57%\"",
    "\"error\":{\"code\":\"invalid_argument\",\"message\":\"m\"}",
    "\"error\":\"m\"",
    "\"code\":\"task_not_exist\"",
    "\"usage\":{\"cost_in_usd_ticks\":5}",
    "moderated",
];

/// A line with the status, then the body.
pub fn run(input: &[u8]) {
    let (line, body) = first_line(input);
    let Some(status) = line.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) else { return };
    let seen = read(status, body);
    believable(seen);
    // As clients read it: of what stands twice the last counts.
    if let Ok(usual) = serde_json::from_slice::<Value>(body)
        && usual.is_object()
    {
        assert_eq!(read(status, usual.to_string().as_bytes()), seen, "a client reads it otherwise");
    }
    prefixes(status, body);
    if status.is_success()
        && let Some(flat) = flatten(body)
    {
        flattened(body, &flat);
    }
}

fn believable(seen: Seen) {
    let (Seen::Done(facts) | Seen::Failed { facts, .. } | Seen::Moderated(facts) | Seen::Expired(facts)) = seen else {
        return;
    };
    let Facts { duration, .. } = facts;
    assert!(duration.is_none_or(|duration| duration > Duration::ZERO && duration <= Duration::from_secs(3600)));
}

/// Whether a job has ended by it.
fn is_end(seen: Seen) -> bool {
    matches!(seen, Seen::Done(_) | Seen::Failed { .. } | Seen::Moderated(_) | Seen::Expired(_))
}

/// No beginning of an answer ends a job, unless nothing but blanks follows.
fn prefixes(status: StatusCode, body: &[u8]) {
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
        return;
    }
    let step = body.len() / 200 + 1;
    for end in (0..body.len()).step_by(step) {
        let (part, rest) = body.split_at(end);
        let is_whole = rest.iter().all(u8::is_ascii_whitespace);
        assert!(is_whole || !is_end(read(status, part)), "ended by the first {end} bytes");
    }
}

fn flattened(body: &[u8], flat: &[u8]) {
    let fields: Value = serde_json::from_slice(flat).expect("the flat answer is JSON");
    assert!(fields.is_object());
    assert_eq!(flatten(flat), None, "flat, and flattened again");
    let (before, after) = (read(StatusCode::OK, body), read(StatusCode::OK, flat));
    let is_failure = |seen| matches!(seen, Seen::Failed { .. } | Seen::Moderated(_));
    let is_same = discriminant(&before) == discriminant(&after) || is_failure(before) && is_failure(after);
    assert!(is_same, "the entry believes {before:?}, the client {after:?}");
    if fields["status"] == "failed" {
        assert!(fields.get("video").is_none_or(|video| video["url"].is_string()), "failed, with an empty video");
    }
}
