//! The inputs that a target begins with: those written by hand, and those that once failed or showed a new way.

use std::fs;
use std::path::Path;

/// The inputs of one target, in the order of their files' names, so that a seed means the same everywhere.
pub struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// Reads `tests/fuzz/corpus/NAME`.
    pub fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        Self(files.iter().map(|file| fs::read(file).unwrap()).collect())
    }

    /// All of them.
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.0
    }
}
