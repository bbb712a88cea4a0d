use super::*;

const KEY: &str = "sk-Zx81kPq0LmN7vTrY2aBcD3eFgH4iJ5kL6mN7oP8q";

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

fn sent(client: &HeaderMap, version: Version) -> (HeaderMap, HeaderMap) {
    let via = Via::new("reelgate-0a1b2c3d").unwrap();
    let origin = Origin::parse("https://api.cometapi.com").unwrap();
    let key = UpstreamKey::parse(KEY).unwrap();
    let passed = Passed::of(&Header::of(client), version, &via);
    let head = PollHead::new(&origin, &key).of(&RequestId::parse("r-1").unwrap(), &passed);
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut fields);
    assert!(request.parse(&head).unwrap().is_complete());
    assert_eq!((request.method, request.path, request.version), (Some("GET"), Some("/grok/v1/videos/r-1"), Some(1)));
    let fields = request.headers.iter().map(|field| (field.name, str::from_utf8(field.value).unwrap()));
    (submit(&origin, &passed, &key), map(&fields.collect::<Vec<_>>()))
}

#[test]
fn r01_r02_r04_r78_only_the_allow_list_goes_upstream_and_our_fields_stand() {
    let client = map(&[
        ("connection", "Authorization, Content-Type, Host, Via, X-Foo"),
        ("authorization", "Bearer of-the-client"),
        ("cookie", "a=b"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "5"),
        ("host", "evil.example"),
        ("x-api-key", "k"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-foo", "1"),
        ("expect", "100-continue"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "x"),
        ("accept-encoding", "gzip"),
        ("accept", "application/json, */*"),
        ("openai-organization", "o"),
    ]);
    let (submit, poll) = sent(&client, Version::HTTP_11);
    let want = [
        "host: api.cometapi.com".to_owned(),
        concat!("user-agent: reelgate/", env!("CARGO_PKG_VERSION")).to_owned(),
        "accept: application/json, */*".to_owned(),
        "accept-encoding: identity".to_owned(),
        "via: 1.1 reelgate-0a1b2c3d".to_owned(),
        "content-type: application/json".to_owned(),
        format!("authorization: Bearer {KEY}"),
    ];
    assert_eq!(shown(&submit), want);
    let without_type: Vec<String> = want.iter().filter(|field| !field.starts_with("content-type")).cloned().collect();
    assert_eq!(shown(&poll), without_type);
    assert!(submit[AUTHORIZATION].is_sensitive());
}

#[test]
fn r78_what_is_accepted_goes_upstream_whole_or_not_at_all() {
    let long = "a/b, ".repeat(60);
    for (lines, want) in [
        (&[][..], "application/json"),
        (&["*/*"], "*/*"),
        (&["text/html;q=0.1", "application/json"], "text/html;q=0.1, application/json"),
        (&["a/b", "c/d, e/f", "*/*;q=0"], "a/b, c/d, e/f, */*;q=0"),
        (&["a/b", "\u{e9}"], "application/json"),
        (&[&long], "application/json"),
        (&["a/b", &long], "application/json"),
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("accept", *line)).collect();
        let (submit, poll) = sent(&map(&fields), Version::HTTP_11);
        assert!(submit[ACCEPT] == want && poll[ACCEPT] == want, "{lines:?}: {:?}", submit[ACCEPT]);
    }
}

#[test]
fn r06_via_names_the_client_s_version_and_follows_those_before() {
    for (before, version, want) in [
        (&[][..], Version::HTTP_10, "1.0 reelgate-0a1b2c3d"),
        (&[], Version::HTTP_11, "1.1 reelgate-0a1b2c3d"),
        (&[], Version::HTTP_2, "2 reelgate-0a1b2c3d"),
        (&["1.1 a, 1.0 b", "2 c"], Version::HTTP_11, "1.1 a, 1.0 b, 2 c, 1.1 reelgate-0a1b2c3d"),
        (&["1.1 \u{e9}"], Version::HTTP_11, "1.1 reelgate-0a1b2c3d"),
    ] {
        let fields: Vec<(&str, &str)> = before.iter().map(|value| ("via", *value)).collect();
        assert_eq!(sent(&map(&fields), version).0[VIA], want);
    }
    let long = "1.1 a, ".repeat(1000);
    assert_eq!(sent(&map(&[("via", &long)]), Version::HTTP_11).0[VIA], "1.1 reelgate-0a1b2c3d");
}

