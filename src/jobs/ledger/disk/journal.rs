//! The one thread that writes the ledger. What changed while it wrote is the next batch, so that many submissions share
//! one write to the disk without a timer (`MONEY.md` M7). After a failure the file is closed, opened and checked anew,
//! and only when everything is written again is the ledger well (M8).

mod waiters;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::batch::Batch;
use super::folder::Folder;
use super::store::{Store, StoreError};
use crate::clock::Clock;
use crate::jobs::book::Book;
use crate::jobs::ledger::LedgerError;
use waiters::Waiters;

/// How far the writing has come.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// All changes up to this number are on the disk.
    upto: u64,
    /// The last write failed, and nothing has healed it yet.
    failing: bool,
    /// There is room for what is in flight, and for no more.
    cramped: bool,
    /// Since when a write has been running, if one is.
    writing_since: Option<Instant>,
}

/// A handle to the writer.
pub struct Journal {
    /// Numbers the changes; counted under the book's lock.
    changes: Arc<AtomicU64>,
    wake: Option<SyncSender<()>>,
    written: watch::Receiver<Written>,
    waiters: Arc<Waiters>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Starts the writer over an opened file.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(keeper: impl Keeper + 'static, book: Arc<Mutex<Book>>, clock: Clock) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let (tell, written) = watch::channel(Written::default());
        let changes = Arc::new(AtomicU64::new(0));
        let waiters = Arc::<Waiters>::default();
        let keeper = Box::new(keeper);
        let (counted, told) = (changes.clone(), waiters.clone());
        let writer = Writer { keeper, is_open: true, book, clock, changes: counted, tell, waiters: told };
        let thread = thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run(&woken))?;
        Ok(Self { changes, wake: Some(wake), written, waiters, thread: Some(thread) })
    }

    /// To be called after each step: numbers what changed, if anything did. It takes the book's lock, because the writer,
    /// when it is woken, asks for that first.
    pub fn note(&self, book: MutexGuard<'_, Book>) -> Option<u64> {
        if !book.is_dirty() {
            return None;
        }
        let change = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        drop(book);
        if let Some(wake) = &self.wake {
            // Full means that it is awake already.
            _ = wake.try_send(());
        }
        Some(change)
    }

    /// The number of the last change.
    pub fn last(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Waits until a change is on the disk.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] as soon as writing fails.
    pub async fn written(&self, change: Option<u64>) -> Result<(), LedgerError> {
        let Some(change) = change else { return Ok(()) };
        let told = self.waiters.join(change);
        // It may have been written before there was anybody to be told.
        let Written { upto, failing, .. } = *self.written.borrow();
        match (upto >= change, failing) {
            (true, _) => Ok(()),
            (false, true) => Err(LedgerError::Unavailable),
            (false, false) => told.await.unwrap_or(Err(LedgerError::Unavailable)),
        }
    }

    /// Whether what is written reaches the disk, and soon.
    pub fn is_well(&self) -> bool {
        let written = *self.written.borrow();
        let hangs = written.writing_since.is_some_and(|since| since.elapsed() > STALLED);
        !written.failing && !written.cramped && !hangs && self.written.has_changed().is_ok()
    }
}

impl Drop for Journal {
    /// Writes what is left.
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the ledger's thread had failed");
        }
    }
}

/// What keeps batches.
pub trait Keeper: Send {
    /// Writes a batch; when this returns it is kept.
    ///
    /// # Errors
    /// Nothing may be said then of what is kept; it must be opened again.
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Whether there is room for more than what is in flight.
    fn has_room(&self) -> bool;

    /// Opens and checks anew what was closed by a failure.
    ///
    /// # Errors
    /// Why that does not work yet.
    fn open_again(&mut self) -> Result<(), StoreError>;
}

/// A [`Store`] that is closed by a failure.
pub struct File {
    /// This process's, also while there is no store.
    folder: Folder,
    store: Option<Store>,
}

