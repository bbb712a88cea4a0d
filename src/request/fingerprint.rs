//! What makes two submissions identical (`DESIGN.md` §3.1): a keyed BLAKE3 hash over length-prefixed parts and the
//! canonical form of the body, fed straight into the hasher. Keyed, so that a stolen ledger does not let anybody test
//! guesses at prompts.

use std::fmt;
use std::hash::{Hash, Hasher};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox};
use serde_json::{Map, Number, Value};

use super::inline::Inline;
use super::route::Operation;

/// The name of a prompt within one deployment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// It is a keyed hash already: hashing it again only picks bits, and nobody can choose which.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickBits(u64);

impl Hasher for PickBits {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(5) ^ word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Fingerprint {
    /// The fingerprint of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The fingerprint of 64 hex digits.
    pub fn from_hex(digits: &str) -> Option<Self> {
        blake3::Hash::from_hex(digits).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// The first 12 hex digits, as logs show it.
    pub fn short(&self) -> Short {
        // Every submission's line has them; `hex::encode` gathers them one by one.
        let mut digits = [b'0'; 12];
        _ = hex::encode_to_slice(self.0.get(..6).unwrap_or_default(), &mut digits);
        Short(digits)
    }
}

/// The first hex digits of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short([u8; 12]);

impl Short {
    /// The digits.
    pub fn as_str(&self) -> &str {
        // Only hex digits are ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short().as_str())
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

    /// Its 64 hex digits, for the ledger alone.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.expose_secret()))
    }

    /// What tells this key from another without telling it.
    pub fn id(&self) -> String {
        hex::encode(self.digest("key id", &[]))
    }

    /// The fingerprint of a body, whether or not it was parsed without the letters of its medium. Parameters of
    /// `url_ignore` in the query of `image.url` and `video.url` do not count (M30), nor does `user`.
    pub fn fingerprint(
        &self,
        sharing: &Sharing<'_>,
        operation: Operation,
        body: &Value,
        inline: Option<&Inline<'_>>,
        url_ignore: &[String],
    ) -> Fingerprint {
        let mut canonical = self.canonical(VERSION, url_ignore);
        canonical.text(operation.name());
        canonical.text(sharing.origin);
        for part in [sharing.team, sharing.user, sharing.variation, sharing.key] {
            canonical.optional(part.map(str::as_bytes));
        }
        canonical.optional(sharing.unique);
        canonical.body(body, inline);
        Fingerprint(*canonical.hashed().finalize().as_bytes())
    }

    /// The name of some bytes, part by part: equal only for equal parts.
    pub fn of_bytes(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut canonical = self.canonical(b"bytes", &[]);
        for part in parts {
            canonical.open(b'b', part.len());
            canonical.write(part);
        }
        Fingerprint(*canonical.hashed().finalize().as_bytes())
    }

    /// A short keyed digest of some parts, for a purpose: equal only for equal parts.
    pub fn digest(&self, purpose: &str, parts: &[&str]) -> [u8; 16] {
        let mut canonical = self.canonical(purpose.as_bytes(), &[]);
        parts.iter().for_each(|part| canonical.text(part));
        let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *canonical.hashed().finalize().as_bytes();
        digest
    }

    /// A key of its own for another purpose: nobody gets from one to the other, and who has this key has that one too.
    pub fn derive(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        SecretBox::new(Box::new(blake3::derive_key(purpose, self.0.expose_secret())))
    }

    fn canonical<'a>(&self, purpose: &[u8], url_ignore: &'a [String]) -> Canonical<'a> {
        let hasher = blake3::Hasher::new_keyed(self.0.expose_secret());
        let mut canonical = Canonical { hasher, gathered: Vec::with_capacity(GATHERED), url_ignore };
        canonical.write(&length(purpose.len()));
        canonical.write(purpose);
        canonical
    }
}

/// The key by which prompts have their names, and the one before it, as long as what has its name from that one may be
/// open: both names are looked up, and both block (`MONEY.md` M9).
#[derive(Debug)]
pub struct FingerprintKeys {
    /// The one in use.
    pub current: FingerprintKey,
    /// The one before it.
    pub former: Option<FingerprintKey>,
}

impl PartialEq for FingerprintKey {
    /// Nobody who could measure the time chooses either of them.
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
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
    /// What is still to be hashed: many small pieces cost the hasher more than their bytes do.
    gathered: Vec<u8>,
    url_ignore: &'a [String],
}

impl Canonical<'_> {
    fn write(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() > GATHERED {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        if bytes.len() > GATHERED {
            self.hasher.update(bytes);
        } else {
            self.gathered.extend_from_slice(bytes);
        }
    }

    fn hashed(mut self) -> blake3::Hasher {
        self.hasher.update(&self.gathered);
        self.hasher
    }

    fn body(&mut self, body: &Value, inline: Option<&Inline<'_>>) {
        let Value::Object(fields) = body else { return self.value(body) };
        let counted = fields.len() - usize::from(fields.contains_key("user"));
        self.open(b'o', counted);
        for (name, value) in sorted(fields).into_iter().filter(|(name, _)| *name != "user") {
            self.text(name);
            match value {
                Value::Object(media) if name == "image" || name == "video" => {
                    self.media(media, inline.and_then(|inline| inline.of(name)));
                }
                _ => self.value(value),
            }
        }
    }

    fn media(&mut self, media: &Map<String, Value>, letters: Option<&[u8]>) {
        self.open(b'o', media.len());
        for (name, value) in sorted(media) {
            self.text(name);
            match value {
                Value::String(url) if name == "url" => self.url(url, letters),
                _ => self.value(value),
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.write(b"n"),
            Value::Bool(true) => self.write(b"t"),
            Value::Bool(false) => self.write(b"f"),
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
            Some(whole) => {
                self.write(b"i");
                self.write(&whole.to_le_bytes());
            }
            None => {
                self.write(b"d");
                self.write(&number.as_f64().unwrap_or_default().to_bits().to_le_bytes());
            }
        }
    }

    /// A `data:` URL counts as its text, its head in lower case; another one without the parameters to ignore.
    fn url(&mut self, url: &str, letters: Option<&[u8]>) {
        let is_data = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
        match url.split_once(',') {
            Some((head, data)) if is_data => {
                let cut = letters.zip(data.strip_prefix(Inline::STAND_IN));
                let (letters, data) = cut.unwrap_or((&[], data));
                self.open(b's', head.len() + 1 + letters.len() + data.len());
                self.write(head.to_ascii_lowercase().as_bytes());
                self.write(b",");
                self.write(letters);
                self.write(data.as_bytes());
            }
            _ if self.url_ignore.is_empty() => self.text(url),
            _ => self.text(&without_parameters(url, self.url_ignore)),
        }
    }

    fn text(&mut self, text: &str) {
        self.open(b's', text.len());
        self.write(text.as_bytes());
    }

    fn optional(&mut self, part: Option<&[u8]>) {
        match part {
            None => self.write(b"-"),
            Some(part) => {
                self.open(b'+', part.len());
                self.write(part);
            }
        }
    }

    fn open(&mut self, tag: u8, count: usize) {
        self.write(&[tag]);
        self.write(&length(count));
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

/// How much is gathered for the hasher, in bytes: a body without an image, usually.
const GATHERED: usize = 1024;
/// Changes with every change of what counts, so that an old ledger's fingerprints cannot be mistaken for new ones.
const VERSION: &[u8] = b"reelgate fingerprint 1";

#[cfg(test)]
mod tests;
