//! The way of a poll: asked upstream under our key, passed on byte for byte, and read on the side so that the entry is
//! true before the client sees the answer (`DESIGN.md` §4, `MONEY.md` M19–M22).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::Instant;
use tracing::debug;

use super::answer::Body;
use super::rules::Rules;
use super::{Gateway, Worker};
use crate::bill::price::Prices;
use crate::clock::Clock;
use crate::error::Error;
use crate::jobs::entry::Turn;
use crate::jobs::ledger::Ledger;
use crate::jobs::observe::{self, Facts, Seen};
use crate::jobs::records::{End, Job, Life};
use crate::jobs::settings::Shape;
use crate::request::route::RequestId;
use crate::telemetry::labels::{Degraded, UpstreamOperation, UpstreamOutcome};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::record::Record;
use crate::upstream::headers::Passed;
use crate::upstream::polls::{PollFailure, PolledBody};
use crate::upstream::relay::{Before, Relay, Witness};

impl Worker {
    /// Serves a poll.
    pub(super) async fn poll(
        &self,
        id: &RequestId,
        header_only: bool,
        passed: &Passed,
        rules: &Rules,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        record.job(id);
        // Without the ledger polls go on; they are only not read.
        let ledger = self.gateway.dedup.ledger();
        let job = ledger.job(id).await.unwrap_or_default();
        if let Some(job) = &job {
            ledger.polled(job);
        }
        let begun = Instant::now();
        let response = self.polls.get(id, passed).await;
        self.count(response.as_ref(), begun, record);
        let response = response?;
        if job.is_none() && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            // One answer for all ids that nobody here knows.
            return Err(Error::UnknownJob);
        }
        let witness = job.clone().map(|job| -> Box<dyn Witness> {
            Box::new(Observer::new(&self.gateway, job, response.body().key().id(), rules))
        });
        let relayed = Relay::begin(response, witness).await;
        let unreadable_unknown = job.is_none() && relayed.status() == StatusCode::BAD_REQUEST;
        let flat = rules.shape == Shape::Flat && relayed.status().is_success();
        let mut answer = if header_only || unreadable_unknown || flat {
            whole(relayed, job.is_some(), flat).await?
        } else {
            relayed.map(|relay| Body::Relayed(Box::new(relay)))
        };
        answer.headers_mut().insert(NOSNIFF.0, NOSNIFF.1);
        Ok(answer)
    }

    fn count(&self, response: Result<&Response<PolledBody>, &PollFailure>, begun: Instant, record: &mut Record) {
        let duration = begun.elapsed();
        count(&self.gateway.telemetry.metrics, UpstreamOperation::Poll, response, duration);
        record.upstream(response.ok().map(Response::status), duration);
    }
}

/// Counts a question about a job.
pub(super) fn count(
    metrics: &Metrics,
    operation: UpstreamOperation,
    response: Result<&Response<PolledBody>, &PollFailure>,
    duration: Duration,
) {
    let outcome = match response {
        Ok(response) if response.status().is_success() => UpstreamOutcome::Ok,
        Ok(response) if response.status().is_client_error() => UpstreamOutcome::Refused,
        Ok(_) | Err(PollFailure::Timeout | PollFailure::Broken) => UpstreamOutcome::Error,
        Err(PollFailure::KeyRefused) => UpstreamOutcome::Refused,
        Err(PollFailure::Unreached(_)) => UpstreamOutcome::NotSent,
    };
    let key_refused = matches!(response, Err(PollFailure::KeyRefused));
    if key_refused || outcome == UpstreamOutcome::Ok {
        metrics.degrade(Degraded::UpstreamKey, key_refused);
    }
    metrics.upstream_request(operation, outcome, Some(duration));
}

/// Reads along, so that an entry ends before its end is told (M21).
pub(super) struct Observer {
    job: Arc<Job>,
    /// Whether it was asked about with the upstream key that made it.
    by_its_key: bool,
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    clock: Clock,
    prices: Arc<Prices>,
}

impl Observer {
    /// An observer of an answer about `job` that was asked for with the upstream key of this id.
    pub(super) fn new(gateway: &Gateway, job: Arc<Job>, key: &str, rules: &Rules) -> Self {
        Self {
            by_its_key: *job.key == *key,
            job,
            ledger: gateway.dedup.ledger().clone(),
            metrics: gateway.telemetry.metrics.clone(),
            clock: gateway.clock.clone(),
            prices: rules.prices.clone(),
        }
    }
}

impl Witness for Observer {
    fn saw(&mut self, status: StatusCode, so_far: &[u8], _complete: bool) -> Option<Before> {
        let (turn, life, facts) = match observe::read(status, so_far) {
            Seen::Nothing | Seen::KeyRefused => return None,
            Seen::Unfinished => {
                self.job.note_unfinished(self.clock.now());
                return None;
            }
            Seen::Done(facts) => (Turn::Done(facts.finished), Life::Done, facts),
            Seen::Failed { refusal, facts } => (if refusal { Turn::Refused } else { Turn::Over }, Life::Failed, facts),
            Seen::Moderated(facts) => (Turn::Refused, Life::Moderated, facts),
            Seen::Expired(facts) => (Turn::Over, Life::Expired, facts),
            // Another account does not see it.
            Seen::Missing if !self.by_its_key => return None,
            Seen::Missing => (Turn::Missing, Life::Expired, Facts::default()),
        };
        let cost = facts.ticks.and_then(|ticks| self.prices.of_ticks(ticks));
        let end = End { life, cost, length: facts.duration };
        let (job, ledger, metrics) = (self.job.clone(), self.ledger.clone(), self.metrics.clone());
        Some(Box::pin(async move {
            let id = job.id.clone();
            match ledger.turned(job, turn, end).await {
                Ok(ended) if ended.news => {
                    if let Some(outcome) = life.outcome() {
                        metrics.jobs.inc(outcome);
                    }
                }
                Ok(_) => {}
                Err(error) => debug!(job = %id, %error, "a job's turn could not be written"),
            }
        }))
    }
}

/// An answer that has to be looked at whole: bounded, and read as a stream would have been.
async fn whole(relayed: Response<Relay>, is_known: bool, flat: bool) -> Result<Response<Body>, Error> {
    let (mut parts, relay) = relayed.into_parts();
    let body = Limited::new(relay, MAX_WHOLE).collect().await.map_err(|_| Error::UpstreamInvalidAnswer)?.to_bytes();
    if !is_known && parts.status != StatusCode::OK && observe::read(parts.status, &body) == Seen::Missing {
        return Err(Error::UnknownJob);
    }
    let body = if flat { observe::flatten(&body).map_or(body, Bytes::from) } else { body };
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Response::from_parts(parts, Body::Whole(body)))
}

const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
/// The longest poll's answer that is looked at whole, in bytes.
const MAX_WHOLE: usize = 1 << 20;
