//! What a poll's answer tells about its job (`MONEY.md` M19 to M22; the two shapes and their traps are in
//! `UPSTREAM.md` §3). Pure: status and bytes in, a [`Seen`] out. Whether what is seen may end an entry (a 404 of a
//! fresh job may not, a `processing` after `done` may not) is decided by the entry, not here.
//! Whatever cannot be read, or is not complete yet, is [`Seen::Nothing`].

mod answer;
mod flat;

use std::hash::BuildHasher;
use std::num::NonZeroU64;
use std::time::Duration;

use foldhash::fast::RandomState;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::bill::price::LONGEST_BELIEVED;
use crate::clock::Time;
use crate::jobs::records::Job as Record;
use answer::{Job, Loose, Scalar, Task, Video};
pub use flat::flatten;

/// What an answer to a poll tells about the job's life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// Nothing that counts: 403, 429, another 4xx, a 5xx, a redirect, HTML, what is not (yet) complete JSON.
    Nothing,
    /// The job is known and has not ended.
    Unfinished,
    /// There is a video.
    Done(Facts),
    /// The job failed. A `refusal` is one that the same prompt would meet again (M20).
    Failed {
        /// Whether the entry stays a hit for the refusal window.
        refusal: bool,
        /// What else was said.
        facts: Facts,
    },
    /// Moderation refused the prompt or the video: always a refusal of M20, and billed.
    Moderated(Facts),
    /// The job expired upstream.
    Expired(Facts),
    /// The upstream does not know the job, which may also mean: not yet on this node.
    Missing,
    /// The upstream refused our key: tells nothing about the job.
    KeyRefused,
}

/// What the end of a job says beside its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// When the relay says that it ended: `finish_time`, as the upstream's clock has it.
    pub finished: Option<Time>,
    /// The length of the video, if it is believable: above zero, at most an hour.
    pub duration: Option<Duration>,
    /// xAI's cost, 10^10 ticks a dollar.
    pub ticks: Option<u64>,
}

/// Reads the answers about many jobs. Until it ends, a job is told of in the same words many times over: what is byte for
/// byte the answer that showed it unfinished last shows it so again, and is not parsed. It is known by 64 bits of a seeded
/// hash: two answers share them by no chance worth counting, and whoever writes answers could as well lie in them.
#[derive(Debug, Default)]
pub struct Reader(RandomState);

impl Reader {
    /// Reads an answer about a job, as [`read`] does.
    pub fn read(&self, job: &Record, status: StatusCode, body: &[u8]) -> Seen {
        let name = NonZeroU64::new(self.0.hash_one((status.as_u16(), body))).unwrap_or(NonZeroU64::MIN);
        if job.is_familiar(name) {
            return Seen::Unfinished;
        }
        let seen = read(status, body);
        if seen == Seen::Unfinished {
            job.note_familiar(name);
        }
        seen
    }
}

/// Reads a whole answer, or what has come of it so far. Only its own bytes count: a prefix of an answer is never
/// mistaken for a whole one.
pub fn read(status: StatusCode, body: &[u8]) -> Seen {
    match status {
        StatusCode::UNAUTHORIZED => Seen::KeyRefused,
        StatusCode::NOT_FOUND | StatusCode::GONE if !is_html(body) => Seen::Missing,
        StatusCode::ACCEPTED if body.trim_ascii().is_empty() => Seen::Unfinished,
        StatusCode::BAD_REQUEST => read_job_with(body, read_bad_request),
        _ if status.is_success() => read_job_with(body, read_success),
        _ => Seen::Nothing,
    }
}

