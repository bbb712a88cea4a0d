//! The form of a record: a header, whose checksum is of both, and its rows.

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
        // Nearly all that claims to have no rows is no record at all.
        if rows.is_empty() && (generation == Generation::default() || header.bytes(rows) != *head) {
            return None;
        }
        let end = at + (HEADER + rows.len()).next_multiple_of(STEP);
        Some(Self { head, header, rows, end })
    }

    /// Whether it is as it was written.
    pub(super) fn is_whole(&self) -> bool {
        self.header.bytes(self.rows) == *self.head
    }
}
