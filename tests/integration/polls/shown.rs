//! What a client sees of a poll: what the upstream said, byte for byte.

use hyper::{HeaderMap, Method};
use reelgate::jobs::settings::Ownership;
use reelgate::simulator::{End, Fault, Form, Odd, Pending, Shape};

use super::path;
use crate::support::{Answer, Scene, ask};

/// The same poll, asked past the gateway.
async fn directly(scene: &Scene, id: &str) -> Answer {
    let bearer = format!("Bearer {}", scene.key);
    // As the gateway would, because all that the upstream gets is checked at the end.
    let headers = [("authorization", bearer.as_str()), ("via", "1.1 a-test")];
    ask(scene.upstream.address(), Method::GET, &path(id), &headers, "").await
}

/// The fields of the upstream's, sorted; its own request id is looked at apart.
fn fields(headers: &HeaderMap, without: &[&str]) -> Vec<(String, String)> {
    let of_upstream = headers.iter().filter(|(name, _)| !without.contains(&name.as_str()));
    let mut fields: Vec<_> =
        of_upstream.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    // Stable: of one name the order counts.
    fields.sort_by(|one, two| one.0.cmp(&two.0));
    fields
}

/// Polls once directly and once through the gateway, and compares.
async fn is_passed_unchanged(scene: &Scene, id: &str, fault: &Fault) {
    scene.upstream.next_poll(fault.clone());
    let direct = directly(scene, id).await;
    scene.upstream.next_poll(fault.clone());
    let passed = scene.poll(id).await;
    assert_eq!(passed.status, direct.status, "{fault:?}");
    assert!(passed.body.is_some() && passed.body == direct.body, "{fault:?}");
    let added = [
        "x-request-id",
        "reelgate-upstream-request-id",
        "proxy-status",
        "x-content-type-options",
        "date",
        "transfer-encoding",
    ];
    let hop_by_hop = ["x-request-id", "transfer-encoding", "connection"];
    assert_eq!(fields(&passed.headers, &added), fields(&direct.headers, &hop_by_hop), "{fault:?}");
    assert!(passed.header("reelgate-upstream-request-id").starts_with("simulated-"), "{fault:?}");
    assert!(!passed.header("x-request-id").starts_with("simulated-"), "{fault:?}");
    assert_eq!(passed.header("x-content-type-options"), "nosniff");
    let whose = (passed.status >= 400).then(|| format!("reelgate; received-status={}", passed.status));
    assert_eq!(passed.header("proxy-status"), whose.unwrap_or_default());
    assert!(passed.header("date").ends_with(" GMT"), "R-09: {:?}", passed.headers);
}

fn states() -> Vec<Fault> {
    let pending = [Pending::Progress, Pending::Accepted, Pending::Empty, Pending::IdOnly, Pending::UnknownStatus];
    let ends = [
        End::Done,
        End::DoneWithoutStatus,
        End::DoneWithoutUrl,
        End::failed("internal_error", "boom \u{1f56f}"),
        End::failed("invalid_argument", "no"),
        End::Moderated,
        End::Disrespectful,
        End::Expired,
        End::NotFound,
        End::NoTask,
    ];
    pending.into_iter().map(Fault::Pending).chain(ends.into_iter().map(Fault::End)).collect()
}

