//! What a body says, and under which names it shares: parsed, validated and fingerprinted once for the same bytes.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::local::LocalRules;
use super::rules::Rules;
use super::submit::random;
use super::{Gateway, Worker};
use crate::bill::price::Price;
use crate::error::{Error, Fault};
use crate::jobs::settings::{By, Scope};
use crate::request::client::{Client, User};
use crate::request::fingerprint::{Fingerprint, FingerprintKey, FingerprintKeys, Sharing};
use crate::request::route::Operation;
use crate::request::submission::{Submission, Wishes};
use crate::request::verbatim::Name;

/// A submission as far as the next stages need it.
#[derive(Debug)]
pub(super) struct Understood {
    /// The body's `user`.
    pub(super) user: Option<User>,
    /// The model it asks for.
    pub(super) model: Option<String>,
    /// What its headers ask for.
    pub(super) wishes: Wishes,
    /// What to tell about deprecated fields.
    pub(super) deprecated: Vec<String>,
    /// Faults that `validation.mode = "warn"` lets pass.
    pub(super) faults: Vec<Fault>,
    /// Its names.
    pub(super) names: Names,
    /// Those by the fingerprints' key before the one in use, if there is one (M9).
    pub(super) former: Option<Names>,
    /// What a new job for it would cost.
    pub(super) price: Price,
}

impl Understood {
    /// Whether many may be remembered: what a client makes long is not.
    fn is_small(&self) -> bool {
        self.faults.is_empty() && self.model.as_ref().is_none_or(|model| model.len() <= LONGEST_MODEL)
    }
}

/// Under which names a submission shares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// With its twins.
    pub(super) fingerprint: Fingerprint,
    /// What an idempotency key is bound to.
    pub(super) body: Fingerprint,
    /// Where only keys share: what a keyless one has in common with its equals (M15).
    pub(super) base: Option<Fingerprint>,
}

impl Worker {
    /// Parses, validates and fingerprints a body, and says under which name it may be remembered if it is a hit: most
    /// bodies come once. A long one is looked at apart from the worker's connections.
    pub(super) async fn understand(
        &self,
        operation: Operation,
        wishes: Wishes,
        client: &Client,
        body: &Bytes,
        rules: &LocalRules,
    ) -> Result<(Rc<Understood>, Option<Name>), Error> {
        let (understood, name) = if body.len() > LONG {
            let (gateway, body, rules) = (self.gateway.clone(), body.clone(), Arc::clone(rules));
            let sharer = Sharer::of(client);
            let read = move || read(&gateway, operation, wishes, &sharer, &body, &rules);
            (Rc::new(tokio::task::spawn_blocking(read).await.map_err(|_| Error::Internal)??), None)
        } else {
            self.understand_here(operation, wishes, client, body, rules)?
        };
        // Only now, because a body that breaks its schema is told so first.
        let of_another = |user: &User| client.pass.user().is_some_and(|fixed| *fixed != *user.name);
        if understood.user.as_ref().is_some_and(of_another) {
            return Err(Error::UserMismatch);
        }
        client.pass.check_model(understood.model.as_deref())?;
        Ok((understood, name))
    }

    fn understand_here(
        &self,
        operation: Operation,
        wishes: Wishes,
        client: &Client,
        body: &Bytes,
        rules: &LocalRules,
    ) -> Result<(Rc<Understood>, Option<Name>), Error> {
        let sharer = Sharer::of(client);
        if rules.by != By::Prompt || wishes != Wishes::default() {
            return Ok((Rc::new(read(&self.gateway, operation, wishes, &sharer, body, rules)?), None));
        }
        let (operation_name, user) = (operation.name().as_bytes(), sharer.user.as_deref().unwrap_or_default());
        let parts: &[&[u8]] = match rules.scope {
            Scope::User => &[operation_name, client.team().as_bytes(), body, user.as_bytes()],
            Scope::Team | Scope::Global => &[operation_name, client.team().as_bytes(), body],
        };
        let name = rules.known.name(parts);
        if let Some(known) = rules.known.get(&name) {
            return Ok((known, None));
        }
        let understood = read(&self.gateway, operation, wishes, &sharer, body, rules)?;
        let name = understood.is_small().then_some(name);
        Ok((Rc::new(understood), name))
    }
}

/// With whom a submission shares, as far as its body does not say.
struct Sharer {
    team: Arc<str>,
    /// The user that a token fixes.
    user: Option<Arc<str>>,
}

impl Sharer {
    fn of(client: &Client) -> Self {
        Self { team: client.team().clone(), user: client.user.as_ref().map(|user| user.name.clone()) }
    }
}

fn read(
    gateway: &Gateway,
    operation: Operation,
    wishes: Wishes,
    sharer: &Sharer,
    body: &Bytes,
    rules: &Rules,
) -> Result<Understood, Error> {
    let Submission { fields, inline, user, model, deprecated, faults } =
        Submission::parse(operation, body, &rules.validation)?;
    let named = user.as_deref().or(sharer.user.as_deref()).unwrap_or_default();
    let sharing = Sharing {
        origin: &rules.origin,
        team: (rules.scope != Scope::Global).then_some(&sharer.team),
        user: (rules.scope == Scope::User).then_some(named),
        variation: wishes.variation.as_deref(),
        ..Sharing::default()
    };
    let names = |key: &FingerprintKey| {
        let name =
            |sharing: &Sharing<'_>| key.fingerprint(sharing, operation, &fields, inline.as_ref(), &rules.url_ignore);
        // A key says nothing to another team, whatever else is shared (M16).
        let key = wishes.idempotency_key.as_deref().map(|key| Sharing {
            key: Some(key),
            team: Some(&sharer.team),
            ..sharing
        });
        Names::of(rules.by, &sharing, key.as_ref(), name)
    };
    let FingerprintKeys { current, former } = &gateway.fingerprints;
    let (names, former) = (names(current)?, former.as_ref().map(names).transpose()?);
    let price = rules.prices.of(operation, &fields);
    let user = user.map(|user| gateway.clients.user(&sharer.team, &user));
    Ok(Understood { user, model, wishes, deprecated, faults, names, former, price })
}

impl Names {
    fn of(
        by: By,
        sharing: &Sharing<'_>,
        keyed: Option<&Sharing<'_>>,
        name: impl Fn(&Sharing<'_>) -> Fingerprint,
    ) -> Result<Self, Error> {
        let body = name(sharing);
        let (fingerprint, base) = match (by, keyed) {
            (By::Prompt, _) => (body, None),
            (By::IdempotencyKey | By::Off, Some(keyed)) => (name(keyed), None),
            (By::IdempotencyKey | By::Off, None) => {
                let unique = name(&Sharing { unique: Some(&random()?), ..*sharing });
                (unique, (by == By::IdempotencyKey).then_some(body))
            }
        };
        Ok(Self { fingerprint, body, base })
    }
}

/// A longer name of a model is not remembered, in bytes.
const LONGEST_MODEL: usize = 128;
/// From this length on, in bytes, a body is understood on a thread of its own.
const LONG: usize = 256 << 10;
