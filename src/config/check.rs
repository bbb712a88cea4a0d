//! What one value alone cannot show: keys that contradict each other, and what the machine does not have. Each
//! finding names the keys it rests on, so that a key that could not even be read brings no second complaint.

mod teams;
mod budgets;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{Config, names};
use crate::access::settings::Mode;
use crate::jobs::settings::Kind;
use crate::request::route::Operation;
use crate::request::settings::SchemaSource;
use crate::upstream::settings::Roots;

/// A contradiction, or a doubt.
pub(super) struct Finding {
    /// The keys it rests on; it is told of the first.
    pub(super) keys: &'static [&'static str],
    /// The place in a list that it is told of, instead of the first of `keys`.
    pub(super) at: Option<String>,
    /// What is wrong and what is allowed.
    pub(super) message: String,
}

impl Finding {
    /// The key it is told of.
    pub(super) fn key(&self) -> &str {
        self.at.as_deref().or(self.keys.first().copied()).unwrap_or_default()
    }
}

/// Tells whether a schema file's text is a schema; `Err` says what is wrong with it.
pub type SchemaCheck<'f> = &'f dyn Fn(Operation, &str) -> Result<(), String>;

/// Everything that keeps this configuration from being used.
pub(super) fn faults(config: &Config, schema: SchemaCheck<'_>) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    server(config, &mut findings);
    upstream(config, &mut findings);
    validation(config, schema, &mut findings);
    dedup(config, &mut findings);
    findings.0.extend(teams::faults(config));
    findings.0.extend(budgets::faults(config));
    ledger(config, &mut findings);
    findings.0
}

/// Everything that may be meant so, and that an operator should know at each start.
pub(super) fn warnings(config: &Config) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    let Config { server, upstream, dedup, .. } = config;
    findings.require(
        server.shutdown_grace >= upstream.late_answer,
        &["server.shutdown_grace", "upstream.late_answer"],
        "shorter than upstream.late_answer: a restart gives up on answers that are still awaited",
    );
    findings.require(
        upstream.late_answer <= dedup.unknown_hold,
        &["dedup.unknown_hold", "upstream.late_answer"],
        "shorter than upstream.late_answer: a prompt is free again while its first answer may still come",
    );
    findings.require(
        dedup.delivery_window.as_secs() <= 24 * 3600,
        &["dedup.delivery_window"],
        "longer than 24h: the upstream's videos are gone by then, and a hit would give out a dead link",
    );
    findings.require(
        !is_public_http(config),
        &["upstream.allow_http", "upstream.url"],
        "plain http:// to another machine: whoever is in between reads the upstream key",
    );
    findings.require(
        config.access.mode != Mode::Open || is_loopback(server.listen),
        &["access.allow_public", "access.mode", "server.listen"],
        "everyone who reaches server.listen spends from the upstream key",
    );
    findings.require(
        config.ledger.kind != Kind::Memory,
        &["ledger.kind"],
        "\"memory\" forgets at a restart: prompts already paid for are bought again",
    );
    // Redis keeps its records by their time alone.
    findings.require(
        config.ledger.kind == Kind::Redis || config.ledger.max_jobs >= dedup.max_entries,
        &["ledger.max_jobs", "dedup.max_entries", "ledger.kind"],
        "fewer than dedup.max_entries: the records of the oldest jobs make room while their ids are still given out, \
         and then nobody is known to own them",
    );
    findings.require(
        config.access.mode == Mode::Keys || config.teams.is_empty(),
        &["access.mode"],
        "\"open\" asks for no key: what [[teams]] says has no effect",
    );
    findings.require(
        config.ledger.kind != Kind::Redis || !dedup.key_env.is_empty(),
        &["dedup.key_env", "ledger.kind"],
        "with redis the fingerprints' key should come from the environment: if redis loses it together with all \
         replicas, live prompts are bought again",
    );
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn require(&mut self, holds: bool, keys: &'static [&'static str], message: impl Into<String>) {
        if !holds {
            self.0.push(Finding { keys, at: None, message: message.into() });
        }
    }

    fn require_ok<T>(&mut self, result: Result<T, String>, keys: &'static [&'static str]) {
        if let Err(message) = result {
            self.require(false, keys, message);
        }
    }
}

