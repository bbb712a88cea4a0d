//! The one decision about a submission (`MONEY.md` M25): one call in the usual case. It goes out hoping that nothing stands
//! under the fingerprint; what stands comes back, and the state machine goes on from there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::filing::{Crowded, Whose};
use super::names::{account_key, hex, holder_key};
use super::script::{Cap, Cell, Command, Crowd, Level, Reply, Status};
use super::shared::{SETTLE, Shared};
use super::work::{Wanted, Work};
use crate::admission::headers::Standing;
use crate::admission::quota::Kind;
use crate::admission::rate::{Refusal, Taken};
use crate::admission::remote::{self, RemoteBucket, RemoteToken};
use crate::bill::account::{AccountKey, Period};
use crate::bill::tab::Standing::Reserved;
use crate::bill::tab::{Charge, Open, holders};
use crate::bill::terms::Exhausted;
use crate::clock::Time;
use crate::jobs::book::{Bounds, Found};
use crate::jobs::entry::Look;
use crate::jobs::ledger::{Admission, LedgerError, Request, Verdict};
use crate::request::client::Who;

/// How far an admission has come.
#[derive(Default)]
struct SoFar {
    /// Whether its `requests` are taken.
    charged: bool,
    standing: Standing,
    /// Who counts in the accounts of others.
    crowded: Crowded,
}

/// What is asked beside the entries.
#[derive(Default)]
struct Question {
    requests: Vec<RemoteBucket>,
    generations: Vec<RemoteBucket>,
    crowds: Vec<(Crowd, Whose)>,
    caps: Vec<(Cap, Exhausted)>,
    /// What was taken here: addresses are counted by each replica.
    address: Taken,
}

impl Question {
    /// The command, with what is asked beside.
    fn on(&self, mut command: Command, claims: bool, bounds: &Bounds) -> Command {
        command.requests = cells(&self.requests);
        command.claim = claims;
        command.settle = u64::try_from(SETTLE.as_millis()).unwrap_or_default();
        command.most_entries = bounds.max_entries;
        command.generations = cells(&self.generations);
        command.crowds = self.crowds.iter().map(|(crowd, _)| crowd.clone()).collect();
        command.caps = self.caps.iter().map(|(cap, _)| cap.clone()).collect();
        command
    }

    /// The refusal that an answer tells.
    fn refusal(&self, reply: &Reply) -> Option<Refusal> {
        let of = |buckets: &[RemoteBucket], levels: &[Level]| {
            let flags: Vec<bool> = levels.iter().map(|level| level.refused).collect();
            remote::refusal(buckets, &times(levels), &flags, reply.micros())
        };
        of(&self.generations, &reply.generations).or_else(|| of(&self.requests, &reply.requests))
    }
}

impl Shared {
    /// Look-up, limits, budgets and claim.
    pub(super) async fn admit(self: &Arc<Self>, request: &Request) -> Result<Admission, LedgerError> {
        let ask = &request.ask;
        let mut wanted = Wanted::asked(ask);
        wanted.tabs.insert(ask.attempt);
        // Who could not claim anyway has nothing to hope for: what stands there is looked at first.
        let mut work = if request.closed.is_none() { Work::hopeful(wanted) } else { Work::new(wanted) };
        let mut so_far = SoFar { charged: request.charged, ..SoFar::default() };
        for _ in 0..TRIES {
            self.look(&mut work).await?;
            if let Some(verdict) = self.round(&mut work, request, &mut so_far).await? {
                if matches!(verdict, Verdict::Hit(..)) {
                    self.remember_hits(&work).await;
                }
                return Ok(Admission { verdict, standing: so_far.standing });
            }
        }
        Err(LedgerError::Unavailable)
    }

    /// Takes one of a kind from all shared limits, or only looks whether it could be, for a submission that only asks.
    pub(super) async fn take_one(
        &self,
        who: &Who,
        kind: Kind,
        only_looks: bool,
    ) -> Result<Result<Standing, Refusal>, LedgerError> {
        let question = Question { requests: self.limits.shared(who, kind), ..Question::default() };
        if question.requests.is_empty() {
            return Ok(Ok(Standing::default()));
        }
        let reply = self.run(Command { requests: cells(&question.requests), only_looks, ..Command::look() }).await?;
        if reply.status == Status::Limited {
            return question.refusal(&reply).map(Err).ok_or(LedgerError::Unavailable);
        }
        Ok(Ok(remote::standing(&question.requests, &times(&reply.requests), reply.micros())))
    }

