//! The metrics that name fields of bodies. A field is named only if a schema in force knows it, a rule only if it is
//! one of ours; everything else is `other` (`HARDENING.md` T-32).

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::IntCounterVec;

use super::family::Builder;

/// What was wrong with bodies, by field.
pub struct Fields {
    invalid: IntCounterVec,
    deprecated: IntCounterVec,
    known: ArcSwap<HashSet<Arc<str>>>,
}

impl Fields {
    pub(super) fn new(make: &Builder<'_>) -> prometheus::Result<Self> {
        let invalid = "Faults of submissions, by field and rule.";
        let invalid = make.counter_vector("invalid_total", invalid, &["param", "code"])?;
        let deprecated = "Deprecated fields that were sent.";
        let deprecated = make.counter_vector("deprecated_fields_total", deprecated, &["param"])?;
        invalid.get_metric_with_label_values(&[OTHER, OTHER])?;
        deprecated.get_metric_with_label_values(&[OTHER])?;
        Ok(Self { invalid, deprecated, known: ArcSwap::default() })
    }

    /// Adds names of fields that may stand in `param`: those of the schemas in force. Names once known stay; past a
    /// bound, further ones are `other`.
    pub fn know<'name>(&self, names: impl IntoIterator<Item = &'name str>) {
        let mut known = HashSet::clone(&self.known.load());
        for name in names {
            if known.len() < MAX_KNOWN {
                known.insert(name.into());
            }
        }
        self.known.store(Arc::new(known));
    }

    /// Counts one fault: refused or (`validation.mode = "warn"`) forwarded. A body as a whole has an empty name.
    pub fn invalid(&self, param: &str, code: &str) {
        let code = CODES.iter().find(|known| **known == code).unwrap_or(&OTHER);
        self.invalid.with_label_values(&[self.label(param).as_deref().unwrap_or(OTHER), code]).inc();
    }

    /// Counts a deprecated field.
    pub fn deprecated(&self, param: &str) {
        self.deprecated.with_label_values(&[self.label(param).as_deref().unwrap_or(OTHER)]).inc();
    }

    /// The label of a field that a fault or a warning names, if a schema in force knows it: `keyframes[7].image.url` is
    /// `keyframes[].image.url` there, and an item that no schema names is its array.
    pub fn label(&self, param: &str) -> Option<Arc<str>> {
        let known = self.known.load();
        let any_item = without_indices(param);
        known.get(&*any_item).or_else(|| known.get(any_item.trim_end_matches("[]"))).cloned()
    }
}

/// A field's path with each index left out: an array has as many as a client likes.
fn without_indices(param: &str) -> Cow<'_, str> {
    let mut parts = param.split('[');
    let first = parts.next().unwrap_or_default();
    parts.fold(Cow::Borrowed(first), |mut path, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        // Brackets around anything else are a name's own.
        path.to_mut().extend(["[", if rest.starts_with(']') { rest } else { part }]);
        path
    })
}

/// The value of a label whose true value is in no closed list.
const OTHER: &str = "other";
/// How many names of fields may become labels.
const MAX_KNOWN: usize = 256;
/// The rules that a fault may name: JSON Schema's keywords and our own.
const CODES: [&str; 33] = [
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "dependentRequired",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "invalid_json",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "near_miss",
    "not",
    "oneOf",
    "pattern",
    "propertyNames",
    "required",
    "type",
    "unevaluatedProperties",
    "uniqueItems",
    "unknown_field",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Fault};
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn t32_what_a_client_invents_becomes_no_label() {
        let metrics = Metrics::new("1").unwrap();
        let fields = &metrics.fields;
        fields.know(["prompt", "image.url", "size"]);
        for number in 0..1_000 {
            fields.invalid(&format!("invented{number}"), "unknown_field");
            fields.deprecated(&format!("invented{number}"));
        }
        fields.invalid("image.url", "pattern");
        fields.invalid("prompt", "a rule of nobody's");
        fields.deprecated("size");
        let fault = |code| Fault { param: "prompt".to_owned(), code, message: String::new() };
        metrics.refused(&Error::InvalidJson { message: String::new() });
        metrics.refused(&Error::InvalidRequest(vec![fault("required"), fault("type")]));
        let text = String::from_utf8(metrics.text().to_vec()).unwrap();
        let seen = |name: &str| {
            let mut seen: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(name)).collect();
            seen.sort_unstable();
            seen
        };
        let want = [
            "{code=\"invalid_json\",param=\"other\"} 1",
            "{code=\"other\",param=\"other\"} 0",
            "{code=\"other\",param=\"prompt\"} 1",
            "{code=\"pattern\",param=\"image.url\"} 1",
            "{code=\"required\",param=\"prompt\"} 1",
            "{code=\"type\",param=\"prompt\"} 1",
            "{code=\"unknown_field\",param=\"other\"} 1000",
        ];
        assert_eq!(seen("reelgate_invalid_total"), want);
        assert_eq!(seen("reelgate_deprecated_fields_total"), ["{param=\"other\"} 1000", "{param=\"size\"} 1"]);
    }

    #[test]
    fn t32_fields_inside_arrays_have_one_label_whatever_their_index() {
        let metrics = Metrics::new("1").unwrap();
        let fields = &metrics.fields;
        fields.know(["keyframes", "keyframes[].image.url", "grid", "grid[][].x", "a[b]", "a[b].c[].d"]);
        for (param, want) in [
            ("keyframes[0].image.url", "keyframes[].image.url"),
            ("keyframes[4294967295].image.url", "keyframes[].image.url"),
            ("keyframes[].image.url", "keyframes[].image.url"),
            ("keyframes[7]", "keyframes"),
            ("grid[1][22].x", "grid[][].x"),
            ("grid[1][2]", "grid"),
            ("a[b]", "a[b]"),
            ("a[b].c[3].d", "a[b].c[].d"),
        ] {
            assert_eq!(fields.label(param).as_deref(), Some(want), "{param}");
        }
        for foreign in ["", "[0]", "[]", "keyframes[x].image.url", "keyframes[0", "keyframes[0]]", "keyframes[0].image"]
        {
            assert_eq!(fields.label(foreign), None, "{foreign}");
        }
        for index in 0..3 {
            fields.deprecated(&format!("keyframes[{index}].image.url"));
            fields.invalid(&format!("keyframes[{index}].image.url"), "type");
        }
        let text = String::from_utf8(metrics.text().to_vec()).unwrap();
        for series in [
            "invalid_total{code=\"type\",param=\"keyframes[].image.url\"} 3",
            "deprecated_fields_total{param=\"keyframes[].image.url\"} 3",
        ] {
            assert!(text.contains(series), "{series} is not in {text}");
        }
    }

    #[test]
    fn t32_the_list_of_fields_is_bounded_and_keeps_the_first() {
        let metrics = Metrics::new("1").unwrap();
        metrics.fields.know(["prompt"]);
        let many: Vec<_> = (0..MAX_KNOWN * 2).map(|number| format!("field{number}")).collect();
        metrics.fields.know(many.iter().map(String::as_str));
        let known = metrics.fields.known.load();
        assert_eq!(known.len(), MAX_KNOWN);
        assert!(known.contains("prompt"));
    }
}
