//! What a new configuration means for a running process: what changes, and what has to wait for a restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Config, Fault, Faults, check};
use crate::access::settings::Team;

/// A new configuration, made fit for the process that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// The new configuration, but keys that need a restart still as they are.
    pub config: Config,
    /// The keys that took effect.
    pub changed: Vec<String>,
    /// The keys whose new value waits for a restart.
    pub restart: Vec<&'static str>,
}

impl Config {
    /// What becomes of `new`, which [`Config::load`] has found sound, in a process that runs with this
    /// configuration. A new value that contradicts a running one cannot be applied before the restart either.
    pub fn reload(&self, new: Self) -> Result<Reload, Faults> {
        let mut config = new;
        let restart = keep_until_restart(self, &mut config);
        if !restart.is_empty() {
            let clashes = check::faults(&config, &|_, _| Ok(())).into_iter().map(|finding| Fault {
                place: None,
                key: finding.key().to_owned(),
                message: format!("{} (a restart would apply {})", finding.message, restart.join(", ")),
            });
            Faults::none(clashes.collect())?;
        }
        let changed = changed_values(self, &config).chain(changed_teams(&self.teams, &config.teams)).collect();
        Ok(Reload { config, changed, restart })
    }

    /// A short name for the configuration as it is: the same for the same values, whatever the file looks like.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.values() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key} = {value:?}");
        }
        blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect()
    }
}

/// The keys that came, have other values or went: a model's prices are keys of their own. Teams are told by name.
fn changed_values(before: &Config, after: &Config) -> impl Iterator<Item = String> {
    let values = |config: &Config| {
        let values = config.values().into_iter();
        values.filter(|(key, _)| !key.starts_with("teams[")).collect::<Vec<_>>()
    };
    let (after, mut gone) = (values(after), values(before).into_iter().collect::<BTreeMap<_, _>>());
    let differ: Vec<_> = after.into_iter().filter(|(key, value)| gone.remove(key).as_ref() != Some(value)).collect();
    differ.into_iter().map(|(key, _)| key).chain(gone.into_keys())
}

/// The teams that came, went or are others than before, by name.
fn changed_teams(before: &[Team], after: &[Team]) -> impl Iterator<Item = String> {
    let differs = |team: &&Team, others: &[Team]| others.iter().all(|other| other != *team);
    let new = after.iter().filter(|team| differs(team, before));
    let gone = before.iter().filter(|team| after.iter().all(|other| other.name != team.name));
    let names: Vec<String> = new.chain(gone).map(|team| format!("teams.{}", team.name)).collect();
    names.into_iter()
}

macro_rules! keys_until_restart {
    ($($first:ident $(. $rest:ident)+;)+) => {
        /// Their names.
        #[cfg(test)]
        pub(super) const RESTART: &[&str] = &[$(concat!(stringify!($first) $(, ".", stringify!($rest))+)),+];

        /// Puts the running value back under each key that is read only once, and names those that had changed.
        fn keep_until_restart(running: &Config, new: &mut Config) -> Vec<&'static str> {
            let mut names = Vec::new();
            $(
                if running.$first$(.$rest)+ != new.$first$(.$rest)+ {
                    names.push(concat!(stringify!($first) $(, ".", stringify!($rest))+));
                    new.$first$(.$rest)+ = running.$first$(.$rest)+.clone();
                }
            )+
            names
        }
    };
}

