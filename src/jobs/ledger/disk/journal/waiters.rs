//! Those who wait for their change to be on the disk. Each is woken once, when its own commit is through: while many
//! submissions are on their way, most of them wait for the next one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::jobs::ledger::LedgerError;

/// What somebody is told: that a change is kept, or that it is not.
type Told = Result<(), LedgerError>;

/// Who waits for which change.
type Waiting = Vec<(u64, oneshot::Sender<Told>)>;

/// See the module's page. `None` once there is nobody who writes.
#[derive(Debug)]
pub(super) struct Waiters(Mutex<Option<Waiting>>);

impl Default for Waiters {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Waiters {
    /// A place for who waits for a change. How far the writing has come is to be looked at once more after this.
    pub(super) fn join(&self, change: u64) -> oneshot::Receiver<Told> {
        let (tell, told) = oneshot::channel();
        if let Some(waiting) = &mut *self.waiting() {
            waiting.push((change, tell));
        }
        told
    }

    /// All changes up to this number are on the disk.
    pub(super) fn kept(&self, upto: u64) {
        let done = match &mut *self.waiting() {
            Some(waiting) => waiting.extract_if(.., |(change, _)| *change <= upto).collect(),
            None => Vec::new(),
        };
        tell(done, Ok(()));
    }

    /// Writing has failed: whatever is not kept yet may never be.
    pub(super) fn failed(&self) {
        let all = self.waiting().as_mut().map(std::mem::take);
        tell(all.unwrap_or_default(), Err(LedgerError::Unavailable));
    }

    /// Nobody writes any more.
    pub(super) fn close(&self) {
        let all = self.waiting().take();
        tell(all.unwrap_or_default(), Err(LedgerError::Unavailable));
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock, since it wakes. Who has left meanwhile is told nothing.
fn tell(all: Waiting, told: Told) {
    for (_, waiter) in all {
        _ = waiter.send(told);
    }
}
