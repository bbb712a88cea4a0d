//! What is remembered of few entries only, and takes no room in the others: there may be a million.

use std::ops::Deref;

use super::Caller;
use crate::clock::Time;
use crate::request::fingerprint::Fingerprint;

/// What is remembered of few entries only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rare {
    /// The caller whose `no-cache` began it, and when that caller last heard of it (M13).
    pub wish: Option<(Caller, Time)>,
    /// Callers refused in the hold's last moments, and when (M14).
    pub(in crate::jobs) refused: Vec<(Caller, Time)>,
    /// With `dedup.by = "idempotency-key"`: the fingerprint of the body alone, under which a keyless twin finds it.
    pub base: Option<Fingerprint>,
    /// Whether its only waiter left before its answer was taken (M15).
    pub undelivered: bool,
    /// On a ledger that replicas share: until when a claim stands without being renewed (M4).
    pub lease: Option<Time>,
}

/// A [`Rare`] that takes no room until something is written to it: there may be a million entries.
#[derive(Clone, Debug, Default)]
pub struct Rest(pub(super) Option<Box<Rare>>);

impl Rest {
    /// To be changed.
    pub fn change(&mut self) -> &mut Rare {
        self.0.get_or_insert_default()
    }
}

impl From<Rare> for Rest {
    fn from(rare: Rare) -> Self {
        Self((rare != Rare::NONE).then(|| Box::new(rare)))
    }
}

impl Deref for Rest {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        static NONE: Rare = Rare::NONE;
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Rare {
    const NONE: Self = Self { wish: None, refused: Vec::new(), base: None, undelivered: false, lease: None };
}
