use super::*;

const WINDOWS: Windows = Windows {
    delivery: Duration::from_secs(23 * 3600),
    hold: Duration::from_secs(600),
    refusal: Duration::from_secs(600),
};

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn created() -> Created {
    Created { job: RequestId::parse("job-1").unwrap(), answer: Bytes::from_static(b"{}"), at: at(1000), by: [7; 16] }
}

fn entry(state: State) -> Entry {
    Entry { state, ..Entry::claimed(AttemptId::from_bytes([1; 16]), "open".into()) }
}

/// What the entry of caller 1's wish remembers.
fn wished() -> Rest {
    Rare { wish: Some(([1; 16], at(1000))), ..Rare::default() }.into()
}

fn plain(caller: u8) -> Asker {
    Asker { caller: [caller; 16], no_cache: false }
}

fn wishing(caller: u8) -> Asker {
    Asker { caller: [caller; 16], no_cache: true }
}

fn look(entry: &mut Entry, asker: Asker, seconds: u64) -> Look {
    entry.look(asker, at(seconds), &WINDOWS)
}

#[test]
fn each_state_gives_its_twin_what_the_design_says() {
    let join = Look::Join(AttemptId::from_bytes([1; 16]));
    let hit = |until| Look::Hit(created(), until);
    let delivered = at(1000) + WINDOWS.delivery;
    for (state, want) in [
        (State::Claimed, join.clone()),
        (State::Sending, join),
        (State::Accepted(created()), hit(delivered)),
        (State::Done(created(), at(9000)), hit(at(9000))),
        (State::Rejected(created(), at(9000)), hit(at(9000))),
        (State::Unknown(at(2000)), Look::Held(Duration::from_secs(900))),
        (State::Done(created(), at(1100)), Look::Free),
        (State::Rejected(created(), at(1100)), Look::Free),
        (State::Unknown(at(1100)), Look::Free),
    ] {
        assert_eq!(look(&mut entry(state.clone()), plain(1), 1100), want, "{state:?}");
    }
    assert_eq!(look(&mut entry(State::Accepted(created())), plain(1), 1000 + 23 * 3600), Look::Free);
}

#[test]
fn m13_no_cache_asks_for_a_new_job_in_every_state() {
    for state in [
        State::Claimed,
        State::Sending,
        State::Accepted(created()),
        State::Done(created(), at(9000)),
        State::Rejected(created(), at(9000)),
        State::Unknown(at(9000)),
    ] {
        assert_eq!(look(&mut entry(state.clone()), wishing(1), 1100), Look::Free, "{state:?}");
    }
}

#[test]
fn m13_a_wish_repeated_within_a_minute_meets_the_job_it_began() {
    let begun = |state| Entry { rest: wished(), ..entry(state) };
    assert!(matches!(look(&mut begun(State::Sending), wishing(1), 1060), Look::Join(_)));
    assert!(matches!(look(&mut begun(State::Accepted(created())), wishing(1), 1060), Look::Hit(..)));
    assert!(matches!(look(&mut begun(State::Unknown(at(1600))), wishing(1), 1060), Look::Held(_)));
    assert_eq!(look(&mut begun(State::Sending), wishing(1), 1061), Look::Free, "61 s later it is a new wish");
    assert_eq!(look(&mut begun(State::Sending), wishing(2), 1060), Look::Free, "another caller's wish is its own");
}

#[test]
fn m13_a_wish_stays_the_same_wish_for_a_minute_after_its_caller_was_told_to_wait() {
    let mut entry = Entry { rest: wished(), ..entry(State::Sending) };
    entry.doubt([1; 16], at(1035));
    assert!(matches!(look(&mut entry, wishing(1), 1090), Look::Join(_)), "the SDK's own retry after the 504");
    assert_eq!(look(&mut entry, wishing(1), 1096), Look::Free);
}

#[test]
fn m14_a_hold_says_at_least_61_seconds() {
    assert_eq!(look(&mut entry(State::Unknown(at(1600))), plain(1), 1599), Look::Held(Duration::from_secs(61)));
    assert_eq!(look(&mut entry(State::Unknown(at(1600))), plain(1), 1000), Look::Held(Duration::from_secs(600)));
}

#[test]
fn m14_who_was_refused_in_the_last_minute_stays_refused_for_a_minute_and_nobody_else() {
    let mut held = entry(State::Unknown(at(1600)));
    assert!(matches!(look(&mut held, plain(1), 1580), Look::Held(_)));
    assert!(matches!(look(&mut held, plain(1), 1640), Look::Held(_)), "60 s after its refusal");
    assert!(matches!(look(&mut held, plain(1), 1640), Look::Held(_)), "a refusal past the hold's end prolongs nothing");
    assert_eq!(look(&mut held, plain(1), 1641), Look::Free);
    assert_eq!(look(&mut held, plain(2), 1600), Look::Free, "all others are free when the hold ends");
    assert_eq!(held.due(&WINDOWS), Some(at(1641)));
    let mut early = entry(State::Unknown(at(1600)));
    assert!(matches!(look(&mut early, plain(1), 1538), Look::Held(_)));
    assert_eq!(look(&mut early, plain(1), 1600), Look::Free, "a refusal before the last 61 s prolongs nothing");
}

