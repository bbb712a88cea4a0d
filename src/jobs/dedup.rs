//! One job for identical prompts: admits a submission, gives it a hit, a place beside its twin, or an attempt of its own,
//! whose paid call runs in a tracked task that outlives the client. It runs where it was asked for: handing it and its
//! outcome to and fro between two threads costs more than the client's own request does.

mod delivery;
mod follow;
mod lost;
mod opened;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::admission::headers::Standing;
use crate::clock::Time;
use crate::error::{Doubt, Error};
use crate::jobs::attempt::{Attempt, Berth, Order, Parts, Terms};
use crate::jobs::book::Ask;
use crate::jobs::entry::{AttemptId, Caller, Created};
use crate::jobs::flight::{Flights, Full, Waiter};
use crate::jobs::lease::Tenancy;
use crate::jobs::ledger::{Closed, Ledger, Request, Verdict};
use crate::panics::{Panicked, caught};
use crate::request::fingerprint::Fingerprint;
use lost::{Lost, Unlanded};
use opened::Opened;

pub use delivery::Delivery;

/// The single flights of this process over its ledger.
pub struct Dedup {
    parts: Parts,
    flights: Flights,
    /// `upstream.submissions`: attempts at once.
    slots: Arc<Semaphore>,
    /// As many again may read for a late answer, past the point where their outcome is unknown.
    readers: Arc<Semaphore>,
    /// The runtime of what belongs to no worker: leases, and what is left to do when a client has gone.
    keeper: Handle,
    tasks: TaskTracker,
}

/// What a submission got.
#[derive(Debug)]
pub enum Place {
    /// The job, until then; where it was adopted, it must reach its client (M15).
    Hit(Created, Time, Option<Delivery>),
    /// A place beside those who wait for an attempt.
    Waiting(Waiting),
}

/// A place beside those who wait for an attempt.
#[derive(Debug)]
pub struct Waiting {
    /// The place.
    pub waiter: Waiter,
    /// The fingerprint of the entry, which need not be the one that was asked for (M15).
    pub fingerprint: Fingerprint,
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether it is this submission's own.
    pub part: Part,
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
    /// Nothing in flight yet. At most `submissions` attempts run at once, each in the runtime that it is asked for in;
    /// that must not end before [`Dedup::drain`] has.
    pub fn new(parts: Parts, submissions: usize, keeper: Handle) -> Self {
        let places = || Arc::new(Semaphore::new(submissions.min(Semaphore::MAX_PERMITS)));
        let (slots, readers) = (places(), places());
        Self { parts, flights: Flights::default(), slots, readers, keeper, tasks: TaskTracker::new() }
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
        self: &Arc<Self>,
        request: &mut Request,
        order: &Order,
        terms: &Terms,
        standing: &mut Standing,
    ) -> Result<Place, Error> {
        let slot = self.slot().await;
        request.closed = match &slot {
            _ if self.parts.ending.draining.is_cancelled() => Some(Closed::Draining),
            None => Some(Closed::Busy),
            Some(_) => None,
        };
        let Ask { fingerprint, attempt, .. } = request.ask;
        let (opened, waiter) = Opened::begin(self, &request.ask);
        let (admission, mut opened) = opened.admitted(request).await?;
        request.charged = true;
        *standing = standing.then(admission.standing);
        match admission.verdict {
            Verdict::Claimed(_) => {
                let slot = slot.ok_or(Error::Internal)?;
                self.start(request, opened, order.clone(), terms.clone(), slot);
                Ok(Place::Waiting(Waiting { waiter, fingerprint, attempt, part: Part::Leader }))
            }
            Verdict::Hit(created, until) => Ok(Place::Hit(created, until, opened.adopted.take())),
            Verdict::Join { fingerprint, attempt } => self.join(fingerprint, attempt, terms.max_waiters),
            Verdict::Held(retry_after) => Err(Error::OutcomeUnknown { doubt: Doubt::Held, retry_after }),
            Verdict::KeyReused => Err(Error::IdempotencyKeyReused),
            Verdict::Limited(refusal) => {
                let refusal = refusal.after(standing);
                *standing = *refusal.standing;
                Err(Error::from(&refusal))
            }
            Verdict::Exhausted(exhausted) => Err(Error::from(exhausted)),
            Verdict::Closed(Closed::Draining) => Err(Error::Draining),
            Verdict::Closed(Closed::Busy) => Err(Error::Overloaded { what: "upstream.submissions" }),
            Verdict::Closed(Closed::Ledger) => Err(Error::LedgerUnavailable),
            Verdict::Full => Err(Error::Overloaded { what: "dedup.max_entries" }),
        }
    }

