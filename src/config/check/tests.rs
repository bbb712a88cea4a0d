//! What contradicts itself, and what is only doubtful.

use crate::config::tests::{read, refused};

#[test]
fn t36_open_access_beyond_loopback_must_be_asked_for() {
    for listen in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[::ffff:192.0.2.1]:8080"] {
        refused(&format!("[server]\nlisten = \"{listen}\""), "reelgate.toml:2: server.listen: access.mode \"open\"");
        let allowed = read(&format!("[server]\nlisten = \"{listen}\"\n[access]\nallow_public = true")).unwrap();
        assert!(allowed.warnings().iter().any(|warning| warning.key == "access.allow_public"), "{listen}");
    }
    for listen in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
        assert!(read(&format!("[server]\nlisten = \"{listen}\"")).is_ok(), "{listen}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (text, wanted) in [
        ("[admin]\nlisten = \"127.0.0.1:8080\"", "admin.listen: the same port"),
        ("[admin]\nlisten = \"0.0.0.0:8080\"", "admin.listen: the same port"),
        ("[server]\nmax_body = \"1 GiB\"", "server.body_memory: less than server.max_body"),
        ("[server]\nconnections = 10", "server.connections_per_address: more than server.connections"),
        ("[server]\nallowed_hosts = [\"a.example:80\"]", "server.allowed_hosts: expected host names"),
        ("[server.cors]\nallowed_origins = [\"*\"]", "reelgate.toml:2: server.cors.allowed_origins: expected exact"),
        ("[server.cors]\nallowed_origins = [\"null\"]", "allowed_origins: expected exact"),
        ("[server.cors]\npublic_origin = \"a.example\"", "public_origin: expected our own"),
        ("[upstream]\nurl = \"http://api.example\"", "upstream.url: plain http://"),
        ("[admin]\nkey_env = \"a key\"", "admin.key_env: expected the name"),
        ("[upstream]\nkey_env = \"\"", "upstream.key_env: expected the name"),
        ("[upstream]\nkey_env = \"MY-KEY\"", "upstream.key_env: expected the name"),
        ("[upstream]\nsubmit_timeout = \"3m\"", "upstream.submit_timeout: longer than"),
        ("[upstream]\nroots = \"bundeld\"", "upstream.roots: cannot be read"),
        ("[upstream]\nkey_file = \"missing/key\"", "upstream.key_file: cannot be read"),
        ("[validation]\nedits = \"missing.json\"", "validation.edits: cannot be read"),
        ("[dedup]\nhold_statuses = [200]", "dedup.hold_statuses: expected statuses"),
        ("[dedup]\nurl_ignore = [\"\"]", "dedup.url_ignore: expected names"),
    ] {
        refused(text, wanted);
    }
    let both = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"";
    assert!(read(both).is_ok());
}

#[test]
fn the_upstream_is_an_origin_in_one_form() {
    for (url, want) in [
        ("https://api.example/", "https://api.example"),
        ("HTTPS://API.example", "https://api.example"),
        ("https://api.example:8443", "https://api.example:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ] {
        assert_eq!(
            read(&format!("[upstream]\nurl = \"{url}\"")).map(|config| config.upstream.url),
            Ok(want.to_owned())
        );
    }
    for url in [
        "",
        "api.example",
        "ftp://api.example",
        "https://",
        "https:///x",
        "https://api.example/v1",
        "https://api.example//",
        "https://api.example?x",
        "https://api.example#x",
        "https://u:p@api.example",
        "https://api.example:0",
        "https://api.example:99999",
        "https://api.example:",
        "https://a b",
        "https://*",
        "http:\\\\\\\\api.example",
    ] {
        refused(&format!("[upstream]\nurl = \"{url}\""), "upstream.url: expected an origin");
    }
}

#[test]
fn a_key_that_cannot_be_read_brings_no_second_complaint() {
    refused(
        "[access]\nallow_public = \"maybe\"\n[server]\nlisten = \"0.0.0.0:1\"",
        "access.allow_public: expected true",
    );
}

#[test]
fn doubts_are_told_and_stop_nothing() {
    let keys =
        |text: &str| -> Vec<String> { read(text).unwrap().warnings().into_iter().map(|warning| warning.key).collect() };
    assert!(keys("").is_empty());
    assert_eq!(keys("[ledger]\nkind = \"memory\""), ["ledger.kind"]);
    assert_eq!(keys("[server]\nshutdown_grace = \"0s\""), ["server.shutdown_grace"]);
    assert_eq!(keys("[dedup]\nunknown_hold = \"61s\""), ["dedup.unknown_hold"]);
    assert_eq!(keys("[dedup]\ndelivery_window = \"25h\""), ["dedup.delivery_window"]);
    let plain = "[upstream]\nurl = \"http://api.example\"\nallow_http = true";
    assert_eq!(keys(plain), ["upstream.allow_http"]);
    assert_eq!(keys("[ledger]\nmax_jobs = 999999"), ["ledger.max_jobs"]);
    assert!(keys("[ledger]\nmax_jobs = 10\n[dedup]\nmax_entries = 10").is_empty());
    let redis = "[ledger]\nkind = \"redis\"\nmax_jobs = 10\n[dedup]\nkey_env = \"REELGATE_KEY\"";
    assert!(keys(redis).is_empty());
}
