//! Job records: what is known of each paid job, apart from the entry that gave its id out (`MONEY.md` M12).
//! They outlive entries by days, so that a poll, an operator or a support person finds the job of a lost answer.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use crate::bill::money::Amount;
use crate::bill::tab::Verdict;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Shown, Turn};
use crate::jobs::list::Cursor;
use crate::jobs::owners::{Owned, Owner, Owners};
use crate::jobs::watchlist::Watchlist;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::telemetry::labels::JobOutcome;

/// How long a record is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The attempt of what nobody here made.
const NOBODY: AttemptId = AttemptId::from_bytes([0; 16]);

/// What never changes about a job, and what its polls have shown: shared with whoever polls it.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: RequestId,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The fingerprint it was made under.
    pub fingerprint: Fingerprint,
    /// The team it was made for.
    pub team: Arc<str>,
    /// The id of the upstream key that made it: only to that key a missing job is gone (M19).
    pub key: Arc<str>,
    /// When the upstream gave the id.
    pub created: Time,
    /// The id of the request that began it, as its client knows it; empty where that is not known.
    pub request_id: Arc<str>,
    /// The last poll that showed it unfinished, in milliseconds; 0: none.
    unfinished: AtomicU64,
    /// The name of the last answer that showed it unfinished, as [`crate::jobs::observe::Reader`] names answers; 0: none.
    familiar: AtomicU64,
    /// The last time a client polled it, in milliseconds; 0: never, as far as this process knows.
    polled: AtomicU64,
    /// Who owns it beside `team`.
    pub owners: Owners,
}

impl Job {
    /// A job just made, by the upstream key of this id.
    pub fn new(
        id: RequestId,
        attempt: AttemptId,
        fingerprint: Fingerprint,
        team: Arc<str>,
        key: impl Into<Arc<str>>,
        created: Time,
    ) -> Self {
        let (unfinished, polled, owners) = (AtomicU64::new(0), AtomicU64::new(0), Owners::default());
        Self {
            id,
            attempt,
            fingerprint,
            team,
            key: key.into(),
            created,
            request_id: Arc::default(),
            unfinished,
            familiar: AtomicU64::new(0),
            polled,
            owners,
        }
    }

    /// The same, begun by the request of this id.
    pub fn asked_as(mut self, request_id: Arc<str>) -> Self {
        self.request_id = request_id;
        self
    }

    /// A client polls it.
    pub fn note_polled(&self, now: Time) {
        self.polled.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// When a client polled it last, as far as this process knows.
    pub fn polled(&self) -> Option<Time> {
        let millis = self.polled.load(Ordering::Relaxed);
        (millis > 0).then(|| Time::from_millis(millis))
    }

    /// When a client was last told of it.
    pub fn heard(&self) -> Time {
        self.polled().map_or(self.created, |polled| polled.max(self.created))
    }

    /// A job that nobody here made: it is `owner`'s, who asked for it first (M31).
    pub fn adopted(id: RequestId, owner: Owner, key: &str, now: Time) -> Self {
        let nothing = Fingerprint::from_bytes([0; 32]);
        let team = owner.team.clone();
        let owners = Owners::of(owner.user.is_some().then_some(owner).into_iter().collect());
        Self { owners, ..Self::new(id, NOBODY, nothing, team, key, now) }
    }

    /// Whether nobody here made it, as far as is known.
    pub fn is_adopted(&self) -> bool {
        self.attempt == NOBODY
    }

    /// What is known of a job that was adopted before its maker's word came: who met it, and what its polls have shown.
    fn take_over(&self, adopted: &Self) {
        let team = Owner { team: adopted.team.clone(), user: None };
        let owners = adopted.owners.all();
        let team = owners.is_empty().then_some(team);
        owners.into_iter().chain(team).for_each(|owner| self.note_owner(owner));
        adopted.shown().unfinished.into_iter().for_each(|at| self.note_unfinished(at));
        adopted.polled().into_iter().for_each(|at| self.note_polled(at));
    }

    /// It was written down elsewhere that it is `owner`'s.
    pub fn note_owner(&self, owner: Owner) {
        if !self.is_of(&owner) {
            self.owners.add(owner, usize::MAX);
        }
    }

    /// Whether it is `owner`'s.
    pub fn is_of(&self, owner: &Owner) -> bool {
        owner.user.is_none() && self.team == owner.team || self.owners.include(owner)
    }

    /// An answer of this name is known to show it unfinished.
    pub fn note_familiar(&self, answer: NonZeroU64) {
        self.familiar.store(answer.get(), Ordering::Relaxed);
    }

    /// Whether an answer of this name is the last one that showed it unfinished.
    pub fn is_familiar(&self, answer: NonZeroU64) -> bool {
        self.familiar.load(Ordering::Relaxed) == answer.get()
    }

    /// A poll has shown it unfinished.
    pub fn note_unfinished(&self, now: Time) {
        self.unfinished.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// What its polls have shown so far.
    pub fn shown(&self) -> Shown {
        let millis = self.unfinished.load(Ordering::Relaxed);
        Shown { unfinished: (millis > 0).then(|| Time::from_millis(millis)) }
    }
}

/// How a job's life goes on or ended; the outcomes are the labels of `jobs_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Nothing terminal was seen yet.
    Running,
    /// The video is there.
    Done,
    /// It failed.
    Failed,
    /// It expired, or the upstream no longer knows it.
    Expired,
    /// The upstream's moderation refused it.
    Moderated,
}

impl Life {
    /// The label of `jobs_total`, once it has ended.
    pub const fn outcome(self) -> Option<JobOutcome> {
        match self {
            Self::Running => None,
            Self::Done => Some(JobOutcome::Done),
            Self::Failed => Some(JobOutcome::Failed),
            Self::Expired => Some(JobOutcome::Expired),
            Self::Moderated => Some(JobOutcome::Moderated),
        }
    }
}

/// How a job's life ended, and what that says of its bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub life: Life,
    /// What it cost, if the upstream said so in a way that counts here (M29).
    pub cost: Option<Amount>,
    /// How long the video is, if the upstream told.
    pub length: Option<Duration>,
}

