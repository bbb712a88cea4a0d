//! Where the rows of the large tables lie: in the order in which they came, log by log. Their names are random, so that in
//! the order of names nearly every row would be another page to write; in the order of time one page takes many, and what
//! ends together lies together. A row's key is its place and then its name; which name lies where is known in memory, in
//! some 40 bytes a row.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::batch::{Kind, Row};
use super::tables::{self, ENTRIES, JOBS, Table, beside, corrupted};
use crate::request::fingerprint::PickBits;
use crate::request::verbatim::{Name, Verbatim};

/// Where the tables say how many rows they have: what has lost its rows by damage cannot say that it never had any.
const ROWS: &[u8] = b"rows";

/// The places of one table's rows, by their names.
type Rows = HashMap<Name, u64, BuildHasherDefault<PickBits>>;

/// The places of all rows that have one. Of other tables there are few rows, or they are named by time.
#[derive(Debug, Default)]
pub(super) struct Places {
    names: Verbatim,
    entries: Rows,
    jobs: Rows,
    /// The next row's.
    next: u64,
}

impl Places {
    /// The places in the tables.
    ///
    /// # Errors
    /// Where they cannot be read, or are not what was written: rows that are missing, out of order, or there twice.
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let names = Verbatim::default();
        let rows = |table| rows(&database.begin_read()?, table, &names);
        let ((entries, first), (jobs, second)) = beside(|| rows(ENTRIES), || rows(JOBS))?;
        let places = Self { names, entries, jobs, next: first.max(second) };
        match tables::text(&database.begin_read()?, ROWS)? {
            Some(said) if said == places.said() => Ok(places),
            Some(_) => Err(corrupted("rows are missing")),
            None => Err(corrupted("it has lost its count of rows")),
        }
    }

    /// What says in the tables how many rows there are.
    pub(super) fn row(&self) -> Row {
        Row::text(ROWS, &self.said())
    }

    fn said(&self) -> String {
        format!("{} {}", self.entries.len(), self.jobs.len())
    }

    /// Whether the tables have as many rows as they should have.
    ///
    /// # Errors
    /// If they have not: what was written over or removed was not where it should be.
    pub(super) fn agree_with(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        for (table, rows) in [(ENTRIES, &self.entries), (JOBS, &self.jobs)] {
            if transaction.open_table(table)?.len()? != rows.len() as u64 {
                return Err(corrupted("a row was not at its place"));
            }
        }
        Ok(())
    }

    /// Whether there is an entry of this name.
    pub(super) fn has_entry(&self, name: &[u8]) -> bool {
        self.entries.contains_key(&self.names.name(&[name]))
    }

    /// The row as its table has it: at its place, if it is there already, else behind all others. `None` if it goes and
    /// is not there.
    pub(super) fn settle(&mut self, row: Row) -> Option<Row> {
        let rows = match row.kind {
            Kind::Entries => &mut self.entries,
            Kind::Jobs => &mut self.jobs,
            Kind::Keys | Kind::Tabs | Kind::Accounts | Kind::Meta => return Some(row),
        };
        let name = self.names.name(&[&row.key]);
        let place = match row.value {
            None => rows.remove(&name)?,
            Some(_) => *rows.entry(name).or_insert_with(|| {
                // Rows may share a place, if it is the last one of all: their names tell them apart.
                let place = self.next;
                self.next = place.saturating_add(1);
                place
            }),
        };
        Some(Row { key: key(place, &row.key), ..row })
    }
}

/// The places of a table's rows, and the first behind them all.
fn rows(transaction: &ReadTransaction, table: Table, names: &Verbatim) -> Result<(Rows, u64), redb::Error> {
    let table = transaction.open_table(table)?;
    let (mut rows, mut next, mut before) = (Rows::default(), 0, Vec::new());
    for row in table.iter()? {
        let (key, _) = row?;
        let (place, name) = parts(key.value()).ok_or_else(lost)?;
        if rows.insert(names.name(&[name]), place).is_some() {
            return Err(corrupted("a row stands there twice"));
        }
        if before.as_slice() >= key.value() {
            return Err(corrupted("rows are out of order"));
        }
        before.clear();
        before.extend_from_slice(key.value());
        next = next.max(place.saturating_add(1));
    }
    if table.len()? == rows.len() as u64 { Ok((rows, next)) } else { Err(corrupted("rows are missing")) }
}

