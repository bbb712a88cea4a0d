//! The strict parser beside serde_json: what it takes means the same there, and it refuses only what it says it does.

use std::fmt;

use reelgate::request::json;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

pub const WORDS: &[&str] =
    &["{\"a\":", "}", "[", "]", "\"a\"", ",\"a\":1", "\\u0061", "1e5", "-", "false", "9007199254740992.0"];

/// The strict bounds (`src/request/json.rs`).
const DEPTH: usize = 32;
const FIELDS: usize = 256;
const VALUES: usize = 10_000;

pub fn run(input: &[u8]) {
    let strict = json::parse(input);
    let usual = serde_json::from_slice::<Value>(input);
    let shape = serde_json::from_slice::<Shape>(input);
    match (strict, usual) {
        (Ok(strict), usual) => {
            assert_eq!(Some(&strict), usual.as_ref().ok(), "it means something else");
            let shape = shape.expect("serde_json reads it");
            assert!(!shape.names_twice, "a name stands twice");
            assert!(shape.depth <= DEPTH && shape.values <= VALUES && shape.most_fields <= FIELDS, "{shape:?}");
            assert!(shape.is_exact, "a number was rounded");
        }
        (Err(error), Ok(_)) => {
            let shape = shape.expect("serde_json reads it");
            let is_said = shape.names_twice
                || shape.depth > DEPTH
                || shape.values > VALUES
                || shape.most_fields > FIELDS
                || !shape.is_exact;
            assert!(is_said, "refused without a reason: {error}");
            assert_eq!(error.code(), "invalid_json");
        }
        (Err(_), Err(_)) => {}
    }
}

/// What a text is like, found by another way than the strict parser's.
#[derive(Debug, Default)]
struct Shape {
    depth: usize,
    values: usize,
    most_fields: usize,
    names_twice: bool,
    is_exact: bool,
}

impl Shape {
    fn plain() -> Self {
        Self { values: 1, is_exact: true, ..Self::default() }
    }

    fn holding(parts: &[Self], fields: usize, names_twice: bool) -> Self {
        Self {
            depth: 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0),
            values: 1 + parts.iter().map(|part| part.values).sum::<usize>(),
            most_fields: parts.iter().map(|part| part.most_fields).max().unwrap_or(0).max(fields),
            names_twice: names_twice || parts.iter().any(|part| part.names_twice),
            is_exact: parts.iter().all(|part| part.is_exact),
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::plain())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::plain())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::plain())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::plain())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Shape, E> {
        Ok(Shape { is_exact: number.abs() < 9_007_199_254_740_992.0, ..Shape::plain() })
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::plain())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = list.next_element()? {
            parts.push(part);
        }
        Ok(Shape::holding(&parts, 0, false))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let (mut names, mut parts) = (Vec::new(), Vec::new());
        while let Some((name, part)) = map.next_entry::<String, Shape>()? {
            names.push(name);
            parts.push(part);
        }
        let fields = names.len();
        names.sort();
        names.dedup();
        Ok(Shape::holding(&parts, names.len(), names.len() < fields))
    }
}
