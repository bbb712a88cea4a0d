use super::super::seal::{self, seal_named, unseal_named};
use super::*;

const SECTOR: usize = 512;

/// A log as programs of the first three formats would have written it.
pub(in super::super) fn as_before(bytes: &[u8]) -> Vec<u8> {
    let mut former = bytes.to_vec();
    for half in [0, HALF] {
        let mut at = half;
        while let Some(record) = Record::at(bytes, at).filter(Record::is_whole) {
            let generation = record.header.generation;
            let mut own = Vec::new();
            for row in super::rows(record.rows, mark(&generation)).unwrap() {
                let value = row.value.as_ref().map(|value| seal::as_before(&row.key, value));
                put(&mut own, mark(&generation), &Row { value, ..row }).unwrap();
            }
            let record_bytes = [&record.header.former_bytes(&own), &own[..]].concat();
            former[at..at + record_bytes.len()].copy_from_slice(&record_bytes);
            at = record.end;
        }
    }
    former
}

#[test]
fn f43_what_looks_like_a_mark_within_a_whole_record_is_a_value() {
    let generation = [7; 16];
    let value = [&[b'x'; 16][..], &mark(&generation).to_le_bytes(), &[b'y'; 24]].concat();
    let written = [Row::new(Kind::Entries, &[9; 32], Some(value)), Row::new(Kind::Jobs, b"job", Some(vec![b'z'; 40]))];
    let mut own = Vec::new();
    written.iter().for_each(|row| put(&mut own, mark(&generation), row).unwrap());
    let header = Header { generation, parent: [0; 16], number: 0, length: own.len() as u32 };
    let bytes = [&header.bytes(&own)[..], &own].concat();
    assert_eq!(read(&bytes, generation).unwrap().rows, written);
}

/// As the reference implementation of XXH3 computes it.
#[test]
fn the_checksum_of_a_record_stays_as_it_is() {
    let header = Header { generation: [1; 16], parent: [2; 16], number: 3, length: 1000 };
    let bytes = header.bytes(&[4; 1000]);
    assert_eq!(hex::encode(&bytes[40..]), format!("569cc64ff03390f981506e5670613059{}", "0".repeat(16)));
}

/// Entries as they stand in the log; those of another `time` have the same length.
fn rows(numbers: std::ops::Range<u8>, time: char) -> Vec<Row> {
    let value = |key: &[u8; 32]| seal_named(key, &time.to_string().repeat(150 + usize::from(key[0]) % 7));
    let keys = numbers.map(|number| *blake3::hash(&[number]).as_bytes());
    keys.map(|key| Row::new(Kind::Entries, &key, value(&key))).collect()
}

/// A log that has come back to its first half twice, and the place of its last record, with what lay there before.
struct Torn {
    name: Name,
    bytes: Vec<u8>,
    before: Vec<u8>,
    last: std::ops::Range<usize>,
}

fn log(folder: &Path) -> Torn {
    std::fs::create_dir_all(folder).unwrap();
    let first = Name::default().next().unwrap();
    Wal::create(folder, &first).unwrap();
    let read = || std::fs::read(folder.join(FILE)).unwrap();
    let mut wal = Wal::begin(Wal::open(folder).unwrap().0, first);
    for time in ['a', 'b', 'c'] {
        for numbers in [0..10, 10..20] {
            assert!(wal.append(&rows(numbers, time)).unwrap());
        }
        if time < 'c' {
            let next = wal.name().next().unwrap();
            wal.prepare(&next).unwrap();
            wal.renew(next);
        }
    }
    let half = wal.name().half();
    let (before, start) = (read(), half + wal.length);
    assert!(wal.append(&rows(20..40, 'c')).unwrap());
    let (bytes, last) = (read(), start..half + wal.length);
    std::fs::remove_dir_all(folder).unwrap();
    Torn { name: *wal.name(), bytes, before, last }
}

fn all(told: Told) -> Vec<Row> {
    [told.rows, told.doubtful].concat()
}

