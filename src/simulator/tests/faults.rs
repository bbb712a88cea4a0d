//! Each fault once, as a client meets it.

use crate::simulator::{CutAt, Form, How, Malformed, Odd};

use super::*;

const BODY: &str = r#"{"prompt":"a","duration":1}"#;

/// What a client reads up to the connection's end when its submission meets `fault`, and whether the end is orderly.
async fn met(fault: Fault) -> (Simulator, String, bool) {
    let simulator = start(instant()).await;
    simulator.next_submission(fault);
    let mut client = Client::connect(&simulator).await;
    client.send(&post(BODY)).await;
    let (bytes, orderly) = client.rest().await;
    (simulator, String::from_utf8_lossy(&bytes).into_owned(), orderly)
}

/// The complete answer to a submission that meets `fault`.
async fn answered(fault: Fault) -> (Simulator, Seen) {
    let simulator = start(instant()).await;
    simulator.next_submission(fault);
    let seen = Client::connect(&simulator).await.ask(&post(BODY)).await;
    (simulator, seen)
}

#[tokio::test]
async fn statuses_come_in_each_error_form_and_make_no_job() {
    for (form, pointer, want) in [
        (Form::comet("invalid_request"), "/error/code", "invalid_request"),
        (Form::comet("x"), "/error/type", "comet_api_error"),
        (Form::xai("invalid-argument"), "/code", "invalid-argument"),
        (Form::flat("task_not_exist"), "/code", "task_not_exist"),
    ] {
        let (simulator, seen) = answered(Fault::status(500, form)).await;
        assert_eq!((seen.status, seen.json().pointer(pointer).unwrap()), (500, &json!(want)));
        assert_eq!(simulator.counts().accepted, 0);
    }
    let (_, html) = answered(Fault::status(502, Form::Html)).await;
    assert!(html.body.starts_with(b"<!doctype html>"));
    let (_, empty) = answered(Fault::status(503, Form::Empty)).await;
    assert_eq!((empty.status, empty.body.len()), (503, 0));
    let text = Form::Text { content_type: "text/plain".to_owned(), body: "no".to_owned() };
    let headers = vec![("x-more".to_owned(), "1".to_owned())];
    let (_, plain) = answered(Fault::Status { status: 599, form: text, headers }).await;
    assert_eq!((plain.status, &plain.body[..], field(&plain.head, "x-more")), (599, &b"no"[..], Some("1")));
}