impl From<Life> for End {
    /// An end that says nothing more.
    fn from(life: Life) -> Self {
        Self { life, cost: None, length: None }
    }
}

impl End {
    /// How its tab is settled: a refusal that the same prompt would meet again is billed, whatever it is called (M20).
    pub const fn verdict(self, turn: Turn) -> Verdict {
        let Self { life, cost, length } = self;
        match (life, turn) {
            (Life::Moderated, _) | (Life::Failed, Turn::Refused) => Verdict::Refused { cost },
            (Life::Failed | Life::Expired, _) => Verdict::Failed { cost },
            (Life::Done | Life::Running, _) => Verdict::Done { cost, length },
        }
    }
}

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    /// The job itself.
    pub job: Arc<Job>,
    /// Where its life stands.
    pub life: Life,
    /// When its end was seen.
    pub ended: Option<Time>,
    /// Whether its attempt was no longer current when its id came (M12).
    pub orphan: bool,
    /// Whether an operator had its entry forgotten: no idempotency key gives it out any more.
    pub forgotten: bool,
}

/// All records, bounded: the oldest ended make room, running ones never (M12).
#[derive(Debug, Default)]
pub struct Records {
    /// Looked up by each poll. Its keys are ids that the upstream made, so nobody chooses them to collide.
    by_id: HashMap<RequestId, Record>,
    /// The ended ones, oldest first.
    ended: BTreeSet<(Time, RequestId)>,
    /// All, oldest first.
    made: BTreeSet<(Time, RequestId)>,
    /// The running ones, by when we look at them ourselves.
    watched: Watchlist,
    /// Those to be written down anew.
    changed: HashSet<RequestId>,
    /// Whether anybody writes them down.
    durable: bool,
}

impl Records {
    /// Whether one more job can be recorded within `max`, the oldest ended ones leaving for it.
    pub fn make_room(&mut self, max: usize) -> bool {
        while self.by_id.len() >= max {
            let Some((_, oldest)) = self.ended.first().cloned() else { return false };
            self.remove(&oldest);
        }
        true
    }

    /// Records a job. An id that is already there stays as it is: the upstream gave one id twice.
    pub fn insert(&mut self, job: Arc<Job>, orphan: bool) {
        let (id, created) = (job.id.clone(), job.created);
        if self.by_id.contains_key(&id) {
            return;
        }
        self.mark(&id);
        self.watched.add(&id, created);
        self.made.insert((created, id.clone()));
        self.by_id.insert(id, Record { job, life: Life::Running, ended: None, orphan, forgotten: false });
    }

    /// The maker's word of a job that was adopted before it came: the record is the maker's from now on. How the job had
    /// ended by then, if it had; `None` too if it was not adopted.
    pub fn found(&mut self, job: &Arc<Job>, orphan: bool) -> Option<(Life, Time)> {
        let record = self.by_id.get_mut(&job.id).filter(|record| record.job.is_adopted() && !job.is_adopted())?;
        job.take_over(&record.job);
        let adopted = std::mem::replace(&mut record.job, job.clone());
        record.orphan = orphan;
        let ended = record.ended.map(|ended| (record.life, ended));
        self.made.remove(&(adopted.created, adopted.id.clone()));
        self.made.insert((job.created, job.id.clone()));
        if ended.is_none() {
            self.watched.add(&job.id, job.created);
        }
        self.mark(&job.id);
        ended
    }

