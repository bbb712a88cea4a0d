//! INV-10: after a mixed run with faults, what is reported agrees with what clients were answered and with what the
//! upstream saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use reelgate::simulator::{CutAt, Fault, Form, How};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, EDITS, GENERATIONS, Scene, value};

/// What a client of the run asks, and what it is answered.
struct Asked {
    route: &'static str,
    answer: Answer,
}

async fn ask(scene: &Scene, number: usize) -> Asked {
    // Every prompt comes five times.
    let prompt = format!("prompt {}", number % 40);
    let (route, answer) = match number % 10 {
        0 => ("generations", scene.post_text(GENERATIONS, "{\"prompt\":", &[]).await),
        1 => ("generations", scene.post(GENERATIONS, &json!({"prompt": prompt, "duration": 99}), &[]).await),
        2 => ("edits", scene.post(EDITS, &json!({"prompt": prompt, "video": {"file_id": "f"}}), &[]).await),
        3 => ("poll", scene.poll("no-such-job").await),
        4 => ("other", scene.ask(Method::DELETE, "/nowhere", &[], "").await),
        5 => ("generations", scene.ask(Method::PUT, GENERATIONS, &[], "").await),
        _ => ("generations", scene.post(GENERATIONS, &json!({"prompt": prompt}), &[]).await),
    };
    Asked { route, answer }
}

/// Asks 300 times, 16 at a time.
async fn ask_all(scene: Arc<Scene>) -> Vec<Asked> {
    let mut clients = JoinSet::new();
    for first in 0..16 {
        let scene = scene.clone();
        clients.spawn(async move {
            let mut asked = Vec::new();
            for number in (first..300).step_by(16) {
                asked.push(ask(&scene, number).await);
            }
            asked
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

#[tokio::test]
async fn inv10_after_a_mixed_run_every_count_agrees_with_clients_and_upstream() {
    let scene = Scene::with(|_, options| {
        options.job_duration = Duration::from_millis(50);
        options.answer_delay = Duration::from_millis(5);
        options.seed = 7;
        options.submission_chances = vec![
            (Fault::status(500, Form::comet("server_error")), 0.1),
            (Fault::status(400, Form::comet("invalid_request")), 0.1),
            (Fault::RateLimited { retry_after: Some(1) }, 0.1),
            (Fault::Cut { at: CutAt::BeforeAnswer, how: How::Reset, accepted: true }, 0.1),
            (Fault::cut(CutAt::AfterHeader, How::Reset), 0.1),
        ];
        options.poll_chances = vec![(Fault::cut(CutAt::BeforeAnswer, How::Reset), 0.1)];
    })
    .await;
    let scene = Arc::new(scene);
    let asked = ask_all(scene.clone()).await;
    scene.metric_becomes("requests_in_flight", 0.0).await;

    // The jobs that clients know of are polled to their end.
    let created: Vec<_> = asked.iter().filter(|asked| asked.answer.cache_status().contains("; stored")).collect();
    for asked in &created {
        scene.poll_until(&asked.answer.request_id(), "\"done\"").await;
    }
    let page = scene.admin("/metrics").await.text();
    let count = |series: &str| value(&page, series) as usize;
    let outcome = |outcome: &str| count(&format!("submissions_total{{outcome=\"{outcome}\"}}"));
    let upstream =
        |outcome: &str| count(&format!("upstream_requests_total{{operation=\"submit\",outcome=\"{outcome}\"}}"));
    let saw = scene.upstream.counts();

    // Clients and counters.
    let mut answered = BTreeMap::<(&str, u16), usize>::new();
    for asked in asked.iter().filter(|asked| asked.route != "poll") {
        *answered.entry((asked.route, asked.answer.status)).or_default() += 1;
    }
    for ((route, status), number) in answered {
        assert_eq!(
            count(&format!("requests_total{{route=\"{route}\",status=\"{status}\"}}")),
            number,
            "{route} {status}"
        );
    }
    let served = |how: &str| asked.iter().filter(|asked| asked.answer.cache_status().contains(how)).count();
    assert_eq!(outcome("created"), created.len());
    assert_eq!(outcome("hit"), served("; hit"));
    assert!(outcome("join") >= served("; collapsed"), "a join may end in a refusal, a hit cannot");
    assert_eq!((outcome("invalid"), outcome("denied")), (60, 30));
    assert_eq!((outcome("aborted"), outcome("unavailable"), outcome("limited")), (0, 0, 0));

    // Counters and upstream.
    assert_eq!(upstream("ok"), outcome("created"));
    assert_eq!(upstream("refused"), outcome("refused_upstream"));
    assert_eq!(upstream("unknown"), outcome("unknown"));
    assert_eq!(upstream("ok") + upstream("refused") + upstream("unknown"), saw.posts as usize);
    assert!(saw.accepted as usize >= outcome("created"));
    assert!(saw.accepted as usize <= outcome("created") + outcome("unknown"));
    for (what, number) in
        [("created", outcome("created")), ("refused", upstream("refused")), ("unknown", outcome("unknown"))]
    {
        assert!(number > 0, "the run had nothing {what}");
    }

    // Jobs and entries.
    assert_eq!(count("jobs_total{outcome=\"done\"}"), created.len());
    assert_eq!(count("jobs_running"), 0);
    assert_eq!(count("entries{state=\"done\"}"), created.len());
    assert_eq!(count("entries{state=\"accepted\"}") + count("entries{state=\"sending\"}"), 0);
    for operation in ["submit", "poll"] {
        for outcome in ["ok", "refused", "unknown", "error"] {
            let labels = format!("{{operation=\"{operation}\",outcome=\"{outcome}\"}}");
            let timed = count(&format!("upstream_duration_seconds_count{labels}"));
            assert_eq!(timed, count(&format!("upstream_requests_total{labels}")), "{labels}");
        }
    }
    Arc::into_inner(scene).unwrap().end().await;
}
