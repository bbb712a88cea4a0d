//! Values as they stand in the file: JSON behind a version and a checksum over key, version and value, because the store
//! does not notice flipped bits (`HARDENING.md` F-43). It is against accidents: whoever can write to the file needs none.
//! So it is XXH3, which takes an eighth of what BLAKE3 did, by which earlier versions have sealed.

use serde::{Serialize, de};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A value as it was found.
#[derive(Debug)]
pub enum Checked<T> {
    /// As it was written.
    Sound(T),
    /// Not as it was written.
    Damaged,
}

/// The bytes of a value under a key that must not be lost with its row's own copy: it stands in the value too, so that a
/// bit that flips in a fingerprint does not free its prompt.
pub fn seal_named(key: &[u8; NAME], value: &impl Serialize) -> Option<Vec<u8>> {
    sealed(key, NAMED, key, value)
}

/// The value of some bytes under a key, and the key that it was written under.
pub fn unseal_named<T: de::DeserializeOwned>(key: &[u8; NAME], bytes: &[u8]) -> ([u8; NAME], Checked<T>) {
    let (_, rest) = bytes.split_at_checked(CHECKSUM).unwrap_or_default();
    let Some((version @ (&NAMED | &FORMER_NAMED), rest)) = rest.split_first() else {
        return (*key, unseal(key, bytes));
    };
    let Some((name, json)) = rest.split_first_chunk::<NAME>() else { return (*key, Checked::Damaged) };
    let written_as = [key, name].into_iter().find(|name| bytes.starts_with(&checksum(*name, *version, json)));
    let sound = written_as.and_then(|name| Some((*name, serde_json::from_slice(json).ok()?)));
    sound.map_or((*key, Checked::Damaged), |(name, value)| (name, Checked::Sound(value)))
}

/// The bytes of a value under a key.
pub fn seal(key: &[u8], value: &impl Serialize) -> Option<Vec<u8>> {
    sealed(key, PLAIN, &[], value)
}

/// The same, so that earlier versions can read it.
pub fn seal_for_all(key: &[u8], value: &impl Serialize) -> Option<Vec<u8>> {
    sealed(key, FORMER_PLAIN, &[], value)
}

/// Checksum, version, name and value, in one piece from the beginning.
fn sealed(key: &[u8], version: u8, name: &[u8], value: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    bytes.extend_from_slice(&[0; CHECKSUM]);
    bytes.push(version);
    bytes.extend_from_slice(name);
    let front = bytes.len();
    serde_json::to_writer(&mut bytes, value).ok()?;
    let sum = checksum(key, version, bytes.get(front..)?);
    *bytes.first_chunk_mut()? = sum;
    Some(bytes)
}

/// The value of some bytes under a key.
pub fn unseal<T: de::DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Checked<T> {
    let sound = bytes.split_at_checked(CHECKSUM).and_then(|(sum, rest)| {
        let (version, json) = rest.split_first()?;
        let sound = matches!(*version, PLAIN | FORMER_PLAIN) && sum == checksum(key, *version, json);
        sound.then(|| serde_json::from_slice(json).ok()).flatten()
    });
    sound.map_or(Checked::Damaged, Checked::Sound)
}

fn checksum(key: &[u8], version: u8, json: &[u8]) -> [u8; CHECKSUM] {
    match version {
        FORMER_PLAIN | FORMER_NAMED => former_checksum(key, version, json),
        _ => xxh3_64_with_seed(json, xxh3_64_with_seed(key, version.into())).to_le_bytes(),
    }
}

fn former_checksum(key: &[u8], version: u8, json: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_le_bytes())
        .update(key)
        .update(&[version])
        .update(json);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// The version of these forms.
const PLAIN: u8 = 3;
/// The version of those that hold their key too.
const NAMED: u8 = 4;
/// The same of the first three formats.
const FORMER_PLAIN: u8 = 1;
const FORMER_NAMED: u8 = 2;
/// The length of a fingerprint, in bytes.
pub const NAME: usize = 32;
/// The room for a value that is enough for nearly all.
const USUAL: usize = 512;
/// The length of a checksum, in bytes.
pub(super) const CHECKSUM: usize = 8;

/// A sealed value as programs of the first three formats would have sealed it.
#[cfg(test)]
pub fn as_before(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let (name, json) = bytes[CHECKSUM + 1..].split_at(if bytes[CHECKSUM] == NAMED { NAME } else { 0 });
    let version = if name.is_empty() { FORMER_PLAIN } else { FORMER_NAMED };
    [&checksum(key, version, json), &[version][..], name, json].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: [u8; NAME] = [7; NAME];

    fn is_sound(key: &[u8], bytes: &[u8]) -> bool {
        matches!(unseal::<Value>(key, bytes), Checked::Sound(value) if value == json!({"a": 1}))
    }

    #[test]
    fn f43_no_flipped_bit_of_a_value_or_its_key_goes_unnoticed() {
        for bytes in [seal(&KEY, &json!({"a": 1})).unwrap(), seal_for_all(&KEY, &json!({"a": 1})).unwrap()] {
            assert!(is_sound(&KEY, &bytes));
            for bit in 0..8 * bytes.len() {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_sound(&KEY, &flipped), "bit {bit} of the value");
            }
            for bit in 0..8 * NAME {
                let mut flipped = KEY;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_sound(&flipped, &bytes), "bit {bit} of the key");
            }
        }
    }

    /// As version 0.1.0 of the second and third format wrote them.
    #[test]
    fn what_earlier_versions_have_sealed_is_read() {
        let named = as_before(&KEY, &seal_named(&KEY, &json!({"a": 1})).unwrap());
        assert_eq!(hex::encode(&named[..CHECKSUM]), "910f329ee763a6f1");
        for (key, bytes) in [(KEY, named.clone()), ([8; NAME], named)] {
            let (name, value) = unseal_named::<Value>(&key, &bytes);
            assert!(matches!(value, Checked::Sound(_)) && name == KEY);
        }
        let plain = seal_for_all(b"key", &json!({"a": 1})).unwrap();
        assert_eq!(hex::encode(&plain[..CHECKSUM]), "e24f4bcbadda4955");
        assert!(is_sound(b"key", &plain));
    }

    /// As the reference implementation of XXH3 computes them: what was written stays readable, on every machine.
    #[test]
    fn what_this_version_seals_stays_as_it_is() {
        let named = seal_named(&KEY, &json!({"a": 1})).unwrap();
        assert_eq!(hex::encode(&named[..CHECKSUM]), "ecfc652d285983e2");
        let plain = seal(b"key", &json!({"a": 1})).unwrap();
        assert_eq!(hex::encode(&plain[..CHECKSUM]), "4b152f4b2f920c9a");
    }
}
