//! The write-ahead log beside the tables: a commit is one record at its end and one `fdatasync`, where the tables would
//! write a page for nearly every row. Now and then all that stands in it goes into the tables together; from then on the
//! log has another name, by which old bytes are never taken for new ones, and is written in the other half of its file:
//! should the tables fall back to their commit before, which names the old half, that one still tells the rest.
//!
//! A log begins with a record of no rows, which is on the disk before the tables name it. So one in which it is not found
//! was emptied or overwritten, and is not taken for one in which nothing was written yet.
//!
//! A record that was acknowledged is whole on the disk, and only then comes the next one. So a log that is not whole
//! before its end is damaged, and is not read past that as if nothing were there. At its end a record that is not whole
//! was torn by a crash before it was acknowledged, or damaged since: what of it can be read counts, since each value
//! shows by its own seal whether it is sound, and a prompt is rather held than bought again (`HARDENING.md` F-43). What a
//! torn record was to overwrite still stands where it has holes; so each row begins with the log's mark, in one sector
//! with its lengths, and what does not is not read.

mod name;
mod record;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use serde::de::IgnoredAny;
use tracing::error;

use super::batch::{KINDS, Kind, Row};
use super::seal::{Checked, unseal, unseal_named};
use record::{HEADER, Header, Record};

pub(super) use name::{Generation, Name};

/// The file in the ledger's folder.
pub(super) const FILE: &str = "ledger.wal";
/// The bytes of records after which they go into the tables: how much one commit or one start has to do at most.
const ENOUGH: usize = 2 << 20;
/// Half of the file: the longest log. A batch that does not fit goes into the tables.
const HALF: usize = 4 << 20;
/// Records and rows begin at multiples of this, so that they are found again behind what is damaged, and so that no head
/// of a row lies in two sectors.
const STEP: usize = 16;
/// The record of no rows that a log begins with. It lies in one sector.
const BEGINNING: usize = HEADER.next_multiple_of(STEP);
/// A row's head: the log's mark, the kind and its inverse, and the lengths of key and value.
const ROW_HEAD: usize = STEP;
/// The bits by which bytes may differ from what they would be if only a few of them were flipped.
const FEW: u32 = 8;
/// The length of a value that is deleted.
const DELETED: u32 = u32::MAX;

/// The log as it is written.
pub(super) struct Wal {
    file: File,
    name: Name,
    /// The next record's.
    number: u32,
    /// The bytes of records so far.
    length: usize,
    /// The last record's bytes, kept for their room.
    record: Vec<u8>,
}

impl Wal {
    /// Makes the file of the first log, which begins; it lasts when this returns.
    pub(super) fn create(folder: &Path, name: &Name) -> io::Result<()> {
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(folder.join(FILE))?;
        begin(&file, name)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    }

    /// The file, which must be there, and what is in it.
    pub(super) fn open(folder: &Path) -> io::Result<(File, Vec<u8>)> {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        // What is in flight has its room beforehand (M8). Not all file systems can promise it, and one that is full already
        // has its say at the first write.
        _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 2 * HALF as u64);
        Ok((file, bytes))
    }

    /// A log without rows, whose name the tables have.
    pub(super) const fn begin(file: File, name: Name) -> Self {
        let mut log = Self { file, name, number: 0, length: 0, record: Vec::new() };
        log.renew(name);
        log
    }

    /// Its name.
    pub(super) const fn name(&self) -> &Name {
        &self.name
    }

    /// The beginning of the log after this one, where the one before this one was; the tables may name it when this
    /// returns.
    pub(super) fn prepare(&self, name: &Name) -> io::Result<()> {
        begin(&self.file, name)
    }

    /// From now on it is this one, whose name the tables have.
    pub(super) const fn renew(&mut self, name: Name) {
        (self.number, self.length) = if name.has_beginning { (1, BEGINNING) } else { (0, 0) };
        self.name = name;
    }

    /// Whether it is time to put it into the tables.
    pub(super) const fn is_long(&self) -> bool {
        self.length >= ENOUGH
    }

    /// Writes a record; when this returns it is on the disk. `false`: there is no room for it, and nothing was written.
    pub(super) fn append(&mut self, rows: &[Row]) -> io::Result<bool> {
        self.record.clear();
        self.record.resize(HEADER, 0);
        for row in rows {
            put(&mut self.record, mark(&self.name.generation), row)?;
        }
        let end = self.record.len();
        if self.length + self.record.len() > HALF {
            return Ok(false);
        }
        let Name { generation, parent, .. } = self.name;
        let header = Header { generation, parent, number: self.number, length: length(end - HEADER)? };
        let (head, rows) = self.record.split_at_mut(HEADER);
        head.copy_from_slice(&header.bytes(rows.get(..end - HEADER).unwrap_or_default()));
        self.file.write_all_at(&self.record, (self.name.half() + self.length) as u64)?;
        self.file.sync_data()?;
        self.length += self.record.len();
        self.number += 1;
        Ok(true)
    }
}

