//! One entry of the ledger as a state machine: what an identical submission gets, and what may follow what
//! (`DESIGN.md` §3, `MONEY.md` M1, M12–M14, M19–M22). Pure: time and settings are arguments.

mod layers;
mod rare;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Time;
use crate::jobs::records::{Job, Life};
use crate::jobs::settings::Dedup;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

pub use self::layers::Lapsed;
pub use self::rare::{Rare, Rest};

/// Clients sleep up to a minute and then retry by themselves; whoever was told to wait is held a second longer (M14).
pub const RETRY_AFTER_DOUBT: Duration = Duration::from_secs(61);
/// Refused callers that one entry remembers (M14).
const MAX_REFUSED: usize = 16;
/// How old a job that no poll has shown must be before its absence counts (M19).
const VISIBLE_AFTER: Duration = Duration::from_secs(60);

/// One try to submit (M1); random, so that nothing written for one attempt can be taken for another's, behind its time, so
/// that what is written for attempts of one time lies together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId([u8; 16]);

impl AttemptId {
    /// An attempt of now, with these random bytes.
    pub fn new(now: Time, mut random: [u8; 16]) -> Self {
        let [_, _, millis @ ..] = now.as_millis().to_be_bytes();
        random.iter_mut().zip(millis).for_each(|(to, from)| *to = from);
        Self(random)
    }

    /// The attempt of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn into_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Who asks, as far as wishes and refusals go: team, user and address together (M13, M14).
pub type Caller = [u8; 16];

/// The windows of `[dedup]` that the state machine goes by.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// How long after `done` an id is still worth giving out.
    pub delivery: Duration,
    /// How long an unknown outcome blocks its twins.
    pub hold: Duration,
    /// How long a billed refusal stays a hit.
    pub refusal: Duration,
}

impl From<&Dedup> for Windows {
    fn from(dedup: &Dedup) -> Self {
        Self { delivery: dedup.delivery_window, hold: dedup.unknown_hold, refusal: dedup.refusal_window }
    }
}

/// What an entry gives to a twin: the id, and the body the upstream answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The job.
    pub job: RequestId,
    /// The upstream's answer to the submission, byte for byte.
    pub answer: Bytes,
    /// When it came.
    pub at: Time,
    /// Whose submission made it: the same caller's next one is a retry.
    pub by: Caller,
}

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Taken, nothing sent yet.
    Claimed,
    /// Bytes may have left.
    Sending,
    /// The job exists.
    Accepted(Created),
    /// A poll showed `done`; a hit until then.
    Done(Created, Time),
    /// A poll showed a refusal that the same prompt would meet again (M20); a hit until then.
    Rejected(Created, Time),
    /// Nobody knows whether it was paid; its twins are held until then.
    Unknown(Time),
}

impl State {
    /// The name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Sending => "sending",
            Self::Accepted(_) => "accepted",
            Self::Done(..) => "done",
            Self::Rejected(..) => "rejected",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// What is remembered under a fingerprint.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The team whose attempt it is.
    pub team: Arc<str>,
    /// Where it stands.
    pub state: State,
    /// The id of the request that began it, as its client knows it; empty where that is not known.
    pub request_id: Arc<str>,
    /// What few entries have.
    pub rest: Rest,
    /// What this entry replaced, until it is certain that a new job exists.
    pub beneath: Option<Box<Entry>>,
}

/// Who asks, and what they wish.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Team, user and address together.
    pub caller: Caller,
    /// Whether a new job is wished for (M13).
    pub no_cache: bool,
}

/// What a twin gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The job, for that much longer.
    Hit(Created, Time),
    /// A place beside those who wait for this attempt.
    Join(AttemptId),
    /// Nothing, for so long.
    Held(Duration),
    /// The right to a new job.
    Free,
}

/// What a poll has shown of a job's life, as far as its entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The video is there, since then if the upstream said so.
    Done(Option<Time>),
    /// A refusal that is billed, and that the same prompt would meet again (M20).
    Refused,
    /// It failed or expired.
    Over,
    /// The upstream does not know it.
    Missing,
}

impl Turn {
    /// The turn that a life came to, where nothing more is known of it: not whether what failed was refused (M20).
    pub const fn of(life: Life) -> Self {
        match life {
            Life::Done | Life::Running => Self::Done(None),
            Life::Moderated => Self::Refused,
            Life::Failed | Life::Expired => Self::Over,
        }
    }
}

/// What a job's polls have shown so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// The last poll that showed it unfinished.
    pub unfinished: Option<Time>,
}

impl Shown {
    /// Whether the absence of a job made at `created` says that it is gone: a fresh one may not be visible yet (M19).
    pub fn is_missed(self, created: Time, now: Time) -> bool {
        self.unfinished.is_some() || now.since(created) > VISIBLE_AFTER
    }
}

impl Entry {
    /// A fresh claim.
    pub fn claimed(attempt: AttemptId, team: Arc<str>) -> Self {
        Self { attempt, team, state: State::Claimed, request_id: Arc::default(), rest: Rest::default(), beneath: None }
    }

    /// What `asker` gets from this entry at `now`. A refusal is remembered where M14 wants it.
    pub fn look(&mut self, asker: Asker, now: Time, windows: &Windows) -> Look {
        let renewed = self.renews_wish(asker, now);
        if asker.no_cache && !renewed {
            return Look::Free;
        }
        match &self.state {
            State::Claimed | State::Sending => Look::Join(self.attempt),
            State::Accepted(created) => Self::hit(created, created.at + windows.delivery, now),
            State::Done(created, until) | State::Rejected(created, until) => Self::hit(created, *until, now),
            State::Unknown(until) => {
                let until = *until;
                match self.held(asker.caller, until, now, windows, renewed) {
                    // What it replaced may be open still.
                    None => self.beneath.as_mut().map_or(Look::Free, |beneath| beneath.look(asker, now, windows)),
                    Some(wait) => {
                        self.doubt(asker.caller, now);
                        Look::Held(wait)
                    }
                }
            }
        }
    }

