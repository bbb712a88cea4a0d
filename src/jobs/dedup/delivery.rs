//! Whether an answer reached its client: if not, the next equal keyless submission adopts the job (`MONEY.md` M15).

use std::sync::Arc;

use super::{Dedup, Waiting};
use crate::jobs::book::Ask;
use crate::jobs::entry::AttemptId;
use crate::request::fingerprint::Fingerprint;

/// Watches over an answer on its way to a keyless client; if it is dropped before it was taken, the next equal keyless
/// submission adopts the job.
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

impl Dedup {
    /// An answer that must reach its client, or be adopted by the next equal submission. Where only keys share, a keyless
    /// submission owes it for its own attempt, and for the one that it has adopted: that has a waiter again.
    pub fn delivery(self: &Arc<Self>, ask: &Ask, waiting: &Waiting) -> Option<Delivery> {
        let Waiting { fingerprint, attempt, .. } = *waiting;
        ask.base.map(|_| Delivery { dedup: self.clone(), fingerprint, attempt, taken: false })
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let (ledger, fingerprint, attempt) = (self.dedup.parts.ledger.clone(), self.fingerprint, self.attempt);
        let note = async move { _ = ledger.undelivered(fingerprint, attempt).await };
        self.dedup.tasks.spawn_on(note, &self.dedup.keeper);
    }
}
