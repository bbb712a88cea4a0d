//! The description of this API: OpenAPI 3.1, whose request bodies are the schemas that validate. What does not depend
//! on the configuration stands in `openapi.json`; the refusals are filled in from the table below.

use serde_json::{Map, Value, json};

use super::schema::Schema;

/// The document of a gateway with these schemas.
pub fn document(generations: &Schema, edits: &Schema) -> Value {
    #[expect(clippy::expect_used, reason = "constant input; a test reads it")]
    let mut document: Value = serde_json::from_str(include_str!("openapi.json")).expect("the document is JSON");
    if let Some(info) = object(&mut document, "/info") {
        info.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    }
    if let Some(schemas) = object(&mut document, "/components/schemas") {
        for (name, schema) in [("Generation", generations), ("Edit", edits)] {
            schemas.insert(name.to_owned(), embedded(schema, name));
        }
    }
    let paths = object(&mut document, "/paths").into_iter().flat_map(Map::values_mut);
    for (method, operation) in paths.filter_map(Value::as_object_mut).flatten() {
        if let Some(operation) = operation.as_object_mut() {
            tell_refusals(operation, method == "head");
        }
    }
    document
}

/// A schema as a part of this document: its references to itself lead to where it stands now.
fn embedded(schema: &Schema, name: &str) -> Value {
    let mut schema = schema.document().clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
    }
    move_references(&mut schema, &format!("/components/schemas/{name}"));
    schema
}

/// Leads the references of a schema, `#` and `#/…`, to `place`. A part with an `$id` is a document of its own.
fn move_references(schema: &mut Value, place: &str) {
    let Value::Object(schema) = schema else { return };
    if schema.contains_key("$id") {
        return;
    }
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("$ref" | "$dynamicRef", Value::String(reference)) => {
                if let Some(inside) = reference.strip_prefix('#').filter(|at| at.is_empty() || at.starts_with('/')) {
                    *reference = format!("#{place}{inside}");
                }
            }
            // What stands in these is data, and no schema.
            ("const" | "enum" | "default" | "examples" | "example", _) => {}
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                Value::Object(named),
            ) => {
                named.values_mut().for_each(|schema| move_references(schema, place));
            }
            (_, Value::Array(schemas)) => schemas.iter_mut().for_each(|schema| move_references(schema, place)),
            (_, value) => move_references(value, place),
        }
    }
}

/// Puts the refusals that an operation names in `x-errors` among its responses.
fn tell_refusals(operation: &mut Map<String, Value>, header_only: bool) {
    let Some(kind) = operation.remove("x-errors") else { return };
    let refusals = REFUSALS.iter().filter(|refusals| refusals.0 == kind).flat_map(|refusals| refusals.1);
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for refusal in refusals {
        responses.insert(refusal.status.to_string(), refusal.response(kind == SUBMISSION, header_only));
    }
}

/// What one status may say.
struct Refusal {
    status: u16,
    codes: &'static [&'static str],
    /// Whether it may be an answer of the upstream that passes through.
    passes: bool,
    about: &'static str,
}

impl Refusal {
    const fn ours(status: u16, codes: &'static [&'static str], about: &'static str) -> Self {
        Self { status, codes, passes: false, about }
    }

    const fn or_passed(status: u16, codes: &'static [&'static str], about: &'static str) -> Self {
        Self { status, codes, passes: true, about }
    }

    fn response(&self, of_submission: bool, header_only: bool) -> Value {
        let mut names = vec!["X-Request-Id", "Cache-Control"];
        names.extend(of_submission.then_some(["RateLimit", "RateLimit-Policy"]).into_iter().flatten());
        names.extend(match self.status {
            409 => &["Retry-After", "X-Should-Retry"][..],
            401 => &["WWW-Authenticate"],
            415 => &["Accept", "Accept-Encoding"],
            500 | 503 if of_submission => &["Retry-After", "X-Should-Retry"],
            402 | 429 | 500 | 503 => &["Retry-After"],
            502 => &["Retry-After", "X-Should-Retry", "Proxy-Status"],
            504 if of_submission => &["Retry-After", "X-Should-Retry", "Proxy-Status"],
            504 => &["Retry-After", "Proxy-Status"],
            508 => &["Proxy-Status"],
            _ => &[],
        });
        if self.passes {
            names.extend(["Reelgate-Upstream-Request-Id", "Proxy-Status"]);
            names.extend(of_submission.then_some("Reelgate-Warning"));
        }
        let headers: Map<String, Value> =
            names.into_iter().map(|name| (name.to_owned(), reference("headers", name))).collect();
        let ours = json!({"allOf": [
            reference("schemas", "Error"),
            {"properties": {"error": {"properties": {"code": {"enum": self.codes}}}}},
        ]});
        let schema = if self.passes { json!({"anyOf": [ours, reference("schemas", "UpstreamError")]}) } else { ours };
        let mut response = json!({"description": self.about, "headers": headers});
        if let (false, Some(response)) = (header_only, response.as_object_mut()) {
            response.insert("content".to_owned(), json!({"application/json": {"schema": schema}}));
        }
        response
    }
}

fn object<'a>(document: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    document.pointer_mut(pointer).and_then(Value::as_object_mut)
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

const SUBMISSION: &str = "submission";