fn server(config: &Config, findings: &mut Findings) {
    let Config { server, admin, access, .. } = config;
    findings.require(
        access.mode != Mode::Open || access.allow_public || is_loopback(server.listen),
        &["server.listen", "access.mode", "access.allow_public"],
        "access.mode \"open\" lets everyone who reaches this address spend: listen on 127.0.0.1 or [::1], \
         or say access.allow_public = true",
    );
    findings.require(
        !collide(server.listen, admin.listen),
        &["admin.listen", "server.listen"],
        "the same port as server.listen: the admin listener needs one of its own",
    );
    findings.require(
        admin.key_env.is_empty() || names::is_variable(&admin.key_env),
        &["admin.key_env"],
        NOT_A_VARIABLE,
    );
    findings.require(
        server.tls.certificate.is_some() == server.tls.key.is_some(),
        &["server.tls.key", "server.tls.certificate"],
        "server.tls needs a certificate and its key, or neither",
    );
    findings.require(
        server.max_body <= server.body_memory,
        &["server.body_memory", "server.max_body"],
        "less than server.max_body: such a body could never be read",
    );
    findings.require(
        server.connections_per_address <= server.connections,
        &["server.connections_per_address", "server.connections"],
        "more than server.connections",
    );
    findings.require(
        server.trusted_proxies.iter().all(|network| network.prefix_len() > 0),
        &["server.trusted_proxies"],
        "a network of length 0 is everybody: name the proxies' own addresses",
    );
    findings.require(
        server.allowed_hosts.iter().all(|host| names::is_host(host)),
        &["server.allowed_hosts"],
        "expected host names in lower case, without scheme, port or *, such as \"videos.example\"",
    );
    findings.require(
        server.cors.allowed_origins.iter().all(|origin| names::is_origin(origin)),
        &["server.cors.allowed_origins"],
        "expected exact origins as browsers send them, such as \"https://app.example\" or \"http://localhost:3000\": \
         lower case, no path, no *, no \"null\", no default port",
    );
    findings.require(
        server.cors.public_origin.is_empty() || names::is_web_origin(&server.cors.public_origin),
        &["server.cors.public_origin"],
        "expected our own origin as browsers see it, such as \"https://videos.example\", or \"\"",
    );
}

fn upstream(config: &Config, findings: &mut Findings) {
    let upstream = &config.upstream;
    findings.require(
        names::upstream(&upstream.url).is_some(),
        &["upstream.url"],
        "expected an origin such as \"https://api.cometapi.com\": https or http, a host, maybe a port; \
         no user, path, query or fragment",
    );
    findings.require(
        upstream.allow_http || !is_public_http(config),
        &["upstream.url", "upstream.allow_http"],
        "plain http:// shows the upstream key to the network: use https://, a loopback address, \
         or upstream.allow_http = true",
    );
    if let Roots::File(path) = &upstream.roots {
        findings.require_ok(
            readable(path).map_err(|cause| format!("{cause}: expected \"bundled\", \"system\" or a PEM file")),
            &["upstream.roots"],
        );
    }
    match &upstream.key_file {
        Some(path) => findings.require_ok(readable(path), &["upstream.key_file"]),
        None => findings.require(
            names::is_variable(&upstream.key_env),
            &["upstream.key_env", "upstream.key_file"],
            NOT_A_VARIABLE,
        ),
    }
    let slot = upstream.pace.map(|pace| pace.per / pace.count.max(1));
    findings.require(
        slot.is_none_or(|slot| slot <= upstream.queue_wait),
        &["upstream.pace", "upstream.queue_wait"],
        "a slot comes less often than upstream.queue_wait: nobody who waits would ever be in time",
    );
    findings.require(
        upstream.submit_timeout <= upstream.late_answer,
        &["upstream.submit_timeout", "upstream.late_answer"],
        "longer than upstream.late_answer: a client cannot wait longer than the answer is awaited",
    );
}

