//! What this replica has written to Redis, as long as it lives there: what goes back if Redis forgets (`MONEY.md` M26).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::Expiry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::script::{Count, Write};

/// See the module's page.
pub(super) struct Mirror {
    values: Cache<String, Arc<Kept>>,
    /// What accounts came to when this replica changed them last, by key and field.
    sums: Cache<(String, String), Sum>,
    life: Mutex<Life>,
    /// The fingerprints' key as hex digits, which goes back first; none where it comes from the environment.
    pub(super) key: Option<String>,
    /// The id of the one in use, wherever it comes from; it goes back too.
    pub(super) key_id: String,
    /// How often putting back has begun.
    restorations: AtomicU64,
    /// One restores at a time.
    pub(super) restoring: tokio::sync::Mutex<()>,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Where this replica stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// The epoch it lives in.
    pub(super) epoch: Option<String>,
    /// The stamp of its last write that Redis has told it of; zero, there is none.
    pub(super) last: u64,
}

/// One value.
pub(super) struct Kept {
    /// None: it was deleted, and nobody else's older one may come back.
    pub(super) value: Option<String>,
    /// In milliseconds.
    pub(super) expires: u64,
    /// When it was written, among all writes of all replicas.
    pub(super) stamp: u64,
}

/// What a field of an account came to.
#[derive(Clone)]
pub(super) struct Sum {
    pub(super) sum: i64,
    /// In milliseconds.
    pub(super) expires: Option<u64>,
    /// The set that the account is in, and as what.
    pub(super) listed: Option<Arc<(String, String)>>,
}

/// Values leave here when they leave Redis.
struct Until(Box<dyn Fn() -> u64 + Send + Sync>);

impl Until {
    fn left(&self, kept: &Kept) -> Option<Duration> {
        Some(Duration::from_millis(kept.expires.saturating_sub((self.0)())))
    }
}

#[expect(clippy::disallowed_types, reason = "the cache's own clock is an argument that is not used")]
impl Expiry<String, Arc<Kept>> for Until {
    fn expire_after_create(&self, _: &String, kept: &Arc<Kept>, _: std::time::Instant) -> Option<Duration> {
        self.left(kept)
    }

    fn expire_after_update(
        &self,
        _: &String,
        kept: &Arc<Kept>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.left(kept)
    }
}

impl Mirror {
    /// Nothing written yet; at most `most` values are kept. `now` is in milliseconds, as Redis has it.
    pub(super) fn new(
        most: u64,
        key: Option<String>,
        key_id: String,
        now: impl Fn() -> u64 + Clone + Send + Sync + 'static,
    ) -> Self {
        // What is written last is what Redis may lose: where it is full, the oldest leaves.
        let values = Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru());
        let values = values.expire_after(Until(Box::new(now.clone()))).build();
        let sums = Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru()).build();
        Self {
            values,
            sums,
            life: Mutex::default(),
            key,
            key_id,
            restorations: AtomicU64::new(0),
            restoring: tokio::sync::Mutex::default(),
            now: Box::new(now),
        }
    }

    /// How often putting back has begun: a step that saw it change cannot know whether what it wrote was put back.
    pub(super) fn restorations(&self) -> u64 {
        self.restorations.load(Ordering::SeqCst)
    }

    /// Putting back begins.
    pub(super) fn note_restoration(&self) {
        self.restorations.fetch_add(1, Ordering::SeqCst);
    }

    /// Where this replica stands.
    pub(super) fn life(&self) -> Life {
        self.lock().clone()
    }

    /// It lives in this epoch from now on.
    pub(super) fn live_in(&self, epoch: String) {
        self.lock().epoch = Some(epoch);
    }

    /// Redis has told of a write. Answers may overtake each other.
    pub(super) fn note_last(&self, stamp: u64) {
        let mut life = self.lock();
        life.last = life.last.max(stamp);
    }

    /// Nothing is left that could be put back.
    pub(super) fn forget_last(&self) {
        self.lock().last = 0;
    }

    /// A counter has come to a sum. What is reserved, and how many jobs run, follows from the tabs that are put back.
    pub(super) fn note_count(&self, count: &Count, sum: &str) {
        let Ok(sum) = sum.parse() else { return };
        if count.key.starts_with("a:") && !count.field.starts_with("reserved") {
            let sum = Sum { sum, expires: count.expires, listed: count.listed.clone() };
            self.sums.insert((count.key.clone(), count.field.clone()), sum);
        }
    }

    /// A value was written, or deleted. What was written later is known already if its answer was quicker.
    pub(super) fn note(&self, write: &Write, stamp: u64) {
        self.values.entry_by_ref(&write.key).and_compute_with(|known| match known {
            Some(known) if known.value().stamp > stamp => Op::Nop,
            _ => Op::Put(Arc::new(Kept { value: write.value.clone(), expires: write.expires, stamp })),
        });
    }

    /// What still lives of what was written after that.
    pub(super) fn written_after(&self, stamp: u64) -> Vec<(Arc<String>, Arc<Kept>)> {
        let now = (self.now)();
        self.values.iter().filter(|(_, kept)| kept.stamp > stamp && kept.expires > now).collect()
    }

    /// Until when the last of all that lives does, in milliseconds.
    pub(super) fn lives_until(&self) -> Option<u64> {
        let now = (self.now)();
        self.values.iter().map(|(_, kept)| kept.expires).filter(|expires| *expires > now).max()
    }

    /// What accounts came to, by key and field, as far as they are not over.
    pub(super) fn sums(&self) -> Vec<(Arc<(String, String)>, Sum)> {
        let now = (self.now)();
        self.sums.iter().filter(|(_, sum)| sum.expires.is_none_or(|expires| expires > now)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
