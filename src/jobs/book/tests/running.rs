//! Jobs that have not ended: how they are watched, and that none runs for ever.

use super::*;

#[test]
fn m19_a_job_without_an_entry_that_is_gone_does_not_run_for_ever() {
    let mut book = Book::default();
    let (first, second) = (ask(1, 1), wish(1, 2, 9));
    book.send(&first, 0);
    book.send(&second, 1);
    book.accept(&second, "new", 2);
    book.accept(&first, "orphan", 3);
    let orphan = book.job(&RequestId::parse("orphan").unwrap()).unwrap();
    // It may not be visible on every node yet.
    let fresh = book.turned(&orphan, Turn::Missing, Life::Expired, at(30), &WINDOWS);
    assert_eq!(fresh, Ended { news: false, fate: Fate::Stays });
    assert!(book.turned(&orphan, Turn::Missing, Life::Expired, at(64), &WINDOWS).news);
    assert_eq!(book.counts().1, 1, "only the new one runs");
    book.check();
}

#[test]
fn m23_running_jobs_are_watched_until_they_end_also_after_a_restart() {
    let mut book = Book::default();
    for name in [1, 2] {
        let ask = ask(name, name);
        book.send(&ask, 0);
        book.accept(&ask, &format!("job-{name}"), 1);
    }
    let first = book.job(&RequestId::parse("job-1").unwrap()).unwrap();
    book.turned(&first, Turn::Done(None), Life::Done, at(20), &WINDOWS);
    let quiet = Duration::from_secs(60);
    assert!(book.watch_next(at(60), quiet, 9).is_empty());
    let [singly, at_once] = book.again();
    for mut book in [book, singly, at_once] {
        assert_eq!(book.counts().1, 1);
        let due: Vec<_> = book.watch_next(at(61), quiet, 9).iter().map(|job| job.id.to_string()).collect();
        assert_eq!(due, ["job-2"]);
        assert!(book.watch_next(at(62), quiet, 9).is_empty(), "one look at a time");
    }
}
