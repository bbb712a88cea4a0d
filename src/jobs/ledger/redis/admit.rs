//! The one decision about a submission (`MONEY.md` M25): one call in the usual case. It goes out hoping that nothing stands
//! under the fingerprint; what stands comes back, and the state machine goes on from there.

use std::time::Duration;

use tokio::time::sleep;

use super::script::{Cap, Cell, Level, Status};
use super::shared::{SETTLE, Shared};
use super::work::{Wanted, Work, account_key, hex, holder_key};
use crate::admission::headers::Standing;
use crate::admission::quota::Kind;
use crate::admission::rate::{Refusal, Taken};
use crate::admission::remote::{self, RemoteBucket, RemoteToken};
use crate::bill::account::{AccountKey, Period};
use crate::bill::tab::{Charge, holders};
use crate::bill::terms::Exhausted;
use crate::jobs::book::Found;
use crate::jobs::entry::Look;
use crate::jobs::ledger::{Admission, LedgerError, Request, Verdict};

impl Shared {
    /// Look-up, limits, budgets and claim.
    pub(super) async fn admit(&self, request: &Request) -> Result<Admission, LedgerError> {
        let ask = &request.ask;
        let mut wanted = Wanted::entry(ask.fingerprint);
        wanted.keys.extend(ask.key);
        wanted.base = ask.base;
        wanted.tabs.insert(ask.attempt);
        let mut work = Work::hopeful(wanted);
        let mut charged = request.charged;
        let mut standing = Standing::default();
        for _ in 0..TRIES {
            self.look(&mut work).await?;
            let bounds = **self.bounds.load();
            let context = self.context(&bounds);
            work.book.tab_mut().set_terms(self.terms.load_full());
            let found = work.book.find(ask, context.now, &bounds);
            let verdict = match found {
                Found::KeyReused => Some(Verdict::KeyReused),
                Found::Look(fingerprint, Look::Join(attempt)) => Some(Verdict::Join { fingerprint, attempt }),
                Found::Look(_, Look::Held(wait)) => Some(Verdict::Held(wait)),
                Found::Look(_, Look::Hit(created, until)) => {
                    let own = work.book.entry(&ask.fingerprint).and_then(|entry| entry.created());
                    if own.is_some_and(|own| *own == created) {
                        self.hot.insert(ask.fingerprint, created.clone(), until);
                    }
                    Some(Verdict::Hit(created, until))
                }
                Found::Look(_, Look::Free) => request.closed.map(Verdict::Closed),
            };
            let requests = if charged { Vec::new() } else { self.limits.shared(&request.who, Kind::Requests) };
            let claims = verdict.is_none();
            let mut address = Taken::default();
            if claims {
                match self.limits.address_generation(&request.who) {
                    Ok((taken, stands)) => {
                        address = taken;
                        standing = standing.then(stands);
                    }
                    Err(refusal) => return Ok(Admission { verdict: Verdict::Limited(refusal), standing }),
                }
                work.book.tab_mut().reserve(ask.attempt, request.charge.clone());
                work.book.claim(ask, context.now, &bounds);
                let lease = context.now + self.lease.length;
                work.book.lease(ask.fingerprint, ask.attempt, Some(lease), &bounds.windows);
            }
            let generations = if claims { self.limits.shared(&request.who, Kind::Generations) } else { Vec::new() };
            let caps = if claims { self.caps(&request.charge) } else { Vec::new() };
            let mut command = work.command(context);
            command.requests = cells(&requests);
            if claims {
                command.claim = true;
                command.settle = u64::try_from(SETTLE.as_millis()).unwrap_or_default();
                command.most_entries = bounds.max_entries;
                command.generations = cells(&generations);
                command.caps = caps.iter().map(|(cap, _)| cap.clone()).collect();
            }
            let verdict = match verdict {
                Some(verdict) if command.is_idle() => return Ok(Admission { verdict, standing }),
                verdict => verdict,
            };
            let reply = self.run(command.clone()).await.inspect_err(|_| self.give_back(&mut address))?;
            charged = true;
            let now = reply.now.saturating_mul(1000);
            standing = standing.then(remote::standing(&requests, &times(&reply.requests), now));
            if reply.status != Status::Ok {
                self.give_back(&mut address);
            }
            let refused = |buckets: &[RemoteBucket], levels: &[Level]| {
                let flags: Vec<bool> = levels.iter().map(|level| level.refused).collect();
                remote::refusal(buckets, &times(levels), &flags, now)
            };
            match reply.status {
                Status::Ok => {
                    self.wrote(&command, &reply.sums, &work.book);
                    standing = standing.then(remote::standing(&generations, &times(&reply.generations), now));
                    let verdict = verdict.unwrap_or_else(|| {
                        self.hot.remove(&ask.fingerprint);
                        address.remote = tokens(&generations, &reply.generations);
                        Verdict::Claimed(address)
                    });
                    return Ok(Admission { verdict, standing });
                }
                Status::Changed => work.again(reply.values, self.context(&bounds)),
                Status::Limited => {
                    let refusal =
                        refused(&generations, &reply.generations).or_else(|| refused(&requests, &reply.requests));
                    let refusal: Refusal = refusal.ok_or(LedgerError::Unavailable)?;
                    return Ok(Admission { verdict: Verdict::Limited(refusal), standing });
                }
                Status::Exhausted => {
                    let (_, exhausted) = caps.get(reply.cap).ok_or(LedgerError::Unavailable)?;
                    return Ok(Admission { verdict: Verdict::Exhausted(*exhausted), standing });
                }
                Status::Full => {
                    if !self.make_room().await? {
                        return Ok(Admission { verdict: Verdict::Full, standing });
                    }
                    work.again(Vec::new(), self.context(&bounds));
                }
                Status::Wait => {
                    sleep(Duration::from_millis(reply.wait.min(1000))).await;
                    work.again(Vec::new(), self.context(&bounds));
                }
                Status::Late | Status::Epoch => return Err(LedgerError::Unavailable),
            }
        }
        Err(LedgerError::Unavailable)
    }

