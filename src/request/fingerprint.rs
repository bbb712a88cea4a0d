//! What makes two submissions identical (`DESIGN.md` §3.1): a keyed BLAKE3 hash over length-prefixed parts and the
//! canonical form of the body, fed straight into the hasher. Keyed, so that a stolen ledger does not let anybody test
//! guesses at prompts.

use std::fmt;

use secrecy::{ExposeSecret, SecretBox};
use serde_json::{Map, Number, Value};

use super::route::Operation;

/// The name of a prompt within one deployment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex digits, as logs show it.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Among whom, and beside what, a body is the same as another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sharing<'a> {
    /// The upstream's origin.
    pub origin: &'a str,
    /// The team, unless everybody shares.
    pub team: Option<&'a str>,
    /// The user, where only a user shares with itself.
    pub user: Option<&'a str>,
    /// `Reelgate-Variation`.
    pub variation: Option<&'a str>,
    /// The idempotency key, where only equal keys share.
    pub key: Option<&'a str>,
    /// A number that makes this submission like no other, where it shares with nobody.
    pub unique: Option<&'a [u8]>,
}

/// The fingerprints' key (`MONEY.md` M9).
pub struct FingerprintKey(SecretBox<[u8; 32]>);

impl FingerprintKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn random() -> Result<Self, &'static str> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system gives no randomness")?;
        Ok(Self(SecretBox::new(Box::new(key))))
    }

    /// The key of 64 hex digits.
    ///
    /// # Errors
    /// What is wrong with the text, without the text.
    pub fn from_hex(text: &str) -> Result<Self, &'static str> {
        let hash = blake3::Hash::from_hex(text.trim()).map_err(|_| "a fingerprint key is 64 hex digits")?;
        Ok(Self(SecretBox::new(Box::new(*hash.as_bytes()))))
    }

    /// The fingerprint of a body. Parameters of `url_ignore` in the query of `image.url` and `video.url` do not count
    /// (M30), nor does `user`.
    pub fn fingerprint(
        &self,
        sharing: &Sharing<'_>,
        operation: Operation,
        body: &Value,
        url_ignore: &[String],
    ) -> Fingerprint {
        let mut canonical = Canonical { hasher: self.hasher(VERSION), url_ignore };
        canonical.text(operation.name());
        canonical.text(sharing.origin);
        for part in [sharing.team, sharing.user, sharing.variation, sharing.key] {
            canonical.optional(part.map(str::as_bytes));
        }
        canonical.optional(sharing.unique);
        canonical.body(body);
        Fingerprint(*canonical.hasher.finalize().as_bytes())
    }

    /// A short keyed digest of some parts, for a purpose: equal only for equal parts.
    pub fn digest(&self, purpose: &str, parts: &[&str]) -> [u8; 16] {
        let mut canonical = Canonical { hasher: self.hasher(purpose.as_bytes()), url_ignore: &[] };
        parts.iter().for_each(|part| canonical.text(part));
        let mut digest = [0; 16];
        canonical.hasher.finalize_xof().fill(&mut digest);
        digest
    }

    fn hasher(&self, purpose: &[u8]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(self.0.expose_secret());
        hasher.update(&length(purpose.len()));
        hasher.update(purpose);
        hasher
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(***)")
    }
}

/// Feeds values to the hasher so that different values are different bytes: a tag, a length where one is needed, and
/// the content; the fields of an object in the order of their names.
struct Canonical<'a> {
    hasher: blake3::Hasher,
    url_ignore: &'a [String],
}

impl Canonical<'_> {
    fn body(&mut self, body: &Value) {
        let Value::Object(fields) = body else { return self.value(body) };
        let counted = fields.len() - usize::from(fields.contains_key("user"));
        self.open(b'o', counted);
        for (name, value) in sorted(fields).into_iter().filter(|(name, _)| *name != "user") {
            self.text(name);
            match value {
                Value::Object(media) if name == "image" || name == "video" => self.media(media),
                _ => self.value(value),
            }
        }
    }

    fn media(&mut self, media: &Map<String, Value>) {
        self.open(b'o', media.len());
        for (name, value) in sorted(media) {
            self.text(name);
            match value {
                Value::String(url) if name == "url" => self.url(url),
                _ => self.value(value),
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => _ = self.hasher.update(b"n"),
            Value::Bool(true) => _ = self.hasher.update(b"t"),
            Value::Bool(false) => _ = self.hasher.update(b"f"),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(elements) => {
                self.open(b'a', elements.len());
                elements.iter().for_each(|element| self.value(element));
            }
            Value::Object(fields) => {
                self.open(b'o', fields.len());
                for (name, value) in sorted(fields) {
                    self.text(name);
                    self.value(value);
                }
            }
        }
    }

    /// `1.0` is `1` and `-0` is `0`; integers are exact.
    fn number(&mut self, number: &Number) {
        let whole = number.as_i128().or_else(|| number.as_f64().and_then(whole));
        match whole {
            Some(whole) => _ = self.hasher.update(b"i").update(&whole.to_le_bytes()),
            None => _ = self.hasher.update(b"d").update(&number.as_f64().unwrap_or_default().to_bits().to_le_bytes()),
        }
    }

    /// A `data:` URL counts as its text, its head in lower case; another one without the parameters to ignore.
    fn url(&mut self, url: &str) {
        let is_data = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
        match url.split_once(',') {
            Some((head, data)) if is_data => {
                self.open(b's', url.len());
                self.hasher.update(head.to_ascii_lowercase().as_bytes()).update(b",").update(data.as_bytes());
            }
            _ if self.url_ignore.is_empty() => self.text(url),
            _ => self.text(&without_parameters(url, self.url_ignore)),
        }
    }

    fn text(&mut self, text: &str) {
        self.open(b's', text.len());
        self.hasher.update(text.as_bytes());
    }

    fn optional(&mut self, part: Option<&[u8]>) {
        match part {
            None => _ = self.hasher.update(b"-"),
            Some(part) => {
                self.open(b'+', part.len());
                self.hasher.update(part);
            }
        }
    }

    fn open(&mut self, tag: u8, count: usize) {
        self.hasher.update(&[tag]).update(&length(count));
    }
}

/// The fields in the order of their names, whatever order the map keeps.
fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| name.as_str());
    sorted
}

/// The integer that a double is, if it is one that doubles tell apart.
fn whole(number: f64) -> Option<i128> {
    #[expect(clippy::cast_possible_truncation, reason = "the number has no fraction and is below 2^53")]
    let whole = || number as i128;
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then(whole)
}

/// The URL without the query parameters of these names; their order and everything else stands.
fn without_parameters(url: &str, ignored: &[String]) -> String {
    // What follows the first `#` is no query, and stays.
    let end = url.find('#').unwrap_or(url.len());
    let (url, fragment) = url.split_at_checked(end).unwrap_or((url, ""));
    let Some((path, query)) = url.split_once('?') else { return [url, fragment].concat() };
    let counts = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        !ignored.iter().any(|ignored| ignored == name)
    };
    let kept: Vec<&str> = query.split('&').filter(counts).collect();
    let mut text = path.to_owned();
    if !kept.is_empty() {
        text.push('?');
        text.push_str(&kept.join("&"));
    }
    text.push_str(fragment);
    text
}

fn length(count: usize) -> [u8; 8] {
    u64::try_from(count).unwrap_or(u64::MAX).to_le_bytes()
}

/// Changes with every change of what counts, so that an old ledger's fingerprints cannot be mistaken for new ones.
const VERSION: &[u8] = b"reelgate fingerprint 1";

#[cfg(test)]
mod tests;
