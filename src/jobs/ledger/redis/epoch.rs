//! Redis forgets: all of it (a FLUSHALL, a restart without its file), or what came last (an older snapshot, a log without
//! its last second, a failover to a copy that lagged behind). Every step names the epoch it lives in and the last of its
//! replica's writes; if one of the two is gone, a new epoch begins, and each replica puts back what Redis has lost of its
//! writes before anything new is claimed (`MONEY.md` M26, M9). A Redis that does not have the script of the steps was
//! started anew, so that then nobody has to notice first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::cmd;
use tracing::{error, info, warn};

use super::mirror::{Kept, Life, Sum};
use super::names::{bytes, hex, stamp_key};
use super::naming;
use super::script::{Command, Reply, Seen, Status, Write};
use super::shared::{Shared, unavailable};
use crate::bill::form::TabForm;
use crate::bill::tab::{Open, Tab};
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Windows};
use crate::jobs::ledger::LedgerError;
use crate::jobs::ledger::disk::form::{EntryForm, JobForm, KeyForm};
use crate::request::fingerprint::Fingerprint;

/// A value that this replica wrote, by its key.
type Written = (Arc<String>, Arc<Kept>);

impl Shared {
    /// Redis does not have the script of the steps: it was started anew, or another one answers in its place. What it
    /// knows may be what it knew a while ago, so its epoch is over, and only then it gets the script.
    pub(super) async fn arrive(&self) -> Result<(), LedgerError> {
        let found: Option<String> = self.link.query(cmd("GET").arg(self.key("epoch"))).await.map_err(unavailable)?;
        if self.link.has_script().await.map_err(unavailable)? {
            return Ok(());
        }
        if let Some(found) = found {
            let mut end = cmd("EVAL");
            end.arg(include_str!("restarted.lua")).arg(0).arg(&self.link.prefix).arg(found);
            let _: () = self.link.query(&end).await.map_err(unavailable)?;
        }
        self.link.load_script().await.map_err(unavailable)
    }

    /// Puts back what this replica knows, and lives in the epoch that stands then. `present` is the one that was found.
    pub(super) async fn restore(&self, present: Option<String>) -> Result<(), LedgerError> {
        let _alone = self.mirror.restoring.lock().await;
        let Life { epoch: own, last } = self.mirror.life();
        if own.is_some() && own == self.link.query(cmd("GET").arg(self.key("epoch"))).await.map_err(unavailable)? {
            return Ok(());
        }
        // Who has written nothing yet has nothing to put back, but the key and its id.
        let is_first = own.is_none() && present.is_some();
        if !is_first {
            self.restore_key().await?;
        }
        let (epoch, written) = self.begin_epoch(last).await?;
        if !is_first {
            // Nothing is claimed while somebody says that it is not done yet.
            self.say_restoring(true).await?;
            self.mirror.note_restoration();
            let restored = self.restore_lost(&epoch, written, last).await;
            self.say_restoring(false).await?;
            restored?;
        }
        info!(restored = !is_first, "the ledger's epoch is known");
        self.mirror.live_in(epoch);
        Ok(())
    }