    /// From now on the job is `owner`'s too; no more than `most` beside its maker's team.
    pub fn own(&mut self, id: &RequestId, owner: Owner, most: usize) -> Owned {
        let Some(record) = self.by_id.get(id) else { return Owned::NoRecord };
        if record.job.is_of(&owner) {
            return Owned::Already;
        }
        let owned = record.job.owners.add(owner, most);
        if owned == Owned::News {
            self.mark(id);
        }
        owned
    }

    /// The record of an id.
    pub fn get(&self, id: &RequestId) -> Option<&Record> {
        self.by_id.get(id)
    }

    /// A poll has shown the end of a job. Returns whether that was news.
    pub fn end(&mut self, id: &RequestId, life: Life, now: Time) -> bool {
        let Some(record) = self.by_id.get_mut(id) else { return false };
        if record.life != Life::Running {
            return false;
        }
        record.life = life;
        record.ended = Some(now);
        self.ended.insert((now, id.clone()));
        self.watched.remove(id);
        self.mark(id);
        true
    }

    /// At most `most` running jobs that nobody has polled for `quiet` and that are due to be looked at (M23).
    pub fn watch_next(&mut self, now: Time, quiet: Duration, most: usize) -> Vec<Arc<Job>> {
        let by_id = &self.by_id;
        self.watched.next(now, quiet, most, |id| by_id.get(id).map(|record| &record.job))
    }

    /// An operator had the entry of a job forgotten.
    pub fn forget_entry(&mut self, id: &RequestId) {
        if let Some(record) = self.by_id.get_mut(id) {
            record.forgotten = true;
            self.mark(id);
        }
    }

    /// Those made before another, or all of them, newest first.
    pub fn before(&self, after: Option<&Cursor>) -> impl Iterator<Item = &Record> {
        let last = after.and_then(|after| Some((after.at, RequestId::parse(&after.name)?)));
        let made = self.made.range((Bound::Unbounded, last.map_or(Bound::Unbounded, Bound::Excluded)));
        made.rev().filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Notes from now on which records change.
    pub fn keep_changed(&mut self) {
        self.durable = true;
    }

    /// Which have changed since this was asked last.
    pub fn take_changed(&mut self) -> HashSet<RequestId> {
        std::mem::take(&mut self.changed)
    }

    /// Whether any has.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether this one has.
    pub fn is_changed(&self, id: &RequestId) -> bool {
        self.changed.contains(id)
    }

    /// Puts a record back that was written down.
    pub fn restore(&mut self, record: Record) {
        let (id, created) = (record.job.id.clone(), record.job.created);
        self.made.insert((created, id.clone()));
        match record.ended {
            Some(ended) => _ = self.ended.insert((ended, id.clone())),
            None => self.watched.add(&id, created),
        }
        self.by_id.insert(id, record);
    }

    fn mark(&mut self, id: &RequestId) {
        if self.durable {
            self.changed.insert(id.clone());
        }
    }

    /// Drops records past their time, at most `most` of them.
    pub fn sweep(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            let Some((_, id)) = self.made.first().filter(|(created, _)| now.since(*created) > KEPT).cloned() else {
                return;
            };
            self.remove(&id);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many of them are running.
    pub fn running(&self) -> usize {
        self.by_id.len().saturating_sub(self.ended.len())
    }

    fn remove(&mut self, id: &RequestId) {
        if let Some(record) = self.by_id.remove(id) {
            self.mark(id);
            self.watched.remove(id);
            self.made.remove(&(record.job.created, id.clone()));
            if let Some(ended) = record.ended {
                self.ended.remove(&(ended, id.clone()));
            }
        }
    }
}

impl FromIterator<Record> for Records {
    /// Puts records back that were written down, whose ids differ: at once, which is several times as fast as one by one.
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let by_id: HashMap<_, _> = records.into_iter().map(|record| (record.job.id.clone(), record)).collect();
        let all = || by_id.values().map(|record| (&record.job.id, record));
        let made = all().map(|(id, record)| (record.job.created, id.clone())).collect();
        let ended = all().filter_map(|(id, record)| Some((record.ended?, id.clone()))).collect();
        let running = all().filter(|(_, record)| record.ended.is_none()).map(|(id, record)| (id, record.job.created));
        let watched = running.collect();
        Self { by_id, ended, made, watched, ..Self::default() }
    }
}
