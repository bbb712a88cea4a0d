use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method;

use super::*;
use crate::error::{Doubt, Error, Unreached};
use crate::request::route::{Operation, Route};

fn builtin() -> Value {
    document(&Schema::builtin(Operation::Generations), &Schema::builtin(Operation::Edits))
}

/// Each operation: path, method, and what is said of it.
fn operations(document: &Value) -> Vec<(String, Method, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            operations.push((path.clone(), method, operation.clone()));
        }
    }
    operations
}

/// All references of a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Status and code of every refusal there is; a new one does not compile until it stands here.
#[expect(clippy::too_many_lines, reason = "a list")]
fn refusals() -> Vec<(u16, &'static str)> {
    let retry_after = Duration::from_secs(61);
    let doubt = |doubt| Error::OutcomeUnknown { doubt, retry_after };
    let all = [
        Error::InvalidJson { message: String::new() },
        Error::BadRequest { param: "", message: "".into() },
        Error::MissingKey,
        Error::InvalidKey,
        Error::OriginRefused,
        Error::UserMismatch,
        Error::ModelNotAllowed { param: "" },
        Error::RouteNotAllowed { route: "" },
        Error::NotFound,
        Error::NotOffered,
        Error::NoTokens,
        Error::UnknownJob,
        Error::MethodNotAllowed { allow: "" },
        Error::RequestTimeout,
        doubt(Doubt::Held),
        doubt(Doubt::Broken),
        doubt(Doubt::Silent),
        Error::BodyTooLarge { limit: 1 },
        Error::UnsupportedMediaType { param: "" },
        Error::MisdirectedRequest,
        Error::InvalidRequest(Vec::new()),
        Error::IdempotencyKeyReused,
        Error::UriTooLong,
        Error::HeaderTooLarge,
        Error::RateLimited { limit: "", retry_after },
        Error::Internal,
        Error::UpstreamUnreachable(Unreached::Dns),
        Error::UpstreamUnreachable(Unreached::Timeout),
        Error::BudgetExhausted { limit: "", retry_after: None },
        Error::PollTimeout,
        Error::UpstreamInvalidAnswer,
        Error::PollUnreadable,
        Error::UpstreamKeyRefused,
        Error::Overloaded { what: "" },
        Error::LedgerUnavailable,
        Error::Draining,
        Error::LoopDetected,
        Error::Aborted,
    ];
    for error in &all {
        match error {
            Error::InvalidJson { .. }
            | Error::BadRequest { .. }
            | Error::MissingKey
            | Error::InvalidKey
            | Error::OriginRefused
            | Error::UserMismatch
            | Error::ModelNotAllowed { .. }
            | Error::RouteNotAllowed { .. }
            | Error::NotFound
            | Error::NotOffered
            | Error::NoTokens
            | Error::UnknownJob
            | Error::MethodNotAllowed { .. }
            | Error::RequestTimeout
            | Error::OutcomeUnknown { .. }
            | Error::BodyTooLarge { .. }
            | Error::UnsupportedMediaType { .. }
            | Error::MisdirectedRequest
            | Error::InvalidRequest(_)
            | Error::IdempotencyKeyReused
            | Error::UriTooLong
            | Error::HeaderTooLarge
            | Error::RateLimited { .. }
            | Error::BudgetExhausted { .. }
            | Error::Internal
            | Error::UpstreamUnreachable(_)
            | Error::PollTimeout
            | Error::UpstreamInvalidAnswer
            | Error::PollUnreadable
            | Error::UpstreamKeyRefused
            | Error::Overloaded { .. }
            | Error::LedgerUnavailable
            | Error::Draining
            | Error::LoopDetected
            | Error::Aborted => {}
        }
    }
    all.iter().map(|error| (error.status().as_u16(), error.code())).collect()
}

#[test]
fn every_path_and_method_in_it_exists() {
    let document = builtin();
    let mut told = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let found = Route::find(&method, &path.replace("{request_id}", "a-1_B"), None);
        assert!(found.is_ok(), "{method} {path}: {found:?}");
        assert!(operation.get("x-errors").is_none(), "{method} {path}");
        told.insert(format!("{method} {path}"));
    }
    let want = [
        "GET /grok/v1/videos/{request_id}",
        "GET /openapi.json",
        "HEAD /grok/v1/videos/{request_id}",
        "POST /grok/v1/client_tokens",
        "POST /grok/v1/videos/edits",
        "POST /grok/v1/videos/generations",
    ];
    assert_eq!(told.iter().map(String::as_str).collect::<Vec<_>>(), want);
}

