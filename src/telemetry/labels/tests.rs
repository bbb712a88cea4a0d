//! Labels: their places, their names, and what is labelled how.

use std::time::Duration;

use super::*;
use crate::error::Unreached;

#[test]
fn the_index_of_a_series_is_its_place_among_all() {
    fn check<S: Series>(labels: usize) {
        let all = S::all();
        assert_eq!(all.len(), S::COUNT);
        for (place, series) in all.into_iter().enumerate() {
            assert_eq!(series.index(), place);
            assert_eq!(series.values().len(), labels, "{:?}", series.values());
            assert_eq!(S::keys().len(), labels, "{:?}", S::keys());
        }
    }
    check::<RouteLabel>(1);
    check::<SubmissionOutcome>(1);
    check::<Limit>(2);
    check::<(UpstreamOperation, UpstreamOutcome)>(2);
    check::<(LedgerOperation, LedgerResult)>(2);
}

#[test]
fn a_route_is_labelled_by_the_shape_of_its_path() {
    for (method, path, want) in [
        ("POST", "/grok/v1/videos/generations", RouteLabel::Generations),
        ("GET", "/grok/v1/videos/generations", RouteLabel::Generations),
        ("POST", "/grok/v1/videos/edits", RouteLabel::Edits),
        ("OPTIONS", "/grok/v1/videos/edits", RouteLabel::Preflight),
        ("GET", "/grok/v1/videos/abc-1", RouteLabel::Poll),
        ("DELETE", "/grok/v1/videos/abc-1", RouteLabel::Poll),
        ("OPTIONS", "/grok/v1/videos/abc-1", RouteLabel::Preflight),
        ("POST", "/grok/v1/videos/extensions", RouteLabel::Other),
        ("GET", "/grok/v1/videos/a/b", RouteLabel::Other),
        ("GET", "/grok/v1/videos/", RouteLabel::Other),
        ("GET", "/", RouteLabel::Page),
        ("GET", "/openapi.json", RouteLabel::Other),
        ("OPTIONS", "/openapi.json", RouteLabel::Preflight),
        ("POST", "/grok/v1/client_tokens", RouteLabel::Other),
        ("OPTIONS", "/grok/v1/client_tokens", RouteLabel::Preflight),
        ("OPTIONS", "*", RouteLabel::Preflight),
        ("OPTIONS", "/nothing", RouteLabel::Other),
        ("GET", "/metrics", RouteLabel::Other),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(RouteLabel::of(&method, path), want, "{method} {path}");
    }
}

#[test]
fn inv10_a_refusal_counts_under_the_outcome_of_its_status() {
    let wait = Duration::from_secs(61);
    let errors = [
        Error::InvalidJson { message: String::new() },
        Error::BadRequest { param: "query", message: "".into() },
        Error::MissingKey,
        Error::InvalidKey,
        Error::OriginRefused,
        Error::UserMismatch,
        Error::ModelNotAllowed { param: "model" },
        Error::RouteNotAllowed { route: "poll" },
        Error::NotFound,
        Error::NotOffered,
        Error::NoTokens,
        Error::UnknownJob,
        Error::MethodNotAllowed { allow: "POST" },
        Error::RequestTimeout,
        Error::OutcomeUnknown { doubt: Doubt::Held, retry_after: wait },
        Error::OutcomeUnknown { doubt: Doubt::Broken, retry_after: wait },
        Error::OutcomeUnknown { doubt: Doubt::Silent, retry_after: wait },
        Error::BodyTooLarge { limit: 1 },
        Error::UnsupportedMediaType { param: "Content-Type" },
        Error::MisdirectedRequest,
        Error::InvalidRequest(Vec::new()),
        Error::IdempotencyKeyReused,
        Error::UriTooLong,
        Error::HeaderTooLarge,
        Error::RateLimited { limit: "user.generations", retry_after: wait },
        Error::BudgetExhausted { limit: "user.per_day", retry_after: Some(wait) },
        Error::Internal,
        Error::UpstreamUnreachable(Unreached::Dns),
        Error::UpstreamUnreachable(Unreached::Timeout),
        Error::PollTimeout,
        Error::UpstreamInvalidAnswer,
        Error::PollUnreadable,
        Error::UpstreamKeyRefused,
        Error::Overloaded { what: "bodies" },
        Error::LedgerUnavailable,
        Error::Draining,
        Error::LoopDetected,
    ];
    for error in errors {
        let outcome = SubmissionOutcome::of_refusal(&error);
        let want: &[SubmissionOutcome] = match error.status().as_u16() {
            400 | 408 | 413 | 414 | 415 | 422 | 431 => &[SubmissionOutcome::Invalid],
            402 | 429 => &[SubmissionOutcome::Limited],
            401 | 403 | 404 | 405 | 421 | 508 => &[SubmissionOutcome::Denied],
            500 | 503 => &[SubmissionOutcome::Unavailable],
            409 => &[SubmissionOutcome::Held],
            502 | 504 => &[SubmissionOutcome::NotSent, SubmissionOutcome::Unknown, SubmissionOutcome::RefusedUpstream],
            other => panic!("no outcome is stated for {other}"),
        };
        assert!(want.contains(&outcome), "{error:?} counts as {outcome:?}");
    }
    assert_eq!(SubmissionOutcome::of_refusal(&Error::Aborted), SubmissionOutcome::Aborted);
}

#[test]
fn limits_are_found_by_the_name_that_the_client_is_told() {
    assert_eq!(Limit::named("user.generations"), Some(Limit::UserGenerations));
    assert_eq!(Limit::named("user"), None);
    assert_eq!(Limit::TotalGenerations.values(), ["total", "generations"]);
}
