//! Two replicas, as they are, over one ledger and one upstream.

mod adoption;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, Version};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;

use super::shared::{BOUNDS, Broken, LEASE, Shared, View, ask};
use crate::admission::headers::Standing;
use crate::admission::pace::Pace;
use crate::bill::tab::Charge;
use crate::clock::Clock;
use crate::error::Error;
use crate::jobs::attempt::{Ending, Order, Parts, Terms};
use crate::jobs::book::Ask;
use crate::jobs::dedup::{Dedup, Part, Place, Waiting};
use crate::jobs::entry::{AttemptId, Entry, State};
use crate::jobs::ledger::Request;
use crate::request::client::{BucketKey, Who};
use crate::request::fingerprint::Fingerprint;
use crate::request::head::Header;
use crate::request::route::Operation;
use crate::telemetry::metrics::Metrics;
use crate::upstream::client::Upstream;
use crate::upstream::headers::Passed;
use crate::upstream::outcome::{NotSent, Outcome, Rules};
use crate::upstream::scripted::{Act, Scripted, json};
use crate::upstream::settings::Settings;

const SOON: Duration = Duration::from_secs(10);
const CREATED: &str = r#"{"request_id":"r-1"}"#;

fn candle() -> Fingerprint {
    Fingerprint::from_bytes([1; 32])
}

fn attempt(name: u8) -> AttemptId {
    AttemptId::from_bytes([name; 16])
}

fn plain(name: u8) -> Ask {
    ask(candle(), attempt(name))
}

/// What the replicas have in common.
struct World {
    upstream: Scripted,
    shared: Arc<Mutex<Shared>>,
    millis: Arc<AtomicU64>,
    /// `upstream.submissions`.
    submissions: usize,
    late_answer: Duration,
}

impl World {
    async fn begin(script: Vec<Vec<Act>>) -> Self {
        let shared = Arc::new(Mutex::new(Shared::new(Broken::Nothing)));
        let (upstream, millis) = (Scripted::start(script).await, Arc::new(AtomicU64::new(1_000_000)));
        Self { upstream, shared, millis, submissions: 8, late_answer: Duration::from_secs(60) }
    }

    fn clock(&self) -> Clock {
        Clock::manual(self.millis.clone())
    }

    fn passes(&self, span: Duration) {
        self.millis.fetch_add(span.as_millis() as u64, Ordering::SeqCst);
    }

    fn replica(&self, replica: u8) -> Replica {
        self.replica_with(replica, |_| {})
    }

    fn replica_with(&self, replica: u8, change: impl FnOnce(&mut View)) -> Replica {
        self.replica_that(replica, change, |_| {})
    }

    fn replica_that(&self, replica: u8, change: impl FnOnce(&mut View), reach: impl FnOnce(&mut Settings)) -> Replica {
        let mut view = View {
            shared: self.shared.clone(),
            replica,
            clock: self.clock(),
            admissions: Arc::new(Semaphore::new(1000)),
            loses_admissions: false,
            sending_takes: None,
            given_back: Arc::new(Semaphore::new(0)),
            lease: Some(LEASE),
        };
        change(&mut view);
        let given_back = view.given_back.clone();
        let upstream = self.upstream.upstream(reach);
        let ending = Ending::default();
        let parts = Parts {
            ledger: Arc::new(view),
            upstream: upstream.clone(),
            metrics: Arc::new(Metrics::new("1").unwrap()),
            clock: self.clock(),
            ending: ending.clone(),
            pace: Arc::new(Pace::new(None, Duration::from_secs(20), Handle::current())),
        };
        let dedup = Arc::new(Dedup::new(parts, self.submissions, Handle::current()));
        Replica { dedup, upstream, given_back, ending, late_answer: self.late_answer }
    }

    fn state(&self) -> Option<State> {
        let mut shared = self.shared.lock().unwrap();
        shared.lapse(self.clock().now());
        shared.book.entry(&candle()).map(|entry| entry.state.clone())
    }

    async fn state_becomes(&self, what: &str, wanted: impl Fn(Option<State>) -> bool) {
        eventually(what, || wanted(self.state())).await;
    }

    fn posts(&self) -> usize {
        self.upstream.received().len()
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "it never came to this: {what}");
}

struct Replica {
    dedup: Arc<Dedup>,
    upstream: Arc<Upstream>,
    given_back: Arc<Semaphore>,
    ending: Ending,
    late_answer: Duration,
}

