//! Wrong keys, by the address they come from. A right key is never asked here: keys cannot be guessed (178 bits), so a
//! table of failures protects the log and the processor, and a broken client must not lock out its whole office.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use governor::nanos::Nanos;

use super::buckets::Buckets;
use super::quota::{Kind, NANOS_A_MILLISECOND, Quota, whole_millis};
use super::settings::Rate;
use crate::clock::Clock;
use crate::error::Error;
use crate::request::client::BucketKey;

/// The failures of all addresses, in a bounded table.
pub struct Attempts {
    quota: ArcSwapOption<Quota>,
    buckets: Buckets,
    clock: Clock,
}

impl Attempts {
    /// No failures yet; `tracked` addresses have a count of their own.
    pub fn new(rate: Option<Rate>, tracked: usize, clock: Clock) -> Self {
        Self { quota: ArcSwapOption::from_pointee(rate.map(Quota::of)), buckets: Buckets::new(tracked), clock }
    }

    /// Takes a new configuration; failures stay counted.
    pub fn reload(&self, rate: Option<Rate>) {
        self.quota.store(rate.map(|rate| Quota::of(rate).into()));
    }

    /// What is told to the sender of a wrong key.
    pub fn failed(&self, address: BucketKey) -> Error {
        let Some(quota) = &*self.quota.load() else { return Error::InvalidKey };
        let now = self.now();
        let mut bucket = self.buckets.hold(address, Kind::Requests, quota, now);
        match quota.take(&bucket, now) {
            Ok(()) => {
                bucket.keep(quota);
                Error::InvalidKey
            }
            Err(wait) => {
                let retry_after = Duration::from_millis(whole_millis(wait));
                Error::RateLimited { limit: "address.keys", retry_after }
            }
        }
    }

    /// Drops addresses that have failed long ago.
    pub fn sweep(&self) {
        self.buckets.sweep(self.now());
    }

    fn now(&self) -> Nanos {
        let nanos = self.clock.now().as_millis().saturating_mul(NANOS_A_MILLISECOND);
        Nanos::new(nanos.min(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn address(number: u8) -> BucketKey {
        BucketKey::new([number; 16])
    }

    #[test]
    fn t37_an_address_fails_so_often_and_then_waits_while_others_do_not() {
        let millis = Arc::new(AtomicU64::new(1_000_000));
        let rate = Rate { count: 3, per: Duration::from_secs(60) };
        let attempts = Attempts::new(Some(rate), 100, Clock::manual(millis.clone()));
        for _ in 0..3 {
            assert_eq!(attempts.failed(address(1)), Error::InvalidKey);
        }
        let limited = Error::RateLimited { limit: "address.keys", retry_after: Duration::from_secs(20) };
        assert_eq!(attempts.failed(address(1)), limited);
        assert_eq!(attempts.failed(address(2)), Error::InvalidKey);
        millis.fetch_add(20_000, Ordering::Relaxed);
        assert_eq!(attempts.failed(address(1)), Error::InvalidKey);
        attempts.reload(None);
        assert_eq!(attempts.failed(address(1)), Error::InvalidKey);
    }

    #[test]
    fn t37_a_million_addresses_fill_no_memory() {
        let rate = Rate { count: 3, per: Duration::from_secs(60) };
        let attempts = Attempts::new(Some(rate), 50, Clock::manual(Arc::new(AtomicU64::new(1_000_000))));
        for number in 0..2_000_u32 {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_le_bytes());
            key[8..12].copy_from_slice(&number.wrapping_mul(2_246_822_519).to_le_bytes());
            attempts.failed(BucketKey::new(key));
        }
        assert!(attempts.buckets.len() <= 50);
    }
}
