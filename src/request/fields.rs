//! The fields that a schema names, level by level, and what of a body they do not name: near misses of a known name
//! are faults, because `duratoin` would silently buy a video of another length; other unknown fields are forwarded.

use std::collections::{BTreeMap, HashMap};

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::path::Path;
use super::settings::UnknownFields;
use crate::error::Fault;

/// The most levels of one schema, the most names that [`Fields::paths`] lists, and how deep it looks.
const MAX_LEVELS: usize = 4096;
const MAX_PATHS: usize = 256;
const MAX_PATH_DEPTH: usize = 6;

/// Up to so many letters, a name allows one slip, a longer one two.
const SHORT_NAME: usize = 5;
/// The longest name that is compared at all, in bytes.
const MAX_NAME: usize = 256;
/// Names that xAI's API knows (`UPSTREAM.md` §2.2): never a near miss of something else.
const KNOWN_UPSTREAM: [&str; 26] = [
    "aspect_ratio",
    "duration",
    "expires_after",
    "file_id",
    "filename",
    "generate_audio",
    "image",
    "image_url",
    "keyframes",
    "last_frame",
    "model",
    "output",
    "prompt",
    "public_url",
    "reference_audios",
    "reference_images",
    "resolution",
    "seconds",
    "storage_options",
    "timestamp_s",
    "upload_url",
    "url",
    "user",
    "video",
    "video_url",
    "voice_id",
];

/// What a schema says about the names of fields; compiled once.
#[derive(Default)]
pub(super) struct Fields {
    levels: Vec<Level>,
}

/// The names allowed in one place of a body. Levels refer to each other by number, so a schema may contain itself.
#[derive(Default)]
struct Level {
    properties: BTreeMap<Box<str>, Property>,
    /// Whether a key fits `patternProperties`.
    patterns: Option<Validator>,
    /// The schema of fields that are not named.
    others: Option<usize>,
    /// Fields are named by something this reader does not follow, so none can be called unknown.
    opaque: bool,
    first_items: Vec<usize>,
    items: Option<usize>,
}

/// A named field.
struct Property {
    level: usize,
    /// What to say where the field is deprecated.
    deprecated: Option<Box<str>>,
}

impl Fields {
    /// The levels of a schema that is known to be valid.
    pub(super) fn of(schema: &Value) -> Self {
        let mut reader = Reader { root: schema, numbers: HashMap::new(), found: Vec::new() };
        reader.number(vec![schema]);
        let mut levels = Vec::new();
        while let Some(place) = reader.found.get(levels.len()).cloned() {
            levels.push(reader.level(&place));
        }
        Self { levels }
    }

