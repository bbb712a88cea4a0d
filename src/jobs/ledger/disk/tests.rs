//! Files that were damaged, cut, or written by another version.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::form::{EntryForm, JobForm};
use super::store::Batch;
use super::*;
use crate::jobs::entry::{Asker, AttemptId, Created, Look};
use crate::jobs::records::{Job, Life, Record};
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

const WINDOWS: Windows = Windows {
    delivery: Duration::from_secs(3600),
    hold: Duration::from_secs(3600),
    refusal: Duration::from_secs(3600),
};
/// Paid prompts in the file of these tests.
const PAID: u8 = 40;

/// A folder of its own; gone with this value.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("reelgate-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.join("ledger.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn fingerprint(number: u8) -> Fingerprint {
    Fingerprint::from_bytes(*blake3::hash(&[number]).as_bytes())
}

fn entry(number: u8, is_accepted: bool, now: Time) -> (Entry, Record) {
    let (attempt, id) =
        (AttemptId::from_bytes([number; 16]), RequestId::parse(&format!("job-number-{number}")).unwrap());
    let answer = Bytes::from(format!("{{\"request_id\":\"{id}\"}}"));
    let created = Created { job: id.clone(), answer, at: now, by: [7; 16] };
    let state = if is_accepted { State::Accepted(created) } else { State::Sending };
    let job = Job::new(id, attempt, fingerprint(number), "open".into(), "key-1", now);
    let record = Record { job: Arc::new(job), life: Life::Running, ended: None, orphan: false, forgotten: false };
    (Entry { state, ..Entry::claimed(attempt, "open".into()) }, record)
}

/// A file of paid prompts, written as the journal writes them: `sending` in one batch, `accepted` in a later one.
fn paid(folder: &Folder) -> Vec<u8> {
    let store = Store::open(&folder.0).unwrap();
    let now = Clock::system().now();
    for numbers in (0..PAID).collect::<Vec<_>>().chunks(8) {
        for is_accepted in [false, true] {
            let all = numbers.iter().map(|number| (*number, entry(*number, is_accepted, now)));
            let mut batch = Batch { heartbeat: now, ..Batch::default() };
            for (number, (entry, record)) in all {
                batch.entries.push((fingerprint(number), EntryForm::of(&entry)));
                if is_accepted {
                    batch.jobs.push((record.job.id.to_string(), Some(JobForm::of(&record))));
                }
            }
            store.write(&batch).unwrap();
        }
    }
    // As it lies there while the process runs, and so after a kill.
    let killed = fs::read(folder.file()).unwrap();
    drop(store);
    killed
}

/// The paid prompts that a start on this file would buy again; none if it does not start.
fn freed(folder: &Folder, file: &[u8]) -> Result<Vec<u8>, StoreError> {
    fs::write(folder.file(), file).unwrap();
    let opened = open(&folder.0, &WINDOWS, Clock::system())?;
    Ok((0..PAID).filter(|number| opened.book.entry(&fingerprint(*number)).is_none()).collect())
}

#[test]
fn what_entries_and_jobs_of_a_file_say_alike_is_in_memory_once() {
    let folder = Folder::new("shared-texts");
    paid(&folder);
    let opened = open(&folder.0, &WINDOWS, Clock::system()).unwrap();
    let of = |number| {
        let entry = opened.book.entry(&fingerprint(number)).unwrap();
        let created = entry.created().unwrap();
        (entry, &created.job, opened.book.job(&created.job).unwrap())
    };
    let ((entry, id, job), (other, _, other_job)) = (of(1), of(2));
    assert!(std::ptr::eq(id.as_str(), job.id.as_str()));
    assert!([&other.team, &job.team, &other_job.team].iter().all(|team| Arc::ptr_eq(team, &entry.team)));
    assert!(Arc::ptr_eq(&job.key, &other_job.key));
}

#[test]
fn f43_no_flipped_bit_frees_a_paid_prompt() {
    let folder = Folder::new("flips");
    let killed = paid(&folder);
    let ended = fs::read(folder.file()).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut unreadable, mut read) = (0, 0);
    for file in [&killed, &ended] {
        assert!(freed(&folder, file).unwrap().is_empty());
        let written: Vec<_> = (0..file.len()).filter(|place| file[*place] != 0).collect();
        for _ in 0..flips() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = written[(seed >> 20) as usize % written.len()];
            let mut damaged = file.clone();
            damaged[place] ^= 1 << (seed >> 61);
            match freed(&folder, &damaged) {
                Ok(freed) => {
                    assert!(freed.is_empty(), "bit {} of byte {place} frees {freed:?}", seed >> 61);
                    read += 1;
                }
                Err(_) => unreadable += 1,
            }
        }
    }
    assert!(read > 0 && unreadable > 0, "{read} read, {unreadable} not");
}

