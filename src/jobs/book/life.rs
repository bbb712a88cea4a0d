//! A job's life in the book: whose it is, what its polls show of it, and what that does to the entries that give it out.

use std::sync::Arc;
use std::time::Duration;

use super::{Book, Bounds};
use crate::clock::Time;
use crate::jobs::entry::{Entry, Fate, Turn, Windows};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{End, Job};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// How a job ended, as `jobs_total` counts it, and what that did to its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The life it came to, if that was news.
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
        Ended { news: over && self.records.end(&job.id, end.life, now), fate }
    }

    /// At most `most` running jobs that nobody has polled for `quiet` and that are due to be looked at (M23).
    pub fn watch_next(&mut self, now: Time, quiet: Duration, most: usize) -> Vec<Arc<Job>> {
        self.records.watch_next(now, quiet, most)
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
