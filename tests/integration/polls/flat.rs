//! `polls.shape = "flat"`: the wrapper is taken off for clients that only know xAI's form.

use hyper::Method;
use reelgate::jobs::settings::Shape as Told;
use reelgate::simulator::{End, Fault, Form, Pending, Shape};
use serde_json::{Value, json};

use super::{is_hit, path, poll_with};
use crate::support::{Answer, Scene};

async fn flat(shape: Shape) -> Scene {
    let scene = Scene::with(|config, options| {
        config.polls.shape = Told::Flat;
        options.shape = shape;
    })
    .await;
    scene.allow_buying_again();
    scene
}

/// The answer as JSON; its length is that of what was sent.
fn flat_body(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), answer.text().len().to_string());
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert!(body.get("data").is_none(), "{body}");
    body
}

#[tokio::test]
async fn the_wrapper_is_taken_off_in_every_state() {
    let scene = flat(Shape::Wrapper).await;
    let id = scene.submit("a").await.request_id();
    let never = poll_with(&scene, &id, Fault::Pending(Pending::Progress)).await;
    assert_eq!(flat_body(&never), json!({"status": "pending", "progress": 99, "model": "grok-imagine-video"}));
    let done = flat_body(&poll_with(&scene, &id, Fault::End(End::Done)).await);
    assert_eq!(
        (&done["status"], &done["progress"], &done["video"]["duration"]),
        (&json!("done"), &json!(100), &json!(8))
    );
    assert!(done["video"]["url"].as_str().unwrap().ends_with(&format!("{id}.mp4")), "{done}");
    assert!(is_hit(&scene, "a", &id).await);

    // Where the relay alone knows the URL, or that it is done.
    for end in [End::DoneWithoutStatus, End::DoneWithoutUrl] {
        let done = flat_body(&poll_with(&scene, &id, Fault::End(end)).await);
        assert_eq!(done["status"], "done", "{done}");
    }

    let failed = flat_body(&poll_with(&scene, &id, Fault::End(End::failed("internal_error", "boom"))).await);
    assert_eq!(
        (&failed["status"], &failed["error"]),
        (&json!("failed"), &json!({"code": "internal_error", "message": "boom"}))
    );
    assert!(failed.get("video").is_none(), "clients choke on a video without a url: {failed}");
    assert!(!is_hit(&scene, "a", &id).await, "the entry ends in this shape too");

    let id = scene.submit("b").await.request_id();
    let expired = flat_body(&poll_with(&scene, &id, Fault::End(End::Expired)).await);
    assert_eq!(expired["status"], "expired");
    assert!(!is_hit(&scene, "b", &id).await);
    scene.end().await;
}

#[tokio::test]
async fn a_relays_record_without_the_jobs_own_object_is_told_in_xais_words() {
    let scene = flat(Shape::Wrapper).await;
    let id = scene.submit("a").await.request_id();
    let record = |status: &str, reason: &str, progress: &str| {
        let data = json!({"task_id": id, "status": status, "fail_reason": reason, "progress": progress, "data": null});
        super::answers(200, &json!({"code": "success", "message": "", "data": data}))
    };
    let queued = poll_with(&scene, &id, record("QUEUED", "", "30%")).await;
    assert_eq!(flat_body(&queued), json!({"status": "pending", "progress": 30, "request_id": id}));
    let done = poll_with(&scene, &id, record("SUCCESS", "https://vidgen.x.ai/v.mp4", "100%")).await;
    assert_eq!(flat_body(&done), json!({"status": "done", "video": {"url": "https://vidgen.x.ai/v.mp4"}}));
    let failed = poll_with(&scene, &id, record("FAILURE", "the render crashed", "100%")).await;
    let error = json!({"code": "internal_error", "message": "the render crashed"});
    assert_eq!(flat_body(&failed), json!({"status": "failed", "error": error}));
    scene.end().await;
}

#[tokio::test]
async fn what_is_flat_already_stays_as_it_came() {
    let scene = flat(Shape::Flat).await;
    let id = scene.submit("a").await.request_id();
    let ugly = "{ \"status\":\"pending\",\r\n \"progress\": 1e1 }";
    for (status, body) in [
        (200, ugly),
        (202, ugly),
        (200, "{\"request_id\": \"x\"}"),
        (202, ""),
        (200, "not json"),
        (200, "[1, 2]"),
        (200, "{\"data\": 1}"),
        (200, "{\"status\":\"done\", \"data\": {\"task_id\": \"x\"}, \"video\": {\"url\": \"https://a/b\"}}"),
        (400, "{\"code\":\"success\",\"data\":{\"status\":\"SUCCESS\"}}"),
        (503, "{\"code\":\"get_channel_failed\",\"message\":\"x\",\"data\":null}"),
    ] {
        let form = Form::Text { content_type: "application/json".to_owned(), body: body.to_owned() };
        let answer = poll_with(&scene, &id, Fault::status(status, form)).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
        assert_eq!(answer.header("content-length"), body.len().to_string());
    }
    let chunked = poll_with(&scene, &id, Fault::All(vec![Fault::End(End::Done), Fault::Chunked { bytes: 9 }])).await;
    assert_eq!(flat_body(&chunked)["status"], "done");
    let failed = poll_with(&scene, &id, Fault::End(End::failed("internal_error", "boom"))).await;
    assert!(flat_body(&failed).get("video").is_none(), "{}", failed.text());
    scene.end().await;
}

#[tokio::test]
async fn a_head_tells_the_length_of_the_flat_form() {
    let scene = flat(Shape::Wrapper).await;
    let id = scene.submit("a").await.request_id();
    let get = poll_with(&scene, &id, Fault::End(End::Done)).await;
    scene.upstream.next_poll(Fault::End(End::Done));
    let head = scene.ask(Method::HEAD, &path(&id), &[], "").await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    assert_eq!(head.header("content-length"), get.text().len().to_string());
    scene.end().await;
}

#[tokio::test]
async fn inv8_a_cut_answer_is_no_flat_one() {
    let scene = flat(Shape::Wrapper).await;
    let id = scene.submit("a").await.request_id();
    let cut = Fault::cut(reelgate::simulator::CutAt::BeforeEnd, reelgate::simulator::How::Fin);
    let answer = poll_with(&scene, &id, Fault::All(vec![Fault::End(End::Done), cut])).await;
    assert_eq!(answer.refusal(), (502, "upstream_invalid_answer".to_owned()));
    assert!(is_hit(&scene, "a", &id).await);
    scene.end().await;
}
