//! One job for identical prompts: admits a submission, gives it a hit, a place beside its twin, or an attempt of its own,
//! whose paid call runs in a tracked task that outlives the client.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::admission::headers::Standing;
use crate::admission::rate::Taken;
use crate::clock::Time;
use crate::error::{Doubt, Error};
use crate::jobs::attempt::{Attempt, Order, Parts, Terms};
use crate::jobs::book::Ask;
use crate::jobs::entry::{AttemptId, Created};
use crate::jobs::flight::{Flight, Flights, NoPlace, Waiter};
use crate::jobs::ledger::{Closed, Ledger, LedgerError, Request, Verdict};
use crate::request::fingerprint::Fingerprint;
use crate::telemetry::labels::SubmissionOutcome;
use crate::upstream::outcome::Outcome;

/// The single flights of this process over its ledger.
pub struct Dedup {
    parts: Parts,
    flights: Flights,
    /// `upstream.submissions`: attempts at once.
    slots: Arc<Semaphore>,
    /// The runtime of the paid tasks, apart from everything that can be slow.
    paid: Handle,
    tasks: TaskTracker,
}

/// What a submission got.
#[derive(Debug)]
pub enum Place {
    /// The job, for that much longer.
    Hit(Created, Time),
    /// A place beside those who wait for an attempt.
    Waiting {
        /// The place.
        waiter: Waiter,
        /// The attempt.
        attempt: AttemptId,
        /// Whether the attempt is this submission's own.
        part: Part,
    },
}

/// Whose attempt a submission waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its own; the attempt counts its outcome.
    Leader,
    /// A twin's.
    Joiner,
}

impl Dedup {
    /// Nothing in flight yet. At most `submissions` attempts run at once, on `paid`.
    pub fn new(parts: Parts, submissions: usize, paid: Handle) -> Self {
        let slots = Arc::new(Semaphore::new(submissions.min(Semaphore::MAX_PERMITS)));
        Self { parts, flights: Flights::default(), slots, paid, tasks: TaskTracker::new() }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.parts.ledger
    }

    /// Admits a submission; if it becomes an attempt, `order` is what that sends.
    ///
    /// # Errors
    /// What refuses it; nothing was sent then.
    pub async fn admit(
        &self,
        request: &mut Request,
        order: &Order,
        terms: &Terms,
        standing: &mut Standing,
    ) -> Result<Place, Error> {
        let slot = self.slots.clone().try_acquire_owned().ok();
        request.closed = match &slot {
            _ if self.parts.ending.draining.is_cancelled() => Some(Closed::Draining),
            None => Some(Closed::Busy),
            Some(_) => None,
        };
        let attempt = request.ask.attempt;
        let (flight, waiter) = self.flights.open(attempt);
        let admission = self.parts.ledger.admit(request).await.inspect_err(|_| self.flights.close(attempt));
        let admission = admission.map_err(|error| match error {
            LedgerError::Superseded | LedgerError::Unavailable => Error::LedgerUnavailable,
        })?;
        request.charged = true;
        *standing = standing.then(admission.standing);
        if let Verdict::Claimed(taken) = admission.verdict {
            let Some(slot) = slot else { return Err(Error::Internal) };
            self.start(&request.ask, order.clone(), taken, flight, terms.clone(), slot);
            return Ok(Place::Waiting { waiter, attempt, part: Part::Leader });
        }
        self.flights.close(attempt);
        match admission.verdict {
            Verdict::Hit(created, until) => Ok(Place::Hit(created, until)),
            Verdict::Join { attempt, .. } => match self.flights.join(attempt, terms.max_waiters) {
                Ok(waiter) => Ok(Place::Waiting { waiter, attempt, part: Part::Joiner }),
                Err(NoPlace::Full) => Err(Error::Overloaded { what: "dedup.max_waiters" }),
                Err(NoPlace::Gone) => Err(Error::Overloaded { what: "an attempt that just ended" }),
            },
            Verdict::Held(retry_after) => Err(Error::OutcomeUnknown { doubt: Doubt::Held, retry_after }),
            Verdict::KeyReused => Err(Error::IdempotencyKeyReused),
            Verdict::Limited(refusal) => {
                let refusal = refusal.after(standing);
                *standing = refusal.standing;
                Err(Error::from(&refusal))
            }
            Verdict::Exhausted(exhausted) => Err(Error::from(exhausted)),
            Verdict::Closed(Closed::Draining) => Err(Error::Draining),
            Verdict::Closed(Closed::Busy) => Err(Error::Overloaded { what: "upstream.submissions" }),
            Verdict::Closed(Closed::Ledger) => Err(Error::LedgerUnavailable),
            Verdict::Full => Err(Error::Overloaded { what: "dedup.max_entries" }),
            Verdict::Claimed(_) => Err(Error::Internal),
        }
    }

