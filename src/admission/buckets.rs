//! Where the limits of one scope keep their times: a bounded map in shards, governor's store for one decision at a
//! time. A bucket that is full again is dropped without loss; while none is, newcomers share one, so that no
//! number of invented users frees a limited one or fills the memory.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};

use super::quota::{Kind, Quota};
use crate::request::client::BucketKey;

/// The buckets of one scope.
pub(super) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    /// One more shard; it stands apart so that finding a shard cannot fail.
    last: Mutex<Shard>,
    /// How many buckets there are, room that is taken but not yet used included.
    count: AtomicUsize,
    /// How many there may be.
    tracked: AtomicUsize,
    /// The bucket of all who have none of their own. Locked after a shard, never before one.
    shared: Mutex<Bucket>,
    /// Where the next sweep begins.
    cursor: AtomicUsize,
}

impl Buckets {
    pub(super) fn new(tracked: usize) -> Self {
        let shards = (tracked / BUCKETS_A_SHARD).min(MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            last: Mutex::default(),
            count: AtomicUsize::new(0),
            tracked: AtomicUsize::new(tracked),
            shared: Mutex::default(),
            cursor: AtomicUsize::new(0),
        }
    }

    /// Changes the bound. What is tracked beyond it stays until it is full again.
    pub(super) fn track(&self, tracked: usize) {
        self.tracked.store(tracked, Ordering::Relaxed);
    }

    /// How many buckets there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Locks the bucket of `key` for one decision.
    pub(super) fn hold(&self, key: BucketKey, kind: Kind, quota: &Quota, now: Nanos) -> Held<'_> {
        let latest = now + quota.window;
        let mut shard = lock(self.shard_of(key));
        let own = shard.map.get_mut(&key).map(|bucket| bucket.cap(kind, latest));
        let (bucket, place) = match own {
            Some(bucket) => (bucket, Place::Own { shard, room: None }),
            None => match self.room(&mut shard, now) {
                // Who had to share may not win a fresh start by coming back: a new bucket begins as the shared one.
                Some(room) => (lock(&self.shared).cap(kind, latest), Place::Own { shard, room: Some(room) }),
                None => {
                    let mut shared = lock(&self.shared);
                    (shared.cap(kind, latest), Place::Shared { bucket: shared, _shard: shard })
                }
            },
        };
        Held { key, kind, now, bucket, next: Cell::new(None), place }
    }

    /// Brings every bucket from its old quota to its new one, if it has one: `change_of` says both, `common` is that of
    /// the bucket that newcomers share.
    pub(super) fn measure(
        &self,
        kind: Kind,
        common: Option<(Quota, Quota)>,
        change_of: impl Fn(BucketKey) -> Option<(Quota, Quota)>,
        now: Nanos,
    ) {
        for shard in self.shards.iter().chain([&self.last]) {
            let shard = &mut *lock(shard);
            for (key, bucket) in &mut shard.map {
                if let Some((old, new)) = change_of(*key) {
                    bucket.measure(kind, &old, &new, now);
                }
            }
            shard.none_full_before = Nanos::default();
        }
        if let Some((old, new)) = common {
            lock(&self.shared).measure(kind, &old, &new, now);
        }
    }

    /// Undoes a generation that was not used, unless its bucket has been full since: then it has come back by itself.
    /// `quota` is the limit's present one, if it still has one.
    pub(super) fn give_back(&self, token: &Token, quota: Option<Quota>, now: Nanos) {
        if token.shared {
            lock(&self.shared).give_back(token, quota, now);
            return;
        }
        let shard = &mut *lock(self.shard_of(token.key));
        if let Some(bucket) = shard.map.get_mut(&token.key) {
            bucket.give_back(token, quota, now);
            shard.none_full_before = shard.none_full_before.min(bucket.full_at());
        }
    }

    /// Drops the full buckets of the next few shards, and gives memory back that a flood has left behind.
    pub(super) fn sweep(&self, now: Nanos) {
        let shards = self.shards.len() + 1;
        for _ in 0..shards.min(SHARDS_A_SWEEP) {
            let position = self.cursor.fetch_add(1, Ordering::Relaxed) % shards;
            let shard = &mut *lock(self.shard(position));
            self.drop_full(shard, now);
            if shard.map.capacity() / 4 > shard.map.len() {
                shard.map.shrink_to(shard.map.len() * 2);
            }
        }
    }

    /// What the tables take: a place for each eighth more than the capacity, and a byte beside each.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> usize {
        let place = size_of::<(BucketKey, Bucket)>() + 1;
        let tables = self.shards.iter().chain([&self.last]).map(|shard| lock(shard).map.capacity() * 8 / 7 * place);
        tables.sum::<usize>() + self.shards.len() * size_of::<Mutex<Shard>>()
    }

    fn shard(&self, position: usize) -> &Mutex<Shard> {
        self.shards.get(position).unwrap_or(&self.last)
    }

    fn shard_of(&self, key: BucketKey) -> &Mutex<Shard> {
        let shards = self.shards.len() as u128 + 1;
        let position = (u128::from(key.spread()) * shards) >> 64;
        self.shard(usize::try_from(position).unwrap_or(usize::MAX))
    }

    /// Room for one more bucket, if need be by dropping full ones of the same shard.
    fn room(&self, shard: &mut Shard, now: Nanos) -> Option<Room<'_>> {
        Room::take(&self.count, &self.tracked).or_else(|| {
            self.drop_full(shard, now);
            Room::take(&self.count, &self.tracked)
        })
    }

    fn drop_full(&self, shard: &mut Shard, now: Nanos) {
        if now < shard.none_full_before {
            return;
        }
        let before = shard.map.len();
        let mut next = Nanos::new(u64::MAX);
        shard.map.retain(|_, bucket| {
            let full_at = bucket.full_at();
            let kept = full_at > now;
            if kept {
                next = next.min(full_at);
            }
            kept
        });
        shard.none_full_before = next;
        self.count.fetch_sub(before - shard.map.len(), Ordering::Relaxed);
    }
}

