//! A simulated job: what was asked, how it ends, what a poll of it shows in both of CometAPI's forms, and what it
//! costs. Pure: the time that has passed is handed in. The forms are those of `UPSTREAM.md` §3, traps included.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Answer;

/// A job that the simulated upstream has made.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub request_id: String,
    /// The body without `user`, keys sorted, numbers written one way: equal for bodies that mean the same.
    pub canonical: String,
    /// The first characters of the prompt.
    pub prompt: String,
    /// The model, also if it was not named.
    pub model: String,
    /// Seconds of video, also if they were not named.
    pub duration: u64,
    /// When it was made.
    pub created: Instant,
    /// The same as Unix seconds.
    pub created_unix: u64,
    /// How it ends.
    pub end: End,
    /// How it shows until then.
    pub pending: Pending,
    /// When it ends, counted from `created`.
    pub takes: Duration,
    /// What it costs, in ticks of 10^-10 USD.
    pub cost: u64,
}

/// How a job ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With a video.
    #[default]
    Done,
    /// With a video, in the earlier form without `status` (flat shape only).
    DoneWithoutStatus,
    /// `done`, but no URL.
    DoneWithoutUrl,
    /// `failed`, with HTTP 200.
    Failed {
        /// The error's code.
        code: String,
        /// The error's message.
        message: String,
    },
    /// Refused by moderation: HTTP 400 on a GET, and charged.
    Moderated,
    /// Refused by moderation: `done` with `respect_moderation` false.
    Disrespectful,
    /// `expired`.
    Expired,
    /// 404.
    NotFound,
    /// 400 `task_not_exist`.
    NoTask,
    /// Not at all: it stays at 99 %.
    Never,
}

/// How an unfinished job shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pending {
    /// HTTP 200 with status and progress.
    #[default]
    Progress,
    /// HTTP 202 with status and progress.
    Accepted,
    /// HTTP 202 with an empty body.
    Empty,
    /// HTTP 200 with the id alone.
    IdOnly,
    /// HTTP 200 with a status that nobody knows.
    UnknownStatus,
}

/// Which of CometAPI's two poll forms is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The task wrapper around the provider's object (`UPSTREAM.md` §3.2, A).
    Wrapper,
    /// The provider's object itself (B).
    #[default]
    Flat,
}

impl End {
    /// `failed` with this code and message.
    pub fn failed(code: &str, message: &str) -> End {
        End::Failed { code: code.to_owned(), message: message.to_owned() }
    }
}

impl Job {
    /// What a poll shows, that long after the job was made. `url` is where its video is.
    pub(super) fn answer(&self, shape: Shape, age: Duration, url: &str) -> Answer {
        let ended = age >= self.takes;
        match &self.end {
            End::Never => self.unfinished(shape, 99),
            _ if !ended => self.unfinished(shape, self.progress(age)),
            End::Done | End::DoneWithoutStatus | End::DoneWithoutUrl | End::Disrespectful => {
                self.finished(shape, "SUCCESS", url, self.success(url))
            }
            End::Failed { code, message } => self.finished(shape, "FAILURE", message, self.failure(code, message)),
            End::Expired => self.finished(shape, "FAILURE", "the request expired", json!({"status": "expired"})),
            End::Moderated => Answer::json(
                400,
                &json!({
                    "code": "imagine:content-moderated",
                    "error": "Generated video rejected by content moderation.",
                    "usage": {"cost_in_usd_ticks": self.cost},
                }),
            ),
            End::NotFound => unknown_job(Shape::Flat),
            End::NoTask => unknown_job(Shape::Wrapper),
        }
    }

    /// Whether it has ended, that long after it was made.
    pub(super) fn has_ended(&self, age: Duration) -> bool {
        self.end != End::Never && age >= self.takes
    }

    /// 0 to 99.
    pub(super) fn progress(&self, age: Duration) -> u64 {
        let percent = age.as_micros().saturating_mul(100) / self.takes.as_micros().max(1);
        u64::try_from(percent).unwrap_or(99).min(99)
    }

