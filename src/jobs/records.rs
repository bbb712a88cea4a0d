//! Job records: what is known of each paid job, apart from the entry that gave its id out (`MONEY.md` M12).
//! They outlive entries by days, so that a poll, an operator or a support person finds the job of a lost answer.

mod job;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

pub use self::job::{End, Job, Life};
use crate::clock::Time;
use crate::jobs::list::Cursor;
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::watchlist::Watchlist;
use crate::request::route::RequestId;

/// How long a record is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

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
