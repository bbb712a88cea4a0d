//! Every row of M17 and M18, and of the faults that their rows in `HARDENING.md` name.

use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::*;

fn answer(status: u16, kind: &str, body: &str) -> Answer {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())]);
    Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn json(status: u16, body: &str) -> Answer {
    answer(status, "application/json", body)
}

fn encoded(status: u16, body: &str) -> Answer {
    let mut answer = json(status, body);
    answer.headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    answer
}

fn told(answer: Answer) -> Outcome {
    classify(Ok(answer), &Rules::from(&Dedup::default()))
}

/// The outcome in one word, and whether the upstream's own answer passes.
fn short(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::NotSent(_) => "not sent",
        Outcome::Refused(Reply::Answer(_)) => "refused, passes",
        Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer)) => "refused, invalid answer",
        Outcome::Refused(Reply::Error(Error::UpstreamKeyRefused)) => "refused, key",
        Outcome::Refused(Reply::Error(_)) => "refused, other",
        Outcome::Created { .. } => "created",
        Outcome::Unknown { doubt: Doubt::Broken, answer: None } => "unknown, broken",
        Outcome::Unknown { doubt: Doubt::Broken, answer: Some(_) } => "unknown, broken, passes",
        Outcome::Unknown { doubt: Doubt::Silent, answer: None } => "unknown, silent",
        Outcome::Unknown { doubt: Doubt::Silent, answer: Some(_) } => "unknown, silent, passes",
        Outcome::Unknown { doubt: Doubt::Held, .. } => "held",
    }
}

const COMET: &str = r#"{"error":{"message":"m (request id: 2026)","type":"comet_api_error","param":"","code":""}}"#;
const XAI: &str = r#"{"code":"Some code","error":"text"}"#;
const FLAT: &str = r#"{"code":"some_code","message":"text","data":null}"#;
const PAGE: &str = "<html><body>Bad gateway</body></html>";

