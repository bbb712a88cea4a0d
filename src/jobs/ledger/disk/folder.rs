//! The ledger's folder: one process has it at a time, and it must have room for what is still to be written.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, FlockOperation};

use super::store::{FILE, StoreError};
use super::wal;

/// The file whose lock is the process's that has the folder.
pub(super) const LOCK: &str = "ledger.lock";
/// The bytes that must be free for what goes from the log into the tables. Where fewer are, nothing new is bought, and
/// what is in flight has its room in the log, which was reserved beforehand (M8).
const ROOM: u64 = 16 << 20;

/// A folder that is this process's until the last copy of this value goes: also while the ledger in it is closed after a
/// failure.
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    lock: Arc<fs::File>,
    /// How many bytes must be free.
    pub(super) least: u64,
}

impl Folder {
    /// Takes the folder for this process alone; makes it if it is not there, for this user alone (M9).
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it, [`StoreError::Io`] if it cannot be had.
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        let file = path.join(FILE);
        let taken = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
            let lock = options.open(path.join(LOCK))?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            io::Result::Ok(lock)
        };
        match taken() {
            Ok(lock) => Ok(Self { path: path.to_owned(), lock: Arc::new(lock), least: ROOM }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::InUse(file)),
            // Of a folder that cannot be had the system says what it makes of a file in it.
            Err(error) => Err(look(path).err().unwrap_or(StoreError::Io(file, error))),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is room; also where nobody can tell.
    pub fn has_room(&self) -> bool {
        let free = rustix::fs::fstatvfs(&*self.lock).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        free.map_or(true, |free| free >= self.least)
    }
}

/// Whether a process could take the folder, as far as that is seen without making anything: it is there, or the nearest
/// one above it is, and this user may write there.
///
/// # Errors
/// [`StoreError::Io`].
pub fn look(path: &Path) -> Result<(), StoreError> {
    let refused = |at: &Path, why: &dyn fmt::Display| {
        let why = if at == path { why.to_string() } else { format!("{}: {why}", at.display()) };
        StoreError::Io(path.to_owned(), io::Error::other(why))
    };
    let there = nearest(path);
    if !fs::metadata(there).map_err(|error| refused(there, &error))?.is_dir() {
        return Err(refused(there, &"not a folder"));
    }
    // Root may write there, if one goes by the mode.
    let system = rustix::fs::statfs(there).map(|system| u32::try_from(system.f_type).unwrap_or_default());
    if system.is_ok_and(|kind| [PROC, SYSFS].contains(&kind)) {
        return Err(refused(there, &"the system's own, where no folder can be made"));
    }
    let may = |at: &Path, wanted| {
        rustix::fs::accessat(CWD, at, wanted, AtFlags::EACCESS).map_err(|error| refused(at, &io::Error::from(error)))
    };
    // In one above it is only made, and of the folder itself the names are read.
    let names = if there == path { Access::READ_OK } else { Access::empty() };
    may(there, names | Access::WRITE_OK | Access::EXEC_OK)?;
    for file in [FILE, LOCK, wal::FILE].map(|name| path.join(name)) {
        match fs::metadata(&file) {
            Ok(found) if found.is_dir() => return Err(refused(&file, &"not a file")),
            Ok(_) => may(&file, Access::READ_OK | Access::WRITE_OK)?,
            // It is not there yet, or it was told already why nobody can see.
            Err(_) => {}
        }
    }
    Ok(())
}

/// The path itself, or the nearest one above it where something is: a link that leads nowhere too, for no folder can be
/// made in its place.
fn nearest(path: &Path) -> &Path {
    let is_absent = |at: &Path| {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        fs::symlink_metadata(at).is_err_and(|error| absent.contains(&error.kind()))
    };
    // Of a relative path the last one above is empty, and stands for where the process is.
    let here = |at| if at == Path::new("") { Path::new(".") } else { at };
    path.ancestors().map(here).find(|at| !is_absent(at)).unwrap_or(path)
}

/// `PROC_SUPER_MAGIC` and `SYSFS_MAGIC` of Linux's statfs(2).
const PROC: u32 = 0x9fa0;
const SYSFS: u32 = 0x6265_6572;
