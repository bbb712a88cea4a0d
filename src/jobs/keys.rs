//! Idempotency keys: which attempt each began or joined, remembered for a day (`DESIGN.md` §3.1, `MONEY.md` M16).

use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Created};
use crate::request::fingerprint::Fingerprint;

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// An idempotency key within its scope, as a keyed digest: the key itself is not stored.
pub type KeyDigest = [u8; 16];

/// What became of the attempt that a key began or joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its outcome is still to come.
    InFlight,
    /// It made this job.
    Created(Created),
    /// Nobody knows; the key stays refused beyond the hold.
    Unknown,
}

/// One remembered key.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The fingerprint of the body it came with.
    pub body: Fingerprint,
    /// The fingerprint of the entry.
    pub fingerprint: Fingerprint,
    /// The attempt.
    pub attempt: AttemptId,
    /// What became of it.
    pub fate: Fate,
    /// When it came first.
    pub since: Time,
}

/// All remembered keys. Those that began or joined an attempt are kept for their day, bounded by `max`; those that
/// merely hit are dropped first.
#[derive(Debug, Default)]
pub struct Keys {
    by_digest: HashMap<KeyDigest, KeyRecord>,
    by_attempt: HashMap<AttemptId, Vec<KeyDigest>>,
    /// All, oldest first.
    order: BTreeSet<(Time, KeyDigest)>,
    /// Those that merely hit, oldest first.
    hits: BTreeSet<(Time, KeyDigest)>,
    /// Those whose durable record is to be written anew; keys that merely hit are not durable (M16).
    changed: HashSet<KeyDigest>,
    /// Whether anybody writes them down.
    durable: bool,
}

impl Keys {
    /// What is remembered of a key at `now`.
    pub fn get(&self, digest: &KeyDigest, now: Time) -> Option<&KeyRecord> {
        self.by_digest.get(digest).filter(|record| now.since(record.since) < KEPT)
    }

    /// Remembers that a key began or joined an attempt, or merely hit its job.
    pub fn attach(&mut self, digest: KeyDigest, record: NewKey, now: Time, max: usize) {
        if self.get(&digest, now).is_some() {
            return;
        }
        self.forget(&digest);
        while self.by_digest.len() >= max {
            let Some((_, oldest)) = self.hits.first().or_else(|| self.order.first()).copied() else { break };
            self.forget(&oldest);
        }
        let NewKey { body, fingerprint, attempt, fate } = record;
        if matches!(fate, Fate::Created(_)) {
            self.hits.insert((now, digest));
        } else {
            self.by_attempt.entry(attempt).or_default().push(digest);
            self.mark(digest);
        }
        self.order.insert((now, digest));
        self.by_digest.insert(digest, KeyRecord { body, fingerprint, attempt, fate, since: now });
    }

    /// The attempt has an outcome: its keys now say so.
    pub fn settle(&mut self, attempt: AttemptId, fate: &Fate) {
        let ends = matches!(fate, Fate::Created(_));
        let digests = if ends { self.by_attempt.remove(&attempt) } else { self.by_attempt.get(&attempt).cloned() };
        for digest in digests.unwrap_or_default() {
            if let Some(record) = self.by_digest.get_mut(&digest) {
                record.fate = fate.clone();
            }
            self.mark(digest);
        }
    }

    /// The attempt made nothing: its keys are free again.
    pub fn release(&mut self, attempt: AttemptId) {
        for digest in self.by_attempt.remove(&attempt).unwrap_or_default() {
            self.forget(&digest);
        }
    }

    /// Forgets one key.
    pub fn forget(&mut self, digest: &KeyDigest) {
        let Some(record) = self.by_digest.remove(digest) else { return };
        if !self.hits.contains(&(record.since, *digest)) {
            self.mark(*digest);
        }
        self.order.remove(&(record.since, *digest));
        self.hits.remove(&(record.since, *digest));
        if let Some(digests) = self.by_attempt.get_mut(&record.attempt) {
            digests.retain(|other| other != digest);
            if digests.is_empty() {
                self.by_attempt.remove(&record.attempt);
            }
        }
    }

    /// Notes from now on which records change.
    pub fn keep_changed(&mut self) {
        self.durable = true;
    }

    /// Which durable records have changed since this was asked last.
    pub fn take_changed(&mut self) -> HashSet<KeyDigest> {
        std::mem::take(&mut self.changed)
    }