/// Writes the beginning of a log; it is on the disk when this returns.
fn begin(file: &File, name: &Name) -> io::Result<()> {
    let header = Header { generation: name.generation, parent: name.parent, number: 0, length: 0 };
    file.write_all_at(&header.bytes(&[]), name.half() as u64)?;
    file.sync_data()
}

/// What the rows of a log begin with.
const fn mark(generation: &Generation) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *generation;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn put(record: &mut Vec<u8>, mark: u64, row: &Row) -> io::Result<()> {
    let kind = KINDS.iter().position(|kind| *kind == row.kind).and_then(|place| u8::try_from(place).ok());
    let kind = kind.unwrap_or(u8::MAX);
    let key = u16::try_from(row.key.len()).map_err(|_| too_long())?;
    let value = row.value.as_deref();
    record.extend_from_slice(&mark.to_le_bytes());
    record.extend_from_slice(&[kind, !kind]);
    record.extend_from_slice(&key.to_le_bytes());
    record.extend_from_slice(&value.map_or(Ok(DELETED), |value| length(value.len()))?.to_le_bytes());
    record.extend_from_slice(&row.key);
    record.extend_from_slice(value.unwrap_or_default());
    record.resize(record.len().next_multiple_of(STEP), 0);
    Ok(())
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).ok().filter(|length| *length != DELETED).ok_or_else(too_long)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a row is too long")
}

/// The log has lost something that may have been acknowledged, and not even whose it was can be told.
#[derive(Debug)]
pub(super) struct Damaged;

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Its rows, in the order in which they were written.
    pub(super) rows: Vec<Row>,
    /// Entries of a last record that is not whole, whose values are not sound: they count where nothing else stands.
    pub(super) doubtful: Vec<Row>,
    /// Whether anything is left of such a record: nothing may be written over it under the same name.
    pub(super) is_torn: bool,
    /// Whether its first record is as it was written.
    pub(super) is_begun: bool,
}

/// What a log says, and then the log after it, should the tables have forgotten that they know it.
pub(super) fn read(bytes: &[u8], generation: Generation) -> Result<Told, Damaged> {
    let (first, second) = bytes.split_at_checked(HALF).unwrap_or((bytes, &[]));
    let halves = || [first, second].into_iter();
    let mut all = Told::default();
    match halves().find(|half| begins_near(half, &generation)) {
        Some(half) => {
            all.is_begun = Record::at(half, 0).is_some_and(|record| record.is_whole());
            read_half(half, generation, &mut all)?;
        }
        None if halves().any(|half| holds(half, 0, generation)) => return Err(Damaged),
        None => all.is_torn = halves().any(|half| !matches!(torn(half, &generation), Ok(rows) if rows.is_empty())),
    }
    let is_next = |header: &Header| header.parent == generation && header.generation != generation;
    let next = halves().find_map(|half| Some((half, Record::at(half, 0).filter(|record| is_next(&record.header))?)));
    if let Some((half, next)) = next {
        // Who wrote it had the tables' word for its name, so two things are damaged if it is not whole.
        next.is_whole().then_some(()).ok_or(Damaged)?;
        read_half(half, next.header.generation, &mut all)?;
    }
    Ok(all)
}

fn read_half(half: &[u8], generation: Generation, all: &mut Told) -> Result<(), Damaged> {
    let (mut at, mut number) = (0, 0);
    while let Some(record) = Record::at(half, at)
        && (record.header.generation, record.header.number) == (generation, number)
        && record.is_whole()
    {
        all.rows.extend(whole_rows(record.rows)?);
        at = record.end;
        number += 1;
    }
    let rest = half.get(at..).unwrap_or_default();
    let torn = torn(rest, &generation);
    all.is_torn |= !matches!(&torn, Ok(rows) if rows.is_empty());
    if begins_near(rest, &generation) {
        error!(record = number, "the last record of the ledger's log is torn or damaged: it counts as far as it goes");
        all.is_torn = true;
        all.take_what_stands(torn?);
    }
    // Nothing may follow: it was written after what cannot be read here, which was therefore acknowledged.
    if holds(half, at, generation) { Err(Damaged) } else { Ok(()) }
}

/// The rows behind the header of a record that is not whole.
fn torn(record: &[u8], generation: &Generation) -> Result<Vec<Row>, Damaged> {
    rows(record.get(HEADER..).unwrap_or_default(), mark(generation))
}

/// Whether these bytes begin with a generation, but for a few bits.
fn begins_near(bytes: &[u8], generation: &Generation) -> bool {
    let is_near =
        |first: &Generation| (u128::from_le_bytes(*first) ^ u128::from_le_bytes(*generation)).count_ones() <= FEW;
    bytes.first_chunk().is_some_and(is_near)
}

