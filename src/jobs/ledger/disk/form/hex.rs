//! Bytes as hex digits, where they stand in JSON.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::jobs::ledger::disk::seal::NAME;

/// Bytes as hex digits, [`NAME`] at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut room = [0; 2 * NAME];
        let digits = room.get_mut(..2 * N).ok_or_else(|| ser::Error::custom("too long"))?;
        hex::encode_to_slice(self.0, digits).map_err(ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(digits).map_err(ser::Error::custom)?)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

/// Reads hex digits where they stand.
struct Digits<const N: usize>;

impl<const N: usize> Visitor<'_> for Digits<N> {
    type Value = Hex<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hex digits", 2 * N)
    }

    fn visit_str<E: de::Error>(self, digits: &str) -> Result<Hex<N>, E> {
        let mut bytes = [0; N];
        hex::decode_to_slice(digits, &mut bytes).map_err(E::custom)?;
        Ok(Hex(bytes))
    }
}