    /// Whether any has.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The keys of an attempt become durable with it.
    pub fn mark_attempt(&mut self, attempt: AttemptId) {
        for digest in self.by_attempt.get(&attempt).cloned().unwrap_or_default() {
            self.mark(digest);
        }
    }

    /// What has changed about a key need not be written down yet.
    pub fn unmark(&mut self, digest: &KeyDigest) {
        self.changed.remove(digest);
    }

    /// The record of a key, however old.
    pub fn record(&self, digest: &KeyDigest) -> Option<&KeyRecord> {
        self.by_digest.get(digest)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_digest.is_empty()
    }

    /// Puts a record back that was written down.
    pub fn restore(&mut self, digest: KeyDigest, record: KeyRecord) {
        if record.fate == Fate::Unknown {
            self.by_attempt.entry(record.attempt).or_default().push(digest);
        }
        self.order.insert((record.since, digest));
        self.by_digest.insert(digest, record);
    }

    /// Takes in a record as it stands elsewhere.
    pub fn load(&mut self, digest: KeyDigest, record: KeyRecord) {
        if !matches!(record.fate, Fate::Created(_)) {
            self.by_attempt.entry(record.attempt).or_default().push(digest);
        }
        self.order.insert((record.since, digest));
        self.by_digest.insert(digest, record);
    }

    /// A key's record is to be written down anew, or to be removed with it.
    pub fn mark(&mut self, digest: KeyDigest) {
        if self.durable {
            self.changed.insert(digest);
        }
    }

    /// Forgets keys past their day, at most `most` of them.
    pub fn sweep(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            let Some((_, digest)) = self.order.first().filter(|(since, _)| now.since(*since) >= KEPT).copied() else {
                return;
            };
            self.forget(&digest);
        }
    }
}

/// What is to be remembered of a key.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The fingerprint of the body it came with.
    pub body: Fingerprint,
    /// The fingerprint of the entry.
    pub fingerprint: Fingerprint,
    /// The attempt that it began or joined, or that made the job it hit.
    pub attempt: AttemptId,
    /// What is known of that attempt.
    pub fate: Fate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn key(name: u8) -> KeyDigest {
        [name; 16]
    }

    fn begun(attempt: u8) -> NewKey {
        let fingerprint = Fingerprint::from_bytes([1; 32]);
        NewKey { body: fingerprint, fingerprint, attempt: AttemptId::from_bytes([attempt; 16]), fate: Fate::InFlight }
    }

    fn created() -> Fate {
        let job = crate::request::route::RequestId::parse("job").unwrap();
        Fate::Created(Created { job, answer: Bytes::new(), at: Time::from_millis(0), by: [7; 16] })
    }

    #[test]
    fn a_key_follows_its_attempt_and_lives_for_a_day() {
        let mut keys = Keys::default();
        let start = Time::from_millis(1_000);
        keys.attach(key(1), begun(1), start, 10);
        keys.settle(AttemptId::from_bytes([1; 16]), &Fate::Unknown);
        assert_eq!(keys.get(&key(1), start).unwrap().fate, Fate::Unknown);
        keys.settle(AttemptId::from_bytes([1; 16]), &created());
        assert_eq!(keys.get(&key(1), start).unwrap().fate, created());
        assert!(keys.get(&key(1), start + KEPT).is_none());
        keys.sweep(start + KEPT, 10);
        assert!(keys.by_digest.is_empty() && keys.order.is_empty() && keys.by_attempt.is_empty());
    }

    #[test]
    fn a_key_is_free_again_once_its_attempt_made_nothing() {
        let mut keys = Keys::default();
        keys.attach(key(1), begun(1), Time::from_millis(0), 10);
        keys.attach(key(2), begun(1), Time::from_millis(0), 10);
        keys.release(AttemptId::from_bytes([1; 16]));
        assert!(keys.get(&key(1), Time::from_millis(1)).is_none() && keys.get(&key(2), Time::from_millis(1)).is_none());
        assert!(keys.order.is_empty() && keys.by_attempt.is_empty());
    }

    #[test]
    fn m16_keys_that_merely_hit_leave_before_those_of_attempts() {
        let mut keys = Keys::default();
        let now = Time::from_millis(5);
        keys.attach(key(1), begun(1), Time::from_millis(1), 2);
        keys.attach(key(2), NewKey { fate: created(), ..begun(2) }, Time::from_millis(2), 2);
        keys.attach(key(3), begun(3), Time::from_millis(3), 2);
        assert!(
            keys.get(&key(1), now).is_some() && keys.get(&key(2), now).is_none() && keys.get(&key(3), now).is_some()
        );
    }
}
