use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::request::json::parse;

fn key() -> FingerprintKey {
    FingerprintKey::from_hex(&"07".repeat(32)).unwrap()
}

fn sharing() -> Sharing<'static> {
    Sharing { origin: "https://api.example", team: Some("open"), ..Sharing::default() }
}

fn of(body: &Value) -> Fingerprint {
    key().fingerprint(&sharing(), Operation::Generations, body, None, &[])
}

fn of_text(body: &str) -> Fingerprint {
    of(&parse(body.as_bytes()).unwrap())
}

#[test]
fn bodies_that_mean_the_same_share_a_fingerprint() {
    for (one, other) in [
        (r#"{"prompt":"a","duration":1}"#, "{ \"duration\" : 1.0,\n\"prompt\":\"\\u0061\" }"),
        (r#"{"a":1}"#, r#"{"a":1e0}"#),
        (r#"{"a":0}"#, r#"{"a":-0}"#),
        (r#"{"a":0}"#, r#"{"a":-0.0}"#),
        (r#"{"a":{"x":[1,2],"y":null}}"#, r#"{"a":{"y":null,"x":[1,2.0]}}"#),
        (r#"{"prompt":"a","user":"alice"}"#, r#"{"prompt":"a","user":"bob"}"#),
        (r#"{"prompt":"a","user":"alice"}"#, r#"{"prompt":"a"}"#),
        (r#"{"image":{"url":"data:image/PNG;base64,AAAA"}}"#, r#"{"image":{"url":"DATA:image/png;base64,AAAA"}}"#),
        (r#"{"prompt":"\ud83d\ude00"}"#, r#"{"prompt":"😀"}"#),
    ] {
        assert_eq!(of_text(one), of_text(other), "{one} and {other}");
    }
}

#[test]
fn t40_every_field_counts_known_or_not_and_absent_is_not_its_default() {
    let bodies = [
        json!({"prompt": "a"}),
        json!({"prompt": "b"}),
        json!({"prompt": "a", "model": "grok-imagine-video"}),
        json!({"prompt": "a", "duration": 8}),
        json!({"prompt": "a", "duration": 9}),
        json!({"prompt": "a", "duration": 8.5}),
        json!({"prompt": "a", "duration": "8"}),
        json!({"prompt": "a", "duration": null}),
        json!({"prompt": "a", "duration": true}),
        json!({"prompt": "a", "duration": false}),
        json!({"prompt": "a", "seconds": 8}),
        json!({"prompt": "a", "seed": 9_007_199_254_740_992_u64}),
        json!({"prompt": "a", "seed": 9_007_199_254_740_993_u64}),
        json!({"prompt": "a", "output": {"upload_url": "https://a"}}),
        json!({"prompt": "a", "output": {"upload_url": "https://b"}}),
        json!({"prompt": "a", "output": {"user": "alice"}}),
        json!({"prompt": "a", "image": {"url": "https://a/?x=1"}}),
        json!({"prompt": "a", "image": {"url": "https://a/?x=2"}}),
        json!({"prompt": "a", "image": {"url": "https://a/?X=1"}}),
        json!({"prompt": "a", "image": {"url": "data:image/png;base64,AAAA"}}),
        json!({"prompt": "a", "image": {"url": "data:image/png;base64,AAAB"}}),
        json!({"prompt": "a", "image": {"url": "data:image/png;base64,aaaa"}}),
        json!({"prompt": "a", "reference_images": [{"url": "https://a"}, {"url": "https://b"}]}),
        json!({"prompt": "a", "reference_images": [{"url": "https://b"}, {"url": "https://a"}]}),
        json!({"prompt": "a", "reference_images": [[{"url": "https://a"}], {"url": "https://b"}]}),
        json!({"prompt": "a", "x": []}),
        json!({"prompt": "a", "x": {}}),
        json!({"prompt": "a", "x": ""}),
        json!({"prompt": "a", "x": "y", "z": ""}),
        json!({"prompt": "a", "xy": "", "z": ""}),
        json!({"prompt": "a", "Prompt": "a"}),
    ];
    for (at, one) in bodies.iter().enumerate() {
        for other in &bodies[at + 1..] {
            assert_ne!(of(one), of(other), "{one} and {other}");
        }
    }
}

#[test]
fn t40_route_origin_scope_variation_and_key_count() {
    let body = json!({"prompt": "a"});
    let print = |operation, sharing: Sharing<'_>| key().fingerprint(&sharing, operation, &body, None, &[]);
    let generations = Operation::Generations;
    let prints = [
        print(generations, sharing()),
        print(Operation::Edits, sharing()),
        print(generations, Sharing { origin: "https://other.example", ..sharing() }),
        print(generations, Sharing { team: Some("other"), ..sharing() }),
        print(generations, Sharing { team: None, ..sharing() }),
        print(generations, Sharing { user: Some("open"), team: None, ..sharing() }),
        print(generations, Sharing { user: Some("alice"), ..sharing() }),
        print(generations, Sharing { variation: Some("alice"), ..sharing() }),
        print(generations, Sharing { key: Some("alice"), ..sharing() }),
        print(generations, Sharing { unique: Some(b"alice"), ..sharing() }),
        print(generations, Sharing { variation: Some(""), ..sharing() }),
        FingerprintKey::random().unwrap().fingerprint(&sharing(), generations, &body, None, &[]),
    ];
    for (at, one) in prints.iter().enumerate() {
        assert!(!prints[at + 1..].contains(one), "number {at} is not alone");
    }
}

#[test]
fn m30_ignored_parameters_of_media_urls_do_not_count_and_others_do() {
    let ignored = ["X-Amz-Signature".to_owned(), "Expires".to_owned()];
    let of = |field: &str, url: &str| {
        key().fingerprint(&sharing(), Operation::Edits, &json!({"prompt": "a", field: {"url": url}}), None, &ignored)
    };
    for field in ["image", "video"] {
        let plain = of(field, "https://a/b.png?v=1");
        assert_eq!(of(field, "https://a/b.png?X-Amz-Signature=1&v=1&Expires=2"), plain);
        assert_eq!(of(field, "https://a/b.png?v=1&Expires"), plain);
        assert_ne!(of(field, "https://a/b.png?v=2&Expires=2"), plain);
        assert_ne!(of(field, "https://a/b.png?v=1&expires=2"), plain, "names are exact");
        assert_ne!(of(field, "https://a/b.png?v=1#?Expires=2"), plain, "a fragment is no query");
        assert_eq!(of(field, "https://a/b.png?Expires=2#x"), of(field, "https://a/b.png#x"));
    }
    let elsewhere = |url: &str| {
        let body = json!({"prompt": "a", "output": {"upload_url": url}});
        key().fingerprint(&sharing(), Operation::Edits, &body, None, &ignored)
    };
    assert_ne!(elsewhere("https://a/?Expires=1"), elsewhere("https://a/?Expires=2"));
}

#[test]
fn digests_differ_by_purpose_and_parts() {
    let key = key();
    assert_eq!(key.digest("a", &["x", "y"]), key.digest("a", &["x", "y"]));
    for (purpose, parts) in [("b", vec!["x", "y"]), ("a", vec!["xy", ""]), ("a", vec!["x", "y", ""]), ("a", vec!["xy"])]
    {
        assert_ne!(key.digest("a", &["x", "y"]), key.digest(purpose, &parts));
    }
}

#[test]
fn keys_are_64_hex_digits_and_are_never_shown() {
    assert!(FingerprintKey::from_hex(&"ab".repeat(31)).is_err());
    assert!(FingerprintKey::from_hex(&"zz".repeat(32)).is_err());
    assert_eq!(format!("{:?}", key()), "FingerprintKey(***)");
    assert_eq!(of_text("{}").short().as_str().len(), 12);
    assert_eq!(of_text("{}").to_string().len(), 64);
}

/// Any JSON value without integers that RFC 8785 would round.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1000_i64..1000).prop_map(Value::from),
        (-1000.0..1000.0).prop_map(Value::from),
        "[a-c\u{e9}\u{1F600}]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Two bodies share a fingerprint exactly if their RFC 8785 forms are the same text.
    #[test]
    fn fingerprints_agree_with_the_canonical_form(one in any_json(), other in any_json()) {
        let canonical = |value: &Value| serde_json_canonicalizer::to_string(value).unwrap();
        prop_assert_eq!(of(&one) == of(&other), canonical(&one) == canonical(&other));
        let rewritten: Value = serde_json::from_str(&canonical(&one)).unwrap();
        prop_assert_eq!(of(&one), of(&rewritten));
    }
}

proptest! {
    #[test]
    fn fingerprints_stand_in_the_order_of_their_bytes(a: [u8; 32], b: [u8; 32], same in 0_usize..=32) {
        let mut b = b;
        b[..same].copy_from_slice(&a[..same]);
        prop_assert_eq!(Fingerprint::from_bytes(a).cmp(&Fingerprint::from_bytes(b)), a.cmp(&b));
    }
}
