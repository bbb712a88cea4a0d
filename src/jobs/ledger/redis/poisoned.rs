//! Whatever stands in Redis (`HARDENING.md` F-56): no answer of the script and no value makes a reader panic, and a value
//! that is not as it was written holds its prompt instead of freeing it.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::names::entry_key;
use super::script::Reply;
use super::seal::Seal;
use super::work::{Context, Wanted, Work};
use crate::clock::Time;
use crate::jobs::entry::{AttemptId, Created, Entry, State, Windows};
use crate::jobs::ledger::disk::form::EntryForm;
use crate::jobs::settings::Dedup;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

const SEAL: Seal = Seal::new([7; 32], None);
const PROMPT: Fingerprint = Fingerprint::from_bytes([1; 32]);
const OTHER: Fingerprint = Fingerprint::from_bytes([2; 32]);
const ATTEMPT: AttemptId = AttemptId::from_bytes([3; 16]);

fn now() -> Time {
    Time::from_millis(1_790_000_000_000)
}

/// The unit of work that has seen these values.
fn seen(wanted: Wanted, values: Vec<(String, Option<String>)>, members: &[Vec<String>]) -> Work {
    let windows = Windows::from(&Dedup::default());
    let mut work = Work::new(wanted);
    work.seen(values, members, Context { seal: &SEAL, windows: &windows, now: now() });
    work
}

/// A paid job, as it stands in Redis under the name of `fingerprint`.
fn paid(fingerprint: Fingerprint) -> String {
    let answer = Bytes::from_static(b"{\"request_id\":\"j-1\"}");
    let created = Created { job: RequestId::parse("j-1").unwrap(), answer, at: now(), by: [0; 16] };
    let entry = Entry { state: State::Accepted(created), ..Entry::claimed(ATTEMPT, "studio".into()) };
    SEAL.seal(&entry_key(&fingerprint), &EntryForm::whole(&entry)).unwrap()
}

/// What the prompt's entry is if this text stands under its name.
fn state(text: String) -> Option<State> {
    let work = seen(Wanted::entry(PROMPT), vec![(entry_key(&PROMPT), Some(text))], &[]);
    work.book.entry(&PROMPT).map(|entry| entry.state.clone())
}

#[test]
fn f56_a_value_is_believed_only_as_it_was_written_and_where() {
    assert!(matches!(state(paid(PROMPT)), Some(State::Accepted(_))));
    let by_another_key = Seal::new([8; 32], None).seal(&entry_key(&PROMPT), &json!({})).unwrap();
    for text in [paid(OTHER), by_another_key, String::new(), "1 ".to_owned(), "{}".to_owned(), "é".repeat(40)] {
        let state = state(text.clone());
        assert!(matches!(state, Some(State::Unknown(until)) if until > now()), "{text}: {state:?}");
    }
}

/// JSON of the names and words that the script's answers are made of.
fn odd_reply() -> impl Strategy<Value = Value> {
    let names = [
        "status",
        "now",
        "micros",
        "epoch",
        "values",
        "members",
        "requests",
        "generations",
        "sums",
        "cap",
        "wait",
        "tat",
        "stamps",
    ];
    let words = ["ok", "changed", "epoch", "", "1 0", "-1", "{}", "18446744073709551616"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop::sample::select(words.to_vec()).prop_map(Into::into),
        Just(entry_key(&PROMPT).into()),
        Just(paid(PROMPT).into()),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(prop::sample::select(names.to_vec()), inner, 0..10).prop_map(|fields| {
                let usual = [("status", json!("ok")), ("now", json!(5))];
                let fields = usual.into_iter().chain(fields);
                Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    /// No answer makes the reader panic, and none frees a prompt whose value it does not bring.
    #[test]
    fn f56_any_answer_of_the_script_is_read(reply in odd_reply()) {
        if let Ok(reply) = serde_json::from_value::<Reply>(reply) {
            let wanted = Wanted { bases: [OTHER].into(), ..Wanted::attempt(PROMPT, ATTEMPT) };
            let last = reply.values.iter().rfind(|(key, _)| *key == entry_key(&PROMPT));
            let brings = last.is_some_and(|(_, value)| value.is_some());
            let work = seen(wanted, reply.values, &reply.members);
            prop_assert_eq!(work.book.entry(&PROMPT).is_some(), brings);
            // What is missing is asked for, not taken for absent.
            prop_assert!(brings || work.question().is_some() || work.values.contains_key(&entry_key(&PROMPT)));
        }
    }

    /// A changed text is seen to be changed, wherever, and its prompt is held.
    #[test]
    fn f56_a_changed_value_holds_its_prompt(at in any::<prop::sample::Index>(), with in any::<char>()) {
        let text = paid(PROMPT);
        let at = at.index(text.len());
        let changed = [&text[..at], &with.to_string(), &text[at + 1..]].concat();
        let state = state(changed.clone());
        let is_held = matches!(state, Some(State::Unknown(until)) if until.since(now()) >= Duration::from_secs(60));
        prop_assert!(is_held || changed == text, "{:?} by {:?}", state, changed);
    }
}
