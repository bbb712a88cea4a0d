//! The hot entries: hits that need no lock. The book decides what is in here, under its own lock, so that an entry
//! that has ended is gone before its end is told; what is not in here may still be a hit.

use std::hash::BuildHasherDefault;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Time;
use crate::jobs::entry::Created;
use crate::request::fingerprint::{Fingerprint, PickBits};

/// A bounded cache of hits.
#[derive(Debug)]
pub struct Hot {
    cache: Cache<Fingerprint, (Created, Time), BuildHasherDefault<PickBits>>,
}

impl Hot {
    /// A cache of at most `entries`. Its policy is LRU: moka's default drops new entries when it is full.
    pub fn new(entries: u64) -> Self {
        let cache = Cache::builder().max_capacity(entries).eviction_policy(EvictionPolicy::lru());
        Self { cache: cache.build_with_hasher(BuildHasherDefault::default()) }
    }

    /// The job of a fingerprint, if it is worth giving out at `now`. Times are checked here: moka's own clock is not ours.
    pub fn get(&self, fingerprint: &Fingerprint, now: Time) -> Option<(Created, Time)> {
        self.cache.get(fingerprint).filter(|(_, until)| now < *until)
    }

    /// The same, with for how much longer it is.
    pub fn lasting(&self, fingerprint: &Fingerprint, now: Time) -> Option<(Created, Duration)> {
        self.get(fingerprint, now).map(|(created, until)| (created, until.since(now)))
    }

    /// Remembers a hit.
    pub fn insert(&self, fingerprint: Fingerprint, created: Created, until: Time) {
        self.cache.insert(fingerprint, (created, until));
    }

    /// Forgets one.
    pub fn remove(&self, fingerprint: &Fingerprint) {
        self.cache.invalidate(fingerprint);
    }

    /// How many entries there are.
    pub fn count(&self) -> u64 {
        self.cache.run_pending_tasks();
        self.cache.entry_count()
    }
}
