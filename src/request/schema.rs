//! What a body must look like: a JSON Schema (draft 2020-12) for each operation, built in or the operator's own. The
//! common case is one quick yes; only a body that fails is looked at again for all its faults. Regular expressions run
//! on a linear engine, formats are checked, and no reference leaves the file.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::fields::Fields;
use super::route::Operation;
use super::settings::UnknownFields;
use super::{media, wording};
use crate::error::Fault;

/// The most faults of one body that are told.
const MAX_FAULTS: usize = 64;

/// A compiled schema.
pub struct Schema {
    is_builtin: bool,
    document: Value,
    validator: Validator,
    fields: Fields,
    params: Vec<String>,
}

impl Schema {
    /// The schema that comes with the gateway.
    pub fn builtin(operation: Operation) -> Self {
        let text = match operation {
            Operation::Generations => include_str!("schemas/generations.json"),
            Operation::Edits => include_str!("schemas/edits.json"),
        };
        #[expect(clippy::expect_used, reason = "constant input; a test compiles both schemas")]
        let schema = Self::from_text(operation, text).expect("the built-in schema is valid");
        Self { is_builtin: true, ..schema }
    }

    /// Whether it is the one that comes with the gateway.
    pub const fn is_builtin(&self) -> bool {
        self.is_builtin
    }

    /// An operator's own schema.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn from_text(operation: Operation, text: &str) -> Result<Self, String> {
        let name = operation.name();
        let document: Value = serde_json::from_str(text).map_err(|error| format!("{name}: not JSON: {error}"))?;
        if !document.is_object() {
            return Err(format!("{name}: a JSON Schema is an object"));
        }
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .with_format(media::IMAGE, media::is_image)
            .with_format(media::VIDEO, media::is_video)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .build(&document)
            .map_err(|error| {
                format!("{name}: not a JSON Schema (draft 2020-12): at #{}: {error}", error.instance_path())
            })?;
        let fields = Fields::of(&document);
        let params = fields.paths();
        Ok(Self { is_builtin: false, document, validator, fields, params })
    }

    /// All faults of a body, in the order of their fields.
    pub fn check(&self, body: &Value, unknown_fields: UnknownFields) -> Vec<Fault> {
        let unknown = self.fields.unknown(body, unknown_fields);
        if !body.is_object() {
            let message = "the body must be a JSON object".to_owned();
            return vec![Fault { param: String::new(), code: "type", message }];
        }
        if unknown.is_empty() && self.validator.is_valid(body) {
            return unknown;
        }
        let mut faults = unknown;
        for error in self.validator.iter_errors(body) {
            wording::faults(&error, body, &self.document, &mut faults);
        }
        sort(faults)
    }

    /// What to tell about deprecated fields in a body: `size: deprecated, …`.
    pub fn warnings(&self, body: &Value) -> Vec<String> {
        self.fields.deprecated(body)
    }

    /// The schema as it was given.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The fields that the schema names, as labels: `duration`, `image.url`, `keyframes[].image.url`; sorted.
    pub fn params(&self) -> &[String] {
        &self.params
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("title", &self.document.get("title")).finish_non_exhaustive()
    }
}