#[test]
fn r07_our_own_name_in_via_is_seen() {
    let via = Via::new("reelgate-0a1b2c3d").unwrap();
    for (value, seen) in [
        ("1.1 reelgate-0a1b2c3d", true),
        ("1.1 a,2  Reelgate-0A1B2C3D (comment)", true),
        ("1.1 reelgate-0a1b2c3e", false),
        ("1.1 xreelgate-0a1b2c3d", false),
        ("reelgate-0a1b2c3d", false),
        ("", false),
    ] {
        assert_eq!(via.is_in(&Header::of(&map(&[("via", value)]))), seen, "{value}");
    }
    assert!(via.is_in(&Header::of(&map(&[("via", "1.1 a"), ("via", "1.1 reelgate-0a1b2c3d")]))));
}

#[test]
fn r01_r03_r77_what_is_not_for_the_client_is_removed_and_the_rest_keeps_its_order() {
    let holds_key = format!("Bearer {KEY}");
    let mut headers = map(&[
        ("connection", "X-Up ,, close"),
        ("connection", "x-other, content-length"),
        ("x-up", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("strict-transport-security", "max-age=1"),
        ("alt-svc", "h3"),
        ("clear-site-data", "*"),
        ("public-key-pins", "x"),
        ("proxy-authorization", "Basic x"),
        ("proxy-authentication-info", "x"),
        ("nel", "{}"),
        ("report-to", "{}"),
        ("reporting-endpoints", "a=\"https://a.example/\""),
        ("service-worker-allowed", "/"),
        ("expect-ct", "max-age=1"),
        ("refresh", "0"),
        ("accept-ch", "ECT"),
        ("critical-ch", "ECT"),
        ("proxy-status", "cdn; next-hop=a"),
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "*"),
        ("server", "cloudflare"),
        ("www-authenticate", &holds_key),
        ("x-debug", "fine"),
        ("x-debug", &holds_key),
        ("content-type", "application/json"),
        ("content-length", "2"),
        ("x-request-id", "up-1"),
        ("retry-after", "7"),
        ("x-many", "1"),
        ("x-many", "2"),
    ]);
    answer(&mut headers, UpstreamKey::parse(KEY).unwrap().pattern());
    let mut left = shown(&headers);
    left.sort();
    assert_eq!(
        left,
        [
            "content-length: 2",
            "content-type: application/json",
            "proxy-status: cdn; next-hop=a",
            "reelgate-upstream-request-id: up-1",
            "retry-after: 7",
            "x-many: 1",
            "x-many: 2",
        ]
    );
    assert_eq!(headers.get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn h10_bytes_above_ascii_neither_stop_nor_leave_us() {
    let mut client = HeaderMap::new();
    client.insert(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
    client.insert(VIA, HeaderValue::from_bytes(b"\xff").unwrap());
    let (submit, _) = sent(&client, Version::HTTP_11);
    assert_eq!((&submit[ACCEPT], &submit[VIA]), (&JSON, &HeaderValue::from_static("1.1 reelgate-0a1b2c3d")));
    let mut upstream = HeaderMap::new();
    upstream.insert(CONNECTION, HeaderValue::from_bytes(b"\xff, x-up").unwrap());
    upstream.insert("x-up", HeaderValue::from_bytes(b"\xff").unwrap());
    answer(&mut upstream, UpstreamKey::parse(KEY).unwrap().pattern());
    assert!(upstream.is_empty());
}

#[test]
fn r39_two_lengths_or_a_length_beside_a_coding_are_ambiguous() {
    assert!(is_ambiguous(&map(&[("content-length", "2"), ("content-length", "2")])));
    assert!(is_ambiguous(&map(&[("content-length", "2"), ("transfer-encoding", "chunked")])));
    for codings in
        [&["gzip, chunked"][..], &["gzip"], &["identity"], &[""], &["chunked", "chunked"], &["gzip", "chunked"]]
    {
        let lines: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
        assert!(is_ambiguous(&map(&lines)), "{codings:?}");
    }
    assert!(!is_ambiguous(&map(&[("transfer-encoding", "Chunked ")])));
    assert!(!is_ambiguous(&map(&[("content-length", "2")])));
    assert!(!is_ambiguous(&map(&[("transfer-encoding", "chunked")])));
    assert!(!is_ambiguous(&map(&[])));
}
