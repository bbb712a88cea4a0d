//! The book, step by step.

mod keys;
mod list;
mod room;
mod running;

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::jobs::entry::{Fate, Turn};
use crate::jobs::list::{JobQuery, JobState};
use crate::jobs::owners::{Owned, Owner};
use crate::jobs::records::Life;

const WINDOWS: Windows = Windows {
    delivery: Duration::from_secs(23 * 3600),
    hold: Duration::from_secs(600),
    refusal: Duration::from_secs(600),
};
const BOUNDS: Bounds = Bounds { windows: WINDOWS, max_entries: 100, max_jobs: 100 };

fn at(seconds: u64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn fingerprint(name: u8) -> Fingerprint {
    Fingerprint::from_bytes([name; 32])
}

fn attempt(name: u8) -> AttemptId {
    AttemptId::from_bytes([name; 16])
}

fn ask(prompt: u8, number: u8) -> Ask {
    Ask {
        fingerprint: fingerprint(prompt),
        body: fingerprint(prompt),
        base: None,
        attempt: attempt(number),
        team: "open".into(),
        request_id: format!("request-{number}").into(),
        asker: Asker { caller: [7; 16], no_cache: false },
        key: None,
        former: None,
    }
}

fn keyed(prompt: u8, number: u8, key: u8) -> Ask {
    Ask { key: Some([key; 16]), ..ask(prompt, number) }
}

fn wish(prompt: u8, number: u8, caller: u8) -> Ask {
    Ask { asker: Asker { caller: [caller; 16], no_cache: true }, ..ask(prompt, number) }
}

/// A keyless submission where only equal keys share.
fn alone(prompt: u8, number: u8) -> Ask {
    Ask { fingerprint: fingerprint(number), base: Some(fingerprint(prompt)), ..ask(prompt, number) }
}

fn created(id: &str, seconds: u64) -> Created {
    Created { job: RequestId::parse(id).unwrap(), answer: Bytes::from(id.to_owned()), at: at(seconds), by: [7; 16] }
}

fn job(of: &Ask, id: &str, seconds: u64) -> Arc<Job> {
    let id = RequestId::parse(id).unwrap();
    Arc::new(Job::new(id, of.attempt, of.fingerprint, of.team.clone(), "key", at(seconds)))
}

impl Book {
    fn look_up(&mut self, ask: &Ask, seconds: u64) -> Look {
        match self.find(ask, at(seconds), &BOUNDS) {
            Found::Look(_, look) => look,
            Found::KeyReused => panic!("the key was used with another body"),
        }
    }

    fn send(&mut self, ask: &Ask, seconds: u64) {
        assert_eq!(self.look_up(ask, seconds), Look::Free);
        self.claim(ask, at(seconds), &BOUNDS);
        self.sending(ask.fingerprint, ask.attempt, &WINDOWS).unwrap();
    }

    fn accept(&mut self, ask: &Ask, id: &str, seconds: u64) -> Rank {
        self.accepted(&job(ask, id, seconds), created(id, seconds), &BOUNDS)
    }

    /// The indexes say what the entries say.
    fn check(&self) {
        self.entries.check(&WINDOWS);
        let all = JobQuery { state: Some(JobState::Unknown), ..JobQuery::default() };
        let unknown = self.list_jobs(&all, None, usize::MAX, usize::MAX, &WINDOWS).lines.len();
        let layers = self.entries().flat_map(|(_, entry)| entry.layers());
        assert_eq!(unknown, layers.filter(|entry| matches!(entry.state, State::Unknown(_))).count());
    }

    fn entries(&self) -> impl Iterator<Item = (Fingerprint, &Entry)> {
        self.entries.from(Bound::Unbounded).map(|(name, entry)| (*name, entry.as_ref()))
    }

    /// The book as a restart has it: put back one by one, and at once.
    fn again(&self) -> [Self; 2] {
        let mut singly = Self::default();
        self.entries().for_each(|(name, entry)| singly.restore_entry(name, entry.clone(), &WINDOWS));
        self.records.before(None).for_each(|record| singly.restore_record(record.clone()));
        let entries = self.entries().map(|(name, entry)| (name, Box::new(entry.clone()))).collect();
        let records = self.records.before(None).cloned().collect();
        [singly, Self::restored(Entries::of(entries, &WINDOWS), records)]
    }
}

#[test]
fn a_claim_is_joined_then_hit_and_ends_with_its_job() {
    let mut book = Book::default();
    let first = ask(1, 1);
    book.send(&first, 0);
    assert_eq!(book.look_up(&ask(1, 2), 1), Look::Join(attempt(1)));
    assert_eq!(book.accept(&first, "a", 2), Rank::Current);
    assert!(matches!(book.look_up(&ask(1, 3), 3), Look::Hit(hit, _) if hit == created("a", 2)));
    let ended = book.turned(&job(&first, "a", 2), Turn::Over, Life::Failed, at(4), &WINDOWS);
    assert_eq!(ended, Ended { news: true, fate: Fate::Ends });
    assert_eq!(book.look_up(&ask(1, 4), 5), Look::Free);
    let again = book.turned(&job(&first, "a", 2), Turn::Over, Life::Failed, at(6), &WINDOWS);
    assert_eq!(again, Ended { news: false, fate: Fate::Stays }, "a job ends once");
    book.check();
}

#[test]
fn m1_a_late_end_of_an_old_job_does_not_take_its_successors_entry() {
    let mut book = Book::default();
    let (old, new) = (ask(1, 1), wish(1, 2, 9));
    book.send(&old, 0);
    book.accept(&old, "old", 1);
    book.send(&new, 2);
    book.accept(&new, "new", 3);
    book.turned(&job(&old, "old", 1), Turn::Over, Life::Failed, at(4), &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 3), 5), Look::Hit(hit, _) if hit.job.as_str() == "new"));
    book.check();
}

