//! The single flight of one attempt: those who wait for it, and what they are told. The paid call belongs to a task of
//! its own; a waiter that leaves only leaves (`MONEY.md` M5, M6).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Caller};
use crate::upstream::outcome::Outcome;

/// How long a landed flight is still found by a twin that was told to join it (M5).
const FOUND_AFTER_LANDING: Duration = Duration::from_secs(10);

/// How soon a waiter looks again at the earliest.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// How far an attempt has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Nothing was sent yet.
    Waiting,
    /// The first byte may have left at this moment.
    Sent(Instant),
    /// The outcome, the same for all.
    Landed(Arc<Outcome>),
}

/// One attempt, as its waiters see it.
#[derive(Debug)]
pub struct Flight {
    /// Whether the attempt runs in another replica.
    elsewhere: bool,
    crew: Mutex<Crew>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Crew {
    waiters: usize,
    /// Past the point where leaving ends it (M6).
    departed: bool,
    /// Given up before anything was sent, because all had left.
    abandoned: bool,
    landed: Option<Time>,
    /// Whose submission began it, if that was here.
    leader: Option<Caller>,
}

/// `dedup.max_waiters` wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Flight {
    fn new(elsewhere: bool) -> Arc<Self> {
        let crew = Crew { waiters: 0, departed: false, abandoned: false, landed: None, leader: None };
        Arc::new(Self { elsewhere, crew: Mutex::new(crew), progress: watch::Sender::new(Progress::Waiting) })
    }

    /// Whether the attempt runs in another replica.
    pub const fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Whose submission began it.
    pub fn led_by(&self, caller: Caller) {
        self.crew().leader = Some(caller);
    }

    /// How far it has come, as it goes on. A waiter that leaves may show the same value again.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A place beside the waiters.
    fn join(self: &Arc<Self>, max: usize) -> Result<Waiter, Full> {
        // An abandoned flight still lands, and tells whoever came too late that it made nothing.
        let mut crew = self.crew();
        if crew.waiters >= max {
            return Err(Full);
        }
        crew.waiters += 1;
        Ok(Waiter { flight: self.clone(), progress: self.progress.subscribe() })
    }

    /// Whether nobody waits here.
    pub fn is_deserted(&self) -> bool {
        self.crew().waiters == 0
    }

    /// The last moment before the send: from here on nothing cancels it. `false`: nobody waits, here or, by the caller's
    /// word, elsewhere, so nothing may be sent.
    pub fn depart(&self, awaited_elsewhere: bool) -> bool {
        let mut crew = self.crew();
        crew.abandoned |= crew.waiters == 0 && !awaited_elsewhere;
        crew.departed = !crew.abandoned;
        crew.departed
    }

    /// Gives it up before the send, unless somebody has come meanwhile. It still has to land.
    pub fn abandon(&self) -> bool {
        let mut crew = self.crew();
        crew.abandoned |= crew.waiters == 0 && !crew.departed;
        crew.abandoned
    }

