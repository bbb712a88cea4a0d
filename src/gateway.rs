//! The way of a request, from its header to its answer, in the order in which things are checked. Every stage is one
//! call on a noun; what a stage learns, the next takes as an argument. Open this file first.

pub mod answer;
mod concurrency;
mod identify;
mod known;
mod local;
mod owner;
mod observer;
mod poll;
mod preview;
pub mod rules;
mod submit;
mod tokens;
mod turns;
mod understand;
pub mod watch;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::http::request::Parts;
use hyper::{Method, Response};

use crate::access::settings::Gate;
use crate::access::token::Tokens;
use crate::admission::attempts::Attempts;
use crate::admission::pace::Pace;
use crate::admission::rate::Limits;
use crate::clock::Clock;
use crate::error::Error;
use crate::gateway::answer::Body;
use crate::gateway::concurrency::Concurrency;
use crate::gateway::local::{InForce, LocalRules};
use crate::gateway::observer::Observers;
use crate::gateway::rules::Rules;
use crate::jobs::dedup::Dedup;
use crate::jobs::observe::Reader;
use crate::request::client::Clients;
use crate::request::fingerprint::FingerprintKeys;
use crate::request::head::Head;
use crate::request::route::Route;
use crate::server::body::{BodyMemory, Upload};
use crate::server::cors::Caller;
use crate::server::in_flight::{InFlight, Places};
use crate::server::proxies::Proxies;
use crate::server::tls::Certificates;
use crate::server::{Handler, Peer};
use crate::telemetry::record::{Record, Recorded};
use crate::telemetry::{Telemetry, WorkerTelemetry};
use crate::upstream::client::Upstream;
use crate::upstream::headers::Passed;
use crate::upstream::polls::Polls;

/// What all requests share.
pub struct Gateway {
    /// What the configuration says, made ready for use; replaced whole by a reload.
    pub rules: ArcSwap<Rules>,
    /// What is seen.
    pub telemetry: Arc<Telemetry>,
    /// Whose word is taken about where clients are.
    pub proxies: Proxies,
    /// Who asks.
    pub clients: Clients,
    /// What their browsers show.
    pub tokens: Tokens,
    /// Wrong keys, by address.
    pub attempts: Attempts,
    /// How often they may.
    pub limits: Arc<Limits>,
    /// The bytes of all bodies together.
    pub memory: BodyMemory,
    /// The places for requests in work.
    pub in_flight: Arc<InFlight>,
    /// What makes two submissions identical.
    pub fingerprints: FingerprintKeys,
    /// One job for identical prompts.
    pub dedup: Arc<Dedup>,
    /// What answers about jobs tell.
    pub reader: Arc<Reader>,
    /// How fast the API behind takes submissions.
    pub pace: Arc<Pace>,
    /// The API behind.
    pub upstream: Arc<Upstream>,
    /// What clients are shown, if they are spoken to by TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// This machine's, for the ends of credentials. What is remembered goes by the ledger's time.
    pub clock: Clock,
}

/// The gateway as one worker has it: with its own connections for polls, so that a poll stays on one thread.
pub struct Worker {
    gateway: Arc<Gateway>,
    polls: Arc<Polls>,
    observers: Arc<Observers>,
    places: Rc<Places>,
    concurrency: Rc<Concurrency>,
    in_force: InForce,
    telemetry: WorkerTelemetry,
}

