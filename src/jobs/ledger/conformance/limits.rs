//! Limits that a ledger keeps: what a reload, a clock and the headers make of them is the same on every ledger.

use super::*;
use crate::admission::headers::Standing;
use crate::admission::rate::Refusal;

/// So many generations of each user.
fn settings(count: u32, per: Duration) -> settings::Limits {
    let off = Rates::default();
    let user = Rates { requests: None, generations: Some(Rate { count, per }) };
    settings::Limits { user, team: off, address: off, total: off, tracked: 100 }
}

/// Asks for one more of the one user, over and over another prompt.
async fn ask(bench: &Bench, number: u8) -> Result<(), Refusal> {
    let mut request = bench.request(1, number);
    request.ask.fingerprint = Fingerprint::from_bytes([number; 32]);
    request.charge.user = [number; 16];
    match bench.admit(&request).await {
        Verdict::Claimed(_) => Ok(()),
        Verdict::Limited(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// A refusal that would pass within so long, and whose headers say the same.
fn is_true(refusal: &Refusal, most: Duration) {
    assert!(refusal.retry_after <= most, "{refusal:?}");
    let (_, level) = refusal.standing.levels().next().unwrap();
    let seconds = refusal.retry_after.as_millis().div_ceil(1000);
    assert_eq!((level.remaining, u128::from(level.seconds)), (0, seconds), "{refusal:?}");
}

/// Waits until one more fits.
async fn passes(bench: &Bench, number: u8) {
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if ask(bench, number).await.is_ok() {
            return;
        }
    }
    panic!("it never passes: {:?}", ask(bench, number).await);
}

const DAY: Duration = Duration::from_secs(86_400);
/// Soon enough to be waited for, and long enough for a busy machine.
const SHORT: Duration = Duration::from_secs(8);

async fn after_a_reload_as_many_are_owed_by_the_new_measure(bench: &Bench, limits: &Limits) {
    for number in 1..=2 {
        ask(bench, number).await.unwrap();
    }
    is_true(&ask(bench, 3).await.unwrap_err(), DAY / 2);
    // Twice as many a day: two are taken of four.
    limits.reload(&settings(4, DAY), &[]);
    for number in 3..=4 {
        ask(bench, number).await.unwrap();
    }
    is_true(&ask(bench, 5).await.unwrap_err(), DAY / 4);
    // Nobody is locked out for the window of before.
    limits.reload(&settings(4, SHORT), &[]);
    is_true(&ask(bench, 5).await.unwrap_err(), SHORT / 4);
    passes(bench, 5).await;
    // And nobody is let through by a longer one.
    limits.reload(&settings(1, DAY), &[]);
    is_true(&ask(bench, 6).await.unwrap_err(), DAY);
}

#[tokio::test]
async fn r62_in_memory_after_a_reload_as_many_are_owed_by_the_new_measure() {
    let limits = Bench::limits();
    let bench = Bench::over(LocalLedger::in_memory(limits.clone(), BOUNDS, 100, Clock::system()));
    after_a_reload_as_many_are_owed_by_the_new_measure(&bench, &limits).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r62_redis_after_a_reload_as_many_are_owed_by_the_new_measure() {
    let (server, limits) = (Server::start(), Bench::limits());
    let bench = limited(&place(&server, Duration::from_secs(30)), Clock::system(), limits.clone()).await;
    after_a_reload_as_many_are_owed_by_the_new_measure(&bench, &limits).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r62_redis_a_clock_that_is_set_back_locks_nobody_out() {
    let (server, limits) = (Server::start(), Bench::limits());
    let bench = limited(&place(&server, Duration::from_secs(30)), Clock::system(), limits.clone()).await;
    limits.reload(&settings(4, SHORT), &[]);
    ask(&bench, 1).await.unwrap();
    // As if a day had been taken back since; with and without the interval, which earlier versions did not write.
    for (number, forget) in [(2, false), (3, true)] {
        let bucket = server.cli(&["KEYS", "test:l:user.generations:*"]);
        let ahead = ((bench.ledger.now() + DAY).as_millis() * 1000).to_string();
        server.cli(&["HSET", &bucket, "t", &ahead]);
        server.cli(&["PEXPIREAT", &bucket, &(bench.ledger.now() + 2 * DAY).as_millis().to_string()]);
        if forget {
            server.cli(&["HDEL", &bucket, "i"]);
        }
        is_true(&ask(&bench, number).await.unwrap_err(), SHORT / 4);
        passes(&bench, number).await;
        assert!(server.cli(&["PTTL", &bucket]).parse::<u64>().unwrap() <= 9100, "what is full again goes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m27_redis_slots_that_are_taken_at_a_slow_pace_do_not_hold_a_quicker_one() {
    let server = Server::start();
    let bench = replica(&server, Clock::system()).await;
    for slot in 0..3 {
        let wait = bench.ledger.next_slot(DAY / 1440).await.unwrap().wait;
        assert!(wait.as_secs() >= 59 * slot);
    }
    for second in [3, 4] {
        let wait = bench.ledger.next_slot(Duration::from_secs(1)).await.unwrap().wait;
        assert!(wait <= Duration::from_secs(second), "{wait:?}");
    }
    // Slots of an earlier version say nothing of a pace, and a clock that was set back leaves none of them.
    let far = ((bench.ledger.now() + DAY).as_millis() * 1000).to_string();
    for key in ["test:pace", "test:pause"] {
        server.cli(&["SET", key, &far]);
        let slot = bench.ledger.next_slot(Duration::from_secs(1)).await.unwrap();
        assert!(slot.wait <= Duration::from_secs(1) && slot.paused.is_zero(), "{key}: {slot:?}");
    }
}

async fn who_only_asks_counts_among_all_requests([one, other]: [&Bench; 2]) {
    let request = one.request(1, 1);
    let left = |standing: Standing| standing.levels().map(|(_, level)| level.remaining).collect::<Vec<_>>();
    assert_eq!(left(one.ledger.take_request(&request.who).await.unwrap().unwrap()), [2]);
    assert_eq!(left(other.ledger.take_request(&request.who).await.unwrap().unwrap()), [1]);
    assert_eq!(left(other.ledger.admit(&request).await.unwrap().standing), [0]);
    for bench in [one, other] {
        let refusal = bench.ledger.take_request(&request.who).await.unwrap().unwrap_err();
        assert_eq!(refusal.limit.name(), "user.requests");
        is_true(&refusal, DAY / 3);
    }
}

fn three_requests() -> Arc<Limits> {
    let limits = settings(1, DAY);
    let user = Rates { requests: Some(Rate { count: 3, per: DAY }), generations: None };
    Arc::new(Limits::new(&settings::Limits { user, ..limits }, Clock::system()))
}

#[tokio::test]
async fn r62_in_memory_who_only_asks_counts_among_all_requests() {
    let bench = Bench::over(LocalLedger::in_memory(three_requests(), BOUNDS, 100, Clock::system()));
    who_only_asks_counts_among_all_requests([&bench, &bench]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r62_redis_who_only_asks_counts_among_all_requests() {
    let server = Server::start();
    let place = place(&server, Duration::from_secs(30));
    let one = limited(&place, Clock::system(), three_requests()).await;
    let other = limited(&place, Clock::system(), three_requests()).await;
    who_only_asks_counts_among_all_requests([&one, &other]).await;
}
