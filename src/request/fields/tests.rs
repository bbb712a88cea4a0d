use super::*;
use crate::request::route::Operation;
use crate::request::schema::Schema;

fn builtin(operation: Operation) -> Fields {
    Fields::of(Schema::builtin(operation).document())
}

fn told(fields: &Fields, body: &Value, unknown_fields: UnknownFields) -> Vec<String> {
    let faults = fields.unknown(body, unknown_fields);
    faults.into_iter().map(|fault| format!("{} {}: {}", fault.code, fault.param, fault.message)).collect()
}

#[test]
fn near_misses_of_named_fields_are_refused_with_the_name() {
    let fields = builtin(Operation::Generations);
    for (name, meant) in [
        ("duratoin", "duration"),
        ("durration", "duration"),
        ("duraton", "duration"),
        ("durtaoin", "duration"),
        ("Duration", "duration"),
        ("DURATION", "duration"),
        ("aspect-ratio", "aspect_ratio"),
        ("Aspect-Ratio", "aspect_ratio"),
        ("aspectratio", "aspect_ratio"),
        ("resolutoin", "resolution"),
        ("promt", "prompt"),
        ("prompts", "prompt"),
        ("modle", "model"),
        ("mode", "model"),
        ("Model", "model"),
        ("sise", "size"),
        ("usr", "user"),
        ("images", "image"),
        ("second", "seconds"),
    ] {
        let want = format!("near_miss {name}: unknown field: did you mean {meant}?");
        for unknown_fields in [UnknownFields::Forward, UnknownFields::Refuse] {
            assert_eq!(told(&fields, &json!({ name: 1 }), unknown_fields), [want.as_str()]);
        }
    }
}

#[test]
fn other_unknown_fields_are_forwarded_or_refused_as_configured() {
    let fields = builtin(Operation::Generations);
    for name in ["seed", "usage", "sizing", "mdoels", "durt", "metadata", "negative_prompt", "", "é", "n"] {
        assert_eq!(told(&fields, &json!({ name: 1 }), UnknownFields::Forward), Vec::<String>::new(), "{name}");
        let want = format!("unknown_field {name}: unknown field: remove it");
        assert_eq!(told(&fields, &json!({ name: 1 }), UnknownFields::Refuse), [want]);
    }
    let long = "duration".repeat(10_000);
    assert!(fields.unknown(&json!({ long: 1 }), UnknownFields::Forward).is_empty());
}

#[test]
fn a_name_that_xai_knows_is_no_near_miss() {
    for operation in [Operation::Generations, Operation::Edits] {
        let body: Value = KNOWN_UPSTREAM.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
        assert_eq!(told(&builtin(operation), &body, UnknownFields::Forward), Vec::<String>::new());
    }
    // `video` is one slip from nothing here, but `file_url` would be two from `file_id`, and `seconds` is known.
    let video = json!({"video": {"url": "u", "image_url": "x", "file_ids": 1}});
    let want = ["near_miss video.file_ids: unknown field: did you mean file_id?"];
    assert_eq!(told(&builtin(Operation::Edits), &video, UnknownFields::Forward), want);
}

#[test]
fn nested_levels_are_read_where_the_schema_names_fields() {
    let fields = builtin(Operation::Generations);
    let body = json!({"image": {"ulr": 1}, "output": {"upload-url": 1}, "metadata": {"promt": 1}});
    let want = [
        "near_miss image.ulr: unknown field: did you mean url?",
        "near_miss output.upload-url: unknown field: did you mean upload_url?",
    ];
    assert_eq!(told(&fields, &body, UnknownFields::Forward), want);
    let refused = json!({"image": {"url": 1, "detail": {"x": 1}}});
    let want = ["unknown_field image.detail: unknown field: remove it"];
    assert_eq!(told(&fields, &refused, UnknownFields::Refuse), want);
}

#[test]
fn names_are_found_through_references_conditions_and_arrays() {
    let schema = json!({
        "$defs": {"node": {"properties": {"children": {"items": {"$ref": "#/$defs/node"}}, "weight": {}}}},
        "properties": {"tree": {"$ref": "#/$defs/node"}, "pair": {"prefixItems": [{"properties": {"first": {}}}]},
            "free": {"additionalProperties": {"properties": {"inner": {}}}},
            "labels": {"properties": {"main": {}}, "patternProperties": {"^x-": {}}},
            "foreign": {"$ref": "#anchor", "properties": {"known": {}}}},
        "allOf": [{"properties": {"tree": {"properties": {"colour": {}}}}}],
        "if": {"properties": {"style": {}}}, "dependentSchemas": {"a": {"properties": {"because": {}}}}
    });
    let fields = Fields::of(&schema);
    let body = json!({
        "style": 1, "because": 1, "becuase": 1,
        "tree": {"colour": 1, "weihgt": 1, "children": [{"weight": 1}, {"children": [{"wieght": 1, "colour": 1}]}]},
        "pair": [{"frist": 1}, {"frist": 1}],
        "free": {"any": {"iner": 1}},
        "labels": {"x-min": 1, "mian": 1},
        "foreign": {"knwon": 1}
    });
    let params: Vec<String> =
        fields.unknown(&body, UnknownFields::Refuse).into_iter().map(|fault| fault.param).collect();
    let want = [
        "becuase",
        "free.any.iner",
        "labels.mian",
        "pair[0].frist",
        "tree.children[1].children[0].colour",
        "tree.children[1].children[0].wieght",
        "tree.weihgt",
    ];
    assert_eq!(params, want);
    assert!(fields.paths().contains(&"tree.children[].weight".to_owned()));
}

#[test]
fn deprecated_fields_are_told() {
    let fields = builtin(Operation::Generations);
    assert!(fields.deprecated(&json!({"prompt": "x"})).is_empty());
    let warnings = fields.deprecated(&json!({"prompt": "x", "size": "1280x720"}));
    assert_eq!(warnings, ["size: deprecated, use aspect_ratio and resolution"]);
    let own =
        Fields::of(&json!({"properties": {"a": {"properties": {"b": {"deprecated": true, "description": "é"}}}}}));
    assert_eq!(own.deprecated(&json!({"a": {"b": 1}})), ["a.b: deprecated"]);
}
