//! The files: one redb database in a folder of ours, opened by one process at a time, and the log beside it, which holds
//! the last commits until they go into the tables together. After an orderly end, and after a while without news, the
//! database holds everything. Every call may block; none is made on a thread that serves anybody.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use foldhash::HashMap;
use redb::Database;
use secrecy::zeroize::Zeroizing;
use tracing::{error, info};

use super::batch::{Batch, Kind, Row};
use super::contents::{Contents, EntryRow, Rows};
use super::folder::Folder;
use super::form::JobForm;
use super::format::{self, FORMAT};
use super::places::Places;
use super::tables::{ENTRIES, JOBS, KEYS, Tables, guarded, put};
use super::wal::{self, Name, Wal};
use crate::clock::Time;
use crate::jobs::entry::AttemptId;
use crate::jobs::ledger::KEYS_OVERLAP;
use crate::request::fingerprint::FingerprintKey;

/// The file in the ledger's folder.
pub(super) const FILE: &str = "ledger.redb";
/// Where the tables have the fingerprints' key.
pub(super) const KEY: &[u8] = b"fingerprint key";
/// Where they have the one before it, behind the time of the change.
const FORMER_KEY: &[u8] = b"former fingerprint key";
/// Where the tables name the log that belongs to them.
const LOG: &[u8] = b"log";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{0}: another process uses this ledger")]
    InUse(PathBuf),
    /// The folder or file cannot be made or opened.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    /// It is no ledger, or a damaged one.
    #[error("{path}: the ledger cannot be read: {why}", path = .0.display(), why = .1)]
    Unreadable(PathBuf, String),
    /// It was written by another version of this program.
    #[error("{path}: the ledger has format {found}, this version reads {FORMAT}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Writing failed.
    #[error("{0}")]
    Write(String),
}

impl StoreError {
    /// What is wrong, and what helps against it.
    pub fn with_advice(&self) -> String {
        let advice = match self {
            Self::Unreadable(path, _) => {
                let folder = path.parent().unwrap_or(path);
                format!(": `reelgate ledger recover --offline {}` copies what can be read of it", folder.display())
            }
            Self::InUse(_) | Self::Io(..) | Self::Format { .. } | Self::Write(_) => String::new(),
        };
        format!("{self}{advice}")
    }
}

/// Rows, each in its last version.
type Pending = HashMap<(Kind, Vec<u8>), Option<Vec<u8>>>;

/// An open ledger.
pub struct Store {
    tables: Tables,
    /// The log.
    wal: Wal,
    /// What stands in the log and not yet in the tables.
    pending: Pending,
    /// Where the rows of the tables lie.
    places: Places,
    /// Whether a write has failed: nothing is certain then but what is on the disk.
    has_failed: bool,
    folder: Folder,
}

