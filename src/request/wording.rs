//! Faults in words: what a JSON Schema validator found, told to whoever wrote the frontend. A message says what is
//! wrong and what is allowed; it never shows a prompt, a user, or the text of a `data:` URL.

use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind as Kind};
use jsonschema::types::JsonType;
use serde_json::Value;

use super::media;
use super::path::Path;
use crate::error::Fault;

/// How much of a value, and how many allowed values, a message shows.
const SHOWN_VALUE: usize = 40;
const SHOWN_OPTIONS: usize = 32;
/// How many alternatives of `anyOf` and `oneOf` a message tells.
const SHOWN_BRANCHES: usize = 4;
/// Fields whose value is shown to nobody.
const SILENT: [&str; 2] = ["prompt", "user"];
/// Keywords under which a rule holds on a condition only, so that its own words do not explain it.
const CONDITIONS: [&str; 5] = ["then", "else", "not", "dependentSchemas", "allOf"];

/// The faults behind one error of the validator.
pub(super) fn faults(error: &ValidationError<'_>, body: &Value, schema: &Value, found: &mut Vec<Fault>) {
    let path = Path::of_pointer(error.instance_path().as_str(), body);
    let code = code(error.kind());
    match error.kind() {
        Kind::Required { property } => {
            let param = path.with(property.as_str().unwrap_or_default());
            found.push(Fault { param, code, message: explained("is required".to_owned(), error, schema) });
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            found.extend(unexpected.iter().map(|name| Fault {
                param: path.with(name),
                code,
                message: explained("unknown field: remove it".to_owned(), error, schema),
            }));
        }
        Kind::Not { schema: forbidden } => {
            let together: Vec<&str> = names(forbidden.get("required"));
            let (param, message) = match together.split_last() {
                Some((last, [])) => (path.with(last), "is not allowed here".to_owned()),
                Some((last, others)) if forbidden.as_object().is_some_and(|not| not.len() == 1) => {
                    (path.with(last), format!("cannot stand beside {}: send only one of them", others.join(", ")))
                }
                _ => (path.into(), "has a form that is not allowed".to_owned()),
            };
            found.push(Fault { param, code, message: explained(message, error, schema) });
        }
        _ => {
            let message = explained(wrong(error, path.as_str()), error, schema);
            found.push(Fault { param: path.into(), code, message });
        }
    }
}

/// The keyword, as a label that lives as long as the program.
const fn code(kind: &Kind) -> &'static str {
    match kind {
        Kind::AdditionalItems { .. } => "additionalItems",
        Kind::AdditionalProperties { .. } => "additionalProperties",
        Kind::AnyOf { .. } => "anyOf",
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } | Kind::Pattern { .. } => "pattern",
        Kind::Constant { .. } => "const",
        Kind::Contains => "contains",
        Kind::ContentEncoding { .. } | Kind::FromUtf8 { .. } => "contentEncoding",
        Kind::ContentMediaType { .. } => "contentMediaType",
        Kind::Custom { .. } => "custom",
        Kind::Enum { .. } => "enum",
        Kind::ExclusiveMaximum { .. } => "exclusiveMaximum",
        Kind::ExclusiveMinimum { .. } => "exclusiveMinimum",
        Kind::FalseSchema => "false",
        Kind::Format { .. } => "format",
        Kind::MaxItems { .. } => "maxItems",
        Kind::Maximum { .. } => "maximum",
        Kind::MaxLength { .. } => "maxLength",
        Kind::MaxProperties { .. } => "maxProperties",
        Kind::MinItems { .. } => "minItems",
        Kind::Minimum { .. } => "minimum",
        Kind::MinLength { .. } => "minLength",
        Kind::MinProperties { .. } => "minProperties",
        Kind::MultipleOf { .. } => "multipleOf",
        Kind::Not { .. } => "not",
        Kind::OneOfMultipleValid { .. } | Kind::OneOfNotValid { .. } => "oneOf",
        Kind::PropertyNames { .. } => "propertyNames",
        Kind::Required { .. } => "required",
        Kind::Type { .. } => "type",
        Kind::UnevaluatedItems { .. } => "unevaluatedItems",
        Kind::UnevaluatedProperties { .. } => "unevaluatedProperties",
        Kind::UniqueItems => "uniqueItems",
        Kind::Referencing(_) => "$ref",
    }
}