impl Replica {
    async fn admit(&self, ask: Ask) -> Result<Place, Error> {
        let key = BucketKey::default();
        let who = Who { user: key, team: key, address: key, token: None };
        let mut request = Request { ask, who, charge: Charge::default(), charged: false, closed: None };
        let order = Order {
            operation: Operation::Generations,
            body: Bytes::from_static(br#"{"prompt":"A candle."}"#).into(),
            passed: Passed::of(&Header::of(&HeaderMap::new()), Version::HTTP_11, self.upstream.via()),
            request_id: "r".into(),
            count: None,
        };
        let terms = Terms {
            late_answer: self.late_answer,
            hold: BOUNDS.windows.hold,
            max_waiters: 100,
            rules: Arc::new(Rules::default()),
        };
        self.dedup.admit(&mut request, &order, &terms, &mut Standing::default()).await
    }

    async fn waits(&self, ask: Ask) -> Waiting {
        match self.admit(ask).await {
            Ok(Place::Waiting(waiting)) => waiting,
            other => panic!("no place beside waiters: {other:?}"),
        }
    }
}

impl Waiting {
    async fn told(mut self) -> Arc<Outcome> {
        let told = timeout(SOON, self.waiter.outcome(SOON, SOON, || ())).await;
        told.expect("it is told in time").expect("it has patience")
    }
}

fn is_created(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Created { request_id, .. } if request_id.as_str() == "r-1")
}

/// Else its first 404 would end a job that is not visible yet (M19), and another replica would count its life otherwise.
#[tokio::test]
async fn f58_a_job_is_made_when_the_ledger_says_whatever_this_machine_thinks() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let ledger = world.clock().not_before(world.clock().now() + Duration::from_secs(24 * 3600));
    let replica = world.replica_with(1, |view| view.clock = ledger.clone());
    assert!(is_created(&*replica.waits(plain(1)).await.told().await));
    let shared = world.shared.lock().unwrap();
    let created = shared.book.entry(&candle()).and_then(Entry::created).cloned().unwrap();
    assert_eq!((created.at, shared.book.job(&created.job).unwrap().created), (ledger.now(), ledger.now()));
}

#[tokio::test]
async fn m5_all_who_wait_elsewhere_share_one_flight_and_one_outcome() {
    let go = Arc::new(Notify::new());
    let world = World::begin(vec![vec![Act::Wait(go.clone()), json("200 OK", CREATED)]]).await;
    let (one, two) = (world.replica(1), world.replica(2));
    let leader = one.waits(plain(1)).await;
    let (second, third) = (two.waits(plain(2)).await, two.waits(plain(3)).await);
    assert_eq!((leader.part, second.part, second.attempt), (Part::Leader, Part::Joiner, attempt(1)));
    assert!(second.waiter.is_elsewhere() && third.waiter.is_elsewhere() && !leader.waiter.is_elsewhere());
    eventually("the other replica sees that somebody waits", || world.shared.lock().unwrap().awaited(attempt(1), 1))
        .await;
    let mut sent = false;
    let mut second = second;
    let told = second.waiter.outcome(SOON, SOON, || sent = true);
    let release = async {
        eventually("the request is on its way", || world.posts() == 1).await;
        // It is told of the send while the upstream thinks, so its patience counts from there.
        tokio::time::sleep(Duration::from_millis(20)).await;
        go.notify_one();
    };
    let (told, ()) = tokio::join!(told, release);
    assert!(is_created(&told.unwrap()) && sent);
    assert!(is_created(&*third.told().await) && is_created(&*leader.told().await));
    assert_eq!(world.posts(), 1);
    assert!(matches!(two.admit(plain(4)).await, Ok(Place::Hit(created, ..)) if created.job.as_str() == "r-1"));
    eventually("nobody waits any more", || !world.shared.lock().unwrap().awaited(attempt(1), 1)).await;
}

