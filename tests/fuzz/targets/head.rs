//! The head of a request, as far as hyper lets it through: whom it is meant for, from which page, to which of our few
//! paths, with which wishes; and the head of an answer, as it is cleaned.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use hyper::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, Uri, Version};
use reelgate::request::head::{Head, Header};
use reelgate::request::route::Route;
use reelgate::request::submission::{Wishes, check_media};
use reelgate::server::Peer;
use reelgate::server::cors::{Caller, Cors};
use reelgate::server::hosts::{Authority, Hosts};
use reelgate::server::proxies::Proxies;
use reelgate::server::settings::{self, Settings};
use reelgate::upstream::headers::{Passed, Via};
use reelgate::upstream::key::UpstreamKey;
use reelgate::upstream::wire::cleaned;

pub const WORDS: &[&str] = &[
    "POST /grok/v1/videos/generations HTTP/1.1\n",
    "GET /grok/v1/videos/abc HTTP/1.1\n",
    "OPTIONS * HTTP/1.1\n",
    "CONNECT a:443 HTTP/1.1\n",
    "HTTP/2",
    "http://a/",
    "host: videos.example\n",
    "origin: https://app.example\n",
    "origin: http://videos.example\n",
    "origin: null\n",
    "sec-fetch-site: cross-site\n",
    "via: 1.1 reelgate-0a1b2c3d\n",
    "idempotency-key: \"k\"\n",
    "reelgate-variation: 2\n",
    "cache-control: no-cache\n",
    "connection: content-type, x-a\n",
    "transfer-encoding: chunked\n",
    "content-type: application/json; charset=utf-8\n",
    "access-control-request-method: POST\n",
    "access-control-request-headers: authorization\n",
    "set-cookie: a=b\n",
    "x-request-id: sk-sk-s4cr3t\n",
    "[::1]:80",
    "forwarded: for=\"[2001:db8::1]:80\";proto=https\n",
    "x-forwarded-for: 192.0.2.1, 10.0.0.1\n",
    "for=192.0.2.1",
];

const APP: &str = "https://app.example";
static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
    allowed_hosts: vec!["videos.example".to_owned()],
    cors: settings::Cors { allowed_origins: vec![APP.to_owned()], public_origin: String::new() },
    ..Settings::default()
});
static VIA: LazyLock<Via> = LazyLock::new(|| Via::new("reelgate-0a1b2c3d").unwrap());
static KEY: LazyLock<UpstreamKey> = LazyLock::new(|| UpstreamKey::parse("sk-sk-s4cr3t").unwrap());

/// A request line and header lines; what hyper would not let through is left out.
pub fn run(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some(mut head) = lines.next().and_then(first) else { return };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            head.headers.append(name, value);
        }
    }
    request(&head);
    forwarded(&head.headers);
    answer(&head.headers);
}

fn first(line: &[u8]) -> Option<Parts> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let uri: Uri = words.next()?.parse().ok()?;
    let version = match words.next()? {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/2" => Version::HTTP_2,
        _ => return None,
    };
    let mut head = Request::new(()).into_parts().0;
    (head.method, head.uri, head.version) = (method, uri, version);
    Some(head)
}

