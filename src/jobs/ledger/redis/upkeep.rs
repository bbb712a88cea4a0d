//! What goes on beside the requests: leases that have lapsed and entries that are due are ended. Here are also the steps
//! that are taken again later if they fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::cmd;
use tracing::{error, warn};

use super::mirror::Life;
use super::names::{bytes, stamp_key, tab_key};
use super::script::Command;
use super::shared::{PLAIN, Shared, TRIES, unavailable};
use super::work::Wanted;
use crate::admission::rate::Taken;
use crate::bill::tab::Open;
use crate::clock::Time;
use crate::jobs::book::{Book, Bounds, Ended, Rank};
use crate::jobs::entry::{AttemptId, Created, Fate, Turn};
use crate::jobs::ledger::LedgerError;
use crate::jobs::records::{End, Job};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

impl Shared {
    /// The job of an id, as it stands now, to be remembered here.
    pub(super) async fn job(&self, id: &RequestId) -> Result<Option<Arc<Job>>, LedgerError> {
        let wanted = Wanted { jobs: [id.clone()].into(), ..Wanted::default() };
        let job = self.unit(wanted, PLAIN, |book, _, _| Ok(book.job(id))).await?;
        if let Some(job) = &job {
            self.jobs.insert(id.clone(), job.clone());
        }
        Ok(job)
    }

    /// The upstream gave an id.
    pub(super) async fn accepted(&self, job: &Arc<Job>, created: &Created) -> Result<Rank, LedgerError> {
        let mut wanted = Wanted::attempt(job.fingerprint, job.attempt);
        wanted.jobs.insert(job.id.clone());
        let (rank, stands) = self
            .unit(wanted, PLAIN, |book, _, bounds| {
                let rank = book.accepted(job, created.clone(), bounds);
                Ok((rank, book.gives_out(&job.fingerprint, created)))
            })
            .await?;
        self.jobs.insert(job.id.clone(), job.clone());
        if stands {
            let until = created.at + self.bounds.load().windows.delivery;
            self.hot.insert(job.fingerprint, created.clone(), until);
        }
        Ok(rank)
    }

    /// Nobody knows whether the attempt was paid.
    pub(super) async fn unknown(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Result<(), LedgerError> {
        self.unit(Wanted::attempt(fingerprint, attempt), PLAIN, |book, now, bounds| {
            book.unknown(fingerprint, attempt, now, &bounds.windows);
            // From here on it is the attempt's own word, and no lease brings it back.
            book.lease(fingerprint, attempt, None, &bounds.windows);
            Ok(())
        })
        .await
    }

    /// The attempt made nothing. What it took from the shared limits comes back with its tab, so once.
    pub(super) async fn free(
        &self,
        fingerprint: Fingerprint,
        attempt: AttemptId,
        back: Option<&Taken>,
    ) -> Result<(), LedgerError> {
        let tokens = back.map(|taken| taken.remote.clone()).unwrap_or_default();
        let tab = tab_key(&attempt);
        let dress = |command: &mut Command| {
            if command.writes.iter().any(|write| write.key == tab && write.value.is_none()) {
                command.back.clone_from(&tokens);
            }
        };
        self.unit(Wanted::attempt(fingerprint, attempt), &dress, |book, _, bounds| {
            book.free(fingerprint, attempt, &bounds.windows);
            Ok(())
        })
        .await
    }

    /// A poll has shown a turn.
    pub(super) async fn turned(&self, job: &Arc<Job>, turn: Turn, end: End) -> Result<Ended, LedgerError> {
        let mut own = job.clone();
        for _ in 0..TRIES {
            let mut wanted = Wanted::entry(own.fingerprint);
            wanted.entries.insert(job.fingerprint);
            wanted.jobs.insert(job.id.clone());
            wanted.tabs.insert(own.attempt);
            let known = &own;
            let step = |book: &mut Book, now, bounds: &Bounds| match book.job(&job.id) {
                // It is known here as adopted, and its maker's word has come since.
                Some(recorded) if recorded.attempt != known.attempt => Ok(Err(recorded)),
                _ => Ok(Ok(book.turned(job, turn, end, now, &bounds.windows))),
            };
            match self.unit(wanted, PLAIN, step).await? {
                Ok(ended) => {
                    // What is done is still worth giving out when Redis is away.
                    if ended.fate == Fate::Ends {
                        [job, &own].into_iter().for_each(|job| self.hot.remove(&job.fingerprint));
                    }
                    return Ok(ended);
                }
                Err(recorded) => own = recorded,
            }
        }
        Err(LedgerError::Unavailable)
    }

    /// Others wait only so long for what this replica knows (M26), so it does not wait for a step of its own to notice that
    /// Redis has forgotten it.
    pub(super) async fn notice_a_new_epoch(&self) {
        let Life { epoch: Some(own), last } = self.mirror.life() else { return };
        let mut ask = cmd("MGET");
        ask.arg(self.key("epoch")).arg(self.key(&stamp_key(&self.replica)));
        let standing: Result<(Option<String>, Option<u64>), _> = self.link.probe(&ask).await;
        if let Ok((epoch, written)) = standing
            && (epoch.as_ref() != Some(&own) || written.unwrap_or_default() < last)
            && let Err(error) = self.run(Command::look()).await
        {
            warn!(%error, "what this replica knows is not back in the ledger yet");
        }
    }

    /// One round of upkeep; one at a time.
    pub(super) async fn sweep(self: Arc<Self>) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.sweep_once().await {
            tracing::debug!(%error, "the ledger in redis was not swept");
        }
        self.sweeping.store(false, Ordering::Relaxed);
    }