#[tokio::test]
async fn an_attempt_whose_runtime_ends_under_it_is_held_and_its_waiters_are_told() {
    let world = World::begin(vec![vec![Act::Hang]]).await;
    let replica = Arc::new(world.replica_with(1, |view| view.lease = None));
    let worker = Builder::new_current_thread().enable_all().build().unwrap();
    let (begun, dies) = (oneshot::channel(), oneshot::channel::<()>());
    let of_the_worker = replica.clone();
    let thread = std::thread::spawn(move || {
        let waiting = worker.block_on(of_the_worker.waits(plain(1)));
        assert!(begun.0.send(waiting).is_ok());
        _ = worker.block_on(dies.1);
    });
    let (leader, twin) = (begun.1.await.unwrap(), replica.waits(plain(2)).await);
    eventually("the request is on its way", || world.posts() == 1).await;
    dies.0.send(()).unwrap();
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    for waiting in [leader, twin] {
        assert!(matches!(&*waiting.told().await, Outcome::Unknown { .. }));
    }
    world.state_becomes("held", |state| matches!(state, Some(State::Unknown(_)))).await;
    assert!(matches!(replica.admit(plain(3)).await, Err(Error::OutcomeUnknown { .. })));
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn m6_who_has_left_elsewhere_is_seen_to_wait_no_more() {
    let world = World::begin(vec![vec![Act::Hang]]).await;
    let (one, two) = (world.replica(1), world.replica(2));
    let _leader = one.waits(plain(1)).await;
    let awaited = || world.shared.lock().unwrap().awaited(attempt(1), 1);
    let joiners = [two.waits(plain(2)).await, two.waits(plain(3)).await];
    eventually("somebody waits", awaited).await;
    drop(joiners);
    eventually("nobody waits any more", || !awaited()).await;
    // Whoever comes again is seen again.
    let _back = two.waits(plain(4)).await;
    eventually("somebody waits", awaited).await;
}

#[tokio::test]
async fn an_attempt_of_which_nothing_can_be_learned_sends_its_waiters_back_to_admission() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    // An attempt of a replica that is no more.
    let now = world.clock().now();
    _ = world.shared.lock().unwrap().admit(&plain(9), None, now);
    let two = world.replica(2);
    let waiting = two.waits(plain(2)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.passes(LEASE.length);
    assert!(waiting.told().await.is_void());
    let own = two.waits(plain(3)).await;
    assert_eq!(own.part, Part::Leader);
    assert!(is_created(&*own.told().await));
}

#[tokio::test]
async fn m6_an_attempt_that_only_others_elsewhere_wait_for_goes_on() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let one = world.replica(1);
    world.shared.lock().unwrap().waiting.entry(attempt(1)).or_default().insert(2);
    drop(one.waits(plain(1)).await);
    world.state_becomes("accepted", |state| matches!(state, Some(State::Accepted(_)))).await;
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn m6_an_attempt_that_nobody_waits_for_is_not_sent_and_that_is_told_as_no_outcome() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let (one, two) = (world.replica(1), world.replica(2));
    drop(one.waits(plain(1)).await);
    // Somebody joins elsewhere who is not seen in time.
    let joiner = two.waits(plain(2)).await;
    assert_eq!(joiner.attempt, attempt(1));
    world.shared.lock().unwrap().waiting.clear();
    assert!(joiner.told().await.is_void());
    assert_eq!((world.posts(), one.given_back.available_permits()), (0, 1));
    assert!(is_created(&*two.waits(plain(3)).await.told().await));
}

#[tokio::test]
async fn m3_f62_a_process_frozen_between_claim_and_send_sends_nothing() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]; 2]).await;
    for (frozen, sends) in [(LEASE.send_by, true), (LEASE.send_by + Duration::from_millis(1), false)] {
        let millis = world.millis.clone();
        let one = world.replica_with(1, |view| {
            let takes = frozen.as_millis() as u64;
            view.sending_takes = Some(Box::new(move || _ = millis.fetch_add(takes, Ordering::SeqCst)));
        });
        let name = 1 + u8::from(sends);
        let fingerprint = Fingerprint::from_bytes([name; 32]);
        let outcome = one.waits(ask(fingerprint, attempt(name))).await.told().await;
        if sends {
            assert!(is_created(&outcome), "{outcome:?}");
        } else {
            assert_eq!(*outcome, Outcome::NotSent(NotSent::Ledger));
            assert_eq!(NotSent::Ledger.error(), Error::LedgerUnavailable);
            assert_eq!(one.given_back.available_permits(), 1, "what it took comes back");
            assert!(world.shared.lock().unwrap().book.entry(&fingerprint).is_none(), "sending → free");
        }
    }
    assert_eq!(world.posts(), 1);
}

#[tokio::test]
async fn m3_a_ledger_of_one_process_has_no_limit() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let millis = world.millis.clone();
    let one = world.replica_with(1, |view| {
        view.lease = None;
        view.sending_takes = Some(Box::new(move || _ = millis.fetch_add(2_000, Ordering::SeqCst)));
    });
    assert!(is_created(&*one.waits(plain(1)).await.told().await));
}

#[tokio::test]
async fn m4_f54_the_lease_is_renewed_until_the_attempt_has_landed() {
    let go = Arc::new(Notify::new());
    let world = World::begin(vec![vec![Act::Wait(go.clone()), json("200 OK", CREATED)]]).await;
    let one = world.replica(1);
    let leader = one.waits(plain(1)).await;
    world.state_becomes("sending", |state| state == Some(State::Sending)).await;
    for _ in 0..2 {
        world.passes(LEASE.length / 2);
        let renewed = world.clock().now() + LEASE.length;
        eventually("it is renewed", || world.shared.lock().unwrap().lease_end(attempt(1)) == Some(renewed)).await;
    }
    assert_eq!(world.state(), Some(State::Sending));
    go.notify_one();
    assert!(is_created(&*leader.told().await));
}

