//! A flight between its opening and its attempt. The ledger may take its time to decide, and the client may leave
//! meanwhile: what was claimed by then is given back, what was not is forgotten.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tracing::warn;

use super::{Dedup, Delivery};
use crate::admission::rate::Taken;
use crate::error::Error;
use crate::jobs::book::Ask;
use crate::jobs::entry::AttemptId;
use crate::jobs::flight::{Flight, Progress, Waiter};
use crate::jobs::ledger::{Admission, LedgerError, Request, Verdict};
use crate::request::fingerprint::Fingerprint;
use crate::upstream::outcome::{NotSent, Outcome};

/// See the module's page.
pub(super) struct Opened {
    dedup: Arc<Dedup>,
    fingerprint: Fingerprint,
    attempt: AttemptId,
    flight: Arc<Flight>,
    holds: Holds,
    /// What it has found instead, until that is on its way to the client.
    pub(super) adopted: Option<Delivery>,
}

/// What must be done about the ledger when the flight ends here.
enum Holds {
    Nothing,
    /// It was claimed, or may have been: it took this.
    Claim(Option<Box<Taken>>),
    /// An attempt has taken over.
    Handed,
}

impl Opened {
    /// Opens a flight, which can be found before its claim is made, and gives its first place.
    pub(super) fn begin(dedup: &Arc<Dedup>, ask: &Ask) -> (Self, Waiter) {
        let (flight, waiter) = dedup.flights.open(ask.attempt);
        flight.led_by(ask.asker.caller);
        let Ask { fingerprint, attempt, .. } = *ask;
        let (dedup, holds) = (dedup.clone(), Holds::Nothing);
        (Self { dedup, fingerprint, attempt, flight, holds, adopted: None }, waiter)
    }

    /// Asks the ledger. If it does not answer at once, the question goes on in a task of its own: the client may leave.
    pub(super) async fn admitted(self, request: &Request) -> Result<(Admission, Self), Error> {
        let Request { ask, who, charge, charged, closed } = request;
        let request =
            Request { ask: ask.clone(), who: *who, charge: charge.clone(), charged: *charged, closed: *closed };
        let dedup = self.dedup.clone();
        let mut asking = Box::pin(self.ask(request));
        let asked = match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
            Poll::Ready(asked) => asked,
            Poll::Pending => dedup.tasks.spawn(asking).await.map_err(|_| Error::Internal)?,
        };
        match asked {
            (Ok(admission), opened) => Ok((admission, opened)),
            (Err(LedgerError::Superseded | LedgerError::Unavailable), _) => Err(Error::LedgerUnavailable),
        }
    }

    async fn ask(mut self, request: Request) -> (Result<Admission, LedgerError>, Self) {
        let ledger = self.dedup.parts.ledger.clone();
        let mut admission = ledger.admit(&request).await;
        match &mut admission {
            Ok(Admission { verdict: Verdict::Claimed(taken), .. }) => {
                self.holds = Holds::Claim(Some(Box::new(std::mem::take(taken))));
            }
            Ok(Admission { verdict: Verdict::Hit(created, _), .. }) => {
                self.adopted = self.dedup.adopted(&request.ask, created);
            }
            Ok(_) => {}
            // The answer may have been lost, and not the question.
            Err(_) if ledger.lease().is_some() => self.holds = Holds::Claim(None),
            Err(_) => {}
        }
        (admission, self)
    }

    /// An attempt takes over: its flight, and what its claim took.
    pub(super) fn hand_over(mut self) -> (Arc<Flight>, Option<Taken>) {
        match std::mem::replace(&mut self.holds, Holds::Handed) {
            Holds::Claim(taken) => (self.flight.clone(), taken.map(|taken| *taken)),
            Holds::Nothing | Holds::Handed => (self.flight.clone(), None),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.holds, Holds::Handed) {
            Holds::Handed => {}
            Holds::Nothing => self.dedup.flights.close(self.attempt, &self.flight),
            Holds::Claim(taken) => {
                let (parts, flight) = (self.dedup.parts.clone(), self.flight.clone());
                let (fingerprint, attempt) = (self.fingerprint, self.attempt);
                let back = async move {
                    if parts.ledger.free(fingerprint, attempt, taken.map(|taken| *taken)).await.is_err() {
                        warn!(?attempt, "a claim that nobody waits for could not be freed in the ledger");
                    }
                    let outcome = Arc::new(Outcome::NotSent(NotSent::Left));
                    flight.land(outcome.clone(), parts.ledger.now());
                    _ = parts.ledger.tell(fingerprint, attempt, Progress::Landed(outcome)).await;
                };
                self.dedup.tasks.spawn_on(back, &self.dedup.keeper);
            }
        }
    }
}
