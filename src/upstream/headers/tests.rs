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

/// The fields of a submission and of a poll for a client with these.
fn sent(client: &HeaderMap, version: Version) -> (HeaderMap, HeaderMap) {
    let via = Via::new("reelgate-0a1b2c3d").unwrap();
    let origin = Origin::parse("https://api.cometapi.com").unwrap();
    let heads = Heads::new(&origin, &UpstreamKey::parse(KEY).unwrap());
    let passed = Passed::of(&Header::of(client), version, &via);
    let read = |head: Vec<u8>, line: (&str, &str)| {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut fields);
        assert!(request.parse(&head).unwrap() == httparse::Status::Complete(head.len()));
        assert_eq!((request.method, request.path, request.version), (Some(line.0), Some(line.1), Some(1)));
        let fields = request.headers.iter().map(|field| (field.name, str::from_utf8(field.value).unwrap()));
        map(&fields.collect::<Vec<_>>())
    };
    let submission = heads.submission(Operation::Edits, 1234, &passed);
    let poll = heads.poll(&RequestId::parse("r-1").unwrap(), &passed);
    (read(submission, ("POST", "/grok/v1/videos/edits")), read(poll, ("GET", "/grok/v1/videos/r-1")))
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
        format!("authorization: Bearer {KEY}"),
    ];
    assert_eq!(shown(&poll), want);
    let own = ["content-type: application/json", "connection: close", "content-length: 1234"].map(str::to_owned);
    assert_eq!(shown(&submit), [&want[..], &own].concat());
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
fn h10_bytes_above_ascii_neither_stop_nor_leave_us() {
    let mut client = HeaderMap::new();
    client.insert(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
    client.insert(VIA, HeaderValue::from_bytes(b"\xff").unwrap());
    let (submit, _) = sent(&client, Version::HTTP_11);
    assert_eq!((&submit[ACCEPT], &submit[VIA]), (&JSON, &HeaderValue::from_static("1.1 reelgate-0a1b2c3d")));
}
