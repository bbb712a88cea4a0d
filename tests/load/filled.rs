//! Many entries without as many submissions: finished jobs, taken through the book's own steps and kept by the ledger's
//! own code, so that a gateway that is started over them finds what it would have written itself.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use reelgate::bill::charge::Charge;
use reelgate::clock::{Clock, Time};
use reelgate::jobs::book::{Ask, Book, Bounds};
use reelgate::jobs::entry::{Asker, AttemptId, Created, Turn, Windows};
use reelgate::jobs::ledger::disk;
use reelgate::jobs::ledger::disk::batch::Batch;
use reelgate::jobs::ledger::disk::store::Store;
use reelgate::jobs::ledger::hot::Hot;
use reelgate::jobs::records::{Job, Life};
use reelgate::request::fingerprint::Fingerprint;
use reelgate::request::route::RequestId;

use super::process::{Memory, memory_of};

/// `load memory`.
#[derive(Args)]
pub struct Filled {
    /// How many entries.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
}

impl Filled {
    /// Fills a book, a cache of hits, and a book that is read from a file; prints what each entry takes in each.
    pub fn run(&self) -> io::Result<()> {
        let (mut book, shared) = (Book::default(), [TEAM.into(), KEY.into()]);
        self.tell("the book: entry, job and indexes", || {
            (0..self.entries).for_each(|number| made(&mut book, number, &shared));
        });
        let hot = Hot::new(self.entries);
        self.tell("the cache of hits (moka), beside it", || {
            for number in 0..self.entries {
                let entry = book.entry(&fingerprint(number)).and_then(|entry| entry.created());
                hot.insert(fingerprint(number), entry.unwrap().clone(), now() + WINDOWS.delivery);
            }
            hot.count();
        });
        drop((book, hot));
        let folder = super::process::Folder::new()?;
        fill(folder.path(), self.entries)?;
        let mut opened = None;
        self.tell("the book, read from a file", || {
            opened = disk::open(folder.path(), &WINDOWS, Clock::system()).ok();
        });
        let entries: usize = opened.iter().flat_map(|opened| opened.book.counts().0).map(|(_, count)| count).sum();
        assert_eq!(entries as u64, self.entries);
        Ok(())
    }

    fn tell(&self, what: &str, fill: impl FnOnce()) {
        let before = memory_of(std::process::id(), Memory::Anonymous);
        fill();
        let more = memory_of(std::process::id(), Memory::Anonymous).saturating_sub(before);
        println!("{what:<44} {:>6.0} bytes an entry", more as f64 * 1024.0 / self.entries as f64);
    }
}

/// Fills the ledger in a folder that has none yet.
pub fn fill(folder: &Path, entries: u64) -> io::Result<()> {
    let mut store = Store::open(folder).map_err(io::Error::other)?;
    let (mut book, shared) = (Book::default(), [TEAM.into(), KEY.into()]);
    book.keep_dirty();
    for number in 0..entries {
        made(&mut book, number, &shared);
        if number % BATCH == BATCH - 1 || number + 1 == entries {
            let dirty = book.take_dirty();
            store.write(&Batch::of(&book, &dirty, now())).map_err(io::Error::other)?;
            book.settle_dirty();
        }
    }
    Ok(())
}

/// One job from its submission to its end.
fn made(book: &mut Book, number: u64, [team, key]: &[Arc<str>; 2]) {
    let attempt = attempt(number);
    let ask = Ask {
        fingerprint: fingerprint(number),
        body: fingerprint(number),
        base: None,
        attempt,
        team: team.clone(),
        request_id: id_of("request", number).into(),
        asker: Asker { caller: [1; 16], no_cache: false },
        key: None,
        former: None,
    };
    let user = (number % USERS).to_le_bytes();
    let charge =
        Charge { team: team.clone(), user: std::array::from_fn(|at| user[at % 8]), at: now(), ..Charge::default() };
    book.tab_mut().reserve(attempt, charge);
    book.claim(&ask, now(), &BOUNDS);
    book.sending(ask.fingerprint, attempt, &WINDOWS).unwrap();
    let id = RequestId::parse(&id_of("job", number)).unwrap();
    let answer = Bytes::from(format!(r#"{{"request_id":"{id}"}}"#));
    let created = Created { job: id.clone(), answer, at: now(), by: ask.asker.caller };
    let job = Job::new(id, attempt, ask.fingerprint, team.clone(), key.clone(), now()).asked_as(ask.request_id);
    let job = Arc::new(job);
    book.accepted(&job, created, &BOUNDS);
    book.turned(&job, Turn::Done(None), Life::Done, now(), &WINDOWS);
}

fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn attempt(number: u64) -> AttemptId {
    AttemptId::from_bytes(std::array::from_fn(|at| fingerprint(number).as_bytes()[at]))
}

/// Text as long as the ids that an upstream and an SDK give.
fn id_of(kind: &str, number: u64) -> String {
    format!("{:.36}", blake3::hash(format!("{kind} {number}").as_bytes()).to_hex())
}

fn now() -> Time {
    Clock::system().now()
}

/// As the configuration has them by itself, without a bound on how many.
const WINDOWS: Windows = Windows {
    delivery: Duration::from_secs(24 * 3600),
    hold: Duration::from_secs(3600),
    refusal: Duration::from_secs(3600),
};
const BOUNDS: Bounds = Bounds { windows: WINDOWS, max_entries: usize::MAX, max_jobs: usize::MAX };
/// The team in the configuration of what is measured.
const TEAM: &str = "studio";
/// The id of the upstream key.
const KEY: &str = "01234567";
/// The users that share them.
const USERS: u64 = 64;
/// Jobs in one write.
const BATCH: u64 = 100_000;