    /// The epoch that stands, or else a new one; and the stamp of this replica's last write that is still there.
    async fn begin_epoch(&self, last: u64) -> Result<(String, u64), LedgerError> {
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| LedgerError::Unavailable)?;
        let noted = u64::try_from(STAMPS_NOTED.as_millis()).unwrap_or(u64::MAX);
        let mut begin = cmd("EVAL");
        begin.arg(include_str!("epoch.lua")).arg(0).arg(&self.link.prefix);
        begin.arg(hex(&id)).arg(&self.replica).arg(last).arg(noted);
        let (epoch, begun, written): (String, bool, u64) = self.link.query(&begin).await.map_err(unavailable)?;
        if begun {
            warn!("the ledger in redis is empty, or not as it was left: a new epoch begins");
        }
        Ok((epoch, written))
    }

    /// The fingerprints' key, or the id of one from the environment, goes back before anything else: under another key
    /// every live prompt would be bought again.
    async fn restore_key(&self) -> Result<(), LedgerError> {
        let mut name = cmd("SET");
        name.arg(self.key(naming::ID)).arg(&self.mirror.key_id).arg("NX");
        let _: Option<String> = self.link.query(&name).await.map_err(unavailable)?;
        let Some(own) = &self.mirror.key else { return Ok(()) };
        let mut put = cmd("SET");
        put.arg(self.key(naming::KEY)).arg(own).arg("NX").arg("GET");
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

    /// Puts back what was written after `written`, the last that is still there; entries first. Then Redis has again
    /// whatever it told this replica up to `last`.
    async fn restore_lost(&self, epoch: &str, written: u64, last: u64) -> Result<(), LedgerError> {
        let lost = self.mirror.written_after(written);
        let all = lost.len();
        let (entries, others): (Vec<_>, Vec<_>) = lost.into_iter().partition(|(key, _)| key.starts_with("e:"));
        let mut restored = 0;
        for chunk in entries.chunks(AT_ONCE).chain(others.chunks(AT_ONCE)) {
            restored += self.put_back(epoch, chunk).await?;
            self.say_restoring(true).await?;
        }
        self.restore_sums().await?;
        if written < last {
            match self.mirror.lives_until() {
                Some(until) => {
                    let mut put = cmd("SET");
                    put.arg(self.key(&stamp_key(&self.replica))).arg(last).arg("PXAT").arg(until);
                    let _: () = self.link.query(&put).await.map_err(unavailable)?;
                }
                None => self.mirror.forget_last(),
            }
        }
        info!(restored, surpassed = all - restored, "what redis had lost of this replica's writes is back");
        Ok(())
    }

    /// Puts some values back, with all that follows from them, but for those that others wrote later. How many.
    async fn put_back(&self, epoch: &str, lost: &[Written]) -> Result<usize, LedgerError> {
        for _ in 0..TRIES {
            let expect = lost.iter().map(|(key, _)| Seen { key: key.to_string(), value: None }).collect();
            let standing = self.restoring_step(epoch, Command { expect, ..Command::look() }).await?;
            let command = self.putting_back(lost, standing);
            let restored = command.writes.len();
            if restored == 0 || self.restoring_step(epoch, command).await?.status == Status::Ok {
                return Ok(restored);
            }
        }
        Err(LedgerError::Unavailable)
    }

    /// A step in an epoch that this replica does not live in yet.
    async fn restoring_step(&self, epoch: &str, command: Command) -> Result<Reply, LedgerError> {
        let (epoch, replica) = (Some(epoch.to_owned()), self.replica.clone());
        let command = Command { epoch, replica, restores: true, ..command };
        let reply = self.link.run_long(command).await.map_err(unavailable)?;
        reply.filter(|reply| matches!(reply.status, Status::Ok | Status::Changed)).ok_or(LedgerError::Unavailable)
    }

    /// What is to be written where this stands. Whatever is known to have been written later stays. Where stamps are noted,
    /// what has none is as old as the epoch, and so older than what was lost; where they no longer are, only what is
    /// absent comes back.
    fn putting_back(&self, lost: &[Written], standing: Reply) -> Command {
        let (mut command, mut tabs) = (Command::default(), Tab::default());
        let (now, bounds) = (self.link.now(), self.bounds.load());
        for ((key, kept), ((_, value), stamp)) in lost.iter().zip(standing.values.into_iter().zip(standing.stamps)) {
            let is_later = match stamp.parse::<u64>() {
                Ok(stamp) => kept.stamp > stamp,
                Err(_) => standing.stamped || value.is_none() && kept.value.is_some(),
            };
            if !is_later {
                continue;
            }
            self.place(&mut command, &mut tabs, (key, kept), value.as_deref(), (now, &bounds.windows));
            let stamp = Some(kept.stamp.to_string());
            let write = Write { key: key.to_string(), value: kept.value.clone(), expires: kept.expires, stamp };
            command.writes.push(write);
            command.expect.push(Seen { key: key.to_string(), value });
        }
        command.post(&tabs, now);
        command
    }

    /// The places of a value in the indexes. What is reserved, and how many jobs run, follows from the tabs.
    fn place(
        &self,
        command: &mut Command,
        tabs: &mut Tab,
        (key, kept): (&str, &Kept),
        standing: Option<&str>,
        (now, windows): (Time, &Windows),
    ) {
        let (value, seal) = (kept.value.as_deref(), &self.seal);
        let Some((kind, member)) = key.split_once(':') else { return };
        match kind {
            "e" => {
                let entry = |text| seal.read::<EntryForm>(key, text).map(EntryForm::into_entry);
                let (old, new) = (standing.and_then(entry), value.and_then(entry));
                if let Some(fingerprint) = bytes(member).map(Fingerprint::from_bytes) {
                    command.place_entry(&fingerprint, old.as_ref(), new.as_ref(), now, windows);
                }
            }
            "j" => {
                let record = value.and_then(|text| seal.read::<JobForm>(key, text)).and_then(JobForm::into_record);
                record.iter().for_each(|record| _ = command.place_job(record, now));
            }
            "k" => {
                let record = value.and_then(|text| seal.read::<KeyForm>(key, text)).map(KeyForm::into_record);
                if let (Some(digest), Some(record)) = (bytes(member), record) {
                    command.place_key(&digest, &record);
                }
            }
            "t" => {
                let open = |text| seal.read::<TabForm>(key, text).map(TabForm::into_open);
                let (old, new): (Option<Open>, Option<Open>) = (standing.and_then(open), value.and_then(open));
                let Some(attempt) = bytes(member).map(AttemptId::from_bytes) else { return };
                command.place_tab(&attempt, old.as_ref(), new.as_ref(), now);
                if let Some(old) = old {
                    tabs.load(attempt, old);
                    tabs.release(attempt);
                }
                if let Some(new) = new {
                    tabs.put_back(attempt, new);
                }
            }
            _ => {}
        }
    }

    /// Of what was spent the larger sum is the true one. Its account is listed again, whichever stands.
    async fn restore_sums(&self) -> Result<(), LedgerError> {
        for chunk in self.mirror.sums().chunks(AT_ONCE) {
            let mut put = cmd("EVAL");
            put.arg(include_str!("sums.lua")).arg(0).arg(&self.link.prefix);
            for (place, Sum { sum, expires, listed }) in chunk {
                let expires = expires.map_or_else(|| "-1".to_owned(), |expires| expires.to_string());
                let (set, member) = listed.as_deref().map_or(("", ""), |(set, member)| (set, member));
                put.arg(&place.0).arg(&place.1).arg(sum).arg(expires).arg(set).arg(member);
            }
            let _: () = self.link.query(&put).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// A key in Redis, with the prefix.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.link.prefix)
    }
}

/// How many values are put back at once.
const AT_ONCE: usize = 200;
/// How often some are tried against others that write the same.
const TRIES: usize = 16;
/// How long a replica's word that it is still restoring stands.
const RESTORING: Duration = Duration::from_secs(5);
/// How long after an epoch's birth the stamps of all values are noted: who was cut off for longer puts back only what is
/// absent.
const STAMPS_NOTED: Duration = Duration::from_secs(600);
