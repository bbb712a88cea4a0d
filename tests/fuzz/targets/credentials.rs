//! What callers bring: keys by their form, and tokens, of which only those that we have signed are read.

use std::sync::LazyLock;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reelgate::access::bearer::Bearer;
use reelgate::access::format::{Digest, is_well_formed};
use reelgate::access::settings::Gate;
use reelgate::access::token::{Grant, PREFIX, Tokens};
use reelgate::clock::Time;
use reelgate::request::head::Header;

pub const WORDS: &[&str] = &["Bearer ", "rg_", "rgt_", "eyJhbGciOiJub25lIn0", ".", "=", "-", "_", "A"];

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| Tokens::new(&[0x5a; 32]));

/// The tokens of the corpus.
static SIGNED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let grant = |user: &str, models: &[&str], routes: &[Gate]| Grant {
        team: "studio".to_owned(),
        key: "web".to_owned(),
        mark: "00".to_owned(),
        user: user.to_owned(),
        models: models.iter().map(|&model| model.to_owned()).collect(),
        routes: routes.to_vec(),
        until: Time::from_millis(4_000_000_000_000),
        limited: None,
    };
    let grants = [grant("alice", &[], &[]), grant("Zoë", &["m"], &[Gate::Poll])];
    grants.iter().map(|grant| TOKENS.sign(grant, Time::from_millis(0)).unwrap()).collect()
});

pub fn run(input: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(input) {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value);
        if let Bearer::Credential(credential) = Bearer::read(&Header::of(&headers)) {
            assert!(!credential.is_empty() && credential.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(std::str::from_utf8(input).unwrap().ends_with(credential.trim_end()) || input.ends_with(b" "));
            read(credential);
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        read(text);
    }
}

fn read(credential: &str) {
    if is_well_formed(credential) {
        assert!(credential.starts_with("rg_") && credential.len() == 39 && credential.is_ascii());
    }
    assert_eq!(Digest::of(credential), Digest::of(credential));
    let Some(token) = credential.strip_prefix(PREFIX) else { return };
    for now in [0, 3_999_999_999_999, 4_000_000_000_000, u64::MAX] {
        let read = TOKENS.read(token, Time::from_millis(now));
        let is_good = SIGNED.iter().any(|signed| signed == credential) && now < 4_000_000_000_000;
        assert_eq!(read.is_ok(), is_good, "{read:?} at {now}");
    }
}