fn validation(config: &Config, schema: SchemaCheck<'_>, findings: &mut Findings) {
    let validation = &config.validation;
    let sources: [(_, _, &[&str]); 2] = [
        (Operation::Generations, &validation.generations, &["validation.generations"]),
        (Operation::Edits, &validation.edits, &["validation.edits"]),
    ];
    for (operation, source, keys) in sources {
        if let SchemaSource::File(path) = source {
            let checked = super::read_text(path).and_then(|text| schema(operation, &text));
            findings.require_ok(checked, keys);
        }
    }
}

fn ledger(config: &Config, findings: &mut Findings) {
    let (ledger, hold) = (&config.ledger, config.dedup.unknown_hold);
    findings.require(names::is_variable(&ledger.redis_url_env), &["ledger.redis_url_env"], NOT_A_VARIABLE);
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte);
    findings.require(
        (1..=64).contains(&ledger.prefix.len()) && ledger.prefix.bytes().all(plain),
        &["ledger.prefix"],
        "expected 1 to 64 printable characters without { } * ? [ ] \\ and spaces, such as \"reelgate:\"",
    );
    if let Some(path) = &ledger.redis_roots {
        findings.require_ok(readable(path), &["ledger.redis_roots"]);
    }
    if ledger.kind != Kind::Redis {
        return;
    }
    let lease = ledger.lease;
    findings.require(
        ledger.send_by < lease,
        &["ledger.send_by", "ledger.lease", "dedup.unknown_hold"],
        "not shorter than ledger.lease: a claim could lapse before it is sent",
    );
    findings.require(
        hold >= lease * 2,
        &["dedup.unknown_hold", "ledger.lease"],
        "shorter than twice ledger.lease: with redis a hold must outlast the lease before it",
    );
}

fn dedup(config: &Config, findings: &mut Findings) {
    let dedup = &config.dedup;
    for (variable, key) in [(&dedup.key_env, &["dedup.key_env"]), (&dedup.former_key_env, &["dedup.former_key_env"])] {
        findings.require(variable.is_empty() || names::is_variable(variable), key, NOT_A_VARIABLE);
    }
    findings.require(
        dedup.hold_statuses.iter().all(|status| (500..=599).contains(status)),
        &["dedup.hold_statuses"],
        "expected statuses from 500 to 599",
    );
    let named = |texts: &[String]| texts.iter().all(|text| (1..=128).contains(&text.len()) && text.is_ascii());
    findings.require(
        named(&dedup.url_ignore),
        &["dedup.url_ignore"],
        "expected names of query parameters such as \"X-Amz-Signature\"",
    );
    findings.require(
        named(&dedup.lost_call_codes),
        &["dedup.lost_call_codes"],
        "expected error codes such as \"do_request_failed\"",
    );
}

fn is_public_http(config: &Config) -> bool {
    let Some(uri) = names::upstream(&config.upstream.url) else { return false };
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback());
    uri.scheme_str() == Some("http") && !loopback
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether two listeners want the same port of the same address; an unspecified address is every address.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (first, second) = (one.ip().to_canonical(), other.ip().to_canonical());
    let overlap = first == second || first.is_unspecified() || second.is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

/// Whether a file can be opened and read; what is in it is somebody else's question.
fn readable(path: &Path) -> Result<(), String> {
    let opened = File::open(path).and_then(|file| file.take(1).read(&mut [0]));
    opened.map(|_| ()).map_err(|cause| format!("cannot be read: {cause}"))
}

/// Never repeats the name: it may be the secret itself.
const NOT_A_VARIABLE: &str = "expected the name of an environment variable (letters, digits and _), not a secret";

#[cfg(test)]
mod tests;
