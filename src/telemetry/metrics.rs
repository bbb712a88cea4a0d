//! Every metric, a field each, in a registry of its own (`DESIGN.md` §5). Series of closed lists exist from the
//! start. What mirrors state kept elsewhere is set by [`Metrics::on_scrape`]; what goes up and down with a thing is
//! counted by a guard.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry, TextEncoder};
use tracing::{error, info};

use super::family::{Builder, Counters, Durations, Gauges, Level, Requests};
use super::fields::Fields;
use super::labels::{
    CloseReason, ConfigSection, Degraded, EntryState, JobOutcome, LedgerFailure, LedgerOperation, LedgerResult, Limit,
    ReloadResult, RouteLabel, SubmissionOutcome, Unread, UpstreamOperation, UpstreamOutcome,
};
use super::money::Money;
use super::process::Process;
use crate::error::Error;

/// What runs before the metrics are written.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one gateway.
pub struct Metrics {
    /// Answers, by route and status.
    pub requests: Requests,
    /// The time of a request, until its answer's last byte was handed on.
    pub request_duration: Durations<RouteLabel>,
    /// Requests in work.
    pub requests_in_flight: Level,
    /// Submissions, each exactly once.
    pub submissions: Counters<SubmissionOutcome>,
    /// Calls to the upstream. Tell it by [`Metrics::upstream_request`].
    pub upstream_requests: Counters<(UpstreamOperation, UpstreamOutcome)>,
    /// The time of a call to the upstream.
    pub upstream_duration: Durations<(UpstreamOperation, UpstreamOutcome)>,
    /// Refusals by a limit.
    pub limited: Counters<Limit>,
    /// What was wrong with bodies, by field.
    pub fields: Fields,
    /// What was spent, saved and lost.
    pub money: Money,
    /// Answers about jobs that passed unread.
    pub polls_unread: Counters<Unread>,
    /// Jobs that a poll showed at their end.
    pub jobs: Counters<JobOutcome>,
    /// Jobs not yet seen at their end.
    pub jobs_running: IntGauge,
    /// Entries of the ledger.
    pub entries: Gauges<EntryState>,
    /// Entries in the hot cache.
    pub hot_entries: IntGauge,
    /// Operations of the ledger. Tell it by [`Metrics::ledger`].
    pub ledger_operations: Counters<(LedgerOperation, LedgerResult)>,
    /// The time of an operation of the ledger.
    pub ledger_duration: Durations<(LedgerOperation, LedgerResult)>,
    /// Questions that Redis did not answer.
    pub ledger_failures: Counters<LedgerFailure>,
    /// Buckets that the limits keep.
    pub limiter_buckets: IntGauge,
    /// Bytes of request bodies in memory.
    pub body_memory_bytes: IntGauge,
    /// Open connections of clients.
    pub connections: IntGauge,
    /// Connections that we ended, and not the client.
    pub connections_closed: Counters<CloseReason>,
    /// Connections that could not be accepted, mostly for want of file descriptors.
    pub accept_errors: IntCounter,
    /// Reloads of the configuration.
    pub config_reloads: Counters<ReloadResult>,
    /// What reloads have changed: a key each, or a team.
    pub config_changes: Counters<ConfigSection>,
    /// What works less than it should: 1, else 0. `/readyz` shows the same.
    pub degraded: Gauges<Degraded>,
    /// Log lines that found the buffer full, or that could not be written.
    pub log_lines_dropped: IntCounter,
    /// Panics that were caught.
    pub panics: IntCounter,
    restart_needed: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
    refreshes: Mutex<Vec<Refresh>>,
    process: Process,
    registry: Registry,
}

