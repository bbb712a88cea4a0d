//! The configuration made ready for use: parsed names, compiled schemas, documents written. Made whole, then swapped;
//! each request goes by one.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::access::settings::Team;
use crate::access::teams::Teams;
use crate::admission;
use crate::bill::price::Prices;
use crate::bill::settings::Users;
use crate::bill::terms::Terms as Bill;
use crate::config::Config;
use crate::jobs::attempt::Terms;
use crate::jobs::book::Bounds;
use crate::jobs::entry::Windows;
use crate::jobs::settings::{Adopt, By, Ownership, Scope, Shape};
use crate::request::client::{BucketKey, Clients};
use crate::request::openapi;
use crate::request::route::Operation;
use crate::request::schema::Schema;
use crate::request::settings::SchemaSource;
use crate::request::submission::Validation;
use crate::server::body::Limits;
use crate::server::cors::Cors;
use crate::server::hosts::Hosts;
use crate::upstream::outcome;

/// What a request goes by.
#[derive(Debug)]
pub struct Rules {
    /// The names we answer to.
    pub hosts: Hosts,
    /// The pages that may call.
    pub cors: Cors,
    /// How long a body may be, and may take.
    pub body: Limits,
    /// What a body must look like.
    pub validation: Validation,
    /// Who may call.
    pub teams: Teams,
    /// The longest life of a client token.
    pub token_lifetime: Duration,
    /// `/openapi.json`.
    pub openapi: Bytes,
    /// What makes two submissions one.
    pub by: By,
    /// Among whom.
    pub scope: Scope,
    /// Query parameters of media URLs that do not count.
    pub url_ignore: Vec<String>,
    /// The upstream's origin, as fingerprints know it.
    pub origin: String,
    /// How an attempt goes about it.
    pub terms: Terms,
    /// How long a client waits for its attempt to be sent.
    pub queue_patience: Duration,
    /// How long it waits from the send.
    pub patience: Duration,
    /// Who may poll a job.
    pub ownership: Ownership,
    /// Whether an id that nobody here knows belongs to whoever polls it first.
    pub adopt_unknown: bool,
    /// Owners of one job.
    pub max_owners: usize,
    /// The form of polls' answers.
    pub shape: Shape,
    /// How long nobody polls a job before we do.
    pub watch: Option<Duration>,
    /// How many jobs we look at at once.
    pub watch_concurrency: usize,
    /// What a job costs.
    pub prices: Arc<Prices>,
    /// Whether users' names may be kept with what they spend.
    pub names_users: bool,
}

impl Rules {
    /// The rules of a configuration that has been checked.
    ///
    /// # Errors
    /// A schema file that cannot be read or compiled.
    pub fn new(config: &Config) -> Result<Self, String> {
        let validation = Validation {
            mode: config.validation.mode,
            unknown_fields: config.validation.unknown_fields,
            generations: schema(Operation::Generations, &config.validation.generations)?,
            edits: schema(Operation::Edits, &config.validation.edits)?,
        };
        let openapi = openapi::document(&validation.generations, &validation.edits).to_string().into();
        let dedup = &config.dedup;
        let teams = Teams::new(&config.access, &config.teams);
        Ok(Self {
            hosts: Hosts::new(&config.server),
            cors: Cors::new(&config.server),
            body: Limits::new(&config.server),
            validation,
            ownership: config.polls.ownership,
            adopt_unknown: match config.polls.adopt_unknown {
                Adopt::Auto => teams.count() <= 1,
                Adopt::Yes => true,
                Adopt::No => false,
            },
            max_owners: config.polls.max_owners,
            teams,
            token_lifetime: config.access.token_lifetime,
            openapi,
            by: dedup.by,
            scope: dedup.scope,
            url_ignore: dedup.url_ignore.clone(),
            origin: config.upstream.url.clone(),
            terms: Terms {
                late_answer: config.upstream.late_answer,
                hold: dedup.unknown_hold,
                max_waiters: dedup.max_waiters,
                rules: Arc::new(outcome::Rules::from(dedup)),
            },
            // Queueing and connecting are bounded by themselves; what comes on top is the ledger's.
            queue_patience: config.upstream.queue_wait + config.upstream.connect_timeout + Duration::from_secs(5),
            patience: config.upstream.submit_timeout,
            shape: config.polls.shape,
            watch: config.polls.watch,
            watch_concurrency: config.polls.watch_concurrency,
            prices: Arc::new(Prices::new(&config.prices)),
            names_users: config.budgets.users == Users::Clear,
        })
    }
}

/// The limits of the teams that have their own.
pub fn team_limits(config: &Config, clients: &Clients) -> Vec<(BucketKey, admission::settings::Limits)> {
    let own = |team: &Team| Some((clients.team(&team.name), team.limits.over(&config.limits)?));
    config.teams.iter().filter_map(own).collect()
}

/// What may be spent.
pub fn bill(config: &Config) -> Arc<Bill> {
    let mut bill = Bill::new(&config.budgets, config.running, HashMap::new());
    let own = |team: &Team| Some((Arc::from(team.name.as_str()), team.bill.over(bill.user, bill.team)?));
    bill.teams = config.teams.iter().filter_map(own).collect();
    Arc::new(bill)
}

/// The bounds of the ledger's book.
pub fn bounds(config: &Config) -> Bounds {
    Bounds {
        windows: Windows::from(&config.dedup),
        max_entries: config.dedup.max_entries,
        max_jobs: config.ledger.max_jobs,
    }
}

fn schema(operation: Operation, source: &SchemaSource) -> Result<Schema, String> {
    match source {
        SchemaSource::Builtin => Ok(Schema::builtin(operation)),
        SchemaSource::File(path) => {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Schema::from_text(operation, &text).map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}
