//! Values as they stand in Redis: with a keyed checksum, so that what others write there is told from what we wrote (F-56).

use super::names::hex;
use crate::jobs::ledger::disk::seal::Checked;

/// Seals values and opens them.
pub(super) struct Seal {
    key: [u8; 32],
    /// By which others may have sealed (M9).
    former: Option<[u8; 32]>,
}

impl Seal {
    /// Under a key; what was sealed under the one before it is read too.
    pub(super) const fn new(key: [u8; 32], former: Option<[u8; 32]>) -> Self {
        Self { key, former }
    }

    /// A value as text.
    pub(super) fn seal(&self, key: &str, value: &impl serde::Serialize) -> Option<String> {
        let json = serde_json::to_string(value).ok()?;
        Some(format!("{VERSION}{}{json}", sum(&self.key, key, &json)))
    }

    /// The value of a text.
    pub(super) fn open<T: serde::de::DeserializeOwned>(&self, key: &str, text: &str) -> Checked<T> {
        let json = text.strip_prefix(VERSION).and_then(|rest| rest.split_at_checked(SUM));
        let keys = || [Some(&self.key), self.former.as_ref()].into_iter().flatten();
        let sound = json.filter(|(told, json)| keys().any(|own| *told == sum(own, key, json)));
        sound.and_then(|(_, json)| serde_json::from_str(json).ok()).map_or(Checked::Damaged, Checked::Sound)
    }

    /// The value of a text, if it is as it was written.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&self, key: &str, text: &str) -> Option<T> {
        match self.open(key, text) {
            Checked::Sound(value) => Some(value),
            Checked::Damaged => None,
        }
    }
}

fn sum(own: &[u8; 32], key: &str, json: &str) -> String {
    let mut hasher = blake3::Hasher::new_keyed(own);
    hasher.update(&key.len().to_le_bytes()).update(key.as_bytes()).update(json.as_bytes());
    let mut sum = [0; SUM / 2];
    hasher.finalize_xof().fill(&mut sum);
    hex(&sum)
}

/// The version of what is written.
const VERSION: &str = "1 ";
/// The digits of a checksum.
const SUM: usize = 32;