    /// Resolves when all waiters of this process have left before the send; never after it.
    pub async fn deserted(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            {
                let crew = self.crew();
                if crew.waiters == 0 && !crew.departed {
                    return;
                }
            }
            // A waiter that leaves marks the channel as changed without changing the value.
            if progress.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The request is on its way. Whoever follows it alone has nothing to do about that, and is not woken for it: most
    /// submissions are waited for by their own client only.
    pub fn sent(&self, at: Instant) {
        self.progress.send_if_modified(|progress| {
            *progress = Progress::Sent(at);
            // Who comes from now on sees it.
            self.progress.receiver_count() > 1
        });
    }

    /// The outcome is known: everybody is told.
    pub fn land(&self, outcome: Arc<Outcome>, now: Time) {
        self.crew().landed = Some(now);
        self.progress.send_replace(Progress::Landed(outcome));
    }

    /// The outcome, if it is known.
    pub fn outcome(&self) -> Option<Arc<Outcome>> {
        match &*self.progress.borrow() {
            Progress::Landed(outcome) => Some(outcome.clone()),
            Progress::Waiting | Progress::Sent(_) => None,
        }
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place beside those who wait for an attempt; given up on drop.
#[derive(Debug)]
pub struct Waiter {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
}

impl Waiter {
    /// Whether the attempt runs in another replica.
    pub fn is_elsewhere(&self) -> bool {
        self.flight.is_elsewhere()
    }

    /// Whose submission began it, if that was here.
    pub fn leader(&self) -> Option<Caller> {
        self.flight.crew().leader
    }

    /// The outcome, or `None` if it did not come within `patience`, counted from the send or from now, whichever is
    /// later; before the send `queue` bounds the wait. `sent` is called once if it is heard that it is on its way; who waits
    /// alone may not hear of it.
    pub async fn outcome(&mut self, queue: Duration, patience: Duration, sent: impl FnOnce()) -> Option<Arc<Outcome>> {
        let mut sent = Some(sent);
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            let (deadline, look) = match &*self.progress.borrow_and_update() {
                // Sent unheard from now on, its patience would be over then.
                Progress::Waiting => (begun + queue, now + patience.max(SHORTEST_LOOK)),
                Progress::Sent(at) => {
                    if let Some(sent) = sent.take() {
                        sent();
                    }
                    let deadline = begun.max(*at) + patience;
                    (deadline, deadline)
                }
                Progress::Landed(outcome) => return Some(outcome.clone()),
            };
            if now >= deadline {
                return None;
            }
            match tokio::time::timeout_at(deadline.min(look), self.progress.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return None,
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let last = {
            let mut crew = self.flight.crew();
            crew.waiters = crew.waiters.saturating_sub(1);
            crew.waiters == 0 && !crew.departed
        };
        if last {
            self.flight.progress.send_modify(|_| {});
        }
    }
}

/// All flights of this process.
#[derive(Debug, Default)]
pub struct Flights {
    by_attempt: Mutex<HashMap<AttemptId, Arc<Flight>>>,
}

impl Flights {
    /// A new flight and its first waiter. It can be found before its claim is made, so that no twin misses it.
    pub fn open(&self, attempt: AttemptId) -> (Arc<Flight>, Waiter) {
        let (flight, waiter) = Self::crewed(false);
        self.map().insert(attempt, flight.clone());
        (flight, waiter)
    }

    /// A place beside the waiters of an attempt. If no flight of it is known here, a new one is begun, which the caller
    /// has to bring to its end by what the other replica tells.
    ///
    /// # Errors
    /// [`Full`].
    pub fn join(&self, attempt: AttemptId, max: usize) -> Result<(Waiter, Option<Arc<Flight>>), Full> {
        let mut map = self.map();
        if let Some(known) = map.get(&attempt).cloned() {
            drop(map);
            return known.join(max).map(|waiter| (waiter, None));
        }
        let (flight, waiter) = Self::crewed(true);
        map.insert(attempt, flight.clone());
        Ok((waiter, Some(flight)))
    }

    /// A flight with its first waiter.
    fn crewed(elsewhere: bool) -> (Arc<Flight>, Waiter) {
        let flight = Flight::new(elsewhere);
        flight.crew().waiters = 1;
        let waiter = Waiter { flight: flight.clone(), progress: flight.progress.subscribe() };
        (flight, waiter)
    }

    /// Forgets a flight that came to nothing.
    pub fn close(&self, attempt: AttemptId, flight: &Arc<Flight>) {
        let mut map = self.map();
        if map.get(&attempt).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            map.remove(&attempt);
        }
    }

    /// Forgets flights that landed a while ago.
    pub fn sweep(&self, now: Time) {
        self.map()
            .retain(|_, flight| flight.crew().landed.is_none_or(|landed| now.since(landed) < FOUND_AFTER_LANDING));
    }

    fn map(&self) -> MutexGuard<'_, HashMap<AttemptId, Arc<Flight>>> {
        self.by_attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