    /// Starts the attempt in a task of its own. Should it panic, its outcome is unknown (`CRATES.md` T1).
    fn start(
        &self,
        ask: &Ask,
        order: Order,
        taken: Taken,
        flight: Arc<Flight>,
        terms: Terms,
        slot: OwnedSemaphorePermit,
    ) {
        let (id, fingerprint) = (ask.attempt, ask.fingerprint);
        let (parts, count) = (self.parts.clone(), order.count.clone());
        let attempt = Attempt {
            id,
            fingerprint,
            team: ask.team.clone(),
            caller: ask.asker.caller,
            order,
            taken: Some(taken),
            flight: flight.clone(),
            terms,
            parts: parts.clone(),
        };
        let run = self.tasks.spawn_on(attempt.run(), &self.paid);
        let watch = async move {
            let _slot = slot;
            if run.await.is_err() {
                error!(%fingerprint, "the task of a paid call failed: its outcome is unknown");
                let written = parts.ledger.unknown(fingerprint, id).await;
                if let Some(count) = count {
                    count.settle(SubmissionOutcome::Unknown);
                }
                let outcome = Outcome::Unknown { doubt: Doubt::Broken, answer: None };
                flight.land(Arc::new(outcome), parts.clock.now());
                if written.is_err() {
                    error!(%fingerprint, "an unknown outcome could not be written to the ledger");
                }
            }
        };
        self.tasks.spawn_on(watch, &self.paid);
    }

    /// A caller was told that an outcome is unknown (M14).
    pub async fn doubted(&self, ask: &Ask, attempt: AttemptId) {
        // Without the ledger the hold itself still stands; only its last minute is less exact.
        _ = self.parts.ledger.doubted(ask.fingerprint, attempt, ask.asker.caller).await;
    }

    /// An answer that must reach its client, or be adopted by the next equal submission (M15).
    /// An attempt's own submission owes it; one that joined has adopted it already.
    pub fn delivery(self: &Arc<Self>, ask: &Ask, attempt: AttemptId, part: Part) -> Option<Delivery> {
        ask.base.filter(|_| part == Part::Leader).map(|_| Delivery {
            dedup: self.clone(),
            fingerprint: ask.fingerprint,
            attempt,
            taken: false,
        })
    }

    /// Drops what time has ended.
    pub fn sweep(&self) {
        self.parts.ledger.sweep();
        self.flights.sweep(self.parts.clock.now());
    }

    /// Ends: what was not sent is given back at once; what was is waited for, `grace` at most, then its outcome is unknown.
    pub async fn drain(&self, grace: Duration) {
        self.parts.ending.draining.cancel();
        self.tasks.close();
        let waited = tokio::select! {
            () = self.tasks.wait() => true,
            () = tokio::time::sleep(grace) => false,
            () = self.parts.ending.hurry.cancelled() => false,
        };
        if !waited {
            self.parts.ending.hurry.cancel();
            _ = tokio::time::timeout(LAST_WRITES, self.tasks.wait()).await;
        }
        if !matches!(tokio::time::timeout(LAST_WRITES, self.parts.ledger.flush()).await, Ok(Ok(()))) {
            error!("the ledger did not take everything at the end");
        }
    }
}

/// How long a hurried end waits for the ledger to take what is unknown.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Watches over an answer on its way to a keyless client; if it is dropped before it was taken, the next equal keyless
/// submission adopts the job (M15).
pub struct Delivery {
    dedup: Arc<Dedup>,
    fingerprint: Fingerprint,
    attempt: AttemptId,
    taken: bool,
}

impl Delivery {
    /// The last byte was taken.
    pub fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let (ledger, fingerprint, attempt) = (self.dedup.parts.ledger.clone(), self.fingerprint, self.attempt);
        let note = async move { _ = ledger.undelivered(fingerprint, attempt).await };
        self.dedup.tasks.spawn_on(note, &self.dedup.paid);
    }
}
