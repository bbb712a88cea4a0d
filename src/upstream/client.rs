//! The API behind: where it is, how it is reached, and the keys for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use crate::error::Unreached;
use crate::upstream::dial::Dialer;
use crate::upstream::headers::{Heads, Via};
use crate::upstream::key::UpstreamKey;
use crate::upstream::origin::{Origin, OriginFault};
use crate::upstream::paid::PaidConnection;
use crate::upstream::settings::Settings;
use crate::upstream::tls::{self, TlsFault};
use crate::upstream::wire::{Names, Wire};

/// The API behind: where it is, how it is reached, and the key for it.
pub struct Upstream {
    origin: Origin,
    dialer: Dialer,
    keys: ArcSwap<Keys>,
    via: Via,
    names: Mutex<Names>,
    /// `upstream.poll_timeout`.
    pub(super) poll_timeout: Duration,
    /// `upstream.idle_connections`.
    pub(super) idle_connections: usize,
    /// `upstream.idle_timeout`.
    pub(super) idle_timeout: Duration,
    /// Tasks that outlive a request; each ends with its connection.
    pub(super) tasks: TaskTracker,
}

impl Upstream {
    /// What the settings describe. `pseudonym` is this deployment's name in `Via`.
    ///
    /// # Errors
    /// What in the settings cannot be used.
    pub fn new(settings: &Settings, key: UpstreamKey, pseudonym: &str) -> Result<Self, UpstreamFault> {
        let origin = Origin::parse(&settings.url)?;
        if !(origin.tls() || origin.is_loopback() || settings.allow_http) {
            return Err(UpstreamFault::Plain);
        }
        let config = tls::client_config(&settings.roots)?;
        let dialer = Dialer::new(origin.clone(), config, settings.connect_timeout).ok_or(OriginFault::NoUrl)?;
        Ok(Self {
            origin,
            dialer,
            keys: ArcSwap::from_pointee(Keys { current: Arc::new(key), retired: Vec::new() }),
            via: Via::new(pseudonym).ok_or(UpstreamFault::Pseudonym)?,
            names: Mutex::default(),
            poll_timeout: settings.poll_timeout,
            idle_connections: settings.idle_connections,
            idle_timeout: settings.idle_timeout,
            tasks: TaskTracker::new(),
        })
    }

    /// Asks another than the system's resolver where it is.
    #[cfg(test)]
    pub(super) fn set_resolver(&mut self, resolver: crate::upstream::resolver::Resolver) {
        self.dialer.set_resolver(resolver);
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The heads of requests with this key.
    pub(super) fn heads(&self, key: &UpstreamKey) -> Heads {
        Heads::new(&self.origin, key)
    }

    /// How the fields of the last answer to a paid call were called.
    pub(super) const fn names(&self) -> &Mutex<Names> {
        &self.names
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why the upstream could not be reached.
    pub(super) async fn wire(&self) -> Result<Wire, Unreached> {
        self.dialer.dial().await.map(Wire::new)
    }

    /// Our name in `Via`.
    pub fn via(&self) -> &Via {
        &self.via
    }

    /// The key that new requests carry.
    pub fn key(&self) -> Arc<UpstreamKey> {
        self.keys.load().current.clone()
    }

    /// Whether new requests carry the key of this id.
    pub fn is_current(&self, id: &str) -> bool {
        self.keys.load().current.id() == id
    }

    /// Where its keys lie, for who looks at them often.
    pub(super) const fn keys(&self) -> &ArcSwap<Keys> {
        &self.keys
    }

    /// New requests carry this key; those in flight keep theirs (F-17), and so do the jobs that were made with it: the
    /// last `kept` keys stay known for their polls.
    pub fn replace_key(&self, key: UpstreamKey, kept: usize) {
        let new = Arc::new(key);
        self.keys.rcu(|keys| {
            let known = std::iter::once(&keys.current).chain(&keys.retired);
            let retired = known.filter(|key| key.id() != new.id()).take(kept).cloned().collect();
            Keys { current: new.clone(), retired }
        });
    }

    /// The upstream refuses a retired key: it is not asked with again. Whether this was a retired one.
    pub fn forget_key(&self, id: &str) -> bool {
        let was_retired = self.keys.load().current.id() != id;
        if was_retired {
            self.keys.rcu(|keys| {
                let retired = keys.retired.iter().filter(|key| key.id() != id).cloned().collect();
                Keys { current: keys.current.clone(), retired }
            });
        }
        was_retired
    }

    /// A new connection for one paid call. Nothing of HTTP has been sent yet; dropping it closes it.
    ///
    /// # Errors
    /// Why the upstream could not be reached: nothing was sent.
    pub async fn connect(self: &Arc<Self>) -> Result<PaidConnection, Unreached> {
        Ok(PaidConnection::new(self.wire().await?, self.clone(), self.key()))
    }
}

/// The key that pays, and those that did before.
pub(super) struct Keys {
    current: Arc<UpstreamKey>,
    /// The last one first; they make no jobs, but the jobs they made are theirs.
    retired: Vec<Arc<UpstreamKey>>,
}

impl Keys {
    /// The key of this id, as long as it is known, else the one that new requests carry.
    pub(super) fn of(&self, id: Option<&str>) -> &Arc<UpstreamKey> {
        let retired = id.and_then(|id| self.retired.iter().find(|key| key.id() == id));
        retired.unwrap_or(&self.current)
    }
}

/// Why there can be no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// The URL.
    #[error("upstream.url: {0}")]
    Url(#[from] OriginFault),
    /// The key would travel in the clear.
    #[error("upstream.url: plain http:// sends the key in the clear: use https://, or set upstream.allow_http")]
    Plain,
    /// TLS.
    #[error("{0}")]
    Tls(#[from] TlsFault),
    /// The name in `Via`.
    #[error("the name of this deployment cannot stand in a header")]
    Pseudonym,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::scripted;

    #[test]
    fn t08_plain_http_goes_to_this_machine_or_where_it_was_allowed() {
        let new = |url: &str, allow_http| {
            let settings = Settings { url: url.to_owned(), allow_http, ..Settings::default() };
            Upstream::new(&settings, UpstreamKey::parse(scripted::KEY).unwrap(), scripted::PSEUDONYM)
                .map(|upstream| upstream.origin.to_string())
        };
        assert_eq!(new("http://10.0.0.1", false), Err(UpstreamFault::Plain));
        assert_eq!(new("http://10.0.0.1", true).as_deref(), Ok("http://10.0.0.1"));
        assert_eq!(new("http://[::1]:1", false).as_deref(), Ok("http://[::1]:1"));
        assert_eq!(new("https://10.0.0.1", false).as_deref(), Ok("https://10.0.0.1"));
    }
}
