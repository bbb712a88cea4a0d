//! The way of a poll: asked upstream under our key, passed on byte for byte, and read on the side so that the entry is
//! true before the client sees the answer (`DESIGN.md` §4, `MONEY.md` M19–M22).

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::Instant;
use tracing::debug;

use super::Worker;
use super::answer::Body;
use super::rules::Rules;
use crate::access::teams::Pass;
use crate::bill::price::Prices;
use crate::clock::Clock;
use crate::error::Error;
use crate::jobs::entry::Turn;
use crate::jobs::ledger::{Ledger, WRITE_PATIENCE};
use crate::jobs::observe::{self, Facts, Seen};
use crate::jobs::owners::Owner;
use crate::jobs::records::{End, Job, Life};
use crate::jobs::settings::Shape;
use crate::request::route::RequestId;
use crate::telemetry::labels::{Degraded, UpstreamOperation, UpstreamOutcome};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::record::Record;
use crate::upstream::headers::Passed;
use crate::upstream::key::UpstreamKey;
use crate::upstream::polls::{PollFailure, PolledBody};
use crate::upstream::relay::{Before, Relay, Witness};

impl Worker {
    /// Serves a poll.
    pub(super) async fn poll(
        &self,
        id: &RequestId,
        header_only: bool,
        passed: &Passed,
        pass: &Pass,
        rules: &Rules,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        record.job(id);
        let asking = self.asking(pass, rules);
        let job = self.known(id, asking.as_ref(), rules, record).await?;
        let response = self.asked(id, passed, job.as_deref(), record).await?;
        if job.is_none() && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            // One answer for all ids that nobody here knows.
            return Err(Error::UnknownJob);
        }
        let key = response.body().key().id().to_owned();
        let witness = job.clone().map(|job| self.witness(job, &key, rules));
        let relayed = Relay::begin(response, witness).await;
        // In mode `open` there is only one team, and nothing to adopt.
        let adopter = asking.filter(|_| job.is_none() && !rules.teams.is_open());
        let unreadable_unknown = job.is_none() && relayed.status() == StatusCode::BAD_REQUEST;
        let flat = rules.shape == Shape::Flat && relayed.status().is_success();
        let mut answer = if header_only || unreadable_unknown || flat || adopter.is_some() {
            whole(relayed, job.is_some(), flat).await?
        } else {
            relayed.map(|relay| Body::Relayed(Box::new(relay)))
        };
        if let Some(owner) = adopter.filter(|_| answer.status().is_success()) {
            self.adopt(Job::adopted(id.clone(), owner.clone(), &key, self.gateway.clock.now()), &owner).await?;
        }
        answer.headers_mut().insert(NOSNIFF.0, NOSNIFF.1);
        Ok(answer)
    }

    /// The job, if the ledger knows it, and if it is the asker's to see: another's is like one that nobody knows.
    async fn known(
        &self,
        id: &RequestId,
        asking: Option<&Owner>,
        rules: &Rules,
        record: &mut Record,
    ) -> Result<Option<Arc<Job>>, Error> {
        let found = self.gateway.dedup.ledger().job(id).await;
        // Without the ledger polls go on; they are only not read.
        let Some(asking) = asking else { return Ok(found.unwrap_or_default()) };
        match found {
            Ok(Some(job)) if job.is_of(asking) => Ok(Some(job)),
            Ok(Some(_)) => {
                record.cause("another's job");
                Err(Error::UnknownJob)
            }
            Ok(None) if rules.adopt_unknown => Ok(None),
            Ok(None) => {
                record.cause("a job that nobody here made");
                Err(Error::UnknownJob)
            }
            // Whose it is nobody can tell now.
            Err(_) if rules.teams.count() > 1 || asking.user.is_some() => Err(Error::LedgerUnavailable),
            Err(_) => Ok(None),
        }
    }

    /// The upstream's answer, asked for with the key that made the job, as long as that is known and good.
    async fn asked(
        &self,
        id: &RequestId,
        passed: &Passed,
        job: Option<&Job>,
        record: &mut Record,
    ) -> Result<Response<PolledBody>, Error> {
        let upstream = &self.gateway.upstream;
        let key = job.map_or_else(|| upstream.key(), |job| upstream.key_of(&job.key));
        let begun = Instant::now();
        let response = self.polls.get_by(key.clone(), id, passed).await;
        self.count(response.as_ref(), &key, begun, record);
        if matches!(response, Err(PollFailure::KeyRefused)) && upstream.forget_key(key.id()) {
            let (key, begun) = (upstream.key(), Instant::now());
            let response = self.polls.get_by(key.clone(), id, passed).await;
            self.count(response.as_ref(), &key, begun, record);
            return Ok(response?);
        }
        Ok(response?)
    }

    /// Records a job that nobody here made. Somebody else may have been first.
    async fn adopt(&self, job: Job, owner: &Owner) -> Result<(), Error> {
        let adopting = self.gateway.dedup.ledger().adopt(Arc::new(job));
        match tokio::time::timeout(WRITE_PATIENCE, adopting).await {
            Ok(Ok(job)) if job.is_of(owner) => Ok(()),
            Ok(Ok(_)) => Err(Error::UnknownJob),
            Ok(Err(_)) | Err(_) => Err(Error::LedgerUnavailable),
        }
    }

    fn count(
        &self,
        response: Result<&Response<PolledBody>, &PollFailure>,
        key: &UpstreamKey,
        begun: Instant,
        record: &mut Record,
    ) {
        let metrics = &self.gateway.telemetry.metrics;
        let outcome = match response {
            Ok(response) if response.status().is_success() => UpstreamOutcome::Ok,
            Ok(response) if response.status().is_client_error() => UpstreamOutcome::Refused,
            Ok(_) | Err(PollFailure::Timeout | PollFailure::Broken) => UpstreamOutcome::Error,
            Err(PollFailure::KeyRefused) => UpstreamOutcome::Refused,
            Err(PollFailure::Unreached(_)) => UpstreamOutcome::NotSent,
        };
        let key_refused = matches!(response, Err(PollFailure::KeyRefused));
        // What becomes of a retired key says nothing of the one that pays.
        let is_current = self.gateway.upstream.key().id() == key.id();
        if is_current && (key_refused || outcome == UpstreamOutcome::Ok) {
            metrics.degrade(Degraded::UpstreamKey, key_refused);
        }
        let duration = begun.elapsed();
        metrics.upstream_request(UpstreamOperation::Poll, outcome, Some(duration));
        record.upstream(response.ok().map(Response::status), duration);
    }

    fn witness(&self, job: Arc<Job>, key: &str, rules: &Rules) -> Box<dyn Witness> {
        let gateway = &self.gateway;
        Box::new(Observer {
            by_its_key: *job.key == *key,
            job,
            ledger: gateway.dedup.ledger().clone(),
            metrics: gateway.telemetry.metrics.clone(),
            clock: gateway.clock.clone(),
            prices: rules.prices.clone(),
        })
    }
}

/// Reads along, so that an entry ends before its end is told (M21).
struct Observer {
    job: Arc<Job>,
    /// Whether it was asked about with the upstream key that made it.
    by_its_key: bool,
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    clock: Clock,
    prices: Arc<Prices>,
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
    if !is_known && observe::read(parts.status, &body) == Seen::Missing {
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
