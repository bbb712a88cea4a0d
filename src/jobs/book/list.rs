//! What is shown of the book, a slice at a time, so that its lock is never held long; and how an entry is forgotten.

use std::ops::Bound;

use super::Book;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Entry, State, Windows};
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, JobState, Layer, Page};
use crate::jobs::records::Record;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

impl Book {
    /// Jobs and unknown outcomes behind `after`, newest first: at most `wanted` that fit the query, of at most `most` that
    /// are looked at.
    pub fn list_jobs(
        &self,
        query: &JobQuery,
        after: Option<&Cursor>,
        wanted: usize,
        most: usize,
        windows: &Windows,
    ) -> Page<JobLine, Cursor> {
        let only_unknown = query.state == Some(JobState::Unknown);
        let mut jobs = self.records.before(after).filter(|_| !only_unknown).peekable();
        let mut unknowns = self.unknown_before(after, windows).peekable();
        let mut page = Page { lines: Vec::new(), next: None };
        for _ in 0..most {
            if page.lines.len() >= wanted {
                return page;
            }
            let place = |record: &&Record| Cursor { at: record.job.created, name: record.job.id.to_string() };
            let is_unknown = match (jobs.peek().map(place), unknowns.peek()) {
                (None, None) => return Page { next: None, ..page },
                (Some(job), Some(unknown)) => unknown.cursor() > job,
                (job, _) => job.is_none(),
            };
            let line = if is_unknown { unknowns.next() } else { jobs.next().map(|record| self.job_line(record)) };
            let Some(line) = line else { break };
            page.next = Some(line.cursor());
            if fits(&line, query) {
                page.lines.push(line);
            }
        }
        page
    }

    fn unknown_before(&self, after: Option<&Cursor>, windows: &Windows) -> impl Iterator<Item = JobLine> {
        let hold = windows.hold;
        let last = after.map_or(Bound::Unbounded, |after| Bound::Included((after.at + hold, LAST_ATTEMPT, LAST)));
        let after = after.cloned();
        let lines =
            self.entries.unknowns().range((Bound::Unbounded, last)).rev().filter_map(move |(until, attempt, of)| {
                let entry = self.entry(of)?.layers().find(|entry| entry.attempt == *attempt)?;
                let since = Time::from_millis(until.as_millis().saturating_sub(millis(hold)));
                Some(JobLine {
                    job: None,
                    state: JobState::Unknown,
                    orphan: false,
                    team: entry.team.clone(),
                    fingerprint: *of,
                    attempt: *attempt,
                    key: None,
                    created: since,
                    ended: None,
                    polled: None,
                    asked_as: entry.request_id.clone(),
                    entry: Some(entry.state.name()),
                })
            });
        lines.filter(move |line| after.as_ref().is_none_or(|after| line.cursor() < *after))
    }

    fn job_line(&self, record: &Record) -> JobLine {
        let job = &record.job;
        let entry = self.entry(&job.fingerprint).into_iter().flat_map(Entry::layers);
        let mut own = entry.filter(|entry| entry.created().is_some_and(|created| created.job == job.id));
        JobLine {
            job: Some(job.id.clone()),
            state: JobState::Life(record.life),
            orphan: record.orphan,
            team: job.team.clone(),
            fingerprint: job.fingerprint,
            attempt: job.attempt,
            key: Some(job.key.clone()),
            created: job.created,
            ended: record.ended,
            polled: job.polled(),
            asked_as: job.request_id.clone(),
            entry: own.next().map(|entry| entry.state.name()),
        }
    }

    /// Entries behind `after`, by their fingerprint: at most `wanted` that fit the query, of at most `most` that are looked
    /// at.
    pub fn list_entries(
        &self,
        query: &EntryQuery,
        after: Option<&Fingerprint>,
        wanted: usize,
        most: usize,
        windows: &Windows,
    ) -> Page<EntryLine, Fingerprint> {
        let first = Fingerprint::from_hex(&format!("{:0<64}", query.prefix));
        let first = match (after, first) {
            (Some(after), _) => Bound::Excluded(*after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => return Page { lines: Vec::new(), next: None },
        };
        let mut page = Page { lines: Vec::new(), next: None };
        let mut entries = self.entries.from(first);
        for _ in 0..most {
            if page.lines.len() >= wanted {
                return page;
            }
            let next = entries.next().filter(|(name, _)| name.to_string().starts_with(&query.prefix));
            let Some((fingerprint, entry)) = next else { return Page { next: None, ..page } };
            page.next = Some(*fingerprint);
            let of_state = |state: &String| entry.state.name() == state;
            let of_team = |team: &String| *entry.team == **team;
            if query.state.as_ref().is_none_or(of_state) && query.team.as_ref().is_none_or(of_team) {
                let layers = entry.layers().map(|entry| layer(entry, windows)).collect();
                page.lines.push(EntryLine { fingerprint: *fingerprint, layers });
            }
        }
        page
    }

    /// Forgets an entry and what lies beneath it, and the idempotency keys that lead there: the next identical prompt makes
    /// a new job. Where an attempt is on its way that may buy the prompt twice, so it needs `force`; what comes of that
    /// attempt is an orphan.
    pub fn forget(&mut self, fingerprint: Fingerprint, force: bool, windows: &Windows) -> Forgotten {
        let Some(entry) = self.entry(&fingerprint) else { return Forgotten::Nothing };
        let in_flight = |entry: &&Entry| matches!(entry.state, State::Claimed | State::Sending);
        if let Some(entry) = entry.layers().find(in_flight).filter(|_| !force) {
            return Forgotten::InFlight(entry.state.name());
        }
        let name = entry.state.name();
        let attempts: Vec<_> = entry.layers().map(|entry| entry.attempt).collect();
        let jobs: Vec<_> = entry.layers().filter_map(|entry| Some(entry.created()?.job.clone())).collect();
        attempts.into_iter().for_each(|attempt| self.keys.release(attempt));
        jobs.iter().for_each(|job| self.records.forget_entry(job));
        self.remove(fingerprint, windows);
        Forgotten::Gone(name)
    }
}

fn layer(entry: &Entry, windows: &Windows) -> Layer {
    let created = entry.created();
    Layer {
        state: entry.state.name(),
        team: entry.team.clone(),
        attempt: entry.attempt,
        job: created.map(|created| created.job.clone()),
        created: created.map(|created| created.at),
        until: entry.due(windows),
        undelivered: entry.rest.undelivered,
        asked_as: entry.request_id.clone(),
    }
}

fn fits(line: &JobLine, query: &JobQuery) -> bool {
    let of_state = |state: JobState| line.state == state || state == JobState::Orphan && line.orphan;
    let of_team = |team: &String| *line.team == **team;
    let of_request = |id: &String| line.job.as_ref().map(RequestId::as_str) == Some(id) || *line.asked_as == **id;
    query.state.is_none_or(of_state)
        && query.team.as_ref().is_none_or(of_team)
        && query.request_id.as_ref().is_none_or(of_request)
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Above all others.
const LAST: Fingerprint = Fingerprint::from_bytes([u8::MAX; 32]);
const LAST_ATTEMPT: AttemptId = AttemptId::from_bytes([u8::MAX; 16]);
