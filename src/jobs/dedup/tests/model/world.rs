//! Both replicas, the clients, the upstream and the time, and what is true of them whatever anybody believes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::super::shared::{BOUNDS, Broken, LEASE, Shared};
use super::{Event, Reaction, Wants};
use crate::clock::{Clock, Time};
use crate::error::{Doubt, Error};
use crate::jobs::book::{Ask, Rank};
use crate::jobs::entry::{Asker, AttemptId, Created, Turn};
use crate::jobs::flight::Progress;
use crate::jobs::ledger::Verdict;
use crate::jobs::records::{Job, Life};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::upstream::outcome::{Answer, NotSent, Outcome, Reply};
use crate::upstream::outgoing::SendBy;

/// From the send until the outcome is unknown.
const LATE_ANSWER: Duration = Duration::from_secs(4);
/// The steps in which time passes.
const TICK: Duration = Duration::from_millis(250);

/// One attempt in one replica.
struct Attempt {
    id: AttemptId,
    replica: usize,
    wants: Wants,
    stage: Stage,
    /// Asked for with each third of the lease.
    renewed: Time,
    /// The upstream's answer, until its replica sees it.
    arrived: Option<Reaction>,
}

#[derive(Clone)]
enum Stage {
    Claimed,
    /// The compare-and-set is done, nothing is written.
    Cleared(SendBy),
    Sent(Time),
    /// The hold is written, and the answer still read for.
    Late(Time),
    Over,
}

/// One client that waits in one replica.
#[derive(Clone, Copy)]
struct Waiter {
    replica: usize,
    wants: Wants,
    attempt: AttemptId,
}

/// One POST, as the upstream saw it: what is true whatever anybody believes.
struct Post {
    attempt: AttemptId,
    wants: Wants,
    at: Time,
    reaction: Option<Reaction>,
    /// Its job has failed.
    ended: bool,
}

pub(super) struct World {
    shared: Shared,
    millis: Arc<AtomicU64>,
    frozen: [bool; 2],
    attempts: Vec<Attempt>,
    waiters: Vec<Waiter>,
    posts: Vec<Post>,
    /// The attempt whose job stands for each prompt.
    standing: [Option<AttemptId>; 3],
    /// Ids that a replica had in hand.
    ids: Vec<Arc<Job>>,
    pub(super) faults: Vec<String>,
    /// Clients on their way back to admission.
    again: Vec<(usize, Wants)>,
    next: u32,
}

fn fingerprint(prompt: u8) -> Fingerprint {
    Fingerprint::from_bytes([prompt; 32])
}

impl World {
    pub(super) fn new(broken: Broken) -> Self {
        Self {
            shared: Shared::new(broken),
            millis: Arc::new(AtomicU64::new(1_000_000)),
            frozen: [false; 2],
            attempts: Vec::new(),
            waiters: Vec::new(),
            posts: Vec::new(),
            standing: [None; 3],
            ids: Vec::new(),
            faults: Vec::new(),
            again: Vec::new(),
            next: 0,
        }
    }

    fn now(&self) -> Time {
        Time::from_millis(self.millis.load(Ordering::SeqCst))
    }

    pub(super) fn happen(&mut self, event: &Event) {
        match *event {
            Event::Submit { replica, wants } if !self.frozen[replica] => self.submit(replica, wants),
            Event::Submit { .. } => {}
            Event::Leave(which) if which < self.waiters.len() => self.leave(which),
            Event::Leave(_) => {}
            Event::Go(which) => {
                let able = |attempt: &&mut Attempt| attempt.is_before_send() && !self.frozen[attempt.replica];
                let id = self.attempts.iter_mut().filter(able).nth(which).map(|attempt| attempt.id);
                if let Some(id) = id {
                    self.go(id);
                }
            }
            Event::Freeze(replica) => self.frozen[replica] = true,
            Event::Wake(replica) => self.frozen[replica] = false,
            Event::Pass(ticks) => (0..ticks).for_each(|_| self.tick()),
            Event::Answer(which, reaction) => {
                let open = self.posts.iter_mut().filter(|post| post.reaction.is_none()).nth(which);
                if let Some(post) = open {
                    post.reaction = Some(reaction);
                    let id = post.attempt;
                    self.attempt(id).arrived = Some(reaction);
                }
            }
            Event::End(which) => self.end_job(which),
        }
        self.settle();
    }

