//! Redis forgets: after a failover, a restart without its file, a FLUSHALL. Every step names the epoch it lives in; when
//! that is gone, each replica puts back what it had written before anything new is claimed (`MONEY.md` M26, M9).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::Expiry;
use moka::sync::Cache;
use redis::{cmd, pipe};
use tracing::{error, info, warn};

use super::script::{Count, Write};
use super::shared::{Shared, unavailable};
use super::work::hex;
use crate::jobs::entry::State;
use crate::jobs::ledger::LedgerError;
use crate::jobs::ledger::disk::form::{Checked, EntryForm, JobForm};

/// What this replica has written, as long as it lives there.
pub(super) struct Mirror {
    values: Cache<String, Arc<Kept>>,
    /// Sums of accounts and of jobs at once, by key and field: what they came to when this replica changed them last.
    sums: Cache<(String, String), (i64, Option<u64>)>,
    epoch: Mutex<Option<String>>,
    /// The fingerprints' key as hex digits, which goes back first; none where it comes from the environment.
    key: Option<String>,
    /// How often putting back has begun.
    restorations: AtomicU64,
    /// One restores at a time.
    restoring: tokio::sync::Mutex<()>,
    now: Box<dyn Fn() -> u64 + Send + Sync>,
}

struct Kept {
    value: String,
    expires: u64,
}

/// Values leave here when they leave Redis.
struct Until(Box<dyn Fn() -> u64 + Send + Sync>);

impl Expiry<String, Arc<Kept>> for Until {
    #[expect(clippy::disallowed_types, reason = "the cache's own clock is an argument that is not used")]
    fn expire_after_create(&self, _: &String, kept: &Arc<Kept>, _: std::time::Instant) -> Option<Duration> {
        Some(Duration::from_millis(kept.expires.saturating_sub((self.0)())))
    }
}

impl Mirror {
    /// Nothing written yet; at most `most` values are kept. `now` is in milliseconds, as Redis has it.
    pub(super) fn new(most: u64, key: Option<String>, now: impl Fn() -> u64 + Clone + Send + Sync + 'static) -> Self {
        let values = Cache::builder().max_capacity(most).expire_after(Until(Box::new(now.clone()))).build();
        let sums = Cache::builder().max_capacity(most).build();
        Self {
            values,
            sums,
            epoch: Mutex::default(),
            key,
            restorations: AtomicU64::new(0),
            restoring: tokio::sync::Mutex::default(),
            now: Box::new(now),
        }
    }

    /// How often putting back has begun: a step that saw it change cannot know whether what it wrote was put back.
    pub(super) fn restorations(&self) -> u64 {
        self.restorations.load(Ordering::SeqCst)
    }

    /// The epoch this replica lives in.
    pub(super) fn epoch(&self) -> Option<String> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A counter has come to a sum.
    pub(super) fn note_count(&self, count: &Count, sum: &str) {
        let Ok(sum) = sum.parse() else { return };
        // How many entries stand in each state is counted anew.
        if count.key != "states" {
            self.sums.insert((count.key.clone(), count.field.clone()), (sum, count.expires));
        }
    }

    /// A value was written, or deleted.
    pub(super) fn note(&self, write: &Write) {
        match &write.value {
            Some(value) => {
                let kept = Kept { value: value.clone(), expires: write.expires };
                self.values.insert(write.key.clone(), Arc::new(kept));
            }
            None => self.values.invalidate(&write.key),
        }
    }
}

impl Shared {
    /// Puts back what this replica knows, and lives in the epoch that stands then. `present` is the one that was found.
    pub(super) async fn restore(&self, present: Option<String>) -> Result<(), LedgerError> {
        let _alone = self.mirror.restoring.lock().await;
        let own = self.mirror.epoch();
        if own.is_some() && own == self.link.query(cmd("GET").arg(self.key("epoch"))).await.map_err(unavailable)? {
            return Ok(());
        }
        // Who has written nothing yet has nothing to put back, but the key.
        let is_first = own.is_none() && present.is_some();
        if !is_first {
            self.restore_key().await?;
        }
        let epoch = self.begin_epoch().await?;
        if !is_first {
            // Nothing is claimed while somebody says that it is not done yet.
            self.say_restoring(true).await?;
            self.mirror.restorations.fetch_add(1, Ordering::SeqCst);
            let restored = self.restore_values().await;
            self.say_restoring(false).await?;
            restored?;
        }
        info!(restored = !is_first, "the ledger's epoch is known");
        *self.mirror.epoch.lock().unwrap_or_else(PoisonError::into_inner) = Some(epoch);
        Ok(())
    }

