//! Files that were damaged, cut, or written by another version.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::batch::Batch;
use super::form::{EntryForm, JobForm};
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
        // In memory where there is such a place: these files are opened hundreds of times, and survive nothing.
        let memory = std::path::PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = place.join(format!("reelgate-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.join("ledger.redb")
    }

    fn log(&self) -> std::path::PathBuf {
        self.0.join("ledger.wal")
    }

    /// Both files as they lie there.
    fn files(&self) -> Files {
        Files { tables: fs::read(self.file()).unwrap(), log: fs::read(self.log()).unwrap() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// What a ledger's folder holds.
#[derive(Clone)]
struct Files {
    tables: Vec<u8>,
    log: Vec<u8>,
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

/// Paid prompts, written as the journal writes them: `sending` in one batch, `accepted` in a later one. `quiet` says
/// after how many of them there was time to put the log into the tables.
fn paid(folder: &Folder, quiet: u8) -> Files {
    let mut store = Store::open(&folder.0).unwrap();
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
        if numbers.contains(&quiet) {
            store.write(&Batch { heartbeat: now, ..Batch::default() }).unwrap();
        }
    }
    // As they lie there while the process runs, and so after a kill.
    let killed = folder.files();
    drop(store);
    killed
}

/// The paid prompts that a start on these files would buy again; none if it does not start.
fn freed(folder: &Folder, files: &Files) -> Result<Vec<u8>, StoreError> {
    fs::write(folder.file(), &files.tables).unwrap();
    fs::write(folder.log(), &files.log).unwrap();
    let opened = open(&folder.0, &WINDOWS, Clock::system())?;
    Ok((0..PAID).filter(|number| opened.book.entry(&fingerprint(*number)).is_none()).collect())
}

#[test]
fn what_entries_and_jobs_of_a_file_say_alike_is_in_memory_once() {
    let folder = Folder::new("shared-texts");
    paid(&folder, PAID);
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
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut unreadable, mut read) = (0, 0);
    // With all of it in the log, and with some of it in the tables.
    for quiet in [PAID, 20] {
        _ = fs::remove_file(folder.file());
        let killed = paid(&folder, quiet);
        let ended = folder.files();
        formats::as_before(&folder, "2");
        let before = folder.files();
        for (files, in_log) in [(&killed, false), (&killed, true), (&ended, false), (&before, false)] {
            assert!(freed(&folder, files).unwrap().is_empty());
            let whole = if in_log { &files.log } else { &files.tables };
            let written: Vec<_> = (0..whole.len()).filter(|place| whole[*place] != 0).collect();
            for _ in 0..flips() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = written[(seed >> 20) as usize % written.len()];
                let mut damaged = files.clone();
                let bytes = if in_log { &mut damaged.log } else { &mut damaged.tables };
                bytes[place] ^= 1 << (seed >> 61);
                match freed(&folder, &damaged) {
                    Ok(freed) => {
                        let bit = seed >> 61;
                        assert!(freed.is_empty(), "bit {bit} of byte {place} (log: {in_log}) frees {freed:?}");
                        read += 1;
                    }
                    Err(_) => unreadable += 1,
                }
            }
        }
    }
    assert!(read > 0 && unreadable > 0, "{read} read, {unreadable} not");
}

/// What redb says of a table: a flipped bit can make it one without rows, and that is no empty ledger.
#[test]
fn f43_a_table_that_has_lost_its_rows_is_not_taken_for_an_empty_one() {
    let folder = Folder::new("tables");
    paid(&folder, PAID);
    let this = folder.files();
    formats::as_before(&folder, "2");
    let before = folder.files();
    let mut refused = 0;
    for (files, name) in [(this, "placed entries"), (before, "entries")] {
        for start in memchr::memmem::find_iter(&files.tables, name) {
            // The name, and what may say behind it that there is a first page.
            let behind = start + name.len()..files.tables.len().min(start + 600);
            let flags = behind.filter(|place| files.tables[*place] == 1);
            for place in (start..start + name.len()).chain(flags) {
                let mut damaged = files.clone();
                damaged.tables[place] ^= 1;
                match freed(&folder, &damaged) {
                    Ok(freed) => assert!(freed.is_empty(), "{name}: byte {place} frees {freed:?}"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 0);
}

/// Flips of each file; by hand there may be more.
fn flips() -> usize {
    std::env::var("REELGATE_TEST_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

#[test]
fn f43_a_fingerprint_that_was_damaged_in_its_row_is_known_from_its_value() {
    let folder = Folder::new("names");
    paid(&folder, PAID);
    let mut files = folder.files();
    let file = &mut files.tables;
    let name = fingerprint(3);
    let json = format!("{{\"attempt\":\"{}\"", "03".repeat(16));
    for place in memchr::memmem::find_iter(&file.clone(), name.as_bytes()) {
        // The copy in the value stands right before its JSON.
        if !file[place + 32..].starts_with(json.as_bytes()) {
            file[place + 5] ^= 4;
        }
    }
    assert!(freed(&folder, &files).unwrap().is_empty());
}

#[test]
fn f43_an_empty_file_and_one_that_was_cut_are_no_new_ledgers() {
    let folder = Folder::new("cut");
    let Files { tables: whole, log } = paid(&folder, 20);
    for length in [0, 1, 320, 4096, whole.len() / 2, whole.len() - 1] {
        match freed(&folder, &Files { tables: whole[..length].to_vec(), log: log.clone() }) {
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

#[test]
fn f43_a_log_that_was_cut_loses_its_last_record_and_nothing_without_a_word() {
    let folder = Folder::new("cut-log");
    let Files { tables, log } = paid(&folder, 20);
    // What came after the quiet moment stands in the second half, behind the beginning of its log.
    let (begins, end) = (4 << 20, log.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    let mut fewest = usize::MAX;
    for length in (begins + 64..end).step_by(97).chain([end, log.len()]) {
        let cut = Files { tables: tables.clone(), log: log[..length].to_vec() };
        // What was told to be on the disk and is not cannot be known from what is left, but what is left counts.
        let freed = freed(&folder, &cut).unwrap();
        assert!(length < end || freed.is_empty(), "cut to {length} it frees {freed:?}");
        // Those were in the tables by then.
        assert!(freed.iter().all(|number| *number >= 24), "cut to {length} it frees {freed:?}");
        assert!(freed.len() <= fewest, "more of it frees more");
        fewest = freed.len();
    }
    // A log that has lost its beginning is not taken for one in which nothing was written yet.
    let whole = log.len();
    for log in [&[], &log[..begins], &log[..begins + 63], &vec![0; whole], &vec![7; whole]].map(<[u8]>::to_vec) {
        let emptied = Files { tables: tables.clone(), log };
        assert!(matches!(freed(&folder, &emptied), Err(StoreError::Unreadable(path, _)) if path == folder.log()));
    }
    fs::write(folder.file(), &tables).unwrap();
    fs::remove_file(folder.log()).unwrap();
    let Err(StoreError::Unreadable(path, _)) = open(&folder.0, &WINDOWS, Clock::system()) else {
        panic!("it began without its log");
    };
    assert_eq!(path, folder.log());
}

/// The last record cannot be told from one that a crash has torn: what of it can be read counts.
#[test]
fn f43_a_damaged_value_in_the_last_record_of_the_log_holds_its_prompt() {
    let folder = Folder::new("last");
    let now = Clock::system().now();
    let mut store = Store::open(&folder.0).unwrap();
    let mut write = |is_accepted: bool, numbers: std::ops::Range<u8>| {
        let entries = numbers.map(|number| (fingerprint(number), EntryForm::of(&entry(number, is_accepted, now).0)));
        store.write(&Batch { entries: entries.collect(), heartbeat: now, ..Batch::default() }).unwrap();
    };
    write(true, 0..20);
    let before = fs::read(folder.log()).unwrap().len();
    // One of them is known from before.
    write(false, 19..PAID);
    let Files { tables, log } = folder.files();
    drop(store);
    let mut damaged = log.clone();
    let values = memchr::memmem::find_iter(&log, "{\"attempt\"").filter(|place| *place >= before);
    values.for_each(|place| damaged[place + 15] ^= 1);
    fs::write(folder.file(), &tables).unwrap();
    fs::write(folder.log(), &damaged).unwrap();
    let opened = open(&folder.0, &WINDOWS, Clock::system()).unwrap();
    for number in 0..PAID {
        let state = &opened.book.entry(&fingerprint(number)).unwrap().state;
        assert_eq!(matches!(state, State::Accepted(_)), number < 20, "{number}: {state:?}");
    }
}

/// The store falls back to its commit before, as it does after a crash when its last one shows damage. The log of that
/// commit, and the one after it, still tell everything.
#[test]
fn f43_tables_that_have_fallen_back_lose_nothing() {
    let folder = Folder::new("fallback");
    let mut store = Store::open(&folder.0).unwrap();
    let now = Clock::system().now();
    let write = |store: &mut Store, number: u8| {
        let form = EntryForm::of(&entry(number, true, now).0);
        store.write(&Batch { entries: vec![(fingerprint(number), form)], heartbeat: now, ..Batch::default() }).unwrap();
    };
    write(&mut store, 0);
    let before = fs::read(folder.file()).unwrap();
    write(&mut store, 1);
    // Now it goes into the tables, and the log begins anew.
    store.write(&Batch { heartbeat: now, ..Batch::default() }).unwrap();
    write(&mut store, 2);
    let log = fs::read(folder.log()).unwrap();
    drop(store);
    let freed = freed(&folder, &Files { tables: before, log }).unwrap();
    assert!((0..3).all(|number| !freed.contains(&number)), "{freed:?}");
}

#[test]
fn a_log_that_grows_long_goes_into_the_tables_and_stays_short() {
    let folder = Folder::new("long");
    let now = Clock::system().now();
    let mut store = Store::open(&folder.0).unwrap();
    for _ in 0..12 {
        let entries = (0..PAID).map(|number| {
            let (mut entry, _) = entry(number, true, now);
            entry.request_id = "x".repeat(20_000).into();
            (fingerprint(number), EntryForm::of(&entry))
        });
        store.write(&Batch { entries: entries.collect(), heartbeat: now, ..Batch::default() }).unwrap();
    }
    // A batch that fits into no log.
    let (mut huge, _) = entry(7, false, now);
    huge.request_id = "y".repeat(5 << 20).into();
    let form = EntryForm::of(&huge);
    store.write(&Batch { entries: vec![(fingerprint(7), form)], heartbeat: now, ..Batch::default() }).unwrap();
    let killed = folder.files();
    drop(store);
    assert!(killed.log.len() <= 8 << 20, "{}", killed.log.len());
    assert!(freed(&folder, &killed).unwrap().is_empty());
    let opened = open(&folder.0, &WINDOWS, Clock::system()).unwrap();
    assert_eq!(opened.book.entry(&fingerprint(7)).unwrap().request_id.len(), 5 << 20);
}

#[test]
fn m8_f63_without_room_for_the_tables_all_goes_into_the_log_and_later_into_them() {
    let folder = Folder::new("room");
    let now = Clock::system().now();
    let mut cramped = folder::Folder::take(&folder.0).unwrap();
    cramped.least = u64::MAX;
    let mut store = Store::open_in(cramped).unwrap();
    let before = fs::read(folder.file()).unwrap();
    // Three of these would go into the tables at once.
    for number in 0..3 {
        let (mut entry, _) = entry(number, true, now);
        entry.request_id = "x".repeat(1 << 20).into();
        let entries = vec![(fingerprint(number), EntryForm::of(&entry))];
        store.write(&Batch { entries, heartbeat: now, ..Batch::default() }).unwrap();
        store.write(&Batch { heartbeat: now, ..Batch::default() }).unwrap();
    }
    assert!(fs::read(folder.file()).unwrap() == before, "nothing went into the tables");
    let killed = folder.files();
    drop(store);
    assert_eq!(freed(&folder, &killed).unwrap(), (3..PAID).collect::<Vec<_>>());
}

/// Names are random, and yet a few more rows change a few pages, however many there are.
#[test]
fn rows_that_are_written_together_lie_together() {
    let folder = Folder::new("places");
    let mut store = Store::open(&folder.0).unwrap();
    let now = Clock::system().now();
    let mut write = |numbers: std::ops::Range<u32>| {
        let (form, _) = entry(1, true, now);
        let name = |number: u32| Fingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let entries = numbers.map(|number| (name(number), EntryForm::of(&form))).collect();
        store.write(&Batch { entries, heartbeat: now, ..Batch::default() }).unwrap();
        store.write(&Batch { heartbeat: now, ..Batch::default() }).unwrap();
        fs::read(folder.file()).unwrap()
    };
    let rounds = (0..20).map(|round| round * 200..(round + 1) * 200);
    let mut before = rounds.map(&mut write).last().unwrap();
    for numbers in [4000..4200, 1000..1200] {
        let after = write(numbers.clone());
        let pages = before.chunks(4096).zip(after.chunks(4096)).filter(|(before, after)| before != after).count();
        assert!((1..100).contains(&pages), "{numbers:?}: {pages} pages");
        before = after;
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
        let mut store = Store::open(&folder.0).unwrap();
        let told = format!("{state:?}, {heartbeat:?}, {wall:?}, {later:?}");
        let form = EntryForm::of(&Entry { state, ..entry.clone() });
        store.write(&Batch { entries: vec![(fingerprint(1), form)], heartbeat, ..Batch::default() }).unwrap();
        drop(store);
        let look = look(&folder, wall, later);
        assert_eq!(look != Look::Free, want, "{look:?}: {told}");
    }
}

mod formats;
mod restarts;
