//! Names in their one written form: hosts, origins, environment variables.

use std::net::{IpAddr, Ipv6Addr};

use hyper::Uri;

/// A host name in lower case, an IPv4 address, or an IPv6 address in brackets (RFC 3986 §3.2.2).
pub(super) fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        (1..=63).contains(&label.len()) && letters && !label.starts_with('-') && !label.ends_with('-')
    };
    // A last label of digits makes a host an IPv4 address (WHATWG URL), so it must be a whole one.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && (!numeric || host.parse::<IpAddr>().is_ok())
}

/// An origin exactly as a browser sends it (RFC 6454 §6.2).
pub(crate) fn is_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let known = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let default = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let exact = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|number| number.to_string() == port && number != 0 && Some(number) != default)
    });
    known && is_host(host) && exact
}

/// The same, of a page that a web server gave out.
pub(super) fn is_web_origin(origin: &str) -> bool {
    (origin.starts_with("https://") || origin.starts_with("http://")) && is_origin(origin)
}

/// The upstream's origin, if it is nothing but one.
pub(super) fn upstream(url: &str) -> Option<Uri> {
    // `Uri` drops fragments without a word, and takes what stands before an @ as part of the authority.
    if url.contains(['#', '@', '?', '\\']) {
        return None;
    }
    let uri: Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| is_host(host))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let port = uri.authority()?.port_u16();
    let bare = match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    (bare == url && port != Some(0)).then_some(uri)
}

/// The name of an environment variable. A fingerprints' key would do for one, and is never meant for one.
pub(super) fn is_variable(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_key = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (1..=128).contains(&name.len()) && letters && !name.starts_with(|first: char| first.is_ascii_digit()) && !is_key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for host in ["localhost", "a.example", "xn--bcher-kva.example", "my_service", "127.0.0.1", "[::1]"] {
            assert!(is_host(host), "{host}");
        }
        for host in
            ["", "A.example", "a..b", "a.example.", "*.example", "a:80", "-a", "a b", "::1", "[::1", "1.2.3", "bücher"]
        {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn origins_are_exact() {
        for origin in ["https://a.example", "http://localhost:3000", "https://[::1]:8443", "tauri://localhost"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "*",
            "null",
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "HTTPS://a.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://a.example:0443",
            "https://a.example:99999",
            "https://*.example",
            "https://u@a.example",
            "https://a.example?x",
            "https://a.example:",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
        assert!(is_web_origin("https://a.example"));
        assert!(!is_web_origin("tauri://localhost"));
    }

    #[test]
    fn variables_have_names() {
        for name in ["COMETAPI_KEY", "_x", "a1"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["", "1a", "sk-123", "A B", "A=B", &"a1".repeat(32)] {
            assert!(!is_variable(name), "{name}");
        }
    }
}
