//! `/openapi.json` tells the truth: what is really answered, status, body and header, is what it says.

use hyper::Method;
use reelgate::admission::settings::Rate;
use reelgate::simulator::{CutAt, End, Fault, Form, How, Pending, Shape};
use serde_json::{Value, json};

use crate::support::{Answer, EDITS, GENERATIONS, Scene};

const JOB: &str = "/grok/v1/videos/{request_id}";
/// Headers that any HTTP answer may have.
const USUAL: [&str; 6] =
    ["connection", "date", "content-length", "content-type", "x-content-type-options", "transfer-encoding"];

/// The document that a scene serves.
struct Document(Value);

impl Document {
    async fn of(scene: &Scene) -> Self {
        let answer = scene.ask(Method::GET, "/openapi.json", &[], "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        Self(answer.json())
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().map(|reference| reference.strip_prefix('#').unwrap());
        reference.map_or(value, |reference| self.0.pointer(reference).unwrap())
    }

    /// Holds an answer against what is said of this path and method.
    fn hold(&self, method: &str, path: &str, answer: &Answer) {
        let responses = &self.0["paths"][path][method]["responses"];
        let status = answer.status.to_string();
        let response = self.resolve(responses.get(&status).unwrap_or(&responses["default"]));
        assert!(response.is_object(), "{method} {path}: {status} is not told");
        let told: Vec<String> = response["headers"].as_object().unwrap().keys().map(|n| n.to_lowercase()).collect();
        for name in answer.headers.keys().map(hyper::header::HeaderName::as_str) {
            let known = USUAL.contains(&name) || told.iter().any(|told| told == name);
            assert!(known, "{method} {path} {status}: the header {name} is not told");
        }
        let text = answer.text();
        let Some(content) = response.get("content").filter(|_| !text.is_empty()) else { return };
        let schema = json!({
            "components": self.0["components"],
            "allOf": [content["application/json"]["schema"]],
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<String> = validator.iter_errors(&answer.json()).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{method} {path} {status}: {text}: {faults:?}");
    }
}

#[tokio::test]
async fn submissions_are_answered_as_the_document_says() {
    let scene = Scene::with(|config, _| {
        config.server.max_body = 4096;
        config.limits.user.generations = Some(Rate { count: 7, per: std::time::Duration::from_secs(3600) });
        config.server.allowed_hosts = vec!["gateway.example".to_owned()];
    })
    .await;
    let document = Document::of(&scene).await;
    let hold = |answer: &Answer, status: u16| {
        assert_eq!(answer.status, status, "{}", answer.text());
        document.hold("post", GENERATIONS, answer);
    };
    let all = json!({"prompt": "a", "size": "1280x720"});
    hold(&scene.post(GENERATIONS, &all, &[]).await, 200);
    hold(&scene.post(GENERATIONS, &all, &[]).await, 200);
    hold(&scene.post_text(GENERATIONS, "{", &[]).await, 400);
    hold(&scene.submit_with("a", &[("idempotency-key", "")]).await, 400);
    hold(&scene.submit_with("a", &[("origin", "https://foreign.example")]).await, 403);
    hold(&scene.submit(&"a".repeat(5000)).await, 413);
    hold(&scene.ask(Method::POST, GENERATIONS, &[("content-type", "text/plain")], "{}").await, 415);
    hold(&scene.submit_with("a", &[("content-encoding", "gzip")]).await, 415);
    hold(&scene.submit_with("a", &[("host", "foreign.example")]).await, 421);
    hold(&scene.post(GENERATIONS, &json!({"prompt": "", "duration": 99}), &[]).await, 422);
    for (status, form) in [(400, Form::xai("invalid-argument")), (402, Form::comet("quota")), (500, Form::comet("x"))] {
        scene.upstream.next_submission(Fault::status(status, form));
        hold(&scene.submit("refused").await, status);
    }
    scene.upstream.next_submission(Fault::status(401, Form::comet("invalid_api_key")));
    hold(&scene.submit("refused").await, 502);
    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Reset));
    hold(&scene.submit("lost").await, 502);
    hold(&scene.submit("lost").await, 409);
    hold(&scene.submit("the seventh").await, 200);
    hold(&scene.submit("one too many").await, 429);
    let edit = scene.post(EDITS, &json!({"prompt": "a"}), &[]).await;
    assert_eq!(edit.status, 422);
    document.hold("post", EDITS, &edit);
    scene.end().await;
}

#[tokio::test]
async fn polls_are_answered_as_the_document_says_in_both_forms() {
    for shape in [Shape::Flat, Shape::Wrapper] {
        let scene = Scene::with(|_, options| options.shape = shape).await;
        let document = Document::of(&scene).await;
        for (end, status) in [
            (End::Never, 200),
            (End::Done, 200),
            (End::DoneWithoutStatus, 200),
            (End::Disrespectful, 200),
            (End::failed("internal_error", "no"), 200),
            (End::Expired, 200),
            (End::Moderated, 400),
            (End::NotFound, 404),
        ] {
            let job = scene.submit(&format!("{end:?}")).await.request_id();
            scene.upstream.finish(&job, end);
            let answer = scene.poll(&job).await;
            assert_eq!(answer.status, status, "{}", answer.text());
            document.hold("get", JOB, &answer);
            let head = scene.ask(Method::HEAD, &format!("/grok/v1/videos/{job}"), &[], "").await;
            document.hold("head", JOB, &head);
        }
        let job = scene.submit("unfinished").await.request_id();
        for pending in [Pending::Progress, Pending::Accepted, Pending::Empty, Pending::IdOnly, Pending::UnknownStatus] {
            scene.upstream.next_poll(Fault::Pending(pending));
            document.hold("get", JOB, &scene.poll(&job).await);
        }
        document.hold("get", JOB, &scene.poll("nobodys").await);
        let query = scene.ask(Method::GET, "/grok/v1/videos/a?b=c", &[], "").await;
        assert_eq!(query.status, 400);
        document.hold("get", JOB, &query);
        scene.upstream.always_poll(Some(Fault::cut(CutAt::BeforeAnswer, How::Reset)));
        let broken = scene.poll(&job).await;
        assert!([502, 504].contains(&broken.status), "{}", broken.text());
        document.hold("get", JOB, &broken);
        scene.upstream.always_poll(None);
        scene.end().await;
    }
}

#[tokio::test]
async fn who_may_call_is_answered_as_the_document_says() {
    use crate::teams::{STUDIO, bearer, poll_as, post_as, submit_as, token_as, token_for};
    let scene = crate::teams::scene(|config, _| config.limits.address.requests = None).await;
    let document = Document::of(&scene).await;
    const TOKENS: &str = "/grok/v1/client_tokens";
    let hold = |path: &str, answer: &Answer, status: u16| {
        assert_eq!(answer.status, status, "{}", answer.text());
        document.hold(if path == JOB { "get" } else { "post" }, path, answer);
    };
    hold(GENERATIONS, &scene.submit("a").await, 401);
    hold(GENERATIONS, &submit_as(&scene, "x", "a").await, 401);
    hold(JOB, &poll_as(&scene, "x", "a").await, 401);
    hold(JOB, &poll_as(&scene, STUDIO, "nobodys").await, 404);
    let token = token_for(&scene, STUDIO, "alice").await;
    hold(GENERATIONS, &post_as(&scene, &token, &json!({"prompt": "a", "user": "bob"})).await, 403);
    hold(GENERATIONS, &submit_as(&scene, &token, "a").await, 200);

    hold(TOKENS, &token_as(&scene, STUDIO, &json!({"user": "alice", "routes": ["poll"]})).await, 200);
    hold(TOKENS, &token_as(&scene, "x", &json!({"user": "alice"})).await, 401);
    hold(TOKENS, &token_as(&scene, &token, &json!({"user": "alice"})).await, 403);
    hold(TOKENS, &token_as(&scene, STUDIO, &json!({"user": "", "expires_in": 0})).await, 422);
    let text = [("authorization", &*bearer(STUDIO)), ("content-type", "text/plain")];
    hold(TOKENS, &scene.ask(Method::POST, TOKENS, &text, "{}").await, 415);
    let cut = [("authorization", &*bearer(STUDIO))];
    hold(TOKENS, &scene.post_text(TOKENS, "{", &cut).await, 400);
    loop {
        let refused = poll_as(&scene, "x", "a").await;
        document.hold("get", JOB, &refused);
        if refused.status == 429 {
            break;
        }
    }
    hold(GENERATIONS, &submit_as(&scene, "x", "a").await, 429);
    hold(TOKENS, &token_as(&scene, "x", &json!({"user": "alice"})).await, 429);
    scene.end().await;
}