    fn attempt(&mut self, id: AttemptId) -> &mut Attempt {
        self.attempts.iter_mut().find(|attempt| attempt.id == id).unwrap()
    }

    fn submit(&mut self, replica: usize, wants: Wants) {
        self.next += 1;
        let id = AttemptId::from_bytes(u128::from(self.next).to_be_bytes());
        let ask = Ask {
            fingerprint: fingerprint(wants.prompt),
            body: fingerprint(wants.prompt),
            base: None,
            attempt: id,
            team: "open".into(),
            request_id: Arc::default(),
            asker: Asker { caller: [wants.caller; 16], no_cache: wants.no_cache },
            key: wants.key.map(|key| [key; 16]),
            former: None,
        };
        let now = self.now();
        let attempt = match self.shared.admit(&ask, None, now) {
            Verdict::Join { attempt, .. } => attempt,
            Verdict::Claimed(_) => {
                let attempt = Attempt { id, replica, wants, stage: Stage::Claimed, renewed: now, arrived: None };
                self.attempts.push(attempt);
                id
            }
            _ => return,
        };
        self.waiters.push(Waiter { replica, wants, attempt });
        self.show_waiters(attempt);
    }

    /// What the replicas show each other of their waiters.
    fn show_waiters(&mut self, attempt: AttemptId) {
        let waits = self.waiters.iter().filter(|waiter| waiter.attempt == attempt);
        let replicas = waits.map(|waiter| waiter.replica as u8).collect();
        self.shared.waiting.insert(attempt, replicas);
    }

    fn leave(&mut self, which: usize) {
        let waiter = self.waiters[which];
        if !self.frozen[waiter.replica] {
            self.waiters.remove(which);
            self.show_waiters(waiter.attempt);
        }
    }

    /// An attempt's next step before the first byte.
    fn go(&mut self, id: AttemptId) {
        let (now, millis) = (self.now(), self.millis.clone());
        let Attempt { wants, replica, stage, .. } = self.attempt(id);
        let (wants, replica, stage) = (*wants, *replica, stage.clone());
        match stage {
            Stage::Claimed if !self.is_awaited(id, replica) => self.not_sent(id, NotSent::Left),
            Stage::Claimed => {
                let clock = Clock::manual(millis);
                let limit = SendBy { issued: clock.reading(), clock, within: LEASE.send_by };
                match self.shared.sending(fingerprint(wants.prompt), id, now) {
                    Ok(()) => self.attempt(id).stage = Stage::Cleared(limit),
                    Err(_) => self.not_sent(id, NotSent::Superseded),
                }
            }
            Stage::Cleared(limit) if limit.is_over() && self.shared.broken != Broken::NoGate => {
                self.not_sent(id, NotSent::Ledger);
            }
            Stage::Cleared(_) => {
                self.check_post(id, wants);
                self.posts.push(Post { attempt: id, wants, at: now, reaction: None, ended: false });
                self.attempt(id).stage = Stage::Sent(now);
                self.shared.tell(id, Progress::Sent(Instant::now()));
            }
            Stage::Sent(_) | Stage::Late(_) | Stage::Over => {}
        }
    }

    fn is_awaited(&self, id: AttemptId, replica: usize) -> bool {
        let here = self.waiters.iter().any(|waiter| waiter.attempt == id && waiter.replica == replica);
        here || self.shared.awaited(id, replica as u8)
    }

