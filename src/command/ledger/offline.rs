//! The ledger on disk while no gateway uses it: everything as it stands there, by the windows of the configuration. What
//! hangs on the next start is not told, so that nothing moves from look to look. Opening it puts the log into the tables
//! and brings an earlier format into this one; nothing else is changed.

use std::path::Path;

use serde_json::Value;

use super::super::{Failure, failed, faulty};
use crate::bill::statement::Statement;
use crate::clock::{Clock, Time};
use crate::config::{self, Config};
use crate::jobs::entry::Windows;
use crate::jobs::ledger::disk::batch::Batch;
use crate::jobs::ledger::disk::store::Store;
use crate::jobs::ledger::disk::{self, Left};
use crate::jobs::list::{EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, JobState};

/// An opened file and what is in it.
pub(in crate::command) struct Offline {
    left: Left,
    windows: Windows,
}

impl Offline {
    /// Opens it; refused while a gateway has it. The windows are those of `config`, the file of that gateway, if there is
    /// one, and of the environment.
    pub(super) fn open(folder: &Path, config: Option<&Path>) -> Result<Self, Failure> {
        let dedup = Config::dedup(config, config::environment()).map_err(|faults| faulty(&faults))?;
        let windows = Windows::from(&dedup);
        let read = |store| disk::look(store, &windows, Clock::system());
        let left = Store::open_existing(folder).and_then(read).map_err(|error| failed(&error.with_advice()))?;
        Ok(Self { left, windows })
    }

    pub(super) fn jobs(&self, query: &JobQuery) -> Vec<Value> {
        let page = self.left.opened.book.list_jobs(query, None, usize::MAX, usize::MAX, &self.windows);
        page.lines.iter().map(|line| self.job(line)).collect()
    }

    /// When an outcome became unknown follows from its end and the hold. What comes out past the last time that was written
    /// down is of another hold.
    fn job(&self, line: &JobLine) -> Value {
        let is_known = Time::default() < line.created && line.created <= self.left.heartbeat;
        let mut shown = line.to_json();
        if let (JobState::Unknown, false, Some(created)) = (line.state, is_known, shown.get_mut("created")) {
            *created = Value::Null;
        }
        shown
    }

    pub(super) fn entries(&self) -> Vec<Value> {
        self.find("", usize::MAX).iter().map(EntryLine::to_json).collect()
    }

    /// The one entry whose fingerprint begins so.
    pub(super) fn entry(&self, prefix: &str) -> Result<EntryLine, Failure> {
        let mut lines = self.find(prefix, 2).into_iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Ok(line),
            (Some(_), Some(_)) => Err(failed(&"several fingerprints begin so: give more digits")),
            (None, _) => Err(failed(&"no entry has such a fingerprint: its prompt is free")),
        }
    }

    fn find(&self, prefix: &str, most: usize) -> Vec<EntryLine> {
        let query = EntryQuery { prefix: prefix.to_owned(), ..EntryQuery::default() };
        let mut lines = self.left.opened.book.list_entries(&query, None, most, usize::MAX, &self.windows).lines;
        for line in &mut lines {
            let of_start = |attempt| self.left.held.contains(&(line.fingerprint, attempt));
            line.layers.iter_mut().filter(|layer| of_start(layer.attempt)).for_each(|layer| layer.until = None);
        }
        lines
    }

    /// Forgets an entry. Nothing is on its way where no gateway runs, so there is nothing to force.
    pub(super) fn forget(mut self, prefix: &str) -> Result<Value, Failure> {
        let line = self.entry(prefix)?;
        let opened = &mut self.left.opened;
        // Only this is written; what a start makes of the rest is left to that start.
        opened.book.take_dirty();
        match opened.book.forget(line.fingerprint, false, &self.windows) {
            Forgotten::Gone(_) => {}
            Forgotten::InFlight(_) | Forgotten::Nothing => return Err(failed(&"it cannot be forgotten")),
        }
        let dirty = opened.book.take_dirty();
        let batch = Batch::of(&opened.book, &dirty, opened.clock.now());
        opened.store.write(&batch).map_err(|error| failed(&error.with_advice()))?;
        Ok(line.to_json())
    }

    /// What was spent, with the `top` users who spent most. Budgets stand in the configuration, not in the file.
    pub(super) fn spend(&self, top: usize) -> Value {
        let opened = &self.left.opened;
        let statement = Statement::of(opened.book.tab(), opened.clock.now(), top);
        serde_json::to_value(statement).unwrap_or_default()
    }
}
