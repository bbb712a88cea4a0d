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

use std::collections::HashSet;
use std::path::Path;

use tracing::{error, info};

use self::contents::{EntryRow, Rows};
use self::form::JobForm;
use self::seal::Checked;
use self::store::{Store, StoreError};
use crate::clock::{Clock, Time};
use crate::jobs::book::{Book, Entries};
use crate::jobs::entry::{AttemptId, Created, Entry, State, Windows};
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

/// A file that is looked at while no gateway uses it.
pub struct Left {
    /// What was in it.
    pub opened: Opened,
    /// When its process wrote for the last time; the beginning of time if that is lost.
    pub heartbeat: Time,
    /// What is held for as long as ever from the next start on, whenever that is.
    pub held: HashSet<(Fingerprint, AttemptId)>,
}

/// Reads all of an opened file, as it is after the process that wrote it has ended.
///
/// # Errors
/// [`StoreError`].
pub fn read(mut store: Store, windows: &Windows, clock: Clock) -> Result<Opened, StoreError> {
    let clock = clock.not_before(store.heartbeat()?);
    let now = clock.now();
    let moment = Moment { now, held: now + windows.hold, windows };
    take(store, clock, &moment).map(|(opened, _)| opened)
}

/// The same, with all that ends as it stands in the file: when a start will be, and what it will make of it, is not known.
/// What was on its way counts as unknown since the process wrote for the last time.
///
/// # Errors
/// [`StoreError`].
pub fn look(mut store: Store, windows: &Windows, clock: Clock) -> Result<Left, StoreError> {
    let heartbeat = store.heartbeat()?;
    let moment = Moment { now: LAST, held: heartbeat + windows.hold, windows };
    let (opened, held) = take(store, clock.not_before(heartbeat), &moment)?;
    Ok(Left { opened, heartbeat, held: held.into_iter().collect() })
}

/// When what was written down goes on.
struct Moment<'a> {
    /// Nothing lives longer than if it began now.
    now: Time,
    /// Until when that is held of which nobody knows how it went on.
    held: Time,
    windows: &'a Windows,
}

/// Every window from then on holds all that is written.
const LAST: Time = Time::from_millis(u64::MAX);

/// What of an entry nobody knows how it went on.
type Doubtful = (Fingerprint, AttemptId);

fn take(mut store: Store, clock: Clock, moment: &Moment<'_>) -> Result<(Opened, Vec<Doubtful>), StoreError> {
    let contents = store.read(|rows| Restarted::of(rows, moment), records)?;
    let Restarted { entries, mut interrupted, damaged } = contents.entries;
    let mut book = Book::restored(entries, contents.jobs);
    book.keep_dirty();
    interrupted.iter().for_each(|(fingerprint, _)| book.mark(*fingerprint));
    for (digest, form) in contents.keys {
        book.restore_key(digest, form.into_record());
    }
    for (key, form) in contents.accounts {
        let (sums, name) = form.into_account();
        book.tab_mut().restore_account(key, sums, name);
    }
    for (attempt, form) in contents.tabs {
        book.tab_mut().restore(attempt, form.into_open(), moment.held);
    }
    let (counts, running) = book.counts();
    info!(?counts, running, interrupted = interrupted.len(), damaged = damaged.len(), "the ledger was read");
    interrupted.extend(damaged.into_iter().map(|fingerprint| (fingerprint, store::nobody())));
    Ok((Opened { store, book, fingerprints: contents.fingerprints, clock }, interrupted))
}

/// The entries of a file, as they are after the process that wrote it has ended.
struct Restarted {
    entries: Entries,
    /// What was on its way.
    interrupted: Vec<Doubtful>,
    /// Those that cannot be read.
    damaged: Vec<Fingerprint>,
}

impl Restarted {
    fn of(rows: Rows<'_, EntryRow>, moment: &Moment<'_>) -> Self {
        let (mut interrupted, mut damaged) = (Vec::new(), Vec::new());
        let mut texts = form::Texts::default();
        let entry = |(fingerprint, form): EntryRow| {
            let entry = match form {
                Checked::Sound(mut form) => {
                    form.share(&mut texts);
                    form.into_entry()
                }
                Checked::Damaged => {
                    damaged.push(fingerprint);
                    error!(%fingerprint, "an entry of the ledger is damaged: its prompt is held as unknown");
                    Entry { state: State::Unknown(moment.held), ..Entry::claimed(store::nobody(), "".into()) }
                }
            };
            let entry = after_restart(entry, moment, &mut |attempt| interrupted.push((fingerprint, attempt)));
            (fingerprint, Box::new(entry))
        };
        let entries = Entries::of(rows.map(entry).collect(), moment.windows);
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

/// What was on its way when the process ended may have been paid: it is held from now on, once (M7), and told to
/// `interrupted`. And nothing lives longer from now on than it would if it began now (M10).
fn after_restart(mut entry: Entry, moment: &Moment<'_>, interrupted: &mut dyn FnMut(AttemptId)) -> Entry {
    let Moment { now, held, windows } = *moment;
    entry.state = match entry.state {
        State::Sending => {
            interrupted(entry.attempt);
            State::Unknown(held)
        }
        State::Unknown(until) => State::Unknown(until.min(now + windows.hold)),
        State::Done(created, until) => State::Done(created, until.min(now + windows.delivery)),
        State::Rejected(created, until) => State::Rejected(created, until.min(now + windows.refusal)),
        State::Accepted(created) => State::Accepted(Created { at: created.at.min(now), ..created }),
        State::Claimed => State::Claimed,
    };
    if !entry.rest.refused.is_empty() {
        entry.rest.change().refused.iter_mut().for_each(|(_, at)| *at = now.min(*at));
    }
    entry.beneath = entry.beneath.take().map(|beneath| Box::new(after_restart(*beneath, moment, interrupted)));
    entry
}

#[cfg(test)]
mod tests;
