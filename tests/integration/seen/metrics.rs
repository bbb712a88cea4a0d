//! The metrics page: its names are a contract, its labels come from closed lists, its gauges follow what they show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hyper::Method;
use reelgate::admission::settings::Rate;
use reelgate::simulator::{CutAt, End, Fault, How};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::promtool;
use crate::support::{EDITS, GENERATIONS, SOON, Scene};

/// Every metric: name, type, labels. A changed line is a changed contract: dashboards and alerts read these.
const CONTRACT: &str = "\
process_cpu_seconds_total counter
process_max_fds gauge
process_open_fds gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_threads gauge
process_virtual_memory_bytes gauge
reelgate_accept_errors_total counter
reelgate_body_memory_bytes gauge
reelgate_build_info gauge version
reelgate_config_changes_total counter section
reelgate_config_reloads_total counter result
reelgate_connections gauge
reelgate_connections_closed_total counter reason
reelgate_degraded gauge reason
reelgate_deprecated_fields_total counter param
reelgate_entries gauge state
reelgate_hot_entries gauge
reelgate_invalid_total counter code param
reelgate_jobs_running gauge
reelgate_jobs_total counter outcome
reelgate_ledger_duration_seconds histogram operation result
reelgate_ledger_failures_total counter reason
reelgate_ledger_operations_total counter operation result
reelgate_limited_total counter kind limit
reelgate_limiter_buckets gauge
reelgate_log_lines_dropped_total counter
reelgate_panics_total counter
reelgate_polls_unread_total counter reason
reelgate_request_duration_seconds histogram route
reelgate_requests_in_flight gauge
reelgate_requests_total counter route status
reelgate_spend_at_risk_usd gauge team
reelgate_spend_lost_usd_total counter reason team
reelgate_spend_returned_usd_total counter team
reelgate_spend_saved_usd_total counter reason team
reelgate_spend_usd_total counter team
reelgate_submissions_total counter outcome
reelgate_upstream_duration_seconds histogram operation outcome
reelgate_upstream_requests_total counter operation outcome
";

/// The values that a closed list has, by label.
const CLOSED: &[(&str, &[&str])] = &[
    ("route", &["generations", "edits", "poll", "preflight", "page", "other"]),
    ("kind", &["requests", "generations", "running", "budget", "pace", "keys"]),
    ("limit", &["token", "user", "team", "address", "total", "upstream"]),
    (
        "operation",
        &[
            "submit",
            "poll",
            "watch",
            "list",
            "forget",
            "admit",
            "sending",
            "accepted",
            "unknown",
            "free",
            "doubted",
            "undelivered",
            "job",
            "own",
            "adopt",
            "turned",
            "slot",
        ],
    ),
    ("team", &["open"]),
    (
        "section",
        &[
            "server",
            "admin",
            "upstream",
            "access",
            "teams",
            "limits",
            "budgets",
            "prices",
            "validation",
            "dedup",
            "ledger",
            "polls",
            "log",
            "other",
        ],
    ),
    ("result", &["ok", "conflict", "error"]),
    ("state", &["claimed", "sending", "accepted", "done", "rejected", "unknown"]),
    (
        "outcome",
        &[
            "hit",
            "join",
            "dry_run",
            "created",
            "held",
            "invalid",
            "limited",
            "refused_upstream",
            "not_sent",
            "unknown",
            "denied",
            "unavailable",
            "aborted",
            "ok",
            "refused",
            "error",
            "done",
            "failed",
            "expired",
            "moderated",
        ],
    ),
    (
        "reason",
        &[
            "full",
            "address_full",
            "first_byte_timeout",
            "tls",
            "header_timeout",
            "write_timeout",
            "idle",
            "age",
            "protocol",
            "drain",
            "panic",
            "ledger",
            "upstream_key",
            "upstream_credit",
            "encoded",
            "long",
            "unreachable",
            "timeout",
            "open",
            "denied",
            "loading",
            "read_only",
            "full",
            "other",
            "hit",
            "join",
            "retry",
            "failed",
            "moderated",
            "unknown",
        ],
    ),
];

/// The labels of a sample's series.
fn labels(series: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = series.split_once('{') else { return Vec::new() };
    let pairs = labels.trim_end_matches('}').split(',').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(name, value)| (name, value.trim_matches('"'))).collect()
}

