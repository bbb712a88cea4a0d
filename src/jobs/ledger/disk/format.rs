//! The format of the tables: which one a file has, and how an older one becomes this one. The fourth checks values and
//! records by XXH3, the third did by BLAKE3, the second had rows in the order of their names and not in that in which they
//! came, and the first had no log beside it.

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use tracing::info;

use super::batch::{Kind, Row};
use super::places::Places;
use super::seal::seal_for_all;
use super::store::{StoreError, new_log};
use super::tables::{Table, Tables, corrupted, put, table};
use super::wal;

/// The version of the tables.
pub(super) const FORMAT: u32 = 4;
const THIRD_FORMAT: u32 = 3;
const SECOND_FORMAT: u32 = 2;
const FIRST_FORMAT: u32 = 1;

/// Where the tables say it.
const NAME: &[u8] = b"format";

/// Entries and jobs by their names, as they lie in files of earlier formats.
const BY_NAME: [(Kind, Table); 2] =
    [(Kind::Entries, TableDefinition::new("entries")), (Kind::Jobs, TableDefinition::new("jobs"))];

/// The row that says which format a file has: to programs of earlier formats too.
pub(super) fn row() -> Row {
    Row::new(Kind::Meta, NAME, seal_for_all(NAME, &FORMAT.to_string()))
}

/// Checks the format of the tables, and brings an earlier one into this, in one commit. The third is told by `true`: its
/// values and its log are read as they are, and [`row`] is to be written before anything else.
///
/// # Errors
/// [`StoreError::Format`] for another one, [`StoreError::Unreadable`] for what is no ledger or a damaged one.
pub(super) fn check(tables: &mut Tables) -> Result<bool, StoreError> {
    let found = match tables.text(NAME)?.map(|text| text.parse()) {
        Some(Ok(FORMAT)) => return Ok(false),
        Some(Ok(THIRD_FORMAT)) => return Ok(true),
        Some(Ok(found @ (FIRST_FORMAT | SECOND_FORMAT))) => found,
        Some(Ok(found)) => return Err(StoreError::Format { path: tables.path().to_owned(), found }),
        Some(Err(_)) | None => return Err(tables.unreadable("it is no ledger of ours")),
    };
    info!(path = %tables.path().display(), format = found, "the ledger is brought into this version's form");
    // It says nowhere how many rows it has, and is not to be written anew without those that it has lost.
    tables.check_all()?;
    let mut more = Vec::new();
    if found == FIRST_FORMAT {
        let folder = tables.path().parent().unwrap_or(tables.path());
        more.push(new_log(folder).map_err(|error| StoreError::Io(folder.join(wal::FILE), error))?);
    }
    tables.ask(|database| raise(database, more))?;
    Ok(false)
}

fn raise(database: &Database, mut more: Vec<Row>) -> Result<(), redb::Error> {
    let (before, transaction, mut places) = (database.begin_read()?, database.begin_write()?, Places::default());
    for (kind, by_name) in BY_NAME {
        place_all(&before, &transaction, kind, by_name, &mut places)?;
        transaction.delete_table(by_name)?;
    }
    more.extend([row(), places.row()]);
    put(&transaction, &more)?;
    places.agree_with(&transaction)?;
    Ok(transaction.commit()?)
}

/// Moves all rows of a table; one that is missing would free its prompt.
fn place_all(
    before: &ReadTransaction,
    transaction: &WriteTransaction,
    kind: Kind,
    by_name: Table,
    places: &mut Places,
) -> Result<(), redb::Error> {
    let (from, mut to) = (before.open_table(by_name)?, transaction.open_table(table(kind))?);
    for row in from.iter()? {
        let (name, value) = row?;
        let row = Row::new(kind, name.value(), Some(value.value().to_vec()));
        if let Some(Row { key, value: Some(value), .. }) = places.settle(row) {
            to.insert(key.as_slice(), value.as_slice())?;
        }
    }
    if from.len()? == to.len()? { Ok(()) } else { Err(corrupted("rows are missing")) }
}
