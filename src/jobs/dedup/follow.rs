//! Waiting here for an attempt of another replica: all who do share one flight, which one task brings to its end
//! (`MONEY.md` M5, M6).

use std::sync::Arc;

use super::Dedup;
use crate::error::Doubt;
use crate::jobs::entry::AttemptId;
use crate::jobs::flight::{Flight, Progress};
use crate::request::fingerprint::Fingerprint;
use crate::upstream::outcome::{NotSent, Outcome};

impl Dedup {
    /// Follows an attempt until it has landed, or nobody waits for it here.
    pub(super) async fn follow(self: Arc<Self>, fingerprint: Fingerprint, attempt: AttemptId, flight: Arc<Flight>) {
        let ended = tokio::select! {
            biased;
            // What it says is in the flight; an error says that nothing more can be learned.
            _ = self.parts.ledger.follow(fingerprint, attempt, flight.clone()) => None,
            () = left(&flight) => None,
            () = self.parts.ending.hurry.cancelled() => Some(self.cut_short(&flight)),
        };
        let ended = ended.or_else(|| flight.outcome().is_none().then_some(VOID));
        if let Some(outcome) = ended {
            flight.land(Arc::new(outcome), self.parts.ledger.now());
        }
        // Whoever is told to join it once more asks anew what becomes of it.
        if flight.outcome().is_none_or(|outcome| outcome.is_void()) {
            self.flights.close(attempt, &flight);
        }
    }

    /// This process has no more time: what is known of the attempt is all that its waiters here will know.
    fn cut_short(&self, flight: &Flight) -> Outcome {
        match *flight.progress().borrow() {
            Progress::Sent(_) => Outcome::Unknown { doubt: Doubt::Silent, answer: None },
            Progress::Waiting | Progress::Landed(_) => Outcome::NotSent(NotSent::Draining),
        }
    }
}

/// Resolves when all who waited here have left.
async fn left(flight: &Flight) {
    loop {
        flight.deserted().await;
        if flight.abandon() {
            return;
        }
    }
}

/// No outcome at all: whoever still waits asks for admission again.
const VOID: Outcome = Outcome::NotSent(NotSent::Superseded);