    /// The epoch that stands, or else a new one.
    async fn begin_epoch(&self) -> Result<String, LedgerError> {
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| LedgerError::Unavailable)?;
        let (seconds, micros): (String, String) = self.link.query(&cmd("TIME")).await.map_err(unavailable)?;
        let millis =
            seconds.parse::<u64>().unwrap_or_default() * 1000 + micros.parse::<u64>().unwrap_or_default() / 1000;
        let epoch = format!("{}:{millis}", hex(&id));
        let mut begin = cmd("SET");
        begin.arg(self.key("epoch")).arg(&epoch).arg("NX").arg("GET");
        let standing: Option<String> = self.link.query(&begin).await.map_err(unavailable)?;
        if standing.is_none() {
            warn!("the ledger in redis is empty: a new epoch begins");
        }
        Ok(standing.unwrap_or(epoch))
    }

    /// The fingerprints' key goes back before anything else: under another one every live prompt would be bought again.
    async fn restore_key(&self) -> Result<(), LedgerError> {
        let Some(own) = &self.mirror.key else { return Ok(()) };
        let mut put = cmd("SET");
        put.arg(self.key("fingerprint-key")).arg(own).arg("NX").arg("GET");
        let standing: Option<String> = self.link.query(&put).await.map_err(unavailable)?;
        let estranged = standing.is_some_and(|standing| standing != *own);
        if estranged && !self.estranged.swap(true, Ordering::Relaxed) {
            error!("the ledger in redis has another fingerprint key: restart this replica, and set dedup.key_env");
        }
        Ok(())
    }

    /// Tells the other replicas that this one is still putting back what it knows, or no longer.
    async fn say_restoring(&self, restoring: bool) -> Result<(), LedgerError> {
        let mut say = cmd(if restoring { "ZADD" } else { "ZREM" });
        say.arg(self.key("restoring"));
        if restoring {
            say.arg((self.link.now() + RESTORING).as_millis());
        }
        self.link.query::<i64>(say.arg(&self.replica)).await.map(drop).map_err(unavailable)
    }

    /// Sets what is absent. Where something stands already, another replica's is as good: of two jobs under one
    /// fingerprint the one that stands is given out, and both are in the list of jobs. Entries go first.
    async fn restore_values(&self) -> Result<(), LedgerError> {
        let (mut restored, mut differing) = (0_u64, 0_u64);
        let now = (self.mirror.now)();
        let living = self.mirror.values.iter().filter(|(_, kept)| kept.expires > now);
        let (entries, others): (Vec<_>, Vec<_>) = living.partition(|(key, _)| key.starts_with("e:"));
        for chunk in entries.chunks(AT_ONCE).chain(others.chunks(AT_ONCE)) {
            let mut put = pipe();
            for (key, kept) in chunk {
                put.cmd("SET").arg(self.key(key)).arg(&kept.value).arg("NX").arg("GET").arg("PXAT").arg(kept.expires);
            }
            let standing: Vec<Option<String>> = self.link.pipe(&put).await.map_err(unavailable)?;
            let mut index = pipe();
            for ((key, kept), standing) in chunk.iter().zip(standing) {
                match standing {
                    None => {
                        restored += 1;
                        self.restore_index(&mut index, key, &kept.value);
                    }
                    Some(standing) if standing != kept.value => differing += 1,
                    Some(_) => {}
                }
            }
            if !index.is_empty() {
                let _: () = self.link.pipe(&index).await.map_err(unavailable)?;
            }
            self.say_restoring(true).await?;
        }
        self.restore_sums().await?;
        info!(restored, differing, "what this replica knew is back in the ledger");
        Ok(())
    }

    /// Of what was spent the larger sum is the true one.
    async fn restore_sums(&self) -> Result<(), LedgerError> {
        for (key, (sum, expires)) in &self.mirror.sums {
            let (key, field) = (self.key(&key.0), &key.1);
            if expires.is_some_and(|expires| expires <= self.link.now().as_millis()) {
                continue;
            }
            let standing: Option<i64> = self.link.query(cmd("HGET").arg(&key).arg(field)).await.map_err(unavailable)?;
            if standing.is_none_or(|standing| standing < sum) {
                let _: () = self.link.query(cmd("HSET").arg(&key).arg(field).arg(sum)).await.map_err(unavailable)?;
                if let Some(expires) = expires {
                    let _: () = self.link.query(cmd("PEXPIREAT").arg(&key).arg(expires)).await.map_err(unavailable)?;
                }
            }
        }
        Ok(())
    }

    /// An entry is to be looked at by the next sweep, a job is to be listed and watched; the rest follows from that.
    fn restore_index(&self, index: &mut redis::Pipeline, key: &str, value: &str) {
        let now = self.link.now().as_millis();
        let Some((kind, member)) = key.split_once(':') else { return };
        let mut places = Vec::new();
        match kind {
            "e" => {
                places.extend([("due", now), ("names", 0)]);
                if let Checked::Sound(form) = self.seal.open::<EntryForm>(key, value) {
                    let state = form.into_entry().state;
                    if let State::Unknown(until) = state {
                        places.push(("unknown", until.as_millis()));
                    }
                    index.cmd("HINCRBY").arg(self.key("states")).arg(state.name()).arg(1).ignore();
                }
            }
            "j" => {
                if let Checked::Sound(form) = self.seal.open::<JobForm>(key, value) {
                    places.push(("jobs", form.created().as_millis()));
                    places.extend(form.is_running().then_some(("running", now)));
                }
            }
            "t" => places.push(("tabs", now)),
            _ => {}
        }
        for (place, score) in places {
            index.cmd("ZADD").arg(self.key(place)).arg(score).arg(member).ignore();
        }
    }

    /// A key in Redis, with the prefix.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.link.prefix)
    }
}

/// How many values are put back at once.
const AT_ONCE: usize = 500;
/// How long a replica's word that it is still restoring stands.
const RESTORING: Duration = Duration::from_secs(5);
