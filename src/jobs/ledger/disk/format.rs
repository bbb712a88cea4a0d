//! The format of the tables: which one a file has, and how an older one becomes this one. The third has rows in the order
//! in which they came, the second had them in the order of their names, and the first had no log beside it.

use std::path::Path;

use redb::{Database, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::batch::Row;
use super::places;
use super::store::{ENTRIES, JOBS, StoreError, Table, guarded, new_log, put, text, unreadable};
use super::wal::{self, Wal};

/// The version of the tables.
pub(super) const FORMAT: u32 = 3;
const SECOND_FORMAT: u32 = 2;
const FIRST_FORMAT: u32 = 1;

/// Entries and jobs by their names, as they lie in files of before.
const ENTRIES_BY_NAME: Table = TableDefinition::new("entries");
const JOBS_BY_NAME: Table = TableDefinition::new("jobs");

/// What says it in the file.
pub(super) fn row() -> Row {
    Row::text(b"format", &FORMAT.to_string())
}

/// It must be one that is read here; a file of before becomes one of this, in one commit.
///
/// # Errors
/// [`StoreError::Format`] for another one, [`StoreError::Unreadable`] for what is no ledger.
pub(super) fn check(database: &Database, path: &Path) -> Result<(), StoreError> {
    let found = guarded(path, || text(database, b"format"))?;
    let found = found.map_err(|error| unreadable(path, &error.to_string()))?;
    match found.map(|text| text.parse()) {
        Some(Ok(FORMAT)) => Ok(()),
        Some(Ok(found @ (FIRST_FORMAT | SECOND_FORMAT))) => {
            let has_log = found != FIRST_FORMAT;
            if !has_log {
                let folder = path.parent().unwrap_or(path);
                Wal::create(folder).map_err(|error| StoreError::Io(folder.join(wal::FILE), error))?;
            }
            let raised = guarded(path, || raise(database, has_log))?;
            raised.map_err(|error| match error {
                redb::Error::Corrupted(why) => unreadable(path, &why),
                error => StoreError::Write(error.to_string()),
            })
        }
        Some(Ok(found)) => Err(StoreError::Format { path: path.to_owned(), found }),
        Some(Err(_)) | None => Err(unreadable(path, "it is no ledger of ours")),
    }
}

fn raise(database: &Database, has_log: bool) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for (by_name, placed) in [(ENTRIES_BY_NAME, ENTRIES), (JOBS_BY_NAME, JOBS)] {
        place_all(&transaction, by_name, placed)?;
        transaction.delete_table(by_name)?;
    }
    let log = if has_log { None } else { Some(new_log()?) };
    put(&transaction, [row()].iter().chain(&log))?;
    Ok(transaction.commit()?)
}

/// Moves all rows of a table; one that is missing would free its prompt.
fn place_all(transaction: &WriteTransaction, from: Table, to: Table) -> Result<(), redb::Error> {
    let (from, mut to) = (transaction.open_table(from)?, transaction.open_table(to)?);
    let mut place = 0;
    for row in from.iter()? {
        let (name, value) = row?;
        to.insert(places::key(place, name.value()).as_slice(), value.value())?;
        place += 1;
    }
    if from.len()? == place { Ok(()) } else { Err(redb::Error::Corrupted("rows are missing".to_owned())) }
}
