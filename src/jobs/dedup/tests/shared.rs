//! A ledger that replicas share, in memory: the book, with leases over it (`MONEY.md` M4), news of attempts and their
//! waiters elsewhere. Its time is an argument. It can be broken on purpose, to show that the tests see it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;

use crate::admission::headers::Standing;
use crate::admission::rate::{Refusal, Taken};
use crate::bill::statement::Statement;
use crate::bill::tab::Totals;
use crate::bill::terms::Terms;
use crate::clock::{Clock, Time};
use crate::jobs::book::{Ask, Book, Bounds, Counts, Ended, Ends, Found, Rank};
use crate::jobs::entry::{AttemptId, Caller, Created, Look, State, Turn, Windows};
use crate::jobs::flight::{Flight, Progress};
use crate::jobs::ledger::{Admission, Closed, Lease, Ledger, LedgerError, Preview, Request, Step, Verdict};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, Page};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job};
use crate::request::client::Who;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::upstream::outcome::{Answer, NotSent, Outcome};

pub(super) const LEASE: Lease = Lease { length: Duration::from_secs(3), send_by: Duration::from_secs(1) };
pub(super) const BOUNDS: Bounds = Bounds {
    windows: Windows {
        delivery: Duration::from_secs(23 * 3600),
        hold: Duration::from_secs(8),
        refusal: Duration::from_secs(600),
    },
    max_entries: 1000,
    max_jobs: 1000,
};

/// Which rule is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Nothing,
    /// M1: what an attempt frees need not be its own.
    FreeWithoutCompare,
    /// M3: the first byte may leave at any time after the compare-and-set.
    NoGate,
    /// M4: `claimed → sending` looks neither at the attempt nor at its lease.
    SendingWithoutCompare,
    /// M4: a lapsed `sending` reads as free.
    LapsedSendingIsFree,
    /// M12: an outcome that comes after the lease has lapsed is not written.
    LateOutcomesAreDropped,
    /// M16: an idempotency key is forgotten with a lapsed attempt that was sent.
    LapsedKeysAreFree,
}

/// What all replicas see.
pub(super) struct Shared {
    pub(super) book: Book,
    leases: HashMap<AttemptId, (Fingerprint, Time)>,
    news: HashMap<AttemptId, Progress>,
    pub(super) waiting: HashMap<AttemptId, HashSet<u8>>,
    pub(super) broken: Broken,
}

impl Shared {
    pub(super) fn new(broken: Broken) -> Self {
        let (leases, news, waiting) = <_>::default();
        Self { book: Book::default(), leases, news, waiting, broken }
    }

