//! What makes two submissions identical (`DESIGN.md` §3.1): a keyed BLAKE3 hash over length-prefixed parts and the
//! canonical form of the body, fed straight into the hasher. Keyed, so that a stolen ledger does not let anybody test
//! guesses at prompts.

mod canonical;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox};
use serde_json::Value;

use self::canonical::Canonical;
use super::inline::Inline;
use super::route::Operation;

/// The name of a prompt within one deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
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

/// As its bytes. The first word nearly always decides, and to compare that takes no call.
impl Ord for Fingerprint {
    fn cmp(&self, other: &Self) -> Ordering {
        let first = |Self([a, b, c, d, e, f, g, h, ..]): &Self| u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        first(self).cmp(&first(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Fingerprint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
        let mut canonical = self.begin(VERSION, url_ignore);
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
        let mut canonical = self.begin(b"bytes", &[]);
        for part in parts {
            canonical.open(b'b', part.len());
            canonical.write(part);
        }
        Fingerprint(*canonical.hashed().finalize().as_bytes())
    }

    /// A short keyed digest of some parts, for a purpose: equal only for equal parts.
    pub fn digest(&self, purpose: &str, parts: &[&str]) -> [u8; 16] {
        let mut canonical = self.begin(purpose.as_bytes(), &[]);
        parts.iter().for_each(|part| canonical.text(part));
        let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *canonical.hashed().finalize().as_bytes();
        digest
    }

    /// A key of its own for another purpose: nobody gets from one to the other, and who has this key has that one too.
    pub fn derive(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        SecretBox::new(Box::new(blake3::derive_key(purpose, self.0.expose_secret())))
    }

    fn begin<'a>(&self, purpose: &[u8], url_ignore: &'a [String]) -> Canonical<'a> {
        Canonical::new(self.0.expose_secret(), purpose, url_ignore)
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

/// Changes with every change of what counts, so that an old ledger's fingerprints cannot be mistaken for new ones.
const VERSION: &[u8] = b"reelgate fingerprint 1";

#[cfg(test)]
mod tests;
