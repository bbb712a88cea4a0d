//! What several starts in a row make of a submission that was on its way when the first process was killed.

use super::*;
use crate::bill::charge::Charge;
use crate::bill::tab::Standing;
use crate::jobs::book::{Ask, Bounds, Found};
use crate::jobs::keys::KeyDigest;
use crate::request::fingerprint::FingerprintKey;

const BOUNDS: Bounds = Bounds { windows: WINDOWS, max_entries: 100, max_jobs: 100 };
const MINUTE: Duration = Duration::from_secs(60);

fn keyed(prompt: u8, number: u8, key: KeyDigest) -> Ask {
    Ask {
        fingerprint: fingerprint(prompt),
        body: fingerprint(prompt),
        base: None,
        attempt: AttemptId::from_bytes([number; 16]),
        team: "open".into(),
        request_id: Arc::default(),
        asker: Asker { caller: [number; 16], no_cache: false },
        key: Some(key),
        former: None,
    }
}

/// One process after the other over one folder.
struct Lives {
    folder: Folder,
    millis: Arc<AtomicU64>,
}

impl Lives {
    fn new(name: &str) -> Self {
        Self { folder: Folder::new(name), millis: Arc::new(AtomicU64::new(1_800_000_000_000)) }
    }

    /// A process that does this, writes what changed, and is no more.
    fn live<T>(&self, act: impl FnOnce(&mut Book, Time) -> T) -> T {
        let mut opened = open(&self.folder.0, &WINDOWS, Clock::manual(self.millis.clone())).unwrap();
        let now = opened.clock.now();
        let result = act(&mut opened.book, now);
        let dirty = opened.book.take_dirty();
        opened.store.write(&Batch::of(&opened.book, &dirty, now)).unwrap();
        result
    }

    fn pass(&self, span: Duration) {
        self.millis.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

#[test]
fn m16_the_key_of_a_submission_that_a_kill_left_unknown_stays_refused_beyond_the_hold_and_further_starts() {
    let lives = Lives::new("keys");
    lives.live(|book, now| {
        book.claim(&keyed(1, 1, [5; 16]), now, &BOUNDS);
        book.sending(fingerprint(1), AttemptId::from_bytes([1; 16]), &WINDOWS).unwrap();
    });
    lives.live(|_, _| ());
    lives.pass(WINDOWS.hold + MINUTE);
    lives.live(|book, now| {
        book.sweep(now, &BOUNDS, 10);
        assert!(book.entry(&fingerprint(1)).is_none(), "the hold has ended");
    });
    let look = |key| lives.live(|book, now| book.find(&keyed(1, 2, key), now, &BOUNDS));
    assert!(matches!(look([5; 16]), Found::Look(_, Look::Held(_))), "nobody knows whether it was paid");
    assert_eq!(look([6; 16]), Found::Look(fingerprint(1), Look::Free), "another key");
}

#[test]
fn m16_a_key_that_joined_what_was_never_sent_is_free_and_leaves_the_file() {
    let lives = Lives::new("joiners");
    lives.live(|book, now| {
        book.claim(&keyed(1, 1, [5; 16]), now, &BOUNDS);
        assert!(matches!(book.find(&keyed(1, 2, [6; 16]), now, &BOUNDS), Found::Look(_, Look::Join(_))));
    });
    lives.live(|book, _| assert!(book.is_dirty() && book.key(&[6; 16]).is_none()));
    lives.live(|book, now| {
        assert!(!book.is_dirty(), "its row has gone");
        assert_eq!(book.find(&keyed(1, 3, [6; 16]), now, &BOUNDS), Found::Look(fingerprint(1), Look::Free));
    });
}

#[test]
fn m9_the_key_before_is_known_for_48_hours() {
    let lives = Lives::new("former");
    let [first, second] = [[1; 32], [2; 32]].map(|key| FingerprintKey::from_hex(&hex::encode(key)).unwrap());
    let reopened = || {
        let now = Time::from_millis(lives.millis.load(Ordering::SeqCst));
        (Store::open(&lives.folder.0).unwrap(), now)
    };
    let (mut store, now) = reopened();
    store.change_key(None, &first, now).unwrap();
    assert!(store.former_key(now).unwrap().is_none(), "nothing had its name from the one before");
    store.change_key(Some(&first), &second, now).unwrap();
    drop(store);
    lives.pass(47 * 60 * MINUTE);
    let (store, now) = reopened();
    assert_eq!(store.former_key(now).unwrap().as_ref(), Some(&first));
    drop(store);
    lives.pass(60 * MINUTE);
    let (store, now) = reopened();
    assert!(store.former_key(now).unwrap().is_none());
}

#[test]
fn m7_what_a_kill_left_unknown_is_at_risk_once_however_often_the_process_starts() {
    let lives = Lives::new("tabs");
    let attempt = AttemptId::from_bytes([1; 16]);
    lives.live(|book, now| {
        book.tab_mut().reserve(attempt, Charge { at: now, ..Charge::default() });
        book.claim(&keyed(1, 1, [5; 16]), now, &BOUNDS);
        book.sending(fingerprint(1), attempt, &WINDOWS).unwrap();
    });
    let until = |book: &Book| match (&book.entry(&fingerprint(1)).unwrap().state, book.tab().open(&attempt).unwrap()) {
        (State::Unknown(entry), open) if open.standing == Standing::AtRisk(*entry) => *entry,
        other => panic!("{other:?}"),
    };
    let first = lives.live(|book, now| {
        assert_eq!(until(book), now + WINDOWS.hold);
        until(book)
    });
    lives.pass(10 * MINUTE);
    assert_eq!(lives.live(|book, _| until(book)), first);
    lives.pass(10 * MINUTE);
    assert_eq!(lives.live(|book, _| until(book)), first);
}