/// The series of a page, without values.
fn series(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Name, type and labels of each metric of a page, a line each.
fn contract(page: &str) -> String {
    let mut metrics = BTreeMap::<String, (String, BTreeSet<String>)>::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut family);
            metrics.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let names = labels(line.rsplit_once(' ').unwrap().0).into_iter().map(|(name, _)| name);
            let own = names.filter(|name| *name != "le").map(str::to_owned);
            metrics.get_mut(&family).unwrap().1.extend(own);
        }
    }
    let lines = metrics.into_iter().map(|(name, (kind, labels))| {
        let words = [name, kind].into_iter().chain(labels).collect::<Vec<_>>();
        words.join(" ") + "\n"
    });
    lines.collect()
}

/// Requests of every sort, none of them like one before.
async fn odd_traffic(scene: &Scene, round: u32) {
    let address = scene.gateway().address();
    for number in 0..15 {
        let odd = format!("odd{round}x{number}");
        for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", odd.as_str()] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for path in [format!("/{odd}"), format!("/grok/v1/videos/{odd}/x"), GENERATIONS.to_owned()] {
                scene.ask(method.clone(), &path, &[("x-odd", &odd)], "").await;
            }
        }
        scene.poll(&odd).await;
        scene.ask(Method::GET, &format!("/grok/v1/videos/{odd}?{odd}={odd}"), &[], "").await;
        scene.ask(Method::GET, "/", &[("host", &format!("{odd}.example"))], "").await;
        scene.ask(Method::POST, GENERATIONS, &[("content-type", &format!("text/{odd}"))], "{}").await;
        for body in [
            json!({"prompt": odd, "user": odd, "model": odd, "size": odd}),
            json!({"prompt": odd, "user": odd, "duration": odd, (odd.clone()): odd, "resolution": odd}),
            json!({"prompt": odd, "image": {(odd.clone()): odd}, "aspect_ratio": odd, "duratoin": number}),
            json!({"prompt": "", "user": ""}),
        ] {
            scene.post(GENERATIONS, &body, &[("idempotency-key", &odd), ("x-request-id", &odd)]).await;
            scene.post(EDITS, &body, &[("origin", &format!("https://{odd}.example"))]).await;
        }
        scene.post_text(GENERATIONS, &format!("{{\"{odd}\":"), &[]).await;
    }
    let mut raw = TcpStream::connect(address).await.unwrap();
    raw.write_all(format!("\u{7}{round} no http\r\n\r\n").as_bytes()).await.unwrap();
    drop(raw);
}