impl Told {
    /// What counts of a record that is not whole. A deletion is not believed, since it may free what was paid.
    fn take_what_stands(&mut self, rows: Vec<Row>) {
        for row in rows {
            let (Some(value), Kind::Entries, Ok(key)) = (&row.value, row.kind, row.key.as_slice().try_into()) else {
                let is_sound = |value: &Vec<u8>| matches!(unseal::<IgnoredAny>(&row.key, value), Checked::Sound(_));
                if row.value.as_ref().is_some_and(is_sound) {
                    self.rows.push(row);
                }
                continue;
            };
            match unseal_named::<IgnoredAny>(&key, value) {
                (name, Checked::Sound(_)) => self.rows.push(Row { key: name.to_vec(), ..row }),
                (_, Checked::Damaged) => self.doubtful.push(row),
            }
        }
    }
}

/// Whether a whole record of a log stands there, or anywhere behind.
fn holds(half: &[u8], from: usize, generation: Generation) -> bool {
    let mut places = memchr::memmem::find_iter(half.get(from..).unwrap_or_default(), &generation);
    places.any(|place| Record::at(half, from + place).is_some_and(|record| record.is_whole()))
}

/// The rows of a whole record, which its checksum covers: where each ends its lengths say, whatever a value looks like.
fn whole_rows(mut bytes: &[u8]) -> Result<Vec<Row>, Damaged> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(ROW_HEAD).ok_or(Damaged)?;
        let row = row(head.get(8..).unwrap_or_default(), rest)?.ok_or(Damaged)?;
        let length = ROW_HEAD + row.key.len() + row.value.as_ref().map_or(0, Vec::len);
        bytes = bytes.get(length.next_multiple_of(STEP)..).unwrap_or_default();
        all.push(row);
    }
    Ok(all)
}

/// The rows among these bytes. Each ends where the next mark stands, whatever its lengths say; between rows may be
/// anything.
fn rows(bytes: &[u8], mark: u64) -> Result<Vec<Row>, Damaged> {
    let (places, _) = bytes.as_chunks::<ROW_HEAD>();
    let heads = places.iter().enumerate().filter_map(|(place, head)| {
        let (first, lengths) = head.split_first_chunk()?;
        let is_marked = (u64::from_le_bytes(*first) ^ mark).count_ones() <= FEW;
        is_marked.then_some((place * ROW_HEAD, lengths))
    });
    let mut heads = heads.peekable();
    let mut all = Vec::new();
    while let Some((place, lengths)) = heads.next() {
        let end = heads.peek().map_or(bytes.len(), |(next, _)| *next);
        all.extend(row(lengths, bytes.get(place + ROW_HEAD..end).unwrap_or_default())?);
    }
    Ok(all)
}

/// The row that these lengths describe; `None` if it was cut off with the file. Its head lies in one sector with its mark,
/// so what no row can be is damage.
fn row(lengths: &[u8], bytes: &[u8]) -> Result<Option<Row>, Damaged> {
    let [place, inverse, a, b, length @ ..] = lengths else { return Err(Damaged) };
    let kind = *KINDS.get(usize::from(*place)).filter(|_| *place == !*inverse).ok_or(Damaged)?;
    let key = usize::from(u16::from_le_bytes([*a, *b]));
    if kind == Kind::Entries && key != size_of::<[u8; 32]>() {
        return Err(Damaged);
    }
    let Some((key, rest)) = bytes.split_at_checked(key) else { return Ok(None) };
    let length = length.first_chunk().map_or(DELETED, |length| u32::from_le_bytes(*length));
    // A value that says that it is longer than all that there is cannot be had: its key still counts.
    let value = || usize::try_from(length).ok().and_then(|length| rest.get(..length)).unwrap_or_default();
    Ok(Some(Row::new(kind, key, (length != DELETED).then(|| value().to_vec()))))
}

/// All rows that can be found, of whatever log.
pub(super) fn carve(bytes: &[u8]) -> Vec<Row> {
    let mut all = Told::default();
    let mut at = 0;
    while at < bytes.len() {
        let record = Record::at(bytes, at);
        // What claims to be a record and is not whole is one if another one follows where it says.
        let record = record
            .filter(|record| record.is_whole() || Record::at(bytes, record.end).is_some_and(|next| next.is_whole()));
        at = record.map_or(at + STEP, |record| {
            if record.is_whole() {
                all.rows.extend(whole_rows(record.rows).unwrap_or_default());
            } else {
                all.take_what_stands(rows(record.rows, mark(&record.header.generation)).unwrap_or_default());
            }
            record.end
        });
    }
    all.rows.extend(all.doubtful);
    all.rows
}

#[cfg(test)]
pub(super) mod tests;
