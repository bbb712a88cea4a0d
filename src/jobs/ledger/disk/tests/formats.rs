//! Files of earlier formats.

use super::*;

/// Turns the files into what a process of an earlier version would have left after an orderly end, and tells what the
/// tables would have been after a kill.
pub(super) fn as_before(folder: &Folder, format: &str) -> Vec<u8> {
    let table = redb::TableDefinition::<&[u8], &[u8]>::new;
    let database = redb::Database::open(folder.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    for name in ["placed entries", "placed jobs", "keys", "tabs", "accounts", "meta"] {
        let mut table = transaction.open_table(table(name)).unwrap();
        let rows = redb::ReadableTable::iter(&table).unwrap().map(Result::unwrap);
        let rows: Vec<_> = rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect();
        for (key, value) in rows {
            let name = if name.starts_with("placed") { &key[8..] } else { &key };
            table.insert(key.as_slice(), seal::as_before(name, &value).as_slice()).unwrap();
        }
    }
    let by_name = [("placed entries", "entries"), ("placed jobs", "jobs")];
    for (placed, by_name) in by_name.into_iter().filter(|_| format < "3") {
        {
            let placed = transaction.open_table(table(placed)).unwrap();
            let mut by_name = transaction.open_table(table(by_name)).unwrap();
            for row in redb::ReadableTable::iter(&placed).unwrap() {
                let (key, value) = row.unwrap();
                by_name.insert(&key.value()[8..], value.value()).unwrap();
            }
        }
        transaction.delete_table(table(placed)).unwrap();
    }
    {
        let mut meta = transaction.open_table(table("meta")).unwrap();
        meta.insert(b"format".as_slice(), seal::seal_for_all(b"format", &format).unwrap().as_slice()).unwrap();
        if format == "1" {
            meta.remove(b"log".as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
    let killed = fs::read(folder.file()).unwrap();
    drop(database);
    if format == "1" {
        fs::remove_file(folder.log()).unwrap();
    } else {
        fs::write(folder.log(), wal::tests::as_before(&fs::read(folder.log()).unwrap())).unwrap();
    }
    killed
}

/// Files of earlier formats are read, and from then on are of this one.
#[test]
fn a_file_of_an_earlier_format_becomes_one_of_this() {
    for (format, is_killed) in ["1", "2", "3"].iter().flat_map(|format| [(*format, false), (*format, true)]) {
        let folder = Folder::new(&format!("format-{format}-{is_killed}"));
        paid(&folder, PAID);
        let killed = as_before(&folder, format);
        if is_killed {
            fs::write(folder.file(), killed).unwrap();
        }
        let before = fs::read(folder.file()).unwrap();
        for _ in 0..2 {
            let opened = open(&folder.0, &WINDOWS, Clock::system()).unwrap();
            for number in 0..PAID {
                let entry = opened.book.entry(&fingerprint(number)).unwrap();
                assert!(opened.book.job(&entry.created().unwrap().job).is_some(), "{format}: {number}");
            }
        }
        assert!(fs::read(folder.file()).unwrap() != before && folder.log().exists());
    }
}

#[test]
fn m8_a_file_of_an_earlier_format_brings_what_stands_in_its_log() {
    for format in ["2", "3"] {
        let folder = Folder::new(&format!("format-{format}-log"));
        drop(Store::open(&folder.0).unwrap());
        as_before(&folder, format);
        let tables = fs::read(folder.file()).unwrap();
        let Files { log, .. } = paid(&folder, PAID);
        // The log is named by the tables that became this format's, and those of before name the same one.
        let before = Files { tables, log: wal::tests::as_before(&log) };
        assert!(before.log != log);
        let freed = freed(&folder, &before).unwrap();
        assert!(freed.is_empty(), "{format}: {freed:?}");
    }
}

#[test]
fn f43_pages_of_an_earlier_format_are_carved_like_those_of_this() {
    for format in ["2", "3", "4"] {
        let folder = Folder::new(&format!("carve-{format}"));
        paid(&folder, PAID);
        if format != "4" {
            as_before(&folder, format);
        }
        // Its head is lost, so that it cannot be opened.
        let mut bytes = fs::read(folder.file()).unwrap();
        bytes[..64].fill(0);
        fs::write(folder.file(), bytes).unwrap();
        let found = recover::recover(&folder.0, &folder.0.join("new")).unwrap();
        assert!(!found.was_sound && found.has_key && found.damaged == 0, "{format}: {found:?}");
        assert_eq!((found.entries, found.jobs), (usize::from(PAID), usize::from(PAID)), "{format}");
    }
}

/// What another version has sealed looks damaged here, so pages are not gone through for it.
#[test]
fn f43_a_ledger_of_another_version_is_not_carved() {
    let folder = Folder::new("recover-another-format");
    paid(&folder, PAID);
    {
        let database = redb::Database::open(folder.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut meta = transaction.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("meta")).unwrap();
            meta.insert(b"format".as_slice(), seal::seal_for_all(b"format", &"5").unwrap().as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let told = recover::recover(&folder.0, &folder.0.join("new"));
    assert!(matches!(told, Err(StoreError::Format { found: 5, .. })), "{told:?}");
    assert!(!folder.0.join("new").exists());
}

/// A log of an earlier version has no record of no rows at its beginning, and is none the worse for it.
#[test]
fn a_log_of_an_earlier_version_is_read_and_the_next_one_has_a_beginning() {
    let folder = Folder::new("unbegun");
    drop(paid(&folder, PAID));
    let name = |beginning: Option<&str>| {
        let database = redb::Database::open(folder.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        let found = {
            let mut meta = transaction.open_table(redb::TableDefinition::<&[u8], &[u8]>::new("meta")).unwrap();
            let found = redb::ReadableTable::get(&meta, b"log".as_slice()).unwrap().unwrap().value().to_vec();
            let Checked::Sound(found) = seal::unseal::<String>(b"log", &found) else { panic!("no name") };
            if let Some(beginning) = beginning {
                let other = seal::seal(b"log", &found.replace(" begun", beginning)).unwrap();
                meta.insert(b"log".as_slice(), other.as_slice()).unwrap();
            }
            found
        };
        transaction.commit().unwrap();
        found
    };
    assert!(name(Some("")).ends_with(" begun"));
    // After an orderly end of such a version nothing need stand in it.
    fs::write(folder.log(), b"").unwrap();
    let mut store = Store::open(&folder.0).unwrap();
    let now = Clock::system().now();
    let batch = |number| {
        let form = EntryForm::of(&entry(number, true, now).0);
        Batch { entries: vec![(fingerprint(number), form)], heartbeat: now, ..Batch::default() }
    };
    store.write(&batch(PAID)).unwrap();
    let killed = folder.files();
    drop(store);
    assert!(freed(&folder, &killed).unwrap().is_empty());
    assert!(open(&folder.0, &WINDOWS, Clock::system()).unwrap().book.entry(&fingerprint(PAID)).is_some());
    assert!(name(None).ends_with(" begun"));
}