    /// The faults of fields that the schema does not name.
    pub(super) fn unknown(&self, body: &Value, unknown_fields: UnknownFields) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.walk(0, body, &mut Path::default(), &mut |path, name, level| {
            if level.properties.contains_key(name) || !level.tells_unknown(name) {
                return;
            }
            let near = match KNOWN_UPSTREAM.contains(&name) {
                true => None,
                false => nearest(name, level.properties.keys().map(AsRef::as_ref)),
            };
            let (code, message) = match (near, unknown_fields) {
                (Some(known), _) => ("near_miss", format!("unknown field: did you mean {known}?")),
                (None, UnknownFields::Refuse) => ("unknown_field", "unknown field: remove it".to_owned()),
                (None, UnknownFields::Forward) => return,
            };
            faults.push(Fault { param: path.with(name), code, message });
        });
        faults
    }

    /// What to say about the deprecated fields that a body holds.
    pub(super) fn deprecated(&self, body: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.may_hold_deprecated(body) {
            return warnings;
        }
        self.walk(0, body, &mut Path::default(), &mut |path, name, level| {
            if let Some(text) = level.properties.get(name).and_then(|property| property.deprecated.as_deref()) {
                warnings.push(format!("{}: {text}", path.with(name)));
            }
        });
        warnings
    }

    /// Whether a walk through the body could find one: nearly never, and asked of every submission.
    fn may_hold_deprecated(&self, body: &Value) -> bool {
        let mut levels = self.levels.iter().map(|level| &level.properties);
        let outermost = levels.next();
        let is_deprecated = |property: &Property| property.deprecated.is_some();
        let in_the_body = outermost.is_some_and(|properties| {
            properties.iter().any(|(name, property)| is_deprecated(property) && body.get(&**name).is_some())
        });
        in_the_body || levels.any(|properties| properties.values().any(is_deprecated))
    }

    /// The paths of all named fields, `keyframes[].image.url`, sorted.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.list(0, 0, &mut Path::default(), &mut paths);
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Tells `seen` every field of `value` with its level and the path of the object around it.
    fn walk(&self, level: usize, value: &Value, path: &mut Path, seen: &mut dyn FnMut(&Path, &str, &Level)) {
        let Some(level) = self.levels.get(level) else {
            return;
        };
        match value {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    seen(path, name, level);
                    let next = level.properties.get(name.as_str()).map(|property| property.level).or(level.others);
                    if let (Some(next), true) = (next, inner.is_object() || inner.is_array()) {
                        let length = path.push_key(name);
                        self.walk(next, inner, path, seen);
                        path.cut(length);
                    }
                }
            }
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    if let Some(next) = level.first_items.get(index).copied().or(level.items) {
                        let length = path.push_index(index);
                        self.walk(next, inner, path, seen);
                        path.cut(length);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn list(&self, level: usize, depth: usize, path: &mut Path, paths: &mut Vec<String>) {
        let Some(level) = self.levels.get(level).filter(|_| depth < MAX_PATH_DEPTH) else {
            return;
        };
        for (name, property) in &level.properties {
            if paths.len() == MAX_PATHS {
                return;
            }
            let length = path.push_key(name);
            paths.push(path.as_str().to_owned());
            self.list(property.level, depth + 1, path, paths);
            path.cut(length);
        }
        for &items in level.first_items.iter().chain(&level.items) {
            let length = path.push_any();
            self.list(items, depth + 1, path, paths);
            path.cut(length);
        }
    }
}

impl Level {
    /// Whether a name that is not among the properties is unknown here.
    fn tells_unknown(&self, name: &str) -> bool {
        let free = self.opaque || self.others.is_some() || self.properties.is_empty();
        !free && !self.patterns.as_ref().is_some_and(|patterns| patterns.is_valid(&Value::from(name)))
    }
}

/// The fault of a field that is none of the `known` ones, where nobody else could know it.
pub(crate) fn stranger(param: String, name: &str, known: &[&str]) -> Fault {
    match nearest(name, known.iter().copied()) {
        Some(near) => Fault { param, code: "near_miss", message: format!("is not known here: did you mean {near}?") },
        None => Fault { param, code: "unknown_field", message: "is not known here".to_owned() },
    }
}

/// The known name that `name` was probably meant to be.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A very long name is far from all; looking at its length first bounds the work.
    let name = (name.len() <= MAX_NAME).then(|| name.to_lowercase().replace('-', "_"))?;
    let length = name.chars().count();
    let distances = known.filter_map(|known| {
        let letters = known.chars().count();
        let allowed = if letters <= SHORT_NAME { 1 } else { 2 };
        if letters.abs_diff(length) > allowed {
            return None;
        }
        let distance = strsim::damerau_levenshtein(&name, &known.to_lowercase().replace('-', "_"));
        (distance <= allowed).then_some((distance, known))
    });
    distances.min().map(|(_, known)| known)
}

/// Reads a schema into levels. A place is the set of subschemas that speak about the same value.
struct Reader<'a> {
    root: &'a Value,
    numbers: HashMap<Vec<usize>, usize>,
    found: Vec<Place<'a>>,
}

#[derive(Clone, Default)]
struct Place<'a> {
    schemas: Vec<&'a Map<String, Value>>,
    opaque: bool,
}