impl Metrics {
    /// Fresh metrics of a gateway of this version.
    ///
    /// # Errors
    /// Where a declaration below is wrong: names that clash, say.
    pub fn new(version: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Builder(&registry);
        make.info("build_info", "Which build this is; always 1.", "version", version)?;
        Ok(Self {
            requests: make
                .requests("requests_total", "Answers, by HTTP status; 499: the client went before it came.")?,
            request_duration: make.durations(
                "request_duration_seconds",
                "Time from a request's header to the last byte of its answer.",
                &REQUEST_BUCKETS,
            )?,
            requests_in_flight: make.level("requests_in_flight", "Requests whose answer is not complete.")?,
            submissions: make.counters("submissions_total", "Requests to the submission routes, each exactly once.")?,
            upstream_requests: make
                .counters("upstream_requests_total", "Calls to the upstream; all but not_sent may have reached it.")?,
            upstream_duration: make.durations(
                "upstream_duration_seconds",
                "Time of a call to the upstream.",
                &UPSTREAM_BUCKETS,
            )?,
            limited: make.counters("limited_total", "Refusals by a limit.")?,
            fields: Fields::new(&make)?,
            money: Money::new(&make)?,
            polls_unread: make.counters(
                "polls_unread_total",
                "Answers about jobs that passed unread: what they said is not known.",
            )?,
            jobs: make.counters("jobs_total", "Jobs that a poll showed at their end.")?,
            jobs_running: make.gauge("jobs_running", "Jobs made and not yet seen at their end.")?,
            entries: make.gauges("entries", "Entries of the ledger, by state.")?,
            hot_entries: make.gauge("hot_entries", "Entries in the hot cache.")?,
            ledger_operations: make.counters("ledger_operations_total", "Operations of the ledger.")?,
            ledger_duration: make.durations(
                "ledger_duration_seconds",
                "Time of an operation of the ledger.",
                &LEDGER_BUCKETS,
            )?,
            ledger_failures: make.counters("ledger_failures_total", "Questions that redis did not answer.")?,
            limiter_buckets: make.gauge("limiter_buckets", "Buckets that the limits keep for users and addresses.")?,
            body_memory_bytes: make.gauge("body_memory_bytes", "Bytes reserved for request bodies in memory.")?,
            connections: make.gauge("connections", "Open connections of clients.")?,
            connections_closed: make
                .counters("connections_closed_total", "Connections that the gateway ended, and not the client.")?,
            accept_errors: make.counter("accept_errors_total", "Connections that could not be accepted.")?,
            config_reloads: make.counters("config_reloads_total", "Reloads of the configuration.")?,
            config_changes: make.counters("config_changes_total", "Keys, and teams, that reloads have changed.")?,
            restart_needed: make.gauge_vector(
                "config_restart_needed",
                "1 for a key whose new value waits for a restart.",
                &["key"],
            )?,
            certificate_expiry: make.gauge_vector(
                "tls_certificate_expiry_seconds",
                "Seconds until the listener's certificate expires; less than 0, it has.",
                &["listener"],
            )?,
            degraded: make.gauges("degraded", "1 while this does not work; hits go on.")?,
            log_lines_dropped: make
                .counter("log_lines_dropped_total", "Log lines lost because their reader was too slow or gone.")?,
            panics: make.counter("panics_total", "Panics caught; each is a fault of the gateway.")?,
            refreshes: Mutex::default(),
            process: Process::starting_now(),
            registry,
        })
    }

