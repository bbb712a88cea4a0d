//! The literal answers of the API's own pages, then everything odd.

use proptest::prelude::*;

use super::*;

/// CometAPI's documented answer of a finished job.
const WRAPPER_DONE: &str = r#"{"code":"success","message":"",
 "data":{"task_id":"4b2c","action":"VIDEO_GENERATION","status":"SUCCESS",
         "fail_reason":"https://vidgen.x.ai/v.mp4",
         "submit_time":1773297002,"start_time":0,"finish_time":1773297014,"progress":"100%",
         "data":{"model":"grok-imagine-video","usage":{"cost_in_usd_ticks":500000000},
                 "video":{"url":"https://vidgen.x.ai/v.mp4","duration":1,"respect_moderation":true},"status":"done"}}}"#;
/// xAI's answer of a finished job.
const FLAT_DONE: &str = r#"{"status":"done","progress":100,"model":"grok-imagine-video","video":{"url":
 "https://vidgen.x.ai/xai-vidgen-bucket/xai-video-1.mp4","duration":6,"respect_moderation":true},
 "usage":{"cost_in_usd_ticks":18446744073709551615}}"#;
/// xAI's answer of a failed job: with a video that has no URL.
const FLAT_FAILED: &str = r#"{"status":"failed","video":{"duration":0,"respect_moderation":true},"model":"",
 "error":{"code":"internal_error","message":"try again"}}"#;
/// xAI's answer where moderation refused the video, a 400.
const MODERATED: &str = r#"{"code":"imagine:content-moderated","error":"Generated video rejected by content moderation.",
 "usage":{"cost_in_usd_ticks":2500000000}}"#;

const NONE: Facts = Facts { finished: None, duration: None, ticks: None };
const FAILED: Seen = Seen::Failed { refusal: false, facts: NONE };
const REFUSED: Seen = Seen::Failed { refusal: true, facts: NONE };

fn seen(status: u16, body: &str) -> Seen {
    read(StatusCode::from_u16(status).unwrap(), body.as_bytes())
}

