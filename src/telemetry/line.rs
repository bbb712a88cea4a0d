//! One log line, JSON or text: a time, a level, a message and fields. Whatever a value holds, the line stays one
//! line without a raw control character, and no value is longer than a bound (`HARDENING.md` T-71).

use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::digits::{push_number, push_thousandths, push_time};
use super::settings::Level;
use crate::bill::money::Amount;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One JSON object.
    Json,
    /// Words for people.
    Text,
}

/// The name of a field, with what stands around it put together by the compiler.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) plain: &'static str,
    pub(super) json: &'static str,
    /// The same, up to the quote before a text.
    pub(super) quoted: &'static str,
    pub(super) text: &'static str,
}

/// The [`Name`] of a literal.
macro_rules! name {
    ($name:literal) => {
        $crate::telemetry::line::Name {
            plain: $name,
            json: concat!(",\"", $name, "\":"),
            quoted: concat!(",\"", $name, "\":\""),
            text: concat!(" ", $name, "="),
        }
    };
}
pub(super) use name;

/// A line that is being written.
pub(super) struct Line {
    text: String,
    style: Style,
}

impl Line {
    /// A line of this moment.
    pub(super) fn begin(style: Style, level: Level, message: &(impl Display + ?Sized)) -> Self {
        Self::at(now(), style, level, message)
    }

    /// The same, whose message is a word of ours.
    pub(super) fn of_word(style: Style, level: Level, message: &'static str) -> Self {
        let mut line = Self::head(now(), style, level);
        match style {
            Style::Json => line.plain(name!("message"), message),
            Style::Text => line.text.push_str(message),
        }
        line
    }

    fn at(since_epoch: Duration, style: Style, level: Level, message: &(impl Display + ?Sized)) -> Self {
        let mut line = Self::head(since_epoch, style, level);
        match style {
            Style::Json => line.field("message", message),
            Style::Text => line.escape(message),
        }
        line
    }

    /// All that stands before the message.
    fn head(since_epoch: Duration, style: Style, level: Level) -> Self {
        let mut text = String::with_capacity(USUAL_LENGTH);
        let (before, between, after) = match style {
            Style::Json => ("{\"time\":\"", "\",\"level\":\"", "\""),
            Style::Text => ("", " ", " "),
        };
        text.push_str(before);
        push_time(&mut text, since_epoch);
        text.push_str(between);
        text.push_str(level.name());
        text.push_str(after);
        Self { text, style }
    }

    /// Adds a field of text.
    pub(super) fn field(&mut self, name: &'static str, value: &(impl Display + ?Sized)) {
        self.name(name);
        if self.style == Style::Json {
            self.text.push('"');
            self.escape(value);
            self.text.push('"');
            return;
        }
        let start = self.text.len();
        self.escape(value);
        let bare = self.text.get(start..).is_some_and(|value| !value.is_empty() && value.bytes().all(is_bare));
        if !bare {
            self.text.insert(start, '"');
            self.text.push('"');
        }
    }

    /// Adds a field of a text that can hold nothing to escape, by its form: a word of ours, an id, a name that was checked.
    pub(super) fn plain(&mut self, name: Name, value: &str) {
        debug_assert!(value.bytes().all(is_bare), "{value:?}");
        self.open(name);
        self.text.push_str(value);
        self.close();
    }

    fn open(&mut self, name: Name) {
        self.text.push_str(if self.style == Style::Json { name.quoted } else { name.text });
    }

    fn close(&mut self) {
        if self.style == Style::Json {
            self.text.push('"');
        }
    }

