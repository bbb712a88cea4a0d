//! The ledger on disk (`MONEY.md` M7–M10): what the book decides is written down by one thread, a batch at a time, into a
//! log first and into tables later; what must be durable before the next step waits for its batch. All live entries are
//! in memory; the files are read once, at the start.

pub mod journal;
pub mod batch;
pub mod folder;
pub mod form;
mod format;
mod places;
pub mod seal;
pub mod store;
mod tables;
mod wal;
pub mod contents;
pub mod recover;

use std::path::Path;

use tracing::{error, info};

use self::contents::{EntryRow, Rows};
use self::form::JobForm;
use self::seal::Checked;
use self::store::{Store, StoreError};
use crate::clock::{Clock, Time};
use crate::jobs::book::{Book, Entries};
use crate::jobs::entry::{Created, Entry, State, Windows};
use crate::jobs::records::Records;
use crate::request::fingerprint::{Fingerprint, FingerprintKey};

/// An opened ledger file and what was in it.
pub struct Opened {
    /// The file.
    pub store: Store,
    /// The book as it was, ready to go on.
    pub book: Book,
    /// The fingerprints' key, made when the file was (M9).
    pub fingerprints: FingerprintKey,
    /// The time, which does not start before the last one that was written down (M10).
    pub clock: Clock,
}

/// Opens the ledger in `folder`, or makes one, and reads all of it by the time of `clock`.
///
/// # Errors
/// [`StoreError`]; it never begins an empty ledger in place of one that cannot be read.
pub fn open(folder: &Path, windows: &Windows, clock: Clock) -> Result<Opened, StoreError> {
    read(Store::open(folder)?, windows, clock)
}

/// Reads all of an opened file, as it is after the process that wrote it has ended.
///
/// # Errors
/// [`StoreError`].
pub fn read(mut store: Store, windows: &Windows, clock: Clock) -> Result<Opened, StoreError> {
    let clock = clock.not_before(store.heartbeat()?);
    let now = clock.now();
    let contents = store.read(|rows| Restarted::of(rows, now, windows), records)?;
    let Restarted { entries, interrupted, damaged } = contents.entries;
    let mut book = Book::restored(entries, contents.jobs);
    book.keep_dirty();
    interrupted.iter().for_each(|fingerprint| book.mark(*fingerprint));
    for (digest, form) in contents.keys {
        book.restore_key(digest, form.into_record());
    }
    for (key, form) in contents.accounts {
        let (sums, name) = form.into_account();
        book.tab_mut().restore_account(key, sums, name);
    }
    for (attempt, form) in contents.tabs {
        book.tab_mut().restore(attempt, form.into_open(), now + windows.hold);
    }
    let (counts, running) = book.counts();
    let interrupted = interrupted.len();
    info!(?counts, running, interrupted, damaged, "the ledger was read");
    Ok(Opened { store, book, fingerprints: contents.fingerprints, clock })
}

/// The entries of a file, as they are after the process that wrote it has ended.
struct Restarted {
    entries: Entries,
    /// Those that something was on its way for.
    interrupted: Vec<Fingerprint>,
    damaged: usize,
}

impl Restarted {
    fn of(rows: Rows<'_, EntryRow>, now: Time, windows: &Windows) -> Self {
        let (mut interrupted, mut damaged) = (Vec::new(), 0);
        let mut texts = form::Texts::default();
        let entry = |(fingerprint, form): EntryRow| {
            let entry = match form {
                Checked::Sound(mut form) => {
                    form.share(&mut texts);
                    form.into_entry()
                }
                Checked::Damaged => {
                    damaged += 1;
                    error!(%fingerprint, "an entry of the ledger is damaged: its prompt is held as unknown");
                    Entry { state: State::Unknown(now + windows.hold), ..Entry::claimed(store::nobody(), "".into()) }
                }
            };
            let (entry, changed) = after_restart(entry, now, windows);
            interrupted.extend(changed.then_some(fingerprint));
            (fingerprint, Box::new(entry))
        };
        let entries = Entries::of(rows.map(entry).collect(), windows);
        Self { entries, interrupted, damaged }
    }
}

/// The records of a file's jobs.
fn records(rows: Rows<'_, JobForm>) -> Records {
    let mut texts = form::Texts::default();
    let record = |mut form: JobForm| {
        form.share(&mut texts);
        form.into_record()
    };
    rows.filter_map(record).collect()
}

/// What was on its way when the process ended may have been paid: it is held from now on, once (M7). And nothing lives
/// longer from now on than it would if it began now (M10). Whether anything was on its way.
fn after_restart(mut entry: Entry, now: Time, windows: &Windows) -> (Entry, bool) {
    let was_sending = entry.state == State::Sending;
    entry.state = match entry.state {
        State::Sending => State::Unknown(now + windows.hold),
        State::Unknown(until) => State::Unknown(until.min(now + windows.hold)),
        State::Done(created, until) => State::Done(created, until.min(now + windows.delivery)),
        State::Rejected(created, until) => State::Rejected(created, until.min(now + windows.refusal)),
        State::Accepted(created) => State::Accepted(Created { at: created.at.min(now), ..created }),
        State::Claimed => State::Claimed,
    };
    if !entry.rest.refused.is_empty() {
        entry.rest.change().refused.iter_mut().for_each(|(_, at)| *at = now.min(*at));
    }
    let (beneath, beneath_changed) = match entry.beneath.take() {
        Some(beneath) => {
            let (beneath, changed) = after_restart(*beneath, now, windows);
            (Some(Box::new(beneath)), changed)
        }
        None => (None, false),
    };
    entry.beneath = beneath;
    (entry, was_sending || beneath_changed)
}

#[cfg(test)]
mod tests;