#[tokio::test]
async fn every_state_passes_byte_for_byte_in_both_shapes() {
    for shape in [Shape::Flat, Shape::Wrapper] {
        let scene = Scene::with(|_, options| options.shape = shape).await;
        let id = scene.submit("a").await.request_id();
        for state in states() {
            is_passed_unchanged(&scene, &id, &state).await;
            // However it is framed; the last one takes its connection with it.
            for framing in [Fault::Chunked { bytes: 7 }, Fault::UntilClose, Fault::Encoded] {
                let is_error = matches!(state, Fault::End(End::Moderated | End::NotFound | End::NoTask));
                if is_error && framing == Fault::Encoded {
                    continue;
                }
                is_passed_unchanged(&scene, &id, &Fault::All(vec![state.clone(), framing])).await;
            }
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn errors_and_pages_pass_byte_for_byte() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    for fault in [
        Fault::status(400, Form::comet("invalid_request")),
        Fault::status(403, Form::xai("permission-denied")),
        Fault::RateLimited { retry_after: Some(7) },
        Fault::status(500, Form::comet("fail_to_fetch_task")),
        Fault::status(502, Form::Html),
        Fault::status(503, Form::flat("get_channel_failed")),
        Fault::status(524, Form::Html),
        Fault::status(500, Form::Empty),
        Fault::Odd(Odd::Html),
        Fault::Odd(Odd::HalfJson),
        Fault::Odd(Odd::NoBody),
        Fault::All(vec![Fault::End(End::Done), Fault::Padded(1 << 20)]),
        Fault::All(vec![Fault::End(End::Done), Fault::Padded(1 << 20), Fault::Chunked { bytes: 1000 }]),
    ] {
        is_passed_unchanged(&scene, &id, &fault).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn r77_of_sixty_fields_only_those_of_the_list_are_dropped() {
    let scene = Scene::start().await;
    let id = scene.submit("a").await.request_id();
    let dropped = [
        ("Set-Cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Alt-Svc", "h3=\":443\""),
        ("Clear-Site-Data", "*"),
        ("Public-Key-Pins", "x"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Server", "cloudflare"),
        ("Connection", "X-Up"),
        ("X-Up", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authentication-Info", "x"),
        ("Trailer", "x-sum"),
        ("NEL", r#"{"report_to":"a","max_age":9}"#),
        ("Report-To", r#"{"group":"a","max_age":9,"endpoints":[{"url":"https://a.example/"}]}"#),
        ("Reporting-Endpoints", r#"a="https://a.example/""#),
        ("Service-Worker-Allowed", "/"),
        ("Expect-CT", "max-age=9"),
        ("Refresh", "0;url=https://a.example/"),
        ("Accept-CH", "Sec-CH-UA-Model"),
        ("Critical-CH", "Sec-CH-UA-Model"),
    ];
    let mut kept: Vec<_> = (0..40).map(|number| (format!("x-field-{}", number / 2), number.to_string())).collect();
    kept.push(("cache-control".to_owned(), "private, max-age=3".to_owned()));
    kept.push(("content-language".to_owned(), "it".to_owned()));
    kept.push(("proxy-status".to_owned(), "cdn; next-hop=a".to_owned()));
    let owned = dropped.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    scene.upstream.next_poll(Fault::Headers(owned.chain(kept.clone()).collect()));
    let answer = scene.poll(&id).await;
    let ours = ["x-request-id", "reelgate-upstream-request-id", "x-content-type-options", "date", "content-length"];
    kept.push(("content-type".to_owned(), "application/json".to_owned()));
    kept.sort_by(|one, two| one.0.cmp(&two.0));
    assert_eq!(fields(&answer.headers, &ours), kept);
    scene.end().await;
}

#[tokio::test]
async fn m31_with_ownership_off_what_the_upstream_says_of_an_unknown_id_passes() {
    let scene = Scene::with(|config, _| config.polls.ownership = Ownership::Off).await;
    for (status, form, told) in [
        (404, Form::xai("not-found"), "not-found"),
        (404, Form::Html, "<html>"),
        (410, Form::Empty, ""),
        (400, Form::flat("task_not_exist"), "task_not_exist"),
        (400, Form::comet("task_not_exist"), "task_not_exist"),
    ] {
        scene.upstream.always_poll(Some(Fault::status(status, form)));
        let answer = scene.poll("of-nobody").await;
        assert_eq!(answer.status, status, "{told}");
        assert!(answer.text().contains(told) && !answer.text().contains("unknown_job"), "{}", answer.text());
        let head = scene.ask(Method::HEAD, "/grok/v1/videos/of-nobody", &[], "").await;
        assert_eq!((head.status, head.text()), (status, String::new()), "{told}");
    }
    scene.end().await;
}

#[tokio::test]
async fn m31_an_id_that_nobody_knows_is_told_in_one_way() {
    let scene = Scene::start().await;
    let mut seen = Vec::new();
    for fault in [
        Fault::status(404, Form::xai("not-found")),
        Fault::status(404, Form::Html),
        Fault::status(410, Form::Empty),
        Fault::status(400, Form::flat("task_not_exist")),
        Fault::status(400, Form::comet("task_not_exist")),
        Fault::All(vec![Fault::status(400, Form::flat("task_not_exist")), Fault::Chunked { bytes: 3 }]),
    ] {
        scene.upstream.next_poll(fault);
        let answer = scene.poll("of-nobody").await;
        assert_eq!(answer.refusal(), (404, "unknown_job".to_owned()));
        seen.push((answer.body.clone(), fields(&answer.headers, &["x-request-id", "date"])));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    // Another 400 tells nothing about the id, and passes.
    scene.upstream.next_poll(Fault::status(400, Form::comet("invalid_request")));
    assert_eq!(scene.poll("of-nobody").await.json()["error"]["type"], "comet_api_error");
    // A job that the ledger has lost, but the upstream has not, is served.
    let id = scene.submit("a").await.request_id();
    assert_eq!(scene.poll(&id).await.status, 200);
    scene.end().await;
}
