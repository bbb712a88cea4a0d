//! What the simulated upstream remembers: what it received, the jobs it made, what it was told to do next. All of
//! it is bounded. The counts are a watch channel, so that a test can wait for an event instead of sleeping.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Options;
use super::fault::{Fault, How};
use super::job::Job;
use super::plan::Plan;

/// A request that was received.
#[derive(Clone)]
pub struct Received {
    /// The number of its connection, from 1.
    pub connection: u64,
    /// The method; empty if the request was malformed.
    pub method: String,
    /// The target as it stood in the request line; empty if the request was malformed.
    pub path: String,
    /// The bytes of the head, the empty line included.
    pub head: Bytes,
    /// The body, its framing taken off.
    pub body: Bytes,
    /// Bytes that had come behind its end when its end was read.
    pub extra: Bytes,
    /// Whether it was read to its end.
    pub complete: bool,
    /// When its end was read.
    pub at: Instant,
}

/// What happened so far. Requests to the control route and for videos count only in `connections`, `open`, `bytes`
/// and `videos`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections ever accepted.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes ever read.
    pub bytes: u64,
    /// Requests whose head was read.
    pub requests: u64,
    /// Of these, POSTs to a submission route.
    pub posts: u64,
    /// Of these, GETs and HEADs of a job.
    pub polls: u64,
    /// Things that were not requests.
    pub malformed: u64,
    /// Requests with a missing or wrong key.
    pub unauthorized: u64,
    /// Jobs made.
    pub accepted: u64,
    /// Submissions and polls answered whole; counted after the last byte is written.
    pub answered: u64,
    /// Requests whose connection was cut, or left silent, on purpose.
    pub cut: u64,
    /// Downloads of videos.
    pub videos: u64,
}

/// Which of the two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Submissions.
    Submission,
    /// Polls.
    Poll,
}

/// Everything shared between connections.
pub(super) struct State {
    /// As started.
    pub options: Options,
    /// Where videos are, as clients see it.
    pub origin: String,
    counts: watch::Sender<Counts>,
    answers: AtomicU64,
    memory: Mutex<Memory>,
}

/// What stands behind the lock.
#[derive(Default)]
pub(super) struct Memory {
    /// What was received, oldest first.
    pub received: VecDeque<Received>,
    received_bytes: usize,
    /// The jobs by their id.
    pub jobs: HashMap<String, Job>,
    /// The ids in the order of their making.
    pub order: VecDeque<String>,
    /// How to end the next connections before anything is read.
    pub connections: VecDeque<How>,
    /// What to do with submissions.
    pub submissions: Script,
    /// What to do with polls.
    pub polls: Script,
    draws: u64,
}

/// What to do with the requests of one kind.
#[derive(Default)]
pub(super) struct Script {
    /// With the next ones, one each.
    pub next: VecDeque<Fault>,
    /// With all others.
    pub always: Option<Fault>,
}

impl State {
    /// Nothing has happened yet.
    pub(super) fn new(options: Options, origin: String) -> Self {
        Self { options, origin, counts: watch::Sender::default(), answers: AtomicU64::new(0), memory: Mutex::default() }
    }

