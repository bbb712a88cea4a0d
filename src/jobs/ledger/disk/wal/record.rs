//! The form of a record: a header, whose checksum is of both, and its rows.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::STEP;
use super::name::Generation;

const CHECKSUM: usize = 24;
/// A record's header: generation, parent, number, length of its rows, checksum.
pub(super) const HEADER: usize = 16 + 16 + 4 + 4 + CHECKSUM;

/// What stands before the rows of a record.
pub(super) struct Header {
    pub(super) generation: Generation,
    pub(super) parent: Generation,
    pub(super) number: u32,
    pub(super) length: u32,
}

impl Header {
    pub(super) fn bytes(&self, rows: &[u8]) -> [u8; HEADER] {
        self.with(|front, sum| {
            let checksum = xxh3_128_with_seed(rows, xxh3_64(front)).to_le_bytes();
            sum.iter_mut().zip(checksum).for_each(|(to, from)| *to = from);
        })
    }

    /// As programs of the first three formats wrote it, and the rows behind it.
    pub(super) fn former_bytes(&self, rows: &[u8]) -> [u8; HEADER] {
        self.with(|front, sum| blake3::Hasher::new().update(front).update(rows).finalize_xof().fill(sum))
    }

    fn with(&self, check: impl FnOnce(&[u8], &mut [u8])) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let (front, sum) = bytes.split_at_mut(HEADER - CHECKSUM);
        let numbers = [self.number, self.length].map(u32::to_le_bytes);
        let parts = self.generation.iter().chain(&self.parent).chain(numbers.as_flattened());
        front.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        check(front, sum);
        bytes
    }
}

/// Bytes that have the form of a record.
pub(super) struct Record<'a> {
    head: &'a [u8; HEADER],
    pub(super) header: Header,
    pub(super) rows: &'a [u8],
    /// Where the next one begins.
    pub(super) end: usize,
}

impl<'a> Record<'a> {
    pub(super) fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk::<HEADER>()?;
        let (generation, rest_of_head) = head.split_first_chunk::<16>()?;
        let (parent, numbers) = rest_of_head.split_first_chunk::<16>()?;
        let (number, numbers) = numbers.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*numbers.first_chunk::<4>()?);
        let (generation, parent) = (*generation, *parent);
        let header = Header { generation, parent, number: u32::from_le_bytes(*number), length };
        let rows = rest.get(..usize::try_from(length).ok()?)?;
        let record = Self { head, header, rows, end: at + (HEADER + rows.len()).next_multiple_of(STEP) };
        // Nearly all that claims to have no rows is no record at all.
        let is_none = rows.is_empty() && (generation == Generation::default() || !record.is_whole());
        (!is_none).then_some(record)
    }

    /// Whether it is as it was written.
    pub(super) fn is_whole(&self) -> bool {
        [Header::bytes, Header::former_bytes].iter().any(|bytes| bytes(&self.header, self.rows) == *self.head)
    }
}
