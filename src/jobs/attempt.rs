//! One attempt to submit: the paid call, in a task of its own that no client's leaving can end (`MONEY.md` M1, M2, M6,
//! M12). The order of its steps is the protocol; nothing ambiguous is ever sent again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admission::pace::{NoSlot, Pace};
use crate::admission::rate::Taken;
use crate::bill::account::UserId;
use crate::clock::Clock;
use crate::error::{Doubt, Error};
use crate::jobs::book::Rank;
use crate::jobs::entry::{AttemptId, Caller, Created};
use crate::jobs::flight::Flight;
use crate::jobs::ledger::{Ledger, LedgerError, WRITE_PATIENCE};
use crate::jobs::records::Job;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::{Operation, RequestId};
use crate::telemetry::labels::{Degraded, SubmissionOutcome, UpstreamOperation, UpstreamOutcome};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::submission_count::SubmissionCount;
use crate::upstream::client::Upstream;
use crate::upstream::headers::Passed;
use crate::upstream::outcome::{self, Answer, NotSent, Outcome, Reply, Unanswered};
use crate::upstream::outgoing::SendBy;
use crate::upstream::paid::PaidConnection;
use crate::upstream::pressure::Pressure;

/// What is to be sent.
#[derive(Clone)]
pub struct Order {
    /// Where.
    pub operation: Operation,
    /// The body as it came; its memory is given back when it is sent, because the answer may be long in coming.
    pub body: Load,
    /// What of the client's headers goes along.
    pub passed: Passed,
    /// The client's request id, for the log.
    pub request_id: Arc<str>,
    /// The count of the submission that began it: it counts as what became of it, also if its client has left.
    pub count: Option<SubmissionCount>,
}

impl Order {
    fn settle(&self, outcome: SubmissionOutcome) {
        if let Some(count) = &self.count {
            count.settle(outcome);
        }
    }
}

/// A body that waits to be sent. Its clones share it: when it is taken to be sent, nobody else keeps it in memory.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<Mutex<Bytes>>);

impl From<Bytes> for Load {
    fn from(body: Bytes) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }
}

impl Load {
    /// All of it, once.
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.lock())
    }

    /// Whether it was taken; no submission is empty.
    pub fn is_taken(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the steps of an attempt may take, and how its answer is read.
#[derive(Clone, Debug)]
pub struct Terms {
    /// `upstream.late_answer`: from the send until the outcome is unknown.
    pub late_answer: Duration,
    /// `dedup.unknown_hold`: how long the answer is still read after that (M12).
    pub hold: Duration,
    /// `dedup.max_waiters`: submissions that may wait for one attempt.
    pub max_waiters: usize,
    /// Which answers leave the outcome in doubt (M17).
    pub rules: Arc<outcome::Rules>,
}

/// What ends attempts from outside.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The process is ending: what was not sent is not sent.
    pub draining: CancellationToken,
    /// And has no more time: what is in flight becomes unknown now.
    pub hurry: CancellationToken,
}

/// One attempt.
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its entry.
    pub fingerprint: Fingerprint,
    /// Whose it is.
    pub team: Arc<str>,
    /// The user within the team.
    pub user: UserId,
    /// Who asked first.
    pub caller: Caller,
    /// What it sends.
    pub order: Order,
    /// What it took from the limits.
    pub taken: Option<Taken>,
    /// Those who wait for it.
    pub flight: Arc<Flight>,
    /// Cancelled when its entry is another attempt's by now (M4).
    pub lost: CancellationToken,
    /// Its place among all attempts.
    pub berth: Berth,
    /// How it goes about it.
    pub terms: Terms,
    /// The parts it works with.
    pub parts: Parts,
}

/// An attempt's place among all that run at once.
pub struct Berth {
    /// `upstream.submissions`: given back when the outcome is known, or known to be unknown.
    pub slot: Option<OwnedSemaphorePermit>,
    /// Places for those that read on for a late answer.
    pub readers: Arc<Semaphore>,
}

/// What every attempt works with.
#[derive(Clone)]
pub struct Parts {
    /// Where entries are kept.
    pub ledger: Arc<dyn Ledger>,
    /// The API behind.
    pub upstream: Arc<Upstream>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// This machine's, for how long a step took. What is remembered goes by the ledger's time.
    pub clock: Clock,
    /// What ends attempts from outside.
    pub ending: Ending,
    /// The upstream's pace.
    pub pace: Arc<Pace>,
}

impl Attempt {
    /// Runs the attempt to its outcome, and past it while a late answer may still come.
    pub async fn run(mut self) {
        match self.depart().await {
            Err(not_sent) => {
                if matches!(not_sent, NotSent::Unreached(_)) {
                    self.parts.metrics.upstream_request(UpstreamOperation::Submit, UpstreamOutcome::NotSent, None);
                }
                self.give_up(not_sent).await;
            }
            Ok(connection) => self.fly(connection).await,
        }
    }

