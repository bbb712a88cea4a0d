//! The canonical form of a body, fed straight into the hasher (`DESIGN.md` §3.1).

use serde_json::{Map, Number, Value};

use crate::request::inline::Inline;

/// Feeds values to the hasher so that different values are different bytes: a tag, a length where one is needed, and
/// the content; the fields of an object in the order of their names.
pub(super) struct Canonical<'a> {
    hasher: blake3::Hasher,
    /// What is still to be hashed: many small pieces cost the hasher more than their bytes do.
    gathered: Vec<u8>,
    url_ignore: &'a [String],
}

impl<'a> Canonical<'a> {
    /// The beginning of a name by this key, for a purpose. `url_ignore` as for the fingerprint of a body.
    pub(super) fn new(key: &[u8; 32], purpose: &[u8], url_ignore: &'a [String]) -> Self {
        let hasher = blake3::Hasher::new_keyed(key);
        let mut canonical = Self { hasher, gathered: Vec::with_capacity(GATHERED), url_ignore };
        canonical.write(&length(purpose.len()));
        canonical.write(purpose);
        canonical
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
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

    pub(super) fn hashed(mut self) -> blake3::Hasher {
        self.hasher.update(&self.gathered);
        self.hasher
    }

    pub(super) fn body(&mut self, body: &Value, inline: Option<&Inline<'_>>) {
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

    pub(super) fn text(&mut self, text: &str) {
        self.open(b's', text.len());
        self.write(text.as_bytes());
    }

    pub(super) fn optional(&mut self, part: Option<&[u8]>) {
        match part {
            None => self.write(b"-"),
            Some(part) => {
                self.open(b'+', part.len());
                self.write(part);
            }
        }
    }

    pub(super) fn open(&mut self, tag: u8, count: usize) {
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