    /// Has `refresh` set what mirrors state kept elsewhere, before each writing and one writing at a time. It is given
    /// the metrics so that it need not hold them, and must not call this method itself.
    pub fn on_scrape(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(refresh));
    }

    /// Counts a refusal by what it says: the limit that is reached, or each fault of a body.
    pub fn refused(&self, error: &Error) {
        match error {
            Error::RateLimited { limit, .. } => {
                if let Some(limit) = Limit::named(limit) {
                    self.limited.inc(limit);
                }
            }
            Error::BudgetExhausted { limit, .. } => {
                let limit = limit.split('.').next().and_then(|scope| Limit::named(&format!("{scope}.budget")));
                limit.into_iter().for_each(|limit| self.limited.inc(limit));
            }
            Error::InvalidJson { .. } => self.fields.invalid("", error.code()),
            _ => error.faults().iter().for_each(|fault| self.fields.invalid(&fault.param, fault.code)),
        }
    }

    /// Whether it is shown that something does not work.
    pub fn is_degraded(&self, reason: Degraded) -> bool {
        self.degraded.value(reason) != 0
    }

    /// Shows that something does not work, or works again. The log tells only of a change.
    pub fn degrade(&self, reason: Degraded, broken: bool) {
        if self.is_degraded(reason) == broken {
            return;
        }
        self.degraded.set(reason, i64::from(broken));
        let name = reason.name();
        match (reason, broken) {
            (_, false) => info!(reason = name, "no longer degraded"),
            (Degraded::UpstreamKey, true) => {
                error!(reason = name, "the upstream refuses the gateway's key: nothing but hits is served");
            }
            (Degraded::UpstreamCredit, true) => {
                error!(reason = name, "the upstream says that the account is empty: nothing but hits is served");
            }
            (Degraded::Ledger, true) => error!(reason = name, "the ledger cannot be used: nothing new is bought"),
        }
    }

    /// Counts a call to the upstream, and notes its time where it has one.
    pub fn upstream_request(&self, operation: UpstreamOperation, outcome: UpstreamOutcome, duration: Option<Duration>) {
        self.upstream_requests.inc((operation, outcome));
        if let Some(duration) = duration {
            self.upstream_duration.observe((operation, outcome), duration);
        }
    }

    /// Counts an operation of the ledger and notes its time.
    pub fn ledger(&self, operation: LedgerOperation, result: LedgerResult, duration: Duration) {
        self.ledger_operations.inc((operation, result));
        self.ledger_duration.observe((operation, result), duration);
    }

    /// Shows exactly these keys as waiting for a restart. They are names of our configuration, a closed list.
    pub fn restart_needed(&self, keys: &[&'static str]) {
        self.restart_needed.reset();
        for key in keys {
            self.restart_needed.with_label_values(&[key]).set(1);
        }
    }

    /// Shows how long the public listener's certificate is still valid. Without TLS there is nothing to show.
    pub fn certificate_expires_in(&self, seconds: i64) {
        self.certificate_expiry.with_label_values(&["public"]).set(seconds);
    }

    /// Counts what a reload has changed, by the first part of each key.
    pub fn config_changed(&self, keys: &[String]) {
        for key in keys {
            let section = key.split('.').next().unwrap_or_default();
            self.config_changes.inc(ConfigSection::named(section).unwrap_or(ConfigSection::Other));
        }
    }

    /// All metrics in Prometheus' text format 0.0.4.
    pub fn text(&self) -> Bytes {
        // Held meanwhile, so that two scrapes at once do not both raise a counter to the same total.
        let refreshes = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
        refreshes.iter().for_each(|refresh| refresh(self));
        drop(refreshes);
        // Writing into memory fails only for a family without a name or series, and gathering leaves those out.
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default();
        self.process.write(&mut text);
        text.into()
    }
}