    /// Whether this POST may be: no other of its prompt may be open, or have made the job that stands, unless this one is
    /// a wish, or the other a wish that came after it; and none of the same idempotency key, wished for or not.
    fn check_post(&mut self, id: AttemptId, wants: Wants) {
        let now = self.now();
        for post in self.posts.iter().filter(|post| post.wants.prompt == wants.prompt) {
            let is_settled = post.reaction == Some(Reaction::Refused) || post.ended;
            // The hold is counted from the lease at the earliest, and that from the compare-and-set.
            let held = post.at + (BOUNDS.windows.hold - LEASE.send_by);
            let is_seen = self.ids.iter().any(|job| job.attempt == post.attempt);
            let in_doubt = !is_settled && !is_seen && now < held;
            let is_later_wish = post.wants.no_cache && post.attempt.into_bytes() > id.into_bytes();
            let stands = self.standing[usize::from(wants.prompt)] == Some(post.attempt) && !post.ended;
            if !wants.no_cache && !is_later_wish && (in_doubt || stands) {
                self.faults.push(format!("{id:?} was sent beside {:?}", post.attempt));
            }
            if wants.key.is_some() && wants.key == post.wants.key && !is_settled {
                self.faults.push(format!("{id:?} was sent though {:?} has its key", post.attempt));
            }
        }
    }

    fn not_sent(&mut self, id: AttemptId, why: NotSent) {
        let (now, prompt) = (self.now(), self.attempt(id).wants.prompt);
        self.shared.free(fingerprint(prompt), id, now);
        self.land(id, Outcome::NotSent(why), Stage::Over);
    }

    /// The outcome is told, here and elsewhere; a void one sends its waiters back to admission.
    fn land(&mut self, id: AttemptId, outcome: Outcome, stage: Stage) {
        let outcome = Arc::new(outcome);
        self.shared.tell(id, Progress::Landed(outcome.clone()));
        let attempt = self.attempt(id);
        attempt.stage = stage;
        let replica = attempt.replica;
        self.tell_waiters(id, replica, &outcome);
    }

    fn tell_waiters(&mut self, id: AttemptId, replica: usize, outcome: &Outcome) {
        let (told, rest) = self.waiters.iter().partition(|waiter| waiter.attempt == id && waiter.replica == replica);
        let told: Vec<Waiter> = told;
        self.waiters = rest;
        self.show_waiters(id);
        let void = told.into_iter().filter(|_| outcome.is_void());
        self.again.extend(void.map(|waiter| (waiter.replica, waiter.wants)));
    }

    /// What happens by itself in the replicas that are awake.
    fn settle(&mut self) {
        for index in 0..self.attempts.len() {
            let Attempt { id, replica, .. } = self.attempts[index];
            if self.frozen[replica] {
                continue;
            }
            if let Some(reaction) = self.attempts[index].arrived.take() {
                self.read(id, reaction);
            }
            let is_claimed = matches!(self.attempts[index].stage, Stage::Claimed);
            if is_claimed && !self.is_awaited(id, replica) {
                self.not_sent(id, NotSent::Left);
            }
        }
        self.follow();
    }

    /// Waiters hear from other replicas what those tell.
    fn follow(&mut self) {
        let now = self.now();
        loop {
            let elsewhere = |waiter: &Waiter| {
                let runs = |attempt: &Attempt| attempt.id == waiter.attempt && attempt.replica == waiter.replica;
                !self.attempts.iter().any(runs) && !self.frozen[waiter.replica]
            };
            let waiters: Vec<Waiter> = self.waiters.iter().copied().filter(elsewhere).collect();
            let mut news = waiters.into_iter().filter_map(|waiter| match self.shared.news(waiter.attempt, now) {
                Some(Progress::Landed(outcome)) => Some((waiter, outcome)),
                Some(Progress::Waiting | Progress::Sent(_)) => None,
                None => Some((waiter, Arc::new(Outcome::NotSent(NotSent::Superseded)))),
            });
            let Some((waiter, outcome)) = news.next() else { return };
            drop(news);
            self.tell_waiters(waiter.attempt, waiter.replica, &outcome);
        }
    }

