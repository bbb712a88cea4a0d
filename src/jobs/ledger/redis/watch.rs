//! Which jobs a replica looks at itself: Redis gives each to one of them at a time (`MONEY.md` M23).

use std::sync::Arc;
use std::time::Duration;

use redis::cmd;

use super::shared::{PLAIN, Shared, unavailable};
use super::work::Wanted;
use crate::clock::Time;
use crate::jobs::ledger::LedgerError;
use crate::jobs::records::Job;
use crate::jobs::watchlist::LONGEST_PAUSE;
use crate::request::route::RequestId;

impl Shared {
    /// Running jobs that are due to be looked at; each is this replica's until its next look.
    pub(super) async fn watch_next(&self, quiet: Duration, most: usize) -> Result<Vec<Arc<Job>>, LedgerError> {
        let now = self.time();
        let mut ask = cmd("EVAL");
        ask.arg(include_str!("watch.lua")).arg(0).arg(&self.link.prefix).arg(now.as_millis());
        ask.arg(millis(quiet)).arg(millis(LONGEST_PAUSE)).arg(most);
        let due: Vec<String> = self.link.query(&ask).await.map_err(unavailable)?;
        let mut jobs = Vec::new();
        for id in due.iter().filter_map(|id| RequestId::parse(id)) {
            let wanted = Wanted { jobs: [id.clone()].into(), ..Wanted::default() };
            let running = self.unit(wanted, PLAIN, |book, _, _| {
                Ok(book.record(&id).filter(|record| record.ended.is_none()).map(|record| record.job.clone()))
            });
            let job = match running.await? {
                // What its polls have shown here is with the one that is kept.
                Some(read) => self.jobs.get(&id).unwrap_or_else(|| {
                    self.jobs.insert(id.clone(), read.clone());
                    read
                }),
                None => {
                    self.leave("running", id.as_str()).await?;
                    continue;
                }
            };
            // Polled here just now, and not told yet.
            if job.heard() + quiet <= now {
                jobs.push(job);
            }
        }
        Ok(jobs)
    }

    /// Tells the others now and then that clients poll a job.
    pub(super) fn note_polled(self: &Arc<Self>, job: &Job, now: Time) {
        if !self.link.is_well() || self.told_of_polls.contains_key(&job.id) {
            return;
        }
        self.told_of_polls.insert(job.id.clone(), ());
        let (shared, id) = (self.clone(), job.id.clone());
        let now = now.as_millis();
        self.runtime.spawn(async move {
            let mut put = cmd("ZADD");
            // Only if it runs, and never to an earlier look.
            put.arg(shared.key("running")).arg("XX").arg("GT").arg(now).arg(id.as_str());
            _ = shared.link.query::<i64>(&put).await;
        });
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How long the others are not told again.
pub(super) const BETWEEN_TELLINGS: Duration = Duration::from_secs(10);
