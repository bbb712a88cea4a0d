//! What an idempotency key finds, what equal bodies without one share, and what the fingerprints' former key still names.

use super::*;

#[test]
fn an_idempotency_key_follows_its_attempt() {
    let mut book = Book::default();
    let first = keyed(1, 1, 5);
    book.send(&first, 0);
    assert_eq!(book.look_up(&keyed(1, 2, 5), 1), Look::Join(attempt(1)), "in flight");
    assert_eq!(book.find(&keyed(2, 3, 5), at(1), &BOUNDS), Found::KeyReused, "another body");
    book.unknown(first.fingerprint, first.attempt, at(10), &WINDOWS);
    assert!(matches!(book.look_up(&keyed(1, 4, 5), 11), Look::Held(_)));
    book.sweep(at(700), &BOUNDS, 10);
    assert!(matches!(book.look_up(&keyed(1, 5, 5), 700), Look::Held(_)), "unknown beyond the hold");
    assert_eq!(book.look_up(&keyed(1, 6, 6), 700), Look::Free, "another key is free when the hold ends");
    book.check();
}

#[test]
fn m13_a_key_already_seen_wins_over_no_cache() {
    let mut book = Book::default();
    let first = keyed(1, 1, 5);
    book.send(&first, 0);
    book.accept(&first, "a", 1);
    let again = Ask { key: Some([5; 16]), ..wish(1, 2, 9) };
    assert!(matches!(book.look_up(&again, 2), Look::Hit(hit, _) if hit.job.as_str() == "a"));
    let other = Ask { key: Some([6; 16]), ..wish(1, 3, 9) };
    assert_eq!(book.look_up(&other, 2), Look::Free);
}

#[test]
fn a_key_gives_its_own_job_even_after_a_wish_replaced_it_and_is_free_when_that_job_ends() {
    let mut book = Book::default();
    let (first, new) = (keyed(1, 1, 5), wish(1, 2, 9));
    book.send(&first, 0);
    book.accept(&first, "old", 1);
    book.send(&new, 2);
    book.accept(&new, "new", 3);
    assert!(matches!(book.look_up(&keyed(1, 3, 5), 4), Look::Hit(hit, _) if hit.job.as_str() == "old"));
    book.turned(&job(&first, "old", 1), Turn::Over, Life::Failed, at(5), &WINDOWS);
    assert!(matches!(book.look_up(&keyed(1, 4, 5), 6), Look::Hit(hit, _) if hit.job.as_str() == "new"));
}

#[test]
fn m13_a_key_wins_over_its_own_wish_also_when_its_replaced_job_is_done() {
    let mut book = Book::default();
    let (first, new) = (Ask { key: Some([5; 16]), ..wish(1, 1, 8) }, wish(1, 2, 9));
    book.send(&first, 0);
    book.accept(&first, "old", 1);
    book.send(&new, 2);
    book.accept(&new, "new", 3);
    book.turned(&job(&first, "old", 1), Turn::Done(None), Life::Done, at(4), &WINDOWS);
    let again = Ask { key: Some([5; 16]), ..wish(1, 3, 8) };
    assert!(matches!(book.look_up(&again, 100), Look::Hit(hit, _) if hit.job.as_str() == "old"));
}

#[test]
fn m14_a_key_in_doubt_is_given_what_was_accepted_for_somebody_else_meanwhile() {
    let mut book = Book::default();
    let first = keyed(1, 1, 5);
    book.send(&first, 0);
    book.unknown(first.fingerprint, first.attempt, at(1), &WINDOWS);
    let new = wish(1, 2, 9);
    book.send(&new, 2);
    assert!(matches!(book.look_up(&keyed(1, 3, 5), 3), Look::Held(_)), "nobody knows what that comes to");
    book.accept(&new, "new", 4);
    for seconds in [5, 700] {
        assert!(matches!(book.look_up(&keyed(1, 3, 5), seconds), Look::Hit(hit, _) if hit.job.as_str() == "new"));
    }
    let ended = book.turned(&job(&new, "new", 4), Turn::Over, Life::Failed, at(701), &WINDOWS);
    assert_eq!(ended.fate, Fate::Ends);
    assert!(matches!(book.look_up(&keyed(1, 4, 5), 702), Look::Held(_)), "its own outcome is still unknown");
    book.check();
}

#[test]
fn m14_a_key_in_doubt_is_not_given_the_older_job_that_it_wished_past() {
    let mut book = Book::default();
    let first = ask(1, 1);
    book.send(&first, 0);
    book.accept(&first, "old", 1);
    let wished = Ask { key: Some([5; 16]), ..wish(1, 2, 9) };
    book.send(&wished, 10);
    book.unknown(wished.fingerprint, wished.attempt, at(11), &WINDOWS);
    let again = Ask { attempt: attempt(3), ..wished };
    for seconds in [12, 700] {
        assert!(matches!(book.look_up(&again, seconds), Look::Held(_)), "{seconds}");
        book.sweep(at(seconds), &BOUNDS, 10);
    }
    assert!(matches!(book.look_up(&again, 701), Look::Held(_)), "the older one stands again");
    assert!(matches!(book.look_up(&ask(1, 4), 701), Look::Hit(hit, _) if hit.job.as_str() == "old"), "for all others");
    book.check();
}

#[test]
fn a_key_whose_attempt_made_nothing_is_free_again() {
    let mut book = Book::default();
    let first = keyed(1, 1, 5);
    book.send(&first, 0);
    book.free(first.fingerprint, first.attempt, &WINDOWS);
    assert_eq!(book.look_up(&keyed(2, 2, 5), 1), Look::Free, "with any body");
    book.check();
}

