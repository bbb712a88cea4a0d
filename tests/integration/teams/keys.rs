//! Gateway keys: what they open, what is answered where they do not, and what is never told.

use hyper::Method;
use reelgate::request::settings as validation;
use serde_json::json;

use super::{LAB, MODE, STUDIO, bearer, key, poll_as, post_as, scene, scene_of, sha256, submit_as, team};
use crate::support::process::Program;
use crate::support::{Answer, EDITS, GENERATIONS, Scene, eventually};

/// Everything of an answer but its own name and moment.
fn shown(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (answer.status, headers, answer.text())
}

#[tokio::test]
async fn a_teams_key_opens_and_never_goes_further() {
    let scene = scene(|_, _| {}).await;
    let made = submit_as(&scene, STUDIO, "a candle").await.request_id();
    assert_eq!(poll_as(&scene, STUDIO, &made).await.status, 200);
    let edit = json!({"prompt": "a", "video": {"url": "https://a.example/v.mp4"}});
    let headers = [("authorization", &*bearer(LAB))];
    assert_eq!(scene.post(EDITS, &edit, &headers).await.status, 200);
    for received in scene.upstream.received() {
        let head = String::from_utf8_lossy(&received.head).into_owned();
        assert!(!head.contains("rg_") && head.contains(&format!("Bearer {}", scene.key)), "{head}");
    }
    for line in ["\"team\":\"studio\",\"key\":\"one\"", "\"team\":\"lab\",\"key\":\"one\""] {
        eventually(line, async || scene.log.text().contains(line)).await;
    }
    assert!(!scene.log.text().contains("rg_"), "{}", scene.log.text());
    scene.end().await;
}

#[tokio::test]
async fn t38_no_key_and_no_good_key_are_told_as_rfc_6750_has_it() {
    let scene = scene(|config, _| config.access.failed_keys = None).await;
    for headers in [&[][..], &[("authorization", "Basic cmc6cmc=")], &[("authorization", "rg_the-studios-key")]] {
        for (method, path) in [(Method::POST, GENERATIONS), (Method::GET, "/grok/v1/videos/a")] {
            let json = [("content-type", "application/json")];
            let answer = scene.ask(method, path, &[&json, headers].concat(), "{}").await;
            assert_eq!(answer.refusal(), (401, "missing_key".to_owned()));
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"reelgate\"");
        }
    }
    for key in ["rg_wrong", "", "a b", &format!("{STUDIO}x"), "rgt_a.b.c"] {
        let answer = submit_as(&scene, key, "a candle").await;
        assert_eq!(answer.refusal(), (401, "invalid_key".to_owned()), "{key}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"reelgate\", error=\"invalid_token\"");
    }
    let (one, other) = (bearer(STUDIO), bearer(LAB));
    let twice = scene.submit_with("a", &[("authorization", &one), ("authorization", &other)]).await;
    assert_eq!(twice.refusal(), (400, "bad_request".to_owned()));
    let query = scene.post(&format!("{GENERATIONS}?access_token={STUDIO}"), &json!({"prompt": "a"}), &[]).await;
    assert_eq!(query.status, 400);
    assert_eq!(submit_as(&scene, STUDIO, "a").await.status, 200, "the scheme's case does not count");
    assert_eq!(scene.submit_with("a", &[("authorization", &format!("bearer {STUDIO}"))]).await.status, 200);
    assert_eq!(scene.upstream.posts(), 1);
    assert_eq!(scene.metric("submissions_total{outcome=\"denied\"}").await, 8.0);
    scene.end().await;
}

#[tokio::test]
async fn t37_unknown_malformed_disabled_and_expired_are_one_answer() {
    let keys = [
        key("off", "off", ", disabled = true"),
        key("old", "old", ", expires = 2020-01-01"),
        key("one", STUDIO, ", expires = 2999-01-01T00:00:00Z"),
    ];
    let text = [MODE, &team("studio", &keys, ""), &team("lab", &[key("one", LAB, "")], "")].concat();
    let scene = scene_of(&text, |config, _| config.access.failed_keys = None).await;
    let unknown = submit_as(&scene, "unknown", "a candle").await;
    assert_eq!(unknown.refusal(), (401, "invalid_key".to_owned()));
    for key in ["off", "old", "a b", "rgt_x"] {
        assert_eq!(shown(&submit_as(&scene, key, "a candle").await), shown(&unknown), "{key}");
    }
    // The operator is told what the client is not.
    for cause in ["disabled key off of team studio", "expired key old of team studio", "unknown key"] {
        eventually(cause, async || scene.log.text().contains(cause)).await;
    }
    assert_eq!(submit_as(&scene, STUDIO, "a candle").await.status, 200);
    scene.end().await;
}