impl Store {
    /// Opens the file in a folder; makes both if they are not there, for this user alone (M9).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_in(Folder::take(folder)?)
    }

    /// The same, in a folder that is this process's already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_in(folder: Folder) -> Result<Self, StoreError> {
        let path = folder.path().join(FILE);
        let broken = |error| StoreError::Io(path.clone(), error);
        match fs::metadata(&path) {
            Ok(file) if file.len() == 0 => return Err(StoreError::Unreadable(path, "it is empty".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => begin(folder.path(), &path)?,
            Err(error) => return Err(StoreError::Io(path, error)),
        }
        // What the system says against it is clearer than what the store would make of it.
        let file = OpenOptions::new().read(true).write(true).open(&path);
        drop(file.map_err(broken)?);
        let mut tables = Tables::open(&path)?;
        let is_former = format::check(&mut tables)?;
        let places = tables.ask(Places::of)?;
        let (wal, pending, is_torn) = log(&tables, &places)?;
        if is_former {
            info!(path = %path.display(), "the ledger is brought into this version's form");
            tables.write(&[format::row()])?;
        }
        let mut store = Self { tables, wal, pending, places, has_failed: false, folder };
        // What a process that did not end in order left in the log goes into the tables.
        store.guard(if is_torn { Self::begin_anew } else { Self::settle })?;
        Ok(store)
    }

    /// Opens the file in `folder`, which must be there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_existing(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        fs::metadata(&path).map_err(|error| StoreError::Io(path.clone(), error))?;
        Self::open(folder)
    }

    /// Begins a new file in `folder`, with this fingerprint key or a new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(folder: &Path, fingerprints: Option<&str>) -> Result<Self, StoreError> {
        let store = Self::open(folder)?;
        if let Some(hex) = fingerprints {
            store.tables.write(&[Row::text(KEY, hex)])?;
        }
        Ok(store)
    }

    /// The fingerprints' key before the one in use, for as long as what has its name from it may be open (M9).
    ///
    /// # Errors
    /// [`StoreError::Unreadable`].
    pub fn former_key(&self, now: Time) -> Result<Option<FingerprintKey>, StoreError> {
        let text = self.tables.text(FORMER_KEY)?;
        let former = text.as_deref().and_then(|text| text.split_once(' ')).and_then(|(since, hex)| {
            let since = Time::from_millis(since.parse().ok()?);
            FingerprintKey::from_hex(hex).ok().filter(|_| now.since(since) < KEYS_OVERLAP)
        });
        Ok(former)
    }

    /// From now on prompts have their names by another key; `from` is the one before it, if anything has its name from that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn change_key(
        &mut self,
        from: Option<&FingerprintKey>,
        to: &FingerprintKey,
        now: Time,
    ) -> Result<(), StoreError> {
        let former = from.map(|from| Zeroizing::new(format!("{} {}", now.as_millis(), from.to_hex().as_str())));
        let mut rows = vec![Row::text(KEY, &to.to_hex())];
        rows.extend(former.map(|former| Row::text(FORMER_KEY, &former)));
        self.tables.write(&rows)
    }

    /// Where it is, to be opened again.
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The last time that was written down; the beginning of time if that is lost.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`].
    pub fn heartbeat(&mut self) -> Result<Time, StoreError> {
        self.guard(Self::settle)?;
        let millis = self.tables.text(b"heartbeat")?.and_then(|millis| millis.parse().ok());
        Ok(Time::from_millis(millis.unwrap_or_default()))
    }

    /// Everything in it, with what is made of the entries on one thread and of the jobs on another.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`], where the file itself is damaged; damaged values are told one by one.
    pub fn read<E: Send, J>(
        &mut self,
        entries: impl FnOnce(Rows<'_, EntryRow>) -> E + Send,
        jobs: impl FnOnce(Rows<'_, JobForm>) -> J,
    ) -> Result<Contents<E, J>, StoreError> {
        self.guard(Self::settle)?;
        let contents = self.tables.ask(|database| Contents::read(database, &self.places, entries, jobs))?;
        contents.ok_or_else(|| self.tables.unreadable("its fingerprint key is damaged"))
    }

    /// Writes a batch; when this returns it is on the disk. Where there is no news it is time to have everything in the
    /// tables.
    ///
    /// # Errors
    /// [`StoreError::Write`]; nothing may be said of what is on the disk then.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let rows = batch.rows();
        // Without room for what the tables would take, the log goes on to its end (M8).
        let has_room = self.folder.has_room();
        // The heartbeat is always there.
        let is_quiet = rows.len() == 1 && !self.pending.is_empty() && has_room;
        self.guard(move |store| {
            let is_logged = !is_quiet && store.wal.append(&rows)?;
            store.pending.extend(rows.into_iter().map(|row| ((row.kind, row.key), row.value)));
            if is_logged && !(store.wal.is_long() && has_room) { Ok(()) } else { store.settle() }
        })
    }

    /// A write, after whose failure none follows.
    fn guard(&mut self, write: impl FnOnce(&mut Self) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Write("it has failed before".to_owned()));
        }
        self.has_failed = true;
        let path = self.tables.path().to_owned();
        let written = guarded(&path, || write(self))?;
        written.map_err(|error| match error {
            redb::Error::Corrupted(why) => StoreError::Unreadable(path, why),
            error => StoreError::Write(error.to_string()),
        })?;
        self.has_failed = false;
        Ok(())
    }

    /// Puts what stands in the log into the tables, which name the next one in the same commit.
    fn settle(&mut self) -> Result<(), redb::Error> {
        if self.pending.is_empty() { Ok(()) } else { self.begin_anew() }
    }

    /// The same, also if nothing stands in it that counts: the log has a new name then.
    fn begin_anew(&mut self) -> Result<(), redb::Error> {
        let name = self.wal.name().next()?;
        self.wal.prepare(&name)?;
        let rows = self.pending.drain().map(|((kind, key), value)| Row { kind, key, value });
        let mut rows: Vec<Row> = rows.filter_map(|row| self.places.settle(row)).collect();
        rows.extend([Row::text(LOG, &name.to_text()), self.places.row()]);
        // In the order of their keys, so that neighbours are written in one go. The first word, the place, mostly decides.
        let first = |row: &Row| (row.kind, row.key.first_chunk().map(|word| u64::from_be_bytes(*word)));
        rows.sort_unstable_by(|a, b| first(a).cmp(&first(b)).then_with(|| a.key.cmp(&b.key)));
        let transaction = self.tables.database()?.begin_write()?;
        put(&transaction, &rows)?;
        self.places.agree_with(&transaction)?;
        transaction.commit()?;
        self.wal.renew(name);
        Ok(())
    }
}

