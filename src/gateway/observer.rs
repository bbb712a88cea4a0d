//! Asking the upstream about a job, and reading what it says, for a client's poll and for our own look alike: the entry
//! is true before anybody is told (`MONEY.md` M19–M22).

use std::sync::Arc;
use std::time::Duration;

use hyper::{Response, StatusCode};
use tokio::time::Instant;
use tracing::debug;

use super::Gateway;
use crate::clock::Time;
use crate::jobs::entry::Turn;
use crate::jobs::observe::{Facts, Seen};
use crate::jobs::records::{End, Job, Life};
use crate::request::route::RequestId;
use crate::telemetry::labels::{Degraded, Unread, UpstreamOperation, UpstreamOutcome};
use crate::upstream::headers::Passed;
use crate::upstream::polls::{PollFailure, PolledBody, Polls};
use crate::upstream::relay::{Before, Witness};

/// Who asks, and over which connections.
pub(super) struct Asking<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) polls: &'a Arc<Polls>,
    pub(super) passed: &'a Passed,
    pub(super) operation: UpstreamOperation,
}

impl Asking<'_> {
    /// The upstream's answer, asked for with the key that made the job, as long as that is known and good. Each call is
    /// counted, and told to `called`.
    pub(super) async fn about(
        &self,
        id: &RequestId,
        job: Option<&Job>,
        mut called: impl FnMut(Option<StatusCode>, Duration),
    ) -> Result<Response<PolledBody>, PollFailure> {
        let upstream = &self.gateway.upstream;
        let mut key = self.polls.key(job.map(|job| &*job.key));
        loop {
            let begun = Instant::now();
            let answer = self.polls.get(&key, id, self.passed, begun).await;
            let duration = begun.elapsed();
            self.count(answer.as_ref(), key.id(), duration);
            called(answer.as_ref().ok().map(Response::status), duration);
            // A retired key is forgotten once, the one that pays never.
            if !matches!(answer, Err(PollFailure::KeyRefused)) || !upstream.forget_key(key.id()) {
                return answer;
            }
            key = self.polls.key(None);
        }
    }

    fn count(&self, answer: Result<&Response<PolledBody>, &PollFailure>, key: &str, duration: Duration) {
        let metrics = &self.gateway.telemetry.metrics;
        let outcome = match answer {
            Ok(answer) if answer.status().is_success() => UpstreamOutcome::Ok,
            Ok(answer) if answer.status().is_client_error() => UpstreamOutcome::Refused,
            Ok(_) | Err(PollFailure::Timeout | PollFailure::Broken) => UpstreamOutcome::Error,
            Err(PollFailure::KeyRefused) => UpstreamOutcome::Refused,
            Err(PollFailure::Unreached(_)) => UpstreamOutcome::NotSent,
        };
        let key_refused = matches!(answer, Err(PollFailure::KeyRefused));
        // What becomes of a retired key says nothing of the one that pays.
        if (key_refused || outcome == UpstreamOutcome::Ok)
            && metrics.is_degraded(Degraded::UpstreamKey) != key_refused
            && self.gateway.upstream.is_current(key)
        {
            metrics.degrade(Degraded::UpstreamKey, key_refused);
        }
        metrics.upstream_request(self.operation, outcome, Some(duration));
    }
}

/// What the observers of one worker have in common. They hold this, and not the gateway, whose holders all workers would
/// count in one place, for each poll.
pub(super) struct Observers {
    gateway: Arc<Gateway>,
}

impl Observers {
    pub(super) fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self { gateway })
    }

    /// An observer of an answer about `job` that came then and was asked for with the upstream key of this id.
    pub(super) fn of(self: &Arc<Self>, job: Arc<Job>, key: &str, came: Time) -> Box<dyn Witness> {
        Box::new(Observer { by_its_key: *job.key == *key, job, came, common: self.clone() })
    }
}

/// Reads along, so that an entry ends before its end is told (M21).
struct Observer {
    common: Arc<Observers>,
    job: Arc<Job>,
    /// When the answer's head came.
    came: Time,
    /// Whether it was asked about with the upstream key that made it.
    by_its_key: bool,
}

impl Witness for Observer {
    fn unread(&mut self, why: Unread) {
        self.common.gateway.telemetry.metrics.polls_unread.inc(why);
    }

    fn saw(&mut self, status: StatusCode, so_far: &[u8], _complete: bool) -> Option<Before> {
        let gateway = &self.common.gateway;
        let (turn, life, facts) = match gateway.reader.read(&self.job, status, so_far) {
            Seen::Nothing | Seen::KeyRefused => return None,
            Seen::Unfinished => {
                self.job.note_unfinished(self.came);
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
        let cost = facts.ticks.and_then(|ticks| gateway.rules.load().prices.of_ticks(ticks));
        let end = End { life, cost, length: facts.duration };
        let (job, gateway) = (self.job.clone(), gateway.clone());
        Some(Box::pin(async move {
            let id = job.id.clone();
            if let Err(error) = gateway.dedup.ledger().turned(job, turn, end).await {
                debug!(job = %id, %error, "a job's turn is not written yet");
            }
        }))
    }
}