/// From a hit to a submission that waited for a late answer.
const REQUEST_BUCKETS: [f64; 12] = [0.0005, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];
/// From a poll of a near upstream to an answer that came late.
const UPSTREAM_BUCKETS: [f64; 11] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 35.0, 120.0];
/// From memory to a slow disk.
const LEDGER_BUCKETS: [f64; 8] = [0.000_01, 0.000_1, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hyper::StatusCode;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.text().to_vec()).unwrap()
    }

    #[test]
    fn every_sample_stands_under_its_help_and_type_and_has_a_number() {
        let metrics = Metrics::new("1.2.3").unwrap();
        let text = text(&metrics);
        let mut family = String::new();
        let mut families = HashSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(families.insert(name.to_owned()), "{name} comes twice");
                assert!(name.starts_with("reelgate_") || name.starts_with("process_"), "{name}");
                assert!(help.ends_with('.'), "{line}");
                name.clone_into(&mut family);
            } else if let Some(of_type) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of_type.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert_eq!(name.ends_with("_duration_seconds"), kind == "histogram", "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} under {family}"));
                assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn series_of_closed_lists_exist_from_the_start() {
        let text = text(&Metrics::new("1.2.3").unwrap());
        for sample in [
            "reelgate_build_info{version=\"1.2.3\"} 1",
            "reelgate_requests_total{route=\"page\",status=\"200\"} 0",
            "reelgate_request_duration_seconds_count{route=\"poll\"} 0",
            "reelgate_submissions_total{outcome=\"refused_upstream\"} 0",
            "reelgate_upstream_requests_total{operation=\"submit\",outcome=\"not_sent\"} 0",
            "reelgate_upstream_duration_seconds_count{operation=\"poll\",outcome=\"error\"} 0",
            "reelgate_limited_total{kind=\"requests\",limit=\"address\"} 0",
            "reelgate_invalid_total{code=\"other\",param=\"other\"} 0",
            "reelgate_deprecated_fields_total{param=\"other\"} 0",
            "reelgate_jobs_total{outcome=\"moderated\"} 0",
            "reelgate_jobs_running 0",
            "reelgate_entries{state=\"claimed\"} 0",
            "reelgate_ledger_operations_total{operation=\"admit\",result=\"conflict\"} 0",
            "reelgate_connections 0",
            "reelgate_connections_closed_total{reason=\"drain\"} 0",
            "reelgate_config_reloads_total{result=\"error\"} 0",
            "reelgate_degraded{reason=\"upstream_key\"} 0",
            "reelgate_requests_in_flight 0",
            "reelgate_body_memory_bytes 0",
            "reelgate_log_lines_dropped_total 0",
            "reelgate_panics_total 0",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} is missing in\n{text}");
        }
    }

    #[test]
    fn statuses_count_by_their_number() {
        let metrics = Metrics::new("1").unwrap();
        for status in [100, 200, 200, 499, 599, 999] {
            metrics.requests.inc(RouteLabel::Other, StatusCode::from_u16(status).unwrap());
        }
        let text = text(&metrics);
        for (status, count) in [(100, 1), (200, 2), (499, 1), (599, 1), (999, 1)] {
            let sample = format!("reelgate_requests_total{{route=\"other\",status=\"{status}\"}} {count}\n");
            assert!(text.contains(&sample), "{sample}");
        }
        assert_eq!(metrics.requests.value(RouteLabel::Poll, StatusCode::CONTINUE), 0);
    }

    #[test]
    fn gauges_that_mirror_are_set_when_they_are_asked_for() {
        let metrics = Metrics::new("1").unwrap();
        metrics.on_scrape(|metrics| {
            metrics.entries.set(EntryState::Sending, metrics.entries.value(EntryState::Sending) + 3)
        });
        for want in [3, 6] {
            assert!(text(&metrics).contains(&format!("reelgate_entries{{state=\"sending\"}} {want}\n")));
        }
    }

    #[test]
    fn counts_kept_elsewhere_are_raised_to_their_totals_and_never_lowered() {
        let metrics = Metrics::new("1").unwrap();
        for (total, want) in [(4, 4), (4, 4), (9, 9), (2, 9)] {
            metrics.connections_closed.raise_to(CloseReason::Idle, total);
            assert_eq!(metrics.connections_closed.value(CloseReason::Idle), want);
        }
    }

    #[test]
    fn keys_that_wait_for_a_restart_are_named_until_the_next_reload() {
        let metrics = Metrics::new("1").unwrap();
        metrics.restart_needed(&["server.listen", "log.format"]);
        assert!(text(&metrics).contains("reelgate_config_restart_needed{key=\"server.listen\"} 1\n"));
        metrics.restart_needed(&[]);
        assert!(!text(&metrics).contains("config_restart_needed{"));
    }

    #[test]
    fn calls_upstream_and_of_the_ledger_are_counted_with_their_time() {
        let metrics = Metrics::new("1").unwrap();
        metrics.upstream_request(UpstreamOperation::Submit, UpstreamOutcome::Ok, Some(Duration::from_millis(40)));
        metrics.upstream_request(UpstreamOperation::Submit, UpstreamOutcome::NotSent, None);
        metrics.ledger(LedgerOperation::Admit, LedgerResult::Conflict, Duration::from_micros(40));
        let text = text(&metrics);
        for sample in [
            "reelgate_upstream_requests_total{operation=\"submit\",outcome=\"ok\"} 1",
            "reelgate_upstream_duration_seconds_bucket{operation=\"submit\",outcome=\"ok\",le=\"0.025\"} 0",
            "reelgate_upstream_duration_seconds_bucket{operation=\"submit\",outcome=\"ok\",le=\"0.1\"} 1",
            "reelgate_upstream_requests_total{operation=\"submit\",outcome=\"not_sent\"} 1",
            "reelgate_upstream_duration_seconds_count{operation=\"submit\",outcome=\"not_sent\"} 0",
            "reelgate_ledger_operations_total{operation=\"admit\",result=\"conflict\"} 1",
            "reelgate_ledger_duration_seconds_count{operation=\"admit\",result=\"conflict\"} 1",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} is missing in\n{text}");
        }
    }
}
