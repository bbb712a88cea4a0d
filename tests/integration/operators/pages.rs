//! The admin listener's pages of the ledger.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{CutAt, End, Fault, How, Pending};
use reelgate::telemetry::admin::AdminKey;
use serde_json::json;

use super::{admin, field, jobs, refused};
use crate::support::process::Program;
use crate::support::{GENERATIONS, SOON, Scene, ask, random_key};

/// An answer that is lost after the upstream took the prompt.
fn lost() -> Fault {
    Fault::cut(CutAt::BeforeAnswer, How::Reset)
}

#[tokio::test]
async fn a_support_person_finds_the_job_of_a_lost_answer() {
    let scene = Scene::start().await;
    let made = scene.submit_with("a candle", &[("x-request-id", "call-17")]).await.request_id();
    scene.upstream.next_submission(lost());
    let unknown = scene.submit_with("a lamp", &[("x-request-id", "call-18")]).await;
    assert_eq!(unknown.code(), "outcome_unknown");
    scene.poll_until(&made, "\"done\"").await;

    let all = jobs(&scene, "").await;
    assert_eq!(field(&all, "state"), ["unknown", "done"], "newest first");
    let [doubt, done] = &all[..] else { panic!("{all:?}") };
    assert_eq!(doubt["client_request_id"], "call-18");
    assert!(doubt["request_id"].is_null() && doubt["upstream_key"].is_null());
    assert_eq!(doubt["entry"], "unknown");
    assert_eq!(done["request_id"], made.as_str());
    assert_eq!(done["client_request_id"], "call-17");
    assert_eq!((&done["team"], &done["entry"], &done["orphan"]), (&json!("open"), &json!("done"), &json!(false)));
    let key = scene.gateway().gateway().upstream.key().id().to_owned();
    assert_eq!(done["upstream_key"], key.as_str());
    for name in ["created", "ended", "last_poll"] {
        let moment = done[name].as_str().unwrap();
        assert!(moment.starts_with("20") && moment.ends_with('Z') && moment.len() == 24, "{name}: {moment}");
    }
    assert_eq!(done["fingerprint"].as_str().unwrap().len(), 64);
    assert_eq!(done["attempt"].as_str().unwrap().len(), 32);

    for (query, want) in [
        ("?request_id=call-17", &["done"][..]),
        ("?request_id=call-18", &["unknown"]),
        (&format!("?request_id={made}"), &["done"]),
        ("?state=unknown", &["unknown"]),
        ("?state=done&team=open", &["done"]),
        ("?team=other", &[]),
        ("?state=running", &[]),
        ("?state=orphan", &[]),
    ] {
        assert_eq!(field(&jobs(&scene, query).await, "state"), want, "{query}");
    }
    let text = scene.admin("/admin/jobs").await.text() + &scene.admin("/admin/entries").await.text();
    assert!(!text.contains("candle") && !text.contains("lamp"), "no prompt is shown: {text}");
    scene.end().await;
}

#[tokio::test]
async fn every_end_of_a_job_has_its_state() {
    let scene = Scene::start().await;
    for (end, state) in [
        (End::Done, "done"),
        (End::failed("internal_error", "boom"), "failed"),
        (End::Expired, "expired"),
        (End::Moderated, "moderated"),
    ] {
        let id = scene.submit(state).await.request_id();
        scene.upstream.next_poll(Fault::End(end));
        scene.poll(&id).await;
        let found = jobs(&scene, &format!("?state={state}")).await;
        assert_eq!(field(&found, "request_id"), [id.as_str()], "{state}");
    }
    scene.end().await;
}

