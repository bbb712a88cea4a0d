//! A submission as understood: its body parsed, its user, and what its headers wish for. Built from the request, and all
//! that later stages decide from; the bytes themselves go on as they came.

use hyper::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::head::Header;
use super::inline::Inline;
use super::json;
use super::route::Operation;
use super::schema::Schema;
use super::settings::{Mode, UnknownFields};
use super::spelling;
use crate::error::{Error, Fault};

/// The schemas of both routes and how strictly they count; compiled once per configuration.
#[derive(Debug)]
pub struct Validation {
    /// What happens to a body that breaks its schema.
    pub mode: Mode,
    /// What happens to a field that the schema does not name.
    pub unknown_fields: UnknownFields,
    /// The schema of generations.
    pub generations: Schema,
    /// The schema of edits.
    pub edits: Schema,
}

impl Validation {
    /// The schema of a route.
    pub const fn schema(&self, operation: Operation) -> &Schema {
        match operation {
            Operation::Generations => &self.generations,
            Operation::Edits => &self.edits,
        }
    }
}

/// What the headers of a submission ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A new job (`MONEY.md` M13).
    pub no_cache: bool,
    /// `Reelgate-Variation`: another take of the same prompt.
    pub variation: Option<String>,
    /// `Idempotency-Key`, without quotes.
    pub idempotency_key: Option<String>,
    /// `Reelgate-Dry-Run: 1`: only to be told what would happen.
    pub dry_run: bool,
}

impl Wishes {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a header that stands twice, is empty, too long or not printable ASCII.
    pub fn read(header: &Header<'_>) -> Result<Self, Error> {
        // fetch's cache: "no-store" and "reload" add both headers by themselves: that is no wish (M13).
        let no_cache = has_token(header, &CACHE_CONTROL, "no-cache") && !has_token(header, &PRAGMA, "no-cache");
        let variation = single(header, &REELGATE_VARIATION, "Reelgate-Variation", MAX_VARIATION)?;
        let key = single(header, &IDEMPOTENCY_KEY, "Idempotency-Key", MAX_KEY)?;
        let idempotency_key = key.map(|key| unquoted(&key)).transpose()?;
        let dry_run = only(header, &REELGATE_DRY_RUN, "Reelgate-Dry-Run")?;
        let dry_run = match dry_run.map(|value| value.as_bytes().trim_ascii()) {
            None => false,
            Some(b"1") => true,
            Some(_) => {
                let message = "Reelgate-Dry-Run takes 1, or is left out".into();
                return Err(Error::BadRequest { param: "Reelgate-Dry-Run", message });
            }
        };
        Ok(Self { no_cache, variation, idempotency_key, dry_run })
    }
}

/// A submission.
#[derive(Debug)]
pub struct Submission<'a> {
    /// The body, parsed.
    pub fields: Value,
    /// The letters of a long medium that the fields are without.
    pub inline: Option<Inline<'a>>,
    /// The body's `user`, in Unicode's form NFC.
    pub user: Option<String>,
    /// The model it asks for, the usual one where it names none; `None` where what it names is no name, or where it names
    /// several under different spellings of the field.
    pub model: Option<String>,
    /// Deprecated fields that were sent.
    pub deprecated: Vec<String>,
    /// Faults that `validation.mode = "warn"` lets pass.
    pub faults: Vec<Fault>,
}

impl<'a> Submission<'a> {
    /// Understands a body.
    ///
    /// # Errors
    /// [`Error::InvalidJson`], or [`Error::InvalidRequest`] with all faults at once.
    pub fn parse(operation: Operation, body: &'a [u8], validation: &Validation) -> Result<Self, Error> {
        // An operator's schema may say anything about the letters; of ours they are all that is said.
        if validation.schema(operation).is_builtin()
            && let Some((fields, inline)) = Inline::cut(body)
            && let Ok(submission) = Self::of(operation, fields, Some(inline), validation)
            && submission.faults.is_empty()
        {
            return Ok(submission);
        }
        // What is wrong is told of the body as it came.
        Self::of(operation, json::parse(body)?, None, validation)
    }

    fn of(
        operation: Operation,
        fields: Value,
        inline: Option<Inline<'a>>,
        validation: &Validation,
    ) -> Result<Self, Error> {
        let schema = validation.schema(operation);
        let mut faults = match validation.mode {
            Mode::Off => Vec::new(),
            Mode::Strict | Mode::Warn => schema.check(&fields, validation.unknown_fields),
        };
        // Limits count by it, so its form is checked in every mode.
        let user = match only_user(&fields) {
            Ok(user) => user,
            Err(fault) if validation.mode == Mode::Strict => {
                faults.retain(|other| other.param != fault.param);
                faults.push(fault);
                return Err(Error::InvalidRequest(faults));
            }
            Err(fault) => return Err(Error::InvalidRequest(vec![fault])),
        };
        if validation.mode == Mode::Strict && !faults.is_empty() {
            return Err(Error::InvalidRequest(faults));
        }
        let deprecated = schema.warnings(&fields);
        let model = spelling::text(&fields, "model", USUAL_MODEL).map(str::to_owned);
        Ok(Self { fields, inline, user, model, deprecated, faults })
    }
}

