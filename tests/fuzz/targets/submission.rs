//! A body on its way to the upstream: parsed, validated, named and priced. It goes on byte for byte, so what we
//! understand must be what another parser understands.

use std::sync::LazyLock;

use reelgate::bill::price::Prices;
use reelgate::config::Config;
use reelgate::request::fingerprint::{Fingerprint, FingerprintKey, Sharing};
use reelgate::request::inline::Inline;
use reelgate::request::route::Operation;
use reelgate::request::schema::Schema;
use reelgate::request::settings::{Mode, UnknownFields};
use reelgate::request::submission::{Submission, Validation};
use reelgate::telemetry::metrics::Metrics;
use serde_json::Value;

pub const WORDS: &[&str] = &[
    "\"prompt\":\"a\"",
    "\"model\":\"grok-imagine-video-1.5\"",
    "\"duration\":15",
    "\"resolution\":\"1080p\"",
    "\"aspect_ratio\":\"16:9\"",
    "\"image\":{\"url\":\"https://a/\"}",
    "\"image\":{\"url\":\"data:image/png;base64,AAAA\"}",
    "\"video\":{\"file_id\":\"f\"}",
    "\"output\":{\"upload_url\":\"https://a/\"}",
    "\"size\":\"1280x720\"",
    "\"user\":\"Zoe\u{308}\"",
    "\"seconds\":8",
    "\"storage_options\":{}",
    "\"reference_images\":[{\"url\":\"https://a/\"}]",
    "\"n\":1",
    "url",
    "?sig=1&a=2#f",
    "prompt",
    "duratoin",
    "Model",
];

/// Each way to validate, with the built-in schemas.
static VALIDATIONS: LazyLock<Vec<Validation>> = LazyLock::new(|| {
    let ways = [
        (Mode::Strict, UnknownFields::Forward),
        (Mode::Strict, UnknownFields::Refuse),
        (Mode::Warn, UnknownFields::Forward),
        (Mode::Off, UnknownFields::Forward),
    ];
    let validation = |(mode, unknown_fields)| Validation {
        mode,
        unknown_fields,
        generations: Schema::builtin(Operation::Generations),
        edits: Schema::builtin(Operation::Edits),
    };
    ways.map(validation).into()
});

static PRICES: LazyLock<Prices> = LazyLock::new(|| Prices::new(&Config::default().prices));

/// Metrics that know the fields of both routes, as those of a gateway do.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let metrics = Metrics::new("1").expect("the metrics are sound");
    VALIDATIONS.iter().for_each(|validation| metrics.fields.know(params(validation).map(String::as_str)));
    metrics
});

fn params(validation: &Validation) -> impl Iterator<Item = &String> {
    validation.generations.params().iter().chain(validation.edits.params())
}

/// The first byte says which route, how strictly, and whether a medium is long; the rest is the body.
pub fn run(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else { return };
    let long = if choice & 8 == 0 { None } else { lengthened(body) };
    let body = long.as_deref().unwrap_or(body);
    let operation = if choice & 1 == 0 { Operation::Generations } else { Operation::Edits };
    let validation = &VALIDATIONS[usize::from(choice >> 1) % 4];
    match Submission::parse(operation, body, validation) {
        Ok(submission) => understood(&submission, operation, body, validation),
        Err(error) => {
            assert!(error.status().is_client_error(), "{error:?}");
            assert!(error.body().to_string().len() < 64 << 10, "an error longer than any body that it speaks of");
            for fault in error.faults() {
                METRICS.fields.invalid(&fault.param, fault.code);
                let Some(label) = METRICS.fields.label(&fault.param) else { continue };
                let is_known = params(validation).any(|param| **param == *label);
                assert!(is_known, "a label that a client chose: {label:?}");
            }
        }
    }
}

/// The body with so many letters in its first medium, or what looks like one, that it is parsed without them. An input
/// need not be long for that, and stays quick to change.
fn lengthened(body: &[u8]) -> Option<Vec<u8>> {
    let begin = body.windows(MARK.len()).position(|bytes| bytes == MARK)? + MARK.len();
    let (before, after) = body.split_at(begin);
    Some([before, LETTERS.repeat(LONG / LETTERS.len()).as_slice(), after].concat())
}

