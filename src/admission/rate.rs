//! The limits of client token, `user`, team, address and all together, on requests and on generations (`MONEY.md` M24). A decision
//! locks every bucket it asks, in one order, and takes from all of them or from none; a request then owns what it
//! took, and a generation that was certainly not sent can be given back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::nanos::Nanos;
use hyper::HeaderMap;

use super::buckets::{Buckets, Held, Token};
use super::headers::{Policies, Standing};
use super::quota::{Kind, Limit, NANOS_A_MILLISECOND, Quota, Scope, whole_millis};
use super::remote::{RemoteBucket, RemoteToken};
use super::settings;
use crate::clock::Clock;
use crate::error::Error;
use crate::request::client::{BucketKey, Who};

/// All limits of this process.
pub struct Limits {
    quotas: ArcSwap<AllQuotas>,
    tokens: Buckets,
    users: Buckets,
    teams: Buckets,
    addresses: Buckets,
    total: Buckets,
    clock: Clock,
}

impl Limits {
    /// Limits nobody has used yet, the same for every team.
    pub fn new(limits: &settings::Limits, clock: Clock) -> Self {
        Self {
            quotas: ArcSwap::from_pointee(AllQuotas::of(limits, &[])),
            tokens: Buckets::new(limits.tracked),
            users: Buckets::new(limits.tracked),
            teams: Buckets::new(limits.tracked),
            addresses: Buckets::new(limits.tracked),
            total: Buckets::new(1),
            clock,
        }
    }

    /// Takes a new configuration: everybody's limits, and those of teams that have their own, by the team's key. What
    /// was used stays used: a bucket owes for as many submissions as before, each by the new measure, but never more than
    /// the new window. Walks through all buckets, a shard at a time; a decision that falls between the swap and its
    /// bucket's turn is judged by the new quota over the old debt.
    pub fn reload(&self, limits: &settings::Limits, teams: &[(BucketKey, settings::Limits)]) {
        for buckets in [&self.tokens, &self.users, &self.teams, &self.addresses] {
            buckets.track(limits.tracked);
        }
        let quotas = Arc::new(AllQuotas::of(limits, teams));
        let old = self.quotas.swap(Arc::clone(&quotas));
        // What a token brings along never changes.
        for limit in Limit::ALL.into_iter().filter(|limit| limit.scope != Scope::Token) {
            let change = |old: &Quotas, new: &Quotas| new.get(limit).map(|new| (old.get(limit).unwrap_or(new), new));
            let common = change(&old.common, &quotas.common);
            let own = old.teams.keys().chain(quotas.teams.keys());
            let own: HashMap<u16, _> =
                own.map(|team| (team.tag(), change(old.of_team(*team), quotas.of_team(*team)))).collect();
            let of_teams = matches!(limit.scope, Scope::User | Scope::Team);
            let change_of = |key: BucketKey| match own.get(&key.tag()) {
                Some(change) if of_teams => *change,
                _ => common,
            };
            self.buckets(limit.scope).measure(limit.kind, common, change_of, self.now());
        }
    }

    /// Takes a request of the address, before a body is read.
    ///
    /// # Errors
    /// If the address may not; then nothing is taken.
    pub fn before_body(&self, who: &Who) -> Result<Standing, Refusal> {
        self.take(who, Kind::Requests, [Scope::Address], drop)
    }

    /// Takes a request of token, user, team and total. It stays taken, whatever follows.
    ///
    /// # Errors
    /// If one of them may not; then nothing is taken from any.
    pub fn requests(&self, who: &Who) -> Result<Standing, Refusal> {
        self.take(who, Kind::Requests, SHARED, drop)
    }

    /// Takes a generation of token, user, team, address and total.
    ///
    /// # Errors
    /// If one of them may not; then nothing is taken from any.
    pub fn generations(&self, who: &Who) -> Result<(Taken, Standing), Refusal> {
        self.generation(who, Scope::ALL)
    }

    /// Takes a generation of the address alone: the others are counted elsewhere.
    ///
    /// # Errors
    /// If it may not.
    pub fn address_generation(&self, who: &Who) -> Result<(Taken, Standing), Refusal> {
        self.generation(who, [Scope::Address])
    }

    /// What a generation would be refused by just now; nothing is taken, as long as nobody else asks meanwhile.
    pub fn refused(&self, who: &Who) -> Option<Refusal> {
        self.given_back(self.generations(who))
    }

    /// The same of the address alone.
    pub fn address_refused(&self, who: &Who) -> Option<Refusal> {
        self.given_back(self.address_generation(who))
    }

