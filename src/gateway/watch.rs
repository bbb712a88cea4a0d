//! The watcher (`MONEY.md` M23): a job that nobody polls is polled by us until it ends. Otherwise everything that hangs
//! on its end (its entry, its place among the running, its bill) would hang on a stranger's poll.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, Response, StatusCode, Version};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Gateway;
use super::observer::{Asking, Observers};
use crate::error::Unreached;
use crate::jobs::records::Job;
use crate::request::head::Header;
use crate::request::route::RequestId;
use crate::telemetry::labels::UpstreamOperation;
use crate::upstream::headers::Passed;
use crate::upstream::polls::{PollFailure, PolledBody, Polls};
use crate::upstream::relay::Relay;

/// Looks at the jobs that nobody polls.
pub struct Watcher {
    gateway: Arc<Gateway>,
    polls: Arc<Polls>,
    observers: Arc<Observers>,
    passed: Passed,
}

/// What a look has come to: whose it was, how long the upstream wants to be left alone, and why it was not reached.
struct Looked {
    id: RequestId,
    rest: Option<Duration>,
    unreached: Option<Unreached>,
}

impl Watcher {
    /// The watcher of a gateway, with connections of its own.
    pub fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        let polls = Polls::new(gateway.upstream.clone());
        let passed = Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_11, gateway.upstream.via());
        let observers = Observers::new(gateway.clone());
        Arc::new(Self { gateway, polls, observers, passed })
    }

    /// Goes on for ever; dropped, it ends what it is looking at.
    pub async fn run(self: Arc<Self>) {
        let mut looks = JoinSet::new();
        let mut in_hand = HashSet::new();
        let mut rests_until = Instant::now();
        let mut share = Share { next: Instant::now() };
        let mut unreached = None;
        loop {
            let rules = self.gateway.rules.load_full();
            let quiet = rules.watch.filter(|_| Instant::now() >= rests_until);
            let free = rules.watch_concurrency.saturating_sub(looks.len());
            let apart = self.gateway.pace.interval().map(|interval| interval / LOOKS_A_SLOT);
            let free = share.of(free, apart);
            if let Some(quiet) = quiet.filter(|_| free > 0) {
                // Without the ledger there is nothing to look at, and nothing to tell.
                let jobs = self.gateway.dedup.ledger().watch_next(quiet, free).await.unwrap_or_default();
                for job in jobs {
                    if in_hand.insert(job.id.clone()) {
                        looks.spawn(self.clone().look(job));
                        share.take(apart);
                    }
                }
            }
            let tick = rules.watch.map_or(LONGEST_TICK, |quiet| (quiet / 4).clamp(SHORTEST_TICK, LONGEST_TICK));
            tokio::select! {
                () = sleep(tick) => self.polls.sweep(),
                Some(looked) = looks.join_next() => {
                    if let Ok(looked) = looked {
                        in_hand.remove(&looked.id);
                        rests_until = rests_until.max(Instant::now() + looked.rest.unwrap_or_default());
                        tell(&mut unreached, looked.unreached);
                    }
                    // A look that panicked does not say whose it was.
                    if looks.is_empty() {
                        in_hand.clear();
                    }
                }
            }
        }
    }

    /// Looks at one job, and tells the ledger as a client's poll would.
    async fn look(self: Arc<Self>, job: Arc<Job>) -> Looked {
        let (gateway, polls, passed) = (&*self.gateway, &self.polls, &self.passed);
        let asking = Asking { gateway, polls, passed, operation: UpstreamOperation::Watch };
        let answer = asking.about(&job.id, Some(&job), |_, _| {}).await;
        let (id, rest) = (job.id.clone(), rest(answer.as_ref()));
        let unreached = match answer {
            Err(PollFailure::Unreached(why)) => Some(why),
            Ok(_) | Err(_) => None,
        };
        if let Ok(answer) = answer {
            let now = gateway.dedup.ledger().now();
            let witness = self.observers.of(job, answer.body().key().id(), now);
            let relay = Relay::begin(answer, Some(witness)).await.into_body();
            // What is longer, or slower, was no answer about a job.
            _ = timeout(LONGEST_ANSWER, Limited::new(relay, MOST_READ).collect()).await;
        }
        Looked { id, rest, unreached }
    }
}

/// Our looks' own share of the upstream's pace: for each submission that it takes, as many looks as a job that nobody polls
/// needs in a few minutes. Each replica has its own.
struct Share {
    /// When the next look is.
    next: Instant,
}

impl Share {
    /// How many of `free` looks there may be now, where a pace keeps them apart.
    fn of(&mut self, free: usize, apart: Option<Duration>) -> usize {
        let Some(apart) = apart else { return free };
        let now = Instant::now();
        // What was not used is not saved up beyond the time in which nobody asked.
        self.next = self.next.max(now.checked_sub(LONGEST_TICK).unwrap_or(now));
        let due = |past: Duration| usize::try_from(past.as_nanos() / apart.as_nanos().max(1)).unwrap_or(usize::MAX);
        now.checked_duration_since(self.next).map_or(0, |past| free.min(due(past).saturating_add(1)))
    }

    /// A look begins.
    fn take(&mut self, apart: Option<Duration>) {
        self.next += apart.unwrap_or_default();
    }
}

/// Tells the operator what has changed on the way to the upstream, and that once: each look would say the same.
fn tell(last: &mut Option<Unreached>, now: Option<Unreached>) {
    if *last == now {
        return;
    }
    *last = now;
    match now {
        Some(why) => warn!(cause = why.cause(), "our own polls cannot reach the upstream"),
        None => info!("our own polls reach the upstream again"),
    }
}

/// What one answer says about all further looks: an upstream that cannot be reached, wants no more, or refuses our key
/// need not be asked about every job in turn.
fn rest(answer: Result<&Response<PolledBody>, &PollFailure>) -> Option<Duration> {
    match answer {
        Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => {
            let wanted = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Some(wanted.map_or(REST, Duration::from_secs).clamp(Duration::from_secs(1), LONGEST_REST))
        }
        Err(PollFailure::Unreached(_) | PollFailure::KeyRefused) => Some(REST),
        Ok(_) | Err(PollFailure::Timeout | PollFailure::Broken) => None,
    }
}

/// See [`Share`].
const LOOKS_A_SLOT: u32 = 4;
/// How often it is asked what is due; a short `polls.watch` asks more often.
const LONGEST_TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(10);
/// The longest answer that is read, in bytes, and the longest time for it.
const MOST_READ: usize = 64 * 1024;
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// How long the upstream is left alone where it does not say.
const REST: Duration = Duration::from_secs(10);
/// And at most, whatever it says.
const LONGEST_REST: Duration = Duration::from_secs(60);