#[tokio::test]
async fn m12_a_late_answer_of_a_replaced_attempt_is_listed_as_an_orphan() {
    let scene = Scene::with(|config, _| {
        config.upstream.submit_timeout = Duration::from_millis(100);
        config.upstream.late_answer = Duration::from_millis(100);
    })
    .await;
    scene.allow_buying_again();
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(1500)));
    assert_eq!(scene.submit("a candle").await.status, 504);
    let new = scene.submit_with("a candle", &[("cache-control", "no-cache")]).await.request_id();
    crate::support::eventually("the late one is kept", async || jobs(&scene, "").await.len() == 2).await;
    let orphans = jobs(&scene, "?state=orphan").await;
    assert_eq!(orphans.len(), 1);
    assert_ne!(orphans[0]["request_id"], new.as_str());
    assert!(orphans[0]["orphan"] == true && orphans[0]["entry"].is_null());
    scene.end().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let scene = Scene::start().await;
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(scene.submit(&format!("prompt {number}")).await.request_id());
    }
    made.reverse();
    for (path, list, name) in [("/admin/jobs", "jobs", "request_id"), ("/admin/entries", "entries", "request_id")] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = scene.admin(&format!("{path}?limit=3{after}")).await.json();
            let lines = page[list].as_array().unwrap();
            assert!(lines.len() <= 3);
            seen.extend(lines.iter().map(|line| line[name].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                None => break,
                Some(next) => after = format!("&after={next}"),
            }
        }
        if list == "entries" {
            seen.sort();
            made.sort();
        }
        assert_eq!(seen, made, "{path}");
    }
    scene.end().await;
}

#[tokio::test]
async fn what_a_page_does_not_understand_is_refused_by_name() {
    let scene = Scene::start().await;
    for (path, param) in [
        ("/admin/jobs?sate=done", "sate"),
        ("/admin/jobs?state=gone", "state"),
        ("/admin/jobs?limit=0", "limit"),
        ("/admin/jobs?limit=1001", "limit"),
        ("/admin/jobs?after=x", "after"),
        ("/admin/jobs?team=a&team=b", "team"),
        ("/admin/jobs?team=%zz", "query"),
        ("/admin/entries?after=12", "after"),
        ("/admin/entries?state=failed", "state"),
        ("/admin/entries/0123456789", "fingerprint"),
        ("/admin/entries/0123456789xy", "fingerprint"),
        ("/admin/entries/0123456789ab?x=1", "x"),
        ("/admin/spend?top=0", "top"),
        ("/admin/spend?bottom=1", "bottom"),
    ] {
        let answer = scene.admin(path).await;
        assert_eq!(refused(&answer), (400, "bad_request".to_owned()), "{path}");
        assert_eq!(answer.json()["error"]["param"], param, "{path}");
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    for (method, path, status) in [
        (Method::POST, "/admin/jobs", 405),
        (Method::DELETE, "/admin/jobs", 405),
        (Method::PUT, "/admin/entries/0123456789ab", 405),
        (Method::GET, "/admin", 404),
        (Method::GET, "/admin/", 404),
        (Method::GET, "/admin/jobs/", 404),
        (Method::GET, "/admin/entries/a/b", 404),
        (Method::GET, "/admin/entries/0123456789ab", 404),
        (Method::DELETE, "/admin/entries/0123456789ab", 404),
    ] {
        assert_eq!(admin(&scene, method.clone(), path, &[]).await.status, status, "{method} {path}");
    }
    assert_eq!(scene.ask(Method::GET, "/admin/jobs", &[], "").await.status, 404, "the public side has none of it");
    scene.end().await;
}

#[tokio::test]
async fn what_is_forgotten_is_bought_again_and_what_is_on_its_way_only_by_force() {
    let scene = Scene::start().await;
    scene.allow_buying_again();
    let key = [("idempotency-key", "once")];
    let first = scene.submit_with("a candle", &key).await.request_id();
    // Now it is hot.
    assert_eq!(scene.submit("a candle").await.request_id(), first);
    let fingerprint = jobs(&scene, "").await[0]["fingerprint"].as_str().unwrap().to_owned();
    let path = format!("/admin/entries/{}", &fingerprint[..12]);
    let shown = scene.admin(&path).await.json();
    assert_eq!((&shown["state"], &shown["request_id"]), (&json!("accepted"), &json!(first)));
    assert_eq!(shown["fingerprint"], fingerprint.as_str());
    let gone =
        admin(&scene, Method::DELETE, &path.to_uppercase().replace("/ADMIN/ENTRIES", "/admin/entries"), &[]).await;
    assert_eq!((gone.status, &gone.json()["forgotten"]["request_id"]), (200, &json!(first)));
    assert_eq!(admin(&scene, Method::DELETE, &path, &[]).await.status, 404);
    let second = scene.submit("a candle").await.request_id();
    assert_ne!(second, first, "neither the hot cache nor anything else gives it out");
    let keyed = scene.submit_with("a candle", &key).await.request_id();
    assert_eq!(keyed, second, "its idempotency key does not either");
    scene.poll_until(&first, "\"done\"").await;
    assert_eq!(scene.metric("jobs_total{outcome=\"done\"}").await, 1.0, "its job is known as before");
    assert_eq!(scene.metric("ledger_operations_total{operation=\"forget\",result=\"ok\"}").await, 1.0);

    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(1500)));
    let (answer, ()) = tokio::join!(scene.submit("a lamp"), async {
        assert!(scene.upstream.wait_until(|counts| counts.posts == 3, SOON).await);
        let sending = scene.admin("/admin/entries?state=sending").await.json();
        let path = format!("/admin/entries/{}", sending["entries"][0]["fingerprint"].as_str().unwrap());
        let refusal = admin(&scene, Method::DELETE, &path, &[]).await;
        assert_eq!(refused(&refusal), (409, "in_flight".to_owned()));
        assert_eq!(admin(&scene, Method::DELETE, &format!("{path}?force=maybe"), &[]).await.status, 400);
        assert_eq!(admin(&scene, Method::DELETE, &format!("{path}?force=true"), &[]).await.status, 200);
    });
    let lamp = answer.request_id();
    assert_eq!(field(&jobs(&scene, "?state=orphan").await, "request_id"), [lamp.as_str()], "it is kept all the same");
    assert_ne!(scene.submit("a lamp").await.request_id(), lamp);
    scene.end().await;
}

