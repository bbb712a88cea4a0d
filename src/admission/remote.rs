//! Limits that replicas share: which buckets a submission is counted in, for a ledger that keeps their times, and what
//! those times mean. The arithmetic is that of [`super::quota`]; only the times are kept elsewhere.

use std::time::Duration;

use governor::nanos::Nanos;
use serde::Serialize;

use super::headers::Standing;
use super::quota::{Limit, Quota, whole_millis};
use super::rate::Refusal;
use crate::request::client::BucketKey;

/// A bucket that is kept elsewhere, where times are whole microseconds.
#[derive(Clone, Copy, Debug)]
pub struct RemoteBucket {
    /// The limit it is of.
    pub limit: Limit,
    /// Whose it is.
    pub key: BucketKey,
    pub(super) quota: Quota,
}

/// One generation, taken from a bucket that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteToken {
    /// The bucket.
    pub key: String,
    /// What it owes for one, in microseconds.
    pub interval: u64,
    /// Since when it has owed something: as long as this stands, it has not been full.
    pub since: String,
}

impl RemoteBucket {
    pub(super) fn new(limit: Limit, key: BucketKey, quota: Quota) -> Self {
        let interval = nanos((quota.interval.as_u64() / NANOS_A_MICROSECOND).max(1));
        let window = interval * u64::from(quota.count.get());
        Self { limit, key, quota: Quota { interval, window, ..quota } }
    }

    /// What one submission owes, in microseconds.
    pub fn interval_micros(&self) -> u64 {
        self.quota.interval.as_u64() / NANOS_A_MICROSECOND
    }

    /// What may be owed, in microseconds.
    pub fn window_micros(&self) -> u64 {
        self.quota.window.as_u64() / NANOS_A_MICROSECOND
    }
}

/// How buckets stand that owe until these times, at `now`; all in microseconds.
pub fn standing(buckets: &[RemoteBucket], until: &[u64], now: u64) -> Standing {
    let mut standing = Standing::default();
    for (bucket, until) in buckets.iter().zip(until) {
        standing.set(bucket.limit, bucket.quota.level(nanos(*until), nanos(now)));
    }
    standing
}

/// The refusal by those of the buckets that `refused`: the longest wait is the true one.
pub fn refusal(buckets: &[RemoteBucket], until: &[u64], refused: &[bool], now: u64) -> Option<Refusal> {
    let waits = buckets.iter().zip(until).zip(refused).filter(|(_, refused)| **refused).map(|((bucket, until), _)| {
        let owed = until.max(&now).saturating_add(bucket.interval_micros());
        (bucket.limit, owed.saturating_sub(now).saturating_sub(bucket.window_micros()))
    });
    let (limit, wait) = waits.max_by_key(|(_, wait)| *wait)?;
    let retry_after = Duration::from_millis(whole_millis(nanos(wait)).max(1));
    Some(Refusal { limit, retry_after, standing: Box::new(standing(buckets, until, now)) })
}

fn nanos(micros: u64) -> Nanos {
    Nanos::new(micros.saturating_mul(NANOS_A_MICROSECOND))
}

const NANOS_A_MICROSECOND: u64 = 1_000;