    /// Locks the memory. Never held across an await.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened so far.
    pub(super) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// The same, to wait on.
    pub(super) fn watch(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Counts something.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    /// The number of the next answer, from 1.
    pub(super) fn next_answer(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What to do with the next request of that kind: what was queued, else what always holds, else what the dice
    /// say.
    pub(super) fn plan(&self, kind: Kind) -> Plan {
        let mut memory = self.memory();
        let script = match kind {
            Kind::Submission => &mut memory.submissions,
            Kind::Poll => &mut memory.polls,
        };
        if let Some(fault) = script.next.pop_front() {
            return Plan::of([&fault]);
        }
        if let Some(fault) = &script.always {
            return Plan::of([fault]);
        }
        let chances = match kind {
            Kind::Submission => &self.options.submission_chances,
            Kind::Poll => &self.options.poll_chances,
        };
        Plan::of(chances.iter().filter(|(_, rate)| memory.draw(self.options.seed) < *rate).map(|(fault, _)| fault))
    }

    /// Remembers a request.
    pub(super) fn record(&self, received: Received) {
        let mut memory = self.memory();
        memory.received_bytes = memory.received_bytes.saturating_add(received.size());
        memory.received.push_back(received);
        while memory.received.len() > self.options.keep_requests
            || (memory.received_bytes > self.options.keep_bytes && memory.received.len() > 1)
        {
            let Some(oldest) = memory.received.pop_front() else { break };
            memory.received_bytes = memory.received_bytes.saturating_sub(oldest.size());
        }
    }

    /// Remembers a job.
    pub(super) fn keep(&self, job: Job) {
        let mut memory = self.memory();
        memory.order.push_back(job.request_id.clone());
        memory.jobs.insert(job.request_id.clone(), job);
        if memory.order.len() > self.options.keep_jobs
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.jobs.remove(&oldest);
        }
        drop(memory);
        self.count(|counts| counts.accepted += 1);
    }

    /// Forgets everything but the open connections and the dice.
    pub(super) fn forget(&self) {
        let mut memory = self.memory();
        let draws = memory.draws;
        *memory = Memory { draws, ..Memory::default() };
        drop(memory);
        self.count(|counts| *counts = Counts { open: counts.open, ..Counts::default() });
    }
}

impl Memory {
    /// A number from 0 up to 1, the same row for the same seed (the generator is SplitMix64).
    fn draw(&mut self, seed: u64) -> f64 {
        self.draws = self.draws.wrapping_add(1);
        let mut mixed = seed.wrapping_add(self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let upper = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default();
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Received {
    /// The bytes it takes in memory, roughly.
    fn size(&self) -> usize {
        self.head.len() + self.body.len() + self.extra.len() + 256
    }
}

impl fmt::Debug for Received {
    /// Lengths instead of bytes: the head holds the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Received")
            .field("connection", &self.connection)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("head", &self.head.len())
            .field("body", &self.body.len())
            .field("extra", &self.extra.len())
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(options: Options) -> State {
        State::new(options, String::new())
    }

    fn request(length: usize) -> Received {
        Received {
            connection: 1,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            head: Bytes::new(),
            body: vec![0; length].into(),
            extra: Bytes::new(),
            complete: true,
            at: Instant::now(),
        }
    }

    #[test]
    fn the_oldest_requests_make_room() {
        let state = state(Options { keep_requests: 3, keep_bytes: 4_000, ..Options::default() });
        for length in [10, 20, 30, 40] {
            state.record(request(length));
        }
        let kept = |state: &State| state.memory().received.iter().map(|kept| kept.body.len()).collect::<Vec<_>>();
        assert_eq!(kept(&state), [20, 30, 40]);
        state.record(request(3_500));
        assert_eq!(kept(&state), [3_500]);
        state.record(request(10_000));
        assert_eq!(kept(&state), [10_000]);
    }

    #[test]
    fn equal_seeds_draw_equal_faults_at_about_their_rate() {
        let options = Options { submission_chances: vec![(Fault::Encoded, 0.25)], seed: 7, ..Options::default() };
        let drawn = |state: &State| (0..1_000).map(|_| state.plan(Kind::Submission).encoded).collect::<Vec<_>>();
        let (one, two) = (drawn(&state(options.clone())), drawn(&state(options)));
        assert_eq!(one, two);
        let hits = one.iter().filter(|hit| **hit).count();
        assert!((200..300).contains(&hits), "{hits} of 1000");
    }

    #[test]
    fn queued_faults_come_once_and_before_the_standing_one() {
        let state = state(Options::default());
        state.memory().polls = Script { next: [Fault::Encoded].into(), always: Some(Fault::UntilClose) };
        assert!(state.plan(Kind::Poll).encoded);
        assert!(!state.plan(Kind::Poll).encoded);
        assert!(!state.plan(Kind::Submission).encoded);
    }
}