#[tokio::test]
async fn an_error_may_hide_an_accepted_job() {
    let (simulator, seen) = answered(Fault::status(524, Form::Html).and_accepted()).await;
    assert_eq!((seen.status, simulator.accepted().len()), (524, 1));
    assert_eq!(simulator.accepted()[0].canonical, r#"{"duration":1,"prompt":"a"}"#);
}

#[tokio::test]
async fn f15_rate_limits_and_t01_redirects_carry_their_header() {
    let (_, limited) = answered(Fault::RateLimited { retry_after: Some(7) }).await;
    assert_eq!((limited.status, field(&limited.head, "retry-after")), (429, Some("7")));
    let (_, bare) = answered(Fault::RateLimited { retry_after: None }).await;
    assert_eq!((bare.status, field(&bare.head, "retry-after")), (429, None));
    let (_, moved) = answered(Fault::Redirect { status: 307, location: "http://127.0.0.1:9/".to_owned() }).await;
    assert_eq!((moved.status, field(&moved.head, "location")), (307, Some("http://127.0.0.1:9/")));
}

#[tokio::test]
async fn f05_connections_are_cut_at_each_place_in_each_way() {
    let request = post(BODY);
    let head = request.find("\r\n\r\n").unwrap() + 4;
    let places = [
        (CutAt::BeforeRead, 0, None),
        (CutAt::Request(0), 1, Some(0)),
        (CutAt::Request(1), 1, Some(1)),
        (CutAt::Request(head / 2), 1, Some(head / 2)),
        (CutAt::Request(head), 1, Some(head)),
        (CutAt::AfterHeader, 1, Some(head)),
        (CutAt::Request(head + 5), 1, Some(head + 5)),
        (CutAt::Request(request.len()), 1, Some(request.len())),
        (CutAt::BeforeAnswer, 1, Some(request.len())),
    ];
    for (at, posts, kept) in places {
        for how in [How::Fin, How::Reset] {
            let (simulator, read, orderly) = met(Fault::cut(at, how)).await;
            assert_eq!((read.as_str(), orderly), ("", how == How::Fin), "{at:?} {how:?}");
            let counts = simulator.counts();
            assert_eq!((counts.posts, counts.accepted, counts.cut), (posts, 0, 1), "{at:?} {how:?}");
            let received = simulator.received();
            assert_eq!(received.first().map(|kept| kept.head.len() + kept.body.len()), kept, "{at:?} {how:?}");
        }
    }
}

#[tokio::test]
async fn f06_a_connection_can_be_cut_as_soon_as_it_is_accepted() {
    let simulator = start(instant()).await;
    for how in [How::Fin, How::Reset] {
        simulator.next_connection(how);
        assert_eq!(Client::connect(&simulator).await.rest().await, (Vec::new(), how == How::Fin));
    }
    assert_eq!((simulator.connections(), simulator.counts().bytes), (2, 0));
    assert_eq!(Client::connect(&simulator).await.ask(&post(BODY)).await.status, 200);
}

#[tokio::test]
async fn f10_answers_are_cut_inside_and_the_job_may_exist_all_the_same() {
    for accepted in [false, true] {
        let fault = |at| Fault::Cut { at, how: How::Fin, accepted };
        let (simulator, read, orderly) = met(fault(CutAt::Within(20))).await;
        assert_eq!((read.len(), orderly, simulator.accepted().len()), (20, true, usize::from(accepted)));
        let (_, read, _) = met(fault(CutAt::BeforeEnd)).await;
        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        let length: usize = field(head, "content-length").unwrap().parse().unwrap();
        assert_eq!(body.len(), length - 1);
    }
    let (simulator, read, orderly) = met(Fault::cut(CutAt::AfterAnswer, How::Fin)).await;
    assert!(read.ends_with("\"}") && orderly);
    assert_eq!((simulator.accepted().len(), simulator.counts().answered), (1, 1));
    let (_, read, orderly) = met(Fault::cut(CutAt::Within(30), How::Reset)).await;
    assert!(!orderly && read.len() <= 30);
}

#[tokio::test]
async fn f08_a_stalled_request_is_held_until_its_client_leaves() {
    for (fault, body, accepted) in [
        (Fault::Stall, BODY.len(), 0),
        (Fault::Stall.and_accepted(), BODY.len(), 1),
        (Fault::StallAfterHeader, 0, 0),
        (Fault::cut(CutAt::Within(10), How::Stall), BODY.len(), 0),
    ] {
        let simulator = start(instant()).await;
        simulator.next_submission(fault.clone());
        let mut client = Client::connect(&simulator).await;
        client.send(&post(BODY)).await;
        assert!(simulator.wait_until(|counts| counts.cut == 1, BOUND).await);
        assert_eq!((simulator.received()[0].body.len(), simulator.counts().accepted), (body, accepted), "{fault:?}");
        assert_eq!(simulator.counts().open, 1);
        drop(client);
        assert!(simulator.wait_until(|counts| counts.open == 0, BOUND).await, "{fault:?}");
    }
}

#[tokio::test]
async fn f08_a_late_answer_speaks_of_a_job_that_was_made_at_once() {
    let simulator = start(instant()).await;
    simulator.next_submission(Fault::Delay(Duration::from_millis(50)));
    let mut client = Client::connect(&simulator).await;
    client.send(&post(BODY)).await;
    assert!(simulator.wait_until(|counts| counts.accepted == 1, BOUND).await);
    assert_eq!(simulator.counts().answered, 0);
    let id = client.answer(false).await.id();
    let job = &simulator.accepted()[0];
    assert_eq!(job.request_id, id);
    assert!(job.created.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn all_answers_wait_for_the_delay_of_the_options() {
    let simulator = start(Options { answer_delay: Duration::from_millis(30), ..instant() }).await;
    let started = tokio::time::Instant::now();
    Client::connect(&simulator).await.ask(&poll("x")).await;
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn f09_trickled_and_chunked_answers_are_whole() {
    let (_, trickled) = answered(Fault::Trickle { bytes: 40, every: Duration::from_millis(1) }).await;
    assert_eq!(trickled.id().len(), 36);
    let closing = Fault::All(vec![Fault::Chunked { bytes: 7 }, Fault::cut(CutAt::AfterAnswer, How::Fin)]);
    let (_, read, _) = met(closing).await;
    let (head, body) = read.split_once("\r\n\r\n").unwrap();
    assert_eq!(field(head, "transfer-encoding"), Some("chunked"));
    assert!(body.starts_with("7\r\n{\"reque\r\n") && body.ends_with("\r\n0\r\n\r\n"), "{body}");
    let (_, read, orderly) = met(Fault::UntilClose).await;
    assert!(orderly && !read.contains("content-length") && read.ends_with("\"}"));
}

#[tokio::test]
async fn r39_broken_http_is_broken_as_named() {
    for (malformed, inside) in [
        (Malformed::TwoLengths, "content-length: 52\r\ncontent-length: 53\r\n"),
        (Malformed::LengthAndChunked, "content-length: 3\r\ntransfer-encoding: chunked\r\n"),
        (Malformed::FoldedHeader, "x-folded: one\r\n two\r\n"),
        (Malformed::WrongVersion, "HTTP/2.0 200 OK\r\n"),
        (Malformed::NoStatusLine, "{\"request_id\":"),
        (Malformed::HugeHeader, "x-huge: aaaa"),
        (Malformed::BadChunk, "\r\n\r\nzz\r\n"),
        (Malformed::MissingLastChunk, "\r\n\r\n35\r\n{"),
        (Malformed::BytesAfterEnd, "\"}HTTP/1.1 200 OK\r\n"),
        (Malformed::ControlByte, "x-control: a\x01b\r\n"),
    ] {
        let then_close = Fault::cut(CutAt::AfterAnswer, How::Fin);
        let (simulator, read, _) = met(Fault::All(vec![Fault::Malformed(malformed), then_close])).await;
        assert!(read.contains(inside), "{malformed:?}: {read}");
        assert_eq!(simulator.accepted().len(), 1);
    }
    let (_, read, _) = met(Fault::Malformed(Malformed::NoStatusLine)).await;
    assert!(read.starts_with('{'));
    let raw = Fault::Garbage(b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nhi".to_vec());
    let (simulator, seen) = answered(raw).await;
    assert_eq!((seen.status, &seen.body[..], simulator.accepted().len()), (204, &b"hi"[..], 0));
}

#[tokio::test]
async fn r23_interim_answers_come_before_the_answer() {
    let simulator = start(instant()).await;
    simulator.next_submission(Fault::Interim(vec![100, 103]));
    let mut client = Client::connect(&simulator).await;
    assert_eq!(client.ask(&post(BODY)).await.status, 100);
    assert_eq!(client.answer(false).await.status, 103);
    assert_eq!(client.answer(false).await.id().len(), 36);
}

#[tokio::test]
async fn f12_odd_bodies_are_odd_and_usable_ids_belong_to_jobs() {
    for (odd, want) in [
        (Odd::Object, "{}"),
        (Odd::NoBody, ""),
        (Odd::NullId, r#"{"request_id":null}"#),
        (Odd::NumberId, r#"{"request_id":12345678}"#),
        (Odd::EmptyId, r#"{"request_id":""}"#),
        (Odd::BadId, r#"{"request_id":"a\r\nset-cookie: b=\"c\"<script>"}"#),
        (Odd::Error, r#"{"error":{"code":"insufficient_user_quota","message":"quota is used up"}}"#),
        (
            Odd::Code("get_channel_failed".to_owned()),
            r#"{"code":"get_channel_failed","data":null,"message":"simulated"}"#,
        ),
    ] {
        let (simulator, seen) = answered(Fault::Odd(odd)).await;
        assert_eq!((seen.status, String::from_utf8(seen.body).unwrap().as_str()), (200, want));
        assert_eq!(simulator.accepted().len(), 0, "{want}");
    }
    assert_eq!(answered(Fault::Odd(Odd::LongId)).await.1.id().len(), 10 * 1024);
    assert!(answered(Fault::Odd(Odd::Html)).await.1.body.starts_with(b"<!doctype"));
    assert!(answered(Fault::Odd(Odd::HalfJson)).await.1.body.starts_with(b"{\"request_id\":\""));
    for (odd, status) in [(Odd::Wrapped, 200), (Odd::Accepted, 202), (Odd::ErrorWithId, 200), (Odd::Marked, 200)] {
        let (simulator, seen) = answered(Fault::Odd(odd.clone())).await;
        let id = &simulator.accepted()[0].request_id;
        assert!(seen.status == status && String::from_utf8_lossy(&seen.body).contains(id), "{odd:?}");
    }
}

#[tokio::test]
async fn f19_a_body_can_be_padded_and_still_holds_its_id() {
    let (simulator, seen) = answered(Fault::Padded(100_000)).await;
    assert_eq!((seen.body.len(), seen.id()), (100_000, simulator.accepted()[0].request_id.clone()));
}

#[tokio::test]
async fn a_gzip_body_says_so_and_hides_its_text() {
    let (_, seen) = answered(Fault::Encoded).await;
    assert_eq!(field(&seen.head, "content-encoding"), Some("gzip"));
    assert!(seen.body.starts_with(&[0x1f, 0x8b]) && !String::from_utf8_lossy(&seen.body).contains("request_id"));
}

#[tokio::test]
async fn t02_the_key_is_echoed_in_header_fields_and_cut_in_two_in_the_body() {
    let fault = Fault::All(vec![Fault::KeyEcho { status: 401 }, Fault::cut(CutAt::AfterAnswer, How::Fin)]);
    let (_, read, _) = met(fault).await;
    let (head, body) = read.split_once("\r\n\r\n").unwrap();
    assert_eq!(field(head, "x-echo"), Some(KEY));
    assert!(field(head, "www-authenticate").unwrap().contains(KEY));
    assert!(!body.contains(KEY));
    let unchunked: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert!(unchunked.contains(KEY), "{body}");
}

#[tokio::test]
async fn header_fields_of_fault_and_options_stand_on_the_answer() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let simulator = start(Options { headers: vec![pair("set-cookie", "a=b")], ..instant() }).await;
    simulator.next_poll(Fault::Headers(vec![pair("alt-svc", "h3")]));
    let seen = Client::connect(&simulator).await.ask(&poll("x")).await;
    assert_eq!((field(&seen.head, "set-cookie"), field(&seen.head, "alt-svc")), (Some("a=b"), Some("h3")));
    assert!(field(&seen.head, "x-request-id").is_some());
}

#[tokio::test]
async fn jobs_end_as_their_submission_or_their_prompt_says() {
    for (end, status, shown) in [
        (End::failed("service_unavailable", "busy"), 200, "failed"),
        (End::Expired, 200, "expired"),
        (End::DoneWithoutUrl, 200, "done"),
        (End::Disrespectful, 200, "done"),
        (End::Never, 200, "pending"),
        (End::Moderated, 400, ""),
        (End::NoTask, 400, ""),
        (End::NotFound, 404, ""),
    ] {
        let simulator = start(instant()).await;
        simulator.next_submission(Fault::End(end));
        let mut client = Client::connect(&simulator).await;
        let id = client.ask(&post(BODY)).await.id();
        for _ in 0..2 {
            let seen = client.ask(&poll(&id)).await;
            assert_eq!((seen.status, seen.json()["status"].as_str().unwrap_or_default()), (status, shown));
        }
    }
    let simulator = start(instant()).await;
    let mut client = Client::connect(&simulator).await;
    let id = client.ask(&post(r#"{"prompt":"A candle. [simulate: moderated]"}"#)).await.id();
    assert_eq!(client.ask(&poll(&id)).await.json()["usage"]["cost_in_usd_ticks"], 4_000_000_000_u64);
    assert_eq!(client.ask(&post(r#"{"prompt":"[simulate: 429]"}"#)).await.status, 429);
}

#[tokio::test]
async fn a_poll_can_be_made_to_lie_once() {
    let simulator = start(endless()).await;
    let mut client = Client::connect(&simulator).await;
    let id = client.ask(&post(BODY)).await.id();
    simulator.next_poll(Fault::End(End::Expired));
    simulator.next_poll(Fault::status(503, Form::comet("busy")));
    assert_eq!(client.ask(&poll(&id)).await.json()["status"], "expired");
    assert_eq!(client.ask(&poll(&id)).await.status, 503);
    assert_eq!(client.ask(&poll(&id)).await.json()["status"], "pending");
    simulator.always_poll(Some(Fault::End(End::NoTask)));
    assert_eq!(client.ask(&poll(&id)).await.status, 400);
    simulator.always_poll(None);
    simulator.forget_jobs();
    assert_eq!(client.ask(&poll(&id)).await.status, 404);
}

#[tokio::test]
async fn a_standing_fault_meets_every_submission() {
    let simulator = start(instant()).await;
    simulator.always_submission(Some(Fault::cut(CutAt::BeforeAnswer, How::Reset)));
    for _ in 0..3 {
        let mut client = Client::connect(&simulator).await;
        client.send(&post(BODY)).await;
        assert!(!client.rest().await.1);
    }
    simulator.always_submission(None);
    assert_eq!(Client::connect(&simulator).await.ask(&post(BODY)).await.status, 200);
    assert_eq!((simulator.posts(), simulator.accepted().len(), simulator.counts().cut), (4, 1, 3));
}
