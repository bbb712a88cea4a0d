//! What is shown of the ledger in Redis: the next few jobs and entries are read into a small book, and that is listed as
//! any other; and how an entry is forgotten.

use redis::cmd;

use super::names::{bytes, hex, keys_of_key, of_unknown};
use super::shared::{PLAIN, Shared, unavailable};
use super::work::Wanted;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Entry};
use crate::jobs::ledger::LedgerError;
use crate::jobs::list::{Cursor, EntryLine, EntryQuery, Forgotten, JobLine, JobQuery, Page};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

impl Shared {
    /// A page of jobs and unknown outcomes.
    pub(super) async fn list_jobs(&self, query: &JobQuery) -> Result<Page<JobLine, Cursor>, LedgerError> {
        let (mut lines, mut after) = (Vec::new(), query.after.clone());
        loop {
            let (wanted, more) = self.next_jobs(after.as_ref()).await?;
            let last = wanted.jobs.len() + wanted.entries.len();
            let left = query.limit.saturating_sub(lines.len());
            let mut page = self
                .unit(wanted, PLAIN, |book, _, bounds| {
                    Ok(book.list_jobs(query, after.as_ref(), left, AT_ONCE, &bounds.windows))
                })
                .await?;
            lines.append(&mut page.lines);
            after = match page.next {
                // Fewer were there than the index has: records leave by themselves.
                None if more.is_some() && last > 0 => more,
                next => next,
            };
            if lines.len() >= query.limit || after.is_none() {
                return Ok(Page { lines, next: after });
            }
        }
    }

    /// The jobs and the unknown outcomes next behind a place, as many of each as are looked at once, with all that is
    /// shown of them; and where to go on if none of them is there any more.
    async fn next_jobs(&self, after: Option<&Cursor>) -> Result<(Wanted, Option<Cursor>), LedgerError> {
        let hold = self.bounds.load().windows.hold;
        let ids = self.before("jobs", after.map(|after| after.at)).await?;
        let before = after.map(|after| (after.at.as_millis(), after.name.as_str()));
        let ids: Vec<_> =
            ids.into_iter().filter(|(id, at)| before.is_none_or(|before| (*at, id.as_str()) < before)).collect();
        let unknown = self.before("unknown", after.map(|after| after.at + hold)).await?;
        let more = (ids.len() >= AT_ONCE).then(|| ids.get(AT_ONCE - 1)).flatten();
        let more = more.map(|(id, at)| Cursor { at: Time::from_millis(*at), name: id.clone() });
        let mut wanted = Wanted {
            jobs: ids.iter().take(AT_ONCE).filter_map(|(id, _)| RequestId::parse(id)).collect(),
            entries: unknown.iter().filter_map(|(member, _)| of_unknown(member)).collect(),
            ..Wanted::default()
        };
        // The entries that give them out.
        let made = wanted.jobs.clone();
        let read = |book: &mut crate::jobs::book::Book, _, _: &_| {
            Ok(made.iter().filter_map(|id| Some(book.job(id)?.fingerprint)).collect::<Vec<_>>())
        };
        let of_jobs = Wanted { jobs: wanted.jobs.clone(), ..Wanted::default() };
        wanted.entries.extend(self.unit(of_jobs, PLAIN, read).await?);
        Ok((wanted, more))
    }

    /// The members of an index up to a moment, the latest first, with their moments.
    async fn before(&self, index: &str, at: Option<Time>) -> Result<Vec<(String, u64)>, LedgerError> {
        let from = at.map_or_else(|| "+inf".to_owned(), |at| at.as_millis().to_string());
        let mut ask = cmd("ZREVRANGEBYSCORE");
        ask.arg(self.key(index)).arg(from).arg("-inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(2 * AT_ONCE);
        let found: Vec<(String, u64)> = self.link.query(&ask).await.map_err(unavailable)?;
        Ok(found)
    }

    /// A page of entries.
    pub(super) async fn list_entries(&self, query: &EntryQuery) -> Result<Page<EntryLine, Fingerprint>, LedgerError> {
        let (mut lines, mut after) = (Vec::new(), query.after);
        loop {
            let from = match after {
                Some(after) => format!("({}", hex(after.as_bytes())),
                None => format!("[{}", query.prefix),
            };
            let mut ask = cmd("ZRANGEBYLEX");
            ask.arg(self.key("names")).arg(from).arg(format!("[{}g", query.prefix)).arg("LIMIT").arg(0).arg(AT_ONCE);
            let names: Vec<String> = self.link.query(&ask).await.map_err(unavailable)?;
            let names: Vec<_> = names.iter().filter_map(|name| bytes(name)).map(Fingerprint::from_bytes).collect();
            let Some(last) = names.last().copied() else { return Ok(Page { lines, next: None }) };
            let wanted = Wanted { entries: names.into_iter().collect(), ..Wanted::default() };
            let left = query.limit.saturating_sub(lines.len());
            let mut page = self
                .unit(wanted, PLAIN, |book, _, bounds| {
                    Ok(book.list_entries(query, after.as_ref(), left, AT_ONCE, &bounds.windows))
                })
                .await?;
            lines.append(&mut page.lines);
            after = Some(page.next.unwrap_or(last));
            if lines.len() >= query.limit {
                return Ok(Page { lines, next: after });
            }
        }
    }

    /// Forgets an entry.
    pub(super) async fn forget(&self, fingerprint: Fingerprint, force: bool) -> Result<Forgotten, LedgerError> {
        let step = |book: &mut crate::jobs::book::Book, _, _: &_| {
            let layers = std::iter::successors(book.entry(&fingerprint), |entry| entry.beneath.as_deref());
            let job = |entry: &Entry| Some(entry.created()?.job.clone());
            Ok(layers.map(|entry| (entry.attempt, job(entry))).collect::<Vec<(AttemptId, Option<RequestId>)>>())
        };
        let layers = self.unit(Wanted::entry(fingerprint), PLAIN, step).await?;
        let mut wanted = Wanted::entry(fingerprint);
        for (attempt, job) in layers {
            wanted.jobs.extend(job);
            let keys = cmd("SMEMBERS").arg(self.key(&keys_of_key(&attempt))).to_owned();
            let keys: Vec<String> = self.link.query(&keys).await.map_err(unavailable)?;
            wanted.keys.extend(keys.iter().filter_map(|key| bytes(key)));
        }
        let step = |book: &mut crate::jobs::book::Book, _, bounds: &crate::jobs::book::Bounds| {
            Ok(book.forget(fingerprint, force, &bounds.windows))
        };
        let forgotten = self.unit(wanted, PLAIN, step).await?;
        self.hot.remove(&fingerprint);
        Ok(forgotten)
    }
}

/// How many of each kind are read at once.
const AT_ONCE: usize = 100;