// Sockets, threads, semaphores and caches are made once, with these.
keys_until_restart! {
    server.workers;
    server.listen;
    server.body_memory;
    server.first_byte_timeout;
    server.header_timeout;
    server.write_timeout;
    server.connections;
    server.connections_per_address;
    server.requests_in_flight;
    server.trusted_proxies;
    server.headers.bytes;
    server.http2.streams;
    server.http2.stream_window;
    server.http2.connection_window;
    server.http2.header_list;
    server.http2.ping_interval;
    server.http2.ping_timeout;
    server.http2.idle_timeout;
    server.http2.max_age;
    server.http2.max_requests;
    server.tls.certificate;
    server.tls.key;
    server.tls.handshake_timeout;
    admin.listen;
    admin.key_env;
    upstream.url;
    upstream.allow_http;
    upstream.roots;
    upstream.connect_timeout;
    upstream.poll_timeout;
    upstream.submissions;
    upstream.idle_connections;
    upstream.idle_timeout;
    limits.tracked;
    dedup.key_env;
    dedup.former_key_env;
    dedup.hot_entries;
    dedup.max_entries;
    ledger.kind;
    ledger.path;
    ledger.max_jobs;
    ledger.redis_url_env;
    ledger.redis_roots;
    ledger.prefix;
    ledger.timeout;
    ledger.lease;
    ledger.send_by;
    log.format;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reload_applies_the_rest_and_names_what_needs_a_restart() {
        let running = Config::default();
        let mut new = Config::default();
        new.server.listen = SocketAddr::from(([127, 0, 0, 1], 9000));
        new.upstream.submit_timeout = Duration::from_secs(5);
        new.limits.user.generations = None;
        let reload = running.reload(new).unwrap();
        assert_eq!(reload.restart, ["server.listen"]);
        assert_eq!(reload.changed, ["upstream.submit_timeout", "limits.user.generations"]);
        assert_eq!(reload.config.server.listen, running.server.listen);
        assert_eq!(reload.config.upstream.submit_timeout, Duration::from_secs(5));
    }

    #[test]
    fn m4_a_hold_that_does_not_outlast_the_running_lease_waits_for_a_restart() {
        let with = |hold: &str| {
            let environment = [("REELGATE_LEDGER__KIND", "redis"), ("REELGATE_DEDUP__UNKNOWN_HOLD", hold)];
            let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
            Config::load(None, environment, &|_, _| Ok(())).unwrap_or_else(|faults| panic!("{faults}"))
        };
        let running = with("10m");
        let text = running.reload(with("20s")).unwrap_err().to_string();
        assert!(text.starts_with("dedup.unknown_hold: shorter than twice ledger.lease"), "{text}");
        assert!(text.ends_with("(a restart would apply ledger.lease)"), "{text}");
        assert_eq!(running.reload(with("2m")).unwrap().restart, [""; 0]);
        assert_eq!(with("20s").reload(with("2m")).unwrap().restart, ["ledger.lease"]);
    }

    #[test]
    fn a_value_that_contradicts_a_running_one_waits_with_it() {
        let mut new = Config::default();
        new.server.body_memory = 1 << 30;
        new.server.max_body = 1 << 30;
        let text = Config::default().reload(new).unwrap_err().to_string();
        assert!(text.starts_with("server.body_memory: less than server.max_body"), "{text}");
        assert!(text.ends_with("(a restart would apply server.body_memory)"), "{text}");
    }

    #[test]
    fn a_models_prices_that_come_or_go_are_all_that_changed() {
        let (running, mut new) = (Config::default(), Config::default());
        let row = new.prices.rows["grok-imagine-video"].clone();
        new.prices.rows.insert("a-model".to_owned(), row);
        let keys = ["prices.a-model.image", "prices.a-model.480p", "prices.a-model.720p"];
        assert_eq!(running.reload(new.clone()).unwrap().changed, keys);
        let mut gone = new.reload(running).unwrap().changed;
        gone.sort();
        assert_eq!(gone, ["prices.a-model.480p", "prices.a-model.720p", "prices.a-model.image"]);
    }

    #[test]
    fn the_hash_follows_the_values() {
        let mut other = Config::default();
        assert_eq!(other.hash(), Config::default().hash());
        other.server.cors.allowed_origins.push("https://a.example".to_owned());
        assert_ne!(other.hash(), Config::default().hash());
    }
}
