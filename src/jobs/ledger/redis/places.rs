//! Where values stand beside their keys: the indexes and the sums that follow from an entry, a job, a key or a tab. It is
//! the same whether a step has changed them or what Redis forgot is put back.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::names::{TEAMS, account_key, base_key, hex, holder_key, keys_of_key, place_key, set_key, unknown_member};
use super::script::{Command, Count, Join, Mark, Name};
use crate::bill::account::Sums;
use crate::bill::form;
use crate::bill::tab::{Open, Standing, Tab};
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Entry, State, Windows};
use crate::jobs::keys::{KeyDigest, KeyRecord};
use crate::jobs::records::Record;
use crate::request::fingerprint::Fingerprint;

impl Command {
    /// An entry came, changed or went. Until when it is kept, in milliseconds.
    pub(super) fn place_entry(
        &mut self,
        fingerprint: &Fingerprint,
        old: Option<&Entry>,
        entry: Option<&Entry>,
        now: Time,
        windows: &Windows,
    ) -> u64 {
        let due = entry.map(|entry| {
            let leased = entry.rest.lease.filter(|_| matches!(entry.state, State::Claimed | State::Sending));
            leased.or_else(|| entry.due(windows)).unwrap_or(now)
        });
        let expires = (due.unwrap_or(now).max(now) + windows.hold + windows.hold + A_DAY).as_millis();
        let member = hex(fingerprint.as_bytes());
        self.place_in_state(&member, old, entry, expires);
        self.mark("due", &member, due.map(Time::as_millis));
        if old.is_some_and(|old| matches!(old.state, State::Done(..))) {
            // Where earlier versions have it.
            self.mark("done", &member, None);
        }
        // In order of their names, so that one is found by its first digits.
        self.mark("names", &member, entry.map(|_| 0));
        let unknown = unknowns(fingerprint, entry);
        let over = unknowns(fingerprint, old).into_iter().filter(|old| !unknown.contains(old));
        over.for_each(|(member, _)| self.mark("unknown", &member, None));
        unknown.iter().for_each(|(member, until)| self.mark("unknown", member, Some(*until)));
        // Where only keys share, an equal keyless body finds it while it is held or undelivered.
        if let Some(base) = entry.and_then(|entry| entry.rest.base) {
            let leaves = entry.is_none_or(|entry| entry.found_by_body().is_none());
            self.joins.push(Join { key: base_key(&base), member, leaves, expires });
        }
        expires
    }

    /// Where an entry stands among those of its team: what is counted there follows from what is there. What the sweep never
    /// hears of, or what was damaged so that nobody knows where it stood, leaves by its expiry.
    fn place_in_state(&mut self, member: &str, old: Option<&Entry>, entry: Option<&Entry>, expires: u64) {
        let place = |entry: &Entry| place_key(entry.state.name(), &entry.team);
        let (was, is) = (old.map(place), entry.map(place));
        if let Some(was) = was.filter(|was| Some(was) != is.as_ref()) {
            self.mark(was, member, None);
        }
        if let (Some(entry), Some(is)) = (entry, is) {
            self.mark(is, member, Some(expires));
            self.mark(TEAMS, &entry.team, Some(0));
        }
    }

    fn mark(&mut self, key: impl Into<Cow<'static, str>>, member: &str, score: Option<u64>) {
        self.marks.push(Mark { key: key.into(), member: member.to_owned(), score });
    }

    /// A job came or changed. Until when it is kept, in milliseconds.
    pub(super) fn place_job(&mut self, record: &Record, now: Time) -> u64 {
        let (id, created) = (&record.job.id, record.job.created);
        let running = record.ended.is_none().then(|| now.as_millis());
        self.mark("jobs", id.as_str(), Some(created.as_millis()));
        self.mark("running", id.as_str(), running);
        (created + JOB_KEPT).as_millis()
    }

    /// An idempotency key came or changed. Until when it is kept, in milliseconds.
    pub(super) fn place_key(&mut self, digest: &KeyDigest, record: &KeyRecord) -> u64 {
        let expires = (record.since + KEY_KEPT).as_millis();
        let (key, member) = (keys_of_key(&record.attempt), hex(digest));
        self.joins.push(Join { key, member, leaves: false, expires });
        expires
    }

    /// A tab came, changed or went. Until when it is kept, in milliseconds.
    pub(super) fn place_tab(
        &mut self,
        attempt: &AttemptId,
        before: Option<&Open>,
        after: Option<&Open>,
        now: Time,
    ) -> u64 {
        let due = after.and_then(Open::due).map(Time::as_millis);
        self.mark("tabs", &hex(&attempt.into_bytes()), due);
        let change = risk(after) - risk(before);
        if let Some(team) = after.or(before).map(|open| &open.charge.team).filter(|_| change != 0) {
            self.counts.push(count("risk", team, change));
        }
        (now + JOB_KEPT + A_DAY).as_millis()
    }

    /// What was posted to accounts, and the jobs that started or ended.
    pub(super) fn post(&mut self, tab: &Tab, now: Time) {
        for (account, sums) in tab.posted() {
            let Sums { spent, reserved, spent_millis, reserved_millis, jobs, lost } = *sums;
            let fields = [
                ("spent", spent),
                ("reserved", reserved),
                ("spent_millis", spent_millis),
                ("reserved_millis", reserved_millis),
                ("jobs", jobs),
                ("lost", lost),
            ];
            let until = account.period.next().next().begins().as_millis();
            let (key, member) = (set_key(account), hex(&form::account_key(account)));
            let listed = Arc::new((key.clone(), member.clone()));
            for (field, by) in fields.into_iter().filter(|(_, by)| *by != 0) {
                let (expires, listed) = (Some(until), Some(listed.clone()));
                self.counts.push(Count { expires, listed, ..count(&account_key(account), field, by) });
            }
            self.joins.push(Join { key, member, leaves: false, expires: until });
            if let Some(name) = tab.name_of(&account.holder) {
                self.names.push(Name { key: account_key(account), name: name.to_string() });
            }
        }
        for (holder, jobs) in tab.started().filter(|(_, jobs)| *jobs != 0) {
            // No job runs longer than its record is kept.
            let expires = Some((now + JOB_KEPT + A_DAY + A_DAY).as_millis());
            self.counts.push(Count { expires, ..count(&holder_key(holder), "running", jobs) });
        }
    }
}

fn count(key: &str, field: &str, by: i64) -> Count {
    Count { key: key.to_owned(), field: field.to_owned(), by: by.to_string(), expires: None, listed: None }
}

/// The ticks that a tab has at risk.
fn risk(open: Option<&Open>) -> i64 {
    open.filter(|open| matches!(open.standing, Standing::AtRisk(_)))
        .map_or(0, |open| i64::try_from(open.charge.price.amount().ticks()).unwrap_or(i64::MAX))
}

/// The unknown outcomes of an entry and of those beneath it, as the index has them: each attempt by the end of its hold.
fn unknowns(fingerprint: &Fingerprint, entry: Option<&Entry>) -> Vec<(String, u64)> {
    let unknown = entry.into_iter().flat_map(Entry::layers).filter_map(|entry| match entry.state {
        State::Unknown(until) => Some((unknown_member(fingerprint, &entry.attempt), until.as_millis())),
        _ => None,
    });
    unknown.collect()
}

const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an idempotency key is kept.
pub(super) const KEY_KEPT: Duration = A_DAY;
/// How long a job's record is kept.
const JOB_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