#[test]
fn m1_only_the_claims_own_attempt_may_send() {
    let mut book = Book::default();
    book.claim(&ask(1, 1), at(0), &BOUNDS);
    assert_eq!(book.sending(fingerprint(1), attempt(2), &WINDOWS), Err(Superseded));
    book.claim(&wish(1, 3, 9), at(1), &BOUNDS);
    assert_eq!(book.sending(fingerprint(1), attempt(1), &WINDOWS), Err(Superseded), "its claim was replaced");
    assert_eq!(book.sending(fingerprint(1), attempt(3), &WINDOWS), Ok(()));
    assert_eq!(book.sending(fingerprint(1), attempt(3), &WINDOWS), Err(Superseded), "it sends once");
    book.check();
}

#[test]
fn what_a_wish_replaced_stands_again_if_it_made_nothing() {
    let mut book = Book::default();
    let (old, new) = (ask(1, 1), wish(1, 2, 9));
    book.send(&old, 0);
    book.accept(&old, "old", 1);
    book.send(&new, 2);
    assert_eq!(book.look_up(&ask(1, 3), 3), Look::Join(attempt(2)));
    book.free(new.fingerprint, new.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 4), 4), Look::Hit(hit, _) if hit.job.as_str() == "old"));
    book.check();
}

#[test]
fn m12_the_job_of_a_replaced_attempt_is_an_orphan_and_is_not_lost() {
    let mut book = Book::default();
    let (old, new) = (ask(1, 1), wish(1, 2, 9));
    book.send(&old, 0);
    book.send(&new, 1);
    assert_eq!(book.accept(&old, "old", 2), Rank::Orphan);
    assert!(book.job(&RequestId::parse("old").unwrap()).is_some());
    assert!(book.records.get(&RequestId::parse("old").unwrap()).unwrap().orphan);
    book.free(new.fingerprint, new.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 3), 3), Look::Hit(hit, _) if hit.job.as_str() == "old"));
    book.check();
}