/// What is wrong with the value itself.
fn wrong(error: &ValidationError<'_>, path: &str) -> String {
    let instance = error.instance().as_ref();
    let value = shown(instance, path);
    match error.kind() {
        Kind::Maximum { limit } => format!("{value} is greater than the maximum of {limit}"),
        Kind::Minimum { limit } => format!("{value} is less than the minimum of {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("{value} is not less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("{value} is not greater than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("{value} is not a multiple of {multiple_of}"),
        Kind::Enum { options } => format!("{value} is not one of {}", listed(options)),
        Kind::Constant { expected_value } => format!("{value} is not {}", shown(expected_value, "")),
        Kind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("has {} characters: send at least {limit}", letters(instance)),
        Kind::MaxLength { limit } => format!("has {} characters: send at most {limit}", letters(instance)),
        Kind::Pattern { pattern } if pattern == r"\S" => "must not be blank".to_owned(),
        Kind::Pattern { pattern } => format!("{value} does not match the pattern {}", cut(pattern)),
        Kind::Format { format } => match media::allowed(format) {
            Some(allowed) => format!("must be {allowed}"),
            None => format!("must have the form of a {}", cut(format)),
        },
        Kind::Type { kind } => mistyped(instance, kind, path),
        Kind::FalseSchema => "is not allowed here".to_owned(),
        Kind::MaxItems { limit } => format!("has {} items: send at most {limit}", size(instance)),
        Kind::MinItems { limit } => format!("has {} items: send at least {limit}", size(instance)),
        Kind::MaxProperties { limit } => format!("has {} fields: send at most {limit}", size(instance)),
        Kind::MinProperties { limit } => format!("has {} fields: send at least {limit}", size(instance)),
        Kind::AdditionalItems { limit } => format!("has {} items: send at most {limit}", size(instance)),
        Kind::UnevaluatedItems { .. } => "has items that the schema does not allow".to_owned(),
        Kind::UniqueItems => "holds an item twice".to_owned(),
        Kind::Contains => "lacks an item, or has one too many, of a kind that the schema counts".to_owned(),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => alternatives(error, context, path),
        Kind::OneOfMultipleValid { .. } => "fits more than one of the forms of which it must have one".to_owned(),
        Kind::PropertyNames { error } => format!("has a field whose name is not allowed: {}", wrong(error, "user")),
        Kind::ContentEncoding { content_encoding } => format!("is not encoded as {}", cut(content_encoding)),
        Kind::ContentMediaType { content_media_type } => format!("is not {}", cut(content_media_type)),
        Kind::FromUtf8 { .. } => "is not UTF-8 once decoded".to_owned(),
        Kind::Required { property } => format!("{} is required", property.as_str().unwrap_or_default()),
        Kind::Not { .. } => "has a form that is not allowed".to_owned(),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => "has unknown fields".to_owned(),
        Kind::Custom { .. }
        | Kind::BacktrackLimitExceeded { .. }
        | Kind::RegexEngineFailure { .. }
        | Kind::Referencing(_) => "could not be checked against the schema".to_owned(),
    }
}

/// What the types should have been, and how to send what was probably meant.
fn mistyped(instance: &Value, kind: &TypeKind, path: &str) -> String {
    let types: Vec<JsonType> = match kind {
        TypeKind::Single(single) => vec![*single],
        TypeKind::Multiple(set) => set.iter().collect(),
    };
    let wanted = types.iter().map(|kind| article(kind.as_str())).collect::<Vec<_>>().join(" or ");
    let found = match instance {
        Value::Number(_) if types.contains(&JsonType::Integer) => return format!("must be {wanted}, not {instance}"),
        Value::Null => return format!("must be {wanted}, not null: leave the field out instead"),
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let numeric = types.contains(&JsonType::Integer) || types.contains(&JsonType::Number);
    let meant = match instance {
        _ if is_silent(path) => None,
        Value::String(text) if numeric && text.len() <= SHOWN_VALUE => {
            let number = serde_json::from_str::<serde_json::Number>(text).ok();
            number
                .filter(|number| !number.is_f64() || types.contains(&JsonType::Number))
                .map(|number| number.to_string())
        }
        Value::Number(number) if types.contains(&JsonType::String) => Some(format!("\"{number}\"")),
        _ => None,
    };
    let found_with_article = article(found);
    match meant {
        Some(meant) => format!("must be {wanted}, not {found_with_article}: send {meant}, not {instance}"),
        None => format!("must be {wanted}, not {found_with_article}"),
    }
}

/// The alternatives of which none fits.
fn alternatives(error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>], path: &str) -> String {
    let required = |branch: &Vec<ValidationError<'static>>| match branch.as_slice() {
        [error] => match error.kind() {
            Kind::Required { property } => property.as_str().map(str::to_owned),
            _ => None,
        },
        _ => None,
    };
    if let Some(fields) = context.iter().map(required).collect::<Option<Vec<_>>>().filter(|fields| !fields.is_empty()) {
        return format!("needs one of {}", fields.join(", "));
    }
    let outer = error.instance_path().as_str();
    let told = context.iter().filter_map(|branch| branch.first()).take(SHOWN_BRANCHES).map(|inner| {
        let pointer = inner.instance_path().as_str();
        let inside = Path::of_pointer(pointer.strip_prefix(outer).unwrap_or_default(), error.instance());
        let wrong = wrong(inner, if inside.as_str().is_empty() { path } else { inside.as_str() });
        if inside.as_str().is_empty() { wrong } else { format!("{} {wrong}", inside.as_str()) }
    });
    format!("has none of the allowed forms: {}", told.collect::<Vec<_>>().join("; or "))
}

/// The message, and why the rule holds where it holds on a condition: the description beside the rule.
fn explained(message: String, error: &ValidationError<'_>, schema: &Value) -> String {
    let pointer = error.schema_path().as_str();
    let conditional = pointer.split('/').any(|step| CONDITIONS.contains(&step));
    let rule = conditional.then(|| pointer.rsplit_once('/')).flatten().and_then(|(parent, _)| schema.pointer(parent));
    match rule.and_then(|rule| rule.get("description")).and_then(Value::as_str) {
        Some(reason) if pointer.matches('/').count() > 1 => format!("{message}: {reason}"),
        _ => message,
    }
}

fn is_silent(path: &str) -> bool {
    let last = path.rsplit(['.', '/']).next().unwrap_or_default();
    SILENT.iter().any(|silent| last.eq_ignore_ascii_case(silent))
}

/// A value as a message shows it: short, and silent about what nobody should read in a log.
fn shown(value: &Value, path: &str) -> String {
    match value {
        _ if is_silent(path) => "this value".to_owned(),
        Value::String(text) if media::strip_prefix(text.trim_start(), "data:").is_some() => "this value".to_owned(),
        Value::String(text) => Value::from(cut(text)).to_string(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The allowed values; strings without quotes, because that is how people name them.
fn listed(options: &Value) -> String {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    let named = options.iter().take(SHOWN_OPTIONS).map(|option| match option {
        Value::String(text) if !text.is_empty() => cut(text),
        _ => shown(option, ""),
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    if options.len() > SHOWN_OPTIONS {
        text.push_str(", …");
    }
    text
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_VALUE) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

fn names(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn letters(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn article(noun: &str) -> String {
    match noun {
        "null" => noun.to_owned(),
        _ if noun.starts_with(['a', 'i', 'o']) => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}