    fn given_back(&self, asked: Result<(Taken, Standing), Refusal>) -> Option<Refusal> {
        asked.map(|(taken, _)| self.give_back(taken)).err()
    }

    fn generation<const N: usize>(&self, who: &Who, scopes: [Scope; N]) -> Result<(Taken, Standing), Refusal> {
        let mut taken = Taken { team: who.team, ..Taken::default() };
        let standing = self.take(who, Kind::Generations, scopes, |(scope, token)| taken.add(scope, token))?;
        Ok((taken, standing))
    }

    /// The buckets of a kind that are shared by all replicas: those of token, user, team and total.
    pub fn shared(&self, who: &Who, kind: Kind) -> Vec<RemoteBucket> {
        let quotas = self.quotas.load();
        let quotas = quotas.of_team(who.team);
        let bucket = |scope| {
            let limit = Limit { scope, kind };
            quotas.of(who, limit).map(|quota| RemoteBucket::new(limit, key(who, scope), quota))
        };
        SHARED.into_iter().filter_map(bucket).collect()
    }

    /// Gives a generation back that was certainly not sent; not to a bucket that has been full since, or a late
    /// refund would let one too many through.
    pub fn give_back(&self, taken: Taken) {
        let quotas = self.quotas.load();
        let quotas = quotas.of_team(taken.team);
        let now = self.now();
        for (scope, token) in Scope::ALL.into_iter().zip(taken.tokens) {
            if let Some(token) = token {
                let quota = quotas.get(Limit { scope, kind: Kind::Generations });
                self.buckets(scope).give_back(&token, quota, now);
            }
        }
    }

    /// Drops some of the buckets that are full again; a timer calls it about once a second.
    pub fn sweep(&self) {
        let now = self.now();
        for scope in Scope::ALL {
            self.buckets(scope).sweep(now);
        }
    }

    /// Adds `RateLimit-Policy` and `RateLimit` to an answer for this client.
    pub fn write_headers(&self, who: &Who, standing: &Standing, headers: &mut HeaderMap) {
        let own = who.token.map(|token| token.rates);
        self.quotas.load().of_team(who.team).policies.write(own.as_ref(), standing, headers);
    }

    /// How many buckets of a scope are in memory.
    pub fn tracked(&self, scope: Scope) -> usize {
        self.buckets(scope).len()
    }

    /// Takes one of each of these scopes, which stand in the order of [`Scope::ALL`], or of none. `keep` is told what was
    /// taken.
    fn take<const N: usize>(
        &self,
        who: &Who,
        kind: Kind,
        scopes: [Scope; N],
        mut keep: impl FnMut((Scope, Token)),
    ) -> Result<Standing, Refusal> {
        let quotas = self.quotas.load();
        let quotas = quotas.of_team(who.team);
        let asked = scopes.map(|scope| quotas.of(who, Limit { scope, kind }));
        if asked.iter().all(Option::is_none) {
            return Ok(Standing::default());
        }
        let now = self.now();
        let mut refused: Option<(Limit, Nanos)> = None;
        let mut held = [const { None::<Held<'_>> }; N];
        for ((place, scope), quota) in held.iter_mut().zip(scopes).zip(&asked) {
            let Some(quota) = quota else { continue };
            let bucket = self.buckets(scope).hold(key(who, scope), kind, quota, now);
            if let Err(wait) = quota.take(&bucket, now) {
                // The longest wait is the true one: only after it does the request pass every limit.
                refused = refused.filter(|(_, longest)| *longest >= wait).or(Some((Limit { scope, kind }, wait)));
            }
            *place = Some(bucket);
        }

        let mut standing = Standing::default();
        for ((bucket, scope), quota) in held.iter_mut().zip(scopes).zip(&asked) {
            let Some((bucket, quota)) = bucket.as_mut().zip(quota.as_ref()) else { continue };
            if refused.is_none() {
                keep((scope, bucket.keep(quota)));
            }
            standing.set(Limit { scope, kind }, quota.level(bucket.time(), now));
        }
        match refused {
            None => Ok(standing),
            Some((limit, wait)) => {
                let retry_after = Duration::from_millis(whole_millis(wait));
                Err(Refusal { limit, retry_after, standing: Box::new(standing) })
            }
        }
    }

    fn buckets(&self, scope: Scope) -> &Buckets {
        match scope {
            Scope::Token => &self.tokens,
            Scope::User => &self.users,
            Scope::Team => &self.teams,
            Scope::Address => &self.addresses,
            Scope::Total => &self.total,
        }
    }

    /// The clock counts from the Unix epoch, so the origin of all stored times is the same for every limiter.
    fn now(&self) -> Nanos {
        let nanos = self.clock.now().as_millis().saturating_mul(NANOS_A_MILLISECOND);
        Nanos::new(nanos.min(LATEST_NANOS))
    }
}

fn key(who: &Who, scope: Scope) -> BucketKey {
    match scope {
        Scope::Token => who.token.map(|token| token.key).unwrap_or_default(),
        Scope::User => who.user,
        Scope::Team => who.team,
        Scope::Address => who.address,
        Scope::Total => BucketKey::default(),
    }
}

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which: of several, the one that stays reached longest.
    pub limit: Limit,
    /// When the same request would pass, if nobody else came in between.
    pub retry_after: Duration,
    /// How the limits stand.
    pub standing: Box<Standing>,
}

impl Refusal {
    /// This refusal behind what was taken before it: one more request must fit as well when the client comes again.
    pub fn after(mut self, earlier: &Standing) -> Self {
        for (_, level) in earlier.levels().filter(|(_, level)| level.remaining == 0) {
            self.retry_after = self.retry_after.max(Duration::from_secs(level.seconds.into()));
        }
        *self.standing = earlier.then(*self.standing);
        self
    }
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        Self::RateLimited { limit: refusal.limit.name(), retry_after: refusal.retry_after }
    }
}