#[tokio::test]
async fn t37_wrong_keys_of_one_address_are_limited_and_a_right_one_is_not() {
    let scene = scene(|_, _| {}).await;
    let mut told = Vec::new();
    for number in 0..100 {
        told.push(submit_as(&scene, &format!("rg_guess-{number}"), "a candle").await);
    }
    let refused = told.iter().filter(|answer| answer.status == 401).count();
    // One comes back every three seconds.
    assert!((20..30).contains(&refused), "{refused}");
    let limited = told.last().unwrap();
    assert_eq!(limited.refusal(), (429, "rate_limited".to_owned()));
    assert_eq!(limited.json()["error"]["param"], "address.keys");
    assert!(limited.header("retry-after").parse::<u64>().unwrap() >= 1);
    let counted = scene.metric("limited_total{kind=\"keys\",limit=\"address\"}").await;
    assert_eq!(counted as usize, 100 - refused);
    // A colleague's broken client locks nobody out.
    assert_eq!(submit_as(&scene, STUDIO, "a candle").await.status, 200);
    assert_eq!(scene.upstream.posts(), 1);
    scene.end().await;
}

#[tokio::test]
async fn a_key_may_be_for_some_models_routes_and_pages_only() {
    let keys = [
        key("one", STUDIO, ""),
        key("polls", "polls", ", routes = [\"poll\"]"),
        key("page", "page", ", origins = [\"https://app.example\"]"),
        key("cheap", "cheap", ", models = [\"grok-imagine-video\"]"),
    ];
    let models = "models = [\"grok-imagine-video\", \"grok-imagine-video-1.5\"]";
    let text = [MODE, &team("studio", &keys, models), &team("lab", &[key("one", LAB, "")], "")].concat();
    let origins = vec!["https://app.example".to_owned(), "https://other.example".to_owned()];
    let scene = scene_of(&text, |config, _| config.server.cors.allowed_origins = origins).await;
    let job = submit_as(&scene, "cheap", "a candle").await.request_id();
    let refusal = |answer: Answer| (answer.status, answer.code(), answer.json()["error"]["param"].clone());

    assert_eq!(poll_as(&scene, "polls", &job).await.status, 200);
    let refused = refusal(submit_as(&scene, "polls", "another").await);
    assert_eq!(refused, (403, "route_not_allowed".to_owned(), json!("generations")));

    for (origin, path, status) in [
        (Some("https://app.example"), GENERATIONS, 200),
        (Some("https://other.example"), GENERATIONS, 403),
        (None, GENERATIONS, 403),
        (Some("https://app.example"), "poll", 200),
        (Some("https://other.example"), "poll", 403),
        (None, "poll", 200),
    ] {
        let authorization = bearer("page");
        let mut headers = vec![("authorization", authorization.as_str()), ("content-type", "application/json")];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let answer = match path {
            "poll" => scene.ask(Method::GET, &format!("/grok/v1/videos/{job}"), &headers, "").await,
            _ => scene.ask(Method::POST, path, &headers, "{\"prompt\":\"a candle\"}").await,
        };
        assert_eq!(answer.status, status, "{origin:?} {path}");
        if status == 403 {
            assert_eq!(answer.code(), "origin_refused");
        }
    }

    let ask = |model: &'static str| json!({"prompt": "a model", "model": model});
    for (credential, model, status) in [
        ("cheap", "grok-imagine-video", 200),
        ("cheap", "grok-imagine-video-1.5", 403),
        (STUDIO, "grok-imagine-video-1.5", 200),
        (STUDIO, "grok-imagine-video-2", 403),
        (LAB, "grok-imagine-video-2", 200),
    ] {
        let answer = post_as(&scene, credential, &ask(model)).await;
        assert_eq!(answer.status, status, "{credential} {model}: {}", answer.text());
        if status == 403 {
            assert_eq!(refusal(answer), (403, "model_not_allowed".to_owned(), json!("model")));
        }
    }
    // An absent model is the usual one; and a body's own faults come first (step 4 before the 403s).
    assert_eq!(submit_as(&scene, "cheap", "no model").await.status, 200);
    let faulty = json!({"prompt": "", "model": "grok-imagine-video-1.5"});
    assert_eq!(post_as(&scene, "cheap", &faulty).await.status, 422);
    scene.end().await;
}

