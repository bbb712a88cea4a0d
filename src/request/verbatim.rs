//! Names of bytes as they came, for what is remembered within one process: equal only for equal bytes.

use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Names bytes by SipHash-1-3 under a key that nobody learns: 128 bits that nobody can make two bodies share, for a
/// quarter of what the fingerprint's own hash costs. Every hit asks for one.
#[derive(Clone, Debug)]
pub struct Verbatim(SipHasher13);

/// The name of some bytes. It is a keyed hash: to hash it again only picks bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub [u64; 2]);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self([word, _]) = self;
        state.write_u64(*word);
    }
}

impl Default for Verbatim {
    /// Under a new key.
    fn default() -> Self {
        let random = RandomState::new();
        Self(SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)))
    }
}

impl Verbatim {
    /// Under a key that outlives the process.
    pub fn keyed(key: [u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(&key))
    }

    /// The name of these parts. Each goes in behind its length, so that no two lists of parts are the same bytes.
    pub fn name(&self, parts: &[&[u8]]) -> Name {
        let mut hasher = self.0;
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        let hash = hasher.finish128();
        Name([hash.h1, hash.h2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_parts_have_equal_names_and_another_process_has_others() {
        let names = Verbatim::default();
        let name = names.name(&[b"ab", b"c"]);
        assert_eq!(names.name(&[b"ab", b"c"]), name);
        for other in [&[b"a".as_slice(), b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[b"c", b"ab"]] {
            assert_ne!(names.name(other), name, "{other:?}");
        }
        assert_ne!(name.0[0], name.0[1], "128 bits, not 64 twice");
        assert_ne!(Verbatim::default().name(&[b"ab", b"c"]), name);
    }
}
