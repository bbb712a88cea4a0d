//! The write-ahead log beside the tables: a commit is one record at its end and one `fdatasync`, where the tables would
//! write a page for nearly every row. Now and then all that stands in it goes into the tables together; from then on the
//! log has another name, by which old bytes are never taken for new ones, and is written in the other half of its file:
//! should the tables fall back to their commit before, which names the old half, that one still tells the rest.
//!
//! A record that was acknowledged is whole on the disk, and only then comes the next one. So a log that is not whole
//! before its end is damaged, and is not read past that as if nothing were there. At its end a record that is not whole
//! was torn by a crash before it was acknowledged, or damaged since: what of it can be read counts, since each value
//! shows by its own seal whether it is sound, and a prompt is rather held than bought again (`HARDENING.md` F-43).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use tracing::error;

use super::batch::{KINDS, Kind, Row};
use super::form::{NAME, is_sound};

/// The file in the ledger's folder.
pub(super) const FILE: &str = "ledger.wal";
/// The bytes of records after which they go into the tables: how much one commit or one start has to do at most.
const ENOUGH: usize = 2 << 20;
/// Half of the file: the longest log. A batch that does not fit goes into the tables.
const HALF: usize = 4 << 20;
/// Records begin at multiples of this, so that they are found again behind a damaged one.
const STEP: usize = 8;
const CHECKSUM: usize = 16;
/// A record's header: generation, parent, number, length of its rows, checksum.
const HEADER: usize = 16 + 16 + 4 + 4 + CHECKSUM;
/// The length of a value that is deleted.
const DELETED: u32 = u32::MAX;

/// The name of a log: random, and written into the tables before its first record.
pub(super) type Generation = [u8; 16];

/// What the tables say about the log that belongs to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    /// Its own name.
    pub(super) generation: Generation,
    /// That of the log before it.
    parent: Generation,
    /// Whether it is in the second half of the file.
    in_second: bool,
}

impl Name {
    /// The name of the log after this one.
    pub(super) fn next(&self) -> io::Result<Self> {
        let mut generation = Generation::default();
        aws_lc_rs::rand::fill(&mut generation).map_err(|_| io::Error::other("the system gives no randomness"))?;
        Ok(Self { generation, parent: self.generation, in_second: !self.in_second })
    }

    /// As it stands in the tables.
    pub(super) fn to_text(self) -> String {
        let half = if self.in_second { 2 } else { 1 };
        format!("{} {} {half}", hex::encode(self.generation), hex::encode(self.parent))
    }

    /// The name of such a text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut digits = || <Generation>::try_from(hex::decode(words.next()?).ok()?).ok();
        let (generation, parent) = (digits()?, digits()?);
        Some(Self { generation, parent, in_second: words.next()? == "2" })
    }
}

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
    /// Makes the file; it lasts when this returns.
    pub(super) fn create(folder: &Path) -> io::Result<()> {
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
        options.open(folder.join(FILE))?.sync_all()?;
        File::open(folder)?.sync_all()
    }

    /// The file, which must be there, and what is in it.
    pub(super) fn open(folder: &Path) -> io::Result<(File, Vec<u8>)> {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path)?;
        Ok((OpenOptions::new().write(true).open(path)?, bytes))
    }

    /// A log without records, whose name the tables have.
    pub(super) const fn begin(file: File, name: Name) -> Self {
        Self { file, name, number: 0, length: 0, record: Vec::new() }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &Name {
        &self.name
    }

    /// From now on it is this one, whose name the tables have.
    pub(super) fn renew(&mut self, name: Name) {
        (self.name, self.number, self.length) = (name, 0, 0);
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
            put(&mut self.record, row)?;
        }
        let end = self.record.len();
        self.record.resize(end.next_multiple_of(STEP), 0);
        if self.length + self.record.len() > HALF {
            return Ok(false);
        }
        let Name { generation, parent, in_second } = self.name;
        let header = Header { generation, parent, number: self.number, length: length(end - HEADER)? };
        let (head, rows) = self.record.split_at_mut(HEADER);
        head.copy_from_slice(&header.bytes(rows.get(..end - HEADER).unwrap_or_default()));
        let half = if in_second { HALF } else { 0 };
        self.file.write_all_at(&self.record, (half + self.length) as u64)?;
        self.file.sync_data()?;
        self.length += self.record.len();
        self.number += 1;
        Ok(true)
    }
}

fn put(record: &mut Vec<u8>, row: &Row) -> io::Result<()> {
    let kind = KINDS.iter().position(|kind| *kind == row.kind).and_then(|place| u8::try_from(place).ok());
    record.push(kind.unwrap_or(u8::MAX));
    record.extend_from_slice(&length(row.key.len())?.to_le_bytes());
    let value = row.value.as_deref();
    record.extend_from_slice(&value.map_or(Ok(DELETED), |value| length(value.len()))?.to_le_bytes());
    record.extend_from_slice(&row.key);
    record.extend_from_slice(value.unwrap_or_default());
    Ok(())
}

fn length(bytes: usize) -> io::Result<u32> {
    let length = u32::try_from(bytes).ok().filter(|length| *length != DELETED);
    length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a row is too long"))
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
}

