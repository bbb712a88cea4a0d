//! A job: who made it, what its polls have shown, and how its life ended.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bill::money::Amount;
use crate::bill::tab::Verdict;
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Shown, Turn};
use crate::jobs::owners::{Owner, Owners};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::telemetry::labels::JobOutcome;

/// What is known of a job from its beginning, and what its polls have shown: shared with whoever polls it.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: RequestId,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The fingerprint it was made under.
    pub fingerprint: Fingerprint,
    /// The team it was made for.
    pub team: Arc<str>,
    /// The id of the upstream key that made it: only to that key a missing job is gone (M19).
    pub key: Arc<str>,
    /// When the upstream gave the id.
    pub created: Time,
    /// The id of the request that began it, as its client knows it; empty where that is not known.
    pub request_id: Arc<str>,
    /// The last poll that showed it unfinished, in milliseconds; 0: none.
    unfinished: AtomicU64,
    /// The name of the last answer that showed it unfinished, as [`crate::jobs::observe::Reader`] names answers; 0: none.
    familiar: AtomicU64,
    /// The last time a client polled it, in milliseconds; 0: never, as far as this process knows.
    polled: AtomicU64,
    /// Who owns it beside `team`.
    pub owners: Owners,
}

impl Job {
    /// A job just made, by the upstream key of this id.
    pub fn new(
        id: RequestId,
        attempt: AttemptId,
        fingerprint: Fingerprint,
        team: Arc<str>,
        key: impl Into<Arc<str>>,
        created: Time,
    ) -> Self {
        let (unfinished, polled, owners) = (AtomicU64::new(0), AtomicU64::new(0), Owners::default());
        Self {
            id,
            attempt,
            fingerprint,
            team,
            key: key.into(),
            created,
            request_id: Arc::default(),
            unfinished,
            familiar: AtomicU64::new(0),
            polled,
            owners,
        }
    }

    /// The same, begun by the request of this id.
    pub fn asked_as(mut self, request_id: Arc<str>) -> Self {
        self.request_id = request_id;
        self
    }

    /// A client polls it.
    pub fn note_polled(&self, now: Time) {
        self.polled.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// When a client polled it last, as far as this process knows.
    pub fn polled(&self) -> Option<Time> {
        let millis = self.polled.load(Ordering::Relaxed);
        (millis > 0).then(|| Time::from_millis(millis))
    }

    /// When a client was last told of it.
    pub fn heard(&self) -> Time {
        self.polled().map_or(self.created, |polled| polled.max(self.created))
    }

    /// A job that nobody here made: it is `owner`'s, who asked for it first (M31).
    pub fn adopted(id: RequestId, owner: Owner, key: &str, now: Time) -> Self {
        let nothing = Fingerprint::from_bytes([0; 32]);
        let team = owner.team.clone();
        let owners = Owners::of(owner.user.is_some().then_some(owner).into_iter().collect());
        Self { owners, ..Self::new(id, NOBODY, nothing, team, key, now) }
    }

    /// Whether nobody here made it, as far as is known.
    pub fn is_adopted(&self) -> bool {
        self.attempt == NOBODY
    }

    /// What is known of a job that was adopted before its maker's word came: who met it, and what its polls have shown.
    pub(super) fn take_over(&self, adopted: &Self) {
        let team = Owner { team: adopted.team.clone(), user: None };
        let owners = adopted.owners.all();
        let team = owners.is_empty().then_some(team);
        owners.into_iter().chain(team).for_each(|owner| self.note_owner(owner));
        adopted.shown().unfinished.into_iter().for_each(|at| self.note_unfinished(at));
        adopted.polled().into_iter().for_each(|at| self.note_polled(at));
    }

    /// It was written down elsewhere that it is `owner`'s.
    pub fn note_owner(&self, owner: Owner) {
        if !self.is_of(&owner) {
            self.owners.add(owner, usize::MAX);
        }
    }

    /// Whether it is `owner`'s.
    pub fn is_of(&self, owner: &Owner) -> bool {
        owner.user.is_none() && self.team == owner.team || self.owners.include(owner)
    }

    /// An answer of this name is known to show it unfinished.
    pub fn note_familiar(&self, answer: NonZeroU64) {
        self.familiar.store(answer.get(), Ordering::Relaxed);
    }

    /// Whether an answer of this name is the last one that showed it unfinished.
    pub fn is_familiar(&self, answer: NonZeroU64) -> bool {
        self.familiar.load(Ordering::Relaxed) == answer.get()
    }

    /// A poll has shown it unfinished.
    pub fn note_unfinished(&self, now: Time) {
        self.unfinished.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// What its polls have shown so far.
    pub fn shown(&self) -> Shown {
        let millis = self.unfinished.load(Ordering::Relaxed);
        Shown { unfinished: (millis > 0).then(|| Time::from_millis(millis)) }
    }
}

/// How a job's life goes on or ended; the outcomes are the labels of `jobs_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Nothing terminal was seen yet.
    Running,
    /// The video is there.
    Done,
    /// It failed.
    Failed,
    /// It expired, or the upstream no longer knows it.
    Expired,
    /// The upstream's moderation refused it.
    Moderated,
}

impl Life {
    /// The label of `jobs_total`, once it has ended.
    pub const fn outcome(self) -> Option<JobOutcome> {
        match self {
            Self::Running => None,
            Self::Done => Some(JobOutcome::Done),
            Self::Failed => Some(JobOutcome::Failed),
            Self::Expired => Some(JobOutcome::Expired),
            Self::Moderated => Some(JobOutcome::Moderated),
        }
    }
}

/// How a job's life ended, and what that says of its bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub life: Life,
    /// What it cost, if the upstream said so in a way that counts here (M29).
    pub cost: Option<Amount>,
    /// How long the video is, if the upstream told.
    pub length: Option<Duration>,
}

impl From<Life> for End {
    /// An end that says nothing more.
    fn from(life: Life) -> Self {
        Self { life, cost: None, length: None }
    }
}

impl End {
    /// How its tab is settled: a refusal that the same prompt would meet again is billed, whatever it is called (M20), and
    /// what the upstream no longer knows costs its price, as whatever nobody has seen the end of.
    pub const fn verdict(self, turn: Turn) -> Verdict {
        let Self { life, cost, length } = self;
        match (life, turn) {
            (Life::Moderated, _) | (Life::Failed, Turn::Refused) => Verdict::Refused { cost },
            (Life::Failed | Life::Expired, Turn::Over | Turn::Refused | Turn::Done(_)) => Verdict::Failed { cost },
            (Life::Done | Life::Running, _) | (_, Turn::Missing) => Verdict::Done { cost, length },
        }
    }
}

/// The attempt of what nobody here made.
const NOBODY: AttemptId = AttemptId::from_bytes([0; 16]);