/// What `read` makes of the answer, if the bytes are one whole JSON object.
fn read_job_with(body: &[u8], read: fn(&Job<'_>) -> Seen) -> Seen {
    let read = |answer: &Loose<'_, Job<'_>>| answer.object().map_or(Seen::Nothing, read);
    match serde_json::from_slice(body) {
        Ok(answer) => read(&answer),
        // Where a field stands twice, clients go by the last, and so does this.
        Err(error) if error.is_data() => {
            let Ok(value) = serde_json::from_slice::<Value>(body) else { return Seen::Nothing };
            Loose::deserialize(&value).map_or(Seen::Nothing, |answer| read(&answer))
        }
        Err(_) => Seen::Nothing,
    }
}

/// A wrong base URL is answered by a page, with any status: it says nothing about a job.
fn is_html(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

fn read_bad_request(job: &Job<'_>) -> Seen {
    if is_missing(job) {
        Seen::Missing
    } else if names_moderation(job) {
        Seen::Moderated(facts(job, None))
    } else {
        Seen::Nothing
    }
}

fn read_success(job: &Job<'_>) -> Seen {
    if job.status.text().is_none() {
        if is_missing(job) {
            return Seen::Missing;
        }
        if let Some(task) = job.data.object() {
            return read_wrapper(task);
        }
    }
    match read_job(job, None) {
        // Right after the submission an answer may echo the id and nothing else.
        Seen::Nothing if job.request_id.text().is_some() => Seen::Unfinished,
        seen => seen,
    }
}

/// The relay's record. Where the job's own object has ended it outranks the relay's status, which is refreshed in the
/// background and may lag.
fn read_wrapper(task: &Task<'_>) -> Seen {
    let absent = Job::default();
    let job = task.data.object().unwrap_or(&absent);
    let word = task.status.text().map(Word::of);
    if word == Some(Word::Failed) && job.status.text().is_none() {
        return read_failure(job, Some(task));
    }
    let seen = read_job(job, Some(task));
    if !matches!(seen, Seen::Nothing | Seen::Unfinished) {
        return seen;
    }
    match word {
        Some(Word::Failed) => read_failure(job, Some(task)),
        Some(Word::Expired) => Seen::Expired(facts(job, Some(task))),
        // A success without a video anywhere is the relay ahead of itself.
        Some(Word::Done | Word::LikeDone) if has_video(job, Some(task)) => Seen::Done(facts(job, Some(task))),
        Some(Word::Done | Word::LikeDone | Word::Running) => Seen::Unfinished,
        None if task.task_id.text().is_some() => Seen::Unfinished,
        None => seen,
    }
}

/// xAI's object, alone or inside the relay's record.
fn read_job(job: &Job<'_>, task: Option<&Task<'_>>) -> Seen {
    let has_video = has_video(job, task);
    let facts = facts(job, task);
    match job.status.text().map(Word::of) {
        Some(Word::Done | Word::LikeDone) | None if has_video => Seen::Done(facts),
        Some(Word::Done | Word::LikeDone) if is_moderated(job) => Seen::Moderated(facts),
        // `done` without a video is an error, not pending (`UPSTREAM.md` §8): no later poll brings one, clients give
        // up on it, and an id without a video must not be handed out for the whole delivery window.
        Some(Word::Done) => Seen::Failed { refusal: false, facts },
        Some(Word::Failed) => read_failure(job, task),
        Some(Word::Expired) => Seen::Expired(facts),
        Some(Word::LikeDone | Word::Running) => Seen::Unfinished,
        None => Seen::Nothing,
    }
}

fn read_failure(job: &Job<'_>, task: Option<&Task<'_>>) -> Seen {
    let facts = facts(job, task);
    let reason = task.and_then(|task| task.fail_reason.text());
    if is_moderated(job) || names_moderation(job) || reason.is_some_and(text_names_moderation) {
        return Seen::Moderated(facts);
    }
    let code = job.error.object().and_then(|failure| failure.code.text());
    // Without an object of its own, a failure is told in one text, the code first.
    let leading = reason.or(job.error.text()).and_then(|text| text.split(':').next());
    let refusal = [code, job.code.text(), leading].into_iter().flatten().any(is_refusal);
    Seen::Failed { refusal, facts }
}

/// What a status says. Strings that nobody documented count as running (`UPSTREAM.md` §8).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Running,
    /// xAI's `done`.
    Done,
    /// The relay's `SUCCESS`, and words that relays use for `done`: believed where there is a video.
    LikeDone,
    Failed,
    Expired,
}

impl Word {
    fn of(status: &str) -> Self {
        let is = |word: &str| status.eq_ignore_ascii_case(word);
        if is("done") {
            Self::Done
        } else if is("success") || is("succeeded") || is("completed") {
            Self::LikeDone
        } else if is("failed") || is("failure") {
            Self::Failed
        } else if is("expired") {
            Self::Expired
        } else {
            Self::Running
        }
    }
}

/// Whether the answer leads to a video: by its URL, by a file that the submission asked to be stored, or by the URL
/// that a relay keeps in `fail_reason` on success.
fn has_video(job: &Job<'_>, task: Option<&Task<'_>>) -> bool {
    let is_told = job.video.object().is_some_and(|video| {
        let stored = video.file_output.object();
        video.url.text().is_some()
            || stored.is_some_and(|file| file.public_url.text().is_some() || file.file_id.text().is_some())
    });
    let reason = task.and_then(|task| task.fail_reason.text());
    is_told || reason.is_some_and(|reason| reason.starts_with("https://") || reason.starts_with("http://"))
}

fn is_moderated(job: &Job<'_>) -> bool {
    job.video.object().is_some_and(|video| matches!(video.respect_moderation, Loose::Bool(false)))
}

/// Whether one of the texts of an error names moderation. The whole body is not searched: it may quote a prompt.
fn names_moderation(job: &Job<'_>) -> bool {
    let failure = job.error.object();
    let texts = [
        job.code.text(),
        job.message.text(),
        job.error.text(),
        failure.and_then(|failure| failure.code.text()),
        failure.and_then(|failure| failure.message.text()),
    ];
    texts.into_iter().flatten().any(text_names_moderation)
}

fn text_names_moderation(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("moderated") || text.contains("moderation")
}

fn is_missing(job: &Job<'_>) -> bool {
    let nested = job.error.object().and_then(|failure| failure.code.text());
    [job.code.text(), nested].into_iter().flatten().any(|code| normal(code) == "task_not_exist")
}

/// Whether an error's code is one of M20. Codes come bare (`invalid-argument`) and in a sentence ("Client specified
/// an invalid argument").
fn is_refusal(code: &str) -> bool {
    let code = normal(code);
    REFUSALS.iter().any(|refusal| code.ends_with(refusal))
}

/// A code with one spelling: small letters, words joined by underscores.
fn normal(code: &str) -> String {
    code.trim().to_ascii_lowercase().replace(['-', ' '], "_")
}

fn facts(job: &Job<'_>, task: Option<&Task<'_>>) -> Facts {
    let duration = job.video.object().and_then(duration);
    let ticks = job.usage.object().and_then(|usage| whole(&usage.cost_in_usd_ticks));
    // Zero means not set.
    let seconds = task.and_then(|task| whole(&task.finish_time)).filter(|seconds| *seconds > 0);
    let finished = seconds.and_then(|seconds| seconds.checked_mul(1_000)).map(Time::from_millis);
    Facts { finished, duration, ticks }
}

fn whole(scalar: &Scalar<'_>) -> Option<u64> {
    match scalar {
        Loose::Whole(number) => Some(*number),
        Loose::Object(_) | Loose::Text(_) | Loose::Real(_) | Loose::Bool(_) | Loose::Other => None,
    }
}

/// Seconds, as a number or as digits in a string.
fn duration(video: &Video<'_>) -> Option<Duration> {
    let duration = match &video.duration {
        Loose::Whole(seconds) => Duration::from_secs(*seconds),
        Loose::Real(seconds) => Duration::try_from_secs_f64(*seconds).ok()?,
        Loose::Text(text) => Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()?,
        Loose::Object(_) | Loose::Bool(_) | Loose::Other => return None,
    };
    (duration > Duration::ZERO && duration <= LONGEST_BELIEVED).then_some(duration)
}

/// What M20 calls a refusal.
const REFUSALS: [&str; 4] = ["moderated", "invalid_argument", "permission_denied", "failed_precondition"];

#[cfg(test)]
mod tests;
