//! Values as they stand in the file: JSON behind a version and a checksum over key, version and value, because the store
//! does not notice flipped bits (`HARDENING.md` F-43).

use serde::{Serialize, de};

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
    let Some((&NAMED, rest)) = rest.split_first() else { return (*key, unseal(key, bytes)) };
    let Some((name, json)) = rest.split_first_chunk::<NAME>() else { return (*key, Checked::Damaged) };
    let written_as = [key, name].into_iter().find(|name| bytes.starts_with(&checksum(*name, NAMED, json)));
    let sound = written_as.and_then(|name| Some((*name, serde_json::from_slice(json).ok()?)));
    sound.map_or((*key, Checked::Damaged), |(name, value)| (name, Checked::Sound(value)))
}

/// The bytes of a value under a key.
pub fn seal(key: &[u8], value: &impl Serialize) -> Option<Vec<u8>> {
    sealed(key, VERSION, &[], value)
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
        let sound = *version == VERSION && sum == checksum(key, VERSION, json);
        sound.then(|| serde_json::from_slice(json).ok()).flatten()
    });
    sound.map_or(Checked::Damaged, Checked::Sound)
}

fn checksum(key: &[u8], version: u8, json: &[u8]) -> [u8; CHECKSUM] {
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
const VERSION: u8 = 1;
/// The version of those that hold their key too.
const NAMED: u8 = 2;
/// The length of a fingerprint, in bytes.
pub const NAME: usize = 32;
/// The room for a value that is enough for nearly all.
const USUAL: usize = 512;
/// The length of a checksum, in bytes.
pub(super) const CHECKSUM: usize = 8;