    /// Adds a field of an address.
    pub(super) fn address(&mut self, name: Name, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.field(name.plain, &address) };
        self.open(name);
        for (place, octet) in address.octets().into_iter().enumerate() {
            if place > 0 {
                self.text.push('.');
            }
            push_number(&mut self.text, octet.into());
        }
        self.close();
    }

    /// Adds a field of a number.
    pub(super) fn number(&mut self, name: Name, value: u64) {
        self.known(name);
        push_number(&mut self.text, value);
    }

    /// Adds a field whose text is a JSON value already: a number, true or false.
    pub(super) fn literal(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        let _ = write!(self.text, "{value}");
    }

    /// Adds a field of an amount of money, in dollars.
    pub(super) fn dollars(&mut self, name: Name, amount: Amount) {
        self.known(name);
        // A string takes all that is written.
        let _ = amount.write(&mut self.text);
    }

    /// Adds a duration, in milliseconds.
    pub(super) fn milliseconds(&mut self, name: Name, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.known(name);
        push_number(&mut self.text, micros / 1_000);
        self.text.push('.');
        push_thousandths(&mut self.text, micros % 1_000);
    }

    /// The finished line, with its newline.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str(if self.style == Style::Json { "}\n" } else { "\n" });
        self.text
    }

    fn known(&mut self, name: Name) {
        self.text.push_str(if self.style == Style::Json { name.json } else { name.text });
    }

    fn name(&mut self, name: &'static str) {
        match self.style {
            Style::Json => {
                self.text.push_str(",\"");
                self.text.push_str(name);
                self.text.push_str("\":");
            }
            Style::Text => {
                self.text.push(' ');
                self.text.push_str(name);
                self.text.push('=');
            }
        }
    }

    fn escape(&mut self, value: &(impl Display + ?Sized)) {
        // An error only says that the bound was reached.
        let _ = write!(Escaped { text: &mut self.text, left: MAX_VALUE }, "{value}");
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes a value as the inside of a JSON string, up to a bound in bytes of the value.
struct Escaped<'line> {
    text: &'line mut String,
    left: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        if value.len() <= self.left && are_plain(value) {
            self.left -= value.len();
            self.text.push_str(value);
            return Ok(());
        }
        for character in value.chars() {
            let Some(left) = self.left.checked_sub(character.len_utf8()) else {
                self.left = 0;
                self.text.push('…');
                return Err(fmt::Error);
            };
            self.left = left;
            self.push(character)?;
        }
        Ok(())
    }
}

impl Escaped<'_> {
    fn push(&mut self, character: char) -> fmt::Result {
        match character {
            '"' => self.text.push_str("\\\""),
            '\\' => self.text.push_str("\\\\"),
            '\n' => self.text.push_str("\\n"),
            '\r' => self.text.push_str("\\r"),
            '\t' => self.text.push_str("\\t"),
            other if is_unseen(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    write!(self.text, "\\u{unit:04x}")?;
                }
            }
            other => self.text.push(other),
        }
        Ok(())
    }
}

/// Whether a byte may stand in a JSON string as it is, and is ASCII.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// Whether all bytes may, eight at a time: several texts of every request are asked for.
fn are_plain(text: &str) -> bool {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    words.iter().all(|word| are_eight_plain(u64::from_le_bytes(*word))) && rest.iter().all(|byte| is_plain(*byte))
}

/// [`is_plain`] of the eight bytes of a word: none has its high bit set, and none is below a space or equal to what
/// needs an escape. A borrow out of one byte can only falsify bytes above one that is not plain already.
const fn are_eight_plain(word: u64) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const fn below(word: u64, bound: u8) -> u64 {
        word.wrapping_sub(ONES * bound as u64) & !word
    }
    const fn equal(word: u64, byte: u8) -> u64 {
        below(word ^ (ONES * byte as u64), 1)
    }
    (word | below(word, b' ') | equal(word, b'"') | equal(word, b'\\') | equal(word, 0x7f)) & HIGH == 0
}

/// Whether a byte may stand in a text line without quotes around it.
const fn is_bare(byte: u8) -> bool {
    is_plain(byte) && byte != b' ' && byte != b'='
}

/// Characters that move a cursor, end a line, or turn the direction of writing: nobody sees them, all are fooled.
const fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// The bytes that most lines fit in.
const USUAL_LENGTH: usize = 512;
/// The longest value, in bytes before escaping.
const MAX_VALUE: usize = 1024;

#[cfg(test)]
mod tests;