    /// Reads what has lapsed as what it means: `claimed` is free, `sending` is unknown since the lease's end.
    pub(super) fn lapse(&mut self, now: Time) {
        let windows = &BOUNDS.windows;
        let lapsed: Vec<_> = self.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(a, l)| (*a, *l)).collect();
        for (attempt, (fingerprint, end)) in lapsed {
            self.leases.remove(&attempt);
            let is_sent = self.state_of(fingerprint, attempt) == Some(State::Sending);
            match is_sent && self.broken != Broken::LapsedSendingIsFree {
                true if self.broken == Broken::LapsedKeysAreFree => {
                    // The book settles keys with the entry, so the entry is put back without them.
                    self.book.free(fingerprint, attempt, windows);
                    let ask = Ask { key: None, ..ask(fingerprint, attempt) };
                    self.book.claim(&ask, end, &BOUNDS);
                    self.book.unknown(fingerprint, attempt, end, windows);
                }
                true => self.book.unknown(fingerprint, attempt, end, windows),
                false => self.book.free(fingerprint, attempt, windows),
            }
        }
        self.book.sweep(now, &BOUNDS, usize::MAX);
    }

    fn state_of(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Option<State> {
        let mut entry = self.book.entry(&fingerprint)?.clone();
        entry.of_attempt(attempt).map(|own| own.state.clone())
    }

    pub(super) fn admit(&mut self, ask: &Ask, closed: Option<Closed>, now: Time) -> Verdict {
        self.lapse(now);
        match self.book.find(ask, now, &BOUNDS) {
            Found::KeyReused => Verdict::KeyReused,
            Found::Look(_, Look::Hit(created, until)) => Verdict::Hit(created, until),
            Found::Look(fingerprint, Look::Join(attempt)) => Verdict::Join { fingerprint, attempt },
            Found::Look(_, Look::Held(wait)) => Verdict::Held(wait),
            Found::Look(_, Look::Free) => {
                if let Some(closed) = closed {
                    return Verdict::Closed(closed);
                }
                self.book.claim(ask, now, &BOUNDS);
                self.leases.insert(ask.attempt, (ask.fingerprint, now + LEASE.length));
                Verdict::Claimed(Taken::default())
            }
        }
    }

    pub(super) fn sending(
        &mut self,
        fingerprint: Fingerprint,
        attempt: AttemptId,
        now: Time,
    ) -> Result<(), LedgerError> {
        self.lapse(now);
        let taken = self.book.sending(fingerprint, attempt, &BOUNDS.windows);
        if taken.is_err() && self.broken != Broken::SendingWithoutCompare {
            return Err(LedgerError::Superseded);
        }
        self.leases.insert(attempt, (fingerprint, now + LEASE.length));
        Ok(())
    }

    pub(super) fn accepted(&mut self, job: &Arc<Job>, created: Created, now: Time) -> Rank {
        self.lapse(now);
        let in_time = self.leases.remove(&job.attempt).is_some();
        if !in_time && self.broken == Broken::LateOutcomesAreDropped {
            return Rank::Orphan;
        }
        let rank = self.book.accepted(job, created.clone(), &BOUNDS);
        // Who follows it goes by its entry until it is told more.
        if matches!(self.state_of(job.fingerprint, job.attempt), Some(State::Accepted(_))) {
            let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: created.answer };
            let outcome = Outcome::Created { request_id: created.job, answer };
            self.news.insert(job.attempt, Progress::Landed(Arc::new(outcome)));
        }
        rank
    }

    pub(super) fn unknown(&mut self, fingerprint: Fingerprint, attempt: AttemptId, now: Time) {
        self.lapse(now);
        self.leases.remove(&attempt);
        self.book.unknown(fingerprint, attempt, now, &BOUNDS.windows);
    }

    pub(super) fn free(&mut self, fingerprint: Fingerprint, attempt: AttemptId, now: Time) {
        self.lapse(now);
        self.leases.remove(&attempt);
        let standing = self.book.entry(&fingerprint).map(|entry| entry.attempt);
        let freed = standing.filter(|_| self.broken == Broken::FreeWithoutCompare).unwrap_or(attempt);
        self.book.free(fingerprint, freed, &BOUNDS.windows);
    }

    pub(super) fn renew(&mut self, attempt: AttemptId, now: Time) -> Result<(), LedgerError> {
        self.lapse(now);
        let (_, end) = self.leases.get_mut(&attempt).ok_or(LedgerError::Superseded)?;
        *end = now + LEASE.length;
        Ok(())
    }

    /// When the lease of an attempt ends.
    pub(super) fn lease_end(&self, attempt: AttemptId) -> Option<Time> {
        self.leases.get(&attempt).map(|(_, end)| *end)
    }

    pub(super) fn tell(&mut self, attempt: AttemptId, progress: Progress) {
        self.news.insert(attempt, progress);
    }

    /// What was told of an attempt. `None`: nothing more can be learned of it.
    pub(super) fn news(&mut self, attempt: AttemptId, now: Time) -> Option<Progress> {
        self.lapse(now);
        let told = self.news.get(&attempt).cloned();
        let runs = self.leases.contains_key(&attempt);
        match told {
            Some(Progress::Landed(outcome)) => Some(Progress::Landed(outcome)),
            told if runs => Some(told.unwrap_or(Progress::Waiting)),
            _ => None,
        }
    }

    /// Whether another replica than this one waits.
    pub(super) fn awaited(&self, attempt: AttemptId, replica: u8) -> bool {
        self.waiting.get(&attempt).is_some_and(|waiting| waiting.iter().any(|other| *other != replica))
    }
}

