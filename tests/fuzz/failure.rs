//! An input that a target did not stand, made small, and kept where it can be found.

use std::fmt;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;

use crate::targets::Target;

/// What failed, and with what.
pub struct Failure {
    target: &'static str,
    said: String,
    input: Vec<u8>,
    file: PathBuf,
}

/// Runs a target once.
pub fn watch(target: &Target, input: &[u8]) -> Result<(), Box<Failure>> {
    // What the panic prints is of use only once the input is small.
    panic::set_hook(Box::new(|_| {}));
    let result = run(target, input);
    let failure = result.map_err(|_| {
        let input = smallest(target, input.to_vec());
        let said = run(target, &input).err().unwrap_or_default();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{}-{}", target.name, &blake3::hash(&input).to_hex()[..12]));
        fs::write(&file, &input).unwrap();
        Box::new(Failure { target: target.name, said, input, file })
    });
    drop(panic::take_hook());
    failure
}

fn run(target: &Target, input: &[u8]) -> Result<(), String> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic without words").to_owned()
    })
}

/// Takes away whatever it fails without.
fn smallest(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut length = input.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < input.len() {
            let to = (from + length).min(input.len());
            let less = [&input[..from], &input[to..]].concat();
            if run(target, &less).is_err() {
                input = less;
            } else {
                from = to;
            }
        }
        length /= 2;
    }
    input
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "fuzz {}: FAILED: {}", self.target, self.said)?;
        writeln!(f, "  input: \"{}\"", self.input.escape_ascii())?;
        write!(f, "  kept as {}: once it is mended, put it into tests/fuzz/corpus/{}", self.file.display(), self.target)
    }
}