#[tokio::test]
async fn m4_an_attempt_whose_claim_has_lapsed_is_no_outcome() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let one = world.replica(1);
    let place = one.waits(plain(1)).await;
    world.passes(LEASE.length);
    assert!(place.told().await.is_void());
    assert_eq!(world.posts(), 0);
}

#[tokio::test]
async fn m4_an_attempt_that_learns_of_its_lapse_before_the_send_gives_up() {
    let world = World::begin(vec![]).await;
    // It takes connections, and never answers to the handshake.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reach = |settings: &mut Settings| {
        settings.url = format!("https://{}", silent.local_addr().unwrap());
        settings.connect_timeout = Duration::from_secs(60);
    };
    let one = world.replica_that(1, |_| {}, reach);
    let place = one.waits(plain(1)).await;
    world.passes(LEASE.length);
    assert!(place.told().await.is_void());
}

#[tokio::test]
async fn a_client_that_leaves_while_the_ledger_decides_leaves_no_claim_behind() {
    let world = World::begin(vec![vec![json("200 OK", CREATED)]]).await;
    let admissions = Arc::new(Semaphore::new(0));
    for name in [1, 2] {
        let one = world.replica_with(1, |view| view.admissions = admissions.clone());
        assert!(timeout(Duration::from_millis(20), one.admit(plain(name))).await.is_err());
        assert_eq!(world.state(), Some(State::Claimed));
        admissions.add_permits(1);
        world.state_becomes("free", |state| state.is_none()).await;
        eventually("what it took comes back", || one.given_back.available_permits() == 1).await;
    }
    assert_eq!(world.posts(), 0);
    admissions.add_permits(1);
    let one = world.replica_with(1, |view| view.admissions = admissions.clone());
    let next = one.waits(plain(3)).await;
    assert_eq!(next.part, Part::Leader);
    assert!(is_created(&*next.told().await));
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_given_back() {
    let world = World::begin(vec![]).await;
    let one = world.replica_with(1, |view| view.loses_admissions = true);
    assert_eq!(one.admit(plain(1)).await.unwrap_err(), Error::LedgerUnavailable);
    world.state_becomes("free", |state| state.is_none()).await;
}

#[tokio::test]
async fn a_hurried_end_tells_those_who_wait_for_an_attempt_elsewhere() {
    let go = Arc::new(Notify::new());
    let world = World::begin(vec![vec![Act::Wait(go.clone()), json("200 OK", CREATED)]]).await;
    let (one, two) = (world.replica(1), world.replica(2));
    let leader = one.waits(plain(1)).await;
    let mut joiner = two.waits(plain(2)).await;
    let (heard, hears) = oneshot::channel();
    let told = tokio::spawn(async move { joiner.waiter.outcome(SOON, SOON, || _ = heard.send(())).await });
    hears.await.unwrap();
    two.ending.hurry.cancel();
    assert!(matches!(*told.await.unwrap().unwrap(), Outcome::Unknown { .. }));
    go.notify_one();
    assert!(is_created(&*leader.told().await));
}

#[tokio::test]
async fn m12_a_call_whose_outcome_is_unknown_keeps_no_other_from_being_made() {
    let go = Arc::new(Notify::new());
    let script = vec![vec![Act::Wait(go.clone()), json("200 OK", CREATED)], vec![Act::Hang], vec![Act::Hang]];
    let mut world = World::begin(script).await;
    // Longer than a submission waits for a place.
    (world.submissions, world.late_answer) = (1, Duration::from_millis(2_500));
    let one = world.replica(1);
    let first = one.waits(plain(1)).await;
    let busy = one.admit(ask(Fingerprint::from_bytes([2; 32]), attempt(2))).await;
    assert_eq!(busy.unwrap_err(), Error::Overloaded { what: "upstream.submissions" });
    assert!(matches!(*first.told().await, Outcome::Unknown { .. }));
    // The place is free again, though the first call's answer is still waited for.
    eventually("the place is free", || one.dedup.slots.available_permits() == 1).await;
    let second = one.waits(ask(Fingerprint::from_bytes([2; 32]), attempt(3))).await;
    assert!(matches!(*second.told().await, Outcome::Unknown { .. }));
    // For the second one there is no reader's place: its connection ends, and its hold stays.
    world.upstream.ended(1).await;
    assert_eq!(world.posts(), 2);
    let held = one.admit(ask(Fingerprint::from_bytes([2; 32]), attempt(4))).await;
    assert!(matches!(held, Err(Error::OutcomeUnknown { .. })));
    go.notify_one();
    world.state_becomes("accepted", |state| matches!(state, Some(State::Accepted(_)))).await;
}