impl From<Store> for File {
    fn from(store: Store) -> Self {
        Self { folder: store.folder().clone(), store: Some(store) }
    }
}

impl Keeper for File {
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let closed = || StoreError::Write("it is closed".to_owned());
        let written = self.store.as_mut().ok_or_else(closed).and_then(|store| store.write(batch));
        // Nothing is certain of a file whose write failed.
        written.inspect_err(|_| self.store = None)
    }

    fn has_room(&self) -> bool {
        self.folder.has_room()
    }

    fn open_again(&mut self) -> Result<(), StoreError> {
        let mut store = Store::open_in(self.folder.clone())?;
        store.read(|entries| entries.for_each(drop), |jobs| jobs.for_each(drop))?;
        self.store = Some(store);
        Ok(())
    }
}

struct Writer {
    keeper: Box<dyn Keeper>,
    /// Not after a failure, until it was opened again.
    is_open: bool,
    book: Arc<Mutex<Book>>,
    clock: Clock,
    changes: Arc<AtomicU64>,
    tell: watch::Sender<Written>,
    waiters: Arc<Waiters>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.waiters.close();
    }
}

impl Writer {
    fn run(mut self, woken: &Receiver<()>) {
        // What the start has found unfinished is settled once (M7): a later start must not find it so again.
        if self.book().is_dirty() {
            self.write_all();
        }
        loop {
            let is_cramped = self.tell.borrow().cramped;
            let woken_by = woken.recv_timeout(if is_cramped { BETWEEN_TRIES } else { HEARTBEAT });
            let ended = woken_by == Err(RecvTimeoutError::Disconnected);
            // The first change wakes it. Where it shares a core with those who make changes, whoever of them can run adds
            // its own first: a fifth of the batches under load.
            thread::yield_now();
            // Where room is short, heartbeats leave it to what must be written.
            if is_cramped && woken_by == Err(RecvTimeoutError::Timeout) && !self.keeper.has_room() {
                continue;
            }
            // What it is woken for may have gone with the batch before.
            if woken_by.is_err() || self.book().is_dirty() {
                self.write_all();
            }
            while !self.is_open && !ended {
                if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(BETWEEN_TRIES) {
                    break;
                }
                match self.keeper.open_again() {
                    Ok(()) => self.is_open = true,
                    Err(error) => error!(%error, "the ledger cannot be opened again yet"),
                }
                self.write_all();
            }
            if ended {
                return;
            }
        }
    }

    /// Writes everything that changed until now, as one batch.
    fn write_all(&mut self) {
        if !self.is_open {
            return;
        }
        let (dirty, upto, batch) = {
            let mut book = self.book();
            let dirty = book.take_dirty();
            let upto = self.changes.load(Ordering::Relaxed);
            let batch = Batch::of(&book, &dirty, self.clock.now());
            (dirty, upto, batch)
        };
        self.tell.send_modify(|written| written.writing_since = Some(Instant::now()));
        let kept = self.keeper.write(&batch);
        match kept {
            Ok(()) => {
                self.book().settle_dirty();
                let cramped = !self.keeper.has_room();
                let before = self.tell.send_replace(Written { upto, cramped, ..Written::default() });
                self.waiters.kept(upto);
                if cramped && !before.cramped {
                    error!("the ledger's disk is nearly full: nothing is bought until there is room");
                } else if !cramped && (before.failing || before.cramped) {
                    info!("the ledger is well again");
                }
            }
            Err(error) => {
                error!(%error, "the ledger could not be written: nothing is bought until it can");
                self.book().put_back_dirty(dirty);
                self.is_open = false;
                self.tell.send_modify(|written| (written.failing, written.writing_since) = (true, None));
                self.waiters.failed();
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the time is written down if nothing else is (M10).
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a write may take before nothing new is begun: it would only wait for it (F-63).
const STALLED: Duration = Duration::from_secs(2);
/// How long a failed ledger rests before it is opened again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
