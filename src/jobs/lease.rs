//! What an attempt owes the other replicas while it runs: its lease, renewed in time (`MONEY.md` M4), and word of how far
//! it has come (M5). One task for each attempt, beside it, so that neither delays the call or those who wait here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::jobs::entry::AttemptId;
use crate::jobs::flight::{Flight, Progress};
use crate::jobs::ledger::{Lease, Ledger, LedgerError, WRITE_PATIENCE};
use crate::request::fingerprint::Fingerprint;

/// One attempt, as the other replicas see it.
pub struct Tenancy {
    /// Where they see it.
    pub ledger: Arc<dyn Ledger>,
    /// Its entry.
    pub fingerprint: Fingerprint,
    /// Its id.
    pub attempt: AttemptId,
    /// Those who wait for it here.
    pub flight: Arc<Flight>,
    /// What is to be renewed.
    pub lease: Lease,
    /// Cancelled when the entry is another attempt's before this one is on its way.
    pub lost: CancellationToken,
}

impl Tenancy {
    /// Renews the lease each third of it, and tells each step of the attempt's, until it has landed. What it tells is
    /// what its waiters here know already, and so what the ledger knows.
    pub async fn hold(self) {
        let mut progress = self.flight.progress();
        let mut told = Stage::Waiting;
        let mut renewal = Instant::now() + self.lease.length / 3;
        loop {
            let current = progress.borrow_and_update().clone();
            let stage = Stage::of(&current);
            if stage != told {
                self.tell(current).await;
                told = stage;
            }
            if stage == Stage::Landed {
                return;
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(renewal) => {
                    renewal = Instant::now() + self.renew(stage).await;
                }
            }
        }
    }

    /// Renews once; gives when to do so again.
    async fn renew(&self, stage: Stage) -> Duration {
        let third = self.lease.length / 3;
        match timeout(third, self.ledger.renew(self.fingerprint, self.attempt)).await {
            Ok(Ok(())) => third,
            Ok(Err(LedgerError::Superseded)) => {
                // Past the send its entry may lie beneath another's; it goes on, and so does its lease.
                if stage == Stage::Waiting {
                    self.lost.cancel();
                }
                third
            }
            Ok(Err(LedgerError::Unavailable)) | Err(_) => third / 4,
        }
    }

    async fn tell(&self, progress: Progress) {
        for _ in 0..TELLINGS {
            let step = self.ledger.tell(self.fingerprint, self.attempt, progress.clone());
            if matches!(timeout(WRITE_PATIENCE, step).await, Ok(Ok(()))) {
                return;
            }
            tokio::time::sleep(BETWEEN_TELLINGS).await;
        }
        warn!(attempt = ?self.attempt, "the other replicas could not be told how far an attempt has come");
    }
}

/// How far an attempt has come, without what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Sent,
    Landed,
}

impl Stage {
    const fn of(progress: &Progress) -> Self {
        match progress {
            Progress::Waiting => Self::Waiting,
            Progress::Sent(_) => Self::Sent,
            Progress::Landed(_) => Self::Landed,
        }
    }
}

/// How often a step is told until it is known to be heard; who does not hear it finds the entry as it stands.
const TELLINGS: u32 = 3;
const BETWEEN_TELLINGS: Duration = Duration::from_millis(100);
