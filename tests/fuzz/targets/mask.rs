//! The upstream key in an answer: none is left, the length stands, and frames do not matter.

use std::sync::LazyLock;

use bytes::Bytes;
use reelgate::upstream::key::UpstreamKey;
use reelgate::upstream::mask::KeyMask;

/// A key that repeats its own beginning.
const KEY: &str = "sk-sk-s4cr3t";
pub const WORDS: &[&str] = &[KEY, "sk-", "sk-sk-", "s4cr3t", "sk-sk-s4cr3", "k-sk-s4cr3t"];

static UPSTREAM_KEY: LazyLock<UpstreamKey> = LazyLock::new(|| UpstreamKey::parse(KEY).unwrap());

/// The first byte says how long frames are; the rest is the body.
pub fn run(input: &[u8]) {
    let Some((length, body)) = input.split_first() else { return };
    let pattern = UPSTREAM_KEY.pattern();
    let whole = pattern.mask(Bytes::copy_from_slice(body));
    let mut mask = KeyMask::default();
    let mut framed = Vec::new();
    for frame in body.chunks(usize::from(*length) + 1) {
        framed.extend_from_slice(&mask.frame(pattern, Bytes::copy_from_slice(frame)));
        assert!(mask.held() < KEY.len(), "more is held back than could be a key's beginning");
    }
    framed.extend_from_slice(&mask.end().unwrap_or_default());
    assert_eq!(framed, whole, "frames matter");
    assert_eq!(whole.len(), body.len());
    let text = String::from_utf8_lossy(&whole);
    assert!(!text.contains(KEY), "the key is there");
    for (before, after) in body.iter().zip(&whole) {
        assert!(before == after || *after == b'*', "something else was changed");
    }
}