    /// A place beside those who wait for an attempt; if that runs in another replica, it is followed from here on.
    fn join(self: &Arc<Self>, fingerprint: Fingerprint, attempt: AttemptId, max: usize) -> Result<Place, Error> {
        let (waiter, begun) = match self.flights.join(attempt, max) {
            Ok(joined) => joined,
            Err(Full) => return Err(Error::Overloaded { what: "dedup.max_waiters" }),
        };
        if let Some(flight) = begun {
            self.tasks.spawn_on(self.clone().follow(fingerprint, attempt, flight), &self.keeper);
        }
        Ok(Place::Waiting(Waiting { waiter, fingerprint, attempt, part: Part::Joiner }))
    }

    /// A place for an attempt, if there is one. Where the ledger is asked over a network, each who asks holds one for that
    /// moment, and most only join or hit: so it is worth a moment's wait.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = self.slots.clone();
        match slots.clone().try_acquire_owned() {
            Ok(slot) => Some(slot),
            Err(_) if self.parts.ledger.lease().is_none() => None,
            Err(_) => tokio::time::timeout(SLOT_PATIENCE, slots.acquire_owned()).await.ok()?.ok(),
        }
    }

    /// Starts the attempt in a task of its own. Should it panic, or its runtime end under it, its outcome is unknown
    /// (`CRATES.md` T1).
    fn start(&self, request: &Request, opened: Opened, order: Order, terms: Terms, slot: OwnedSemaphorePermit) {
        let ask = &request.ask;
        let (id, fingerprint) = (ask.attempt, ask.fingerprint);
        let (parts, count) = (self.parts.clone(), order.count.clone());
        let (flight, taken) = opened.hand_over();
        let lost = CancellationToken::new();
        if let Some(lease) = parts.ledger.lease() {
            let (ledger, flight, lost) = (parts.ledger.clone(), flight.clone(), lost.clone());
            let tenancy = Tenancy { ledger, fingerprint, attempt: id, flight, lease, lost };
            self.tasks.spawn_on(tenancy.hold(), &self.keeper);
        }
        let attempt = Attempt {
            id,
            fingerprint,
            team: ask.team.clone(),
            user: request.charge.user,
            caller: ask.asker.caller,
            order,
            taken,
            flight: flight.clone(),
            lost,
            berth: Berth { slot: Some(slot), readers: self.readers.clone() },
            terms,
            parts: parts.clone(),
        };
        let left = Lost { parts, fingerprint, id, flight, count };
        let mut unlanded = Unlanded { lost: Some(left), tasks: self.tasks.clone(), keeper: self.keeper.clone() };
        // Boxed here, because a task's future is moved several times on its way, and copied once more when it is done.
        let mut running = Box::pin(attempt.run());
        self.tasks.spawn(async move {
            let ended = caught(running.as_mut()).await;
            if let (Err(Panicked), Some(lost)) = (ended, unlanded.take()) {
                lost.land().await;
            }
        });
    }

    /// A caller was told that an outcome is unknown (M14).
    pub async fn doubted(&self, fingerprint: Fingerprint, attempt: AttemptId, caller: Caller) {
        // Without the ledger the hold itself still stands; only its last minute is less exact.
        _ = self.parts.ledger.doubted(fingerprint, attempt, caller).await;
    }

    /// Drops what time has ended.
    pub fn sweep(&self) {
        self.parts.ledger.sweep();
        self.flights.sweep(self.parts.ledger.now());
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

/// How long a submission waits for a place that others hold only while they ask.
const SLOT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a hurried end waits for the ledger to take what is unknown.
const LAST_WRITES: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