#[test]
fn an_unknown_outcome_holds_until_a_late_answer_or_the_holds_end() {
    let mut book = Book::default();
    let first = ask(1, 1);
    book.send(&first, 0);
    book.unknown(first.fingerprint, first.attempt, at(10), &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 2), 11), Look::Held(_)));
    assert_eq!(book.accept(&first, "late", 20), Rank::Current);
    assert!(matches!(book.look_up(&ask(1, 3), 21), Look::Hit(..)));
    let second = ask(2, 4);
    book.send(&second, 0);
    book.unknown(second.fingerprint, second.attempt, at(10), &WINDOWS);
    assert_eq!(book.sweep(at(610), &BOUNDS, 10), [second.fingerprint]);
    assert_eq!(book.look_up(&ask(2, 5), 610), Look::Free);
    book.check();
}

#[test]
fn an_unknown_outcome_comes_back_if_the_wish_that_overrode_it_made_nothing() {
    let mut book = Book::default();
    let (first, new) = (ask(1, 1), wish(1, 2, 9));
    book.send(&first, 0);
    book.unknown(first.fingerprint, first.attempt, at(10), &WINDOWS);
    book.send(&new, 20);
    book.free(new.fingerprint, new.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 3), 21), Look::Held(_)));
    book.check();
}

#[test]
fn m14_the_end_of_a_wishs_hold_frees_nothing_that_is_still_open_beneath_it() {
    let mut book = Book::default();
    let (first, new) = (ask(1, 1), wish(1, 2, 9));
    book.send(&first, 0);
    book.send(&new, 1);
    book.unknown(new.fingerprint, new.attempt, at(5), &WINDOWS);
    assert_eq!(book.look_up(&ask(1, 3), 606), Look::Join(attempt(1)), "in flight beneath the ended hold");
    book.unknown(first.fingerprint, first.attempt, at(120), &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 4), 606), Look::Held(_)), "not swept yet");
    book.sweep(at(606), &BOUNDS, 10);
    assert!(matches!(book.look_up(&ask(1, 5), 607), Look::Held(_)), "swept");
    book.check();
    book.sweep(at(721), &BOUNDS, 10);
    assert_eq!(book.look_up(&ask(1, 6), 721), Look::Free);
    book.check();
}

#[test]
fn m14_a_new_wish_over_an_ended_hold_keeps_what_is_open_beneath_it() {
    let mut book = Book::default();
    let (first, second, third) = (ask(1, 1), wish(1, 2, 8), wish(1, 3, 9));
    book.send(&first, 0);
    book.send(&second, 1);
    book.unknown(second.fingerprint, second.attempt, at(5), &WINDOWS);
    book.unknown(first.fingerprint, first.attempt, at(120), &WINDOWS);
    book.send(&third, 606);
    book.free(third.fingerprint, third.attempt, &WINDOWS);
    assert!(matches!(book.look_up(&ask(1, 4), 607), Look::Held(_)));
    book.check();
}

#[test]
fn m13_wishes_without_end_leave_no_chain_without_end() {
    let mut book = Book::default();
    for number in 0..1_000_u32 {
        let mut caller = [0; 16];
        caller[..4].copy_from_slice(&number.to_be_bytes());
        let asker = Asker { caller, no_cache: true };
        let wish = Ask { asker, attempt: AttemptId::from_bytes(caller), ..ask(1, 1) };
        book.send(&wish, 1);
        book.unknown(wish.fingerprint, wish.attempt, at(1), &WINDOWS);
    }
    let top = book.entry(&fingerprint(1)).unwrap();
    let depth = std::iter::successors(Some(top), |entry| entry.beneath.as_deref()).count();
    assert!(depth < 20, "{depth} entries under one fingerprint");
}

#[test]
fn m19_an_id_that_is_told_again_does_not_bring_its_entry_back_to_life() {
    let mut book = Book::default();
    let ask = ask(1, 1);
    book.send(&ask, 0);
    book.accept(&ask, "one", 1);
    book.turned(&job(&ask, "one", 1), Turn::Done(None), Life::Done, at(5), &WINDOWS);
    let done = book.entry(&ask.fingerprint).unwrap().state.clone();
    assert!(matches!(done, State::Done(..)));
    assert_eq!(book.accept(&ask, "one", 1), Rank::Current);
    assert_eq!(book.entry(&ask.fingerprint).unwrap().state, done);
}

