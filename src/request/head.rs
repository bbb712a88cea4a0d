//! The head of a request, as its stages ask it for fields. Most fields that are asked for are absent, so one pass over
//! the header notes which names it can have at all; what a bound is set on is noted by the same pass.

use std::ops::Deref;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;

/// Method, target, version and header of a request.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    parts: &'a Parts,
    /// The header.
    pub header: Header<'a>,
}

impl<'a> Head<'a> {
    /// Looks at the header once.
    pub fn of(parts: &'a Parts) -> Self {
        Self { parts, header: Header::of(&parts.headers) }
    }

    /// The same, for as long as its request lasts.
    pub const fn parts(&self) -> &'a Parts {
        self.parts
    }
}

impl Deref for Head<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}

/// The header of a request: its field lines, by name (RFC 9110 §5.2).
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    map: &'a HeaderMap,
    /// A bit for each name there is; several names may have the same.
    names: u64,
    /// The longest field line, in bytes of its name and its value.
    longest: usize,
}

impl<'a> Header<'a> {
    /// Looks at each field line once.
    pub fn of(map: &'a HeaderMap) -> Self {
        let (mut names, mut longest) = (0, 0);
        for (name, value) in map {
            let name = name.as_str();
            names |= bit(name);
            longest = longest.max(name.len() + value.len());
        }
        Self { map, names, longest }
    }

    /// The values of all lines of this name, in their order.
    pub fn lines(&self, name: &HeaderName) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
        self.may_have(name).then(|| self.map.get_all(name)).into_iter().flatten()
    }

    /// Whether it has a line of this name.
    pub fn has(&self, name: &HeaderName) -> bool {
        self.may_have(name) && self.map.contains_key(name)
    }

    /// How many lines it has.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The longest line's bytes, those of its name and those of its value.
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// Whether a value begins or ends with white space.
    pub fn is_padded(&self) -> bool {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let mut values = self.map.values().map(HeaderValue::as_bytes);
        values.any(|value| is_space(value.first()) || is_space(value.last()))
    }

    fn may_have(&self, name: &HeaderName) -> bool {
        self.names & bit(name.as_str()) != 0
    }
}

/// One of 64 bits, by what tells names of requests apart and costs nothing: their length and their first letter.
fn bit(name: &str) -> u64 {
    let first = name.bytes().next().map_or(0, usize::from);
    1 << ((name.len() + 3 * first) % 64)
}

#[cfg(test)]
mod tests {
    use hyper::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, PRAGMA, VIA};
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn lines_are_told_in_their_order_and_absent_ones_are_absent() {
        let map = map(&[("via", "1.1 a"), ("host", "b"), ("via", "1.1 c")]);
        let header = Header::of(&map);
        assert!(header.lines(&VIA).eq(["1.1 a", "1.1 c"]));
        assert!(header.has(&HOST) && !header.has(&ORIGIN) && header.lines(&ORIGIN).next().is_none());
        assert_eq!((header.len(), header.longest(), header.is_padded()), (3, 8, false));
        assert!(Header::of(&HeaderMap::new()).is_empty());
    }

    #[test]
    fn what_a_usual_request_lacks_costs_no_search() {
        let usual = ["host", "user-agent", "accept", "accept-encoding", "accept-language", "connection"];
        let with_body = ["authorization", "content-type", "content-length"];
        let lines: Vec<_> = usual.into_iter().chain(with_body).map(|name| (name, "x")).collect();
        let map = map(&lines);
        let header = Header::of(&map);
        let rare = ["idempotency-key", "reelgate-variation", "reelgate-dry-run", "traceparent", "x-request-id"];
        let rare = rare.into_iter().chain(["transfer-encoding", "content-encoding", "sec-fetch-site"]);
        for name in rare.map(HeaderName::from_static).chain([ORIGIN, PRAGMA, VIA, CACHE_CONTROL]) {
            assert!(!header.may_have(&name), "{name} is taken for another");
        }
        for name in [HOST, ACCEPT, AUTHORIZATION, CONTENT_TYPE] {
            assert!(header.has(&name));
        }
    }

    proptest! {
        // Whatever the names are, a line that is there is found, and one that is not is not.
        #[test]
        fn a_header_finds_what_its_map_has(names in prop::collection::vec("[a-z-]{1,20}", 0..12), asked in "[a-z-]{1,20}") {
            let lines: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
            let map = map(&lines);
            let header = Header::of(&map);
            for name in names.iter().chain([&asked]) {
                let name = HeaderName::try_from(name.as_str()).unwrap();
                prop_assert_eq!(header.has(&name), map.contains_key(&name));
                prop_assert!(header.lines(&name).eq(map.get_all(&name)));
            }
        }
    }
}
