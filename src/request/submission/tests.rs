use hyper::header::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::request::fingerprint::{FingerprintKey, Sharing};

fn validation(mode: Mode) -> Validation {
    let (generations, edits) = (Schema::builtin(Operation::Generations), Schema::builtin(Operation::Edits));
    Validation { mode, unknown_fields: UnknownFields::Forward, generations, edits }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

#[test]
fn m13_no_cache_is_a_wish_only_without_a_pragma_beside_it() {
    for (lines, want) in [
        (vec![("cache-control", "no-cache")], true),
        (vec![("cache-control", "max-age=0, No-Cache")], true),
        (vec![("cache-control", "max-age=0"), ("cache-control", "no-cache")], true),
        (vec![("cache-control", "no-cache"), ("pragma", "no-cache")], false),
        (vec![("cache-control", "max-age=0")], false),
        (vec![("cache-control", "no-store")], false),
        (vec![("cache-control", "x-no-cache")], false),
        (vec![("pragma", "no-cache")], false),
        (vec![], false),
    ] {
        assert_eq!(Wishes::read(&Header::of(&headers(&lines))).unwrap().no_cache, want, "{lines:?}");
    }
}

#[test]
fn r60_an_idempotency_key_is_bare_or_quoted_and_stands_once() {
    let read = |value: &str| {
        Wishes::read(&Header::of(&headers(&[("idempotency-key", value)]))).map(|wishes| wishes.idempotency_key)
    };
    assert_eq!(read("x").unwrap(), read("\"x\"").unwrap());
    assert_eq!(read(r#""a\"b\\c""#).unwrap().as_deref(), Some(r#"a"b\c"#));
    let long = "k".repeat(255);
    assert_eq!(read(&long).unwrap(), Some(long.clone()));
    for bad in ["", "\"\"", "\"x", "\"x\"y\"", "\"a\\n\"", "é", &format!("{long}k")] {
        assert!(matches!(read(bad), Err(Error::BadRequest { param: "Idempotency-Key", .. })), "{bad}");
    }
    let twice = headers(&[("idempotency-key", "x"), ("idempotency-key", "x")]);
    assert!(matches!(Wishes::read(&Header::of(&twice)), Err(Error::BadRequest { .. })));
    let variation = Wishes::read(&Header::of(&headers(&[("reelgate-variation", "2")]))).unwrap().variation;
    assert_eq!(variation.as_deref(), Some("2"));
}

#[test]
fn a_dry_run_is_asked_for_with_1_and_nothing_else() {
    let read = |value: &str| Wishes::read(&Header::of(&headers(&[("reelgate-dry-run", value)])));
    assert!(read("1").unwrap().dry_run && read(" 1 ").unwrap().dry_run);
    for bad in ["0", "true", "11", "", "\u{e9}"] {
        let Err(Error::BadRequest { param, message }) = read(bad) else { panic!("{bad:?} is taken") };
        assert_eq!((param, &*message), ("Reelgate-Dry-Run", "Reelgate-Dry-Run takes 1, or is left out"), "{bad:?}");
    }
    let twice = headers(&[("reelgate-dry-run", "1"), ("reelgate-dry-run", "1")]);
    assert!(matches!(Wishes::read(&Header::of(&twice)), Err(Error::BadRequest { .. })));
}

#[test]
fn r65_t61_only_plain_json_in_utf8_is_read() {
    for (lines, want) in [
        (vec![("content-type", "application/json")], None),
        (vec![("content-type", "Application/JSON; charset=UTF-8")], None),
        (vec![("content-type", "application/json;charset=\"utf-8\"")], None),
        (vec![("content-type", "application/json; charset=utf-16")], Some("Content-Type")),
        (vec![("content-type", "text/plain")], Some("Content-Type")),
        (vec![("content-type", "application/jsonp")], Some("Content-Type")),
        (vec![("content-type", "application/json"), ("content-type", "application/json")], Some("Content-Type")),
        (vec![], Some("Content-Type")),
        (vec![("content-type", "application/json"), ("content-encoding", "gzip")], Some("Content-Encoding")),
        (vec![("content-type", "application/json"), ("content-encoding", "identity, gzip")], Some("Content-Encoding")),
        (vec![("content-type", "application/json"), ("content-encoding", "identity")], Some("Content-Encoding")),
        (vec![("content-type", "application/json"), ("content-encoding", "")], Some("Content-Encoding")),
    ] {
        let want = want.map_or(Ok(()), |param| Err(Error::UnsupportedMediaType { param }));
        assert_eq!(check_media(&Header::of(&headers(&lines))), want, "{lines:?}");
    }
}

#[test]
fn t33_a_user_is_visible_text_of_up_to_128_characters_and_counts_in_one_form() {
    for (user_given, want) in [
        (json!("alice"), Ok(Some("alice"))),
        (json!("e\u{301}"), Ok(Some("\u{e9}"))),
        (json!("\u{1F600}"), Ok(Some("\u{1F600}"))),
        (json!(""), Err("minLength")),
        (json!(null), Err("type")),
        (json!(7), Err("type")),
        (json!(["a"]), Err("type")),
        (json!("a\u{200b}"), Err("format")),
        (json!("a\u{202e}b"), Err("format")),
        (json!("a\nb"), Err("format")),
        (json!("a\u{85}b"), Err("format")),
        (json!("u".repeat(129)), Err("maxLength")),
    ] {
        let got = user(&json!({"prompt": "p", "user": user_given}));
        assert_eq!(got.as_ref().map(Option::as_deref).map_err(|fault| fault.code), want, "{user_given}");
    }
    assert_eq!(user(&json!({"user": "\u{e9}".repeat(128)})).unwrap().unwrap().chars().count(), 128);
    assert_eq!(user(&json!({"prompt": "p"})), Ok(None));
}

#[test]
fn a_long_medium_is_judged_and_named_as_if_it_had_been_parsed() {
    let key = FingerprintKey::from_hex(&"5a".repeat(32)).unwrap();
    let name = |fields: &Value, inline: Option<&Inline<'_>>| {
        let sharing = Sharing { origin: "https://a", ..Sharing::default() };
        key.fingerprint(&sharing, Operation::Generations, fields, inline, &["sig".to_owned()])
    };
    let own = Schema::from_text(Operation::Generations, r#"{"properties": {"image": {"type": "object"}}}"#).unwrap();
    let own = Validation { generations: own, ..validation(Mode::Strict) };
    let letters = "AbC/+9z0".repeat(50_000);
    for (fields, is_cut) in [
        (json!({"prompt": "a", "image": {"url": format!("data:image/png;base64,{letters}")}, "user": "u"}), true),
        (
            json!({"prompt": "a", "image": {"url": format!("DATA:IMAGE/PNG;x=Y;base64,{letters}AA==")}, "size": "1"}),
            true,
        ),
        // What breaks the schema is read whole, and told of as it came.
        (json!({"prompt": "a", "image": {"url": format!("data:image/png;base64,{letters}A")}}), false),
        (json!({"prompt": "", "image": {"url": format!("data:image/png;base64,{letters}")}}), false),
        (json!({"prompt": "a", "image": {"url": format!("data:image/png;base64,{letters}")}, "user": ""}), false),
    ] {
        let body = fields.to_string();
        for mode in [Mode::Strict, Mode::Warn, Mode::Off] {
            let rules = validation(mode);
            let read = Submission::parse(Operation::Generations, body.as_bytes(), &rules);
            let whole = Submission::of(Operation::Generations, fields.clone(), None, &rules);
            let (Ok(read), Ok(whole)) = (&read, &whole) else {
                assert_eq!(read.unwrap_err().faults(), whole.unwrap_err().faults());
                continue;
            };
            assert!(read.inline.is_some() || !is_cut && read.fields == fields);
            assert_eq!(name(&read.fields, read.inline.as_ref()), name(&fields, None));
            assert_eq!((&read.user, &read.model), (&whole.user, &whole.model));
            assert_eq!((&read.deprecated, &read.faults), (&whole.deprecated, &whole.faults));
        }
        // A schema of one's own sees every letter.
        let read = Submission::parse(Operation::Generations, body.as_bytes(), &own);
        assert!(read.is_ok_and(|read| read.inline.is_none()) || !is_cut);
    }
}
