//! What the parts of the ledger in Redis have in common: the link, what this replica remembers, and the way of a unit of
//! work through both.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::late::Pending;
use super::link::Link;
use super::mirror::Mirror;
use super::news::Listeners;
use super::script::{Command, Reply, Status};
use super::seal::Seal;
use super::work::{Context, Wanted, Work};
use crate::admission::rate::Limits;
use crate::bill::tab::Totals;
use crate::bill::terms::Terms;
use crate::clock::Time;
use crate::jobs::book::{Book, Bounds, Counts, Ends};
use crate::jobs::ledger::hot::Hot;
use crate::jobs::ledger::{Lease, LedgerError};
use crate::jobs::records::Job;
use crate::request::route::RequestId;

/// See the module's page.
pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) seal: Seal,
    pub(super) limits: Arc<Limits>,
    pub(super) bounds: ArcSwap<Bounds>,
    pub(super) terms: ArcSwap<Terms>,
    pub(super) lease: Lease,
    /// Hits that are served while Redis is away; it decides nothing else (M25).
    pub(super) hot: Hot,
    /// What hardly changes about jobs, for their polls.
    pub(super) jobs: Cache<RequestId, Arc<Job>>,
    /// Jobs whose clients' polls the others know of.
    pub(super) told_of_polls: Cache<RequestId, ()>,
    /// What this replica has written, to be put back if Redis forgets (M26).
    pub(super) mirror: Mirror,
    /// What could not be written yet.
    pub(super) pending: Pending,
    /// What is being written, whether somebody waits for it or not.
    pub(super) underway: TaskTracker,
    pub(super) listeners: Listeners,
    /// This replica's name among the waiters of an attempt.
    pub(super) replica: String,
    pub(super) totals: Mutex<HashMap<Arc<str>, Totals>>,
    pub(super) ends: Mutex<Ends>,
    pub(super) counts: ArcSwap<(Counts, usize)>,
    pub(super) sweeping: AtomicBool,
    /// Redis lives under another fingerprint key than this replica: nothing new is bought (M9).
    pub(super) estranged: AtomicBool,
    pub(super) runtime: Handle,
}

/// What goes along with a unit's command.
pub(super) type Dress<'a> = &'a (dyn Fn(&mut Command) + Sync);

/// Nothing does.
pub(super) const PLAIN: Dress<'static> = &|_| {};

impl Shared {
    pub(super) fn is_well(&self) -> bool {
        self.link.is_well() && !self.estranged.load(Ordering::Relaxed)
    }

    pub(super) fn context<'a>(&'a self, bounds: &'a Bounds) -> Context<'a> {
        Context { seal: &self.seal, windows: &bounds.windows, now: self.link.now() }
    }

    /// One step, in the epoch that this replica lives in; if Redis has forgotten, what is known here goes back first.
    pub(super) async fn run(&self, mut command: Command) -> Result<Reply, LedgerError> {
        command.replica.clone_from(&self.replica);
        for _ in 0..EPOCHS {
            let life = self.mirror.life();
            (command.epoch, command.last) = (life.epoch, life.last);
            let Some(reply) = self.link.run(command.clone()).await.map_err(unavailable)? else {
                self.arrive().await?;
                continue;
            };
            if let Some(stamp) = reply.stamped_as() {
                self.mirror.note_last(stamp);
            }
            if reply.status != Status::Epoch {
                return Ok(reply);
            }
            self.restore(reply.epoch).await?;
        }
        Err(LedgerError::Unavailable)
    }

    /// Asks all questions that a unit still has.
    pub(super) async fn look(&self, work: &mut Work) -> Result<(), LedgerError> {
        while let Some(question) = work.question() {
            let reply = self.run(question).await?;
            let bounds = self.bounds.load();
            work.seen(reply.values, &reply.members, self.context(&bounds));
        }
        Ok(())
    }

    /// A step of the book on what is `wanted`, until it meets the ledger as it has seen it.
    pub(super) async fn unit<T>(
        &self,
        wanted: Wanted,
        dress: Dress<'_>,
        step: impl Fn(&mut Book, Time, &Bounds) -> Result<T, LedgerError> + Sync,
    ) -> Result<T, LedgerError> {
        let mut work = Work::new(wanted);
        let mut is_counted = false;
        for _ in 0..TRIES {
            self.look(&mut work).await?;
            let bounds = **self.bounds.load();
            let context = self.context(&bounds);
            work.book.tab_mut().set_terms(self.terms.load_full());
            let result = step(&mut work.book, context.now, &bounds)?;
            let mut command = work.command(context);
            dress(&mut command);
            if command.is_idle() {
                return Ok(result);
            }
            let restored = self.mirror.restorations();
            let reply = self.run(command.clone()).await?;
            match reply.status {
                Status::Ok => {
                    self.wrote(&command, &reply);
                    // What is taken again is no second payment, and no second end.
                    if !std::mem::replace(&mut is_counted, true) {
                        self.count_seen(&work.book);
                    }
                    if restored == self.mirror.restorations() {
                        return Ok(result);
                    }
                    // Redis forgot meanwhile, and what was put back may be what stood before this step: it is taken again.
                    work = Work::new(work.wanted);
                }
                Status::Changed => work.again(reply.values, self.context(&bounds)),
                Status::Late => return Err(LedgerError::Superseded),
                _ => return Err(LedgerError::Unavailable),
            }
        }
        Err(LedgerError::Unavailable)
    }

    /// A unit was written: what it wrote is remembered here too.
    pub(super) fn wrote(&self, command: &Command, reply: &Reply) {
        let stamp = reply.stamped_as().unwrap_or_default();
        command.writes.iter().for_each(|write| self.mirror.note(write, stamp));
        for (count, sum) in command.counts.iter().zip(&reply.sums) {
            self.mirror.note_count(count, sum);
        }
    }

    /// What a unit that was written has seen of money, and of the ends of jobs.
    pub(super) fn count_seen(&self, book: &Book) {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).add(book.ends());
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        for (team, seen) in book.tab().totals() {
            let own = totals.entry(team.clone()).or_default();
            own.spent = own.spent.plus(seen.spent);
            own.returned = own.returned.plus(seen.returned);
            for (own, seen) in own.lost.iter_mut().zip(seen.lost) {
                *own = own.plus(seen);
            }
        }
    }
}

/// What the caller can do about a failure is the same for all.
pub(super) const fn unavailable(_: Failure) -> LedgerError {
    LedgerError::Unavailable
}

/// How often a unit is tried against others that change the same.
pub(super) const TRIES: usize = 16;
/// How often a step is tried against a Redis that is started anew and forgets.
const EPOCHS: usize = 6;
/// How long after an epoch's birth nothing is claimed: the other replicas put back what they know (M26).
pub(super) const SETTLE: Duration = Duration::from_millis(500);