#[test]
fn f12_m18_a_usable_id_makes_a_job_whatever_stands_beside_it() {
    for (body, id) in [
        (r#"{"request_id":"a3d1008e-4544-40d4-d075-11527e794e4a"}"#, "a3d1008e-4544-40d4-d075-11527e794e4a"),
        (r#"{"code":"success","message":"","data":{"task_id":"t_1"}}"#, "t_1"),
        (r#"{"request_id":null,"data":{"task_id":"t_1"}}"#, "t_1"),
        (r#"{"request_id":"r","data":{"task_id":"t_1"}}"#, "r"),
        (r#"{"request_id":"r","error":{"code":"invalid_request"}}"#, "r"),
    ] {
        for status in [200, 201, 202] {
            let Outcome::Created { request_id, answer } = told(json(status, body)) else { panic!("{body}") };
            assert_eq!(request_id.as_str(), id);
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, body.as_bytes()));
        }
    }
}

#[test]
fn the_answer_of_a_job_keeps_only_its_body() {
    let body = r#"{"request_id":"r"}"#;
    let mut answer = answer(202, "application/json; charset=utf-8", body);
    answer.headers.insert("x-up", HeaderValue::from_static("1"));
    let Outcome::Created { answer, .. } = told(answer) else { panic!() };
    assert_eq!((answer.status, answer.headers.len(), &answer.body[..]), (StatusCode::OK, 0, body.as_bytes()));
}

#[test]
fn f12_t44_t79_a_2xx_without_a_usable_id_is_unknown() {
    let long = format!(r#"{{"request_id":"{}"}}"#, "a".repeat(10_000));
    for body in [
        "",
        "{}",
        "null",
        "[]",
        PAGE,
        r#"{"request_id":"abc"#,
        r#"{"request_id":"a"} x"#,
        r#"{"request_id":null}"#,
        r#"{"request_id":7}"#,
        r#"{"request_id":""}"#,
        r#"{"request_id":["a"]}"#,
        r#"{"request_id":"a b"}"#,
        r#"{"request_id":"a\r\nSet-Cookie: x"}"#,
        r#"{"request_id":"\"quoted\""}"#,
        r#"{"request_id":"<script>"}"#,
        r#"{"request_id":"../x"}"#,
        r#"{"data":{"task_id":"a/b"}}"#,
        r#"{"data":[{"task_id":"a"}]}"#,
        r#"{"id":"abc"}"#,
        r#"{"status":"pending"}"#,
        &long,
    ] {
        assert_eq!(short(&told(json(200, body))), "unknown, broken", "{body}");
    }
    assert_eq!(short(&told(answer(202, "application/json", ""))), "unknown, broken");
    assert_eq!(short(&told(answer(204, "text/plain", ""))), "unknown, broken");
    assert_eq!(short(&told(encoded(200, r#"{"request_id":"a"}"#))), "unknown, broken");
}

#[test]
fn f13_m18_a_2xx_is_refused_only_by_a_known_code_and_without_anything_like_an_id() {
    for (body, want) in [
        (r#"{"code":"insufficient_user_quota","message":"m","data":null}"#, "refused, passes"),
        (r#"{"code":"pre_consume_token_quota_failed","message":"m"}"#, "refused, passes"),
        (r#"{"error":{"code":"invalid_request","message":"m (request id: 2026)"}}"#, "refused, passes"),
        (r#"{"error":{"code":"INVALID_API_KEY"}}"#, "refused, passes"),
        (r#"{"code":"Client specified an invalid argument","error":"m"}"#, "refused, passes"),
        (r#"{"code":"success","error":{"code":"invalid_request"}}"#, "refused, passes"),
        (r#"{"code":"invalid_request","message":"m","data":{"task_id":""}}"#, "refused, passes"),
        (r#"{"code":"invalid_request","message":"m","request_id":null}"#, "refused, passes"),
        // Not in the list, or nothing to find there.
        (r#"{"code":"do_request_failed","message":"m"}"#, "unknown, broken"),
        (r#"{"code":"imagine:content-moderated","error":"m"}"#, "unknown, broken"),
        (r#"{"code":"invalid_request","error":{"code":"internal_error"}}"#, "unknown, broken"),
        (r#"{"code":500,"message":"m"}"#, "unknown, broken"),
        (r#"{"error":{"message":"m"}}"#, "unknown, broken"),
        (r#"{"error":"m"}"#, "unknown, broken"),
        (r#"{"code":"success","message":"m"}"#, "unknown, broken"),
        // Something in it may be an id.
        (r#"{"code":"invalid_request","data":{"x":[{"jobId":"1"}]}}"#, "unknown, broken"),
        (r#"{"code":"invalid_request","id":7}"#, "unknown, broken"),
        (r#"{"code":"invalid_request","request_id":"not usable"}"#, "unknown, broken"),
        (r#"{"error":{"code":"invalid_request","Task-Id":"a"}}"#, "unknown, broken"),
    ] {
        assert_eq!(short(&told(json(200, body))), want, "{body}");
    }
}

#[test]
fn f14_f15_a_4xx_passes_as_it_came() {
    for status in [400, 402, 403, 404, 408, 413, 422, 429, 499] {
        for answer in [json(status, COMET), json(status, XAI), json(status, ""), answer(status, "text/html", PAGE)] {
            assert_eq!(told(answer.clone()), Outcome::Refused(Reply::Answer(answer)));
        }
        assert_eq!(short(&told(encoded(status, COMET))), "refused, invalid answer");
    }
}

#[test]
fn f17_a_401_is_our_fault_and_its_words_stay_here() {
    assert_eq!(short(&told(json(401, COMET))), "refused, key");
    assert_eq!(short(&told(encoded(401, COMET))), "refused, key");
    assert_eq!(short(&classify(Err(Unanswered::TooLong(StatusCode::UNAUTHORIZED)), &Rules::default())), "refused, key");
}

#[test]
fn f18_t01_a_redirect_made_nothing_and_is_no_answer() {
    for status in [300, 301, 302, 303, 304, 307, 308, 399] {
        assert_eq!(short(&told(answer(status, "text/html", PAGE))), "refused, invalid answer");
    }
}

#[test]
fn f16_m17_five_hundreds() {
    let lost = r#"{"code":"do_request_failed","message":"m","data":null}"#;
    let lost_within = r#"{"error":{"message":"m","code":"bad_response_status_code"}}"#;
    let disguised = r#"{"error":{"message":"m","code":"invalid_request"}}"#;
    for (status, body, want) in [
        (500, COMET, "refused, passes"),
        (500, XAI, "refused, passes"),
        (500, FLAT, "refused, passes"),
        (503, COMET, "refused, passes"),
        (503, XAI, "refused, passes"),
        (503, FLAT, "refused, passes"),
        (500, disguised, "refused, passes"),
        (500, lost, "unknown, broken, passes"),
        (503, lost, "unknown, broken, passes"),
        (503, lost_within, "unknown, broken, passes"),
        (500, r#"{"code":"fail_to_fetch_task","message":"m"}"#, "unknown, broken, passes"),
        (500, r#"{"code":"read_response_body_failed","message":"m"}"#, "unknown, broken, passes"),
        // JSON, but none of the API's three forms.
        (500, r#"{"message":"m"}"#, "unknown, broken, passes"),
        (500, r#"{"error":"text"}"#, "unknown, broken, passes"),
        (500, r#"{"error":{}}"#, "unknown, broken, passes"),
        (500, r#"{"code":1,"message":"m"}"#, "unknown, broken, passes"),
        (500, "{}", "unknown, broken, passes"),
        (500, "", "unknown, broken"),
        (500, PAGE, "unknown, broken"),
        (503, PAGE, "unknown, broken"),
        (500, r#"{"error":{"message":"#, "unknown, broken"),
        (500, "500", "unknown, broken"),
        (501, COMET, "unknown, broken, passes"),
        (505, PAGE, "unknown, broken"),
        (502, COMET, "unknown, broken, passes"),
        (504, COMET, "unknown, silent, passes"),
        (524, COMET, "unknown, silent, passes"),
        (520, PAGE, "unknown, broken"),
        (504, PAGE, "unknown, silent"),
        (524, "", "unknown, silent"),
        (101, "", "unknown, broken"),
        (600, COMET, "unknown, broken, passes"),
    ] {
        assert_eq!(short(&told(json(status, body))), want, "{status} {body}");
    }
    assert_eq!(short(&told(encoded(500, COMET))), "unknown, broken");
    assert_eq!(short(&told(encoded(504, COMET))), "unknown, silent");
}

#[test]
fn f16_m17_the_statuses_that_hold_are_a_setting_but_a_2xx_and_a_disguised_4xx_are_not() {
    let rules = Rules { hold_statuses: vec![200, 302, 404, 500, 503], lost_call_codes: vec!["x".to_owned()] };
    for (answer, want) in [
        (json(200, r#"{"request_id":"a"}"#), "created"),
        (json(302, ""), "refused, invalid answer"),
        (json(404, COMET), "unknown, broken, passes"),
        (json(500, COMET), "unknown, broken, passes"),
        (json(503, FLAT), "unknown, broken, passes"),
        (json(500, r#"{"error":{"code":"invalid_request"}}"#), "refused, passes"),
        (json(503, r#"{"error":{"code":"invalid_request"}}"#), "unknown, broken, passes"),
        (json(502, COMET), "unknown, broken, passes"),
        (json(400, r#"{"code":"x","message":"m"}"#), "refused, passes"),
    ] {
        assert_eq!(short(&classify(Ok(answer.clone()), &rules)), want, "{answer:?}");
    }
}

#[test]
fn what_was_not_answered_is_told_apart_by_what_was_sent() {
    let rules = Rules::from(&Dedup::default());
    for (why, want) in [
        (Unanswered::NotSent(Unreached::Refused), "not sent"),
        (Unanswered::TooLate, "not sent"),
        (Unanswered::InDoubt(Doubt::Broken), "unknown, broken"),
        (Unanswered::InDoubt(Doubt::Silent), "unknown, silent"),
        (Unanswered::TooLong(StatusCode::OK), "unknown, broken"),
        (Unanswered::TooLong(StatusCode::FOUND), "refused, invalid answer"),
        (Unanswered::TooLong(StatusCode::BAD_REQUEST), "refused, invalid answer"),
        (Unanswered::TooLong(StatusCode::INTERNAL_SERVER_ERROR), "unknown, broken"),
        (Unanswered::TooLong(StatusCode::GATEWAY_TIMEOUT), "unknown, silent"),
    ] {
        assert_eq!(short(&classify(Err(why), &rules)), want, "{why:?}");
    }
    assert!(Outcome::NotSent(NotSent::Left).is_void() && Outcome::NotSent(NotSent::Superseded).is_void());
    assert!(!Outcome::NotSent(NotSent::Draining).is_void() && !Outcome::broken().is_void());
}

#[test]
fn names_of_ids_are_told_from_words_that_end_alike() {
    for (body, refused) in [
        (r#"{"code":"invalid_request","paid":true,"valid":false,"grid":"x","video":"v"}"#, true),
        (r#"{"code":"invalid_request","uuid":"x"}"#, false),
        (r#"{"code":"invalid_request","VIDEO_ID":"x"}"#, false),
    ] {
        assert_eq!(short(&told(json(200, body))) == "refused, passes", refused, "{body}");
    }
}
