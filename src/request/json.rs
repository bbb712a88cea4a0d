//! One strict parse of a body (RFC 8259, I-JSON): what two parsers could read differently is refused, because a
//! fingerprint of one reading must never stand for another. Bounded in depth, fields and values; linear in time.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Error;

/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most fields of one object.
const MAX_FIELDS: usize = 256;
/// Most values in all.
const MAX_VALUES: usize = 10_000;
/// What some editors and shells put before UTF-8; RFC 8259 §8.1 forbids it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How the parser's words for a lone surrogate begin.
const LONE_SURROGATE: [&str; 2] = ["unexpected end of hex escape", "lone leading surrogate in hex escape"];
/// From here on a double no longer tells neighbouring integers apart.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Parses a body.
///
/// # Errors
/// [`Error::InvalidJson`], with line and column: syntax, encoding, a field that stands twice (also by escapes), a number
/// that cannot be kept exactly, or a bound passed.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::InvalidJson { message: "the body is empty: send a JSON object with a prompt".to_owned() });
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(Error::InvalidJson { message: "the body starts with a byte order mark: leave it out".to_owned() });
    }
    let values = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Strict { depth: 0, values: &values }.deserialize(&mut deserializer);
    parsed
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Error::InvalidJson { message: format!("the body is not strict JSON: {}", in_words(&error)) })
}

/// What the parser says, but for lone surrogates, of which it says something that helps nobody.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if LONE_SURROGATE.iter().any(|words| text.starts_with(words)) {
        let (line, column) = (error.line(), error.column());
        return format!("a lone surrogate (half of a pair of \\u escapes) at line {line} column {column}");
    }
    text
}

/// One value, at a depth.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    /// How many values there are so far.
    values: &'a Cell<usize>,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > MAX_VALUES {
            return Err(D::Error::custom(format!("more than {MAX_VALUES} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    /// Fractions and exponents arrive here, and so do integers beyond 64 bits, which a double would round.
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let exact = (value.abs() < EXACT_BELOW).then(|| Number::from_f64(value)).flatten();
        exact.map(Value::Number).ok_or_else(|| {
            E::custom("a number that cannot be kept exactly: integers fit 64 bits, fractions stay below 2^53")
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                let shown: String = name.chars().take(40).collect();
                return Err(A::Error::custom(format!("the field {shown:?} stands twice")));
            }
            if object.len() >= MAX_FIELDS {
                return Err(A::Error::custom(format!("an object with more than {MAX_FIELDS} fields")));
            }
            let value = fields.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn message(body: &[u8]) -> String {
        match parse(body) {
            Err(Error::InvalidJson { message }) => message,
            other => panic!("{} gave {other:?}", String::from_utf8_lossy(body)),
        }
    }

    #[test]
    fn t41_what_two_parsers_could_read_differently_is_refused() {
        for (body, says) in [
            (r#"{"a":1,"a":2}"#, "the field \"a\" stands twice at line 1 column 10"),
            (r#"{"a":1,"\u0061":2}"#, "the field \"a\" stands twice"),
            (r#"{"b":{"a":1,"a":1}}"#, "stands twice"),
            (r#"[{"a":1,"a":1}]"#, "stands twice"),
            (r#"{"a":18446744073709551616}"#, "cannot be kept exactly"),
            (r#"{"a":-9223372036854775809}"#, "cannot be kept exactly"),
            (r#"{"a":123456789012345678901234567890}"#, "cannot be kept exactly"),
            (r#"{"a":9007199254740993.0}"#, "cannot be kept exactly"),
            (r#"{"a":1e20}"#, "cannot be kept exactly"),
            (r#"{"a":1e400}"#, "out of range"),
            (r#"{"a":"\ud800"}"#, "strict JSON: a lone surrogate (half of a pair of \\u escapes) at line 1 column 13"),
            (r#"{"a":"\ud800 \udc00"}"#, "a lone surrogate"),
            (r#"{"a":"\ud800\n"}"#, "a lone surrogate"),
            (r#"{"a":"\ud800\u0061"}"#, "a lone surrogate"),
            (r#"{"a":"\udc00\ud800"}"#, "a lone surrogate"),
            (r#"{"\ud800":1}"#, "a lone surrogate"),
            (r#"{"a":"\ud8"}"#, "invalid escape"),
            (r#"{"unexpected end of hex escape":1,"unexpected end of hex escape":2}"#, "stands twice"),
            ("\u{feff}{}", "byte order mark"),
            ("{} x", "trailing characters"),
            ("{}{}", "trailing characters"),
            ("{\"a\":\n 01}", "line 2"),
            ("{'a':1}", "line 1 column 2"),
            ("{\"a\":1,}", "trailing comma"),
            ("{\"a\":NaN}", "line 1"),
            ("{\"a\":\"\u{1}\"}", "control character"),
            ("{", "EOF"),
        ] {
            let message = message(body.as_bytes());
            assert!(message.contains(says), "{body}: {message}");
        }
        assert!(message(b"{\"a\":\"\xff\"}").contains("line 1"));
        for empty in ["", " \r\n\t"] {
            assert!(message(empty.as_bytes()).contains("the body is empty"));
        }
    }

    #[test]
    fn numbers_are_kept_exactly_up_to_64_bits() {
        for (body, want) in [
            ("9007199254740993", json!(9_007_199_254_740_993_u64)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1.0", json!(1.0)),
            ("-0", json!(-0.0)),
            ("0.1e-400", json!(0.0)),
            ("9007199254740991.0", json!(9_007_199_254_740_991.0)),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap(), want, "{body}");
        }
    }

    #[test]
    fn t60_depth_fields_and_values_are_bounded() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert!(message(nested(33).as_bytes()).contains("deeper than 32 levels"));
        assert!(message("[".repeat(100_000).as_bytes()).contains("deeper than 32 levels"));
        assert!(message("{\"a\":".repeat(100_000).as_bytes()).contains("deeper than 32 levels"));
        let fields = |count| format!("{{{}}}", (0..count).map(|n| format!("\"f{n}\":1")).collect::<Vec<_>>().join(","));
        assert!(parse(fields(256).as_bytes()).is_ok());
        assert!(message(fields(257).as_bytes()).contains("more than 256 fields"));
        let values = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(parse(values(9_999).as_bytes()).is_ok());
        assert!(message(values(10_000).as_bytes()).contains("more than 10000 values"));
    }

    proptest! {
        /// No bytes make it panic, and what it takes serde_json takes too, with the same meaning.
        #[test]
        fn it_agrees_with_serde_json_where_it_says_yes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = parse(&bytes) {
                prop_assert_eq!(value, serde_json::from_slice::<Value>(&bytes).unwrap());
            }
        }
    }
}
