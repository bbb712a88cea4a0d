//! What stands in variables that the configuration names: the operators' key, the fingerprints' keys, and where Redis is. A
//! start, a reload and `check` read them here, so that none of them passes what another refuses.

use std::env::VarError;
use std::fs;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::zeroize::Zeroizing;

use crate::config::Config;
use crate::jobs::ledger::Lease;
use crate::jobs::ledger::redis::open::{self, Place};
use crate::jobs::settings::Kind;
use crate::request::fingerprint::FingerprintKey;
use crate::telemetry::admin::AdminKey;

/// Why such a secret cannot be had. It names the setting, never what the variable holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// The variable is not set.
    #[error("{0}: {1} is not set")]
    Missing(&'static str, String),
    /// What it holds is no such secret.
    #[error("{0}: {1}")]
    Unusable(&'static str, String),
}

impl SecretFault {
    /// A configuration is often checked where its secrets are not; what is there has to be usable.
    pub(super) fn unless_missing(self) -> Result<(), Self> {
        match self {
            Self::Missing(..) => Ok(()),
            Self::Unusable(..) => Err(self),
        }
    }
}

/// Tries one of them.
pub(super) type Trial = fn(&Config) -> Result<(), SecretFault>;

/// All of them, each with the keys that it rests on.
pub(super) const TRIALS: [(&[&str], Trial); 5] = [
    (&["admin.key_env"], |config| admin_key(config).map(drop)),
    (&["dedup.key_env"], |config| fingerprint_key(config).map(drop)),
    (&["dedup.former_key_env"], |config| former_key(config).map(drop)),
    (&["ledger.redis_url_env", "ledger.kind"], |config| with_redis(config, || redis_url(config).map(drop))),
    (&["ledger.redis_roots", "ledger.kind"], |config| with_redis(config, || redis_root(config).map(drop))),
];

fn with_redis(config: &Config, trial: impl FnOnce() -> Result<(), SecretFault>) -> Result<(), SecretFault> {
    match config.ledger.kind {
        Kind::Redis => trial(),
        Kind::Disk | Kind::Memory => Ok(()),
    }
}

/// What this configuration would not start without, and what is not there.
pub fn missing(config: &Config) -> impl Iterator<Item = SecretFault> {
    let faults = TRIALS.iter().filter_map(|(_, trial)| trial(config).err());
    faults.filter(|fault| matches!(fault, SecretFault::Missing(..)))
}

/// The operators' key, if one is configured.
pub(super) fn admin_key(config: &Config) -> Result<Option<AdminKey>, SecretFault> {
    named("admin.key_env", &config.admin.key_env, AdminKey::parse)
}

/// The fingerprints' key, if it comes from the environment (`MONEY.md` M9).
pub(super) fn fingerprint_key(config: &Config) -> Result<Option<FingerprintKey>, SecretFault> {
    named("dedup.key_env", &config.dedup.key_env, FingerprintKey::from_hex)
}

/// The one before it, if it is configured.
pub(super) fn former_key(config: &Config) -> Result<Option<FingerprintKey>, SecretFault> {
    named("dedup.former_key_env", &config.dedup.former_key_env, FingerprintKey::from_hex)
}

/// Where Redis is, and how it is asked.
pub(super) fn redis(config: &Config) -> Result<Place, SecretFault> {
    let ledger = &config.ledger;
    Ok(Place {
        url: redis_url(config)?.to_string(),
        root: redis_root(config)?,
        prefix: ledger.prefix.clone(),
        timeout: ledger.timeout,
        lease: Lease { length: ledger.lease_within(config.dedup.unknown_hold), send_by: ledger.send_by },
    })
}

fn redis_url(config: &Config) -> Result<Zeroizing<String>, SecretFault> {
    const KEY: &str = "ledger.redis_url_env";
    let name = &config.ledger.redis_url_env;
    let url = variable(KEY, name)?;
    open::check(&url, None).map_err(|_| unusable(KEY, name, "expected a URL such as redis://:password@host:6379/0"))?;
    // Of an authority that cannot be used itself its own key tells.
    if let Ok(root @ Some(_)) = redis_root(config) {
        open::check(&url, root).map_err(|_| unusable(KEY, name, "ledger.redis_roots is for URLs with rediss://"))?;
    }
    Ok(url)
}

fn redis_root(config: &Config) -> Result<Option<Vec<u8>>, SecretFault> {
    let fault = |message| SecretFault::Unusable("ledger.redis_roots", message);
    let Some(path) = &config.ledger.redis_roots else { return Ok(None) };
    let root = fs::read(path).map_err(|error| fault(error.to_string()))?;
    // Any address will do, nothing is asked there. A file without certificates would be taken and then trust nobody.
    let is_usable = CertificateDer::pem_slice_iter(&root).next().is_some()
        && open::check("rediss://localhost", Some(root.clone())).is_ok();
    let expected = || fault("expected a PEM file of the authority that signs Redis' certificate".to_owned());
    if is_usable { Ok(Some(root)) } else { Err(expected()) }
}

/// The secret in the variable that a setting names, if it names one.
fn named<T>(
    setting: &'static str,
    name: &str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Option<T>, SecretFault> {
    if name.is_empty() {
        return Ok(None);
    }
    let text = variable(setting, name)?;
    parse(&text).map(Some).map_err(|flaw| unusable(setting, name, flaw))
}

fn variable(setting: &'static str, name: &str) -> Result<Zeroizing<String>, SecretFault> {
    std::env::var(name).map(Zeroizing::new).map_err(|error| match error {
        VarError::NotPresent => SecretFault::Missing(setting, name.to_owned()),
        VarError::NotUnicode(_) => unusable(setting, name, "it holds no text"),
    })
}

fn unusable(setting: &'static str, name: &str, flaw: &str) -> SecretFault {
    SecretFault::Unusable(setting, format!("{name} cannot be used: {flaw}"))
}
