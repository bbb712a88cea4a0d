//! The journal over a keeper that fails when it is told to.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::*;
use crate::access::teams::Pass;
use crate::admission::rate::Limits;
use crate::admission::settings;
use crate::bill::tab::Charge;
use crate::jobs::book::{Ask, Bounds};
use crate::jobs::entry::{Asker, AttemptId, Created, Turn, Windows};
use crate::jobs::ledger::local::LocalLedger;
use crate::jobs::ledger::{Closed, Ledger, Request, Verdict};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::{Job, Life};
use crate::request::client::Clients;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// The entries of a batch, and whether each is kept or deleted.
type Names = Vec<(Fingerprint, bool)>;

/// Keeps the names of entries in memory; fails while `broken`, waits while `slow`, and has no room while `cramped`.
#[derive(Clone, Default)]
struct Scripted {
    broken: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    cramped: Arc<AtomicBool>,
    batches: Arc<Mutex<Vec<Names>>>,
}

impl Keeper for Scripted {
    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        while self.slow.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Write("no space left".to_owned()));
        }
        let names = batch.entries.iter().map(|(name, form)| (*name, form.is_some())).collect();
        self.batches.lock().unwrap().push(names);
        Ok(())
    }

    fn has_room(&self) -> bool {
        !self.cramped.load(Ordering::SeqCst)
    }

    fn open_again(&mut self) -> Result<(), StoreError> {
        let broken = self.broken.load(Ordering::SeqCst);
        if broken { Err(StoreError::Write("still no space".to_owned())) } else { Ok(()) }
    }
}

impl Scripted {
    /// Whether an entry is kept, by the last batch that names it.
    fn keeps(&self, name: Fingerprint) -> bool {
        let batches = self.batches.lock().unwrap();
        batches.iter().flatten().rev().find(|(other, _)| *other == name).is_some_and(|(_, kept)| *kept)
    }
}

fn ledger(keeper: &Scripted) -> LocalLedger {
    let second = Duration::from_secs(600);
    let windows = Windows { delivery: second, hold: second, refusal: second };
    let bounds = Bounds { windows, max_entries: 200, max_jobs: 200 };
    let rates = settings::Rates::default();
    let limits = settings::Limits { user: rates, team: rates, address: rates, total: rates, tracked: 100 };
    let limits = Arc::new(Limits::new(&limits, Clock::system()));
    let mut book = Book::default();
    book.keep_dirty();
    LocalLedger::on_disk(keeper.clone(), book, limits, bounds, 100, Clock::system()).unwrap()
}

fn request(prompt: u8) -> Request {
    let fingerprint = Fingerprint::from_bytes([prompt; 32]);
    let ask = Ask {
        fingerprint,
        body: fingerprint,
        base: None,
        attempt: AttemptId::from_bytes([prompt; 16]),
        team: "open".into(),
        request_id: Arc::default(),
        asker: Asker { caller: [1; 16], no_cache: false },
        key: None,
        former: None,
    };
    let who = *Clients::new().unwrap().identify([127, 0, 0, 1].into(), std::rc::Rc::new(Pass::open())).who();
    Request { ask, who, charge: Charge::default(), charged: false, closed: None }
}

async fn verdict(ledger: &LocalLedger, prompt: u8) -> Verdict {
    ledger.admit(&request(prompt)).await.unwrap().verdict
}

async fn accept(ledger: &LocalLedger, prompt: u8) -> Result<(), LedgerError> {
    let ask = request(prompt).ask;
    let now = Clock::system().now();
    let id = RequestId::parse(&format!("job-{prompt}")).unwrap();
    let job = Job::new(id.clone(), ask.attempt, ask.fingerprint, ask.team, "key-1", now);
    let created = Created { job: id, answer: Bytes::from_static(b"{}"), at: now, by: [7; 16] };
    ledger.accepted(Arc::new(job), created).await.map(|_| ())
}

#[tokio::test]
async fn m7_sending_and_accepted_are_kept_when_they_return() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    let ask = request(1).ask;
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Claimed(_)));
    ledger.flush().await.unwrap();
    assert!(!keeper.keeps(ask.fingerprint), "a claim is not durable");
    ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    assert!(keeper.keeps(ask.fingerprint));
    accept(&ledger, 1).await.unwrap();
    ledger.free(ask.fingerprint, ask.attempt, None).await.unwrap();
    ledger.flush().await.unwrap();
    assert!(!keeper.keeps(ask.fingerprint), "ends ride on the next commit");
}

#[tokio::test]
async fn m8_f63_while_room_is_short_what_is_in_flight_is_kept_and_nothing_is_bought() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Claimed(_)));
    let ask = request(1).ask;
    keeper.cramped.store(true, Ordering::SeqCst);
    ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    assert!(!ledger.is_well());
    assert!(matches!(verdict(&ledger, 2).await, Verdict::Closed(Closed::Ledger)));
    accept(&ledger, 1).await.unwrap();
    assert!(keeper.keeps(ask.fingerprint));
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Hit(..)));
    keeper.cramped.store(false, Ordering::SeqCst);
    let healed = async {
        while !ledger.is_well() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), healed).await.expect("it sees by itself that there is room again");
    assert!(matches!(verdict(&ledger, 2).await, Verdict::Claimed(_)));
}