    /// A replica reads the upstream's answer, in time or late.
    fn read(&mut self, id: AttemptId, reaction: Reaction) {
        let now = self.now();
        let Attempt { wants, stage, .. } = self.attempt(id);
        let (wants, is_late) = (*wants, matches!(stage, Stage::Late(_)));
        if !is_late && !matches!(stage, Stage::Sent(_)) {
            return;
        }
        let prompt = fingerprint(wants.prompt);
        let outcome = match reaction {
            Reaction::Created => {
                let name = u128::from_be_bytes(id.into_bytes());
                let request_id = RequestId::parse(&format!("job-{name}")).unwrap();
                let body = Bytes::from_static(b"{}");
                let created = Created { job: request_id.clone(), answer: body.clone(), at: now, by: [0; 16] };
                let job = Arc::new(Job::new(request_id.clone(), id, prompt, "open".into(), "key", now));
                if self.shared.accepted(&job, created, now) == Rank::Current {
                    self.standing[usize::from(wants.prompt)] = Some(id);
                }
                self.ids.push(job);
                Outcome::Created {
                    request_id,
                    answer: Answer { status: StatusCode::OK, headers: HeaderMap::new(), body },
                }
            }
            Reaction::Refused => {
                self.shared.free(prompt, id, now);
                Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer))
            }
            Reaction::Broken if is_late => return self.attempt(id).stage = Stage::Over,
            Reaction::Broken => {
                self.shared.unknown(prompt, id, now);
                Outcome::Unknown { doubt: Doubt::Broken, answer: None }
            }
        };
        match is_late {
            true => self.attempt(id).stage = Stage::Over,
            false => self.land(id, outcome, Stage::Over),
        }
    }

    /// A little time passes; who is awake renews its leases and gives up waiting.
    fn tick(&mut self) {
        self.millis.fetch_add(TICK.as_millis() as u64, Ordering::SeqCst);
        for (replica, wants) in std::mem::take(&mut self.again) {
            match self.frozen[replica] {
                true => self.again.push((replica, wants)),
                false => self.submit(replica, wants),
            }
        }
        let now = self.now();
        for index in 0..self.attempts.len() {
            let Attempt { id, replica, renewed, ref stage, wants, .. } = self.attempts[index];
            if self.frozen[replica] {
                continue;
            }
            let stage = stage.clone();
            let runs = !matches!(stage, Stage::Late(_) | Stage::Over);
            if runs && now.since(renewed) >= LEASE.length / 3 {
                self.attempts[index].renewed = now;
                if self.shared.renew(id, now).is_err() && matches!(stage, Stage::Claimed) {
                    self.not_sent(id, NotSent::Superseded);
                    continue;
                }
            }
            match stage {
                Stage::Sent(at) if now.since(at) >= LATE_ANSWER => {
                    self.shared.unknown(fingerprint(wants.prompt), id, now);
                    self.land(id, Outcome::Unknown { doubt: Doubt::Silent, answer: None }, Stage::Late(now));
                }
                Stage::Late(since) if now.since(since) >= BOUNDS.windows.hold => self.attempt(id).stage = Stage::Over,
                _ => {}
            }
        }
        self.settle();
    }

    fn end_job(&mut self, which: usize) {
        let Some(job) = self.ids.get(which).cloned() else { return };
        let now = self.now();
        self.shared.lapse(now);
        self.shared.book.turned(&job, Turn::Over, Life::Failed, now, &BOUNDS.windows);
        if let Some(post) = self.posts.iter_mut().find(|post| post.attempt == job.attempt) {
            post.ended = true;
        }
    }

    /// Everybody wakes, and what is in flight comes to its end: whoever still waits must be told something.
    pub(super) fn finish(&mut self) {
        self.frozen = [false; 2];
        for _ in 0..400 {
            self.tick();
            let going: Vec<_> = self.attempts.iter().filter(|a| a.is_before_send()).map(|a| a.id).collect();
            going.into_iter().for_each(|id| self.go(id));
        }
        let unanswered = self.waiters.len() + self.again.len();
        if unanswered > 0 {
            self.faults.push(format!("{unanswered} clients were never answered"));
        }
        for job in &self.ids {
            if self.shared.book.job(&job.id).is_none() {
                self.faults.push(format!("{} was lost", job.id));
            }
        }
    }
}

impl Attempt {
    const fn is_before_send(&self) -> bool {
        matches!(self.stage, Stage::Claimed | Stage::Cleared(_))
    }
}