/// What a log says, and then the log after it, should the tables have forgotten that they know it.
pub(super) fn read(bytes: &[u8], generation: Generation) -> Result<Told, Damaged> {
    let (first, second) = bytes.split_at_checked(HALF).unwrap_or((bytes, &[]));
    let begins = |is_it: &dyn Fn(&Header) -> bool| {
        let is_first = |half: &&[u8]| Record::at(half, 0).is_some_and(|record| is_it(&record.header));
        [first, second].into_iter().find(is_first)
    };
    let mut all = Told::default();
    match begins(&|header| header.generation == generation) {
        Some(half) => read_half(half, generation, &mut all)?,
        None if [first, second].into_iter().any(|half| holds(half, 0, generation)) => return Err(Damaged),
        None => {}
    }
    let is_next = |header: &Header| header.parent == generation && header.generation != generation;
    if let Some(half) = begins(&is_next)
        && let Some(next) = Record::at(half, 0)
    {
        read_half(half, next.header.generation, &mut all)?;
    }
    Ok(all)
}

fn read_half(half: &[u8], generation: Generation, all: &mut Told) -> Result<(), Damaged> {
    let (mut at, mut number) = (0, 0);
    while let Some(record) = Record::at(half, at)
        && (record.header.generation, record.header.number) == (generation, number)
    {
        if !record.is_whole() {
            error!(
                record = number,
                "the last record of the ledger's log is torn or damaged: it counts as far as it goes"
            );
            record.take_what_stands(all);
            break;
        }
        all.rows.extend(record.rows());
        at = record.end;
        number += 1;
    }
    // Nothing may follow: it was written after what cannot be read here, which was therefore acknowledged.
    if holds(half, at, generation) { Err(Damaged) } else { Ok(()) }
}

/// Whether a whole record of a log stands there, or anywhere behind.
fn holds(half: &[u8], from: usize, generation: Generation) -> bool {
    let mut places = memchr::memmem::find_iter(half.get(from..).unwrap_or_default(), &generation);
    places.any(|place| Record::at(half, from + place).is_some_and(|record| record.is_whole()))
}

/// All rows that can be found, of whatever log.
pub(super) fn carve(bytes: &[u8]) -> Vec<Row> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let record = Record::at(bytes, at);
        // What claims to be a record and is not whole is one if another one follows where it says.
        let record = record
            .filter(|record| record.is_whole() || Record::at(bytes, record.end).is_some_and(|next| next.is_whole()));
        at = record.map_or(at + STEP, |record| {
            all.extend(record.rows());
            record.end
        });
    }
    all
}

/// What stands before the rows of a record.
struct Header {
    generation: Generation,
    parent: Generation,
    number: u32,
    length: u32,
}

impl Header {
    fn bytes(&self, rows: &[u8]) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let (front, sum) = bytes.split_at_mut(HEADER - CHECKSUM);
        let numbers = [self.number.to_le_bytes(), self.length.to_le_bytes()].concat();
        let parts = [&self.generation[..], &self.parent, &numbers];
        front.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
        let mut hasher = blake3::Hasher::new();
        hasher.update(front).update(rows).finalize_xof().fill(sum);
        bytes
    }
}

/// Bytes that have the form of a record.
struct Record<'a> {
    head: &'a [u8; HEADER],
    header: Header,
    rows: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

impl<'a> Record<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk::<HEADER>()?;
        let (generation, rest_of_head) = head.split_first_chunk::<16>()?;
        let (parent, numbers) = rest_of_head.split_first_chunk::<16>()?;
        let (number, numbers) = numbers.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*numbers.first_chunk::<4>()?);
        let (generation, parent) = (*generation, *parent);
        let header = Header { generation, parent, number: u32::from_le_bytes(*number), length };
        let rows = rest.get(..usize::try_from(length).ok()?).filter(|rows| !rows.is_empty())?;
        let end = at + (HEADER + rows.len()).next_multiple_of(STEP);
        Some(Self { head, header, rows, end })
    }

    /// Whether it is as it was written.
    fn is_whole(&self) -> bool {
        self.header.bytes(self.rows) == *self.head
    }

    /// Its rows.
    fn rows(&self) -> impl Iterator<Item = Row> + use<'a> {
        let mut rest = self.rows;
        std::iter::from_fn(move || {
            let (row, after) = row(rest)?;
            rest = after;
            Some(row)
        })
    }

    /// What counts of a record that is not whole. A deletion is not believed, since it may free what was paid.
    fn take_what_stands(&self, all: &mut Told) {
        for row in self.rows() {
            let Some(value) = &row.value else { continue };
            match row.kind {
                _ if is_sound(&row.key, value) => all.rows.push(row),
                Kind::Entries if row.key.len() == NAME => all.doubtful.push(row),
                Kind::Entries | Kind::Jobs | Kind::Keys | Kind::Tabs | Kind::Accounts | Kind::Meta => {}
            }
        }
    }
}

/// The first row of some, and the others.
fn row(bytes: &[u8]) -> Option<(Row, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let kind = *KINDS.get(usize::from(*kind))?;
    let (key, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*key)).ok()?)?;
    match u32::from_le_bytes(*value) {
        DELETED => Some((Row::new(kind, key, None), rest)),
        length => {
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Row::new(kind, key, Some(value.to_vec())), rest))
        }
    }
}