/// The key of a row at a place.
pub(super) fn key(place: u64, name: &[u8]) -> Vec<u8> {
    [&place.to_be_bytes(), name].concat()
}

/// The name in a row's key.
///
/// # Errors
/// Where it has lost its place.
pub(super) fn name(key: &[u8]) -> Result<&[u8], redb::Error> {
    parts(key).map(|(_, name)| name).ok_or_else(lost)
}

/// A row's place and its name.
pub(super) fn parts(key: &[u8]) -> Option<(u64, &[u8])> {
    let (place, name) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*place), name))
}

fn lost() -> redb::Error {
    corrupted("a row has lost its place")
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    fn row(kind: Kind, name: &[u8], is_there: bool) -> Row {
        Row::new(kind, name, is_there.then(|| b"value".to_vec()))
    }

    #[test]
    fn rows_keep_their_places_and_new_ones_come_last() {
        let mut places = Places::default();
        let mut place = |kind, name: &[u8], is_there| {
            let settled = places.settle(row(kind, name, is_there))?;
            parts(&settled.key).map(|(place, of)| (place, of == name))
        };
        assert_eq!(place(Kind::Entries, b"z", true), Some((0, true)));
        assert_eq!(place(Kind::Entries, b"a", true), Some((1, true)));
        assert_eq!(place(Kind::Jobs, b"a", true), Some((2, true)), "another table's row of the same name");
        assert_eq!(place(Kind::Entries, b"z", true), Some((0, true)));
        assert_eq!(place(Kind::Entries, b"z", false), Some((0, true)));
        assert_eq!(place(Kind::Entries, b"z", false), None, "it has gone");
        assert_eq!(place(Kind::Entries, b"z", true), Some((3, true)), "it is new");
        assert!(places.has_entry(b"a") && !places.has_entry(b"b"));
    }

    #[test]
    fn other_tables_have_names_alone() {
        let (row, mut places) = (row(Kind::Accounts, b"a", true), Places::default());
        assert_eq!(places.settle(row.clone()), Some(row));
    }

    #[test]
    fn behind_the_last_place_of_all_rows_share_it() {
        let mut places = Places { next: u64::MAX, ..Places::default() };
        let keys = [b"a", b"b"].map(|name| places.settle(row(Kind::Jobs, name, true)).unwrap().key);
        assert_eq!(keys, [key(u64::MAX, b"a"), key(u64::MAX, b"b")]);
    }

    /// What is read of tables with these entries that say that they have so many rows.
    fn read(entries: &[(u64, &[u8])], said: &str) -> String {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let rows = entries.iter().map(|(place, name)| Row::new(Kind::Entries, &key(*place, name), Some(Vec::new())));
        let transaction = database.begin_write().unwrap();
        drop(transaction.open_table(JOBS).unwrap());
        tables::put(&transaction, &rows.chain([Row::text(ROWS, said)]).collect::<Vec<_>>()).unwrap();
        let mut places = Places::default();
        places.settle(row(Kind::Entries, b"a", true)).unwrap();
        assert_eq!(places.agree_with(&transaction).is_ok(), entries.len() == 1);
        transaction.commit().unwrap();
        match Places::of(&database) {
            Ok(places) => format!("{} from {}", places.said(), places.next),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn f43_rows_that_are_missing_or_there_twice_are_damage() {
        let (a, b) = (b"a".as_slice(), b"b".as_slice());
        assert_eq!(read(&[(3, a)], "1 0"), "1 0 from 4");
        assert_eq!(read(&[(3, a), (3, b)], "2 0"), "2 0 from 4");
        for (entries, said, why) in [
            (&[(3, a), (4, a)][..], "2 0", "a row stands there twice"),
            (&[(3, a)], "2 0", "rows are missing"),
            (&[], "1 0", "rows are missing"),
        ] {
            let told = read(entries, said);
            assert!(told.contains(why), "{told}");
        }
    }
}
