//! Whose word about a client's address is taken. A request that came through a proxy names, in `Forwarded` (RFC 7239) or
//! `X-Forwarded-For`, where it came from; but anybody can write such a field, so it is believed only as far as it was
//! written by an address in `server.trusted_proxies`, from the right to the left.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

use super::Peer;
use super::settings::Settings;

/// The proxies in front of us.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Those of the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self(settings.trusted_proxies.clone())
    }

    /// Whether this address is one of them.
    pub(super) fn include(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who really asks, if the peer is one of them: the last address of the way here that is none of theirs.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        if self.0.is_empty() || !self.include(peer.address.ip()) {
            return peer;
        }
        let by_standard = self.nearest(peer, headers, &FORWARDED, standard);
        let by_custom = self.nearest(peer, headers, &X_FORWARDED_FOR, custom);
        let address = match (by_standard, by_custom) {
            // A proxy writes one of the two and may let the other through as the client sent it.
            (Some(one), Some(other)) if one != other => return peer,
            (Some(address), _) | (None, Some(address)) => address,
            (None, None) => return peer,
        };
        Peer { address: SocketAddr::new(address, peer.address.port()) }
    }

    /// Follows one kind of field from the right: each address that is ours vouches for the one before it.
    fn nearest(&self, peer: Peer, headers: &HeaderMap, name: &HeaderName, read: Read) -> Option<IpAddr> {
        let mut lines: Vec<_> = headers.get_all(name).iter().collect();
        lines.reverse();
        let mut known = lines.first().map(|_| peer.address.ip())?;
        let mut left = MAX_HOPS;
        for line in lines {
            let Some(hops) = line.to_str().ok().and_then(read) else { return Some(known) };
            for hop in hops.into_iter().rev() {
                left -= 1;
                let Some(address) = hop.filter(|_| left > 0) else { return Some(known) };
                known = address;
                if !self.include(address) {
                    return Some(known);
                }
            }
        }
        Some(known)
    }
}

/// Reads a line into the addresses it names, in their order; `None` within it for a hop that hides its address, and
/// instead of it for a line that is malformed.
type Read = fn(&str) -> Option<Vec<Option<IpAddr>>>;

/// `X-Forwarded-For`: addresses with commas between them.
fn custom(line: &str) -> Option<Vec<Option<IpAddr>>> {
    Some(line.split(',').map(|hop| address(hop.trim())).collect())
}

/// `Forwarded` (RFC 7239 §4): elements with commas between them, of pairs with semicolons between them.
fn standard(line: &str) -> Option<Vec<Option<IpAddr>>> {
    split(line, ',')?.into_iter().filter(|element| !element.trim().is_empty()).map(hop).collect()
}

/// The address of an element's `for`.
fn hop(element: &str) -> Option<Option<IpAddr>> {
    let mut found = None;
    for pair in split(element, ';')?.into_iter().filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("for") {
            let value = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
            if found.replace(address(value)).is_some() {
                return None;
            }
        }
    }
    Some(found.flatten())
}

/// The parts of a text between separators that do not stand in quotes; nothing if a quote does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|letter: char| {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return letter == separator && !is_quoted,
        }
        false
    });
    let parts = parts.collect();
    (!is_quoted).then_some(parts)
}

/// An address with or without brackets and port.
fn address(node: &str) -> Option<IpAddr> {
    let bare = match node.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if node.matches(':').count() == 1 => node.split_once(':')?.0,
        None => node,
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// No way here is longer, and nobody should make us look further.
const MAX_HOPS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, fields: &[(&'static str, &str)]) -> String {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).to_vec();
        let proxies = Proxies::new(&Settings { trusted_proxies, ..Settings::default() });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        proxies.client(Peer { address: SocketAddr::new(peer.parse().unwrap(), 7) }, &headers).address.ip().to_string()
    }

    #[test]
    fn r70_whoever_is_not_trusted_names_nobody() {
        for fields in [&[("x-forwarded-for", "1.1.1.1")][..], &[("forwarded", "for=1.1.1.1")]] {
            assert_eq!(client("192.0.2.1", fields), "192.0.2.1");
        }
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn r70_the_last_address_that_is_not_ours_is_the_client() {
        for (value, want) in [
            ("1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("6.6.6.6,1.1.1.1:4711 , 10.1.2.3", "1.1.1.1"),
            ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:4711, fd00::1", "2001:db8::1"),
            ("::ffff:1.1.1.1", "1.1.1.1"),
            ("1.1.1.1, unknown, 10.1.2.3", "10.1.2.3"),
            ("1.1.1.1, ", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", value)]), want, "{value}");
        }
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "10.1.2.3")];
        assert_eq!(client("::ffff:10.0.0.1", &lines), "1.1.1.1");
    }

    #[test]
    fn r70_forwarded_is_read_as_rfc_7239_has_it() {
        for (value, want) in [
            ("for=1.1.1.1", "1.1.1.1"),
            ("For=\"1.1.1.1:80\";proto=https;by=10.0.0.1", "1.1.1.1"),
            ("for=6.6.6.6, for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=1.1.1.1;host=\"a,b;c\", for=10.1.2.3", "1.1.1.1"),
            ("for=1.1.1.1;ext=\"\\\"\", for=10.1.2.3", "1.1.1.1"),
            ("for=1.1.1.1, for=_hidden, for=10.1.2.3", "10.1.2.3"),
            ("for=1.1.1.1, for=unknown", "10.0.0.1"),
            ("for=1.1.1.1, proto=https", "10.0.0.1"),
            // What the client began, the proxy's own element must not end up inside of.
            ("for=\"6.6.6.6, for=1.1.1.1", "10.0.0.1"),
            ("for=6.6.6.6;for=1.1.1.1", "10.0.0.1"),
            ("nonsense", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", value)]), want, "{value}");
        }
    }

    #[test]
    fn r70_of_two_kinds_of_field_that_differ_neither_is_believed() {
        let both = |standard, custom| client("10.0.0.1", &[("forwarded", standard), ("x-forwarded-for", custom)]);
        assert_eq!(both("for=1.1.1.1", "6.6.6.6, 1.1.1.1"), "1.1.1.1");
        assert_eq!(both("for=6.6.6.6", "1.1.1.1"), "10.0.0.1");
    }

    #[test]
    fn r70_a_long_way_is_not_followed_to_its_end() {
        let way = vec!["10.1.1.1"; 5000].join(",");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &format!("6.6.6.6,{way}"))]), "10.1.1.1");
    }
}