    fn hit(created: &Created, until: Time, now: Time) -> Look {
        if now < until { Look::Hit(created.clone(), until) } else { Look::Free }
    }

    /// Whether this is the same wish again: SDKs repeat a failed call with its headers (M13).
    fn renews_wish(&self, asker: Asker, now: Time) -> bool {
        asker.no_cache
            && self.rest.wish.is_some_and(|(caller, at)| caller == asker.caller && now.since(at) < RETRY_AFTER_DOUBT)
    }

    /// How long `caller` is still held: to the hold's end, or 61 s past a refusal in its last 61 s (M14).
    fn held(&self, caller: Caller, until: Time, now: Time, windows: &Windows, renewed: bool) -> Option<Duration> {
        let hard_end = until + windows.hold;
        let own_end = self
            .rest
            .refused
            .iter()
            .find(|(refused, _)| *refused == caller)
            .map_or(until, |(_, at)| (*at + RETRY_AFTER_DOUBT).max(until).min(hard_end));
        (now < own_end || renewed).then(|| own_end.since(now).max(RETRY_AFTER_DOUBT))
    }

    /// Remembers that `caller` was told at `now` that the outcome is unknown (M14). The wish it began with stays fresh
    /// for as long (M13).
    pub fn doubt(&mut self, caller: Caller, now: Time) {
        if self.rest.wish.is_some_and(|(wisher, _)| wisher == caller) {
            self.rest.change().wish = Some((caller, now));
        }
        // Before the hold has begun nobody knows where its last moments will be.
        let until = match self.state {
            State::Unknown(until) if now < until && until.since(now) <= RETRY_AFTER_DOUBT => Some(until),
            State::Sending => None,
            _ => return,
        };
        let refused = &mut self.rest.change().refused;
        if let Some((_, at)) = refused.iter_mut().find(|(refused, _)| *refused == caller) {
            *at = now;
            return;
        }
        if let Some(until) = until {
            refused.retain(|(_, at)| *at + RETRY_AFTER_DOUBT > until);
        }
        if refused.len() < MAX_REFUSED {
            refused.push((caller, now));
        }
    }

    /// When the entry has nothing more to say, if time alone ends it.
    pub fn due(&self, windows: &Windows) -> Option<Time> {
        match &self.state {
            State::Claimed | State::Sending => None,
            State::Accepted(created) => Some(created.at + windows.delivery),
            State::Done(_, until) | State::Rejected(_, until) => Some(*until),
            State::Unknown(until) => {
                let last = self.rest.refused.iter().map(|(_, at)| *at + RETRY_AFTER_DOUBT).max();
                Some(last.map_or(*until, |last| last.max(*until).min(*until + windows.hold)))
            }
        }
    }

    /// The body under which a keyless twin finds this entry: only if it is held or undelivered (M15).
    pub fn found_by_body(&self) -> Option<Fingerprint> {
        self.rest.base.filter(|_| self.rest.undelivered || matches!(self.state, State::Unknown(_)))
    }

    /// The job, if the entry has one.
    pub fn created(&self) -> Option<&Created> {
        match &self.state {
            State::Accepted(created) | State::Done(created, _) | State::Rejected(created, _) => Some(created),
            State::Claimed | State::Sending | State::Unknown(_) => None,
        }
    }

    /// What the record of its job says too is kept once.
    pub fn share(&mut self, job: &Job) {
        if let State::Accepted(created) | State::Done(created, _) | State::Rejected(created, _) = &mut self.state
            && created.job == job.id
        {
            created.job = job.id.clone();
        }
        for (own, other) in [(&mut self.team, &job.team), (&mut self.request_id, &job.request_id)] {
            if own == other {
                *own = other.clone();
            }
        }
    }

    /// Applies what a poll has shown. Returns whether the entry goes on; states never go back.
    pub fn turn(&mut self, turn: Turn, shown: Shown, now: Time, windows: &Windows) -> Fate {
        let Some(created) = self.created().cloned() else { return Fate::Stays };
        match turn {
            Turn::Done(_) if matches!(self.state, State::Done(..)) => Fate::Stays,
            Turn::Done(finished) => {
                let done_at =
                    finished.or(shown.unfinished).unwrap_or(created.at).clamp(created.at, now.max(created.at));
                self.state = State::Done(created, done_at + windows.delivery);
                Fate::Turned
            }
            Turn::Refused if windows.refusal.is_zero() => Fate::Ends,
            Turn::Refused if matches!(self.state, State::Rejected(..)) => Fate::Stays,
            Turn::Refused => {
                self.state = State::Rejected(created, now + windows.refusal);
                Fate::Turned
            }
            Turn::Over => Fate::Ends,
            Turn::Missing => {
                let was_visible = matches!(self.state, State::Done(..) | State::Rejected(..));
                if was_visible || shown.is_missed(created.at, now) { Fate::Ends } else { Fate::Stays }
            }
        }
    }
}

/// What a turn did to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Stays,
    /// Its state changed.
    Turned,
    /// It is over; the next identical prompt makes a new job.
    Ends,
}

#[cfg(test)]
mod tests;