impl Worker {
    /// A worker's share of the gateway, made in the worker's own runtime.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let polls = Polls::new(gateway.upstream.clone());
        let swept = Arc::downgrade(&polls);
        // It ends with the worker's runtime.
        tokio::task::spawn_local(async move {
            while let Some(polls) = swept.upgrade() {
                polls.sweep();
                drop(polls);
                tokio::time::sleep(BETWEEN_SWEEPS).await;
            }
        });
        let concurrency = Rc::<Concurrency>::default();
        let adapting = concurrency.clone();
        tokio::task::spawn_local(async move { adapting.adapt().await });
        let in_force = InForce::new(gateway.clone());
        let telemetry = WorkerTelemetry::new(&gateway.telemetry);
        let (observers, places) = (Observers::new(gateway.clone()), Places::new(gateway.in_flight.clone()));
        Self { gateway, polls, observers, places, concurrency, in_force, telemetry }
    }

    /// What is asked, checked in the order in which it could hurt (`HARDENING.md` §7).
    async fn answer(
        &self,
        head: &Head<'_>,
        upload: Upload,
        peer: Peer,
        rules: &LocalRules,
        record: &mut Record,
    ) -> Answered {
        let caller = match self.caller(head, rules) {
            Ok(caller) => caller,
            Err(error) => return (Caller::default(), Err(error)),
        };
        if rules.teams.is_open() {
            record.by(rules.passes.everybody());
        }
        let answer = self.route(head, upload, peer, &caller, rules, record).await;
        (caller, answer)
    }

    /// From where: our own host, no loop, no foreign page.
    fn caller(&self, head: &Head<'_>, rules: &Rules) -> Result<Caller, Error> {
        let authority = rules.hosts.check(head)?;
        if self.gateway.upstream.via().is_in(&head.header) {
            return Err(Error::LoopDetected);
        }
        rules.cors.check(&head.method, &head.header, authority)
    }

    /// For what.
    async fn route(
        &self,
        head: &Head<'_>,
        upload: Upload,
        peer: Peer,
        caller: &Caller,
        rules: &LocalRules,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let place = self.places.enter().ok_or(Error::Overloaded { what: "server.requests_in_flight" })?;
        match Route::find(&head.method, head.uri.path(), head.uri.query())? {
            Route::Submit(operation) => {
                let pass = self.identify(operation.into(), head, peer, rules, record)?;
                let mut client = self.gateway.clients.identify(peer.address.ip(), pass);
                self.submit(operation, head, upload, &mut client, rules, record).await
            }
            Route::Poll { id, head: header_only } => {
                // Nobody reads what a client sends here, and it would wait with its request, outside of all bounds.
                drop(upload);
                let pass = self.identify(Gate::Poll, head, peer, rules, record)?;
                let passed = Passed::of(&head.header, head.version, self.gateway.upstream.via());
                let passed = passed.within(record.trace());
                let mut answer = self.poll(&id, header_only, &passed, &pass, rules, record).await;
                if let Ok(answer) = &mut answer {
                    answer.body_mut().keep(place);
                }
                answer
            }
            Route::ClientTokens => {
                let pass = self.identify(Gate::ClientTokens, head, peer, rules, record)?;
                let client = self.gateway.clients.identify(peer.address.ip(), pass);
                Box::pin(self.client_token(head, upload, &client, rules)).await
            }
            Route::Preflight { allow } => Ok(caller.options(&head.headers, allow)?.map(|()| Body::Empty)),
            Route::OpenApi { .. } => Ok(answer::document(rules.openapi.clone())),
        }
    }
}

/// An answer, and to which page it may be shown.
type Answered = (Caller, Result<Response<Body>, Error>);

impl Handler for Worker {
    type Body = Recorded<Body>;

    /// Records, answers, and turns every error into an answer: nothing fails beyond this point.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold each argument twice, for every connection")]
    fn handle(
        self: Rc<Self>,
        head: Parts,
        upload: Upload,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + 'static {
        async move {
            let peer = self.gateway.proxies.client(peer, &head.headers);
            let head = Head::of(&head);
            let mut record = Record::begin(&self.telemetry, peer.address, &head);
            let rules = self.in_force.rules();
            let (caller, result) = self.answer(&head, upload, peer, &rules, &mut record).await;
            let mut answer = result.unwrap_or_else(|error| {
                record.refused(&error);
                answer::refusal(&error)
            });
            caller.grant(answer.headers_mut());
            if head.method == Method::HEAD {
                answer::behead(&mut answer);
            }
            record.follow(answer)
        }
    }

    fn fetch(body: &mut Self::Body, context: &mut Context<'_>, most: usize) -> usize {
        match body.get_mut() {
            Body::Relayed(relay, _) => relay.fetch(context, most),
            Body::Empty | Body::Whole(_) | Body::Owed(..) => 0,
        }
    }

    fn broken(&self) -> Response<Self::Body> {
        self.telemetry.name_panicked(answer::refusal(&Error::Internal)).map(Recorded::unrecorded)
    }
}

/// How often idle connections for polls are looked at.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);
