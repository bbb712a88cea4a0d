//! The upstream key as one worker has it. What all workers share they all write to where its holders are counted, and each
//! poll holds the key: the processors would take that cache line from each other several times for each poll.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};

use crate::upstream::client::{Keys, Upstream};
use crate::upstream::headers::Heads;
use crate::upstream::key::UpstreamKey;
use crate::upstream::mask::KeyPattern;

/// A key, with all that is made of it for polls.
pub struct PollKey {
    shared: Arc<UpstreamKey>,
    pattern: KeyPattern,
    heads: Heads,
}

impl PollKey {
    /// See [`UpstreamKey::id`].
    pub fn id(&self) -> &str {
        self.shared.id()
    }

    /// See [`UpstreamKey::shared_id`].
    pub fn shared_id(&self) -> Arc<str> {
        self.shared.shared_id()
    }

    /// What finds the key in answers.
    pub fn pattern(&self) -> &KeyPattern {
        &self.pattern
    }

    /// The heads of requests with it.
    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }
}

/// The keys that one worker has used.
pub(super) struct PollKeys(Mutex<Used>);

struct Used {
    /// Those of the upstream as they were a moment ago: it costs nothing to see that they still are.
    known: Cache<OfUpstream, Arc<Keys>>,
    keys: Vec<Arc<PollKey>>,
}

impl PollKeys {
    /// None used yet.
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self(Mutex::new(Used { known: Cache::new(OfUpstream(upstream)), keys: Vec::new() }))
    }

    /// The key of this id, as long as it is known, else the one that new requests carry.
    pub(super) fn get(&self, upstream: &Upstream, id: Option<&str>) -> Arc<PollKey> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Used { known, keys } = &mut *used;
        let shared = known.load().of(id);
        if let Some(key) = keys.iter().find(|key| Arc::ptr_eq(&key.shared, shared)) {
            return key.clone();
        }
        if keys.len() >= MOST_KEYS {
            keys.clear();
        }
        let (pattern, heads) = (shared.pattern().apart(), upstream.heads(shared));
        let new = Arc::new(PollKey { shared: shared.clone(), pattern, heads });
        keys.push(new.clone());
        new
    }
}

/// Where the keys of the upstream lie.
struct OfUpstream(Arc<Upstream>);

impl Deref for OfUpstream {
    type Target = ArcSwap<Keys>;

    fn deref(&self) -> &ArcSwap<Keys> {
        self.0.keys()
    }
}

/// As many as are known, where `upstream.retired_keys` is not set higher.
const MOST_KEYS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::scripted::Scripted;

    #[tokio::test]
    async fn f17_a_worker_has_the_keys_that_are_known_and_no_more_than_it_uses() {
        let upstream = Scripted::start(vec![]).await.upstream(|_| {});
        let keys = PollKeys::new(upstream.clone());
        let first = keys.get(&upstream, None);
        assert!(Arc::ptr_eq(&first, &keys.get(&upstream, Some("unknown"))));
        let old = first.id().to_owned();
        let key = |number: usize| UpstreamKey::parse(&format!("sk-another-key-of-the-same-length-{number}")).unwrap();
        upstream.replace_key(key(0), 1);
        let second = keys.get(&upstream, None);
        assert!(second.id() != old && second.pattern().is_in(b"x sk-another-key-of-the-same-length-0 x"));
        assert!(Arc::ptr_eq(&first, &keys.get(&upstream, Some(&old))), "its jobs are polled with it");
        assert!(upstream.forget_key(&old));
        assert!(Arc::ptr_eq(&second, &keys.get(&upstream, Some(&old))));
        for number in 1..3 * MOST_KEYS {
            upstream.replace_key(key(number), 0);
            assert_eq!(keys.get(&upstream, None).id(), key(number).id());
            assert!(keys.0.lock().unwrap().keys.len() <= MOST_KEYS);
        }
    }
}
