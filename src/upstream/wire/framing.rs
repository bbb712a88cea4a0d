//! Where the body of an answer ends (RFC 9112 §6.3). Pure: takes what has come, gives pieces of the body.

use bytes::{Buf, Bytes};

use super::Malformed;

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Framing {
    /// So many bytes; none: it is over.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Everything until the connection is closed.
    UntilClosed,
}

/// What comes next of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Chunk {
    /// The line with a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The end of its last line.
    End,
    /// Trailers, which are dropped, and the empty line.
    Trailers,
}

/// What can be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A piece of the body.
    Data(Bytes),
    /// Its end.
    End,
    /// Nothing before more has come.
    More,
}

impl Framing {
    /// Takes the next piece out of what has come.
    pub(super) fn take(&mut self, come: &mut Bytes) -> Result<Piece, Malformed> {
        loop {
            match self {
                Self::Length(0) => return Ok(Piece::End),
                Self::Length(left) => return Ok(piece(left, come)),
                Self::UntilClosed if come.is_empty() => return Ok(Piece::More),
                Self::UntilClosed => return Ok(Piece::Data(std::mem::take(come))),
                Self::Chunked(Chunk::Data(left)) => {
                    let piece = piece(left, come);
                    if *left == 0 {
                        *self = Chunk::End.into();
                    }
                    return Ok(piece);
                }
                Self::Chunked(chunk) => {
                    let Some((used, next)) = chunk.pass(come)? else { return Ok(Piece::More) };
                    come.advance(used);
                    *self = next;
                }
            }
        }
    }

    /// Whether there is nothing more to come.
    pub(in crate::upstream) const fn is_over(self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// The connection is at its end, and so is the body, if that was to end it.
    pub(super) fn end_with_connection(&mut self) -> Result<(), Malformed> {
        if *self != Self::UntilClosed {
            return Err(Malformed);
        }
        *self = Self::Length(0);
        Ok(())
    }

    /// How many bytes of the body are to come, if that is known.
    pub(in crate::upstream) const fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(_) | Self::UntilClosed => None,
        }
    }
}

impl Chunk {
    /// How long the line is that stands between pieces of the body, and what comes behind it. `None`: it is not whole yet.
    fn pass(self, come: &[u8]) -> Result<Option<(usize, Framing)>, Malformed> {
        let passed = match self {
            // httparse would take no digit for zero.
            Self::Size if come.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) => return Err(Malformed),
            // Nor does it mind a line's end in an extension, which others take for the end of the size (RFC 9112 §7.1.1).
            Self::Size if memchr::memchr(b'\n', come).is_some_and(|end| !ends_a_line(come, end)) => {
                return Err(Malformed);
            }
            Self::Size => whole(httparse::parse_chunk_size(come).map_err(|_| Malformed)?)
                .map(|(used, size)| (used, if size == 0 { Self::Trailers } else { Self::Data(size) }.into())),
            Self::Data(_) | Self::End => match come {
                [b'\r', b'\n', ..] => Some((2, Self::Size.into())),
                [] | [b'\r'] => None,
                _ => return Err(Malformed),
            },
            Self::Trailers => {
                let mut dropped = [httparse::EMPTY_HEADER; MOST_TRAILERS];
                let trailers = httparse::parse_headers(come, &mut dropped).map_err(|_| Malformed)?;
                whole(trailers).map(|(used, _)| (used, Framing::Length(0)))
            }
        };
        if passed.is_none() && come.len() > LONGEST_LINE { Err(Malformed) } else { Ok(passed) }
    }
}

impl From<Chunk> for Framing {
    fn from(chunk: Chunk) -> Self {
        Self::Chunked(chunk)
    }
}

/// Whether the line feed at `end` is the first line's, behind its one carriage return.
fn ends_a_line(come: &[u8], end: usize) -> bool {
    let line = come.get(..end).unwrap_or_default();
    memchr::memchr(b'\r', line).is_some_and(|at| at + 1 == end)
}

/// What httparse has read, if all of it has come.
pub(super) fn whole<T>(status: httparse::Status<T>) -> Option<T> {
    match status {
        httparse::Status::Complete(read) => Some(read),
        httparse::Status::Partial => None,
    }
}

/// What has come of `left` bytes.
fn piece(left: &mut u64, come: &mut Bytes) -> Piece {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(come.len());
    if length == 0 {
        return Piece::More;
    }
    *left = left.saturating_sub(length as u64);
    Piece::Data(come.split_to(length))
}

