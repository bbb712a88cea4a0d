//! What the tables say about the log that belongs to them.

use std::io;

use super::HALF;

/// The name of a log: random, and written into the tables before its first record.
pub(in super::super) type Generation = [u8; 16];

/// What the tables say about the log that belongs to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Name {
    /// Its own name.
    pub(in super::super) generation: Generation,
    /// That of the log before it.
    pub(super) parent: Generation,
    /// Whether it is in the second half of the file.
    pub(super) in_second: bool,
    /// Whether it began with a record of no rows: those of earlier versions did not.
    pub(super) has_beginning: bool,
}

impl Name {
    /// The name of a file's first log. It is in the first half, so that a new file is short.
    pub(in super::super) fn first() -> io::Result<Self> {
        Self { in_second: true, ..Self::default() }.next()
    }

    /// The name of the log after this one.
    pub(in super::super) fn next(&self) -> io::Result<Self> {
        let mut generation = Generation::default();
        aws_lc_rs::rand::fill(&mut generation).map_err(|_| io::Error::other("the system gives no randomness"))?;
        Ok(Self { generation, parent: self.generation, in_second: !self.in_second, has_beginning: true })
    }

    /// As it stands in the tables.
    pub(in super::super) fn to_text(self) -> String {
        let half = if self.in_second { 2 } else { 1 };
        let beginning = if self.has_beginning { " begun" } else { "" };
        format!("{} {} {half}{beginning}", hex::encode(self.generation), hex::encode(self.parent))
    }

    /// The name of such a text.
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut digits = || <Generation>::try_from(hex::decode(words.next()?).ok()?).ok();
        let (generation, parent) = (digits()?, digits()?);
        let in_second = words.next()? == "2";
        Some(Self { generation, parent, in_second, has_beginning: words.next().is_some() })
    }

    /// Whether a log that says nothing of its beginning is none.
    pub(in super::super) const fn has_beginning(&self) -> bool {
        self.has_beginning
    }

    /// The half of the file that it is in.
    pub(super) const fn half(&self) -> usize {
        if self.in_second { HALF } else { 0 }
    }
}