#[test]
fn m14_the_first_callers_own_504_counts_as_a_refusal() {
    let short = Windows { hold: Duration::from_secs(30), ..WINDOWS };
    let mut sent = entry(State::Sending);
    sent.doubt([1; 16], at(1035));
    sent.state = State::Unknown(at(1066));
    assert!(matches!(sent.look(plain(1), at(1095), &short), Look::Held(_)), "60 s after its 504");
    assert_eq!(sent.look(plain(1), at(1096), &short), Look::Free);
    assert_eq!(sent.look(plain(2), at(1066), &short), Look::Free);
}

#[test]
fn m14_sixteen_callers_are_remembered_and_twice_the_hold_is_the_end() {
    let mut held = entry(State::Unknown(at(1600)));
    for caller in 0..20 {
        look(&mut held, plain(caller), 1590);
    }
    assert_eq!(held.rest.refused.len(), 16);
    assert_eq!(look(&mut held, plain(19), 1600), Look::Free);
    let short = Windows { hold: Duration::from_secs(10), ..WINDOWS };
    let mut held = entry(State::Unknown(at(1010)));
    assert!(matches!(held.look(plain(1), at(1009), &short), Look::Held(_)));
    assert!(matches!(held.look(plain(1), at(1019), &short), Look::Held(_)));
    assert_eq!(held.look(plain(1), at(1020), &short), Look::Free);
}

#[test]
fn m22_the_window_begins_with_the_finish_time_else_the_last_unfinished_poll_else_the_creation() {
    let now = at(5000);
    for (finished, unfinished, done_at) in [
        (Some(4000), Some(4500), 4000),
        (None, Some(4500), 4500),
        (None, None, 1000),
        (Some(10), None, 1000),
        (Some(9999), None, 5000),
    ] {
        let mut entry = entry(State::Accepted(created()));
        let shown = Shown { unfinished: unfinished.map(at) };
        assert_eq!(entry.turn(Turn::Done(finished.map(at)), shown, now, &WINDOWS), Fate::Turned);
        assert_eq!(entry.state, State::Done(created(), at(done_at) + WINDOWS.delivery));
        let later = Turn::Done(Some(at(4999)));
        assert_eq!(entry.turn(later, shown, now, &WINDOWS), Fate::Stays, "the window begins once");
    }
}

#[test]
fn m19_what_ends_an_entry_and_what_does_not() {
    let running = State::Accepted(created());
    let seen = Shown { unfinished: Some(at(1010)) };
    let unseen = Shown::default();
    for (turn, shown, seconds, want) in [
        (Turn::Over, unseen, 1001, Fate::Ends),
        (Turn::Missing, unseen, 1060, Fate::Stays),
        (Turn::Missing, unseen, 1061, Fate::Ends),
        (Turn::Missing, seen, 1020, Fate::Ends),
    ] {
        let fate = entry(running.clone()).turn(turn, shown, at(seconds), &WINDOWS);
        assert_eq!(fate, want, "{turn:?} {shown:?} at {seconds}");
    }
    for state in [State::Claimed, State::Sending, State::Unknown(at(9000))] {
        assert_eq!(entry(state).turn(Turn::Over, seen, at(1100), &WINDOWS), Fate::Stays, "it stands for no job");
    }
}

#[test]
fn m20_a_billed_refusal_stays_a_hit_for_its_window_and_is_not_renewed() {
    let mut refused = entry(State::Accepted(created()));
    assert_eq!(refused.turn(Turn::Refused, Shown::default(), at(1100), &WINDOWS), Fate::Turned);
    assert_eq!(refused.turn(Turn::Refused, Shown::default(), at(1600), &WINDOWS), Fate::Stays);
    assert_eq!(look(&mut refused, plain(1), 1699), Look::Hit(created(), at(1700)));
    assert_eq!(look(&mut refused, plain(1), 1700), Look::Free);
    let at_once = Windows { refusal: Duration::ZERO, ..WINDOWS };
    let fate = entry(State::Accepted(created())).turn(Turn::Refused, Shown::default(), at(1100), &at_once);
    assert_eq!(fate, Fate::Ends);
}

#[test]
fn what_few_entries_have_takes_no_room_in_the_others() {
    let none = Rest::from(Rare::default());
    assert!(none.0.is_none() && none.refused.is_empty() && none.wish.is_none());
    assert!(size_of::<Entry>() <= 160, "{} bytes, a million times", size_of::<Entry>());
}
