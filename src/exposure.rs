//! Whether others than this process's user can read a file that holds a secret (T-09). Who reads it says what that means.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FileType, StatVfsMountFlags};

/// How a file lies open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// On a disk of ours, where its mode is ours to change.
    Ours,
    /// A secret mounted by a supervisor (read-only, in memory, or of another user) often cannot be given another mode; and
    /// so it is where that cannot be told.
    Mounted,
}

impl Exposure {
    /// That of an open file; none if nobody else can read it, nobody can tell, or it stands in the folder of the
    /// supervisor's credentials.
    pub(crate) fn of(file: &File, path: &Path, credentials: Option<&Path>) -> Option<Self> {
        let status = rustix::fs::fstat(file).ok()?;
        if status.st_mode & GROUP_AND_OTHERS == 0 {
            return None;
        }
        // Ours alone is a regular file of our own user's: of another's, such as root's, we could not change the mode.
        let is_ours = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
            && status.st_uid == rustix::process::geteuid().as_raw();
        let read_only = rustix::fs::fstatvfs(file).map(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY));
        let in_memory = rustix::fs::fstatfs(file)
            .map(|system| u32::try_from(system.f_type).is_ok_and(|kind| kind == TMPFS || kind == RAMFS));
        match (is_ours, read_only, in_memory) {
            (true, Ok(false), Ok(false)) => Some(Self::Ours),
            _ if credentials.is_some_and(|folder| is_below(path, folder)) => None,
            _ => Some(Self::Mounted),
        }
    }
}

/// Whether a file is in a folder, wherever links lead.
fn is_below(path: &Path, folder: &Path) -> bool {
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => false,
    }
}

/// Where systemd puts a service's credentials. Its group's bit there may stand for the list of who may read it (acl(5)), and
/// that is the service alone.
pub(crate) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The mode bits that nobody but the owner should have.
const GROUP_AND_OTHERS: u32 = 0o077;
/// `TMPFS_MAGIC` of Linux's statfs(2).
pub(crate) const TMPFS: u32 = 0x0102_1994;
/// `RAMFS_MAGIC` of Linux's statfs(2).
const RAMFS: u32 = 0x8584_58f6;