#[test]
fn an_id_under_two_fingerprints_ends_both() {
    let (first, second) = (ask(1, 1), ask(2, 2));
    let mut book = Book::default();
    for ask in [&first, &second] {
        book.send(ask, 0);
        book.accept(ask, "one", 1);
    }
    // Somebody wished for another in the second one's place, and that is still on its way.
    let wish = wish(2, 3, 9);
    book.send(&wish, 2);
    let [singly, at_once] = book.again();
    for mut book in [book, singly, at_once] {
        book.check();
        let job = book.job(&RequestId::parse("one").unwrap()).unwrap();
        assert_eq!((job.fingerprint, book.given_twice(&job.id)), (fingerprint(1), vec![fingerprint(2)]));
        let ended = book.turned(&job, Turn::Over, Life::Failed, at(3), &WINDOWS);
        assert_eq!(ended, Ended { news: true, fate: Fate::Ends });
        assert!(book.entry(&fingerprint(1)).is_none());
        book.free(wish.fingerprint, wish.attempt, &WINDOWS);
        assert!(book.entry(&fingerprint(2)).is_none(), "what lay beneath has ended too");
        book.check();
        // Forgotten with its record.
        book.sweep(at(8 * 24 * 3600), &BOUNDS, 100);
        assert!(book.given_twice(&job.id).is_empty());
    }
}

#[test]
fn m31_a_job_is_of_the_team_it_was_made_for_and_of_whoever_met_it_since() {
    let owner = |team: &str, user: Option<u8>| Owner { team: team.into(), user: user.map(|user| [user; 16]) };
    let mut book = Book::default();
    book.keep_dirty();
    let first = ask(1, 1);
    book.send(&first, 0);
    book.accept(&first, "a", 1);
    let id = RequestId::parse("a").unwrap();
    let job = book.job(&id).unwrap();
    assert!(job.is_of(&owner("open", None)) && !job.is_of(&owner("open", Some(1))) && !job.is_of(&owner("lab", None)));
    book.take_dirty();
    // The maker's own team costs no write; a user of it, and another team, do, once each.
    for (who, owned) in [
        (owner("open", None), Owned::Already),
        (owner("open", Some(1)), Owned::News),
        (owner("open", Some(1)), Owned::Already),
        (owner("lab", Some(1)), Owned::News),
        (owner("lab", None), Owned::Already),
        (owner("lab", Some(2)), Owned::Full),
    ] {
        assert_eq!(book.own(&id, who.clone(), 2), owned, "{who:?}");
        assert_eq!(book.is_dirty(), owned == Owned::News, "{who:?}");
        book.take_dirty();
    }
    assert!(!job.is_of(&owner("open", Some(2))) && !job.is_of(&owner("lab", Some(2))));
    assert_eq!(book.own(&RequestId::parse("b").unwrap(), owner("lab", None), 2), Owned::NoRecord);

    // The upstream gives the same id to another team: it is both teams'.
    let other = Ask { team: "press".into(), ..ask(2, 2) };
    book.send(&other, 2);
    book.accept(&other, "a", 3);
    assert!(job.is_of(&owner("press", None)) && job.is_of(&owner("open", None)));
}

#[test]
fn m31_a_job_that_nobody_made_is_of_whoever_asked_first() {
    let mut book = Book::default();
    let id = RequestId::parse("a").unwrap();
    let owner = |team: &str| Owner { team: team.into(), user: Some([1; 16]) };
    let adopt = |team| Arc::new(Job::adopted(id.clone(), owner(team), "key", at(1)));
    assert!(book.adopt(&adopt("studio"), &BOUNDS).is_of(&owner("studio")));
    assert!(!book.adopt(&adopt("lab"), &BOUNDS).is_of(&owner("lab")), "it is another's by now");
    // Its end is seen like any other's.
    let job = book.job(&id).unwrap();
    assert!(book.turned(&job, Turn::Done(None), Life::Done, at(2), &WINDOWS).news);
    book.check();
}
