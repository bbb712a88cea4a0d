//! An attempt whose task ends before it has told its outcome: it panicked, or its runtime ended under it. It may have been
//! sent, so its outcome is unknown: the ledger holds its twins, and whoever waits is told.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::error::Doubt;
use crate::jobs::attempt::Parts;
use crate::jobs::entry::AttemptId;
use crate::jobs::flight::Flight;
use crate::request::fingerprint::Fingerprint;
use crate::telemetry::labels::SubmissionOutcome;
use crate::telemetry::submission_count::SubmissionCount;
use crate::upstream::outcome::Outcome;

/// What an attempt leaves behind.
pub(super) struct Lost {
    pub(super) parts: Parts,
    pub(super) fingerprint: Fingerprint,
    pub(super) id: AttemptId,
    pub(super) flight: Arc<Flight>,
    pub(super) count: Option<SubmissionCount>,
}

impl Lost {
    /// Lands it as unknown, if it has not landed before.
    pub(super) async fn land(self) {
        let Self { parts, fingerprint, id, flight, count } = self;
        if flight.outcome().is_some() {
            return;
        }
        error!(%fingerprint, "the task of a paid call failed: its outcome is unknown");
        let written = parts.ledger.unknown(fingerprint, id).await;
        if let Some(count) = count {
            count.settle(SubmissionOutcome::Unknown);
        }
        flight.land(Arc::new(Outcome::Unknown { doubt: Doubt::Broken, answer: None }), parts.ledger.now());
        if written.is_err() {
            error!(%fingerprint, "an unknown outcome could not be written to the ledger");
        }
    }
}

/// Held by an attempt's task until that is over; if the task is dropped before, what is lost is landed on the keeper.
pub(super) struct Unlanded {
    /// `None` once the task is over.
    pub(super) lost: Option<Lost>,
    pub(super) tasks: TaskTracker,
    pub(super) keeper: Handle,
}

impl Unlanded {
    /// The task is over, in one way or the other.
    pub(super) const fn take(&mut self) -> Option<Lost> {
        self.lost.take()
    }
}

impl Drop for Unlanded {
    fn drop(&mut self) {
        // At the end of the process nobody waits any more, and what was on its way is held by the next start (M7).
        let is_alive = |lost: &Lost| !lost.parts.ending.hurry.is_cancelled();
        if let Some(lost) = self.lost.take().filter(is_alive) {
            self.tasks.spawn_on(lost.land(), &self.keeper);
        }
    }
}
