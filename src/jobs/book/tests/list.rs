//! What is shown of the book, and how an operator has an entry forgotten.

use super::*;
use crate::jobs::list::{Cursor, EntryQuery, Forgotten, JobLine};

/// What a query lists, page by page: the job's id, or the request that nobody knows the outcome of.
fn listed(book: &Book, query: &JobQuery) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        // Two at a time, looking at three.
        let page = book.list_jobs(query, after.as_ref(), 2, 3, &WINDOWS);
        let named = |line: &JobLine| match &line.job {
            Some(id) => id.to_string(),
            None => format!("?{}", line.asked_as),
        };
        names.extend(page.lines.iter().map(named));
        match page.next {
            None => return names,
            next => after = next,
        }
    }
}

#[test]
fn jobs_and_unknown_outcomes_are_listed_together_newest_first_in_pages() {
    let mut book = Book::default();
    for name in 1..=6 {
        let ask = Ask { team: if name % 2 == 0 { "even" } else { "odd" }.into(), ..ask(name, name) };
        book.send(&ask, u64::from(name));
        if name % 3 == 0 {
            book.unknown(ask.fingerprint, ask.attempt, at(u64::from(name)), &WINDOWS);
        } else {
            book.accept(&ask, &format!("job-{name}"), u64::from(name));
        }
    }
    let ended = book.job(&RequestId::parse("job-2").unwrap()).unwrap();
    book.turned(&ended, Turn::Over, Life::Failed, at(9), &WINDOWS);
    let query = |change: fn(&mut JobQuery)| {
        let mut query = JobQuery::default();
        change(&mut query);
        query
    };
    let all = ["?request-6", "job-5", "job-4", "?request-3", "job-2", "job-1"];
    assert_eq!(listed(&book, &query(|_| {})), all);
    let state = |name: &str| JobQuery { state: JobState::named(name), ..JobQuery::default() };
    assert_eq!(listed(&book, &state("unknown")), ["?request-6", "?request-3"]);
    assert_eq!(listed(&book, &state("running")), ["job-5", "job-4", "job-1"]);
    assert_eq!(listed(&book, &state("failed")), ["job-2"]);
    assert!(listed(&book, &state("orphan")).is_empty());
    assert_eq!(listed(&book, &query(|query| query.team = Some("even".into()))), ["?request-6", "job-4", "job-2"]);
    assert_eq!(listed(&book, &query(|query| query.request_id = Some("job-4".into()))), ["job-4"]);
    assert_eq!(listed(&book, &query(|query| query.request_id = Some("request-3".into()))), ["?request-3"]);
    book.check();
}

#[test]
fn entries_are_listed_in_pages_and_found_by_their_first_digits() {
    let mut book = Book::default();
    for name in [1, 0x12, 0x13, 0xff] {
        let ask = ask(name, name);
        book.send(&ask, 1);
    }
    let found = |prefix: &str, after: Option<u8>, most| {
        let query = EntryQuery { prefix: prefix.to_owned(), ..EntryQuery::default() };
        let page = book.list_entries(&query, after.map(fingerprint).as_ref(), 9, most, &WINDOWS);
        (page.lines.iter().map(|line| line.fingerprint).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(found("", None, 9), ([1, 0x12, 0x13, 0xff].map(fingerprint).to_vec(), None));
    assert_eq!(found("", None, 2), ([1, 0x12].map(fingerprint).to_vec(), Some(fingerprint(0x12))));
    assert_eq!(found("", Some(0x12), 9).0, [0x13, 0xff].map(fingerprint));
    assert_eq!(found("1", None, 9).0, [0x12, 0x13].map(fingerprint));
    assert_eq!(found("131", None, 9).0, [fingerprint(0x13)]);
    assert!(found("14", None, 9).0.is_empty() && found("fffe", None, 9).0.is_empty());
}

#[test]
fn what_is_forgotten_is_bought_again_also_by_its_own_key() {
    let mut book = Book::default();
    let first = keyed(1, 1, 5);
    assert_eq!(book.forget(first.fingerprint, false, &WINDOWS), Forgotten::Nothing);
    book.send(&first, 0);
    assert_eq!(book.forget(first.fingerprint, false, &WINDOWS), Forgotten::InFlight("sending"));
    book.accept(&first, "a", 1);
    assert_eq!(book.forget(first.fingerprint, false, &WINDOWS), Forgotten::Gone("accepted"));
    assert_eq!(book.look_up(&keyed(1, 2, 5), 2), Look::Free);
    assert!(book.job(&RequestId::parse("a").unwrap()).is_some(), "it is polled and settled all the same");
    // In doubt, with another attempt above that is on its way.
    let second = keyed(1, 3, 6);
    book.send(&second, 3);
    book.unknown(second.fingerprint, second.attempt, at(4), &WINDOWS);
    let wished = wish(1, 4, 9);
    book.send(&wished, 5);
    assert_eq!(book.forget(first.fingerprint, false, &WINDOWS), Forgotten::InFlight("sending"));
    assert_eq!(book.forget(first.fingerprint, true, &WINDOWS), Forgotten::Gone("sending"));
    assert_eq!(book.look_up(&keyed(1, 5, 6), 6), Look::Free);
    assert_eq!(book.accept(&wished, "b", 7), Rank::Orphan);
    assert_eq!(listed(&book, &JobQuery { state: Some(JobState::Orphan), ..JobQuery::default() }), ["b"]);
    book.check();
}
