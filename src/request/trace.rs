//! The trace that a request belongs to (W3C Trace Context). What a client sent is taken only if it is well-formed;
//! upstream goes the same trace with a parent of our own, or a new trace.

use std::hash::{BuildHasher as _, RandomState};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::head::Header;

/// A place in a trace: what the request to the upstream will carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 small hex digits, not all zero.
    id: [u8; 32],
    /// Whether the caller records it, and whether its id is random. Other flags are not defined and not passed.
    flags: u8,
    state: Option<HeaderValue>,
}

impl Trace {
    /// The trace of a request that carries one: the client's, or a new one in place of what cannot be read. Where none is
    /// carried, nobody traces.
    pub fn carried(header: &Header<'_>, request_id: &str) -> Option<Self> {
        header.has(&TRACEPARENT).then(|| Self::of(header).unwrap_or_else(|| Self::begin(request_id)))
    }

    /// The client's trace. `None` if it named none, or not exactly one that can be read.
    pub fn of(header: &Header<'_>) -> Option<Self> {
        let mut sent = header.lines(&TRACEPARENT);
        let (Some(parent), None) = (sent.next(), sent.next()) else { return None };
        let (id, flags) = parse(parent.as_bytes())?;
        Some(Self { id, flags, state: state(header) })
    }

    /// A new trace, for a request with this id: by the same digits if they can name a trace, so that one leads to the
    /// other. Nobody records it yet.
    pub fn begin(request_id: &str) -> Self {
        let id = request_id.as_bytes().try_into().ok().filter(|id: &[u8; 32]| is_id(id));
        Self { id: id.unwrap_or_else(random), flags: 0, state: None }
    }

    /// The id of the trace.
    pub fn id(&self) -> &str {
        // Only hex digits are ever taken or made.
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Writes `traceparent`, by a new parent id, and `tracestate`.
    pub fn write(&self, headers: &mut HeaderMap) {
        let [parent, rest @ ..] = random::<32>().map(char::from);
        let mut text = String::with_capacity(LENGTH);
        text.push_str("00-");
        text.push_str(self.id());
        text.push('-');
        // A parent of zeroes would be none.
        text.push(if parent == '0' { '1' } else { parent });
        text.extend(rest.iter().take(15));
        text.push_str(["-00", "-01", "-02", "-03"].get(usize::from(self.flags)).unwrap_or(&"-00"));
        headers.extend(HeaderValue::try_from(text).ok().map(|value| (TRACEPARENT, value)));
        headers.extend(self.state.clone().map(|state| (TRACESTATE, state)));
    }
}

/// Trace id and flags of a `traceparent`. Of versions to come the part that is known is read.
fn parse(text: &[u8]) -> Option<([u8; 32], u8)> {
    let (known, more) = text.split_at_checked(LENGTH)?;
    let [v0, v1, b'-', rest @ ..] = known else { return None };
    let (id, rest) = rest.split_first_chunk::<32>()?;
    let (parent, flags) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
    let [b'-', f0, f1] = flags else { return None };
    let version = [*v0, *v1];
    let is_version = version.iter().all(is_hex) && version != *b"ff";
    let is_end = more.is_empty() || (version != *b"00" && more.starts_with(b"-"));
    let is_whole = is_version && is_end && is_id(id) && is_id(parent) && is_hex(f0) && is_hex(f1);
    // The last digit of two holds the flags that are defined.
    let low = char::from(*f1).to_digit(16).and_then(|digit| u8::try_from(digit & 3).ok())?;
    is_whole.then_some((*id, low))
}

fn is_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_id(digits: &[u8]) -> bool {
    digits.iter().all(is_hex) && digits.iter().any(|digit| *digit != b'0')
}

/// The `tracestate` of all its lines, members in their order. `None` if there is none, or if a member breaks the rules:
/// then nobody can tell where the others begin.
fn state(header: &Header<'_>) -> Option<HeaderValue> {
    let mut members: Vec<&str> = Vec::new();
    let mut length = 0;
    for line in header.lines(&TRACESTATE) {
        for member in line.to_str().ok()?.split(',').map(|member| member.trim_matches([' ', '\t'])) {
            if member.is_empty() {
                continue;
            }
            let key = key_of(member)?;
            let is_new = members.iter().all(|other| key_of(other) != Some(key));
            length += member.len() + 1;
            if !is_new || members.len() == MAX_MEMBERS || length > MAX_STATE {
                return None;
            }
            members.push(member);
        }
    }
    (!members.is_empty()).then(|| HeaderValue::try_from(members.join(",")).ok())?
}

/// The key of a member, if both key and value keep to the rules.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_part = |part: &str, longest: usize| {
        (1..=longest).contains(&part.len())
            && part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
    };
    let is_key = match key.split_once('@') {
        Some((tenant, system)) => is_part(tenant, 241) && is_part(system, 14),
        None => is_part(key, 256),
    };
    let is_value =
        (1..=256).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=');
    (is_key && is_value).then_some(key)
}