#[tokio::test]
async fn m29_what_was_spent_is_told_with_as_many_users_as_asked_for() {
    let scene = Scene::start().await;
    for user in ["a", "b", "c"] {
        let body = json!({"prompt": format!("of {user}"), "user": user, "duration": 5});
        let id = scene.post(GENERATIONS, &body, &[]).await.request_id();
        scene.poll_until(&id, "\"done\"").await;
    }
    let spend = scene.admin("/admin/spend?top=2").await.json();
    let day = &spend["periods"][0];
    assert_eq!(day["total"]["jobs"], 3);
    assert_eq!((day["teams"][0]["team"].as_str(), day["users"].as_array().unwrap().len()), (Some("open"), 2));
    assert_eq!(scene.admin("/admin/spend").await.json()["periods"][0]["users"].as_array().unwrap().len(), 3);
    scene.end().await;
}

#[tokio::test]
async fn t72_no_page_of_a_browsers_gets_at_the_ledger() {
    let scene = Scene::start().await;
    scene.submit("a candle").await.request_id();
    let path = format!("/admin/entries/{}", jobs(&scene, "").await[0]["fingerprint"].as_str().unwrap());
    for (method, path) in [(Method::GET, "/admin/jobs"), (Method::GET, "/admin/spend"), (Method::DELETE, path.as_str())]
    {
        for (headers, status) in [
            ([("host", "rebound.example")], 421),
            ([("origin", "http://localhost:3000")], 403),
            ([("origin", "null")], 403),
        ] {
            assert_eq!(
                admin(&scene, method.clone(), path, &headers).await.status,
                status,
                "{method} {path} {headers:?}"
            );
        }
    }
    assert_eq!(scene.admin(&path).await.status, 200, "it is still there");
    scene.end().await;
}

const KEY: &str = "an-admin-key-0123456789";

