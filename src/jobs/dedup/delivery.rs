//! Whether an answer reached its client: if not, the next equal keyless submission adopts the job (`MONEY.md` M15).

use std::fmt;
use std::sync::Arc;

use super::{Dedup, Waiting};
use crate::jobs::book::Ask;
use crate::jobs::entry::{AttemptId, Created};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// Watches over an answer on its way to a keyless client; if it is dropped before it was taken, the next equal keyless
/// submission adopts the job.
pub struct Delivery {
    dedup: Arc<Dedup>,
    owed: Owed,
    taken: bool,
}

/// What must reach its client.
#[derive(Clone, Debug)]
enum Owed {
    /// What comes of an attempt.
    Attempt(Fingerprint, AttemptId),
    /// A job that is there.
    Job(RequestId),
}

impl Delivery {
    /// The last byte was taken.
    pub fn taken(mut self) {
        self.taken = true;
    }
}

impl Dedup {
    /// An answer that must reach its client, or be adopted by the next equal submission. Where only keys share, a keyless
    /// submission owes it for its own attempt, and for the one that it has adopted: that has a waiter again.
    pub fn delivery(self: &Arc<Self>, ask: &Ask, waiting: &Waiting) -> Option<Delivery> {
        let owed = Owed::Attempt(waiting.fingerprint, waiting.attempt);
        ask.base.map(|_| Delivery { dedup: self.clone(), owed, taken: false })
    }

    /// The same for a job that a keyless submission has adopted: if it is lost once more, it is adopted once more.
    pub(super) fn adopted(self: &Arc<Self>, ask: &Ask, created: &Created) -> Option<Delivery> {
        ask.base.map(|_| Delivery { dedup: self.clone(), owed: Owed::Job(created.job.clone()), taken: false })
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Delivery").field("owed", &self.owed).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let (ledger, owed) = (self.dedup.parts.ledger.clone(), self.owed.clone());
        let note = async move {
            let entry = match owed {
                Owed::Attempt(fingerprint, attempt) => Some((fingerprint, attempt)),
                Owed::Job(id) => ledger.job(&id).await.ok().flatten().map(|job| (job.fingerprint, job.attempt)),
            };
            if let Some((fingerprint, attempt)) = entry {
                _ = ledger.undelivered(fingerprint, attempt).await;
            }
        };
        self.dedup.tasks.spawn_on(note, &self.dedup.keeper);
    }
}
