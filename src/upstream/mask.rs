//! The upstream key in an answer (`MONEY.md` M32): found across frames in the first 64 KiB and masked by as many `*`,
//! so that length and framing stand. Nothing is copied as long as nothing is found.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

/// What finds the key. Cheap to clone.
#[derive(Clone)]
pub struct KeyPattern(Option<Arc<Finder<'static>>>);

impl KeyPattern {
    /// The pattern of a key. One too short to be told from ordinary words is not searched.
    pub(super) fn new(key: &str) -> Self {
        Self((key.len() >= SHORTEST).then(|| Arc::new(Finder::new(key).into_owned())))
    }

    /// The same, with nothing that it shares with its clones.
    pub(super) fn apart(&self) -> Self {
        Self(self.0.as_deref().map(|finder| Arc::new(finder.clone())))
    }

    /// Whether the key stands in these bytes.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|finder| finder.needle().len() <= bytes.len() && finder.find(bytes).is_some())
    }

    /// A whole body with its key masked.
    pub fn mask(&self, body: Bytes) -> Bytes {
        let mut mask = KeyMask::default();
        let first = mask.frame(self, body);
        match mask.end() {
            None => first,
            Some(rest) => [first, rest].concat().into(),
        }
    }
}

impl fmt::Debug for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPattern")
    }
}

/// Masks the key in one answer, frame by frame.
#[derive(Debug, Default)]
pub struct KeyMask {
    /// How much has passed, without what is held.
    passed: usize,
    /// The end of what came, if a key could begin there.
    held: Bytes,
}

impl KeyMask {
    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The next frame: what of it, and of what was held back, may pass now. Only an end that is a proper prefix of the
    /// key is held. The key is the same for all frames of an answer.
    pub fn frame(&mut self, key: &KeyPattern, frame: Bytes) -> Bytes {
        let Some(finder) = &key.0 else { return frame };
        let mut bytes = if self.held.is_empty() {
            frame
        } else {
            let held = std::mem::take(&mut self.held);
            [held, frame].concat().into()
        };
        // A key that begins within the searched bytes may end behind them.
        let reach = SEARCHED + finder.needle().len() - 1;
        let searchable = reach.saturating_sub(self.passed);
        let window = bytes.get(..searchable).unwrap_or(&bytes);
        // Nearly always there is none.
        let found: Vec<usize> = match finder.find(window) {
            Some(_) => finder.find_iter(window).collect(),
            None => Vec::new(),
        };
        let searched_to = found.last().map_or(0, |at| at + finder.needle().len());
        if !found.is_empty() {
            bytes = cover(&bytes, &found, finder.needle().len());
        }
        if bytes.len() < searchable {
            let tail = bytes.get(searched_to..).unwrap_or_default();
            let keep = bytes.len() - prefix_at_end(tail, finder.needle());
            if keep < bytes.len() {
                self.held = bytes.split_off(keep);
            }
        }
        self.passed += bytes.len();
        bytes
    }

    /// What was held back, when no frame follows.
    pub fn end(&mut self) -> Option<Bytes> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then_some(held)
    }
}

/// A copy with stars in place of the keys at `found`.
fn cover(bytes: &[u8], found: &[usize], length: usize) -> Bytes {
    let mut covered = BytesMut::from(bytes);
    for at in found {
        if let Some(key) = covered.get_mut(*at..*at + length) {
            key.fill(b'*');
        }
    }
    covered.freeze()
}

/// The length of the longest end of `bytes` that is a proper prefix of `key`.
fn prefix_at_end(bytes: &[u8], key: &[u8]) -> usize {
    let (Some(first), Some(longest)) = (key.first(), key.len().checked_sub(1)) else { return 0 };
    let end = bytes.get(bytes.len().saturating_sub(longest)..).unwrap_or_default();
    let begins = memchr::memchr_iter(*first, end);
    begins.map(|at| end.get(at..).unwrap_or_default()).find(|tail| key.starts_with(tail)).map_or(0, <[u8]>::len)
}

/// How much of an answer is searched for the beginning of the key.
const SEARCHED: usize = 64 * 1024;
/// A shorter key would be found in words that are none.
const SHORTEST: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-sk-s4cr3t";

    fn masked(frames: &[&[u8]]) -> Vec<u8> {
        let (key, mut mask) = (KeyPattern::new(KEY), KeyMask::default());
        let mut out = Vec::new();
        for frame in frames {
            out.extend_from_slice(&mask.frame(&key, Bytes::copy_from_slice(frame)));
        }
        out.extend_from_slice(&mask.end().unwrap_or_default());
        out
    }

    #[test]
    fn t02_the_key_becomes_as_many_stars() {
        for (body, want) in [
            ("", ""),
            ("nothing", "nothing"),
            ("sk-sk-s4cr3t", "************"),
            ("Incorrect API key: sk-sk-s4cr3t.", "Incorrect API key: ************."),
            ("sk-sk-sk-s4cr3t sk-sk-s4cr3tsk-sk-s4cr3t", "sk-************ ************************"),
            ("sk-sk-s4cr3", "sk-sk-s4cr3"),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(KeyPattern::new(KEY).mask(body.clone()), want, "{body:?}");
        }
    }

    #[test]
    fn t02_a_frame_without_the_key_passes_uncopied_and_only_its_beginning_is_held() {
        let (key, mut mask) = (KeyPattern::new(KEY), KeyMask::default());
        let frame = Bytes::from(r#"{"status":"pending"}"#.to_owned());
        assert_eq!(mask.frame(&key, frame.clone()).as_ptr(), frame.as_ptr());
        assert_eq!(mask.frame(&key, Bytes::from_static(b"ask-sk-")), "a");
        assert_eq!(mask.held(), 6);
        assert_eq!(mask.frame(&key, Bytes::from_static(b"sk-s")), "sk-", "the longest end that may still become a key");
        assert_eq!(mask.frame(&key, Bytes::from_static(b"4cr3t!")), "************!");
        assert_eq!(mask.end(), None);
    }

    #[test]
    fn t02_a_key_that_begins_within_the_first_64_kib_is_masked_whole_and_one_behind_is_not_searched() {
        for (before, covered) in [(SEARCHED - 1, true), (SEARCHED, false)] {
            let mut body = vec![b'.'; before];
            body.extend_from_slice(KEY.as_bytes());
            body.extend_from_slice(b"...");
            for cut in [0, 1, before, before + 1, before + KEY.len() - 1, before + KEY.len(), body.len()] {
                let out = masked(&[&body[..cut], &body[cut..]]);
                assert_eq!(out.len(), body.len());
                assert_eq!(KeyPattern::new(KEY).is_in(&out), !covered, "{before} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_key_that_any_word_may_hold_is_not_searched() {
        assert_eq!(KeyPattern::new("test").mask(Bytes::from_static(b"the latest")), "the latest");
    }

    proptest! {
        /// Any split into frames gives the same bytes as the whole, no key is left, and the length stands.
        #[test]
        fn t02_frames_do_not_matter(
            parts in prop::collection::vec(prop::sample::select(vec!["sk-", "s4cr3t", KEY, "s", "x", "sk-sk-s4"]), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let body = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let frames: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            let whole = KeyPattern::new(KEY).mask(Bytes::from(body.clone()));
            prop_assert_eq!(&masked(&frames)[..], &whole[..]);
            prop_assert_eq!(whole.len(), body.len());
            prop_assert!(!KeyPattern::new(KEY).is_in(&whole));
        }
    }
}