    /// Everything before the first byte: a connection for this call alone, then the ledger's word (M2).
    async fn depart(&self) -> Result<PaidConnection, NotSent> {
        let mut connection = tokio::select! {
            biased;
            () = self.parts.ending.draining.cancelled() => return Err(NotSent::Draining),
            () = self.lost.cancelled() => return Err(NotSent::Superseded),
            () = self.left() => return Err(NotSent::Left),
            connection = self.connect() => connection?,
        };
        let awaited = self.flight.is_deserted() && self.is_awaited_elsewhere().await;
        if !self.flight.depart(awaited) {
            return Err(NotSent::Left);
        }
        let issued = self.parts.clock.reading();
        match self.parts.ledger.sending(self.fingerprint, self.id).await {
            Ok(()) => {}
            Err(LedgerError::Superseded) => return Err(NotSent::Superseded),
            Err(LedgerError::Unavailable) => return Err(NotSent::Ledger),
        }
        // Where there may be a successor, nothing is waited for from here to the first byte (M3), unless something has come
        // on the connection already, and that is looked at.
        if let Some(lease) = self.parts.ledger.lease() {
            connection.send_by(SendBy { clock: self.parts.clock.clone(), issued, within: lease.send_by });
        }
        Ok(connection)
    }

    /// A slot of the upstream's pace, and then a connection for this call alone.
    async fn connect(&self) -> Result<PaidConnection, NotSent> {
        let slot = self.parts.pace.slot(&self.team, self.user).await;
        slot.map_err(|none| match none {
            NoSlot::TooLong { retry_after } => NotSent::Paced(retry_after),
            NoSlot::Unavailable => NotSent::Ledger,
        })?;
        self.parts.upstream.connect().await.map_err(NotSent::Unreached)
    }

    /// Resolves when nobody waits for it any more, here or in another replica (M6).
    async fn left(&self) {
        loop {
            self.flight.deserted().await;
            if self.is_awaited_elsewhere().await {
                tokio::time::sleep(BETWEEN_QUESTIONS).await;
            } else if self.flight.abandon() {
                return;
            }
        }
    }

    /// A ledger that does not say so says no: without it nothing could be sent anyway.
    async fn is_awaited_elsewhere(&self) -> bool {
        let awaited = tokio::time::timeout(WRITE_PATIENCE, self.parts.ledger.awaited(self.id)).await;
        matches!(awaited, Ok(Ok(true)))
    }

    /// Nothing was sent: everything is given back.
    async fn give_up(&mut self, not_sent: NotSent) {
        if self.parts.ledger.free(self.fingerprint, self.id, self.taken.take()).await.is_err() {
            warn!(attempt = ?self.id, "an attempt that was not sent could not be freed in the ledger");
        }
        // Whoever is told counts it, as what it is told.
        self.land(Outcome::NotSent(not_sent));
    }

    /// The call itself, and what comes of it.
    async fn fly(&mut self, connection: PaidConnection) {
        let sent = Instant::now();
        // Before anybody is told that it is sent.
        let body = self.order.body.take();
        self.flight.sent(sent);
        let key = connection.key().shared_id();
        let (operation, passed) = (self.order.operation, self.order.passed.clone());
        let mut call = Box::pin(async move { connection.send(operation, &passed, body).await });
        let answer = tokio::select! {
            answer = &mut call => Some(answer),
            () = tokio::time::sleep_until(sent + self.terms.late_answer) => None,
            () = self.parts.ending.hurry.cancelled() => None,
        };
        let metrics = self.parts.metrics.clone();
        let Some(answer) = answer else {
            metrics.upstream_request(UpstreamOperation::Submit, UpstreamOutcome::Unknown, Some(sent.elapsed()));
            self.doubt(Outcome::Unknown { doubt: Doubt::Silent, answer: None }).await;
            // Calls that nobody waits for any more do not keep others from being made; past a bound nobody reads for
            // them, and the hold stays.
            drop(self.berth.slot.take());
            if let Ok(_reader) = self.berth.readers.clone().try_acquire_owned() {
                self.read_on(call, &key).await;
            }
            return;
        };
        let outcome = outcome::classify(answer, &self.terms.rules);
        let label = match &outcome {
            Outcome::Created { .. } => UpstreamOutcome::Ok,
            Outcome::Refused(_) => UpstreamOutcome::Refused,
            Outcome::NotSent(_) => UpstreamOutcome::NotSent,
            Outcome::Unknown { .. } => UpstreamOutcome::Unknown,
        };
        metrics.upstream_request(UpstreamOperation::Submit, label, Some(sent.elapsed()));
        let key_refused = matches!(outcome, Outcome::Refused(Reply::Error(Error::UpstreamKeyRefused)));
        if key_refused || matches!(outcome, Outcome::Created { .. }) {
            metrics.degrade(Degraded::UpstreamKey, key_refused);
        }
        if matches!(outcome, Outcome::Created { .. }) {
            metrics.degrade(Degraded::UpstreamCredit, false);
        }
        match outcome {
            Outcome::Created { request_id, answer } => {
                self.keep(&request_id, &answer, &key).await;
                self.order.settle(SubmissionOutcome::Created);
                self.land(Outcome::Created { request_id, answer });
            }
            Outcome::Refused(reply) => {
                if self.parts.ledger.free(self.fingerprint, self.id, None).await.is_err() {
                    warn!(attempt = ?self.id, "a refused attempt could not be freed in the ledger");
                }
                self.heed(&reply);
                self.order.settle(SubmissionOutcome::RefusedUpstream);
                self.land(Outcome::Refused(reply));
            }
            Outcome::NotSent(not_sent) => self.give_up(not_sent).await,
            unknown @ Outcome::Unknown { .. } => self.doubt(unknown).await,
        }
    }

