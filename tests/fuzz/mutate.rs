//! Inputs from inputs: a few changes by chance, of which many are of a target's own words.

use crate::corpus::Corpus;
use crate::dice::Dice;

/// The longest input.
const LONGEST: usize = 16 * 1024;
/// Numbers at which things turn.
const NUMBERS: [&str; 14] = [
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1e308",
    "5e-324",
    "255",
    "65536",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
];
/// What stands between things.
const SIGNS: [&str; 24] = [
    "{}", "[]", "\"\"", "null", "true", "\\u0061", "\\ud800", "\\udc00", "\u{feff}", "\u{0}", "\r\n", "\n", "\t", ",",
    ":", ";", "%2e", "..", "//", "é", "ſ", "\u{200b}", "\"", "=",
];

/// An input of the corpus, changed up to eight times.
pub fn mutated(corpus: &Corpus, words: &[&str], dice: &mut Dice) -> Vec<u8> {
    let mut input = dice.pick(corpus.inputs()).clone();
    for _ in 0..=dice.below(8) {
        change(&mut input, corpus, words, dice);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, corpus: &Corpus, words: &[&str], dice: &mut Dice) {
    let (at, end) = range(input, dice);
    match dice.below(12) {
        0 if !input.is_empty() => {
            let at = at.min(input.len() - 1);
            input[at] ^= 1 << dice.below(8);
        }
        1 if !input.is_empty() => {
            let at = at.min(input.len() - 1);
            input[at] = dice.below(256) as u8;
        }
        2 => drop(input.drain(at..end)),
        3 => {
            let again = input[at..end].to_vec();
            put(input, end, end, &again);
        }
        4 => input.truncate(at),
        5 | 6 if !words.is_empty() => put(input, at, at, dice.pick(words).as_bytes()),
        7 if !words.is_empty() => {
            let (at, end) = token(input, at);
            put(input, at, end, dice.pick(words).as_bytes());
        }
        8 => {
            let (at, end) = token(input, at);
            put(input, at, end, dice.pick(&NUMBERS).as_bytes());
        }
        9 | 10 => put(input, at, at, dice.pick(&SIGNS).as_bytes()),
        _ => {
            let other = dice.pick(corpus.inputs());
            let (from, to) = range(other, dice);
            put(input, at, end, &other[from..to]);
        }
    }
}

/// A short part of the input, rarely a long one.
fn range(input: &[u8], dice: &mut Dice) -> (usize, usize) {
    let at = dice.below(input.len() + 1);
    let longest = if dice.happens(20) { input.len() } else { 16 };
    (at, (at + dice.below(longest + 1)).min(input.len()))
}

/// The word or number around a place.
fn token(input: &[u8], at: usize) -> (usize, usize) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+".contains(byte);
    let before = input[..at].iter().rev().take_while(|byte| is_part(byte)).count();
    let behind = input[at..].iter().take_while(|byte| is_part(byte)).count();
    (at - before, at + behind)
}

fn put(input: &mut Vec<u8>, at: usize, end: usize, bytes: &[u8]) {
    drop(input.splice(at..end, bytes.iter().copied()));
}
