//! Tables for people, and what goes to standard output: a reader that has seen enough is no failure.

use std::io::{self, Write};

use super::{Failure, failed};

/// Lines to standard output.
pub(super) struct Output(io::BufWriter<io::StdoutLock<'static>>);

impl Output {
    /// Standard output.
    pub(super) fn new() -> Self {
        Self(io::BufWriter::new(io::stdout().lock()))
    }

    /// Writes a line. Whether anybody reads on.
    pub(super) fn line(&mut self, text: &str) -> Result<bool, Failure> {
        is_read(writeln!(self.0, "{text}"))
    }

    /// Writes what is left.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        is_read(self.0.flush()).map(|_| ())
    }
}

fn is_read(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

/// Rows under a header, as wide as what stands in them; the columns only grow from page to page.
pub(super) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// A table with this header, and the header.
    pub(super) fn new(header: &[&str]) -> (Self, Vec<String>) {
        let widths = header.iter().map(|name| name.chars().count()).collect();
        (Self { widths }, header.iter().map(|name| (*name).to_owned()).collect())
    }

    /// Rows as lines.
    pub(super) fn lines(&mut self, rows: &[Vec<String>]) -> Vec<String> {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let (mut table, header) = Table::new(&["A", "LONG", "C"]);
        let rows = [header, vec!["long one".to_owned(), "x".to_owned(), String::new()]];
        assert_eq!(table.lines(&rows), ["A         LONG  C", "long one  x"]);
        assert_eq!(table.lines(&rows[..1]), ["A         LONG  C"], "the next page stands under the first");
    }
}
