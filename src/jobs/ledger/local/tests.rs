use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::admission::settings;
use crate::bill::tab::Charge;
use crate::jobs::book::Ask;
use crate::jobs::entry::{Asker, Windows};
use crate::jobs::records::Life;
use crate::request::client::{BucketKey, Who};

const HOUR: Duration = Duration::from_secs(3600);

fn ledger(max_entries: usize) -> LocalLedger {
    let clock = Clock::manual(Arc::new(AtomicU64::new(1_000_000)));
    let rates = settings::Rates::default();
    let limits = settings::Limits { user: rates, team: rates, address: rates, total: rates, tracked: 9 };
    let windows = Windows { delivery: HOUR, hold: HOUR, refusal: HOUR };
    let bounds = Bounds { windows, max_entries, max_jobs: 9 };
    LocalLedger::in_memory(Arc::new(Limits::new(&limits, clock.clone())), bounds, 100, clock)
}

fn request(prompt: u8) -> Request {
    let (fingerprint, key) = (Fingerprint::from_bytes([prompt; 32]), BucketKey::default());
    let ask = Ask {
        fingerprint,
        body: fingerprint,
        base: None,
        attempt: AttemptId::from_bytes([prompt; 16]),
        team: "open".into(),
        request_id: Arc::default(),
        asker: Asker { caller: [7; 16], no_cache: false },
        key: None,
        former: None,
    };
    Request {
        ask,
        who: Who { user: key, team: key, address: key, token: None },
        charge: Charge::default(),
        charged: true,
        closed: None,
    }
}

/// A prompt whose job has this id.
async fn buy(ledger: &LocalLedger, prompt: u8, id: &str) -> Arc<Job> {
    let Request { ask, .. } = request(prompt);
    let admission = ledger.admit(&request(prompt)).await.unwrap();
    assert!(matches!(admission.verdict, Verdict::Claimed(_)), "{:?}", admission.verdict);
    ledger.sending(ask.fingerprint, ask.attempt).await.unwrap();
    let id = RequestId::parse(id).unwrap();
    let created = Created { job: id.clone(), answer: Bytes::from_static(b"{}"), at: ledger.now(), by: [7; 16] };
    let job = Arc::new(Job::new(id, ask.attempt, ask.fingerprint, ask.team, "key", created.at));
    ledger.accepted(job.clone(), created).await.unwrap();
    assert!(ledger.hot(&ask.fingerprint).is_some());
    job
}

#[tokio::test]
async fn m28_what_made_room_is_no_hot_hit_any_more() {
    let ledger = ledger(1);
    let job = buy(&ledger, 1, "one").await;
    ledger.turned(job, Turn::Done(None), Life::Done.into()).await.unwrap();
    let again = ledger.admit(&request(1)).await.unwrap();
    assert!(matches!(again.verdict, Verdict::Hit(..)) && ledger.hot(&Fingerprint::from_bytes([1; 32])).is_some());
    buy(&ledger, 2, "two").await;
    assert!(ledger.hot(&Fingerprint::from_bytes([1; 32])).is_none());
}

#[tokio::test]
async fn an_id_under_two_fingerprints_is_no_hot_hit_of_either_once_it_has_failed() {
    let ledger = ledger(9);
    let first = buy(&ledger, 1, "one").await;
    buy(&ledger, 2, "one").await;
    ledger.turned(first, Turn::Over, Life::Failed.into()).await.unwrap();
    for prompt in [1, 2] {
        assert!(ledger.hot(&Fingerprint::from_bytes([prompt; 32])).is_none(), "{prompt}");
        let admission = ledger.admit(&request(prompt)).await.unwrap();
        assert!(matches!(admission.verdict, Verdict::Claimed(_)), "{prompt}");
    }
}