/// Random hex digits, under keys that the process draws; not for secrets.
fn random<const N: usize>() -> [u8; N] {
    let keys = [RandomState::new(), RandomState::new()];
    let mut digits = [b'0'; N];
    let bytes = keys.iter().flat_map(|key| key.hash_one(0_u8).to_be_bytes());
    for (digit, nibble) in digits.iter_mut().zip(bytes.flat_map(|byte| [byte >> 4, byte & 0x0f])) {
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` trace id `-` parent id `-` flags.
const LENGTH: usize = 55;
/// Members of a `tracestate`.
const MAX_MEMBERS: usize = 32;
/// The longest `tracestate` that is passed; 512 characters must be.
const MAX_STATE: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12345678901234567890123456789012";

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    /// What the upstream gets of a `traceparent` and these lines of `tracestate`.
    fn passed(states: &[&str]) -> Option<String> {
        let parent = format!("00-{ID}-1234567890123456-00");
        let fields: Vec<_> = states.iter().map(|state| ("tracestate", *state)).collect();
        let mut headers = HeaderMap::new();
        Trace::of(&Header::of(&map(&[&[("traceparent", parent.as_str())], &fields[..]].concat())))
            .unwrap()
            .write(&mut headers);
        headers.get("tracestate").map(|state| state.to_str().unwrap().to_owned())
    }

    #[test]
    fn r71_a_trace_is_read_strictly_and_later_versions_by_their_known_part() {
        for (value, flags) in [
            ("00-12345678901234567890123456789012-1234567890123456-01", Some(1)),
            ("00-12345678901234567890123456789012-1234567890123456-00", Some(0)),
            ("00-12345678901234567890123456789012-1234567890123456-ff", Some(3)),
            ("cc-12345678901234567890123456789012-1234567890123456-01", Some(1)),
            ("cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like", Some(1)),
            ("cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like", None),
            ("00-12345678901234567890123456789012-1234567890123456-01.", None),
            ("00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like", None),
            ("ff-12345678901234567890123456789012-1234567890123456-01", None),
            (".0-12345678901234567890123456789012-1234567890123456-01", None),
            ("0.-12345678901234567890123456789012-1234567890123456-01", None),
            ("0-12345678901234567890123456789012-1234567890123456-01", None),
            ("000-12345678901234567890123456789012-1234567890123456-01", None),
            ("00-00000000000000000000000000000000-1234567890123456-01", None),
            ("00-.2345678901234567890123456789012-1234567890123456-01", None),
            ("00-1234567890123456789012345678901A-1234567890123456-01", None),
            ("00-123456789012345678901234567890123-1234567890123456-01", None),
            ("00-1234567890123456789012345678901-1234567890123456-01", None),
            ("00-12345678901234567890123456789012-0000000000000000-01", None),
            ("00-12345678901234567890123456789012-.234567890123456-01", None),
            ("00-12345678901234567890123456789012-12345678901234567-01", None),
            ("00-12345678901234567890123456789012-123456789012345-01", None),
            ("00-12345678901234567890123456789012-1234567890123456-.0", None),
            ("00-12345678901234567890123456789012-1234567890123456-0.", None),
            ("00-12345678901234567890123456789012-1234567890123456-001", None),
            ("00-12345678901234567890123456789012-1234567890123456-1", None),
            ("00_12345678901234567890123456789012_1234567890123456_01", None),
            ("", None),
        ] {
            let trace = Trace::of(&Header::of(&map(&[("traceparent", value)])));
            assert_eq!(trace.map(|trace| trace.flags), flags, "{value}");
        }
        let one = ("traceparent", "00-12345678901234567890123456789012-1234567890123456-01");
        assert!(Trace::of(&Header::of(&map(&[one, one]))).is_none() && Trace::of(&Header::of(&map(&[]))).is_none());
    }

    #[test]
    fn r71_the_state_is_kept_whole_and_in_order_or_dropped() {
        let numbered = |count: usize| (1..=count).map(|n| format!("bar{n:02}={n:02}")).collect::<Vec<_>>().join(",");
        let tenant = |tenant: usize, system: usize| format!("{}@{}=1", "t".repeat(tenant), "v".repeat(system));
        for (states, want) in [
            (vec!["foo=1,bar=2"], Some("foo=1,bar=2")),
            (vec!["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], Some("foo=1,bar=2,rojo=1,congo=2,baz=3")),
            (vec![""], None),
            (vec!["foo=1", ""], Some("foo=1")),
            (vec!["", "foo=1"], Some("foo=1")),
            (vec!["foo=1 \t , \t bar=2, \t baz=3"], Some("foo=1,bar=2,baz=3")),
            (
                vec!["a/b*c_d-e0@a-z0=!\"#$%&'()*+-./:;<>?@[]^_`{|}~ x"],
                Some("a/b*c_d-e0@a-z0=!\"#$%&'()*+-./:;<>?@[]^_`{|}~ x"),
            ),
            (vec!["foo=1,foo=1"], None),
            (vec!["foo=1", "foo=2"], None),
            (vec!["foo =1"], None),
            (vec!["FOO=1"], None),
            (vec!["foo.bar=1"], None),
            (vec!["foo@=1,bar=2"], None),
            (vec!["@foo=1,bar=2"], None),
            (vec!["foo@@bar=1,bar=2"], None),
            (vec!["foo@bar@baz=1,bar=2"], None),
            (vec!["foo=bar=baz"], None),
            (vec!["foo=,bar=3"], None),
            (vec!["foo"], None),
        ] {
            assert_eq!(passed(&states).as_deref(), want, "{states:?}");
        }
        for (state, is_passed) in [
            (numbered(32), true),
            (numbered(33), false),
            (format!("{}=1", "z".repeat(256)), true),
            (format!("{}=1", "z".repeat(257)), false),
            (tenant(241, 14), true),
            (tenant(242, 1), false),
            (tenant(1, 15), false),
            (format!("a={}", "v".repeat(257)), false),
            ((0..9).map(|n| format!("a{n}={}", "v".repeat(250))).collect::<Vec<_>>().join(","), false),
        ] {
            assert_eq!(passed(&[&state]).as_deref(), is_passed.then_some(state.as_str()), "{state}");
        }
    }

    #[test]
    fn r71_a_new_trace_has_the_requests_id_where_it_can_and_every_parent_is_new() {
        assert_eq!(Trace::begin(ID).id(), ID);
        for odd in ["", "mine", &"0".repeat(32), &ID.replace('1', "A"), &ID.repeat(2)] {
            let trace = Trace::begin(odd);
            assert!(trace.id() != odd && is_id(&trace.id) && trace.id != Trace::begin(odd).id, "{odd}");
        }
        let trace = Trace::begin(ID);
        let write = || {
            let mut headers = HeaderMap::new();
            trace.write(&mut headers);
            headers["traceparent"].to_str().unwrap().to_owned()
        };
        let (one, other) = (write(), write());
        assert!(one != other && one.starts_with(&format!("00-{ID}-")) && one.ends_with("-00"), "{one} {other}");
        assert!(parse(one.as_bytes()).is_some(), "{one}");
    }
}