/// Flips of each file; by hand there may be more.
fn flips() -> usize {
    std::env::var("REELGATE_TEST_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

#[test]
fn f43_a_fingerprint_that_was_damaged_in_its_row_is_known_from_its_value() {
    let folder = Folder::new("names");
    paid(&folder);
    let mut file = fs::read(folder.file()).unwrap();
    let name = fingerprint(3);
    let json = format!("{{\"attempt\":\"{}\"", "03".repeat(16));
    for place in memchr::memmem::find_iter(&file.clone(), name.as_bytes()) {
        // The copy in the value stands right before its JSON.
        if !file[place + 32..].starts_with(json.as_bytes()) {
            file[place + 5] ^= 4;
        }
    }
    assert!(freed(&folder, &file).unwrap().is_empty());
}

#[test]
fn f43_an_empty_file_and_one_that_was_cut_are_no_new_ledgers() {
    let folder = Folder::new("cut");
    let whole = paid(&folder);
    for length in [0, 1, 320, 4096, whole.len() / 2, whole.len() - 1] {
        match freed(&folder, &whole[..length]) {
            Ok(freed) => assert!(freed.is_empty(), "cut to {length} it frees {freed:?}"),
            Err(error) => assert!(error.to_string().contains("ledger.redb"), "{error}"),
        }
    }
    fs::write(folder.file(), b"").unwrap();
    assert!(matches!(open(&folder.0, &WINDOWS, Clock::system()), Err(StoreError::Unreadable(..))));
    assert_eq!(fs::read(folder.file()).unwrap(), b"", "it is left as it was");
}

#[test]
fn a_start_that_was_cut_off_while_it_made_the_file_is_made_good() {
    let folder = Folder::new("begun");
    for rest in [b"".as_slice(), b"half a file"] {
        fs::write(folder.0.join("ledger.redb.new"), rest).unwrap();
        drop(open(&folder.0, &WINDOWS, Clock::system()).unwrap());
        assert!(folder.file().exists() && !folder.0.join("ledger.redb.new").exists());
        fs::remove_file(folder.file()).unwrap();
    }
}

/// What an identical submission gets at that time, on a machine whose wall clock shows that.
fn look(folder: &Folder, wall: Time, later: Duration) -> Look {
    let millis = Arc::new(AtomicU64::new(wall.as_millis()));
    let opened = open(&folder.0, &WINDOWS, Clock::manual(millis.clone())).unwrap();
    millis.fetch_add(u64::try_from(later.as_millis()).unwrap(), Ordering::SeqCst);
    let asker = Asker { caller: [9; 16], no_cache: false };
    opened.book.entry(&fingerprint(1)).unwrap().clone().look(asker, opened.clock.now(), &WINDOWS)
}

#[test]
fn m10_f61_a_wall_clock_that_was_set_back_or_forward_makes_nothing_live_longer() {
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
    let now = Time::from_millis(1_800_000_000_000);
    let (yesterday, tomorrow) = (Time::from_millis(now.as_millis() - day.as_millis() as u64), now + day);
    let folder = Folder::new("clocks");
    let (entry, _) = entry(1, true, now);
    let job = entry.created().unwrap().clone();
    for (state, heartbeat, wall, later, want) in [
        // Set back by a day: it goes on from the heartbeat, so that half an hour is half an hour.
        (State::Accepted(job.clone()), now, yesterday, WINDOWS.delivery / 2, true),
        (State::Accepted(job.clone()), now, yesterday, WINDOWS.delivery + minute, false),
        (State::Unknown(now + minute), now, yesterday, minute / 2, true),
        (State::Unknown(now + minute), now, yesterday, minute * 3, false),
        // Set forward by a day, and right again at the next start.
        (State::Unknown(tomorrow + minute), tomorrow, now, minute / 2, true),
        (State::Unknown(tomorrow + minute), tomorrow, now, minute * 3, false),
        // The heartbeat is lost too: what remains is clamped.
        (State::Unknown(tomorrow), Time::default(), now, WINDOWS.hold / 2, true),
        (State::Unknown(tomorrow), Time::default(), now, WINDOWS.hold + minute, false),
        (State::Done(job.clone(), tomorrow), Time::default(), now, WINDOWS.delivery / 2, true),
        (State::Done(job.clone(), tomorrow), Time::default(), now, WINDOWS.delivery + minute, false),
        (State::Accepted(Created { at: tomorrow, ..job }), Time::default(), now, WINDOWS.delivery + minute, false),
    ] {
        let store = Store::open(&folder.0).unwrap();
        let told = format!("{state:?}, {heartbeat:?}, {wall:?}, {later:?}");
        let form = EntryForm::of(&Entry { state, ..entry.clone() });
        store.write(&Batch { entries: vec![(fingerprint(1), form)], heartbeat, ..Batch::default() }).unwrap();
        drop(store);
        let look = look(&folder, wall, later);
        assert_eq!(look != Look::Free, want, "{look:?}: {told}");
    }
}