#[tokio::test]
async fn every_metric_of_the_contract_exists_and_no_other() {
    let scene = Scene::start().await;
    let at_first = scene.admin("/metrics").await;
    assert_eq!(at_first.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(contract(&at_first.text()), CONTRACT, "before any request");
    odd_traffic(&scene, 0).await;
    let page = scene.admin("/metrics").await.text();
    assert_eq!(contract(&page), CONTRACT);
    let complaints = promtool::complaints(&page).unwrap_or_default();
    assert!(complaints.is_empty(), "{complaints:?}");
    scene.end().await;
}

#[tokio::test]
async fn inv7_t32_whatever_clients_invent_the_series_stay_the_same() {
    let scene = Scene::start().await;
    odd_traffic(&scene, 1).await;
    let before = series(&scene.admin("/metrics").await.text());
    for round in 2..5 {
        odd_traffic(&scene, round).await;
    }
    let page = scene.admin("/metrics").await.text();
    let new: Vec<_> = series(&page).difference(&before).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(!page.contains("odd1x") && !page.contains("odd4x"), "what a client sent is in the metrics");
    for series in &before {
        for (name, value) in labels(series) {
            match CLOSED.iter().find(|(closed, _)| *closed == name) {
                Some((_, values)) => assert!(values.contains(&value), "{series}"),
                None if name == "status" => assert!((100..1000).contains(&value.parse::<u16>().unwrap()), "{series}"),
                None => assert!(["version", "param", "code", "le"].contains(&name), "{series}"),
            }
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn entries_and_jobs_are_shown_in_the_state_they_are_in() {
    let scene = Scene::with(|_, options| options.job_duration = Duration::from_secs(600)).await;
    let state = |state: &str| format!("entries{{state=\"{state}\"}}");
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(700)));
    let first = async { scene.submit("first").await.request_id() };
    let sending = async { scene.metric_becomes(&state("sending"), 1.0).await };
    let (first, ()) = tokio::join!(first, sending);
    let second = scene.submit("second").await.request_id();
    let third = scene.submit("third").await.request_id();
    scene.metric_becomes(&state("sending"), 0.0).await;
    assert_eq!(scene.metric(&state("accepted")).await, 3.0);
    assert_eq!(scene.metric("jobs_running").await, 3.0);

    scene.upstream.finish(&first, End::Done);
    scene.poll_until(&first, "\"done\"").await;
    assert_eq!(scene.metric(&state("done")).await, 1.0);
    scene.upstream.finish(&second, End::Moderated);
    scene.poll(&second).await;
    assert_eq!(scene.metric(&state("rejected")).await, 1.0);
    scene.upstream.finish(&third, End::failed("internal_error", "no"));
    scene.poll(&third).await;
    assert_eq!(scene.metric(&state("accepted")).await, 0.0);
    assert_eq!(scene.metric("jobs_running").await, 0.0);

    scene.upstream.next_submission(Fault::cut(CutAt::BeforeAnswer, How::Reset));
    assert_eq!(scene.submit("fourth").await.refusal(), (502, "outcome_unknown".to_owned()));
    assert_eq!(scene.metric(&state("unknown")).await, 1.0);
    for (outcome, count) in [("done", 1.0), ("moderated", 1.0), ("failed", 1.0), ("expired", 0.0)] {
        assert_eq!(scene.metric(&format!("jobs_total{{outcome=\"{outcome}\"}}")).await, count, "{outcome}");
    }
    scene.end().await;
}

#[tokio::test]
async fn connections_are_shown_while_they_are_open() {
    let scene = Scene::start().await;
    scene.metric_becomes("connections", 0.0).await;
    let address = scene.gateway().address();
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    scene.metric_becomes("connections", 5.0).await;
    open.truncate(2);
    scene.metric_becomes("connections", 2.0).await;
    drop(open);
    scene.metric_becomes("connections", 0.0).await;
    scene.end().await;
}

#[tokio::test]
async fn a_body_counts_as_memory_until_its_client_leaves_who_is_counted_too() {
    let scene = Scene::start().await;
    let mut client = TcpStream::connect(scene.gateway().address()).await.unwrap();
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{{",
        scene.gateway().address()
    );
    scene.note_submissions(1);
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&[b' '; 59_999]).await.unwrap();
    // What has come, not what was announced.
    scene.metric_becomes("body_memory_bytes", 60_000.0).await;
    assert_eq!(scene.metric("requests_in_flight").await, 1.0);
    drop(client);
    scene.metric_becomes("body_memory_bytes", 0.0).await;
    scene.metric_becomes("requests_in_flight", 0.0).await;
    assert_eq!(scene.metric("submissions_total{outcome=\"aborted\"}").await, 1.0);
    assert_eq!(scene.metric("requests_total{route=\"generations\",status=\"499\"}").await, 1.0);
    scene.end().await;
}

#[tokio::test]
async fn refusals_by_a_limit_are_counted_under_that_limit() {
    let rate = |count| Some(Rate { count, per: Duration::from_secs(3600) });
    let scene = Scene::with(|config, _| {
        config.limits.user.generations = rate(1);
        config.limits.address.requests = rate(4);
    })
    .await;
    for (prompt, status) in [("a", 200), ("a", 200), ("b", 429), ("c", 429), ("a", 429)] {
        assert_eq!(scene.post(GENERATIONS, &json!({"prompt": prompt, "user": "u"}), &[]).await.status, status);
    }
    let limited = |limit: &str, kind: &str| format!("limited_total{{kind=\"{kind}\",limit=\"{limit}\"}}");
    assert_eq!(scene.metric(&limited("user", "generations")).await, 2.0);
    assert_eq!(scene.metric(&limited("address", "requests")).await, 1.0);
    assert_eq!(scene.metric(&limited("total", "generations")).await, 0.0);
    assert_eq!(scene.metric("submissions_total{outcome=\"limited\"}").await, 3.0);
    scene.end().await;
}

#[tokio::test]
async fn the_time_of_a_call_upstream_is_seen() {
    let scene = Scene::start().await;
    scene.upstream.next_submission(Fault::Delay(Duration::from_millis(300)));
    scene.submit("slow").await;
    let series = |rest: &str| format!("upstream_duration_seconds_{rest}");
    let of_submit = "operation=\"submit\",outcome=\"ok\"";
    assert!(scene.upstream.wait_until(|counts| counts.answered == 1, SOON).await);
    assert_eq!(scene.metric(&series(&format!("bucket{{{of_submit},le=\"0.25\"}}"))).await, 0.0);
    assert_eq!(scene.metric(&series(&format!("count{{{of_submit}}}"))).await, 1.0);
    assert!(scene.metric(&series(&format!("sum{{{of_submit}}}"))).await >= 0.3);
    scene.end().await;
}