impl Drop for Store {
    /// An orderly end leaves everything in the tables. If that fails, the next start does it.
    fn drop(&mut self) {
        if !self.has_failed
            && let Err(error) = self.guard(Self::settle)
        {
            error!(%error, "the ledger's log is left to the next start");
        }
    }
}

/// The log that belongs to the tables, what stands in it and not in them, and whether its last record is torn.
fn log(tables: &Tables, places: &Places) -> Result<(Wal, Pending, bool), StoreError> {
    let name = tables.text(LOG)?.and_then(|text| Name::parse(&text));
    let name = name.ok_or_else(|| tables.unreadable("it has lost the name of its log"))?;
    let path = tables.path().with_file_name(wal::FILE);
    let is_no_log = |why: &str| StoreError::Unreadable(path.clone(), why.to_owned());
    let (file, bytes) = Wal::open(path.parent().unwrap_or(&path)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => is_no_log("it is missing"),
        _ => StoreError::Io(path.clone(), error),
    })?;
    let told = wal::read(&bytes, name.generation);
    let told = told.map_err(|wal::Damaged| is_no_log("it is damaged before its end"))?;
    if name.has_beginning() && !told.is_begun {
        return Err(is_no_log("its beginning is gone: it was emptied, or overwritten"));
    }
    let mut pending: Pending = told.rows.into_iter().map(|row| ((row.kind, row.key), row.value)).collect();
    for Row { kind, key, value } in told.doubtful {
        if !places.has_entry(&key) {
            pending.entry((kind, key)).or_insert(value);
        }
    }
    Ok((Wal::begin(file, name), pending, told.is_torn))
}

/// Begins the log of a new file, and gives the row that names it.
pub(super) fn new_log(folder: &Path) -> io::Result<Row> {
    let name = Name::first()?;
    Wal::create(folder, &name)?;
    Ok(Row::text(LOG, &name.to_text()))
}

/// Makes a new file under another name and gives it its own only when it is whole: a file that is empty or half made is
/// therefore never ours, and never taken for a new ledger (F-43).
fn begin(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let broken = |error| StoreError::Io(path.to_path_buf(), error);
    let new = folder.join("ledger.redb.new");
    // Of a start that was cut off; nobody else is here now.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(error)),
        Ok(()) | Err(_) => {}
    }
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(broken)?);
    let log = new_log(folder).map_err(broken)?;
    Tables::open(&new)?.ask(|database| write_first(database, log))?;
    fs::rename(&new, path).map_err(broken)?;
    // The name lasts only when its folder is written.
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(broken)
}

/// The tables of a new file, its format and its fingerprint key.
fn write_first(database: &Database, log: Row) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in [ENTRIES, JOBS, KEYS] {
        transaction.open_table(table)?;
    }
    let key = new_key().map_err(|error| redb::Error::Io(io::Error::other(error)))?;
    let rows = [format::row(), log, Places::default().row(), Row::text(KEY, &key)];
    put(&transaction, &rows)?;
    transaction.commit()?;
    Ok(())
}

/// The attempt of an entry whose own is lost: none has this id.
pub const fn nobody() -> AttemptId {
    AttemptId::from_bytes([0; 16])
}

/// 64 random hex digits.
fn new_key() -> Result<String, &'static str> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system gives no randomness")?;
    Ok(hex::encode(key))
}
