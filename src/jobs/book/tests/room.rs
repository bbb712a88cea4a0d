//! What leaves a full book, and what never does.

use super::*;

#[test]
fn m28_t47_a_full_book_drops_the_oldest_done_and_never_what_may_still_be_paid() {
    let bounds = Bounds { max_entries: 3, ..BOUNDS };
    let mut book = Book::default();
    for (name, seconds) in [(1, 10), (2, 5), (3, 7)] {
        let ask = ask(name, name);
        book.send(&ask, seconds);
        book.accept(&ask, &format!("job-{name}"), seconds);
    }
    assert!(!book.make_room(&fingerprint(99), &bounds).fits, "accepted entries stay");
    for name in [1, 2] {
        let ask = ask(name, name);
        let job = book.job(&RequestId::parse(&format!("job-{name}")).unwrap()).unwrap();
        assert_eq!(job.attempt, ask.attempt);
        book.turned(&job, Turn::Done(None), Life::Done, at(20), &WINDOWS);
    }
    let own = book.make_room(&fingerprint(3), &bounds);
    assert_eq!(own, Room { fits: true, evicted: vec![] }, "a wish that replaces its own entry needs no room");
    let room = book.make_room(&fingerprint(99), &bounds);
    assert_eq!(room, Room { fits: true, evicted: vec![fingerprint(2)] });
    assert!(book.entry(&fingerprint(2)).is_none(), "the oldest done has left");
    assert!(book.entry(&fingerprint(1)).is_some() && book.entry(&fingerprint(3)).is_some());
    book.check();
}

#[test]
fn job_records_are_bounded_and_running_ones_never_leave() {
    let bounds = Bounds { max_jobs: 2, ..BOUNDS };
    let mut book = Book::default();
    for name in [1, 2] {
        let ask = ask(name, name);
        book.send(&ask, 0);
        book.accept(&ask, &format!("job-{name}"), 1);
    }
    assert!(!book.make_room(&fingerprint(99), &bounds).fits, "both are running");
    let first = book.job(&RequestId::parse("job-1").unwrap()).unwrap();
    book.turned(&first, Turn::Done(None), Life::Done, at(2), &WINDOWS);
    assert!(book.make_room(&fingerprint(99), &bounds).fits);
    assert!(book.job(&first.id).is_none() && book.counts().1 == 1);
}

#[test]
fn m28_t47_the_team_that_has_most_makes_room() {
    let bounds = Bounds { max_entries: 4, ..BOUNDS };
    let mut book = Book::default();
    for (name, team) in [(1, "small"), (2, "large"), (3, "large"), (4, "large")] {
        let ask = Ask { team: team.into(), ..ask(name, name) };
        book.send(&ask, u64::from(name));
        book.accept(&ask, &format!("job-{name}"), u64::from(name));
        let job = book.job(&RequestId::parse(&format!("job-{name}")).unwrap()).unwrap();
        book.turned(&job, Turn::Done(None), Life::Done, at(20), &WINDOWS);
    }
    assert_eq!(book.make_room(&fingerprint(9), &bounds).evicted, [fingerprint(2)], "not the oldest of all");
    book.check();
}