/// It may hold what is on no disk yet; another process would give the folder a ledger without that.
#[test]
fn m8_f44_the_folder_stays_this_processs_while_the_ledger_is_closed() {
    let path = std::env::temp_dir().join(format!("reelgate-closed-{}", std::process::id()));
    let mut file = File::from(Store::open(&path).unwrap());
    file.store = None;
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    file.open_again().unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    drop(file);
    drop(Store::open(&path).unwrap());
    std::fs::remove_dir_all(&path).unwrap();
}

#[tokio::test]
async fn m8_f63_while_it_cannot_be_written_nothing_is_bought_hits_go_on_and_nothing_is_lost() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    let (first, second) = (request(1).ask, request(2).ask);
    for (prompt, ask) in [(1, &first), (2, &second)] {
        assert!(matches!(verdict(&ledger, prompt).await, Verdict::Claimed(_)));
        ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    }
    accept(&ledger, 1).await.unwrap();
    keeper.broken.store(true, Ordering::SeqCst);
    assert_eq!(accept(&ledger, 2).await, Err(LedgerError::Unavailable), "an id in hand is told that it is not kept");
    assert!(!ledger.is_well());
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Hit(..)));
    assert!(matches!(verdict(&ledger, 2).await, Verdict::Hit(..)), "this process still knows it");
    assert!(matches!(verdict(&ledger, 3).await, Verdict::Closed(Closed::Ledger)));
    keeper.broken.store(false, Ordering::SeqCst);
    let healed = async {
        while !ledger.is_well() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), healed).await.expect("it heals when it can be written again");
    assert!(keeper.keeps(second.fingerprint), "what could not be written is written now");
    assert!(matches!(verdict(&ledger, 3).await, Verdict::Claimed(_)));
}

#[tokio::test]
async fn m7_a_twin_is_told_an_id_only_when_it_is_kept() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    let ask = request(1).ask;
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Claimed(_)));
    ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    keeper.slow.store(true, Ordering::SeqCst);
    let mut accepted = Box::pin(accept(&ledger, 1));
    let soon = Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, &mut accepted).await.is_err(), "its write waits");
    assert!(ledger.hot(&ask.fingerprint).is_none(), "and no hot entry gives it out");
    let mut twin = Box::pin(verdict(&ledger, 1));
    assert!(tokio::time::timeout(soon, &mut twin).await.is_err(), "and so does its twin");
    keeper.slow.store(false, Ordering::SeqCst);
    accepted.await.unwrap();
    assert!(matches!(twin.await, Verdict::Hit(..)));
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Hit(..)));
    assert!(ledger.hot(&ask.fingerprint).is_some());
}

#[tokio::test]
async fn m31_who_owns_a_job_is_kept_before_it_is_told_and_costs_one_write() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    let ask = request(1).ask;
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Claimed(_)));
    ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    accept(&ledger, 1).await.unwrap();
    let id = RequestId::parse("job-1").unwrap();
    let owner = Owner { team: "lab".into(), user: None };
    keeper.slow.store(true, Ordering::SeqCst);
    let mut owning = ledger.own(&id, owner.clone(), 10);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut owning).await.is_err(), "its write waits");
    let mut twin = ledger.own(&id, owner.clone(), 10);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut twin).await.is_err(),
        "for whoever asks meanwhile too"
    );
    let known = RequestId::parse("stranger").unwrap();
    let stranger = Arc::new(Job::adopted(known, owner.clone(), "key-1", Clock::system().now()));
    let mut adopting = ledger.adopt(stranger);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut adopting).await.is_err(), "and so does this one");
    keeper.slow.store(false, Ordering::SeqCst);
    assert_eq!((owning.await.unwrap(), twin.await.unwrap()), (Owned::News, Owned::Already));
    assert_eq!(adopting.await.unwrap().id.as_str(), "stranger");
    let batches = keeper.batches.lock().unwrap().len();
    assert_eq!(ledger.own(&id, owner, 10).await.unwrap(), Owned::Already);
    ledger.flush().await.unwrap();
    assert_eq!(keeper.batches.lock().unwrap().len(), batches, "who owns it already costs no write");
}

