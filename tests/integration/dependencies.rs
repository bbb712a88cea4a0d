//! What the program may be built from: the rules of `.deny.toml`, held without an outside tool, and the versions
//! below which a dependency has a known hole.

use std::path::Path;
use std::process::Command;

/// Versions that a dependency must have if it is in the tree at all, and what is wrong with older ones.
const FLOORS: [(&str, [u64; 3], &str); 13] = [
    ("anyhow", [1, 0, 103], "RUSTSEC-2026-0190"),
    ("aws-lc-sys", [0, 39, 0], "RUSTSEC-2026-0044 to 0048"),
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007"),
    ("crossbeam-epoch", [0, 9, 20], "RUSTSEC-2026-0204"),
    ("h2", [0, 4, 20], "RUSTSEC-2026-0258 and duplicate content-length"),
    ("hyper", [1, 11, 0], "request framing, and a panic on an odd Connection header"),
    ("jsonwebtoken", [10, 3, 0], "CVE-2026-25537"),
    ("lru", [0, 18, 2], "RUSTSEC-2026-0253"),
    ("prometheus", [0, 14, 0], "RUSTSEC-2024-0437 in what it depended on"),
    ("quick-xml", [0, 41, 0], "RUSTSEC-2026-0194 and 0195"),
    ("rustls", [0, 23, 45], "RUSTSEC-2024-0399 and RUSTSEC-2026-0285"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0049, 0098, 0099 and 0104"),
    ("tracing-subscriber", [0, 3, 20], "RUSTSEC-2025-0055"),
];

/// A file of the repository, as TOML.
fn read(name: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap().parse().unwrap()
}

/// Name, version and source of every package of the lock file.
fn locked() -> Vec<(String, [u64; 3], Option<String>)> {
    let lock = read("Cargo.lock");
    let packages = lock["package"].as_array().unwrap().iter().map(|package| {
        let text = |field: &str| package.get(field).and_then(toml::Value::as_str).map(str::to_owned);
        let version = text("version").unwrap();
        let mut numbers = version.split(['.', '-', '+']).map_while(|number| number.parse().ok());
        let version = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        (text("name").unwrap(), version, text("source"))
    });
    packages.collect()
}

/// Name and licence of every package that is really built here, tests included. (The lock file also names what weak
/// features could pull in, so bans are not read from it.)
fn built() -> Vec<(String, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--locked", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}|{l}|"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).unwrap();
    let packages = lines.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut fields = line.split('|');
        let name = fields.next().unwrap().split(' ').next().unwrap();
        (name.to_owned(), fields.next().unwrap().to_owned())
    });
    packages.collect()
}

/// Whether a licence expression can be met by the allowed licences: SPDX, and the old `A/B` for `A OR B`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let is_met = either(&mut words, allowed);
    is_met && words.next().is_none()
}

type Words<'w> = std::iter::Peekable<std::str::SplitWhitespace<'w>>;

fn either(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut is_met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_met |= both(words, allowed);
    }
    is_met
}

fn both(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut is_met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is_met &= one(words, allowed);
    }
    is_met
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    match words.next() {
        Some("(") => {
            let is_met = either(words, allowed);
            words.next() == Some(")") && is_met
        }
        Some(licence) if words.next_if_eq(&"WITH").is_some() => {
            let whole = format!("{licence} WITH {}", words.next().unwrap_or_default());
            allowed.contains(&whole.as_str())
        }
        Some(licence) => allowed.contains(&licence),
        None => false,
    }
}

#[test]
fn h40_to_h50_no_dependency_is_older_than_the_fix_of_a_known_hole() {
    let locked = locked();
    assert!(locked.len() > 100, "the lock file was not read: {} packages", locked.len());
    for (name, floor, hole) in FLOORS {
        for (_, version, _) in locked.iter().filter(|(locked, ..)| locked == name) {
            assert!(*version >= floor, "{name} {version:?} is below {floor:?}: {hole}");
        }
    }
}

#[test]
fn every_dependency_comes_from_the_one_registry() {
    let locked = locked();
    let sources: Vec<_> = locked.iter().filter(|(name, ..)| name != "reelgate").map(|(.., source)| source).collect();
    assert!(sources.iter().all(|source| source.as_ref().is_some_and(|source| source.starts_with("registry+"))));
    assert!(sources.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn banned_crates_are_not_built() {
    let built = built();
    assert!(built.iter().any(|(name, _)| name == "rustls"), "the tree was not read");
    for ban in read(".deny.toml")["bans"]["deny"].as_array().unwrap() {
        let name = ban["crate"].as_str().unwrap();
        assert!(built.iter().all(|(built, _)| built != name), "{name}: {}", ban["reason"]);
    }
}

#[test]
fn every_dependency_names_its_version() {
    let manifest = read("Cargo.toml");
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, wanted) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
            let version = wanted.as_str().or_else(|| wanted.get("version")?.as_str()).unwrap_or("*");
            assert!(!version.contains('*'), "{name} has no version");
        }
    }
}

#[test]
fn every_licence_is_an_allowed_one() {
    let rules = read(".deny.toml");
    let allowed: Vec<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().map(|licence| licence.as_str().unwrap()).collect();
    for (name, licence) in built() {
        assert!(is_allowed(&licence, &allowed), "{name} has the licence {licence:?}");
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for expression in [
        "MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 / MIT",
        "GPL-3.0 OR MIT",
        "MIT AND ISC",
        "MIT OR GPL-3.0 AND LGPL-2.1",
        "ISC AND (Apache-2.0 OR ISC)",
        "MIT OR (GPL-3.0 AND ISC) OR GPL-2.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
    ] {
        assert!(is_allowed(expression, &allowed), "{expression}");
    }
    for expression in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND GPL-3.0",
        "MIT WITH Autoconf",
        "(MIT",
        "MIT MIT",
        "Apache-2.0",
    ] {
        assert!(!is_allowed(expression, &allowed), "{expression}");
    }
}
