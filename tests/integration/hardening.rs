//! `tests/hardening.md` says where each rule of the hardening catalogue is held. This keeps the page true: every test
//! that it names exists and carries the row's id, every test that carries an id stands there, and no id is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The ids that each section of the page must have, by what they begin with, once the section is there.
const IDS: [(&str, &[std::ops::RangeInclusive<u32>]); 6] = [
    ("H", &[1..=29, 40..=50]),
    ("LIM", &[1..=15]),
    ("INV", &[1..=10]),
    ("T", &[1..=11, 30..=39, 40..=48, 60..=69, 70..=80]),
    ("F", &[1..=19, 20..=25, 30..=30, 33..=33, 40..=46, 50..=58, 60..=67, 70..=71]),
    ("R", &[1..=9, 10..=18, 20..=24, 30..=40, 45..=52, 55..=66, 70..=78]),
];
/// What an id may begin with, in the names of tests and on the page.
const FAMILIES: [&str; 6] = ["H", "LIM", "R", "T", "F", "INV"];

/// An id: its family, its number and its letter, `F-1A`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(String, u32, String);

impl Id {
    /// From `h1`, `R-01`, `f1a`, `INV-10`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_uppercase();
        let digits = text.find(|letter: char| letter.is_ascii_digit())?;
        let (family, rest) = text.split_at(digits);
        let family = family.strip_suffix('-').unwrap_or(family);
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, letter) = rest.split_at(end);
        let is_id = FAMILIES.contains(&family) && letter.len() <= 1 && letter.bytes().all(|b| b.is_ascii_alphabetic());
        is_id.then(|| Some(Self(family.to_owned(), number.parse().ok()?, letter.to_owned())))?
    }

    /// The ids that the name of a test begins with: `r10_h1_…`, and all between two in `h40_to_h50_…`. Those of the
    /// rules of money stand between them, but not on the page.
    fn of_name(name: &str) -> Vec<Self> {
        let mut ids: Vec<Self> = Vec::new();
        let mut words = name.split('_').peekable();
        while let Some(word) = words.next() {
            let is_of_money = word.strip_prefix('m').is_some_and(|number| number.parse::<u32>().is_ok());
            match (Self::parse(word), ids.last().cloned()) {
                (Some(id), _) => ids.push(id),
                (None, Some(first)) if word == "to" => {
                    let Some(last) = words.peek().and_then(|word| Self::parse(word)) else { break };
                    ids.extend((first.1 + 1..last.1).map(|number| Self(first.0.clone(), number, String::new())));
                }
                _ if is_of_money => {}
                _ => break,
            }
        }
        ids
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all functions below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
                line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next()
            });
            names.extend(lines.map(str::to_owned));
        }
    }
}

/// What the page says of each id: the tests that it names, and all of its text.
fn page() -> BTreeMap<Id, (BTreeSet<String>, String)> {
    let text = fs::read_to_string(root().join("tests/hardening.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(id) = cells.first().and_then(|cell| Id::parse(cell)) else { continue };
        let place = *cells.last().unwrap();
        assert!(cells.len() == 3 && !cells[1].is_empty(), "a row has an id, a title and a place: {line}");
        let is_name =
            |name: &&str| name.matches('_').count() > 1 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let tests = place.split('`').skip(1).step_by(2).filter(is_name).map(str::to_owned).collect();
        let twice = rows.insert(id.clone(), (tests, place.to_owned()));
        assert!(twice.is_none(), "{id:?} stands twice");
    }
    rows
}

fn all_functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    functions(&root().join("src"), &mut names);
    functions(&root().join("tests"), &mut names);
    assert!(names.len() > 1000, "the sources were not read");
    names
}

#[test]
fn every_test_that_the_page_names_exists_and_carries_the_id() {
    let functions = all_functions();
    for (id, (tests, _)) in page() {
        for test in tests {
            assert!(functions.contains(&test), "{id:?} names {test}, which is no test");
            assert!(Id::of_name(&test).contains(&id), "{test} does not carry {id:?}");
        }
    }
}

#[test]
fn every_test_with_an_id_stands_on_the_page() {
    let page = page();
    let families: BTreeSet<_> = page.keys().map(|id| id.0.clone()).collect();
    for name in all_functions() {
        // A family whose section is not written yet cannot be complete.
        for id in Id::of_name(&name).into_iter().filter(|id| families.contains(&id.0)) {
            let is_listed = page.get(&id).is_some_and(|(tests, _)| tests.contains(&name));
            assert!(is_listed, "{name} is not listed for {id:?}");
        }
    }
}

#[test]
fn every_id_is_tested_or_decided_otherwise() {
    let page = page();
    for (family, ranges) in IDS {
        for number in ranges.iter().cloned().flatten() {
            assert!(page.contains_key(&Id(family.to_owned(), number, String::new())), "{family}-{number} is left out");
        }
    }
    for (id, (tests, place)) in &page {
        assert!(!tests.is_empty() || place.contains("decided: "), "{id:?} has neither a test nor a reason");
    }
}

#[test]
fn ids_are_read_from_names_and_rows() {
    let id = |text| Id::parse(text).unwrap();
    assert_eq!((id("R-01"), id("f1a"), id("INV-10")), (id("r1"), id("F-1A"), id("inv10")));
    assert!(["m5", "http2", "x1", "r", "h1bb", "over"].iter().all(|text| Id::parse(text).is_none()));
    assert_eq!(Id::of_name("r01_m31_t43_a_thing_of_r5"), [id("r1"), id("t43")]);
    assert_eq!(Id::of_name("h40_to_h42_all"), [id("h40"), id("h41"), id("h42")]);
    assert!(Id::of_name("a_name_r5").is_empty());
}
