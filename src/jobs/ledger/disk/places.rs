//! Where the rows of the large tables lie: in the order in which they came. Their names are random, so that in the order
//! of names nearly every row would be another page to write; in the order of time one page takes many, and what ends
//! together lies together. A row's key is its place and then its name; which name lies where is known in memory, in some
//! 40 bytes a row.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::batch::{Kind, Row};
use super::store;
use crate::request::fingerprint::PickBits;
use crate::request::verbatim::{Name, Verbatim};

/// The tables that have places; of others there are few rows, or they are named by time.
const PLACED: [Kind; 2] = [Kind::Entries, Kind::Jobs];

/// The places of all rows that have one.
#[derive(Debug, Default)]
pub(super) struct Places {
    names: Verbatim,
    known: HashMap<Name, u64, BuildHasherDefault<PickBits>>,
    /// The next row's.
    next: u64,
}

impl Places {
    /// The places in the tables.
    ///
    /// # Errors
    /// Where they cannot be read, or a row has lost its place.
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let (transaction, mut places) = (database.begin_read()?, Self::default());
        for kind in PLACED {
            for row in transaction.open_table(store::table(kind))?.iter()? {
                let (key, _) = row?;
                let (place, name) = parts(key.value()).ok_or_else(lost)?;
                places.next = places.next.max(place.saturating_add(1));
                places.known.insert(places.name(kind, name), place);
            }
        }
        Ok(places)
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
        let place = match &row.value {
            None => self.known.remove(&name)?,
            Some(_) => *self.known.entry(name).or_insert_with(|| {
                let place = self.next;
                // Damage can have put a row at the last place of all. Rows may share one: their names tell them apart.
                self.next = place.saturating_add(1);
                place
            }),
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
    redb::Error::Corrupted("a row has lost its place".to_owned())
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