/// A locked bucket: governor's store for one decision. What governor decides is kept aside until [`Held::keep`], so
/// that a refusal by another limit leaves this one as it was.
pub(super) struct Held<'a> {
    key: BucketKey,
    kind: Kind,
    now: Nanos,
    bucket: Bucket,
    next: Cell<Option<Nanos>>,
    place: Place<'a>,
}

enum Place<'a> {
    Own { shard: MutexGuard<'a, Shard>, room: Option<Room<'a>> },
    Shared { bucket: MutexGuard<'a, Bucket>, _shard: MutexGuard<'a, Shard> },
}

impl Held<'_> {
    /// Until when the bucket owes.
    pub(super) fn time(&self) -> Nanos {
        self.bucket.time(self.kind)
    }

    /// Makes the decision true.
    pub(super) fn keep(&mut self, quota: &Quota) -> Token {
        if let Some(next) = self.next.take() {
            self.bucket.advance(self.kind, next, self.now);
            match &mut self.place {
                Place::Own { shard, room } => {
                    shard.map.insert(self.key, self.bucket);
                    shard.none_full_before = shard.none_full_before.min(self.bucket.full_at());
                    if let Some(room) = room.take() {
                        room.use_up();
                    }
                }
                Place::Shared { bucket, .. } => **bucket = self.bucket,
            }
        }
        Token {
            key: self.key,
            shared: matches!(self.place, Place::Shared { .. }),
            interval: quota.interval,
            since: self.bucket.generations_since,
        }
    }
}

impl StateStore for &Held<'_> {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, next) = decide(Some(self.time()))?;
        self.next.set(Some(next));
        Ok(outcome)
    }
}

/// One generation taken from one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    key: BucketKey,
    shared: bool,
    interval: Nanos,
    /// When the bucket was last full before: as long as this stands, it has not been full since.
    since: Nanos,
}

/// The times of one key, as GCRA keeps them: until when each meter owes. In the past: full.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: Nanos,
    generations: Nanos,
    /// When `generations` was last taken from while full.
    generations_since: Nanos,
}

impl Bucket {
    fn time(&self, kind: Kind) -> Nanos {
        match kind {
            Kind::Requests => self.requests,
            Kind::Generations => self.generations,
        }
    }

    /// Owes no longer than until `latest`. Only after a reload to a shorter window is anything owed beyond it.
    fn cap(&mut self, kind: Kind, latest: Nanos) -> Self {
        match kind {
            Kind::Requests => self.requests = self.requests.min(latest),
            Kind::Generations => self.generations = self.generations.min(latest),
        }
        *self
    }

    /// Owes as many submissions as before, each by the new quota's measure.
    fn measure(&mut self, kind: Kind, old: &Quota, new: &Quota, now: Nanos) {
        let until = self.time(kind);
        if until > now && old.interval != new.interval {
            let debt = new.of_same_count(until.saturating_sub(now), old);
            match kind {
                Kind::Requests => self.requests = now + debt,
                Kind::Generations => self.generations = now + debt,
            }
        }
        self.cap(kind, now + new.window);
    }

    fn full_at(&self) -> Nanos {
        self.requests.max(self.generations)
    }

    fn advance(&mut self, kind: Kind, next: Nanos, now: Nanos) {
        match kind {
            Kind::Requests => self.requests = next,
            Kind::Generations => {
                if self.generations <= now {
                    self.generations_since = stamp();
                }
                self.generations = next;
            }
        }
    }

    fn give_back(&mut self, token: &Token, quota: Option<Quota>, now: Nanos) {
        if self.generations <= now || self.generations_since != token.since {
            return;
        }
        // After a reload: never more than one, by the old measure or the new.
        let interval = quota.map_or(token.interval, |quota| token.interval.min(quota.interval));
        self.generations = self.generations.saturating_sub(interval);
    }
}

#[derive(Default)]
struct Shard {
    map: HashMap<BucketKey, Bucket, BuildHasherDefault<Identity>>,
    /// No bucket here is full before this, so looking for one is in vain.
    none_full_before: Nanos,
}

/// Room for one bucket; given back on drop unless it is used up.
struct Room<'a>(Option<&'a AtomicUsize>);

impl<'a> Room<'a> {
    fn take(count: &'a AtomicUsize, tracked: &AtomicUsize) -> Option<Self> {
        let tracked = tracked.load(Ordering::Relaxed);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < tracked).then_some(count + 1))
            .is_ok()
            .then(|| Self(Some(count)))
    }

    fn use_up(mut self) {
        self.0 = None;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

/// A panic cannot leave a bucket half written: each is one value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So that a shard is scanned in microseconds, and so that a table of 1,024 places, seven eighths of which the
/// standard map uses, holds a shard's share with room for chance.
const BUCKETS_A_SHARD: usize = 800;

/// A bound on what a large `limits.tracked` costs while nobody calls.
const MAX_SHARDS: usize = 65_535;

/// A million buckets are swept in twenty sweeps.
const SHARDS_A_SWEEP: usize = 64;

/// A mark that no other fullness has: two in the same millisecond must not be taken for one, or a late refund would let
/// one too many through.
fn stamp() -> Nanos {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Nanos::new(NEXT.fetch_add(1, Ordering::Relaxed))
}