    async fn sweep_once(&self) -> Result<(), LedgerError> {
        let now = self.link.now().as_millis();
        for _ in 0..MOST_ROUNDS {
            let due = self.due("due", now).await?;
            let standing = self.drop_vanished(&due).await?;
            for member in &standing {
                self.end_what_is_due(member).await?;
            }
            // After a long while without a replica nearly all have left by themselves.
            if due.len() < AT_ONCE || !standing.is_empty() {
                break;
            }
        }
        for member in self.due("tabs", now).await? {
            let Some(attempt) = bytes(&member).map(AttemptId::from_bytes) else {
                self.leave("tabs", &member).await?;
                continue;
            };
            let wanted = Wanted { tabs: [attempt].into(), ..Wanted::default() };
            let left = self.unit(wanted, PLAIN, |book, now, _| {
                book.tab_mut().sweep(now, AT_ONCE);
                Ok(book.tab().open(&attempt).and_then(Open::due))
            });
            match left.await?.filter(|due| *due > self.link.now()) {
                // One that is not due yet must not stand before those that are.
                Some(due) => self.put_off("tabs", due, &member).await?,
                None => self.leave("tabs", &member).await?,
            }
        }
        // Records that are gone leave the lists of jobs.
        let gone = now.saturating_sub(RECORDS_KEPT);
        for index in ["jobs", "running", "unknown"] {
            let mut leave = cmd("ZREMRANGEBYSCORE");
            leave.arg(self.key(index)).arg("-inf").arg(gone);
            self.link.query::<i64>(&leave).await.map_err(unavailable)?;
        }
        self.drop_vanished_by_chance().await?;
        self.count().await
    }

    /// Members of an index whose time has come.
    pub(super) async fn due(&self, index: &str, now: u64) -> Result<Vec<String>, LedgerError> {
        let mut range = cmd("ZRANGEBYSCORE");
        range.arg(self.key(index)).arg("-inf").arg(now).arg("LIMIT").arg(0).arg(AT_ONCE);
        self.link.query(&range).await.map_err(unavailable)
    }

    pub(super) async fn leave(&self, index: &str, member: &str) -> Result<(), LedgerError> {
        self.link.query::<i64>(cmd("ZREM").arg(self.key(index)).arg(member)).await.map(drop).map_err(unavailable)
    }

    /// A member's time comes later.
    async fn put_off(&self, index: &str, until: Time, member: &str) -> Result<(), LedgerError> {
        let mut put = cmd("ZADD");
        put.arg(self.key(index)).arg(until.as_millis()).arg(member);
        self.link.query::<i64>(&put).await.map(drop).map_err(unavailable)
    }

    async fn end_what_is_due(&self, member: &str) -> Result<(), LedgerError> {
        let Some(fingerprint) = bytes(member).map(Fingerprint::from_bytes) else {
            return self.leave("due", member).await;
        };
        let next = self.unit(Wanted::entry(fingerprint), PLAIN, |book, now, bounds| {
            book.sweep(now, bounds, AT_ONCE);
            let entry = book.entry(&fingerprint);
            Ok(entry.map(|entry| entry.rest.lease.or_else(|| entry.due(&bounds.windows)).unwrap_or(now)))
        });
        match next.await? {
            None => {
                self.hot.remove(&fingerprint);
                Ok(())
            }
            // It was put back by somebody who did not know when it is due.
            Some(next) if next > self.link.now() => self.put_off("due", next, member).await,
            Some(_) => Ok(()),
        }
    }

    /// What an operator should know of this Redis (M26).
    pub(super) async fn examine(&self) {
        // The first epoch has settled by the time the first submission comes.
        if let Err(error) = self.run(Command::look()).await {
            warn!(%error, "the ledger in redis cannot be asked yet");
        }
        let setting = async |name: &str| -> Option<String> {
            let named: HashMap<String, String> = self.link.query(cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
            named.into_values().next()
        };
        if setting("maxmemory-policy").await.is_some_and(|policy| policy != "noeviction") {
            warn!("redis may evict the ledger's keys: set maxmemory-policy noeviction, or give it a redis of its own");
        }
        if setting("appendonly").await.is_some_and(|log| log != "yes") {
            warn!(
                "redis keeps no log of its writes (appendonly is not yes): when it dies it loses everything since its last \
                 snapshot, and only what the replicas that still run have written comes back; set appendonly yes"
            );
        }
        let info: Result<String, _> = self.link.query(cmd("INFO").arg("cluster")).await;
        if info.is_ok_and(|info| info.contains("cluster_enabled:1")) {
            error!("a redis cluster is not supported: one step of the ledger needs all its keys in one place");
        }
    }

    /// The moment by Redis' clock.
    pub(super) fn time(&self) -> Time {
        self.link.now()
    }
}

/// How long a job's record is kept, and a day, in milliseconds.
const RECORDS_KEPT: u64 = 8 * 24 * 3600 * 1000;
/// How much is swept at once.
pub(super) const AT_ONCE: usize = 100;
/// How often at most in one round of upkeep.
const MOST_ROUNDS: usize = 50;