/// A plain submission.
pub(super) fn ask(fingerprint: Fingerprint, attempt: AttemptId) -> Ask {
    let asker = crate::jobs::entry::Asker { caller: [7; 16], no_cache: false };
    Ask {
        fingerprint,
        body: fingerprint,
        base: None,
        attempt,
        team: "open".into(),
        request_id: Arc::default(),
        asker,
        key: None,
        former: None,
    }
}

/// The shared ledger, as one replica has it.
pub(super) struct View {
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) replica: u8,
    pub(super) clock: Clock,
    /// An admission answers when it gets a permit from here.
    pub(super) admissions: Arc<Semaphore>,
    /// Answers that are lost, though the step was taken.
    pub(super) loses_admissions: bool,
    /// How far the clock goes on while the ledger thinks about `sending`.
    pub(super) sending_takes: Option<Box<dyn Fn() + Send + Sync>>,
    /// Generations that were given back.
    pub(super) given_back: Arc<Semaphore>,
    /// Everything but look-ups is away.
    pub(super) lease: Option<Lease>,
}

impl View {
    fn step<'a, T: Send + 'a>(&self, step: impl FnOnce(&mut Shared, Time) -> Result<T, LedgerError>) -> Step<'a, T> {
        let result = step(&mut self.shared.lock().unwrap(), self.clock.now());
        Box::pin(std::future::ready(result))
    }
}

impl Ledger for View {
    fn hot(&self, _: &Fingerprint) -> Option<(Created, Duration)> {
        None
    }

    fn admit<'a>(&'a self, request: &'a Request) -> Step<'a, Admission> {
        Box::pin(async move {
            let verdict = self.shared.lock().unwrap().admit(&request.ask, request.closed, self.clock.now());
            // It is decided; the answer may be late in coming.
            self.admissions.acquire().await.unwrap().forget();
            if self.loses_admissions {
                return Err(LedgerError::Unavailable);
            }
            Ok(Admission { verdict, standing: Standing::default() })
        })
    }

    fn take_request<'a>(&'a self, _: &'a Who) -> Step<'a, Result<Standing, Refusal>> {
        Box::pin(std::future::ready(Ok(Ok(Standing::default()))))
    }

    fn preview<'a>(&'a self, _: &'a Request) -> Step<'a, Preview> {
        Box::pin(std::future::ready(Err(LedgerError::Unavailable)))
    }

