use hyper::Request;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use super::*;

fn head(version: Version, target: &str, hosts: &[&str]) -> Parts {
    let mut request = Request::builder().version(version).uri(target);
    for host in hosts {
        request = request.header(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

fn check<'a>(hosts: &Hosts, head: &'a Parts) -> Result<Option<Authority<'a>>, Error> {
    hosts.check(&Head::of(head))
}

fn open() -> Hosts {
    Hosts::allowing(&[])
}

#[test]
fn r10_a_host_is_an_address_or_a_name_with_an_optional_port() {
    for (text, host, port) in [
        ("a", "a", None),
        ("A", "A", None),
        ("a:", "a", None),
        ("a:80", "a", Some(80)),
        ("a.b-c_d.example.", "a.b-c_d.example", None),
        ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
        ("[::1]", "[::1]", None),
        ("[::1]:80", "[::1]", Some(80)),
        ("[::ffff:192.0.2.1]:0", "[::ffff:192.0.2.1]", Some(0)),
    ] {
        assert_eq!(Authority::parse(text), Some(Authority { host, port }), "{text}");
    }
    let long = "a".repeat(254);
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a/b",
        "a@b",
        "a b",
        " a",
        "a ",
        "a:99999",
        "a:65536",
        "a:1:2",
        "a:+1",
        "a:-1",
        "a:x",
        ":80",
        ":",
        "[::1",
        "[::1].",
        "[::1]80",
        "[a]",
        "[]",
        "[::1%25eth0]",
        "::1",
        "a%41",
        "a,b",
        "é",
        "\u{2}",
        "http://a",
        "*",
        &long,
    ] {
        assert_eq!(Authority::parse(text), None, "{text:?}");
    }
}

#[test]
fn r10_http_1_1_needs_exactly_one_host_and_http_1_0_may_have_none() {
    let check = |version, hosts: &[&str]| check(&open(), &head(version, "/x", hosts)).map(|found| found.is_some());
    for bad in [&[][..], &["a", "a"], &["a", "b"], &[""], &["a/b"], &["a b"], &["\u{e9}"]] {
        assert!(matches!(check(Version::HTTP_11, bad), Err(Error::BadRequest { param: "Host", .. })), "{bad:?}");
    }
    assert_eq!(check(Version::HTTP_11, &["a:80"]), Ok(true));
    assert_eq!(check(Version::HTTP_10, &[]), Ok(false));
    assert_eq!(check(Version::HTTP_10, &["a"]), Ok(true));
    assert!(check(Version::HTTP_10, &["a", "a"]).is_err());
    assert!(check(Version::HTTP_2, &[]).is_err());
}

#[test]
fn r12_the_target_s_authority_wins_over_the_host() {
    let request = head(Version::HTTP_11, "http://evil.example/x", &["a"]);
    assert_eq!(check(&open(), &request).unwrap().unwrap().host, "evil.example");
    let ours = Hosts::allowing(&["a".to_owned()]);
    assert_eq!(check(&ours, &request), Err(Error::MisdirectedRequest));
    assert!(check(&ours, &head(Version::HTTP_11, "http://a/x", &["evil.example"])).is_ok());
    for bad in ["https://u:p@h/x", "https://u@h/x", "ftp://h/x"] {
        let request = head(Version::HTTP_11, bad, &["h"]);
        let refused = check(&open(), &request);
        assert!(matches!(refused, Err(Error::BadRequest { param: "target", .. })), "{bad}");
    }
    assert!(check(&open(), &head(Version::HTTP_11, "http://a/x", &[])).is_err());
}

#[test]
fn r10_http_2_takes_authority_and_host_only_if_they_agree() {
    for (target, hosts, good) in [
        ("http://a:1/x", &[][..], true),
        ("http://a:1/x", &["A:1"], true),
        ("http://a:1/x", &["a"], false),
        ("http://a:1/x", &["b:1"], false),
        ("/x", &["a"], true),
    ] {
        assert_eq!(check(&open(), &head(Version::HTTP_2, target, hosts)).is_ok(), good, "{target} {hosts:?}");
    }
}

#[test]
fn r11_with_names_of_our_own_another_is_misdirected() {
    let hosts = Hosts::allowing(&["Videos.example:443".to_owned(), "b.example".to_owned()]);
    for good in ["videos.EXAMPLE", "videos.example:8080", "videos.example.", "b.example", "localhost:1", "LOCALHOST"] {
        assert!(check(&hosts, &head(Version::HTTP_11, "/x", &[good])).is_ok(), "{good}");
    }
    for good in ["127.0.0.1", "192.0.2.7:80", "[::1]:8080"] {
        assert!(check(&hosts, &head(Version::HTTP_11, "/x", &[good])).is_ok(), "{good}");
    }
    for bad in ["evil.example", "a.videos.example", "videos.example.evil", "localhost.evil.example", "127.0.0.1.nip.io"]
    {
        assert_eq!(check(&hosts, &head(Version::HTTP_11, "/x", &[bad])), Err(Error::MisdirectedRequest), "{bad}");
    }
    let by_authority = head(Version::HTTP_2, "http://evil.example/x", &[]);
    assert_eq!(check(&hosts, &by_authority), Err(Error::MisdirectedRequest));
}

#[test]
fn r13_connect_is_refused_before_anything_else() {
    let mut request = head(Version::HTTP_11, "/x", &["a/b", "c"]);
    request.method = Method::CONNECT;
    assert!(matches!(check(&open(), &request), Err(Error::MethodNotAllowed { .. })));
}

#[test]
fn lim3_single_parts_of_a_head_are_bounded() {
    let target = |length: usize| format!("/{}", "a".repeat(length - 1));
    assert!(check(&open(), &head(Version::HTTP_11, &target(8 << 10), &["a"])).is_ok());
    assert_eq!(check(&open(), &head(Version::HTTP_11, &target((8 << 10) + 1), &["a"])), Err(Error::UriTooLong));
    let mut request = head(Version::HTTP_11, "/x", &["a"]);
    request.headers.insert("x", "a".repeat(16 << 10).parse().unwrap());
    assert_eq!(check(&open(), &request), Err(Error::HeaderTooLarge));
    for (count, fits) in [(64, true), (65, false)] {
        let mut request = head(Version::HTTP_11, "/x", &["a"]);
        (1..count).for_each(|_| _ = request.headers.append("x", "y".parse().unwrap()));
        assert_eq!(check(&open(), &request).is_ok(), fits, "{count} headers");
    }
}

#[test]
fn r31_only_a_single_plain_chunked_coding_is_read() {
    for (codings, good) in [
        (&["chunked"][..], true),
        (&["Chunked"], true),
        (&["chunked", "chunked"], false),
        (&["chunked, chunked"], false),
        (&["gzip, chunked"], false),
        (&["gzip", "chunked"], false),
    ] {
        let mut request = head(Version::HTTP_11, "/x", &["a"]);
        for coding in codings {
            request.headers.append(TRANSFER_ENCODING, coding.parse().unwrap());
        }
        assert_eq!(check(&open(), &request).is_ok(), good, "{codings:?}");
    }
}