/// What `torn` has of the last record; everything before it must be there as it was written.
fn read_torn(torn: &Torn, bytes: &[u8]) -> Vec<Row> {
    let told = read(bytes, torn.name.generation).expect("a torn record is no damage");
    assert!(told.is_torn || bytes[torn.last.clone()] == torn.bytes[torn.last.clone()] || is_gone(torn, bytes));
    let mut all = all(told);
    let told = [rows(0..10, 'c'), rows(10..20, 'c')].concat();
    let last = all.split_off(told.len());
    assert_eq!(all, told);
    last
}

/// Whether nothing is left of the last record but what lay there before, or zeros.
fn is_gone(torn: &Torn, bytes: &[u8]) -> bool {
    let mark = mark(&torn.name.generation).to_le_bytes();
    memchr::memmem::find(&bytes[torn.last.clone()], &mark).is_none()
}

#[test]
fn f43_f41_a_torn_record_is_never_read_with_what_it_was_to_overwrite() {
    let mut torn = log(&std::env::temp_dir().join(format!("reelgate-torn-{}", std::process::id())));
    let written = rows(20..40, 'c');
    assert_eq!(read_torn(&torn, &torn.bytes), written);
    // An older row just where the new one begins is the worst that can lie there.
    let old = rows(20..40, 'a');
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..2_000 {
        let mut bytes = torn.bytes.clone();
        for sector in torn.last.clone().step_by(SECTOR).map(|place| place / SECTOR * SECTOR) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if seed >> 62 == 0 {
                let range = sector.max(torn.last.start)..(sector + SECTOR).min(torn.last.end);
                match (round % 2, torn.before.get(range.clone())) {
                    (0, Some(before)) => bytes[range].copy_from_slice(before),
                    _ => bytes[range].fill(0),
                }
            }
        }
        for row in read_torn(&torn, &bytes) {
            assert!(written.iter().any(|one| one.key == row.key), "a row that was never written there");
            let key = <[u8; 32]>::try_from(row.key.as_slice()).unwrap();
            // Sound and new, or damaged, and then its prompt is held.
            if let (_, Checked::Sound(value)) = unseal_named::<String>(&key, row.value.as_deref().unwrap()) {
                assert!(value.starts_with('c'), "an old value counts again");
            }
        }
    }
    // The same of a record that was torn right down to the rows of an older one.
    let mut file = Vec::new();
    old.iter().for_each(|row| put(&mut file, mark(&[9; 16]), row).unwrap());
    torn.bytes.truncate(torn.last.end);
    let place = torn.last.start + HEADER;
    torn.bytes[place..place + file.len()].copy_from_slice(&file);
    assert_eq!(read_torn(&torn, &torn.bytes.clone()), []);
}

#[test]
fn f43_a_flipped_bit_in_the_last_record_loses_none_of_its_rows() {
    let torn = log(&std::env::temp_dir().join(format!("reelgate-flipped-{}", std::process::id())));
    let written = rows(20..40, 'c');
    for place in torn.last.start..torn.last.start + 2 * SECTOR {
        let mut bytes = torn.bytes.clone();
        bytes[place] ^= 1 << (place % 8);
        // Where it cannot be told whose row it was, nothing is begun.
        let Ok(told) = read(&bytes, torn.name.generation) else { continue };
        let mut all = all(told);
        let last = all.split_off(20);
        let held = |row: &Row| {
            last.iter().any(|one| {
                let key = <[u8; 32]>::try_from(one.key.as_slice()).unwrap();
                unseal_named::<String>(&key, one.value.as_deref().unwrap()).0[..] == row.key
            })
        };
        assert!(written.iter().all(held), "byte {place} loses a row");
    }
}

#[test]
fn f43_a_record_that_is_not_whole_before_the_end_refuses_the_log() {
    let torn = log(&std::env::temp_dir().join(format!("reelgate-middle-{}", std::process::id())));
    let first = HALF;
    assert!(torn.last.start > first, "the third log is where the first one was");
    for place in [0, 20, 40, HEADER + 100] {
        let mut bytes = torn.bytes.clone();
        bytes[first + place] ^= 1;
        assert!(read(&bytes, torn.name.generation).is_err(), "byte {place}");
    }
    assert!(all(read(&torn.bytes, [1; 16]).unwrap()).is_empty(), "another log's records are not this one's");
}