/// Whether a body is what we read: plain JSON in UTF-8, without a content coding. Checked before the body is read.
///
/// # Errors
/// [`Error::UnsupportedMediaType`].
pub fn check_media(header: &Header<'_>) -> Result<(), Error> {
    // `identity` too: RFC 9110 §8.4.1 keeps it for Accept-Encoding.
    if header.has(&CONTENT_ENCODING) {
        return Err(Error::UnsupportedMediaType { param: "Content-Encoding" });
    }
    let mut types = header.lines(&CONTENT_TYPE);
    let is_json = match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().is_ok_and(is_json),
        _ => false,
    };
    if is_json { Ok(()) } else { Err(Error::UnsupportedMediaType { param: "Content-Type" }) }
}

fn is_json(media_type: &str) -> bool {
    // As nearly every client writes it.
    if media_type == "application/json" {
        return true;
    }
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.filter(|parameter| !parameter.is_empty()).all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let is_charset = name.eq_ignore_ascii_case("charset");
            let value = value.trim_matches('"');
            // The second is what many write for the first.
            !is_charset || value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        })
}

/// The body's `user`, which stands under no other spelling: the upstream could take that for its user.
fn only_user(fields: &Value) -> Result<Option<String>, Fault> {
    if let Some((other, _)) = spelling::others(fields, "user").next() {
        let message = "unknown field: did you mean user?".to_owned();
        return Err(Fault { param: other.to_owned(), code: "near_miss", message });
    }
    user(fields)
}

/// The body's `user`: 1 to 128 characters, none of which is invisible.
pub(crate) fn user(fields: &Value) -> Result<Option<String>, Fault> {
    let fault = |code, message: &str| Fault { param: "user".to_owned(), code, message: message.to_owned() };
    let Some(user) = fields.get("user") else { return Ok(None) };
    let Some(user) = user.as_str() else { return Err(fault("type", "must be a string")) };
    if user.is_empty() {
        return Err(fault("minLength", "must not be empty: leave it out instead"));
    }
    // As nearly all are.
    if user.len() <= MAX_USER && user.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(Some(user.to_owned()));
    }
    if user.chars().count() > MAX_USER {
        return Err(fault("maxLength", "is longer than 128 characters"));
    }
    if user.chars().any(|character| character.is_control() || is_format(character)) {
        return Err(fault("format", "must not contain control or format characters"));
    }
    Ok(Some(user.nfc().collect()))
}

/// Unicode's general category Cf: characters that show nothing, and so make two names look the same.
fn is_format(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

/// Whether a list header has a token, in whichever of its lines.
fn has_token(header: &Header<'_>, name: &HeaderName, token: &str) -> bool {
    let lines = header.lines(name).filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The only value of a header: 1 to `longest` printable ASCII characters.
fn single(
    header: &Header<'_>,
    name: &HeaderName,
    shown: &'static str,
    longest: usize,
) -> Result<Option<String>, Error> {
    let Some(value) = only(header, name, shown)? else { return Ok(None) };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    if text.is_empty() || text.len() > longest || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let message = format!("{shown} takes 1 to {longest} printable ASCII characters");
        return Err(Error::BadRequest { param: shown, message: message.into() });
    }
    Ok(Some(text.to_owned()))
}

/// The only line of a header.
fn only<'a>(header: &Header<'a>, name: &HeaderName, shown: &'static str) -> Result<Option<&'a HeaderValue>, Error> {
    let mut values = header.lines(name);
    match (values.next(), values.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => {
            Err(Error::BadRequest { param: shown, message: format!("{shown} may be sent once only").into() })
        }
    }
}

/// The text of an RFC 8941 string; a bare key is its own text.
fn unquoted(key: &str) -> Result<String, Error> {
    let malformed = || Error::BadRequest {
        param: "Idempotency-Key",
        message: "Idempotency-Key takes a bare key or one quoted string".into(),
    };
    let Some(inner) = key.strip_prefix('"') else { return Ok(key.to_owned()) };
    let inner = inner.strip_suffix('"').ok_or_else(malformed)?;
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Err(malformed()),
            '\\' => text.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\')).ok_or_else(malformed)?),
            plain => text.push(plain),
        }
    }
    if text.is_empty() { Err(malformed()) } else { Ok(text) }
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REELGATE_DRY_RUN: HeaderName = HeaderName::from_static("reelgate-dry-run");
const REELGATE_VARIATION: HeaderName = HeaderName::from_static("reelgate-variation");
/// What the upstream takes where a body names no model.
const USUAL_MODEL: &str = "grok-imagine-video";
/// Longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;
/// Longest `Reelgate-Variation`, in characters.
const MAX_VARIATION: usize = 64;
/// Longest `user`, in characters.
const MAX_USER: usize = 128;

#[cfg(test)]
mod tests;