/// A generation, taken from every limit that counts it. Dropped, it stays taken.
#[derive(Debug, Default)]
#[must_use = "what was not sent is given back"]
pub struct Taken {
    /// In the order of [`Scope::ALL`].
    tokens: [Option<Token>; Scope::ALL.len()],
    /// Whose limits it was taken by.
    team: BucketKey,
    /// Those that were taken from buckets kept elsewhere.
    pub remote: Vec<RemoteToken>,
}

impl Taken {
    fn add(&mut self, scope: Scope, token: Token) {
        if let Some(place) = self.tokens.get_mut(scope as usize) {
            *place = Some(token);
        }
    }
}

/// The quotas of everybody, and of the teams that have their own.
struct AllQuotas {
    common: Quotas,
    teams: HashMap<BucketKey, Quotas>,
}

impl AllQuotas {
    fn of(limits: &settings::Limits, teams: &[(BucketKey, settings::Limits)]) -> Self {
        let teams = teams.iter().map(|(team, limits)| (*team, Quotas::new(limits))).collect();
        Self { common: Quotas::new(limits), teams }
    }

    fn of_team(&self, team: BucketKey) -> &Quotas {
        // Mostly no team has its own.
        if self.teams.is_empty() { &self.common } else { self.teams.get(&team).unwrap_or(&self.common) }
    }
}

/// The quotas of one configuration.
struct Quotas {
    user: Meters,
    team: Meters,
    address: Meters,
    total: Meters,
    policies: Policies,
}

struct Meters {
    requests: Option<Quota>,
    generations: Option<Quota>,
}

impl Quotas {
    fn new(limits: &settings::Limits) -> Self {
        let meters = |scope| {
            let quota = |kind| Limit { scope, kind }.rate(limits).map(Quota::of);
            Meters { requests: quota(Kind::Requests), generations: quota(Kind::Generations) }
        };
        Self {
            user: meters(Scope::User),
            team: meters(Scope::Team),
            address: meters(Scope::Address),
            total: meters(Scope::Total),
            policies: Policies::of(limits),
        }
    }

    /// The quota that a limit has for this client.
    fn of(&self, who: &Who, limit: Limit) -> Option<Quota> {
        match limit.scope {
            Scope::Token => who.token?.rates.of(limit.kind).map(Quota::of),
            _ => self.get(limit),
        }
    }

    fn get(&self, limit: Limit) -> Option<Quota> {
        let meters = match limit.scope {
            Scope::Token => return None,
            Scope::User => &self.user,
            Scope::Team => &self.team,
            Scope::Address => &self.address,
            Scope::Total => &self.total,
        };
        match limit.kind {
            Kind::Requests => meters.requests,
            Kind::Generations => meters.generations,
        }
    }
}

/// Whose buckets replicas share.
const SHARED: [Scope; 4] = [Scope::Token, Scope::User, Scope::Team, Scope::Total];

/// Far enough from the end of 64 bits that governor's sums cannot overflow.
const LATEST_NANOS: u64 = u64::MAX / 2;

#[cfg(test)]
mod tests;
