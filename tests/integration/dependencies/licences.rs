//! Licences, read as SPDX has them.

use super::{built, read};

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
fn every_licence_is_an_allowed_one() {
    let rules = read(".deny.toml");
    let allowed: Vec<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().map(|licence| licence.as_str().unwrap()).collect();
    for package in built() {
        let licence = &package.licence;
        assert!(is_allowed(licence, &allowed), "{} has the licence {licence:?}", package.name);
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
