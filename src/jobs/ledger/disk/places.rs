//! Where the rows of the large tables lie: in the order in which they came, log by log. Their names are random, so that in
//! the order of names nearly every row would be another page to write; in the order of time one page takes many, and what
//! ends together lies together. A row's key is its place and then its name; which name lies where is known in memory, in
//! some 40 bytes a row.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::batch::{Kind, Row};
use super::tables::{self, corrupted};
use crate::request::fingerprint::PickBits;
use crate::request::verbatim::{Name, Verbatim};

/// The tables that have places; of others there are few rows, or they are named by time.
const PLACED: [Kind; 2] = [Kind::Entries, Kind::Jobs];

/// Where the tables say how many rows they have: what has lost its rows by damage cannot say that it never had any.
const ROWS: &[u8] = b"rows";

/// The places of all rows that have one.
#[derive(Debug, Default)]
pub(super) struct Places {
    names: Verbatim,
    known: HashMap<Name, u64, BuildHasherDefault<PickBits>>,
    /// How many rows each table has.
    counts: [u64; PLACED.len()],
    /// The next row's.
    next: u64,
}

impl Places {
    /// The places in the tables.
    ///
    /// # Errors
    /// Where they cannot be read, or are not what was written: rows that are missing, out of order, or there twice.
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let (transaction, mut places) = (database.begin_read()?, Self::default());
        for kind in PLACED {
            let (table, mut before) = (transaction.open_table(tables::table(kind))?, Vec::new());
            for row in table.iter()? {
                let (key, _) = row?;
                let (place, name) = parts(key.value()).ok_or_else(lost)?;
                let is_new = places.known.insert(places.name(kind, name), place).is_none();
                if !is_new {
                    return Err(corrupted("a row stands there twice"));
                }
                if before.as_slice() >= key.value() {
                    return Err(corrupted("rows are out of order"));
                }
                before.clear();
                before.extend_from_slice(key.value());
                places.next = places.next.max(place.saturating_add(1));
                *places.count(kind) += 1;
            }
            if table.len()? != *places.count(kind) {
                return Err(corrupted("rows are missing"));
            }
        }
        match tables::text(database, ROWS)? {
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
        let [entries, jobs] = self.counts;
        format!("{entries} {jobs}")
    }

    /// Whether the tables have as many rows as they should have.
    ///
    /// # Errors
    /// If they have not: what was written over or removed was not where it should be.
    pub(super) fn agree_with(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        for (kind, count) in PLACED.into_iter().zip(self.counts) {
            if transaction.open_table(tables::table(kind))?.len()? != count {
                return Err(corrupted("a row was not at its place"));
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: Kind) -> &mut u64 {
        let [entries, jobs] = &mut self.counts;
        if kind == Kind::Entries { entries } else { jobs }
    }

    /// Whether there is a row of this name.
    pub(super) fn knows(&self, kind: Kind, name: &[u8]) -> bool {
        self.known.contains_key(&self.name(kind, name))
    }

    /// The row as its table has it: at its place, if it is there already, else behind all others. `None` if it goes and
    /// is not there.
    pub(super) fn settle(&mut self, row: Row) -> Option<Row> {
        if !PLACED.contains(&row.kind) {
            return Some(row);
        }
        let name = self.name(row.kind, &row.key);
        let place = match (&row.value, self.known.get(&name)) {
            (None, None) => return None,
            (None, Some(place)) => {
                let place = *place;
                self.known.remove(&name);
                *self.count(row.kind) -= 1;
                place
            }
            (Some(_), Some(place)) => *place,
            (Some(_), None) => {
                // Rows may share a place, if it is the last one of all: their names tell them apart.
                let place = self.next;
                self.next = place.saturating_add(1);
                self.known.insert(name, place);
                *self.count(row.kind) += 1;
                place
            }
        };
        Some(Row { key: key(place, &row.key), ..row })
    }

    fn name(&self, kind: Kind, name: &[u8]) -> Name {
        self.names.name(&[&[kind as u8], name])
    }
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
        assert!(places.knows(Kind::Jobs, b"a") && !places.knows(Kind::Jobs, b"z"));
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
}
