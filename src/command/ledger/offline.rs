//! The ledger on disk while no gateway uses it: read as the next start would read it. Opening it puts the log into
//! the tables and brings an earlier format into this one; nothing else is changed.

use std::path::Path;

use serde_json::Value;

use super::super::{Failure, failed};
use crate::bill::statement::Statement;
use crate::clock::Clock;
use crate::jobs::book::Book;
use crate::jobs::entry::Windows;
use crate::jobs::ledger::disk::batch::Batch;
use crate::jobs::ledger::disk::store::Store;
use crate::jobs::ledger::disk::{self, Opened};
use crate::jobs::list::{EntryLine, EntryQuery, Forgotten, JobLine, JobQuery};
use crate::jobs::settings::Dedup;

/// An opened file and what is in it.
pub(in crate::command) struct Offline {
    store: Store,
    book: Book,
    clock: Clock,
    windows: Windows,
}

impl Offline {
    /// Opens it; refused while a gateway has it.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let windows = Windows::from(&Dedup::default());
        let store = Store::open_existing(folder).map_err(|error| failed(&error))?;
        let Opened { store, book, clock, .. } =
            disk::read(store, &windows, Clock::system()).map_err(|error| failed(&error))?;
        Ok(Self { store, book, clock, windows })
    }

    pub(super) fn jobs(&self, query: &JobQuery) -> Vec<Value> {
        let page = self.book.list_jobs(query, None, usize::MAX, usize::MAX, &self.windows);
        page.lines.iter().map(JobLine::to_json).collect()
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
        self.book.list_entries(&query, None, most, usize::MAX, &self.windows).lines
    }

    /// Forgets an entry. Nothing is on its way where no gateway runs, so there is nothing to force.
    pub(super) fn forget(mut self, prefix: &str) -> Result<Value, Failure> {
        let line = self.entry(prefix)?;
        // Only this is written; what a start makes of the rest is left to that start.
        self.book.take_dirty();
        match self.book.forget(line.fingerprint, false, &self.windows) {
            Forgotten::Gone(_) => {}
            Forgotten::InFlight(_) | Forgotten::Nothing => return Err(failed(&"it cannot be forgotten")),
        }
        let dirty = self.book.take_dirty();
        let batch = Batch::of(&self.book, &dirty, self.clock.now());
        self.store.write(&batch).map_err(|error| failed(&error))?;
        Ok(line.to_json())
    }

    /// What was spent, with the `top` users who spent most. Budgets stand in the configuration, not in the file.
    pub(super) fn spend(&self, top: usize) -> Value {
        let statement = Statement::of(self.book.tab(), self.clock.now(), top);
        serde_json::to_value(statement).unwrap_or_default()
    }
}
