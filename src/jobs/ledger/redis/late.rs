//! Steps that must be taken, sooner or later: whoever waits for one may leave, and what could not be written is written when
//! Redis is back (`MONEY.md` M8, M12, M21).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info};

use super::shared::Shared;
use crate::admission::rate::Taken;
use crate::jobs::entry::{AttemptId, Created, Turn};
use crate::jobs::ledger::LedgerError;
use crate::jobs::records::{End, Job};
use crate::request::fingerprint::Fingerprint;

/// What could not be written, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    steps: VecDeque<Late>,
    /// Whether the first is being taken just now.
    taking: bool,
}

/// A step that is still to be taken.
#[derive(Debug)]
pub(super) enum Late {
    Accepted(Arc<Job>, Created),
    Unknown(Fingerprint, AttemptId),
    Free(Fingerprint, AttemptId, Option<Box<Taken>>),
    Turned(Arc<Job>, Turn, End),
}

impl Late {
    /// What holds here until it is written.
    fn meanwhile(&self) -> Meanwhile {
        match self {
            Self::Accepted(job, created) => Meanwhile::Served(job.clone(), created.clone()),
            Self::Turned(job, turn, _) if !matches!(turn, Turn::Done(_) | Turn::Refused) => {
                Meanwhile::Over(job.fingerprint)
            }
            Self::Turned(..) | Self::Unknown(..) | Self::Free(..) => Meanwhile::AsBefore,
        }
    }
}

/// What holds here until a step is written.
enum Meanwhile {
    /// The twins of a job are served from here.
    Served(Arc<Job>, Created),
    /// They are not any more.
    Over(Fingerprint),
    AsBefore,
}

impl Pending {
    /// To be taken when Redis is back.
    pub(super) fn push(&self, late: Late) {
        let mut queue = self.queue();
        if queue.steps.len() >= MOST_PENDING {
            error!(?late, "too much waits for redis: this step of the ledger is lost");
            return;
        }
        queue.steps.push_back(late);
    }

    /// Whether nothing waits, and nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        let queue = self.queue();
        queue.steps.is_empty() && !queue.taking
    }

    /// The first; none: nothing is on its way any more.
    fn pop(&self) -> Option<Late> {
        let mut queue = self.queue();
        let first = queue.steps.pop_front();
        queue.taking = first.is_some();
        first
    }

    fn put_back(&self, late: Late) {
        let mut queue = self.queue();
        queue.taking = false;
        queue.steps.push_front(late);
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step that waits for Redis unless it is known to be written. If its answer was lost it may have been taken or not: to
/// take it again does no harm.
pub(super) struct Owed {
    shared: Arc<Shared>,
    late: Option<Late>,
}

impl Owed {
    /// What it gives back to the limits.
    pub(super) fn taken(&self) -> Option<&Taken> {
        match &self.late {
            Some(Late::Free(_, _, taken)) => taken.as_deref(),
            Some(Late::Accepted(..) | Late::Unknown(..) | Late::Turned(..)) | None => None,
        }
    }

    /// It is written. Gives the step.
    pub(super) fn written(mut self) -> Option<Late> {
        self.late.take()
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Some(late) = self.late.take() else { return };
        self.shared.hold(late.meanwhile());
        self.shared.pending.push(late);
    }
}

/// Whoever waits for a step that goes on without it.
struct Waiter<'a> {
    shared: &'a Shared,
    meanwhile: Meanwhile,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.hold(std::mem::replace(&mut self.meanwhile, Meanwhile::AsBefore));
    }
}

impl Shared {
    /// From here on the step is taken later if it is not now.
    pub(super) fn owe(self: &Arc<Self>, late: Late) -> Owed {
        Owed { shared: self.clone(), late: Some(late) }
    }

    /// Takes a step in a task of its own: were it dropped while its write is with Redis, to take it again would find nothing
    /// to do, and what it wrote would be known nowhere here. Beyond so many tasks it is taken later.
    pub(super) async fn see_through<T: Send + 'static>(
        self: &Arc<Self>,
        late: Late,
        step: impl Future<Output = Result<T, LedgerError>> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let mut waiter = Waiter { shared: self, meanwhile: late.meanwhile() };
        let owed = self.owe(late);
        if !self.has_room_underway() {
            return Err(LedgerError::Unavailable);
        }
        let step = async move {
            let done = step.await?;
            owed.written();
            Ok(done)
        };
        let done = self.underway.spawn_on(step, &self.runtime).await;
        waiter.meanwhile = Meanwhile::AsBefore;
        done.unwrap_or(Err(LedgerError::Unavailable))
    }

    /// Whether there is room for one more task.
    pub(super) fn has_room_underway(&self) -> bool {
        self.underway.len() < MOST_UNDERWAY
    }

    fn hold(&self, meanwhile: Meanwhile) {
        match meanwhile {
            Meanwhile::Served(job, created) => {
                let until = created.at + self.bounds.load().windows.delivery;
                self.hot.insert(job.fingerprint, created, until);
                self.jobs.insert(job.id.clone(), job);
            }
            Meanwhile::Over(fingerprint) => self.hot.remove(&fingerprint),
            Meanwhile::AsBefore => {}
        }
    }

    /// What was taken from limits that this replica counts alone comes back.
    pub(super) fn give_back_here(&self, mut taken: Taken) {
        taken.remote.clear();
        self.limits.give_back(taken);
    }

    /// Takes the steps that wait, in their order, for ever.
    pub(super) async fn catch_up(self: Arc<Self>) {
        loop {
            sleep(BETWEEN_TRIES).await;
            self.notice_a_new_epoch().await;
            let mut taken = 0_u32;
            while let Some(mut late) = self.pending.pop() {
                if self.take(&mut late).await.is_err() {
                    self.pending.put_back(late);
                    break;
                }
                taken += 1;
            }
            if taken > 0 {
                info!(steps = taken, "what waited for redis is written");
            }
        }
    }

    async fn take(&self, late: &mut Late) -> Result<(), LedgerError> {
        let result = match late {
            Late::Accepted(job, created) => self.accepted(job, created).await.map(drop),
            Late::Unknown(fingerprint, attempt) => self.unknown(*fingerprint, *attempt).await,
            Late::Free(fingerprint, attempt, back) => {
                let freed = self.free(*fingerprint, *attempt, back.as_deref()).await;
                if freed.is_ok()
                    && let Some(taken) = back.take()
                {
                    self.give_back_here(*taken);
                }
                freed
            }
            Late::Turned(job, turn, end) => self.turned(job, *turn, *end).await.map(drop),
        };
        // What another attempt has overtaken is over.
        result.or_else(|error| if error == LedgerError::Superseded { Ok(()) } else { Err(error) })
    }
}

/// A queue longer than this is lost anyway.
const MOST_PENDING: usize = 100_000;
/// How many steps are under way at a time: many more than Redis leaves open while it answers at all.
const MOST_UNDERWAY: usize = 10_000;
/// A fifth of the time that a new epoch waits for everybody.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
