//! What the program may be built from: the rules of `.deny.toml`, held without an outside tool, the versions below which
//! a dependency has a known hole, and what was looked at before it came in.

mod known;
mod licences;

use std::collections::{BTreeMap, BTreeSet};
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

/// A package that is really built here.
struct Built {
    name: String,
    version: String,
    licence: String,
}

/// All of them, those of the tests included. (The lock file also names what weak features could pull in, so bans are not
/// read from it.)
fn built() -> Vec<Built> {
    let tree = cargo(&["tree", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}|{l}|"]);
    let packages = tree.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut fields = line.split('|');
        let mut words = fields.next().unwrap().split(' ');
        let (name, version) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        Built { name, version, licence: fields.next().unwrap().to_owned() }
    });
    packages.collect()
}

/// What cargo says to this.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said =
        Command::new(cargo).args(arguments).arg("--locked").current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
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
    assert!(built.iter().any(|package| package.name == "rustls"), "the tree was not read");
    for ban in read(".deny.toml")["bans"]["deny"].as_array().unwrap() {
        let name = ban["crate"].as_str().unwrap();
        assert!(built.iter().all(|package| package.name != name), "{name}: {}", ban["reason"]);
    }
}

#[test]
fn t61_nothing_is_here_that_could_unpack_a_body() {
    let unpack = ["flate", "miniz", "inflate", "brotli", "zstd", "zlib", "libz", "lz4", "compression", "decompress"];
    let found: Vec<_> =
        locked().into_iter().filter(|(name, ..)| unpack.iter().any(|part| name.contains(part))).collect();
    assert!(found.is_empty(), "{found:?}");
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
fn t75_a_direct_dependency_is_listed_with_what_it_saves() {
    let manifest = read("Cargo.toml");
    let mut listed: BTreeMap<_, _> = known::DIRECT.iter().copied().collect();
    assert_eq!(listed.len(), known::DIRECT.len(), "one is listed twice");
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for name in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten().map(|(name, _)| name) {
            let is_again = section != "dependencies" && manifest["dependencies"].get(name).is_some();
            assert!(is_again || listed.remove(name.as_str()).is_some(), "{name} is new: say in known.rs what it saves");
        }
    }
    assert!(listed.is_empty(), "no longer used: {listed:?}");
}

#[test]
fn t75_no_build_script_or_macro_runs_unseen_and_nothing_is_linked_in() {
    let built: BTreeSet<_> = built().into_iter().map(|package| (package.name, package.version)).collect();
    // Without a platform it would fetch what only others need.
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", host]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name == "reelgate"
            || !built.contains(&(name.to_owned(), format!("v{}", package["version"].as_str().unwrap())))
        {
            continue;
        }
        let kinds = package["targets"].as_array().unwrap().iter().flat_map(|target| target["kind"].as_array().unwrap());
        for kind in kinds.filter_map(serde_json::Value::as_str) {
            let listed: &[&str] = match kind {
                "custom-build" => &known::BUILD_SCRIPTS,
                "proc-macro" => &known::MACROS,
                _ => continue,
            };
            assert!(
                listed.contains(&name),
                "{name} runs code while this is built ({kind}): read it, then list it in known.rs"
            );
            seen += 1;
        }
        let links = package["links"].as_str();
        assert!(links.is_none() || known::LINKED.contains(&name), "{name} brings a library that is no Rust: {links:?}");
    }
    assert!(seen > 10, "the metadata was not read");
}

#[test]
fn t75_a_crate_is_here_twice_only_where_said() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in built() {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let rules = read(".deny.toml");
    let skipped: BTreeSet<_> =
        rules["bans"]["skip"].as_array().unwrap().iter().map(|skip| skip["crate"].as_str().unwrap()).collect();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let older = versions.iter().filter(|version| !skipped.contains(format!("{name}@{}", &version[1..]).as_str()));
        assert!(older.count() <= 1, "{name} is here in {versions:?}: one will do, or say why not in .deny.toml");
    }
}

#[test]
fn t75_the_tree_grows_only_on_purpose() {
    let packages: BTreeSet<_> = built().into_iter().map(|package| (package.name, package.version)).collect();
    assert!(packages.len() <= known::PACKAGES, "{} packages, {} allowed", packages.len(), known::PACKAGES);
}