fn request(head: &Parts) {
    let (named, open) = (Hosts::new(&SETTINGS), Hosts::new(&Settings::default()));
    let looked_at = Head::of(head);
    let authority = open.check(&looked_at);
    if let Ok(Some(ours)) = named.check(&looked_at) {
        assert!(named.are_ours(ours) && authority == Ok(Some(ours)));
    }
    if let Ok(authority) = authority {
        if let Some(authority) = authority {
            round(authority);
        }
        page(head, authority);
    }
    if let Ok(route) = Route::find(&head.method, head.uri.path(), head.uri.query()) {
        routed(head, &route);
    }
    if let Ok(wishes) = Wishes::read(&looked_at.header) {
        let texts = [(wishes.variation, 64), (wishes.idempotency_key, 255)];
        for (text, longest) in texts.into_iter().filter_map(|(text, longest)| Some((text?, longest))) {
            assert!((1..=longest).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
    _ = check_media(&looked_at.header);
    _ = (VIA.is_in(&looked_at.header), Passed::of(&looked_at.header, head.version, &VIA));
}

/// An authority says the same when it is written down.
fn round(authority: Authority<'_>) {
    let text = authority.port.map_or(authority.host.to_owned(), |port| format!("{}:{port}", authority.host));
    assert_eq!(Authority::parse(&text), Some(authority), "{text}");
    assert!(!authority.host.contains(['/', '@', '?', '#', ' ', '\\', '%']), "{text}");
}

/// Which pages may call: ours by name, the configured one, and no other.
fn page(head: &Parts, authority: Option<Authority<'_>>) {
    let cors = Cors::new(&SETTINGS);
    let Ok(caller) = cors.check(&head.method, &Header::of(&head.headers), authority) else { return };
    if let Some(origin) = head.headers.get(ORIGIN) {
        let origin = origin.to_str().expect("an origin of other than ASCII");
        let is_own = authority.is_some_and(|authority| {
            let bare = origin.strip_prefix("http://").and_then(Authority::parse);
            let is_named = Hosts::new(&SETTINGS).are_ours(authority);
            is_named && bare.is_some_and(|bare| bare.host.eq_ignore_ascii_case(authority.host))
        });
        assert!(origin == APP || is_own, "{origin} may call");
    }
    if let Ok(options) = caller.options(&head.headers, "POST, OPTIONS") {
        granted(options.headers());
    }
    let mut headers = HeaderMap::new();
    caller.grant(&mut headers);
    granted(&headers);
    Caller::default().grant(&mut headers);
}

fn granted(headers: &HeaderMap) {
    assert!(!headers.contains_key("access-control-allow-credentials"));
    assert!(headers.get("access-control-allow-origin").is_none_or(|origin| origin != "*" && origin != "null"));
    let names = headers.get("access-control-allow-headers").map_or("", |names| names.to_str().unwrap());
    assert!(names.split(',').all(|name| name.trim() != "*"), "every header is granted: {names}");
}

/// Nothing of a path that goes upstream was chosen freely.
fn routed(head: &Parts, route: &Route) {
    match route {
        Route::Submit(operation) => {
            assert_eq!((operation.path(), &head.method), (head.uri.path(), &Method::POST));
        }
        Route::Poll { id, .. } => {
            assert_eq!(id.path().concat(), head.uri.path());
            let rest = id.path().concat().replace("/grok/v1/videos/", "");
            assert!(rest == id.as_str() && !rest.contains(['/', '.', '%', '?']), "{rest}");
        }
        Route::ClientTokens | Route::Preflight { .. } | Route::OpenApi { .. } => {}
    }
    assert_eq!(head.uri.query(), None);
}

/// Whatever a client writes before it, the word of our own proxy is the one that counts, or nobody's is.
fn forwarded(fields: &HeaderMap) {
    let settings = Settings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Settings::default() };
    let proxies = Proxies::new(&settings);
    let (proxy, stranger) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 9]));
    let client = |peer: IpAddr, headers: &HeaderMap| {
        proxies.client(Peer { address: SocketAddr::new(peer, 7) }, headers).address.ip()
    };
    assert_eq!(client(stranger, fields), stranger, "a stranger is believed");
    for (name, real) in [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7")] {
        for written in fields.values().filter_map(|value| value.to_str().ok()) {
            let (mut one_line, mut two_lines) = (HeaderMap::new(), HeaderMap::new());
            one_line.insert(name, format!("{written}, {real}").parse().unwrap());
            two_lines.append(name, written.parse().unwrap());
            two_lines.append(name, real.parse().unwrap());
            for headers in [one_line, two_lines] {
                let found = client(proxy, &headers);
                assert!(found == IpAddr::from([192, 0, 2, 7]) || found == proxy, "{found} by {headers:?}");
            }
        }
    }
}

/// The same fields as if the upstream had sent them.
fn answer(fields: &HeaderMap) {
    let Some(told) = cleaned(&head(fields), KEY.pattern()) else { return };
    for (name, value) in &told {
        let name = name.as_str();
        let of_proxies = ["connection", "authenticate", "authorization", "authentication-info"];
        let is_ours = name.starts_with("access-control-")
            || name.strip_prefix("proxy-").is_some_and(|name| of_proxies.contains(&name));
        let is_hop = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"].contains(&name);
        assert!(!is_ours && !is_hop && name != "set-cookie", "{name} passes");
        assert!(!KEY.pattern().is_in(value.as_bytes()), "the key passes in {name}");
    }
    // What frames the body stands once.
    assert_eq!(cleaned(&head(&told), KEY.pattern()), Some(told), "cleaned, and cleaned again");
}

/// An answer's head with these fields.
fn head(fields: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in fields {
        head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}