/// By kind of operation.
const REFUSALS: [(&str, &[Refusal]); 4] = [
    (
        SUBMISSION,
        &[
            Refusal::or_passed(400, &["invalid_json", "bad_request"], "The request is malformed."),
            NO_KEY,
            Refusal::or_passed(
                402,
                &["budget_exhausted"],
                "A budget is used up; error.param names it. A token's own is never renewed, and says no Retry-After.",
            ),
            Refusal::or_passed(
                403,
                &["origin_refused", "route_not_allowed", "user_mismatch", "model_not_allowed"],
                "This page or this key may not call, or not for this user or model.",
            ),
            Refusal::or_passed(408, &["request_timeout"], "The body did not arrive in time."),
            Refusal::or_passed(
                409,
                &["outcome_unknown"],
                "The outcome of an earlier submission of this prompt is unknown; it may have been paid. Wait, or send \
                 Cache-Control: no-cache, and a new Idempotency-Key if it had one, to buy a new job all the same.",
            ),
            Refusal::or_passed(413, &["body_too_large"], "The body is too long."),
            URI_TOO_LONG,
            Refusal::or_passed(415, &["unsupported_media_type"], "The body is not plain application/json."),
            MISDIRECTED,
            Refusal::or_passed(
                422,
                &["invalid_request", "idempotency_key_reused"],
                "The body breaks its schema, or its idempotency key came with another body.",
            ),
            Refusal::or_passed(429, &["rate_limited"], "A limit is reached; error.param names it."),
            HEADER_TOO_LARGE,
            Refusal::or_passed(
                500,
                &["internal_error"],
                "An error of the gateway, or the upstream's. With X-Should-Retry a job may have been paid.",
            ),
            Refusal::or_passed(
                502,
                &["upstream_unreachable", "upstream_invalid_answer", "upstream_key_refused", "outcome_unknown"],
                "The upstream could not be reached, or did not answer as it should. Only with outcome_unknown a job \
                 may have been paid.",
            ),
            Refusal::or_passed(
                503,
                &["overloaded", "ledger_unavailable", "draining"],
                "With one of these codes nothing was sent; try again. The upstream's own words pass as they came: with \
                 X-Should-Retry a job may have been paid.",
            ),
            Refusal::or_passed(
                504,
                &["upstream_timeout", "outcome_unknown"],
                "The upstream did not answer in time. Only with outcome_unknown a job may have been paid.",
            ),
            LOOP_DETECTED,
        ],
    ),
    (
        "poll",
        &[
            Refusal::or_passed(
                400,
                &["bad_request"],
                "The request is malformed; or, in the upstream's words, the video was refused by moderation.",
            ),
            NO_KEY,
            NOT_ALLOWED,
            Refusal::or_passed(404, &["unknown_job", "not_found"], "No job of this team has this id."),
            URI_TOO_LONG,
            MISDIRECTED,
            Refusal::or_passed(429, &["rate_limited"], "Too many wrong keys from this address."),
            HEADER_TOO_LARGE,
            INTERNAL,
            Refusal::or_passed(
                502,
                &["upstream_unreachable", "upstream_invalid_answer", "upstream_key_refused"],
                "The upstream could not be reached, or did not answer as it should. The job goes on.",
            ),
            Refusal::or_passed(
                503,
                &["overloaded", "ledger_unavailable"],
                "Too much at once, or nobody can tell now whose the job is. It goes on.",
            ),
            Refusal::or_passed(504, &["upstream_timeout"], "The upstream did not answer in time. The job goes on."),
            LOOP_DETECTED,
        ],
    ),
    (
        "client_token",
        &[
            Refusal::ours(400, &["invalid_json", "bad_request"], "The request is malformed."),
            NO_KEY,
            Refusal::ours(
                403,
                &["origin_refused", "route_not_allowed", "model_not_allowed"],
                "This page may not call, this is a token and no key, or the key itself may not do what is asked for.",
            ),
            Refusal::ours(404, &["not_found"], "This gateway is open to everyone: there are no tokens."),
            Refusal::ours(408, &["request_timeout"], "The body did not arrive in time."),
            Refusal::ours(413, &["body_too_large"], "The body is too long."),
            URI_TOO_LONG,
            Refusal::ours(415, &["unsupported_media_type"], "The body is not plain application/json."),
            MISDIRECTED,
            Refusal::ours(422, &["invalid_request"], "The body names no user, or asks for what no token has."),
            Refusal::ours(429, &["rate_limited"], "A limit is reached; error.param names it."),
            HEADER_TOO_LARGE,
            Refusal::ours(500, &["internal_error"], "An error of the gateway."),
            Refusal::ours(503, &["overloaded"], "Too much at once."),
            LOOP_DETECTED,
        ],
    ),
    (
        "description",
        &[
            Refusal::ours(400, &["bad_request"], "The request is malformed."),
            Refusal::ours(403, &["origin_refused"], "This page may not call."),
            URI_TOO_LONG,
            MISDIRECTED,
            HEADER_TOO_LARGE,
            Refusal::ours(503, &["overloaded"], "Too much at once."),
            LOOP_DETECTED,
        ],
    ),
];

const NO_KEY: Refusal = Refusal::ours(401, &["missing_key", "invalid_key"], "There is no key, or none that is good.");
const NOT_ALLOWED: Refusal =
    Refusal::or_passed(403, &["origin_refused", "route_not_allowed"], "This page, or this key, may not call.");
const URI_TOO_LONG: Refusal = Refusal::ours(414, &["uri_too_long"], "The path is too long. The body may be empty.");
const MISDIRECTED: Refusal = Refusal::ours(421, &["misdirected_request"], "This host is not served here.");
const HEADER_TOO_LARGE: Refusal =
    Refusal::ours(431, &["header_too_large"], "The header is too large. The body may be empty.");
const INTERNAL: Refusal = Refusal::or_passed(500, &["internal_error"], "An error of the gateway, or the upstream's.");
const LOOP_DETECTED: Refusal = Refusal::ours(508, &["loop_detected"], "The request came through this gateway before.");

#[cfg(test)]
mod tests;