impl<'a> Reader<'a> {
    /// The number of the level that these subschemas make together.
    fn number(&mut self, schemas: Vec<&'a Value>) -> usize {
        let place = self.gather(schemas);
        let mut key: Vec<usize> = place.schemas.iter().map(|schema| std::ptr::from_ref(*schema).addr()).collect();
        key.sort_unstable();
        let next = self.found.len();
        if next >= MAX_LEVELS {
            // Nothing stands at this number: what is nested deeper is not looked at.
            return usize::MAX;
        }
        *self.numbers.entry(key).or_insert_with(|| {
            self.found.push(place);
            next
        })
    }

    /// The given subschemas and all that apply to the same value through them.
    fn gather(&self, mut open: Vec<&'a Value>) -> Place<'a> {
        let mut place = Place::default();
        while let Some(schema) = open.pop() {
            let Value::Object(schema) = schema else {
                continue;
            };
            if place.schemas.iter().any(|known| std::ptr::eq(*known, schema)) {
                continue;
            }
            place.schemas.push(schema);
            for keyword in ["allOf", "anyOf", "oneOf"] {
                open.extend(schema.get(keyword).and_then(Value::as_array).into_iter().flatten());
            }
            open.extend(["if", "then", "else", "not"].iter().filter_map(|keyword| schema.get(*keyword)));
            let dependent = schema.get("dependentSchemas").and_then(Value::as_object);
            open.extend(dependent.into_iter().flat_map(Map::values));
            match schema.get("$ref").and_then(Value::as_str).map(|reference| self.resolve(reference)) {
                Some(Some(target)) => open.push(target),
                Some(None) => place.opaque = true,
                None => {}
            }
            place.opaque |= schema.contains_key("$dynamicRef");
        }
        place
    }

    /// What a reference inside the same file points at; anchors and ids are not followed.
    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }

    fn level(&mut self, place: &Place<'a>) -> Level {
        let schemas = &place.schemas;
        let mut level = Level { opaque: place.opaque, ..Level::default() };
        let mut named: BTreeMap<&'a str, Vec<&'a Value>> = BTreeMap::new();
        let mut patterns: Vec<Value> = Vec::new();
        for schema in schemas {
            for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                named.entry(name).or_default().push(inner);
            }
            let keys = schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
            patterns.extend(keys.map(|pattern| json!({"pattern": pattern})));
        }
        for (name, inner) in named {
            let deprecated = inner.iter().find(|schema| schema.get("deprecated") == Some(&Value::Bool(true)));
            let deprecated = deprecated.map(|schema| deprecation(schema));
            level.properties.insert(name.into(), Property { level: self.number(inner), deprecated });
        }
        if !patterns.is_empty() {
            let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
            level.patterns = options.build(&json!({"anyOf": patterns})).ok();
            level.opaque |= level.patterns.is_none();
        }
        let others = every(schemas, "additionalProperties").chain(every(schemas, "unevaluatedProperties"));
        level.others = self.some(others.collect());
        level.items = self.some(every(schemas, "items").chain(every(schemas, "unevaluatedItems")).collect());
        let first = |schema: &&'a Map<String, Value>| schema.get("prefixItems").and_then(Value::as_array);
        let length = schemas.iter().filter_map(first).map(Vec::len).max().unwrap_or(0);
        for index in 0..length {
            let items = schemas.iter().filter_map(|schema| first(schema)?.get(index)).collect();
            level.first_items.push(self.number(items));
        }
        level
    }

    fn some(&mut self, schemas: Vec<&'a Value>) -> Option<usize> {
        (!schemas.is_empty()).then(|| self.number(schemas))
    }
}

/// The subschemas under one keyword; `true` and `false` name no fields.
fn every<'s, 'a>(
    schemas: &'s [&'a Map<String, Value>],
    keyword: &'static str,
) -> impl Iterator<Item = &'a Value> + use<'s, 'a> {
    schemas.iter().filter_map(move |schema| schema.get(keyword)).filter(|schema| schema.is_object())
}

/// What a deprecated field's schema says, if it can stand in a header.
fn deprecation(schema: &Value) -> Box<str> {
    let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let fits = (1..=200).contains(&description.len()) && description.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if fits { description.into() } else { "deprecated".into() }
}

#[cfg(test)]
mod tests;