    /// One try, on what was seen so far. `None`: something else stands there by now.
    async fn round(
        &self,
        work: &mut Work,
        request: &Request,
        so_far: &mut SoFar,
    ) -> Result<Option<Verdict>, LedgerError> {
        let bounds = **self.bounds.load();
        let context = self.context(&bounds);
        let found = self.find(work, request, context.now, &bounds);
        let mut question = Question::default();
        if !so_far.charged {
            question.requests = self.limits.shared(&request.who, Kind::Requests);
        }
        if found.is_none()
            && let Err(refusal) = self.claim(work, request, &mut question, so_far, context.now, &bounds)
        {
            return Ok(Some(Verdict::Limited(refusal)));
        }
        let command = question.on(work.command(context), found.is_none(), &bounds);
        if found.is_some() && command.is_idle() {
            return Ok(found);
        }
        let reply = self.run(command.clone()).await.inspect_err(|_| self.give_back(&mut question.address))?;
        so_far.charged = true;
        so_far.standing =
            so_far.standing.then(remote::standing(&question.requests, &times(&reply.requests), reply.micros()));
        if reply.status != Status::Ok {
            self.give_back(&mut question.address);
        }
        match reply.status {
            Status::Ok => {
                self.wrote(&command, &reply);
                self.count_seen(&work.book);
                let levels = times(&reply.generations);
                so_far.standing =
                    so_far.standing.then(remote::standing(&question.generations, &levels, reply.micros()));
                if found.is_some() {
                    return Ok(found);
                }
                self.hot.remove(&request.ask.fingerprint);
                question.address.remote = tokens(&question.generations, &reply.generations);
                return Ok(Some(Verdict::Claimed(question.address)));
            }
            Status::Limited => {
                return question
                    .refusal(&reply)
                    .map(|refusal| Some(Verdict::Limited(refusal)))
                    .ok_or(LedgerError::Unavailable);
            }
            Status::Exhausted => {
                let (_, exhausted) = question.caps.get(reply.cap).ok_or(LedgerError::Unavailable)?;
                return Ok(Some(Verdict::Exhausted(*exhausted)));
            }
            Status::Crowded => {
                let (_, whose) = question.crowds.get(reply.crowd).ok_or(LedgerError::Unavailable)?;
                so_far.crowded.note(*whose);
            }
            Status::Full if !self.make_room().await? => return Ok(Some(Verdict::Full)),
            Status::Changed | Status::Full => {}
            Status::Wait => sleep(Duration::from_millis(reply.wait.min(LONGEST_WAIT))).await,
            Status::Late | Status::Epoch => return Err(LedgerError::Unavailable),
        }
        work.again(reply.values, self.context(&bounds));
        Ok(None)
    }

    /// What stands there already for this submission; `None`: it is free.
    fn find(&self, work: &mut Work, request: &Request, now: Time, bounds: &Bounds) -> Option<Verdict> {
        let ask = &request.ask;
        match work.book.find(ask, now, bounds) {
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
        }
    }

    /// Claims in the small book, and asks for what a claim takes.
    fn claim(
        &self,
        work: &mut Work,
        request: &Request,
        question: &mut Question,
        so_far: &mut SoFar,
        now: Time,
        bounds: &Bounds,
    ) -> Result<(), Refusal> {
        let (taken, stands) = self.limits.address_generation(&request.who)?;
        question.address = taken;
        so_far.standing = so_far.standing.then(stands);
        question.generations = self.limits.shared(&request.who, Kind::Generations);
        let charge = so_far.crowded.filed(&request.charge);
        question.crowds = so_far.crowded.crowds(&charge, self.terms.load().tracked);
        question.caps = self.caps(&charge);
        let ask = &request.ask;
        work.book.tab_mut().set_terms(self.terms.load_full());
        work.book.tab_mut().put_back(ask.attempt, Open { charge, standing: Reserved });
        work.book.claim(ask, now, bounds);
        work.book.lease(ask.fingerprint, ask.attempt, Some(now + self.lease.length), &bounds.windows);
        Ok(())
    }

    fn give_back(&self, taken: &mut Taken) {
        self.limits.give_back(std::mem::take(taken));
    }

    /// The budgets and the jobs at once that a charge counts in, and what is said when one is full.
    fn caps(&self, charge: &Charge) -> Vec<(Cap, Exhausted)> {
        let terms = self.terms.load();
        let mut caps = Vec::new();
        let add_bounds = |caps: &mut Vec<_>, account: &AccountKey| {
            for (amount, fields, add, exhausted) in terms.bounds_of(account, charge) {
                let (key, most) = (account_key(account), amount.to_string());
                caps.push((Cap { key, fields: fields.to_vec(), add: add.to_string(), most }, exhausted));
            }
        };
        for holder in holders(&charge.team, charge.user) {
            let bound = terms.bound(&holder);
            if let (Some(most), Err(exhausted)) = (bound.running, terms.running(&holder, i64::MAX)) {
                let (key, fields) = (holder_key(&holder), vec!["running"]);
                caps.push((Cap { key, fields, add: "1".to_owned(), most: most.to_string() }, exhausted));
            }
            for period in Period::of(charge.at) {
                add_bounds(&mut caps, &AccountKey { period, holder: holder.clone() });
            }
        }
        if let Some(purse) = charge.purse {
            add_bounds(&mut caps, &purse.account());
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
/// How long a new epoch is waited for at a time, in milliseconds.
const LONGEST_WAIT: u64 = 1000;