/// The answer in xAI's form.
fn flat(body: &str) -> Option<Value> {
    flatten(body.as_bytes()).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// CometAPI's wrapper around a task's fields.
fn wrapped(task: &str) -> String {
    format!(r#"{{"code":"success","message":"","data":{{"task_id":"t1",{task}}}}}"#)
}

#[test]
fn a_finished_job_tells_its_time_length_and_ticks_in_both_shapes() {
    let facts = Facts {
        finished: Some(Time::from_millis(1_773_297_014_000)),
        duration: Some(Duration::from_secs(1)),
        ticks: Some(500_000_000),
    };
    assert_eq!(seen(200, WRAPPER_DONE), Seen::Done(facts));
    let facts = Facts { finished: None, duration: Some(Duration::from_secs(6)), ticks: Some(u64::MAX) };
    assert_eq!(seen(200, FLAT_DONE), Seen::Done(facts));
}

#[test]
fn flat_answers_are_read_by_the_words_of_both_documentations() {
    for (body, want) in [
        (r#"{"status":"pending","progress":57}"#, Seen::Unfinished),
        (r#"{"status":"queued"}"#, Seen::Unfinished),
        (r#"{"status":"processing","progress":1}"#, Seen::Unfinished),
        (r#"{"status":"dreaming"}"#, Seen::Unfinished),
        (r#"{"status":"cancelled"}"#, Seen::Unfinished),
        (r#"{"request_id":"r1"}"#, Seen::Unfinished),
        (r#"{"video":{"url":"https://v/1.mp4"},"model":"m"}"#, Seen::Done(NONE)),
        (r#"{"status":null,"video":{"url":"https://v/1.mp4"}}"#, Seen::Done(NONE)),
        (r#"{"status":"completed","video":{"url":"https://v/1.mp4"}}"#, Seen::Done(NONE)),
        (r#"{"status":"Succeeded","video":{"url":"https://v/1.mp4"}}"#, Seen::Done(NONE)),
        (r#"{"status":"completed"}"#, Seen::Unfinished),
        (r#"{"status":"done","video":{"url":null,"file_output":{"public_url":"https://f/1"}}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","video":{"file_output":{"file_id":"f1"}}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","video":{"url":"https://v/1.mp4","respect_moderation":false}}"#, Seen::Done(NONE)),
        (r#"{"status":"done"}"#, FAILED),
        (r#"{"status":"done","video":{"url":" "}}"#, FAILED),
        (r#"{"status":"done","video":{"url":"","respect_moderation":false}}"#, Seen::Moderated(NONE)),
        (r#"{"status":"done","video":{"respect_moderation":false}}"#, Seen::Moderated(NONE)),
        (r#"{"status":"expired"}"#, Seen::Expired(NONE)),
        (r#"{"status":"EXPIRED"}"#, Seen::Expired(NONE)),
        (FLAT_FAILED, FAILED),
        (r#"{"status":"failed"}"#, FAILED),
        (r#"{"status":"failed","error":{"code":"service_unavailable"}}"#, FAILED),
    ] {
        assert_eq!(seen(200, body), want, "{body}");
        assert_eq!(seen(202, body), want, "202 {body}");
    }
}

#[test]
fn m20_refusals_that_the_same_prompt_would_meet_again_are_told_from_failures() {
    for (error, want) in [
        (r#"{"code":"invalid_argument"}"#, REFUSED),
        (r#"{"code":"invalid-argument"}"#, REFUSED),
        (r#"{"code":"Permission_Denied"}"#, REFUSED),
        (r#"{"code":"failed-precondition"}"#, REFUSED),
        (r#"{"code":"Client specified an invalid argument"}"#, REFUSED),
        (r#""invalid_argument: the picture is too small""#, REFUSED),
        (r#"{"code":"moderated"}"#, Seen::Moderated(NONE)),
        (r#"{"code":"imagine:content-moderated"}"#, Seen::Moderated(NONE)),
        (r#"{"code":"invalid_argument","message":"rejected by content moderation"}"#, Seen::Moderated(NONE)),
        (r#""Generated video rejected by content moderation.""#, Seen::Moderated(NONE)),
        (r#"{"code":"internal_error","message":"an invalid_argument inside"}"#, FAILED),
        (r#"{"code":"service-unavailable"}"#, FAILED),
        (r#"{"code":7}"#, FAILED),
        (r"null", FAILED),
    ] {
        let body = format!(r#"{{"status":"failed","error":{error}}}"#);
        assert_eq!(seen(200, &body), want, "{body}");
    }
    let body = r#"{"status":"failed","code":"invalid-argument","error":"no"}"#;
    assert_eq!(seen(200, body), REFUSED);
    let body = r#"{"status":"failed","video":{"respect_moderation":false}}"#;
    assert_eq!(seen(200, body), Seen::Moderated(NONE));
}

#[test]
fn the_wrapper_is_read_by_its_status_and_never_by_fail_reason_alone() {
    for (task, want) in [
        (r#""status":"IN_PROGRESS","data":null"#, Seen::Unfinished),
        (r#""status":"NOT_START""#, Seen::Unfinished),
        (r#""status":"UNKNOWN","fail_reason":"anything""#, Seen::Unfinished),
        (r#""status":"QUEUED","data":{"status":"pending","progress":3}"#, Seen::Unfinished),
        (r#""status":"IN_PROGRESS","fail_reason":"invalid_argument""#, Seen::Unfinished),
        (r#""progress":"3%""#, Seen::Unfinished),
        (r#""status":"IN_PROGRESS","data":{"status":"done","video":{"url":"https://v"}}"#, Seen::Done(NONE)),
        (r#""status":"IN_PROGRESS","data":{"status":"expired"}"#, Seen::Expired(NONE)),
        (r#""status":"SUCCESS","fail_reason":"https://v/1.mp4","data":null"#, Seen::Done(NONE)),
        (r#""status":"SUCCESS","fail_reason":"https://v/1.mp4","data":{"status":"pending"}"#, Seen::Done(NONE)),
        (r#""status":"SUCCESS","fail_reason":"https://v/1.mp4","data":{"status":"done"}"#, Seen::Done(NONE)),
        (r#""status":"success","data":{"video":{"url":"https://v/1.mp4"}}"#, Seen::Done(NONE)),
        (r#""status":"SUCCESS","fail_reason":"","data":null"#, Seen::Unfinished),
        (r#""status":"SUCCESS","fail_reason":"","data":{"status":"done"}"#, FAILED),
        (r#""status":"SUCCESS","data":{"status":"done","video":{"respect_moderation":false}}"#, Seen::Moderated(NONE)),
        (r#""status":"FAILURE","fail_reason":"upstream error","data":null"#, FAILED),
        (r#""status":"FAILURE","fail_reason":"https://v/1.mp4","data":{}"#, FAILED),
        (r#""status":"FAILURE","data":{"video":{"url":"https://v"}}"#, FAILED),
        (r#""status":"FAILURE","data":{"status":"pending"}"#, FAILED),
        (r#""status":"FAILURE","data":{"status":"done","video":{"url":"https://v"}}"#, Seen::Done(NONE)),
        (r#""status":"FAILURE","fail_reason":"invalid_argument: too small""#, REFUSED),
        (r#""status":"FAILURE","fail_reason":"rejected by content moderation""#, Seen::Moderated(NONE)),
        (r#""status":"FAILURE","data":{"status":"failed","error":{"code":"permission_denied"}}"#, REFUSED),
        (r#""status":"EXPIRED","data":[]"#, Seen::Expired(NONE)),
    ] {
        assert_eq!(seen(200, &wrapped(task)), want, "{task}");
    }
}

#[test]
fn m19_a_status_ends_an_entry_only_where_the_rule_says_so() {
    let unknown_task = r#"{"code":"task_not_exist","message":"task_not_exist","data":null}"#;
    let moderated = Seen::Moderated(Facts { ticks: Some(2_500_000_000), ..NONE });
    for (status, body, want) in [
        (400, MODERATED, moderated),
        (400, r#"{"error":{"message":"rejected by content moderation","code":""}}"#, Seen::Moderated(NONE)),
        (
            400,
            r#"{"code":"Client specified an invalid argument","error":"Generated video rejected by content moderation."}"#,
            Seen::Moderated(NONE),
        ),
        (400, r#"{"code":"Client specified an invalid argument","error":"Incorrect API key"}"#, Seen::Nothing),
        (400, r#"{"error":{"message":"bad","prompt":"moderation"}}"#, Seen::Nothing),
        (400, "content moderation", Seen::Nothing),
        (400, "", Seen::Nothing),
        (400, FLAT_FAILED, Seen::Nothing),
        (400, unknown_task, Seen::Missing),
        (400, r#"{"error":{"code":"task-not-exist"}}"#, Seen::Missing),
        (200, unknown_task, Seen::Missing),
        (404, r#"{"code":"not-found","error":"no such job"}"#, Seen::Missing),
        (404, "", Seen::Missing),
        (410, "gone", Seen::Missing),
        (404, "\n <!doctype html><html>", Seen::Nothing),
        (401, "", Seen::KeyRefused),
        (401, MODERATED, Seen::KeyRefused),
        (403, MODERATED, Seen::Nothing),
        (422, MODERATED, Seen::Nothing),
        (429, unknown_task, Seen::Nothing),
        (500, FLAT_FAILED, Seen::Nothing),
        (500, unknown_task, Seen::Nothing),
        (503, MODERATED, Seen::Nothing),
        (301, FLAT_FAILED, Seen::Nothing),
        (304, "", Seen::Nothing),
        (200, "<html>done</html>", Seen::Nothing),
        (200, "", Seen::Nothing),
        (204, "", Seen::Nothing),
        (202, "", Seen::Unfinished),
        (202, " \r\n", Seen::Unfinished),
        (202, "wait", Seen::Nothing),
        (200, r#"{"code":"fail_to_fetch_task","message":"x","data":null}"#, Seen::Nothing),
        (200, r#"{"error":{"message":"quota","code":"insufficient_user_quota"}}"#, Seen::Nothing),
    ] {
        assert_eq!(seen(status, body), want, "{status} {body}");
    }
}

#[test]
fn odd_types_read_as_absent_and_hide_nothing_else() {
    for (body, want) in [
        ("null", Seen::Nothing),
        ("7", Seen::Nothing),
        (r#""done""#, Seen::Nothing),
        ("{}", Seen::Nothing),
        (r#"["failed"]"#, Seen::Nothing),
        (r#"{"status":5}"#, Seen::Nothing),
        (r#"{"status":{"status":"failed"}}"#, Seen::Nothing),
        (r#"{"status":["failed"],"request_id":"r"}"#, Seen::Unfinished),
        (r#"{"data":null}"#, Seen::Nothing),
        (r#"{"data":{"data":{"data":{"status":"FAILURE"}}}}"#, Seen::Nothing),
        (r#"{"data":["t","FAILURE"]}"#, Seen::Nothing),
        (r#"{"status":"failed","error":[null,{"a":[]}],"video":7,"usage":true,"data":-1}"#, FAILED),
        (r#"{"\u0073tatus":"fail\u0065d"}"#, FAILED),
        (r#"{"status":"done","video":{"url":"u","duration":{}},"usage":{"cost_in_usd_ticks":-1}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","video":{"url":"u","duration":-3},"usage":{"cost_in_usd_ticks":1e40}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","video":{"url":"u","duration":0}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","video":{"url":"u","duration":"inf"}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","video":{"url":"u","duration":3601}}"#, Seen::Done(NONE)),
    ] {
        assert_eq!(seen(200, body), want, "{body}");
    }
    for (duration, want) in [("\"8\"", 8_000), ("8.5", 8_500), ("\" 6 \"", 6_000), ("3600", 3_600_000)] {
        let body = format!(r#"{{"status":"done","video":{{"url":"u","duration":{duration}}}}}"#);
        let duration = Some(Duration::from_millis(want));
        assert_eq!(seen(200, &body), Seen::Done(Facts { duration, ..NONE }), "{body}");
    }
    for finish_time in ["0", "-1", "\"1773297014\"", "18446744073709551615", "1.5", "null"] {
        let body = wrapped(&format!(r#""status":"EXPIRED","finish_time":{finish_time}"#));
        assert_eq!(seen(200, &body), Seen::Expired(NONE), "{body}");
    }
}

#[test]
fn of_a_field_that_stands_twice_the_last_counts_as_for_clients() {
    for (body, want) in [
        (r#"{"status":"pending","status":"failed"}"#, FAILED),
        (r#"{"status":"failed","status":"pending"}"#, Seen::Unfinished),
        (r#"{"status":"failed","error":"a","error":{"code":"moderated"}}"#, Seen::Moderated(NONE)),
        (r#"{"data":{"task_id":"t1","status":"FAILURE","status":"FAILURE"}}"#, FAILED),
        (r#"{"status":"done","video":{"url":"","url":"https://v/1.mp4"}}"#, Seen::Done(NONE)),
        (r#"{"status":"done","status":"#, Seen::Nothing),
    ] {
        assert_eq!(seen(200, body), want, "{body}");
    }
}

#[test]
fn m21_a_part_of_an_answer_tells_nothing() {
    for (status, body) in [(200, WRAPPER_DONE), (200, FLAT_DONE), (200, FLAT_FAILED), (400, MODERATED)] {
        for end in 1..body.len() {
            assert_eq!(seen(status, &body[..end]), Seen::Nothing, "{}", &body[..end]);
        }
        assert_eq!(seen(status, &format!("{body}x")), Seen::Nothing);
        assert_ne!(seen(status, &format!("{body}\n")), Seen::Nothing);
    }
}

#[test]
fn flat_takes_the_wrapper_off() {
    let done = r#"{"model":"grok-imagine-video","usage":{"cost_in_usd_ticks":500000000},
        "video":{"url":"https://vidgen.x.ai/v.mp4","duration":1,"respect_moderation":true},"status":"done"}"#;
    assert_eq!(flat(WRAPPER_DONE), Some(serde_json::from_str(done).unwrap()));
    for (task, want) in [
        (
            r#""status":"IN_PROGRESS","progress":"57%","data":null"#,
            r#"{"status":"pending","request_id":"t1","progress":57}"#,
        ),
        (r#""status":"QUEUED","progress":3"#, r#"{"status":"pending","request_id":"t1","progress":3}"#),
        (r#""status":"SUCCESS","progress":"100%""#, r#"{"status":"pending","request_id":"t1","progress":99}"#),
        (r#""status":"QUEUED","data":{}"#, r#"{"status":"pending","request_id":"t1","progress":0}"#),
        (r#""status":"QUEUED","data":{"status":"pending","progress":4}"#, r#"{"status":"pending","progress":4}"#),
        (
            r#""status":"SUCCESS","fail_reason":"https://v","data":null"#,
            r#"{"status":"done","video":{"url":"https://v"}}"#,
        ),
        (
            r#""status":"SUCCESS","fail_reason":"https://v","data":{"status":"pending","video":{"duration":2}}"#,
            r#"{"status":"done","video":{"url":"https://v","duration":2}}"#,
        ),
        (
            r#""status":"FAILURE","fail_reason":"it broke","data":null"#,
            r#"{"status":"failed","error":{"code":"internal_error","message":"it broke"}}"#,
        ),
        (
            r#""status":"FAILURE","fail_reason":"permission_denied: no","data":null"#,
            r#"{"status":"failed","error":{"code":"invalid_argument","message":"permission_denied: no"}}"#,
        ),
        (
            r#""status":"FAILURE","data":{"status":"failed","video":{"duration":0},"error":{"code":"permission_denied","message":"no"}}"#,
            r#"{"status":"failed","error":{"code":"permission_denied","message":"no"}}"#,
        ),
        (
            r#""status":"FAILURE","fail_reason":"content moderation""#,
            r#"{"status":"failed","error":{"code":"invalid_argument","message":"content moderation"}}"#,
        ),
        (
            r#""status":"FAILURE","data":7"#,
            r#"{"status":"failed","error":{"code":"internal_error","message":"the job failed"}}"#,
        ),
        (
            r#""status":"SUCCESS","data":{"status":"done","video":{"url":"","respect_moderation":false}}"#,
            r#"{"status":"done","video":{"url":"","respect_moderation":false}}"#,
        ),
        (r#""status":"EXPIRED""#, r#"{"status":"expired"}"#),
    ] {
        assert_eq!(flat(&wrapped(task)), serde_json::from_str(want).ok(), "{task}");
    }
}

#[test]
fn flat_leaves_what_is_flat_and_takes_an_empty_video_out_of_a_failure() {
    for body in [
        FLAT_DONE,
        MODERATED,
        r#"{"request_id":"r1"}"#,
        r#"{"status":"failed","video":{"url":""},"error":{"code":"internal_error"}}"#,
        r#"{"status":"failed","error":"no"}"#,
        r#"{"status":"pending","data":{"status":"FAILURE"}}"#,
        r#"{"code":"task_not_exist","message":"","data":null}"#,
        r#"{"code":"success","data":{"anything":1}}"#,
        r#"{"error":{"message":"x"},"data":[]}"#,
        "",
        "[]",
        "<html>",
    ] {
        assert_eq!(flat(body), None, "{body}");
    }
    let want = r#"{"status":"failed","model":"","error":{"code":"internal_error","message":"try again"}}"#;
    assert_eq!(flat(FLAT_FAILED), Some(serde_json::from_str(want).unwrap()));
}

/// JSON made of the words that are looked for, so that odd types meet every field.
fn odd_json() -> impl Strategy<Value = Value> {
    let words =
        ["done", "failed", "FAILURE", "SUCCESS", "pending", "expired", "https://v", "57%", "", "task_not_exist"];
    let names = [
        "status",
        "data",
        "video",
        "url",
        "error",
        "code",
        "message",
        "fail_reason",
        "finish_time",
        "request_id",
        "task_id",
        "usage",
        "duration",
        "progress",
        "file_output",
        "respect_moderation",
        "cost_in_usd_ticks",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop::sample::select(words.to_vec()).prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            6 => prop::collection::hash_map(prop::sample::select(names.to_vec()).prop_map(str::to_owned), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// No bytes and no status make the reader panic.
    #[test]
    fn any_bytes_are_read(status in 100_u16..1000, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(StatusCode::from_u16(status).unwrap(), &body);
        let _ = flatten(&body);
    }

    /// What is flattened tells the same end as before, and needs no second flattening. (Only that moderation refused a
    /// job is lost where nothing but the empty video that is taken out said so.)
    #[test]
    fn flattening_changes_the_form_and_not_the_story(body in odd_json()) {
        let body = serde_json::to_vec(&body).unwrap();
        let before = read(StatusCode::OK, &body);
        if let Some(flat) = flatten(&body) {
            let after = read(StatusCode::OK, &flat);
            let is_failure = |seen| matches!(seen, Seen::Failed { .. } | Seen::Moderated(_));
            let is_same = std::mem::discriminant(&before) == std::mem::discriminant(&after);
            prop_assert!(is_same || is_failure(before) && is_failure(after), "{:?} became {:?}", before, after);
            prop_assert_eq!(flatten(&flat), None);
        }
    }
}
