//! A job's life in the book: whose it is, what its polls show of it, and what that does to the entries that give it out.

use std::sync::Arc;
use std::time::Duration;

use super::{Book, Bounds};
use crate::clock::Time;
use crate::jobs::entry::{Entry, Fate, Turn, Windows};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job, Life};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::telemetry::labels::JobOutcome;

/// How many jobs were seen to end, by how they did: what `jobs_total` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends([u64; JobOutcome::ALL.len()]);

impl Ends {
    /// One more, if that is an end.
    pub fn note(&mut self, life: Life) {
        if let Some(count) = life.outcome().and_then(|outcome| self.0.get_mut(outcome as usize)) {
            *count += 1;
        }
    }

    /// As many more as others have seen.
    pub fn add(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(own, others)| *own += others);
    }

    /// Each outcome, and how many had it.
    pub fn iter(&self) -> impl Iterator<Item = (JobOutcome, u64)> {
        JobOutcome::ALL.iter().copied().zip(self.0)
    }
}

/// What a poll's word of a job's end was worth, and what it did to its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether nobody had told its end before.
    pub news: bool,
    /// What became of the entry.
    pub fate: Fate,
}

impl Book {
    /// A team, or one of its users, has met a job (M31).
    pub fn own(&mut self, id: &RequestId, owner: Owner, most: usize) -> Owned {
        self.records.own(id, owner, most)
    }

    /// A job that nobody here made belongs to whoever asked for it first (M31). Gives the job as it stands.
    pub fn adopt(&mut self, job: &Arc<Job>, bounds: &Bounds) -> Arc<Job> {
        if let Some(known) = self.job(&job.id) {
            return known;
        }
        self.records.make_room(bounds.max_jobs);
        self.records.insert(job.clone(), false);
        job.clone()
    }

    /// The job of an id.
    pub fn job(&self, id: &RequestId) -> Option<Arc<Job>> {
        self.records.get(id).map(|record| record.job.clone())
    }

    /// A poll has shown that a job's life came to a turn.
    pub fn turned(&mut self, job: &Job, turn: Turn, end: impl Into<End>, now: Time, windows: &Windows) -> Ended {
        let end = end.into();
        // Who knows it as adopted does not know what its maker has told since: the record does.
        let (attempt, fingerprint) =
            self.job(&job.id).map_or_else(|| (job.attempt, job.fingerprint), |own| (own.attempt, own.fingerprint));
        let fate = self.turn_entry(fingerprint, job, turn, now, windows);
        for further in self.given_twice(&job.id) {
            self.turn_entry(further, job, turn, now, windows);
        }
        // A job that may just not be visible yet is not over (M19), and one without an entry must not run for ever.
        let mut stands = || self.entries.get_mut(&fingerprint).is_some_and(|entry| entry.of_job(&job.id).is_some());
        let is_missed = fate == Fate::Ends || !stands() && job.shown().is_missed(job.created, now);
        let over = turn != Turn::Missing || is_missed;
        if over {
            self.tab.settle(attempt, end.verdict(turn));
        }
        let news = over && self.records.end(&job.id, end.life, now);
        if news {
            self.ends.note(end.life);
        }
        Ended { news, fate }
    }

    /// At most `most` running jobs that nobody has polled for `quiet` and that are due to be looked at (M23).
    pub fn watch_next(&mut self, now: Time, quiet: Duration, most: usize) -> Vec<Arc<Job>> {
        self.records.watch_next(now, quiet, most)
    }

    /// How many ends were news.
    pub const fn ends(&self) -> &Ends {
        &self.ends
    }

    /// The further fingerprints under which the upstream gave this id.
    pub fn given_twice(&self, id: &RequestId) -> Vec<Fingerprint> {
        self.twice.of(id).to_vec()
    }

    fn turn_entry(&mut self, of: Fingerprint, job: &Job, turn: Turn, now: Time, windows: &Windows) -> Fate {
        let shown = job.shown();
        let fate = self
            .entries
            .change(of, windows, |entry| entry.of_job(&job.id).map(|own| own.turn(turn, shown, now, windows)));
        let fate = fate.flatten().unwrap_or(Fate::Stays);
        if fate != Fate::Stays {
            self.mark(of);
        }
        if fate == Fate::Ends {
            self.end_entry(of, &job.id, windows);
        }
        fate
    }

    /// Compare-and-delete on the job: a late end of an old job must not take its successor's entry (M1).
    fn end_entry(&mut self, fingerprint: Fingerprint, job: &RequestId, windows: &Windows) {
        let is_own = |entry: &Entry| entry.created().is_some_and(|created| created.job == *job);
        let Some(mut entry) = self.entries.take(fingerprint, windows).filter(|entry| !is_own(entry)) else { return };
        entry.remove_beneath(&is_own);
        self.entries.put(fingerprint, entry, windows);
    }
}