    /// A refusal may speak of all other submissions too (M27).
    fn heed(&self, reply: &Reply) {
        let Reply::Answer(answer) = reply else { return };
        match Pressure::of(answer) {
            Some(Pressure::TooFast(wait)) => self.parts.pace.slow_down(wait),
            Some(Pressure::NoCredit) => self.parts.metrics.degrade(Degraded::UpstreamCredit, true),
            None => {}
        }
    }

    /// Writes the id down before anybody is told (M7), but never withholds it (M8).
    async fn keep(&self, request_id: &RequestId, answer: &Answer, key: &Arc<str>) {
        let created = Created {
            job: request_id.clone(),
            answer: answer.body.clone(),
            // Whoever reads it compares it with the ledger's time.
            at: self.parts.ledger.now(),
            by: self.caller,
        };
        let (id, fingerprint, team) = (request_id.clone(), self.fingerprint, self.team.clone());
        let job = Arc::new(
            Job::new(id, self.id, fingerprint, team, key.clone(), created.at).asked_as(self.order.request_id.clone()),
        );
        match tokio::time::timeout(WRITE_PATIENCE, self.parts.ledger.accepted(job, created)).await {
            Ok(Ok(Rank::Current)) => {}
            Ok(Ok(Rank::Orphan)) => {
                info!(fingerprint = %fingerprint.short(), job = %request_id, "the job of a replaced attempt was kept as an orphan");
            }
            Ok(Err(_)) | Err(_) => {
                error!(%fingerprint, job = %request_id, "a paid job could not be written to the ledger");
            }
        }
    }

    /// The outcome is unknown: the ledger holds the twins, the waiters are told.
    async fn doubt(&self, outcome: Outcome) {
        if self.parts.ledger.unknown(self.fingerprint, self.id).await.is_err() {
            error!(fingerprint = %self.fingerprint, "an unknown outcome could not be written to the ledger");
        }
        warn!(
            fingerprint = %self.fingerprint.short(), request_id = %self.order.request_id,
            "the outcome of a submission is unknown: it may have been paid"
        );
        self.order.settle(SubmissionOutcome::Unknown);
        self.land(outcome);
    }

    /// A late answer still turns the hold into a hit; the connection is read until the hold ends (M12).
    async fn read_on(&self, call: impl Future<Output = Result<Answer, Unanswered>>, key: &Arc<str>) {
        let answer = tokio::select! {
            answer = call => answer,
            () = tokio::time::sleep(self.terms.hold) => return,
            () = self.parts.ending.draining.cancelled() => return,
        };
        match outcome::classify(answer, &self.terms.rules) {
            Outcome::Created { request_id, answer } => {
                self.keep(&request_id, &answer, key).await;
                info!(fingerprint = %self.fingerprint.short(), job = %request_id, "a late answer brought the job");
            }
            Outcome::Refused(_) => {
                let freed = self.parts.ledger.free(self.fingerprint, self.id, None).await;
                info!(fingerprint = %self.fingerprint.short(), freed = freed.is_ok(), "a late answer was a refusal");
            }
            Outcome::NotSent(_) | Outcome::Unknown { .. } => {}
        }
    }

    fn land(&self, outcome: Outcome) {
        self.flight.land(Arc::new(outcome), self.parts.ledger.now());
    }
}

/// How often it is asked whether somebody elsewhere still waits.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
