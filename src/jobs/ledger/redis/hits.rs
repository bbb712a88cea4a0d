//! Idempotency keys that merely hit (`MONEY.md` M16). Such a hit is answered when Redis was asked once, so its key is written
//! beside it: one that is lost is as if it had never been seen.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use redis::cmd;

use super::names::{hex, key_key};
use super::places::KEY_KEPT;
use super::shared::Shared;
use super::work::Work;
use crate::jobs::ledger::disk::form::KeyForm;

impl Shared {
    /// Remembers the keys with which a submission has just hit, so that all replicas know them. They leave for Redis before
    /// this returns, and so before whatever the client asks next; nobody waits for them to be written.
    pub(super) async fn remember_hits(self: &Arc<Self>, work: &Work) {
        for (digest, record) in work.merely_hit() {
            let key = key_key(digest);
            let Some(value) = self.seal.seal(&key, &KeyForm::of(record)) else { continue };
            if !self.has_room_underway() {
                return;
            }
            let most = self.bounds.load().max_entries.min(MOST_HITS);
            let expires = (record.since + KEY_KEPT).as_millis();
            let mut remember = cmd("EVAL");
            remember.arg(include_str!("hit.lua")).arg(0).arg(&self.link.prefix).arg(hex(digest)).arg(value);
            remember.arg(expires).arg(self.time().as_millis()).arg(most);
            let shared = self.clone();
            // That it fails, as in a Redis that is full, is no reason to stop buying: the breaker does not hear of it.
            let mut remembered = Box::pin(async move { _ = shared.link.probe::<i64>(&remember).await });
            if poll_fn(|context| Poll::Ready(remembered.as_mut().poll(context))).await.is_pending() {
                self.underway.spawn(remembered);
            }
        }
    }
}

/// How many are remembered: with the usual answers less than 100 MB of Redis' memory. A client's retries come within minutes.
const MOST_HITS: usize = 100_000;