/// The longest line of a chunk's size with its extensions, and the longest trailers, in bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// The most trailers.
const MOST_TRAILERS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body that is read when `wire` comes in pieces of these lengths, whether it ended, and what is left behind it.
    fn read(mut framing: Framing, wire: &[u8], lengths: &[usize]) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let (mut body, mut come, mut rest) = (Vec::new(), Bytes::new(), wire);
        let mut lengths = lengths.iter().copied().cycle();
        loop {
            match framing.take(&mut come)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End => return Ok((body, true, [&come[..], rest].concat())),
                Piece::More if rest.is_empty() => {
                    return Ok((body, framing.end_with_connection().is_ok(), come.to_vec()));
                }
                Piece::More => {
                    let (fresh, later) = rest.split_at(lengths.next().unwrap_or(1).clamp(1, rest.len()));
                    come = [&come[..], fresh].concat().into();
                    rest = later;
                }
            }
        }
    }

    const CHUNKED: Framing = Framing::Chunked(Chunk::Size);

    #[test]
    fn r39_a_body_ends_where_its_framing_says_and_nowhere_else() {
        for (framing, wire, want) in [
            (Framing::Length(0), "rest", Ok(("", true, "rest"))),
            (Framing::Length(2), "{}rest", Ok(("{}", true, "rest"))),
            (Framing::Length(3), "{}", Ok(("{}", false, ""))),
            (Framing::UntilClosed, "{}", Ok(("{}", true, ""))),
            (CHUNKED, "2\r\n{}\r\n0\r\n\r\nrest", Ok(("{}", true, "rest"))),
            (CHUNKED, "1\r\n{\r\n1;a=\"b\"\r\n}\r\n000\r\n\r\n", Ok(("{}", true, ""))),
            (CHUNKED, "2 \r\n{}\r\n0\r\nAuthorization: x\r\nContent-Length: 3\r\n\r\nrest", Ok(("{}", true, "rest"))),
            (CHUNKED, "2\r\n{}\r\n", Ok(("{}", false, ""))),
            (CHUNKED, "2\r\n{}\r\n0\r\n", Ok(("{}", false, ""))),
            (CHUNKED, "2\r\n{}\r\n0\r\nx: y\r\n", Ok(("{}", false, "x: y\r\n"))),
            (CHUNKED, "2\r\n{}rest", Err(Malformed)),
            (CHUNKED, "2\r\n{}\r\nzz\r\n", Err(Malformed)),
            (CHUNKED, "\r\n", Err(Malformed)),
            (CHUNKED, ";a\r\n", Err(Malformed)),
            (CHUNKED, "-2\r\n{}\r\n", Err(Malformed)),
            (CHUNKED, "0x2\r\n{}\r\n", Err(Malformed)),
            (CHUNKED, "2\n{}\n0\n\n", Err(Malformed)),
            (CHUNKED, "2;a\nb\r\n{}\r\n0\r\n\r\n", Err(Malformed)),
            (CHUNKED, "2;a\rb\r\n{}\r\n0\r\n\r\n", Err(Malformed)),
            (CHUNKED, "11111111111111111\r\n", Err(Malformed)),
            (CHUNKED, "0\r\nno field\r\n\r\n", Err(Malformed)),
        ] {
            let want = want.map(|(body, ended, rest)| (body.into(), ended, rest.into()));
            for lengths in [[usize::MAX], [1], [2]] {
                assert_eq!(read(framing, wire.as_bytes(), &lengths), want, "{wire:?} by {lengths:?}");
            }
        }
    }

    #[test]
    fn lim11_lines_and_trailers_without_end_are_no_answer() {
        let long = "x".repeat(LONGEST_LINE);
        for wire in [format!("2;{long}"), format!("0\r\nx: {long}"), format!("0\r\n{}", "x: y\r\n".repeat(33))] {
            assert_eq!(read(CHUNKED, wire.as_bytes(), &[1000]), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn chunks_come_together_however_they_are_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            lengths in prop::collection::vec(1_usize..30, 1..8),
            rest in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire.extend_from_slice(&rest);
            prop_assert_eq!(read(CHUNKED, &wire, &lengths), Ok((chunks.concat(), true, rest)));
        }
    }
}
