//! Ids that the upstream gave to more than one prompt: what a poll shows of such a job goes for all entries that give it
//! out, and a record knows only the first.

use foldhash::HashMap;

use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

/// The further fingerprints of each id.
#[derive(Debug, Default)]
pub(super) struct GivenTwice(HashMap<RequestId, Vec<Fingerprint>>);

impl GivenTwice {
    /// An id was given for this fingerprint too.
    pub(super) fn add(&mut self, id: &RequestId, fingerprint: Fingerprint) {
        let further = self.0.entry(id.clone()).or_default();
        if further.len() < MOST_FURTHER && !further.contains(&fingerprint) {
            further.push(fingerprint);
        }
    }

    /// The record of an id names this fingerprint, so it is no further one.
    pub(super) fn remove(&mut self, id: &RequestId, fingerprint: Fingerprint) {
        let Some(further) = self.0.get_mut(id) else { return };
        further.retain(|other| *other != fingerprint);
        if further.is_empty() {
            self.0.remove(id);
        }
    }

    /// The further fingerprints of an id.
    pub(super) fn of(&self, id: &RequestId) -> &[Fingerprint] {
        self.0.get(id).map_or(&[], Vec::as_slice)
    }

    /// Keeps the ids that still mean something.
    pub(super) fn retain(&mut self, keeps: impl Fn(&RequestId) -> bool) {
        self.0.retain(|id, _| keeps(id));
        if self.0.capacity() > 4 * (self.0.len() + 16) {
            self.0.shrink_to_fit();
        }
    }
}

/// An upstream that gives one id to everything fills no memory with it; what is not kept here ends with its window.
const MOST_FURTHER: usize = 64;