    fn statement(&self, _: usize) -> Step<'_, Statement> {
        Box::pin(std::future::ready(Err(LedgerError::Unavailable)))
    }

    fn totals(&self) -> Vec<(Arc<str>, Totals)> {
        Vec::new()
    }

    fn ends(&self) -> Ends {
        Ends::default()
    }

    fn sending(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        let step = self.step(|shared, now| shared.sending(fingerprint, attempt, now));
        if let Some(takes) = &self.sending_takes {
            takes();
        }
        step
    }

    fn accepted(&self, job: Arc<Job>, created: Created) -> Step<'_, Rank> {
        self.step(|shared, now| Ok(shared.accepted(&job, created, now)))
    }

    fn unknown(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.step(|shared, now| {
            shared.unknown(fingerprint, attempt, now);
            Ok(())
        })
    }

    fn free(&self, fingerprint: Fingerprint, attempt: AttemptId, back: Option<Taken>) -> Step<'_, ()> {
        self.given_back.add_permits(usize::from(back.is_some()));
        self.step(|shared, now| {
            shared.free(fingerprint, attempt, now);
            Ok(())
        })
    }

    fn doubted(&self, fingerprint: Fingerprint, attempt: AttemptId, caller: Caller) -> Step<'_, ()> {
        self.step(|shared, now| {
            shared.book.doubted(fingerprint, attempt, caller, now, &BOUNDS.windows);
            Ok(())
        })
    }

    fn undelivered(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.step(|shared, _| {
            shared.book.undelivered(fingerprint, attempt, &BOUNDS.windows);
            Ok(())
        })
    }

    fn job<'a>(&'a self, id: &'a RequestId) -> Step<'a, Option<Arc<Job>>> {
        self.step(|shared, _| Ok(shared.book.job(id)))
    }

    fn own<'a>(&'a self, id: &'a RequestId, owner: Owner, most: usize) -> Step<'a, Owned> {
        self.step(|shared, _| Ok(shared.book.own(id, owner, most)))
    }

    fn adopt(&self, job: Arc<Job>) -> Step<'_, Arc<Job>> {
        self.step(|shared, _| Ok(shared.book.adopt(&job, &BOUNDS)))
    }

    fn turned(&self, job: Arc<Job>, turn: Turn, end: End) -> Step<'_, Ended> {
        self.step(|shared, now| Ok(shared.book.turned(&job, turn, end, now, &BOUNDS.windows)))
    }

    fn watch_next(&self, quiet: Duration, most: usize) -> Step<'_, Vec<Arc<Job>>> {
        self.step(move |shared, now| Ok(shared.book.watch_next(now, quiet, most)))
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Step<'a, Page<JobLine, Cursor>> {
        let (after, limit) = (query.after.as_ref(), query.limit);
        self.step(|shared, _| Ok(shared.book.list_jobs(query, after, limit, usize::MAX, &BOUNDS.windows)))
    }

    fn entries<'a>(&'a self, query: &'a EntryQuery) -> Step<'a, Page<EntryLine, Fingerprint>> {
        let (after, limit) = (query.after.as_ref(), query.limit);
        self.step(|shared, _| Ok(shared.book.list_entries(query, after, limit, usize::MAX, &BOUNDS.windows)))
    }

    fn forget(&self, fingerprint: Fingerprint, force: bool) -> Step<'_, Forgotten> {
        self.step(|shared, _| Ok(shared.book.forget(fingerprint, force, &BOUNDS.windows)))
    }

    fn lease(&self) -> Option<Lease> {
        self.lease
    }

    fn renew(&self, _: Fingerprint, attempt: AttemptId) -> Step<'_, ()> {
        self.step(|shared, now| shared.renew(attempt, now))
    }

    fn tell(&self, _: Fingerprint, attempt: AttemptId, progress: Progress) -> Step<'_, ()> {
        self.step(|shared, _| {
            shared.tell(attempt, progress);
            Ok(())
        })
    }

    fn awaited(&self, attempt: AttemptId) -> Step<'_, bool> {
        self.step(|shared, _| Ok(shared.awaited(attempt, self.replica)))
    }

    fn follow(&self, _: Fingerprint, attempt: AttemptId, flight: Arc<Flight>) -> Step<'_, ()> {
        Box::pin(async move {
            let _seen = Seen::begin(self, attempt);
            let mut is_sent = false;
            loop {
                let news = self.shared.lock().unwrap().news(attempt, self.clock.now());
                let landed = match news {
                    Some(Progress::Waiting) => None,
                    Some(Progress::Sent(at)) => {
                        if !std::mem::replace(&mut is_sent, true) {
                            flight.sent(at);
                        }
                        None
                    }
                    Some(Progress::Landed(outcome)) => Some(outcome),
                    None => Some(Arc::new(Outcome::NotSent(NotSent::Superseded))),
                };
                if let Some(outcome) = landed {
                    flight.land(outcome, self.clock.now());
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn sweep(&self) {}

    fn is_well(&self) -> bool {
        true
    }

    fn flush(&self) -> Step<'_, ()> {
        self.step(|_, _| Ok(()))
    }

    fn counts(&self) -> (Counts, usize) {
        self.shared.lock().unwrap().book.counts()
    }

    fn hot_entries(&self) -> u64 {
        0
    }

    fn reload(&self, _: Bounds, _: Arc<Terms>) {}
}

/// A waiter of this replica, as the others see it while it waits.
struct Seen<'a> {
    view: &'a View,
    attempt: AttemptId,
}

impl<'a> Seen<'a> {
    fn begin(view: &'a View, attempt: AttemptId) -> Self {
        view.shared.lock().unwrap().waiting.entry(attempt).or_default().insert(view.replica);
        Self { view, attempt }
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.view.shared.lock().unwrap().waiting.get_mut(&self.attempt) {
            waiting.remove(&self.view.replica);
        }
    }
}