    fn unfinished(&self, shape: Shape, progress: u64) -> Answer {
        let status = if self.pending == Pending::UnknownStatus { "dreaming" } else { "pending" };
        let provider = json!({"status": status, "progress": progress, "model": self.model});
        let http = match self.pending {
            Pending::Empty => return Answer::empty(202),
            Pending::IdOnly => return Answer::json(200, &json!({"request_id": self.request_id})),
            Pending::Accepted => 202,
            Pending::Progress | Pending::UnknownStatus => 200,
        };
        let body = match shape {
            Shape::Flat => provider,
            Shape::Wrapper if progress == 0 => self.wrapped("SUBMITTED", "", "0%", Value::Null),
            Shape::Wrapper => self.wrapped("IN_PROGRESS", "", &format!("{progress}%"), provider),
        };
        Answer::json(http, &body)
    }

    fn finished(&self, shape: Shape, status: &str, fail_reason: &str, provider: Value) -> Answer {
        match shape {
            Shape::Flat => Answer::json(200, &provider),
            Shape::Wrapper => Answer::json(200, &self.wrapped(status, fail_reason, "100%", provider)),
        }
    }

    /// The provider's object for everything that counts as success.
    fn success(&self, url: &str) -> Value {
        let video = match self.end {
            End::DoneWithoutUrl => json!({"duration": self.duration, "respect_moderation": true}),
            End::Disrespectful => json!({"url": "", "duration": self.duration, "respect_moderation": false}),
            _ => json!({"url": url, "duration": self.duration, "respect_moderation": true}),
        };
        if self.end == End::DoneWithoutStatus {
            return json!({"model": self.model, "video": video});
        }
        json!({
            "status": "done",
            "progress": 100,
            "model": self.model,
            "video": video,
            "usage": {"cost_in_usd_ticks": self.cost},
        })
    }

    fn failure(&self, code: &str, message: &str) -> Value {
        json!({
            "status": "failed",
            "video": {"duration": 0, "respect_moderation": true},
            "model": "",
            "error": {"code": code, "message": message},
        })
    }

    /// The wrapper. On success `fail_reason` holds the video's URL, as upstream does it.
    fn wrapped(&self, status: &str, fail_reason: &str, progress: &str, provider: Value) -> Value {
        let ended = progress == "100%";
        let finish_time = if ended { self.created_unix.saturating_add(self.takes.as_secs()) } else { 0 };
        json!({
            "code": "success",
            "message": "",
            "data": {
                "task_id": self.request_id,
                "action": "VIDEO_GENERATION",
                "status": status,
                "fail_reason": fail_reason,
                "submit_time": self.created_unix,
                "start_time": 0,
                "finish_time": finish_time,
                "progress": progress,
                "data": provider,
            },
        })
    }
}

/// The answer about a job that nobody knows.
pub(super) fn unknown_job(shape: Shape) -> Answer {
    match shape {
        Shape::Flat => Answer::json(
            404,
            &json!({"code": "The requested resource was not found", "error": "The video request does not exist."}),
        ),
        Shape::Wrapper => {
            Answer::json(400, &json!({"code": "task_not_exist", "message": "task_not_exist", "data": null}))
        }
    }
}