#[tokio::test]
async fn a_model_is_not_got_past_the_list_by_another_spelling_of_its_field() {
    let text = [MODE, &team("studio", &[key("one", STUDIO, "")], "models = [\"grok-imagine-video\"]")].concat();
    let dear = "grok-imagine-video-1.5";
    // Go's parser, for one, reads `Model` as `model`, and of both the last.
    let bodies = [
        json!({"prompt": "a", "Model": dear}),
        json!({"prompt": "a", "model": "grok-imagine-video", "MODEL": dear}),
        json!({"prompt": "a", "model": "grok-imagine-video", "mOdEl": null}),
    ];
    for mode in [validation::Mode::Strict, validation::Mode::Warn, validation::Mode::Off] {
        let scene = scene_of(&text, |config, _| config.validation.mode = mode).await;
        for body in &bodies {
            let answer = post_as(&scene, STUDIO, body).await;
            if mode == validation::Mode::Strict {
                assert_eq!(answer.json()["errors"][0]["code"], "near_miss", "{body}");
            } else {
                assert_eq!(answer.refusal(), (403, "model_not_allowed".to_owned()), "{mode:?} {body}");
                assert!(answer.text().contains("only as model"), "{}", answer.text());
            }
        }
        assert_eq!(scene.upstream.posts(), 0, "{mode:?}");
        scene.end().await;
    }
}

#[tokio::test]
async fn the_key_is_asked_for_after_the_path_and_before_limit_and_body() {
    let scene = scene(|config, _| {
        config.limits.address.requests =
            Some(reelgate::admission::settings::Rate { count: 1, per: std::time::Duration::from_secs(86_400) });
    })
    .await;
    let raw = async |start: &str, lines: &str| {
        scene.note_submissions(u64::from(start.contains(GENERATIONS)));
        let head =
            format!("{start} HTTP/1.1\r\nHost: a\r\nContent-Length: 40000000\r\nExpect: 100-continue\r\n{lines}\r\n");
        let answer = String::from_utf8(scene.raw(head.as_bytes()).await).unwrap();
        assert!(!answer.contains("100 Continue"), "{answer}");
        crate::support::code_of(&answer)
    };
    let evil = "Origin: https://evil.example\r\n";
    assert_eq!(raw("POST /nothing", "").await, (404, "not_found".to_owned()));
    assert_eq!(raw(&format!("POST {GENERATIONS}"), evil).await, (403, "origin_refused".to_owned()));
    assert_eq!(raw(&format!("POST {GENERATIONS}"), "").await, (401, "missing_key".to_owned()));
    let wrong = "Authorization: Bearer x\r\n";
    assert_eq!(raw(&format!("POST {GENERATIONS}"), wrong).await, (401, "invalid_key".to_owned()));
    // The one request of this address is still there.
    let right = format!("Authorization: Bearer {STUDIO}\r\n");
    assert_eq!(raw(&format!("POST {GENERATIONS}"), &right).await, (415, "unsupported_media_type".to_owned()));
    assert_eq!(raw(&format!("POST {GENERATIONS}"), &right).await, (429, "rate_limited".to_owned()));
    // What needs no key.
    let preflight = scene.ask(Method::OPTIONS, GENERATIONS, &[], "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(scene.ask(Method::GET, "/openapi.json", &[], "").await.status, 200);
    assert_eq!(scene.upstream.connections(), 0);
    scene.end().await;
}

#[tokio::test]
async fn in_mode_open_a_key_is_not_looked_at() {
    let scene = Scene::start().await;
    assert_eq!(submit_as(&scene, "anything", "a candle").await.status, 200);
    let tokens = scene.post("/grok/v1/client_tokens", &json!({"user": "a"}), &[]).await;
    assert_eq!(tokens.refusal(), (404, "not_found".to_owned()));
    scene.end().await;
}

#[tokio::test]
async fn key_new_prints_a_key_once_and_the_line_that_lets_it_in() {
    let (status, output) = Program::run(&["key", "new", "--team", "studio", "--id", "web"], &[]).await;
    assert_eq!(status, 0, "{output}");
    let word = |start: &str| {
        let from = &output[output.find(start).expect(start)..];
        from[..from.find(|letter: char| letter == '"' || letter.is_whitespace()).unwrap()].to_owned()
    };
    let key = word("rg_");
    assert!(reelgate::access::format::is_well_formed(&key), "{key}");
    assert_eq!(output.matches("rg_").count(), 1, "{output}");
    assert!(output.contains(&format!("keys = [{{ id = \"web\", sha256 = \"{}\" }}]", sha256(&key))), "{output}");
    let table: String = output[output.find("[[teams]]").unwrap()..].to_owned();
    let scene = scene_of(&format!("[access]\nmode = \"keys\"\n{table}"), |_, _| {}).await;
    assert_eq!(submit_as(&scene, &key, "a candle").await.status, 200);
    scene.end().await;
    for bad in [&["key", "new", "--team", "a b"][..], &["key", "new", "--team", "a", "--id", "rg_0"]] {
        let (status, output) = Program::run(bad, &[]).await;
        assert_eq!(status, 2, "{output}");
    }
    let (_, other) = Program::run(&["key", "new", "--team", "studio"], &[]).await;
    assert!(!other.contains(&key) && other.contains("id = \""), "{other}");
}