#[test]
fn m15_keyless_twins_share_only_a_hold_or_an_answer_that_nobody_took() {
    let mut book = Book::default();
    let (first, second) = (alone(1, 1), alone(1, 2));
    book.send(&first, 0);
    book.send(&second, 0);
    book.accept(&first, "a", 1);
    book.accept(&second, "b", 1);
    assert_eq!(book.look_up(&alone(1, 3), 2), Look::Free, "n identical bodies on purpose are n jobs");
    book.undelivered(first.fingerprint, first.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&alone(1, 4), 3), Look::Hit(hit, _) if hit.job.as_str() == "a"));
    assert_eq!(book.look_up(&alone(1, 5), 4), Look::Free, "it is adopted once");
    let third = alone(1, 6);
    book.send(&third, 5);
    book.unknown(third.fingerprint, third.attempt, at(6), &WINDOWS);
    assert!(matches!(book.look_up(&alone(1, 7), 7), Look::Held(_)));
    book.check();
}

#[test]
fn m15_a_refusal_by_the_hold_adopts_nothing() {
    let mut book = Book::default();
    let first = alone(1, 1);
    book.send(&first, 0);
    book.unknown(first.fingerprint, first.attempt, at(10), &WINDOWS);
    book.undelivered(first.fingerprint, first.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&alone(1, 2), 20), Look::Held(_)));
    let wished = Ask { base: Some(fingerprint(1)), fingerprint: fingerprint(3), ..wish(1, 3, 9) };
    assert_eq!(book.look_up(&wished, 21), Look::Free);
    book.accept(&first, "late", 30);
    assert!(matches!(book.look_up(&alone(1, 4), 31), Look::Hit(hit, _) if hit.job.as_str() == "late"));
    assert_eq!(book.look_up(&alone(1, 5), 32), Look::Free, "it is adopted once");
    book.check();
}

#[test]
fn m13_m15_a_wish_said_again_where_keys_alone_share_is_answered_by_what_it_began() {
    let mut book = Book::default();
    let first = alone(1, 1);
    book.send(&first, 0);
    book.unknown(first.fingerprint, first.attempt, at(10), &WINDOWS);
    let wished = |number| Ask { base: Some(fingerprint(1)), fingerprint: fingerprint(number), ..wish(1, number, 9) };
    let second = wished(2);
    assert_eq!(book.look_up(&second, 20), Look::Free);
    book.send(&second, 20);
    book.unknown(second.fingerprint, second.attempt, at(30), &WINDOWS);
    for (number, seconds) in [(3, 31), (4, 90), (5, 149)] {
        assert!(matches!(book.look_up(&wished(number), seconds), Look::Held(_)), "{seconds}");
    }
    let other = Ask { base: Some(fingerprint(1)), fingerprint: fingerprint(6), ..wish(1, 6, 8) };
    assert_eq!(book.look_up(&other, 150), Look::Free, "another caller's wish is another wish");
    assert_eq!(book.look_up(&wished(7), 149 + 61), Look::Free, "a minute without a refusal later it is a new one");
    book.check();
}

#[test]
fn m15_a_job_that_nobody_was_told_stands_before_a_hold() {
    for by_wish in [false, true] {
        let mut book = Book::default();
        let first = alone(1, 1);
        book.send(&first, 0);
        book.unknown(first.fingerprint, first.attempt, at(10), &WINDOWS);
        let wished = Ask { base: Some(fingerprint(1)), fingerprint: fingerprint(2), ..wish(1, 2, 9) };
        book.send(&wished, 20);
        book.accept(&wished, "paid", 21);
        book.undelivered(wished.fingerprint, wished.attempt, &WINDOWS);
        let asks = if by_wish { Ask { fingerprint: fingerprint(3), ..wished } } else { alone(1, 3) };
        assert!(matches!(book.look_up(&asks, 22), Look::Hit(hit, _) if hit.job.as_str() == "paid"), "{by_wish}");
        assert!(matches!(book.look_up(&alone(1, 4), 23), Look::Held(_)), "it is adopted once, the other is held");
        book.check();
    }
}

#[test]
fn m9_what_has_its_name_from_the_former_key_is_found_until_there_is_something_under_the_new_one() {
    let both = |ask: Ask, before: u8| Ask {
        former: Some(Box::new(Ask { fingerprint: fingerprint(before), body: fingerprint(before), ..ask.clone() })),
        ..ask
    };
    let mut book = Book::default();
    let (bought, unknown) = (keyed(1, 1, 5), ask(2, 2));
    book.send(&bought, 0);
    book.accept(&bought, "a", 1);
    book.send(&unknown, 0);
    book.unknown(unknown.fingerprint, unknown.attempt, at(1), &WINDOWS);
    assert!(matches!(book.look_up(&both(ask(11, 3), 1), 2), Look::Hit(hit, _) if hit.job.as_str() == "a"));
    assert!(matches!(book.look_up(&both(ask(12, 3), 2), 2), Look::Held(_)));
    let by_key = Ask { key: Some([6; 16]), former: Some(Box::new(keyed(9, 3, 5))), ..ask(19, 3) };
    assert_eq!(book.find(&by_key, at(2), &BOUNDS), Found::KeyReused, "an idempotency key of before, another body");
    assert_eq!(book.excerpt(&by_key, &WINDOWS).find(&by_key, at(2), &BOUNDS), Found::KeyReused);
    // A wish for another makes one, under the new name, which is found from then on.
    let wished = both(wish(11, 4, 9), 1);
    assert_eq!(book.look_up(&wished, 3), Look::Free);
    book.claim(&wished, at(3), &BOUNDS);
    assert_eq!(book.look_up(&both(ask(11, 5), 1), 4), Look::Join(attempt(4)));
    book.free(wished.fingerprint, wished.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&both(ask(11, 6), 1), 5), Look::Hit(..)), "it made nothing");
    book.check();
}