#[tokio::test]
async fn beyond_loopback_the_ledger_needs_a_key_and_metrics_do_not() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let scene = Scene::with(|config, _| config.admin.listen = everywhere).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.gateway().admin_address().port()));
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(ask(address, Method::GET, path, &[], "").await.status, 200, "{path}");
    }
    let paths = ["/admin/jobs", "/admin/entries", "/admin/entries/0123456789ab", "/admin/spend", "/admin/jobs?x"];
    for path in paths {
        let bearer = format!("Bearer {KEY}");
        let answer = ask(address, Method::GET, path, &[("authorization", &bearer)], "").await;
        assert_eq!(refused(&answer), (403, "admin_key_needed".to_owned()), "{path}");
        assert!(answer.text().contains("set admin.key_env"), "it says what to do");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_configured_key_is_asked_for_wherever_it_listens() {
    let key = random_key();
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let environment = [
            ("COMETAPI_KEY", key.as_str()),
            ("REELGATE_UPSTREAM__URL", "http://127.0.0.1:9"),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", listen),
            ("REELGATE_ADMIN__KEY_ENV", "OPERATORS"),
            ("OPERATORS", KEY),
        ];
        let mut program = Program::start(&["serve"], &environment);
        let (_, admin) = program.serving().await;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, admin.port()));
        let get = async |authorization: &str| {
            ask(address, Method::GET, "/admin/jobs", &[("authorization", authorization)], "").await
        };
        assert_eq!(get(&format!("Bearer {KEY}")).await.status, 200);
        assert_eq!(get(&format!("bearer {KEY}")).await.status, 200);
        for wrong in ["", "Bearer", "Bearer x", KEY, &format!("Bearer {KEY}0"), &format!("Basic {KEY}")] {
            let answer = get(wrong).await;
            assert_eq!(refused(&answer), (401, "invalid_key".to_owned()), "{wrong}");
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"reelgate admin\"");
        }
        assert_eq!(ask(address, Method::GET, "/readyz", &[], "").await.status, 200);
        assert!(!program.output().contains(KEY));
    }
    assert!(AdminKey::parse(KEY).is_ok());
}

#[tokio::test]
async fn what_a_configuration_names_wrongly_ends_it_with_status_2() {
    let pem = crate::support::Folder::new();
    std::fs::write(pem.path("empty.pem"), "no certificate").unwrap();
    let roots = pem.path("empty.pem");
    for (name, value, told) in [
        ("REELGATE_UPSTREAM__ROOTS", roots.to_str().unwrap(), "empty.pem"),
        ("REELGATE_DEDUP__KEY_ENV", "NOT_SET", "dedup.key_env"),
        ("REELGATE_DEDUP__KEY_ENV", "COMETAPI_KEY", "dedup.key_env"),
        ("REELGATE_ADMIN__KEY_ENV", "NOT_SET", "admin.key_env"),
        ("REELGATE_ADMIN__KEY_ENV", "SHORT", "admin.key_env"),
    ] {
        let environment = [
            ("COMETAPI_KEY", "sk-not-a-fingerprint-key"),
            ("SHORT", "too short"),
            ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
            ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
            (name, value),
        ];
        let (status, output) = Program::run(&["serve"], &environment).await;
        assert_eq!(status, 2, "{name}: {output}");
        assert!(output.contains(told) && !output.contains("sk-not"), "{name}: {output}");
    }
}

#[tokio::test]
async fn an_unfinished_job_says_so() {
    let scene = Scene::start().await;
    let id = scene.submit("a candle").await.request_id();
    scene.upstream.next_poll(Fault::Pending(Pending::Progress));
    scene.poll(&id).await;
    let running = jobs(&scene, "?state=running").await;
    assert_eq!(field(&running, "request_id"), [id.as_str()]);
    assert!(running[0]["ended"].is_null() && running[0]["last_poll"].is_string());
    assert_eq!(running[0]["entry"], "accepted");
    scene.end().await;
}
