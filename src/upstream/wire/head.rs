//! The head of an answer: read, judged and cleaned in one pass (`HARDENING.md` ).

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use httparse::Header;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};

use super::Malformed;
use super::framing::{Chunk, Framing, whole};
use super::names::Names;
use crate::upstream::MOST_INTERIM;
use crate::upstream::headers;
use crate::upstream::mask::KeyPattern;

/// The head of an answer to a GET or a POST.
#[derive(Debug)]
pub(in crate::upstream) struct Head {
    /// Its status: not an interim one.
    pub(in crate::upstream) status: StatusCode,
    /// Its fields, cleaned of what is not for clients.
    pub(in crate::upstream) headers: HeaderMap,
    /// Where its body ends.
    pub(in crate::upstream) framing: Framing,
    /// Whether its body is in a content coding, though none was asked for.
    pub(in crate::upstream) is_encoded: bool,
    /// Whether another request may follow on its connection.
    pub(in crate::upstream) keeps: bool,
}

/// Reads the head of one answer.
pub(super) struct Reading<'a> {
    key: &'a KeyPattern,
    names: &'a Mutex<Names>,
    /// How many interim ones may still come before it.
    interim: usize,
    /// Whether one of those told of a body, which none has.
    is_doubtful: bool,
}

impl<'a> Reading<'a> {
    /// To be cleaned of this key.
    pub(super) const fn new(key: &'a KeyPattern, names: &'a Mutex<Names>) -> Self {
        Self { key, names, interim: MOST_INTERIM, is_doubtful: false }
    }

    /// Takes the head out of what has come, interim ones before it included. `None`: it is not whole yet.
    pub(super) fn head(&mut self, come: &mut Bytes) -> Result<Option<Head>, Malformed> {
        loop {
            let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
            let mut read = httparse::Response::new(&mut []);
            let parser = httparse::ParserConfig::default();
            let parsed = parser.parse_response_with_uninit_headers(&mut read, come, &mut space);
            let Some(length) = whole(parsed.map_err(|_| Malformed)?) else {
                return if come.len() < LONGEST { Ok(None) } else { Err(Malformed) };
            };
            let (Some(code), Some(version), true) = (read.code, read.version, length <= LONGEST) else {
                return Err(Malformed);
            };
            let head = match code {
                // Nobody asked for another protocol.
                101 => return Err(Malformed),
                // A few are normal, without end they are an attack on our patience (F-19).
                100..=199 => {
                    self.interim = self.interim.checked_sub(1).ok_or(Malformed)?;
                    self.is_doubtful |= Told::by(read.headers)?.tells_a_body();
                    None
                }
                _ => Some(self.clean(code, version, read.headers, &come.slice(..length))?),
            };
            come.advance(length);
            if head.is_some() {
                return Ok(head);
            }
        }
    }

    fn clean(&self, code: u16, version: u8, fields: &[Header<'_>], bytes: &Bytes) -> Result<Head, Malformed> {
        let told = Told::by(fields)?;
        let framing = told.framing(code, version)?;
        let keeps = told.keeps(code, version) && framing != Framing::UntilClosed && !self.is_doubtful;
        // Nearly never: then each field is looked at.
        let holds_key = self.key.is_in(bytes);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let form = names.of(fields)?;
        let mut headers = HeaderMap::with_capacity(fields.len());
        for (name, field) in form.passing(fields) {
            if told.names(field.name) || holds_key && of_name(fields, field.name).any(|value| self.key.is_in(value)) {
                continue;
            }
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| Malformed)?;
            headers.append(name, value);
        }
        // What it told was not so, and must not be told again (RFC 9110 §8.6).
        if code == 204 {
            headers.remove(CONTENT_LENGTH);
        }
        let status = StatusCode::from_u16(code).map_err(|_| Malformed)?;
        Ok(Head { status, headers, framing, is_encoded: told.is_encoded, keeps })
    }
}

/// The fields of an answer as clients are told them, by its head; `None` if that is none, or not whole.
pub fn cleaned(head: &[u8], key: &KeyPattern) -> Option<HeaderMap> {
    let names = Mutex::default();
    let head = Reading::new(key, &names).head(&mut Bytes::copy_from_slice(head)).ok()??;
    Some(head.headers)
}

/// What the fields tell of the message itself.
#[derive(Default)]
struct Told<'a> {
    length: Option<u64>,
    is_chunked: bool,
    is_encoded: bool,
    closes: bool,
    stays: bool,
    /// The fields that `Connection` lists.
    named: Vec<&'a [u8]>,
}

impl<'a> Told<'a> {
    fn by(fields: &[Header<'a>]) -> Result<Self, Malformed> {
        let mut told = Self::default();
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                // Somebody in between may have gone by the other one.
                let is_first = told.length.is_none();
                told.length = Some(digits(field.value).filter(|_| is_first).ok_or(Malformed)?);
            } else if is("transfer-encoding") {
                // Any other coding was not asked for, and could hide the key (M32).
                if told.is_chunked || !headers::is_chunked(field.value) {
                    return Err(Malformed);
                }
                told.is_chunked = true;
            } else if is("content-encoding") {
                told.is_encoded |= headers::is_coding(field.value);
            } else if is("connection") {
                for token in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    told.closes |= token.eq_ignore_ascii_case(b"close");
                    told.stays |= token.eq_ignore_ascii_case(b"keep-alive");
                    told.named.push(token);
                }
            }
        }
        Ok(told)
    }

    /// RFC 9112 §6.3, for a GET or a POST; a length beside a coding may mean two things.
    fn framing(&self, code: u16, version: u8) -> Result<Framing, Malformed> {
        match (code, self.is_chunked, self.length) {
            (_, true, Some(_)) => Err(Malformed),
            (204 | 304, ..) => Ok(Framing::Length(0)),
            (_, false, Some(length)) => Ok(Framing::Length(length)),
            (_, true, None) if version == 0 => Err(Malformed),
            (_, true, None) => Ok(Chunk::Size.into()),
            (_, false, None) => Ok(Framing::UntilClosed),
        }
    }

    /// Whether another request may follow. Not behind a body that may not be: sent all the same, and late, it would be
    /// read as the answer to that request.
    const fn keeps(&self, code: u16, version: u8) -> bool {
        let is_doubtful = matches!(code, 204 | 205 | 304) && self.tells_a_body();
        !is_doubtful && !self.closes && (self.stays || version > 0)
    }

    const fn tells_a_body(&self) -> bool {
        self.is_chunked || matches!(self.length, Some(1..))
    }

    /// Whether `Connection` takes this field away; what frames a body or tells what it is stays.
    fn names(&self, name: &str) -> bool {
        let is_named = self.named.iter().any(|named| name.as_bytes().eq_ignore_ascii_case(named));
        is_named && !headers::STAY.iter().any(|stays| name.eq_ignore_ascii_case(stays.as_str()))
    }
}

/// The values of all fields of a name.
fn of_name<'a>(fields: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// A number of digits and nothing else: no sign, no list.
fn digits(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// The longest head.
pub(super) const LONGEST: usize = 64 * 1024;
/// The most fields.
const MOST_FIELDS: usize = 100;

#[cfg(test)]
mod tests;
