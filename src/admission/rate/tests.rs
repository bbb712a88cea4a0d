//! The limits against a model of them, and the promises of `HARDENING.md` and `MONEY.md` one by one. Time is a number
//! that the tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::admission::settings::{Rate, Rates};

mod model;
mod teams;
mod tokens;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 86_400 * SECOND;

fn rate(count: u32, millis: u64) -> Option<Rate> {
    Some(Rate { count, per: Duration::from_millis(millis) })
}

/// Nothing is limited.
fn off() -> settings::Limits {
    let none = Rates::default();
    settings::Limits { user: none, team: none, address: none, total: none, tracked: 1_000 }
}

fn generations(user: Option<Rate>) -> settings::Limits {
    settings::Limits { user: Rates { requests: None, generations: user }, ..off() }
}

struct Bench {
    limits: Limits,
    millis: Arc<AtomicU64>,
}

impl Bench {
    fn new(limits: &settings::Limits) -> Self {
        let millis = Arc::new(AtomicU64::new(1_700_000_000_000));
        Self { limits: Limits::new(limits, Clock::manual(Arc::clone(&millis))), millis }
    }

    fn pass(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    fn generation(&self, user: u64) -> Result<Taken, Refusal> {
        self.limits.generations(&who(user)).map(|(taken, _)| taken)
    }

    /// How many generations fit now; they are taken.
    fn drain(&self, user: u64) -> usize {
        std::iter::from_fn(|| self.generation(user).ok()).count()
    }
}

fn bucket_key(name: u64) -> BucketKey {
    let mut digest = [0; 16];
    blake3::Hasher::new().update(&name.to_le_bytes()).finalize_xof().fill(&mut digest);
    BucketKey::new(digest)
}

/// A user of one team at one address.
fn who(user: u64) -> Who {
    Who { user: bucket_key(user), team: bucket_key(u64::MAX), address: bucket_key(u64::MAX - 1), token: None }
}

fn level(standing: &Standing, name: &str) -> Option<(u32, u32)> {
    standing.levels().find(|(limit, _)| limit.name() == name).map(|(_, level)| (level.remaining, level.seconds))
}

#[test]
fn each_step_asks_its_own_limits() {
    let all = Rates { requests: rate(10, MINUTE), generations: rate(5, MINUTE) };
    let bench = Bench::new(&settings::Limits { user: all, team: all, address: all, total: all, tracked: 10 });
    let names = |standing: Standing| standing.levels().map(|(limit, _)| limit.name()).collect::<Vec<_>>();
    assert_eq!(names(bench.limits.before_body(&who(1)).unwrap()), ["address.requests"]);
    assert_eq!(names(bench.limits.requests(&who(1)).unwrap()), ["user.requests", "team.requests", "total.requests"]);
    let (_, standing) = bench.limits.generations(&who(1)).unwrap();
    assert_eq!(names(standing), ["user.generations", "team.generations", "address.generations", "total.generations"]);
    assert_eq!(level(&standing, "team.generations"), Some((4, 12)));
}

#[test]
fn r61_a_refusal_says_when_and_then_it_passes_and_refusals_do_not_push_it() {
    let bench = Bench::new(&generations(rate(7, MINUTE)));
    assert_eq!(bench.drain(1), 7);
    let first = bench.generation(1).unwrap_err();
    assert_eq!(first.limit.name(), "user.generations");
    // 60 s / 7, rounded up to whole milliseconds.
    assert_eq!(first.retry_after, Duration::from_millis(8_572));
    assert_eq!(Error::from(&first).retry_after(), Some(9));
    assert_eq!(level(&first.standing, "user.generations"), Some((0, 9)));
    bench.pass(8_571);
    let second = bench.generation(1).unwrap_err();
    assert_eq!(second.retry_after, Duration::from_millis(1));
    bench.pass(1);
    assert!(bench.generation(1).is_ok());
}

#[test]
fn of_several_refusals_the_longest_wait_is_told() {
    let user = Rates { requests: None, generations: rate(1, SECOND) };
    let total = Rates { requests: None, generations: rate(1, MINUTE) };
    let bench = Bench::new(&settings::Limits { user, total, ..off() });
    let _taken = bench.generation(1).unwrap();
    let refusal = bench.generation(1).unwrap_err();
    assert_eq!((refusal.limit.name(), refusal.retry_after), ("total.generations", Duration::from_secs(60)));
    bench.pass(MINUTE);
    assert!(bench.generation(1).is_ok());
}

#[test]
fn a_refused_generation_also_waits_for_the_next_request() {
    let user = Rates { requests: rate(1, MINUTE), generations: rate(1, SECOND) };
    let bench = Bench::new(&settings::Limits { user, ..off() });
    let _taken = bench.generation(1).unwrap();
    let standing = bench.limits.requests(&who(1)).unwrap();
    let refusal = bench.generation(1).unwrap_err().after(&standing);
    assert_eq!((refusal.limit.name(), refusal.retry_after), ("user.generations", Duration::from_secs(60)));
    assert_eq!(level(&refusal.standing, "user.requests"), Some((0, 60)));
    assert_eq!(level(&refusal.standing, "user.generations"), Some((0, 1)));
}

#[test]
fn m24_a_refusal_by_one_limit_takes_nothing_from_the_others() {
    let user = Rates { requests: None, generations: rate(6, MINUTE) };
    let total = Rates { requests: None, generations: rate(2, DAY) };
    let bench = Bench::new(&settings::Limits { user, total, ..off() });
    assert_eq!(bench.drain(1), 2);
    bench.pass(3 * SECOND);
    let before = level(&bench.generation(1).unwrap_err().standing, "user.generations");
    assert_eq!(before, Some((4, 7)));
    for _ in 0..20 {
        assert_eq!(level(&bench.generation(1).unwrap_err().standing, "user.generations"), before);
        assert!(bench.generation(2).is_err());
    }
    // A stranger whom only the total refused has not even got a bucket.
    assert_eq!(bench.limits.tracked(Scope::User), 1);
    bench.limits.reload(&settings::Limits { user, ..off() }, &[]);
    assert_eq!((bench.drain(1), bench.drain(2)), (4, 6));
}

#[test]
fn m24_what_was_not_sent_comes_back_once() {
    let bench = Bench::new(&generations(rate(3, MINUTE)));
    let taken = bench.generation(1).unwrap();
    assert_eq!(bench.drain(1), 2);
    bench.limits.give_back(taken);
    assert_eq!(bench.drain(1), 1);
    bench.pass(20 * SECOND);
    assert_eq!(bench.drain(1), 1);
}

#[test]
fn m24_a_bucket_that_was_full_since_gets_nothing_back() {
    let bench = Bench::new(&generations(rate(3, MINUTE)));
    let late = bench.generation(1).unwrap();
    // Full again at 20 s to the millisecond, and taken from at that very moment.
    bench.pass(20 * SECOND);
    assert_eq!(bench.drain(1), 3);
    bench.limits.give_back(late);
    assert_eq!(bench.drain(1), 0);

    let late = {
        bench.pass(MINUTE);
        bench.generation(1).unwrap()
    };
    bench.pass(MINUTE);
    bench.limits.sweep();
    assert_eq!(bench.limits.tracked(Scope::User), 0);
    bench.limits.give_back(late);
    assert_eq!(bench.drain(1), 3);
}

#[test]
fn m24_a_bucket_kept_busy_by_later_ones_still_gets_it_back() {
    let bench = Bench::new(&generations(rate(3, MINUTE)));
    let first = bench.generation(1).unwrap();
    bench.pass(19 * SECOND);
    assert_eq!(bench.generation(1).map(drop), Ok(()));
    // Without the second one the bucket would be full since a second ago.
    bench.pass(2 * SECOND);
    assert_eq!(bench.generation(1).map(drop), Ok(()));
    bench.limits.give_back(first);
    assert_eq!(bench.drain(1), 2);
}

#[test]
fn a_give_back_reaches_every_limit_that_counted() {
    let some = Rates { requests: rate(9, DAY), generations: rate(1, DAY) };
    let bench = Bench::new(&settings::Limits { user: some, team: some, address: some, total: some, tracked: 9 });
    let taken = bench.generation(1).unwrap();
    assert!(bench.generation(2).is_err());
    bench.limits.give_back(taken);
    assert!(bench.generation(2).is_ok());
    assert!(bench.generation(1).is_err());
}

#[test]
fn a_changed_quota_keeps_what_was_used() {
    for (count, wait) in [(10, 6), (5, 12), (1, 60)] {
        let bench = Bench::new(&generations(rate(10, MINUTE)));
        bench.pass(60 * MINUTE);
        assert_eq!(bench.drain(1), 10);
        bench.limits.reload(&generations(rate(count, MINUTE)), &[]);
        assert_eq!(bench.generation(1).unwrap_err().retry_after, Duration::from_secs(wait), "{count}");
    }
}

#[test]
fn a_shorter_window_locks_nobody_out_for_the_longer_one() {
    let bench = Bench::new(&generations(rate(10, DAY)));
    let taken = bench.generation(1).unwrap();
    assert_eq!(bench.drain(1), 9);
    bench.limits.reload(&generations(rate(6, MINUTE)), &[]);
    assert_eq!(bench.generation(1).unwrap_err().retry_after, Duration::from_secs(10));
    // The clock of the new window began with the reload, not with the next request.
    assert_eq!(bench.generation(1).unwrap_err().retry_after, Duration::from_secs(10));
    bench.pass(10 * SECOND);
    assert_eq!(bench.drain(1), 1);
    // What was taken under the old quota comes back as one of the new, not as a day's share.
    bench.limits.give_back(taken);
    assert_eq!(bench.drain(1), 1);
}

#[test]
fn a_reload_keeps_how_many_were_used_whatever_each_owes() {
    for (before, after, left) in [
        (rate(6, MINUTE), rate(60, MINUTE), 54),
        (rate(6, MINUTE), rate(600, DAY), 594),
        (rate(600, DAY), rate(60, MINUTE), 54),
        (rate(60, MINUTE), rate(10, MINUTE), 4),
        (rate(6, MINUTE), rate(6, MINUTE), 0),
        (rate(6, MINUTE), rate(4, MINUTE), 0),
    ] {
        let bench = Bench::new(&generations(before));
        bench.pass(60 * MINUTE);
        for _ in 0..6 {
            _ = bench.generation(1).unwrap();
        }
        bench.limits.reload(&generations(after), &[]);
        assert_eq!(bench.drain(1), left, "{before:?} → {after:?}");
        assert_eq!(bench.drain(2), after.unwrap().count as usize, "a bucket that owes nothing stays full");
    }
}

#[test]
fn a_limit_switched_off_and_on_again_remembers() {
    let bench = Bench::new(&generations(rate(2, DAY)));
    let taken = bench.generation(1).unwrap();
    assert_eq!(bench.drain(1), 1);
    bench.limits.reload(&off(), &[]);
    let (nothing, standing) = bench.limits.generations(&who(1)).unwrap();
    assert_eq!(standing, Standing::default());
    bench.limits.give_back(nothing);
    bench.limits.give_back(taken);
    bench.limits.reload(&generations(rate(2, DAY)), &[]);
    assert_eq!(bench.drain(1), 1);
}

#[test]
fn r62_remaining_never_grows_while_no_time_passes() {
    let user = Rates { requests: rate(60, MINUTE), generations: None };
    let bench = Bench::new(&settings::Limits { user, ..off() });
    for want in (0..60).rev() {
        let standing = bench.limits.requests(&who(1)).unwrap();
        assert_eq!(level(&standing, "user.requests"), Some((want, 1)));
    }
    let refusal = bench.limits.requests(&who(1)).unwrap_err();
    assert_eq!(level(&refusal.standing, "user.requests"), Some((0, 1)));
    assert_eq!(Error::from(&refusal).retry_after(), Some(1));
}

/// 200 threads at once, each once.
fn race(act: impl Fn(u64) -> bool + Sync) -> usize {
    let passed = AtomicUsize::new(0);
    let start = std::sync::Barrier::new(200);
    thread::scope(|scope| {
        for thread in 0..200 {
            let (act, passed, start) = (&act, &passed, &start);
            scope.spawn(move || {
                start.wait();
                if act(thread) {
                    passed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn t35_two_hundred_at_once_get_exactly_the_quota() {
    let bench = Bench::new(&generations(rate(5, DAY)));
    assert_eq!(race(|_| bench.generation(1).is_ok()), 5);
    // At the window's edge too: one interval later there is exactly one more.
    bench.pass(DAY / 5);
    assert_eq!(race(|_| bench.generation(1).is_ok()), 1);
}

#[test]
fn t31_invented_users_do_not_pass_the_total_and_lose_nothing_to_it() {
    let user = Rates { requests: None, generations: rate(3, DAY) };
    let total = Rates { requests: None, generations: rate(5, DAY) };
    let bench = Bench::new(&settings::Limits { user, total, ..off() });
    assert_eq!(race(|thread| bench.generation(thread % 40).is_ok()), 5);
    bench.limits.reload(&settings::Limits { user, ..off() }, &[]);
    let left: usize = (0..40).map(|user| bench.drain(user)).sum();
    assert_eq!(left, 40 * 3 - 5);
}

#[test]
fn t35_taking_and_giving_back_at_once_loses_nothing() {
    let user = Rates { requests: None, generations: rate(200, DAY) };
    let bench = Bench::new(&settings::Limits { user, total: user, ..off() });
    let kept = race(|thread| {
        let taken = bench.generation(thread % 7).unwrap();
        if thread.is_multiple_of(2) {
            bench.limits.give_back(taken);
            return false;
        }
        true
    });
    assert_eq!(kept, 100);
    bench.limits.reload(&settings::Limits { total: user, ..off() }, &[]);
    assert_eq!(bench.drain(9), 100);
}

#[test]
fn t32_when_all_are_tracked_newcomers_share_one_bucket() {
    let limits = settings::Limits { tracked: 3, ..generations(rate(2, MINUTE)) };
    let bench = Bench::new(&limits);
    for user in 0..3 {
        assert_eq!(bench.drain(user), 2);
    }
    assert_eq!((bench.drain(10), bench.drain(11), bench.drain(12)), (2, 0, 0));
    assert_eq!(bench.limits.tracked(Scope::User), 3);
    // The others' traffic has not freed those who were limited.
    for user in 0..3 {
        assert!(bench.generation(user).is_err());
    }

    // Half a window on, everybody has one more, and those who share have one together.
    bench.pass(30 * SECOND);
    assert_eq!((bench.drain(0), bench.drain(12), bench.drain(10)), (1, 1, 0));
    // Room comes when a tracked one is full; who shared before begins where the shared bucket stands.
    bench.pass(30 * SECOND);
    assert_eq!((bench.drain(12), bench.drain(10)), (1, 1));
    assert_eq!(bench.limits.tracked(Scope::User), 3);
}

#[test]
fn t32_a_shared_bucket_takes_a_generation_back() {
    let limits = settings::Limits { tracked: 1, ..generations(rate(2, MINUTE)) };
    let bench = Bench::new(&limits);
    assert_eq!(bench.drain(0), 2);
    let shared = bench.generation(1).unwrap();
    assert_eq!(bench.drain(2), 1);
    bench.limits.give_back(shared);
    assert_eq!((bench.drain(3), bench.drain(0)), (1, 0));
}

#[test]
fn t32_without_a_bucket_of_their_own_for_anybody_all_share() {
    let bench = Bench::new(&settings::Limits { tracked: 0, ..generations(rate(2, MINUTE)) });
    assert_eq!((bench.drain(0), bench.drain(1)), (2, 0));
    assert_eq!(bench.limits.tracked(Scope::User), 0);
}

#[test]
fn t32_a_million_users_stay_within_the_bound_and_free_nobody() {
    let user = Rates { requests: rate(60, MINUTE), generations: rate(1, DAY) };
    let bench = Bench::new(&settings::Limits { user, tracked: 10_000, ..off() });
    let limited = 1_000_000_007;
    assert_eq!(bench.drain(limited), 1);
    for user in 0..1_000_000 {
        let who = Who { user: cheap_key(user), ..who(limited) };
        let _refused = bench.limits.requests(&who);
        if user % 50_000 == 0 {
            bench.pass(SECOND);
            bench.limits.sweep();
            assert!(bench.generation(limited).is_err());
        }
        assert!(bench.limits.tracked(Scope::User) <= 10_000);
    }
    bench.pass(2 * DAY);
    bench.limits.sweep();
    assert_eq!(bench.limits.tracked(Scope::User), 0);
}

/// A key as evenly spread as a digest, but cheap in an unoptimised test.
fn cheap_key(user: u64) -> BucketKey {
    let low = (user + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let high = (low ^ (low >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    BucketKey::new(((u128::from(high) << 64) | u128::from(low)).to_le_bytes())
}

#[test]
fn inv7_lim13_a_million_users_take_less_than_64_mib_and_give_it_back() {
    let bench = Bench::new(&settings::Limits { tracked: 1_000_000, ..settings::Limits::default() });
    let resident = resident_bytes();
    for user in 0..1_000_000 {
        let who = Who { user: cheap_key(user), ..who(0) };
        let _ = bench.limits.take(&who, Kind::Requests, [Scope::User], drop);
        let _ = bench.limits.take(&who, Kind::Generations, [Scope::User], drop);
    }
    println!("resident: {} bytes more", resident_bytes().saturating_sub(resident));
    assert_eq!(bench.limits.tracked(Scope::User), 1_000_000);
    let bytes = bench.limits.users.table_bytes();
    println!("tables: {bytes} bytes");
    assert!(bytes < 64 << 20, "{bytes}");
    bench.pass(MINUTE);
    for _ in 0..20 {
        bench.limits.sweep();
    }
    assert_eq!(bench.limits.tracked(Scope::User), 0);
    assert!(bench.limits.users.table_bytes() < 1 << 20);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