const MARK: &[u8] = b";base64,";
const LETTERS: &[u8] = b"Zz+/09aA";
/// Above the shortest medium that a body is parsed without.
const LONG: usize = 17 << 10;

fn understood(submission: &Submission<'_>, operation: Operation, body: &[u8], validation: &Validation) {
    let usual: Value = serde_json::from_slice(body).expect("another parser reads it");
    assert!(submission.inline.is_some() || submission.fields == usual, "another parser understands something else");
    if validation.mode == Mode::Strict {
        assert!(submission.faults.is_empty());
        assert!(usual["prompt"].as_str().is_some_and(|prompt| !prompt.trim().is_empty()), "no prompt");
        names_are_plain(&usual, "", validation.schema(operation).params());
        let seconds = usual.get("duration").or(usual.get("seconds"));
        let is_priced = seconds.is_none_or(|seconds| (1.0..=15.0).contains(&seconds.as_f64().unwrap_or(0.0)));
        assert!(operation == Operation::Edits || is_priced, "a length that nobody has a price for");
    }
    if let Some(user) = &submission.user {
        assert!((1..=1_000).contains(&user.len()) && !user.chars().any(char::is_control), "{user:?}");
    }
    let price = PRICES.of(operation, &usual);
    assert!(price.amount().ticks() > 0 && price.millis >= 1_000, "it would cost nothing: {price:?}");

    let name = fingerprint(operation, &usual);
    assert_eq!(fingerprint_of(operation, submission), name, "a body has another name without its medium's letters");
    let rewritten = rewritten(&usual);
    let again =
        Submission::parse(operation, rewritten.as_bytes(), validation).expect("the same in other words is taken too");
    assert_eq!(fingerprint_of(operation, &again), name, "the same in other words has another name: {rewritten}");
    assert_eq!((&again.user, &again.model), (&submission.user, &submission.model));
    let Value::Object(fields) = &usual else { return };
    for field in fields.keys() {
        let mut less = fields.clone();
        less.remove(field);
        let is_same = fingerprint(operation, &Value::Object(less)) == name;
        assert_eq!(is_same, field == "user", "{field:?} counts, or does not");
    }
}

fn fingerprint_of(operation: Operation, submission: &Submission<'_>) -> Fingerprint {
    named(operation, &submission.fields, submission.inline.as_ref())
}

fn fingerprint(operation: Operation, fields: &Value) -> Fingerprint {
    named(operation, fields, None)
}

fn named(operation: Operation, fields: &Value, inline: Option<&Inline<'_>>) -> Fingerprint {
    static KEY: LazyLock<FingerprintKey> = LazyLock::new(|| FingerprintKey::from_hex(&"5a".repeat(32)).unwrap());
    let ignored = ["sig".to_owned()];
    let sharing = Sharing { origin: "https://a", team: Some("t"), ..Sharing::default() };
    let name = KEY.fingerprint(&sharing, operation, fields, inline, &ignored);
    assert_eq!(name, KEY.fingerprint(&sharing, operation, fields, inline, &ignored));
    name
}

/// The same value with its fields the other way round, blanks everywhere, and every character escaped.
fn rewritten(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().rev().map(|(name, value)| format!("{} : {}", escaped(name), rewritten(value)));
            format!("{{ {} }}\n", fields.collect::<Vec<_>>().join(" ,\t"))
        }
        Value::Array(items) => format!("[ {} ]", items.iter().map(rewritten).collect::<Vec<_>>().join(" , ")),
        Value::String(text) => escaped(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
    format!("\"{}\"", units.collect::<String>())
}

/// No name is one that the schema knows but for its letters' case: to parsers that are blind to it, as Go's is, it would
/// be the known one, and the last of the two would count.
fn names_are_plain(value: &Value, path: &str, known: &[String]) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let own = format!("{path}{name}");
        let twin = known.iter().find(|known| **known != own && folded(known) == folded(&own));
        assert!(twin.is_none(), "{own:?} may be read as {twin:?}");
        names_are_plain(value, &format!("{own}."), known);
    }
}

fn folded(name: &str) -> String {
    name.to_lowercase().replace('\u{17f}', "s").replace('\u{212a}', "k")
}
