//! A new configuration while it runs: read, checked whole, then swapped. A bad one changes nothing; what is kept (limits,
//! entries, counts) survives a good one.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::Source;
use crate::access::settings::Mode;
use crate::config::watch::{Cause, Watch};
use crate::config::{Config, Reload};
use crate::gateway::Gateway;
use crate::gateway::rules::{self, Rules};
use crate::request::route::Operation;
use crate::server::tls::Identity;
use crate::telemetry::admin::Admin;
use crate::telemetry::labels::ReloadResult;
use crate::upstream::key::{KeyDoubt, UpstreamKey};

/// What a reload changes.
pub(super) struct Reloader {
    gateway: Arc<Gateway>,
    admin: Arc<Admin>,
    config: Arc<Mutex<Config>>,
    source: Source,
}

impl Reloader {
    pub(super) fn new(gateway: &Arc<Gateway>, admin: &Arc<Admin>, config: &Arc<Mutex<Config>>, source: Source) -> Self {
        Self { gateway: gateway.clone(), admin: admin.clone(), config: config.clone(), source }
    }

    /// Reloads at each SIGHUP, and whenever the file or one that it names changes; once, if either came before. What was
    /// refused is tried again when a file changes that it named, for it may have been refused because that was not there.
    pub(super) async fn follow(self, mut watch: Watch) {
        loop {
            let cause = watch.changed().await;
            // Before they are read, or a change in between is missed.
            let source = self.source.clone();
            let named = spawn_blocking(move || source.named_files()).await.unwrap_or_default();
            watch.follow([self.files().await, named].concat()).await;
            let result = match self.reload(&cause).await {
                Ok(()) => {
                    watch.follow(self.files().await).await;
                    ReloadResult::Ok
                }
                Err(faults) => {
                    error!(%faults, "the configuration was not reloaded: what runs is unchanged");
                    ReloadResult::Error
                }
            };
            self.gateway.telemetry.metrics.config_reloads.inc(result);
        }
    }

    /// The files of what runs.
    async fn files(&self) -> Vec<PathBuf> {
        self.source.files(&*self.config.lock().await)
    }

    async fn reload(&self, cause: &Cause) -> Result<(), String> {
        let source = self.source.clone();
        let new = spawn_blocking(move || source.tried()).await.map_err(|_| "reading it failed".to_owned())??;
        let mut running = self.config.lock().await;
        let Reload { config, mut changed, restart } = new.reload(&running).map_err(|faults| faults.to_string())?;
        // Everything that can fail comes before the first change.
        let upstream = config.upstream.clone();
        let read = move || UpstreamKey::read(&upstream, |name| std::env::var(name).ok());
        let key = spawn_blocking(read).await.map_err(|_| "reading the key failed".to_owned())?;
        let (key, doubt) = key.map_err(|fault| fault.to_string())?;
        let tls = config.server.tls.clone();
        let identity = spawn_blocking(move || Identity::read(&tls)).await;
        let identity = identity.map_err(|_| "reading the certificate failed".to_owned())?;
        let identity = identity.map_err(|fault| fault.to_string())?;
        let rules = Rules::new(&config)?;
        let gateway = &self.gateway;
        let rewritten = rewritten(gateway, &config, &rules, &key, identity.as_ref());
        let rewritten = rewritten.filter(|name| changed.iter().all(|changed| changed != name));
        let rewritten: Vec<_> = rewritten.map(|name| format!("{name} (its file)")).collect();
        changed.extend(rewritten);
        warn_of(&running, &config, doubt);
        for schema in [&rules.validation.generations, &rules.validation.edits] {
            gateway.telemetry.metrics.fields.know(schema.params().iter().map(String::as_str));
        }
        if key.id() != gateway.upstream.key().id() {
            info!(key = key.id(), "new requests carry another upstream key");
        }
        // Always, because fewer retired ones may be kept than before.
        gateway.upstream.replace_key(key, config.upstream.retired_keys);
        gateway.limits.reload(&config.limits, &rules::team_limits(&config, &gateway.clients));
        gateway.attempts.reload(config.access.failed_keys);
        gateway.pace.reload(config.upstream.pace, config.upstream.queue_wait);
        rules.teams.names().for_each(|team| gateway.telemetry.metrics.money.know(team));
        gateway.dedup.ledger().reload(rules::bounds(&config), rules::bill(&config));
        gateway.telemetry.log.set_level(config.log.level);
        self.admin.set_allowed_hosts(config.server.allowed_hosts.clone());
        if let (Some(certificates), Some(identity)) = (&gateway.certificates, identity) {
            certificates.replace(identity);
        }
        gateway.rules.store(Arc::new(rules));
        gateway.telemetry.metrics.config_changed(&changed);
        gateway.telemetry.metrics.restart_needed(&restart);
        if !restart.is_empty() {
            warn!(keys = restart.join(", "), "these keys wait for a restart");
        }
        let signalled = *cause == Cause::Signal;
        info!(changed = changed.join(", "), signalled, hash = config.hash(), "the configuration was reloaded");
        *running = config;
        Ok(())
    }
}

/// Tells what a start would, and what is only seen beside what ran before.
fn warn_of(running: &Config, new: &Config, doubt: Option<KeyDoubt>) {
    if (running.access.mode, new.access.mode) == (Mode::Keys, Mode::Open) {
        warn!("access.mode: \"open\" from now on: whoever reaches server.listen spends, and no key is asked for");
    }
    for warning in new.warnings() {
        warn!("{warning}");
    }
    if let Some(doubt) = doubt {
        warn!("{doubt}");
    }
}

/// The keys that name a file which says something else than before.
fn rewritten(
    gateway: &Gateway,
    config: &Config,
    rules: &Rules,
    key: &UpstreamKey,
    identity: Option<&Identity>,
) -> impl Iterator<Item = &'static str> {
    let running = gateway.rules.load();
    let schema =
        |operation| running.validation.schema(operation).document() != rules.validation.schema(operation).document();
    let shown = gateway.certificates.as_ref().zip(identity);
    let is_of_file = config.upstream.key_file.is_some();
    let all = [
        ("upstream.key_file", is_of_file && key.id() != gateway.upstream.key().id()),
        ("server.tls.certificate", shown.is_some_and(|(shown, new)| !shown.shows(new))),
        ("validation.generations", schema(Operation::Generations)),
        ("validation.edits", schema(Operation::Edits)),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
}
