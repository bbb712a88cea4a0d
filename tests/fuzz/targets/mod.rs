//! What reads bytes of strangers, and what must hold whatever they are.

pub mod answers;
pub mod config;
pub mod credentials;
pub mod head;
pub mod json;
pub mod ledger;
pub mod mask;
pub mod polls;
pub mod submission;

/// One of them.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// Panics if something does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "json", words: json::WORDS, run: json::run },
    Target { name: "submission", words: submission::WORDS, run: submission::run },
    Target { name: "head", words: head::WORDS, run: head::run },
    Target { name: "credentials", words: credentials::WORDS, run: credentials::run },
    Target { name: "answers", words: answers::WORDS, run: answers::run },
    Target { name: "polls", words: polls::WORDS, run: polls::run },
    Target { name: "mask", words: mask::WORDS, run: mask::run },
    Target { name: "ledger", words: ledger::WORDS, run: ledger::run },
    Target { name: "config", words: config::WORDS, run: config::run },
];

/// The first line of an input, and what follows it.
fn first_line(input: &[u8]) -> (&str, &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let rest = input.get(end + 1..).unwrap_or_default();
    (std::str::from_utf8(&input[..end]).unwrap_or_default(), rest)
}
