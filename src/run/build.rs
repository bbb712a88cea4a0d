//! A gateway's parts, put together from a checked configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::ExposeSecret;
use tokio::runtime::Handle;

use super::{StartError, ledger};
use crate::access::token::Tokens;
use crate::admission::attempts::Attempts;
use crate::admission::pace::Pace;
use crate::admission::quota::Scope;
use crate::admission::rate::Limits;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::gateway::rules::{self, Rules};
use crate::jobs::attempt::{Ending, Parts};
use crate::jobs::dedup::Dedup;
use crate::jobs::ledger::SharedPace;
use crate::request::client::Clients;
use crate::server::body::BodyMemory;
use crate::server::in_flight::InFlight;
use crate::server::proxies::Proxies;
use crate::server::tally::{Closed, Tally};
use crate::server::tls::{Certificates, Identity};
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{CloseReason, Degraded, EntryState};
use crate::upstream::client::Upstream;
use crate::upstream::key::UpstreamKey;

/// The gateway of a configuration. The current runtime becomes that of the leases and the ledger's upkeep.
pub(super) async fn gateway(
    config: &Config,
    key: UpstreamKey,
    telemetry: Arc<Telemetry>,
    ending: Ending,
) -> Result<Arc<Gateway>, StartError> {
    let rules = Rules::new(config).map_err(StartError::Faulty)?;
    for schema in [&rules.validation.generations, &rules.validation.edits] {
        telemetry.metrics.fields.know(schema.params().iter().map(String::as_str));
    }
    let identity = Identity::read(&config.server.tls).map_err(|fault| StartError::Faulty(fault.to_string()))?;
    let bounds = rules::bounds(config);
    let (opened, fingerprints, clock) = ledger::open(config, &bounds, &telemetry.metrics).await?;
    // The same deployment has the same name in `Via`, and two in a row have two.
    let [a, b, c, d, ..] = fingerprints.current.digest("via", &[&config.upstream.url]);
    let pseudonym = format!("reelgate-{a:02x}{b:02x}{c:02x}{d:02x}");
    let upstream =
        Upstream::new(&config.upstream, key, &pseudonym).map_err(|fault| StartError::Faulty(fault.to_string()))?;
    let upstream = Arc::new(upstream);
    let clients = Clients::keyed(*fingerprints.current.of_bytes(&[b"clients"]).as_bytes());
    let limits = Arc::new(Limits::new(&config.limits, clock.clone()));
    limits.reload(&config.limits, &rules::team_limits(config, &clients));
    let ledger = opened.ledger(config, bounds, &limits, clock.clone(), &telemetry.metrics)?;
    let pace = Pace::new(config.upstream.pace, config.upstream.queue_wait, Handle::current());
    // A ledger with leases is shared, and so is the upstream then.
    let pace = Arc::new(match ledger.lease() {
        Some(_) => pace.shared(Arc::new(SharedPace(ledger.clone()))),
        None => pace,
    });
    let parts = Parts {
        ledger,
        upstream: upstream.clone(),
        metrics: telemetry.metrics.clone(),
        clock: clock.clone(),
        ending,
        pace: pace.clone(),
    };
    rules.teams.names().for_each(|team| telemetry.metrics.money.know(team));
    let dedup = Arc::new(Dedup::new(parts, config.upstream.submissions, Handle::current()));
    Ok(Arc::new(Gateway {
        rules: ArcSwap::from_pointee(rules),
        telemetry,
        proxies: Proxies::new(&config.server),
        clients,
        tokens: Tokens::new(fingerprints.current.derive(TOKENS).expose_secret()),
        attempts: Attempts::new(config.access.failed_keys, config.limits.tracked, clock.clone()),
        limits,
        memory: BodyMemory::new(config.server.body_memory),
        in_flight: Arc::new(InFlight::new(config.server.requests_in_flight, super::workers(config))),
        fingerprints,
        dedup,
        reader: Arc::default(),
        pace,
        upstream,
        certificates: identity.map(Certificates::new),
        clock,
    }))
}

/// Names the purpose of a key that is derived from the fingerprints' key (`MONEY.md` M9): where that is the same, so is
/// this one, after a restart and in another replica.
const TOKENS: &str = "reelgate signing key of client tokens";

/// Shows at each scrape what is counted elsewhere.
pub(super) fn show(gateway: &Arc<Gateway>, tally: Arc<Tally>) {
    // Weakly, because the gateway owns the metrics.
    let gateway_seen = Arc::downgrade(gateway);
    gateway.telemetry.metrics.on_scrape(move |metrics| {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.connections.set(count(tally.open()));
        metrics.accept_errors.inc_by(tally.accept_errors().saturating_sub(metrics.accept_errors.get()));
        metrics.panics.inc_by(tally.panics().saturating_sub(metrics.panics.get()));
        for reason in Closed::ALL {
            if let Some(label) = CloseReason::named(reason.label()) {
                metrics.connections_closed.raise_to(label, tally.closed(reason));
            }
        }
        let Some(gateway) = gateway_seen.upgrade() else { return };
        if let Some(certificates) = &gateway.certificates {
            metrics.certificate_expires_in(certificates.seconds_left());
        }
        let (entries, running) = gateway.dedup.ledger().counts();
        for (state, number) in entries {
            if let Some(label) = EntryState::named(state) {
                metrics.entries.set(label, count(number as u64));
            }
        }
        metrics.degraded.set(Degraded::Ledger, i64::from(!gateway.dedup.ledger().is_well()));
        for (team, totals) in gateway.dedup.ledger().totals() {
            metrics.money.show(&team, &totals);
        }
        for (outcome, number) in gateway.dedup.ledger().ends().iter() {
            metrics.jobs.raise_to(outcome, number);
        }
        metrics.jobs_running.set(count(running as u64));
        metrics.hot_entries.set(count(gateway.dedup.ledger().hot_entries()));
        metrics.body_memory_bytes.set(count(gateway.memory.used()));
        let buckets: usize = Scope::ALL.into_iter().map(|scope| gateway.limits.tracked(scope)).sum();
        metrics.limiter_buckets.set(count(buckets as u64));
    });
}