/// What a video costs in ticks of 10^-10 USD (`UPSTREAM.md` §6.1).
pub(super) fn cost(model: &str, resolution: &str, seconds: u64, images: u64) -> u64 {
    let (per_second, per_image) = match (model, resolution) {
        ("grok-imagine-video", "720p") => (700_000_000, 20_000_000),
        ("grok-imagine-video", _) => (500_000_000, 20_000_000),
        ("grok-imagine-video-1.5-lite", _) => (200_000_000, 100_000_000),
        (_, "1080p") => (2_500_000_000, 100_000_000),
        (_, "720p") => (1_400_000_000, 100_000_000),
        (_, _) => (800_000_000_u64, 100_000_000_u64),
    };
    per_second.saturating_mul(seconds).saturating_add(per_image.saturating_mul(images))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(end: End) -> Job {
        Job {
            request_id: "id".to_owned(),
            canonical: String::new(),
            prompt: String::new(),
            model: "grok-imagine-video".to_owned(),
            duration: 1,
            created: Instant::now(),
            created_unix: 1_773_297_002,
            end,
            pending: Pending::Progress,
            takes: Duration::from_secs(10),
            cost: 500_000_000,
        }
    }

    fn shown(job: &Job, shape: Shape, seconds: u64) -> (u16, Value) {
        let answer = job.answer(shape, Duration::from_secs(seconds), "http://video");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    #[test]
    fn the_wrapper_holds_the_url_as_fail_reason_and_progress_as_text() {
        let (status, body) = shown(&job(End::Done), Shape::Wrapper, 10);
        assert_eq!(status, 200);
        let want = json!({"code": "success", "message": "", "data": {
            "task_id": "id", "action": "VIDEO_GENERATION", "status": "SUCCESS", "fail_reason": "http://video",
            "submit_time": 1_773_297_002_u64, "start_time": 0, "finish_time": 1_773_297_012_u64, "progress": "100%",
            "data": {"model": "grok-imagine-video", "usage": {"cost_in_usd_ticks": 500_000_000}, "progress": 100,
                     "video": {"url": "http://video", "duration": 1, "respect_moderation": true}, "status": "done"}}});
        assert_eq!(body, want);
    }

    #[test]
    fn progress_runs_from_0_to_99_and_then_the_job_is_done() {
        for (seconds, want) in [(0, 0), (5, 50), (9, 90)] {
            assert_eq!(shown(&job(End::Done), Shape::Flat, seconds).1["progress"], want);
        }
        assert_eq!(shown(&job(End::Done), Shape::Wrapper, 5).1["data"]["progress"], "50%");
        assert_eq!(shown(&job(End::Done), Shape::Flat, 10).1["progress"], 100);
        assert_eq!(shown(&job(End::Never), Shape::Flat, 1_000).1["progress"], 99);
    }

    #[test]
    fn each_end_shows_as_upstream_shows_it() {
        for (end, status, pointer, want) in [
            (End::failed("internal_error", "boom"), 200, "/status", json!("failed")),
            (End::failed("internal_error", "boom"), 200, "/error/code", json!("internal_error")),
            (End::Moderated, 400, "/code", json!("imagine:content-moderated")),
            (End::Moderated, 400, "/usage/cost_in_usd_ticks", json!(500_000_000)),
            (End::Disrespectful, 200, "/video/respect_moderation", json!(false)),
            (End::Expired, 200, "/status", json!("expired")),
            (End::NotFound, 404, "/error", json!("The video request does not exist.")),
            (End::NoTask, 400, "/code", json!("task_not_exist")),
        ] {
            let (got, body) = shown(&job(end.clone()), Shape::Flat, 10);
            assert_eq!((got, body.pointer(pointer)), (status, Some(&want)), "{end:?}");
        }
        let (_, without_url) = shown(&job(End::DoneWithoutUrl), Shape::Flat, 10);
        assert_eq!(without_url.pointer("/video/url"), None);
        let (_, without_status) = shown(&job(End::DoneWithoutStatus), Shape::Flat, 10);
        assert_eq!((without_status.get("status"), &without_status["video"]["url"]), (None, &json!("http://video")));
    }

    #[test]
    fn prices_are_those_of_the_table() {
        for (model, resolution, seconds, images, ticks) in [
            ("grok-imagine-video", "480p", 1, 0, 500_000_000),
            ("grok-imagine-video", "480p", 5, 0, 2_500_000_000),
            ("grok-imagine-video", "480p", 1, 1, 520_000_000),
            ("grok-imagine-video", "720p", 8, 0, 5_600_000_000),
            ("grok-imagine-video-1.5", "1080p", 2, 0, 5_000_000_000),
            ("grok-imagine-video-1.5-lite", "480p", 1, 0, 200_000_000),
        ] {
            assert_eq!(cost(model, resolution, seconds, images), ticks, "{model} {resolution}");
        }
    }
}
