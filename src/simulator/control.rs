//! The control route, for people and other processes: `GET /simulator/` shows what was received, `POST
//! /simulator/next` and `/simulator/always` say what to do with submissions or polls, `POST /simulator/reset` forgets.
//! Keys are never shown.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::fault::Fault;
use super::job::Job;
use super::reader::Head;
use super::state::{Kind, Received, State};

/// The most requests and jobs that are shown.
const SHOWN: usize = 50;
/// The most bytes of a body that are shown.
const SHOWN_BODY: usize = 2048;
/// The most faults in a queue.
const MAX_QUEUED: usize = 10_000;
/// Header fields whose value is not shown.
const SECRET: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// What is posted to `next` and `always`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Submissions or polls.
    r#for: Kind,
    /// A fault, or the name of one; nothing, to end what always holds.
    #[serde(default)]
    fault: Value,
    /// How often.
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

/// Answers a request to the control route.
pub(super) fn answer(state: &State, head: &Head, body: &[u8]) -> Answer {
    if !from_here(head) {
        return problem(403, "the control route is for no web page, and goes by an IP address or localhost");
    }
    match (head.method.as_str(), head.path.as_str()) {
        ("GET" | "HEAD", "/simulator" | "/simulator/") => Answer::json(200, &shown(state)),
        ("POST", "/simulator/reset") => {
            state.forget();
            Answer::empty(204)
        }
        ("POST", "/simulator/next" | "/simulator/always") => match order(state, &head.path, body) {
            Ok(()) => Answer::empty(204),
            Err(message) => problem(400, &message),
        },
        _ => problem(404, "GET /simulator/, POST /simulator/next, /simulator/always, /simulator/reset"),
    }
}

/// Carries out an order.
fn order(state: &State, path: &str, body: &[u8]) -> Result<(), String> {
    let order: Order = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let fault = match order.fault {
        Value::Null => None,
        given => Some(fault(given)?),
    };
    let mut memory = state.memory();
    let script = match order.r#for {
        Kind::Submission => &mut memory.submissions,
        Kind::Poll => &mut memory.polls,
    };
    if path.ends_with("/always") {
        script.always = fault;
        return Ok(());
    }
    let fault = fault.ok_or("fault: missing")?;
    if order.times > MAX_QUEUED.saturating_sub(script.next.len()) {
        return Err(format!("times: more than {MAX_QUEUED} would wait"));
    }
    script.next.extend(std::iter::repeat_n(fault, order.times));
    Ok(())
}

fn fault(given: Value) -> Result<Fault, String> {
    if let Some(named) = given.as_str().and_then(Fault::named) {
        return Ok(named);
    }
    serde_json::from_value(given).map_err(|error| format!("fault: {error}"))
}

/// The state, without secrets.
fn shown(state: &State) -> Value {
    let memory = state.memory();
    let mut prompts: BTreeMap<&str, u64> = BTreeMap::new();
    for job in memory.jobs.values() {
        *prompts.entry(&job.prompt).or_default() += 1;
    }
    let jobs: Vec<Value> =
        memory.order.iter().rev().take(SHOWN).filter_map(|id| memory.jobs.get(id)).map(shown_job).collect();
    let received: Vec<Value> = memory.received.iter().rev().take(SHOWN).map(shown_request).collect();
    json!({
        "counts": state.counts(),
        "accepted_by_prompt": prompts,
        "jobs": jobs,
        "received": received,
        "waiting": {"submissions": memory.submissions.next.len(), "polls": memory.polls.next.len()},
        "fault_names": Fault::names().collect::<Vec<_>>(),
    })
}

fn shown_job(job: &Job) -> Value {
    let age = job.created.elapsed();
    json!({
        "request_id": job.request_id,
        "prompt": job.prompt,
        "model": job.model,
        "duration": job.duration,
        "cost_in_usd_ticks": job.cost,
        "created": job.created_unix,
        "ended": job.has_ended(age),
        "progress": if job.has_ended(age) { 100 } else { job.progress(age) },
        "end": job.end,
    })
}

fn shown_request(received: &Received) -> Value {
    let head = String::from_utf8_lossy(&received.head);
    let fields: Vec<String> = head.split("\r\n").skip(1).filter(|line| !line.is_empty()).map(covered).collect();
    let body = received.body.get(..SHOWN_BODY).unwrap_or(&received.body);
    json!({
        "connection": received.connection,
        "method": received.method,
        "path": received.path,
        "fields": fields,
        "body": String::from_utf8_lossy(body),
        "body_bytes": received.body.len(),
        "extra_bytes": received.extra.len(),
        "complete": received.complete,
    })
}

/// A header line, its value covered where it is a secret. What is no header line is not shown at all.
fn covered(line: &str) -> String {
    match line.split_once(':') {
        Some((name, _)) if SECRET.contains(&name.to_ascii_lowercase().as_str()) => format!("{name}: ***"),
        Some(_) => line.to_owned(),
        None => "***".to_owned(),
    }
}

/// Whether the request was made by something on this machine's side of a browser: no page of another site, and no
/// name that may have been rebound.
fn from_here(head: &Head) -> bool {
    let host = head.field("host").unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    head.field("origin").is_none() && (name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok())
}

fn problem(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"message": message}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_given_by_name_or_written_out() {
        assert_eq!(fault(json!("fail")).unwrap(), Fault::named("fail").unwrap());
        assert_eq!(fault(json!({"encoded": null})).ok(), fault(json!("encoded")).ok());
        assert!(fault(json!("unheard-of")).unwrap_err().contains("unheard-of"));
        assert!(fault(json!(5)).is_err());
    }

    #[test]
    fn secrets_are_covered() {
        assert_eq!(covered("Authorization: Bearer sk-1"), "Authorization: ***");
        assert_eq!(covered("accept: */*"), "accept: */*");
        assert_eq!(covered("sk-1"), "***");
    }
}
