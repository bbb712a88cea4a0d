//! What is read back from a ledger: whatever stands there, nothing panics; what is sound comes back as it was, and what
//! was changed is seen.

use reelgate::bill::form::{AccountForm, TabForm, account_key, parse_account_key};
use reelgate::jobs::ledger::disk::form::{EntryForm, JobForm, KeyForm};
use reelgate::jobs::ledger::disk::seal::{Checked, seal, seal_named, unseal, unseal_named};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub const WORDS: &[&str] = &[
    "\"state\":\"sending\"",
    "\"state\":{\"unknown\":1790000000000}",
    "\"state\":{\"accepted\":{\"job\":\"j\",\"answer\":\"{}\",\"at\":1,\"by\":\"00000000000000000000000000000000\"}}",
    "\"beneath\":null",
    "\"lease\":1",
    "\"wish\":[\"00000000000000000000000000000000\",1]",
    "\"fate\":\"unknown\"",
    "\"life\":\"running\"",
    "\"standing\":{\"atrisk\":1}",
    "\"owners\":[{\"team\":\"t\"}]",
    "\"undelivered\":true",
    "00000000000000000000000000000000",
];

const NAME: [u8; 32] = [7; 32];

/// The first byte says what it is; the rest is JSON, or bytes as a damaged file might have them.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'e' => entry(rest),
        b'j' => job(rest),
        b'k' => key(rest),
        b't' => tab(rest),
        b'a' => account(rest),
        _ => raw(rest),
    }
}

/// A sealed value as it comes back, if it is one at all.
fn sealed<T: Serialize + DeserializeOwned>(json: &[u8]) -> Option<T> {
    let form: T = serde_json::from_slice(json).ok()?;
    let bytes = seal(b"k", &form).expect("what was read can be written");
    let Checked::Sound(back) = unseal::<T>(b"k", &bytes) else { panic!("what was sealed is damaged") };
    assert!(matches!(unseal::<T>(b"l", &bytes), Checked::Damaged), "another row's value");
    for place in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1;
        assert!(matches!(unseal::<T>(b"k", &flipped), Checked::Damaged), "a flipped bit was not seen");
    }
    Some(back)
}

fn entry(json: &[u8]) {
    let Some(form) = sealed::<EntryForm>(json) else { return };
    _ = (form.weight(), form.job(), form.attempt());
    let entry = form.into_entry();
    let whole = serde_json::to_vec(&EntryForm::whole(&entry)).unwrap();
    let back = serde_json::from_slice::<EntryForm>(&whole).unwrap().into_entry();
    assert_eq!(format!("{back:?}"), format!("{entry:?}"), "an entry changes by being written");
    if let Some(durable) = EntryForm::of(&entry) {
        let (name, bytes) = (NAME, seal_named(&NAME, &durable).unwrap());
        assert!(matches!(unseal_named::<EntryForm>(&name, &bytes), (found, Checked::Sound(_)) if found == NAME));
        // A bit of the row's own key has flipped: the value knows better.
        let (found, value) = unseal_named::<EntryForm>(&[8; 32], &bytes);
        assert!(found == NAME && matches!(value, Checked::Sound(_)));
    }
    if let Some(created) = entry.created() {
        assert!(created.job.path().concat().bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

fn job(json: &[u8]) {
    let Some(form) = sealed::<JobForm>(json) else { return };
    _ = (form.weight(), form.is_running(), form.attempt(), form.created());
    if let Some(record) = form.into_record() {
        let again = serde_json::to_vec(&JobForm::of(&record)).unwrap();
        let back = serde_json::from_slice::<JobForm>(&again).unwrap().into_record().expect("it is one");
        assert_eq!(serde_json::to_vec(&JobForm::of(&back)).unwrap(), again, "a job changes by being written");
    }
}

fn key(json: &[u8]) {
    let Some(form) = sealed::<KeyForm>(json) else { return };
    _ = form.weight();
    let record = form.into_record();
    let again = serde_json::to_vec(&KeyForm::of(&record)).unwrap();
    let back = serde_json::from_slice::<KeyForm>(&again).unwrap().into_record();
    assert_eq!(format!("{back:?}"), format!("{record:?}"), "a key changes by being written");
}

fn tab(json: &[u8]) {
    let Some(form) = sealed::<TabForm>(json) else { return };
    let open = form.into_open();
    let again = serde_json::to_vec(&TabForm::of(&open)).unwrap();
    assert_eq!(serde_json::from_slice::<TabForm>(&again).unwrap().into_open(), open, "a tab changes by being written");
    _ = open.charge.price.amount();
}

fn account(json: &[u8]) {
    if let Some(form) = sealed::<AccountForm>(json) {
        _ = form.weight();
    }
    if let Some(key) = parse_account_key(json) {
        assert_eq!(account_key(&key), json, "an account's key changes by being written");
    }
}

fn raw(bytes: &[u8]) {
    _ = unseal::<EntryForm>(b"k", bytes);
    _ = unseal_named::<EntryForm>(&NAME, bytes);
    _ = unseal::<JobForm>(b"k", bytes);
}