/// Lets all other tasks of this one thread go on until they wait. The runtime comes back here between any 61 of them.
async fn all_go_on() {
    for _ in 0..9 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn m7_many_at_once_share_a_batch() {
    let keeper = Scripted::default();
    let ledger = Arc::new(ledger(&keeper));
    for prompt in 1..=60 {
        assert!(matches!(verdict(&ledger, prompt).await, Verdict::Claimed(_)));
    }
    // The first write takes until all have asked for theirs.
    keeper.slow.store(true, Ordering::SeqCst);
    let sending = (1..=60).map(|prompt| {
        let (ledger, ask) = (ledger.clone(), request(prompt).ask);
        tokio::spawn(async move { ledger.sending(ask.fingerprint, ask.attempt).await })
    });
    let sending = sending.collect::<Vec<_>>();
    all_go_on().await;
    keeper.slow.store(false, Ordering::SeqCst);
    for done in sending {
        done.await.unwrap().unwrap();
    }
    let batches = keeper.batches.lock().unwrap();
    let largest = batches.iter().map(Vec::len).max().unwrap();
    assert!(largest > 1, "{} batches", batches.len());
}

#[tokio::test]
async fn what_is_left_is_written_when_the_ledger_is_dropped() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    let ask = request(1).ask;
    assert!(matches!(verdict(&ledger, 1).await, Verdict::Claimed(_)));
    ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    ledger.unknown(ask.fingerprint, ask.attempt).await.unwrap();
    let before = keeper.batches.lock().unwrap().len();
    drop(ledger);
    assert!(keeper.batches.lock().unwrap().len() > before || keeper.keeps(ask.fingerprint));
}

#[tokio::test]
async fn m7_a_miss_waits_for_two_commits_and_a_hit_for_none() {
    for key in [None, Some([5; 16])] {
        let keeper = Scripted::default();
        let ledger = ledger(&keeper);
        let commits = || keeper.batches.lock().unwrap().len();
        let request = Request { ask: Ask { key, ..request(1).ask }, ..request(1) };
        let ask = &request.ask;
        assert!(matches!(ledger.admit(&request).await.unwrap().verdict, Verdict::Claimed(_)));
        ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
        accept(&ledger, 1).await.unwrap();
        assert_eq!(commits(), 2, "one before the first byte, one before the answer");
        for _ in 0..5 {
            assert!(matches!(verdict(&ledger, 1).await, Verdict::Hit(..)));
        }
        ledger.flush().await.unwrap();
        assert_eq!(commits(), 2, "hits need none");
    }
}

#[tokio::test]
async fn m7_submissions_at_the_same_time_wait_for_two_commits_each_that_they_share() {
    let keeper = Scripted::default();
    let ledger = Arc::new(ledger(&keeper));
    for prompt in 1..=100 {
        assert!(matches!(verdict(&ledger, prompt).await, Verdict::Claimed(_)));
    }
    let commits = || keeper.batches.lock().unwrap().len();
    for is_accepted in [false, true] {
        let before = commits();
        // One commit that hangs; what comes meanwhile is the next one.
        keeper.slow.store(true, Ordering::SeqCst);
        let all: Vec<_> = (1..=100)
            .map(|prompt| {
                let (ledger, ask) = (ledger.clone(), request(prompt).ask);
                tokio::spawn(async move {
                    match is_accepted {
                        false => ledger.sending(ask.fingerprint, ask.attempt).await,
                        true => accept(&ledger, prompt).await,
                    }
                })
            })
            .collect();
        all_go_on().await;
        keeper.slow.store(false, Ordering::SeqCst);
        for each in all {
            each.await.unwrap().unwrap();
        }
        assert!((1..=2).contains(&(commits() - before)), "{} commits", commits() - before);
    }
}

#[tokio::test]
async fn f65_while_a_commit_hangs_hits_and_polls_are_answered_and_soon_nothing_new_is_begun() {
    let keeper = Scripted::default();
    let ledger = ledger(&keeper);
    let (first, second) = (request(1).ask, request(2).ask);
    for (prompt, ask) in [(1, &first), (2, &second)] {
        assert!(matches!(verdict(&ledger, prompt).await, Verdict::Claimed(_)));
        ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    }
    accept(&ledger, 1).await.unwrap();
    keeper.slow.store(true, Ordering::SeqCst);
    let hanging = accept(&ledger, 2);
    let mut hanging = Box::pin(hanging);
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut hanging).await.is_err());
    let at_once = async {
        assert!(matches!(verdict(&ledger, 1).await, Verdict::Hit(..)));
        let job = ledger.job(&RequestId::parse("job-1").unwrap()).await.unwrap().expect("it is known");
        ledger.turned(job, Turn::Over, Life::Failed.into()).await.unwrap();
        assert!(ledger.counts().1 > 0);
    };
    tokio::time::timeout(Duration::from_secs(5), at_once).await.expect("nothing of this waits for the disk");
    let refused = async {
        let mut prompt = 10;
        while !matches!(verdict(&ledger, prompt).await, Verdict::Closed(Closed::Ledger)) {
            prompt += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("a ledger that hangs is not well");
    keeper.slow.store(false, Ordering::SeqCst);
    hanging.await.unwrap();
    assert!(ledger.is_well(), "and it is as soon as the commit is through");
}
