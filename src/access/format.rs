//! The form of a gateway key: `rg_`, 30 characters of [0-9A-Za-z] chosen at random (178 bits), and 6 characters of
//! the same alphabet that hold the CRC-32 of those 30, the most significant first. A scanner that finds one knows
//! without asking anybody that it is no chance find. What is stored is the SHA-256 of the whole.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::config::{Raw, Value};

/// Makes a key that nobody else has.
///
/// # Errors
/// If the system gives no randomness.
pub fn new_key() -> Result<SecretString, &'static str> {
    let mut key = Zeroizing::new(String::with_capacity(PREFIX.len() + RANDOM + CHECKSUM));
    key.push_str(PREFIX);
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while key.len() < PREFIX.len() + RANDOM {
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| "the system gives no randomness")?;
        // Bytes past the last whole multiple of the alphabet would favour its first characters.
        let fair = bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| ALPHABET.get(usize::from(byte % 62)));
        let wanted = PREFIX.len() + RANDOM - key.len();
        key.extend(fair.take(wanted).map(|byte| char::from(*byte)));
    }
    let checksum = checksum(key.get(PREFIX.len()..).unwrap_or_default());
    key.push_str(&checksum);
    Ok(SecretString::from(key.as_str()))
}

/// Whether a text has the form of a key, checksum included: what a scanner asks of what it finds.
pub fn is_well_formed(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .and_then(|rest| rest.split_at_checked(RANDOM))
        .is_some_and(|(random, sum)| random.bytes().all(|byte| byte.is_ascii_alphanumeric()) && sum == checksum(random))
}

/// The checksum of a key's random part.
fn checksum(random: &str) -> String {
    let mut rest = crc32(random.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        let place = usize::try_from(rest % 62).unwrap_or_default();
        *digit = ALPHABET.get(place).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// CRC-32 as zip, PNG and Ethernet have it (RFC 1952 §8).
fn crc32(bytes: &[u8]) -> u32 {
    let remainder = bytes.iter().fold(u32::MAX, |remainder, &byte| {
        (0..8).fold(remainder ^ u32::from(byte), |remainder, _| {
            (remainder >> 1) ^ if remainder & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    });
    !remainder
}

/// The SHA-256 of a key. Two are compared in constant time.
#[derive(Clone, Copy, Default)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a key as it was presented.
    pub fn of(key: &str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    /// Nobody can choose it: it is a hash of what nobody else knows.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Value for Digest {
    fn expected() -> Cow<'static, str> {
        "the SHA-256 of a key in 64 hex digits, as `reelgate key new` prints it; never the key itself".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        blake3::Hash::from_hex(raw.text()?.as_bytes()).ok().map(|bytes| Self(*bytes.as_bytes()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// What a key begins with.
pub const PREFIX: &str = "rg_";
/// How many characters are random.
const RANDOM: usize = 30;
/// How many hold the checksum.
const CHECKSUM: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_checksum_is_the_well_known_crc_in_base_62() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let mut value = 0_u64;
        for digit in checksum("123456789").bytes() {
            value = value * 62 + ALPHABET.iter().position(|letter| *letter == digit).unwrap() as u64;
        }
        assert_eq!(value, 0xcbf4_3926);
    }

    #[test]
    fn a_new_key_is_like_no_other_and_any_slip_in_it_is_seen() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        let (one, other) = (one.expose_secret(), other.expose_secret());
        assert_ne!(one, other);
        assert_eq!(one.len(), 39);
        assert!(is_well_formed(one) && is_well_formed(other));
        for place in 0..one.len() {
            let mut slip = one.to_owned().into_bytes();
            slip[place] = if slip[place] == b'a' { b'b' } else { b'a' };
            assert!(!is_well_formed(std::str::from_utf8(&slip).unwrap()), "{place}");
        }
        for text in ["", "rg_", "rg_é", &one[..38], &format!("{one}a"), "rg_00000000000000000000000000000000000é"] {
            assert!(!is_well_formed(text), "{text}");
        }
    }

    /// Fixed for ever: scanners are told of this form.
    #[test]
    fn the_form_is_this_one() {
        let key = "rg_0123456789ABCDEFGHIJKLMNOPQRST4PMbyp";
        assert!(is_well_formed(key));
    }

    #[test]
    fn t30_digests_are_compared_in_constant_time_and_shown_as_sha256sum_shows_them() {
        let digest = Digest::of("abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::read(&Raw::Text(&digest.to_string())), Some(digest));
        assert_ne!(digest, Digest::of("abd"));
        for bad in ["", "ba78", &"g".repeat(64), &format!("{digest} ")] {
            assert!(Digest::read(&Raw::Text(bad)).is_none(), "{bad}");
        }
    }
}