#[test]
fn every_status_and_code_in_it_exists_and_every_one_that_exists_is_in_it() {
    let mut told = BTreeSet::new();
    for (path, method, operation) in operations(&builtin()) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let Ok(status) = status.parse::<u16>() else { continue };
            if status < 300 {
                continue;
            }
            let content = &response["content"]["application/json"]["schema"];
            assert_eq!(content.is_null(), method == Method::HEAD, "{method} {path} {status}");
            if method == Method::HEAD {
                continue;
            }
            let ours = content["anyOf"].get(0).unwrap_or(content);
            let codes = ours["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"].as_array().unwrap();
            assert!(!codes.is_empty());
            told.extend(codes.iter().map(|code| (status, code.as_str().unwrap().to_owned())));
        }
    }
    let there_are: BTreeSet<_> = refusals().into_iter().map(|(status, code)| (status, code.to_owned())).collect();
    // A method that is not allowed is no operation of a path, so it stands in the description.
    let missing: Vec<_> = there_are.difference(&told).collect();
    assert_eq!(missing, [&(405, "method_not_allowed".to_owned())]);
    assert_eq!(told.difference(&there_are).collect::<Vec<_>>(), Vec::<&(u16, String)>::new());
    assert!(builtin()["info"]["description"].as_str().unwrap().contains("405 (method_not_allowed)"));
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = builtin();
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(&reference), "{reference} is not used");
        }
    }
}

#[test]
fn a_doubt_says_when_to_ask_again_and_that_no_machine_should() {
    let document = builtin();
    for path in ["/grok/v1/videos/generations", "/grok/v1/videos/edits"] {
        for status in ["409", "502", "504"] {
            let headers = &document["paths"][path]["post"]["responses"][status]["headers"];
            for name in ["Retry-After", "X-Should-Retry", "RateLimit", "RateLimit-Policy", "X-Request-Id"] {
                assert!(headers[name].is_object(), "{path} {status} {name}");
            }
        }
    }
}

#[test]
fn request_bodies_are_the_schemas_that_validate() {
    let document = builtin();
    for (name, operation) in [("Generation", Operation::Generations), ("Edit", Operation::Edits)] {
        let schema = Schema::builtin(operation);
        let mut want = schema.document().clone();
        want.as_object_mut().unwrap().remove("$schema");
        assert_eq!(document["components"]["schemas"][name], want);
        let body = &document["paths"][operation.path()]["post"]["requestBody"]["content"]["application/json"];
        assert_eq!(body["schema"]["$ref"], format!("#/components/schemas/{name}"));
    }
}

#[test]
fn an_operators_schema_keeps_its_references_and_its_data() {
    let own = Schema::from_text(
        Operation::Edits,
        r##"{
            "$defs": {
                "media": {"required": ["url"], "properties": {"$ref": {"type": "string"}, "again": {"$ref": "#"}}},
                "apart": {"$id": "https://example.com/apart", "$defs": {"x": {}}, "items": {"$ref": "#/$defs/x"}}
            },
            "properties": {
                "video": {"$ref": "#/$defs/media"},
                "any": {"anyOf": [{"$ref": "#/$defs/media"}, {"const": {"$ref": "#/$defs/media"}}]}
            }
        }"##,
    )
    .unwrap();
    let edit = document(&Schema::builtin(Operation::Generations), &own)["components"]["schemas"]["Edit"].clone();
    let moved = json!({"$ref": "#/components/schemas/Edit/$defs/media"});
    assert_eq!(edit["properties"]["video"], moved);
    assert_eq!(edit["properties"]["any"]["anyOf"][0], moved);
    assert_eq!(edit["properties"]["any"]["anyOf"][1]["const"]["$ref"], "#/$defs/media", "data stays");
    assert_eq!(edit["$defs"]["media"]["properties"]["again"]["$ref"], "#/components/schemas/Edit");
    assert_eq!(edit["$defs"]["media"]["properties"]["$ref"], json!({"type": "string"}), "a field may be called $ref");
    assert_eq!(edit["$defs"]["apart"]["items"]["$ref"], "#/$defs/x", "a document of its own");
}