    fn give_back(&self, taken: &mut Taken) {
        self.limits.give_back(std::mem::take(taken));
    }

    /// The budgets and the jobs at once that a charge counts in, and what is said when one is full.
    fn caps(&self, charge: &Charge) -> Vec<(Cap, Exhausted)> {
        let terms = self.terms.load();
        let mut caps = Vec::new();
        for holder in holders(&charge.team, charge.user) {
            let bound = terms.bound(&holder);
            if let (Some(most), Err(exhausted)) = (bound.running, terms.running(&holder, i64::MAX)) {
                let (key, fields) = (holder_key(&holder), vec!["running"]);
                caps.push((Cap { key, fields, add: "1".to_owned(), most: most.to_string() }, exhausted));
            }
            for period in Period::of(charge.at) {
                let account = AccountKey { period, holder: holder.clone() };
                for (amount, fields, add, exhausted) in terms.bounds_of(&account, charge) {
                    let (key, most) = (account_key(&account), amount.to_string());
                    caps.push((Cap { key, fields: fields.to_vec(), add: add.to_string(), most }, exhausted));
                }
            }
        }
        caps
    }
}

fn cells(buckets: &[RemoteBucket]) -> Vec<Cell> {
    let cell = |bucket: &RemoteBucket| Cell {
        key: bucket_key(bucket),
        interval: bucket.interval_micros(),
        window: bucket.window_micros(),
    };
    buckets.iter().map(cell).collect()
}

fn tokens(buckets: &[RemoteBucket], levels: &[Level]) -> Vec<RemoteToken> {
    let token = |(bucket, level): (&RemoteBucket, &Level)| RemoteToken {
        key: bucket_key(bucket),
        interval: bucket.interval_micros(),
        since: level.since.clone(),
    };
    buckets.iter().zip(levels).map(token).collect()
}

fn bucket_key(bucket: &RemoteBucket) -> String {
    format!("l:{}:{}", bucket.limit.name(), hex(&bucket.key.to_bytes()))
}

/// Until when each bucket owes, in microseconds.
fn times(levels: &[Level]) -> Vec<u64> {
    levels.iter().map(|level| level.tat.parse().unwrap_or_default()).collect()
}

/// How often an admission is tried against others under the same fingerprint.
const TRIES: usize = 16;