/// The faults in the order of their fields, each once, without those that only follow from another.
fn sort(mut faults: Vec<Fault>) -> Vec<Fault> {
    let rank = |fault: &Fault| match fault.code {
        "near_miss" => 0,
        "unknown_field" => 1,
        "type" => 2,
        _ => 3,
    };
    faults.sort_by(|a, b| (&a.param, rank(a), a.code, &a.message).cmp(&(&b.param, rank(b), b.code, &b.message)));
    faults.dedup();
    // A field that is unknown, or of the wrong type, breaks further rules only because of that.
    faults.dedup_by(|later, first| later.param == first.param && !later.param.is_empty() && rank(first) < 3);
    faults.truncate(MAX_FAULTS);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `param: message (code)` of each fault.
    fn told(schema: &Schema, body: &Value) -> Vec<String> {
        let faults = schema.check(body, UnknownFields::Forward);
        faults.iter().map(|fault| format!("{}: {} ({})", fault.param, fault.message, fault.code)).collect()
    }

    #[test]
    fn generations_are_checked_as_the_page_says() {
        let schema = Schema::builtin(Operation::Generations);
        let with = |more: Value| {
            let mut body = json!({"prompt": "a red kite"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let png = "data:image/png;base64,AAAA";
        for good in [
            json!({}),
            json!({"model": "any-model", "duration": 1}),
            json!({"duration": 15, "resolution": "480p", "aspect_ratio": "2:3", "user": "u1"}),
            json!({"duration": 8.0}),
            json!({"seconds": 8}),
            json!({"resolution": "1080p", "model": "grok-imagine-video-1.5"}),
            json!({"image": {"url": "https://example.com/a.png"}}),
            json!({"image": {"url": png, "detail": "high"}}),
            json!({"output": {"upload_url": "https://example.com/put?sig=1"}, "size": "1280x720"}),
            json!({"reference_images": [{"url": "x"}], "seed": 7, "metadata": {"a": [null]}}),
        ] {
            assert_eq!(told(&schema, &with(good.clone())), Vec::<String>::new(), "{good}");
        }
        for (bad, want) in [
            (json!({"duration": 20}), "duration: 20 is greater than the maximum of 15 (maximum)"),
            (json!({"duration": 0}), "duration: 0 is less than the minimum of 1 (minimum)"),
            (json!({"duration": "8"}), r#"duration: must be an integer, not a string: send 8, not "8" (type)"#),
            (json!({"duration": "eight"}), "duration: must be an integer, not a string (type)"),
            (json!({"duration": 8.5}), "duration: must be an integer, not 8.5 (type)"),
            (json!({"duration": null}), "duration: must be an integer, not null: leave the field out instead (type)"),
            (json!({"seconds": 16}), "seconds: 16 is greater than the maximum of 15 (maximum)"),
            (
                json!({"seconds": 8, "duration": 8}),
                "seconds: cannot stand beside duration: send only one of them (not)",
            ),
            (json!({"resolution": "4k"}), r#"resolution: "4k" is not one of 480p, 720p (enum)"#),
            (json!({"resolution": 720}), r#"resolution: must be a string, not a number: send "720", not 720 (type)"#),
            (
                json!({"resolution": "1080p"}),
                r#"resolution: "1080p" is not one of 480p, 720p: 1080p needs the model grok-imagine-video-1.5 (enum)"#,
            ),
            (
                json!({"resolution": "1440p", "model": "grok-imagine-video-1.5"}),
                r#"resolution: "1440p" is not one of 480p, 720p, 1080p (enum)"#,
            ),
            (
                json!({"aspect_ratio": "16x9"}),
                r#"aspect_ratio: "16x9" is not one of 1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3 (enum)"#,
            ),
            (json!({"prompt": ""}), "prompt: must not be blank (pattern)"),
            (json!({"prompt": " \n\t"}), "prompt: must not be blank (pattern)"),
            (json!({"prompt": null}), "prompt: must be a string, not null: leave the field out instead (type)"),
            (json!({"prompt": ["a"]}), "prompt: must be a string, not an array (type)"),
            (json!({"prompt": 7}), "prompt: must be a string, not a number (type)"),
            (json!({"model": true}), "model: must be a string, not a boolean (type)"),
            (json!({"image": png}), "image: must be an object, not a string (type)"),
            (json!({"image": {}}), "image.url: is required (required)"),
            (
                json!({"image": {"url": "data:image/png;base64,AAA"}}),
                "image.url: must be an http or https URL, or data:image/…;base64,… with padding and without white space (format)",
            ),
            (json!({"output": "x"}), "output: must be an object, not a string (type)"),
            (json!({"size": 1}), r#"size: must be a string, not a number: send "1", not 1 (type)"#),
        ] {
            assert_eq!(told(&schema, &with(bad.clone())), [want], "{bad}");
        }
        assert_eq!(told(&schema, &json!({})), ["prompt: is required (required)"]);
        for body in [json!([]), json!("a"), json!(null), json!(1)] {
            assert_eq!(told(&schema, &body), [": the body must be a JSON object (type)"]);
        }
    }

    #[test]
    fn edits_need_a_prompt_and_a_video_by_url_or_file() {
        let schema = Schema::builtin(Operation::Edits);
        for good in [
            json!({"prompt": "x", "video": {"url": "https://example.com/a.mp4"}}),
            json!({"prompt": "x", "video": {"file_id": "file-1"}, "storage_options": {"filename": "a"}}),
            json!({"prompt": "x", "video": {"url": "data:video/mp4;base64,AAAA"}, "model": "m", "user": "u"}),
        ] {
            assert_eq!(told(&schema, &good), Vec::<String>::new(), "{good}");
        }
        assert_eq!(told(&schema, &json!({})), ["prompt: is required (required)", "video: is required (required)"]);
        let empty = json!({"prompt": "x", "video": {}});
        assert_eq!(told(&schema, &empty), ["video: needs one of url, file_id (anyOf)"]);
        let wrong = json!({"prompt": "x", "video": {"url": "a.mp4"}});
        assert!(told(&schema, &wrong)[0].starts_with("video.url: must be an http or https URL"));
    }

    #[test]
    fn all_faults_come_at_once_in_the_order_of_their_fields() {
        let schema = Schema::builtin(Operation::Generations);
        let body = json!({"duratoin": 3, "resolution": "4k", "duration": 20, "image": {"url": 1}, "modle": "m"});
        let params: Vec<String> =
            schema.check(&body, UnknownFields::Forward).into_iter().map(|fault| fault.param).collect();
        assert_eq!(params, ["duration", "duratoin", "image.url", "modle", "prompt", "resolution"]);
    }

    #[test]
    fn lim10_a_prompt_has_65536_characters_at_most() {
        for operation in [Operation::Generations, Operation::Edits] {
            let schema = Schema::builtin(operation);
            let told = |prompt: String| told(&schema, &json!({"prompt": prompt, "video": {"file_id": "f"}}));
            assert_eq!(told("\u{e9}".repeat(65_536)), Vec::<String>::new(), "characters count, not bytes");
            assert_eq!(told("a".repeat(65_537)), ["prompt: has 65537 characters: send at most 65536 (maxLength)"]);
        }
    }

    #[test]
    fn no_message_shows_a_prompt_a_user_or_a_data_url() {
        let schema = Schema::from_text(
            Operation::Generations,
            r#"{"properties": {
                "prompt": {"type": "integer", "enum": [1], "pattern": "^b", "not": {"type": "string"}},
                "user": {"type": "integer", "const": 1, "anyOf": [{"const": "a"}, {"pattern": "^x$"}]},
                "image": {"properties": {"url": {"enum": ["a"], "pattern": "^b", "const": 5}}},
                "any": {"oneOf": [{"enum": ["b"]}, {"maximum": 1, "pattern": "^c"}]}}}"#,
        )
        .unwrap();
        let secret = "123456";
        let body = json!({"prompt": secret, "user": secret, "image": {"url": format!("data:image/png;base64,{secret}")},
            "any": format!("Data:{secret}")});
        let faults = schema.check(&body, UnknownFields::Forward);
        assert!(faults.len() >= 6, "{faults:?}");
        assert!(faults.iter().all(|fault| !fault.message.contains(secret)), "{faults:?}");
    }

    #[test]
    fn an_operators_schema_is_told_the_same_way() {
        let schema = Schema::from_text(
            Operation::Generations,
            r##"{
                "$defs": {"media": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "format": "uri"}}}},
                "properties": {
                    "image": {"$ref": "#/$defs/media"},
                    "keyframes": {"type": "array", "maxItems": 2, "uniqueItems": true,
                        "items": {"properties": {"image": {"$ref": "#/$defs/media"}, "timestamp_s": {"exclusiveMinimum": 0}}}},
                    "tags": {"prefixItems": [{"const": "a"}], "items": false},
                    "style": {"oneOf": [{"enum": ["x", "y"]}, {"type": "integer", "multipleOf": 5}]},
                    "either": {"anyOf": [{"properties": {"b": {"properties": {"c": {"type": "integer"}}}}}, {"required": ["a"]}]},
                    "code": {"pattern": "^[a-z]+$", "minLength": 3},
                    "off": false
                },
                "dependentSchemas": {"loop": {"required": ["duration"]}},
                "allOf": [{"if": {"required": ["fast"]}, "then": {"properties": {"duration": {"maximum": 5, "description": "fast videos are short"}}}}],
                "not": {"properties": {"mode": {"const": "bad"}}, "required": ["mode"]},
                "propertyNames": {"maxLength": 20},
                "maxProperties": 9
            }"##,
        )
        .unwrap();
        for (body, want) in [
            (json!({"image": {}}), "image.url: is required (required)"),
            (json!({"image": {"url": "not a uri"}}), "image.url: must have the form of a uri (format)"),
            (
                json!({"keyframes": [{"image": {"url": 1}}]}),
                "keyframes[0].image.url: must be a string, not a number: send \"1\", not 1 (type)",
            ),
            (
                json!({"keyframes": [{}, {"timestamp_s": 0}]}),
                "keyframes[1].timestamp_s: 0 is not greater than 0 (exclusiveMinimum)",
            ),
            (json!({"keyframes": [{}, {"a": 1}, {"b": 1}]}), "keyframes: has 3 items: send at most 2 (maxItems)"),
            (json!({"keyframes": [{}, {}]}), "keyframes: holds an item twice (uniqueItems)"),
            (json!({"tags": ["b"]}), "tags[0]: \"b\" is not \"a\" (const)"),
            (json!({"tags": ["a", "b"]}), "tags[1]: is not allowed here (false)"),
            (
                json!({"style": "z"}),
                "style: has none of the allowed forms: \"z\" is not one of x, y; or must be an integer, not a string (oneOf)",
            ),
            (
                json!({"either": {"b": {"c": "x"}}}),
                "either: has none of the allowed forms: b.c must be an integer, not a string; or a is required (anyOf)",
            ),
            (json!({"code": "A1b2"}), "code: \"A1b2\" does not match the pattern ^[a-z]+$ (pattern)"),
            (json!({"code": "ab"}), "code: has 2 characters: send at least 3 (minLength)"),
            (json!({"off": 1}), "off: is not allowed here (false)"),
            (json!({"loop": 1}), "duration: is required (required)"),
            (
                json!({"fast": true, "duration": 6}),
                "duration: 6 is greater than the maximum of 5: fast videos are short (maximum)",
            ),
            (json!({"mode": "bad"}), "mode: is not allowed here (not)"),
            (
                json!({"a_name_that_is_too_long": 1}),
                ": has a field whose name is not allowed: has 23 characters: send at most 20 (propertyNames)",
            ),
        ] {
            assert_eq!(told(&schema, &body), [want], "{body}");
        }
        let closed = r#"{"properties": {"prompt": {}}, "additionalProperties": false}"#;
        let closed = Schema::from_text(Operation::Edits, closed).unwrap();
        assert_eq!(told(&closed, &json!({"sed": 1})), ["sed: unknown field: remove it (additionalProperties)"]);
        assert_eq!(told(&closed, &json!({"promt": 1})), ["promt: unknown field: did you mean prompt? (near_miss)"]);
    }

    #[test]
    fn a_bad_schema_is_refused_with_the_reason() {
        for (text, want) in [
            ("{", "edits: not JSON"),
            ("true", "edits: a JSON Schema is an object"),
            (r#"{"type": "integr"}"#, "at #/type"),
            (r#"{"properties": {"a": {"minimum": "1"}}}"#, "at #/properties/a/minimum"),
            (r#"{"properties": {"a": {"format": "imagurl"}}}"#, "imagurl"),
            (r#"{"properties": {"a": {"pattern": "("}}}"#, "at #/properties/a/pattern"),
            (r#"{"properties": {"a": {"pattern": "(a)\\1"}}}"#, "at #/properties/a/pattern"),
            (r##"{"properties": {"a": {"$ref": "#/$defs/none"}}}"##, "none"),
            (r#"{"properties": {"a": {"$ref": "https://example.com/schema.json"}}}"#, "example.com"),
            (r#"{"properties": {"a": {"$ref": "file:///etc/hostname"}}}"#, "hostname"),
        ] {
            let error = Schema::from_text(Operation::Edits, text).unwrap_err();
            assert!(error.starts_with("edits: ") && error.contains(want), "{error:?} lacks {want:?}");
        }
    }

    #[test]
    fn faults_and_labels_are_bounded() {
        let text = r#"{"properties": {"keyframes": {"items": {"properties": {"image": {"properties": {"url": {"type": "string"}}}}}}}}"#;
        let schema = Schema::from_text(Operation::Generations, text).unwrap();
        let frames = vec![json!({"image": {"url": 1}}); 1000];
        let faults = schema.check(&json!({ "keyframes": frames }), UnknownFields::Forward);
        assert_eq!(faults.len(), MAX_FAULTS);
        assert_eq!(schema.params(), ["keyframes", "keyframes[].image", "keyframes[].image.url"]);
    }
}
