//! What a body must look like, by configuration: modes, unknown fields, deprecated fields, a schema of one's own.

use hyper::Method;
use reelgate::request::settings::{Mode, SchemaSource, UnknownFields};
use serde_json::json;

use super::support::{EDITS, Folder, GENERATIONS, Scene};

/// The body of the last submission that the upstream received.
fn forwarded(scene: &Scene) -> String {
    let received = scene.upstream.received();
    String::from_utf8(received.last().expect("nothing went upstream").body.to_vec()).unwrap()
}

#[tokio::test]
async fn warn_forwards_what_breaks_the_schema_and_counts_it() {
    let scene = Scene::with(|config, _| config.validation.mode = Mode::Warn).await;
    let body = r#"{ "prompt": "a",   "duratoin": 3 }"#;
    scene.post_text(GENERATIONS, body, &[]).await.request_id();
    assert_eq!(forwarded(&scene), body);
    // The upstream checks for itself, and its answer passes.
    let answer = scene.post(GENERATIONS, &json!({"prompt": "a", "duration": 20}), &[]).await;
    assert_eq!((answer.status, answer.text().contains("whole number from 1 to 15")), (400, true));
    assert_eq!(scene.metric("invalid_total{code=\"maximum\",param=\"duration\"}").await, 1.0);
    assert_eq!(scene.metric("invalid_total{code=\"near_miss\",param=\"other\"}").await, 1.0);
    assert_eq!(scene.metric("submissions_total{outcome=\"invalid\"}").await, 0.0);
    assert_eq!(scene.metric("submissions_total{outcome=\"created\"}").await, 1.0);
    scene.end().await;
}

#[tokio::test]
async fn t33_off_checks_json_and_user_alone() {
    let scene = Scene::with(|config, _| config.validation.mode = Mode::Off).await;
    scene.post(GENERATIONS, &json!({"prompt": "a", "camera": 1, "duratoin": 2}), &[]).await.request_id();
    let broken = scene.post_text(GENERATIONS, r#"{"prompt":"a","prompt":"b"}"#, &[]).await;
    assert_eq!(broken.refusal(), (400, "invalid_json".to_owned()));
    let long = "u".repeat(129);
    for user in [json!(null), json!(""), json!(1), json!(["a"]), json!("a\u{200b}b"), json!("a\nb"), json!(long)] {
        let answer = scene.post(GENERATIONS, &json!({"prompt": "a", "user": user}), &[]).await;
        assert_eq!(answer.refusal(), (422, "invalid_request".to_owned()), "{user}");
        assert_eq!(answer.json()["error"]["param"], "user");
    }
    // The upstream may take it for the user.
    let spelt = scene.post(GENERATIONS, &json!({"prompt": "a", "user": "ann", "User": "ben"}), &[]).await;
    assert_eq!(
        (spelt.refusal(), spelt.json()["error"]["param"].clone()),
        ((422, "invalid_request".to_owned()), json!("User"))
    );
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn f30_unknown_fields_are_forwarded_or_refused_and_a_near_miss_is_always_refused() {
    for setting in [UnknownFields::Forward, UnknownFields::Refuse] {
        let scene = Scene::with(|config, _| config.validation.unknown_fields = setting).await;
        let body = r#"{"prompt":"a","camera_motion":"pan"}"#;
        let answer = scene.post_text(GENERATIONS, body, &[]).await;
        if setting == UnknownFields::Forward {
            answer.request_id();
            assert_eq!(forwarded(&scene), body);
        } else {
            assert_eq!(answer.refusal(), (422, "invalid_request".to_owned()));
            assert_eq!(answer.json()["errors"][0]["code"], "unknown_field");
            assert_eq!(answer.json()["errors"][0]["param"], "camera_motion");
        }
        for near in ["duratoin", "Aspect-Ratio", "promt", "resolutions"] {
            let answer = scene.post(GENERATIONS, &json!({"prompt": "b", near: 5}), &[]).await;
            assert_eq!(answer.refusal(), (422, "invalid_request".to_owned()), "{near}");
            assert_eq!(answer.json()["errors"][0]["code"], "near_miss", "{near}");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn a_deprecated_field_is_warned_about_with_each_answer() {
    let scene = Scene::start().await;
    for _ in 0..2 {
        let answer = scene.post(GENERATIONS, &json!({"prompt": "a", "size": "848x480"}), &[]).await;
        answer.request_id();
        assert!(answer.header("reelgate-warning").contains("size"), "{:?}", answer.headers);
    }
    let plain = scene.submit("b").await;
    assert_eq!(plain.header("reelgate-warning"), "");
    scene.end().await;
}

#[tokio::test]
async fn a_schema_of_ones_own_replaces_the_builtin_of_its_route() {
    let folder = Folder::new();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["prompt", "mood"],
        "properties": {
            "prompt": {"type": "string"}, "mood": {"enum": ["calm", "wild"]}, "user": {"type": "string"},
            "keyframes": {"items": {"properties": {"image": {"properties": {"url": {"type": "string"}}}, "at": {"deprecated": true}}}}
        }
    });
    let file = folder.write("schema.json", &schema.to_string());
    let scene = Scene::with(|config, _| config.validation.generations = SchemaSource::File(file)).await;
    let answer = scene.post(GENERATIONS, &json!({"prompt": "a"}), &[]).await;
    assert_eq!(answer.refusal(), (422, "invalid_request".to_owned()));
    assert_eq!(answer.json()["error"]["param"], "mood", "{}", answer.text());
    let answer = scene.post(GENERATIONS, &json!({"prompt": "a", "mood": "sad"}), &[]).await;
    assert_eq!(answer.json()["errors"][0]["param"], "mood", "{}", answer.text());
    assert_eq!(scene.metric("invalid_total{code=\"enum\",param=\"mood\"}").await, 1.0, "its fields are labels");
    let answer = scene
        .post(GENERATIONS, &json!({"prompt": "a", "mood": "calm", "keyframes": [{"image": {"url": 1}}]}), &[])
        .await;
    assert_eq!(answer.json()["errors"][0]["param"], "keyframes[0].image.url", "{}", answer.text());
    assert_eq!(scene.metric("invalid_total{code=\"type\",param=\"keyframes[].image.url\"}").await, 1.0);
    scene
        .post(GENERATIONS, &json!({"prompt": "a", "mood": "calm", "keyframes": [{}, {"at": 1}]}), &[])
        .await
        .request_id();
    assert_eq!(scene.metric("deprecated_fields_total{param=\"keyframes[].at\"}").await, 1.0);
    scene.post(GENERATIONS, &json!({"prompt": "a", "mood": "calm"}), &[]).await.request_id();
    // The other route keeps its own.
    let edit = scene.post(EDITS, &json!({"prompt": "a"}), &[]).await;
    assert_eq!(edit.json()["error"]["param"], "video", "{}", edit.text());
    scene.post(EDITS, &json!({"prompt": "a", "video": {"url": "https://a.example/v.mp4"}}), &[]).await.request_id();
    scene.end().await;
}

#[tokio::test]
async fn the_description_of_the_api_is_served() {
    let scene = Scene::start().await;
    let answer = scene.ask(Method::GET, "/openapi.json", &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert!(answer.json().is_object());
    let head = scene.ask(Method::HEAD, "/openapi.json", &[], "").await;
    assert_eq!((head.status, head.text()), (200, String::new()));
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}
