//! The way of a submission: read, understood, named, and then a hit, a place beside a twin, or an attempt of its own
//! (`DESIGN.md` §3).

use std::sync::Arc;
use std::time::Duration;

use hyper::Response;

use super::Worker;
use super::answer::{self, Body, Served};
use super::local::LocalRules;
use super::rules::Rules;
use super::understand::{Names, Understood};
use crate::access::allowance::Allowance;
use crate::admission::headers::Standing;
use crate::admission::rate::Refusal;
use crate::bill::charge::Purse;
use crate::bill::tab::Charge;
use crate::error::{Doubt, Error};
use crate::jobs::attempt::{Load, Order};
use crate::jobs::book::Ask;
use crate::jobs::dedup::{Delivery, Part, Place, Waiting};
use crate::jobs::entry::{Asker, AttemptId, Caller, Created, RETRY_AFTER_DOUBT};
use crate::jobs::ledger::Request;
use crate::jobs::settings::{By, Scope};
use crate::request::client::Client;
use crate::request::fingerprint::FingerprintKey;
use crate::request::head::Head;
use crate::request::route::Operation;
use crate::request::submission::{self, Wishes};
use crate::server::body::{self, Upload};
use crate::telemetry::labels::{Saved, SubmissionOutcome};
use crate::telemetry::record::Record;
use crate::telemetry::submission_count::SubmissionCount;
use crate::upstream::headers::Passed;
use crate::upstream::outcome::{Outcome, Reply};

impl Worker {
    /// Serves a submission; how its limits stand is told in any case.
    pub(super) async fn submit(
        &self,
        operation: Operation,
        head: &Head<'_>,
        upload: Upload,
        client: &mut Client,
        rules: &LocalRules,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let (mut standing, mut deprecated) = (Standing::default(), Vec::new());
        let result = self.serve(operation, head, upload, client, rules, record, &mut standing, &mut deprecated).await;
        let mut answer = result.unwrap_or_else(|error| {
            record.refused(&error);
            answer::refusal(&error)
        });
        self.gateway.limits.write_headers(client.who(), &standing, answer.headers_mut());
        answer::warn(answer.headers_mut(), &deprecated);
        Ok(answer)
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing that an earlier stage has learned")]
    async fn serve(
        &self,
        operation: Operation,
        head: &Head<'_>,
        upload: Upload,
        client: &mut Client,
        rules: &LocalRules,
        record: &mut Record,
        standing: &mut Standing,
        deprecated: &mut Vec<String>,
    ) -> Result<Response<Body>, Error> {
        let gateway = &*self.gateway;
        *standing = gateway.limits.before_body(client.who()).map_err(|refusal| limited(&refusal, standing))?;
        submission::check_media(&head.header)?;
        let wishes = Wishes::read(&head.header)?;
        let body = body::read(upload, &rules.body, &gateway.memory).await?;
        record.bytes_in(u64::try_from(body.len()).unwrap_or(u64::MAX));
        let (understood, name) = self.understand(operation, wishes, client, &body, rules).await?;
        client.name(understood.user.as_ref());
        self.note(&understood, record);
        deprecated.clone_from(&understood.deprecated);
        if understood.wishes.dry_run {
            // Boxed, like the way of a miss: their state would make every hit's larger.
            return Box::pin(self.preview(&understood, client, rules, record, standing)).await;
        }
        match self.hot(&understood, client, rules, standing)? {
            Some((created, ttl)) => {
                if let Some(name) = name {
                    rules.known.remember(name, &understood);
                }
                self.own(&created.job, client, rules).await?;
                Ok(self.hit(&created, ttl, &understood, gateway.clients.caller(client).0, None, record))
            }
            None => {
                let mut order = Order {
                    operation,
                    body: body.into(),
                    passed: Passed::of(&head.header, head.version, gateway.upstream.via()).within(record.trace()),
                    request_id: record.request_id().into(),
                    count: record.count().cloned(),
                };
                Box::pin(self.place(&understood, client, &mut order, rules, record, standing)).await
            }
        }
    }

    fn note(&self, understood: &Understood, record: &mut Record) {
        record.fingerprint(understood.names.fingerprint.short());
        let fields = &self.gateway.telemetry.metrics.fields;
        for warning in &understood.deprecated {
            fields.deprecated(warning.split(':').next().unwrap_or_default());
        }
        understood.faults.iter().for_each(|fault| fields.invalid(&fault.param, fault.code));
    }

    /// A hit that needs no lock: nothing was wished for, and the prompt is hot. It takes `requests` only.
    fn hot(
        &self,
        understood: &Understood,
        client: &Client,
        rules: &LocalRules,
        standing: &mut Standing,
    ) -> Result<Option<(Created, Duration)>, Error> {
        let wishes = &understood.wishes;
        if rules.by != By::Prompt || wishes.no_cache || wishes.idempotency_key.is_some() {
            return Ok(None);
        }
        let Some(hit) = self.gateway.dedup.ledger().hot(&understood.names.fingerprint) else { return Ok(None) };
        let stands = self.gateway.limits.requests(client.who()).map_err(|refusal| limited(&refusal, standing))?;
        *standing = standing.then(stands);
        Ok(Some(hit))
    }

    /// Asks for admission, waits beside whoever is asked to, and asks again if that came to nothing (M6).
    async fn place(
        &self,
        understood: &Understood,
        client: &Client,
        order: &mut Order,
        rules: &LocalRules,
        record: &mut Record,
        standing: &mut Standing,
    ) -> Result<Response<Body>, Error> {
        let gateway = &*self.gateway;
        let mut request = self.request(understood, client, rules)?;
        request.ask.request_id = order.request_id.clone();
        let mut vain = Vain::default();
        for again in 0..MOST_ADMISSIONS {
            if again > 0 {
                request.ask.attempt = self.attempt()?;
            }
            match gateway.dedup.admit(&mut request, order, &rules.terms, standing).await? {
                Place::Hit(created, until, owed) => {
                    self.own(&created.job, client, rules).await?;
                    let ttl = until.since(gateway.dedup.ledger().now());
                    return Ok(self.hit(&created, ttl, understood, request.ask.asker.caller, owed, record));
                }
                Place::Waiting(mut waiting) => {
                    // Held from here on, so that a client that leaves while it waits leaves its job to be adopted.
                    let owed = gateway.dedup.delivery(&request.ask, &waiting);
                    let joined = Joined::begin(waiting.part, order.count.as_ref());
                    let begun = tokio::time::Instant::now();
                    // What is on its way is not sent again: the answer is waited for without the body. Of an attempt
                    // elsewhere nothing may be heard any more, and then this submission needs its body again.
                    let keeps = waiting.waiter.is_elsewhere();
                    let forget = || {
                        if !keeps {
                            order.body = Load::default()
                        }
                    };
                    let outcome = waiting.waiter.outcome(rules.queue_patience, rules.patience, forget).await;
                    let is_void = |outcome: &Arc<Outcome>| {
                        outcome.is_void() || waiting.part == Part::Joiner && outcome.is_paced()
                    };
                    if outcome.as_ref().is_some_and(is_void) {
                        joined.forget();
                        settled(owed);
                        if order.body.is_taken() {
                            return Err(Error::Internal);
                        }
                        vain.pause(waiting.attempt).await;
                        continue;
                    }
                    if let Some(Outcome::Created { request_id, .. }) = outcome.as_deref()
                        && let Err(error) = self.own(request_id, client, rules).await
                        && waiting.part == Part::Joiner
                    {
                        joined.forget();
                        return Err(error);
                    }
                    drop(joined);
                    record.upstream(None, begun.elapsed());
                    if waiting.part == Part::Joiner && matches!(outcome.as_deref(), Some(Outcome::Created { .. })) {
                        let is_own = waiting.waiter.leader() == Some(request.ask.asker.caller);
                        record.saved(if is_own { Saved::Retry } else { Saved::Join }, understood.price.amount());
                    }
                    return self.landed(outcome.as_deref(), &waiting, &request.ask, owed, record).await;
                }
            }
        }
        Err(Error::LedgerUnavailable)
    }

    /// The submission as the ledger sees it.
    pub(super) fn request(&self, understood: &Understood, client: &Client, rules: &Rules) -> Result<Request, Error> {
        let Understood { wishes, names, former, .. } = understood;
        let gateway = &*self.gateway;
        let user = client.user().filter(|_| rules.scope == Scope::User).unwrap_or_default();
        let (attempt, caller) = (self.attempt()?, gateway.clients.caller(client).0);
        let ask = |names: &Names, by: &FingerprintKey, former| Ask {
            fingerprint: names.fingerprint,
            body: names.body,
            base: names.base,
            attempt,
            team: client.team().clone(),
            request_id: Arc::default(),
            asker: Asker { caller, no_cache: wishes.no_cache },
            key: wishes.idempotency_key.as_deref().map(|key| by.digest(KEY, &[client.team(), user, key])),
            former,
        };
        let keys = &gateway.fingerprints;
        let former = former.as_ref().zip(keys.former.as_ref()).map(|(names, by)| Box::new(ask(names, by, None)));
        let ask = ask(names, &keys.current, former);
        let charge = Charge {
            team: client.team().clone(),
            user: client.who().user.to_bytes(),
            name: client.user.as_ref().filter(|_| rules.names_users).map(|user| user.name.clone()),
            price: understood.price,
            purse: purse(client),
            at: gateway.dedup.ledger().now(),
        };
        Ok(Request { ask, who: *client.who(), charge, charged: false, closed: None })
    }

    fn attempt(&self) -> Result<AttemptId, Error> {
        Ok(AttemptId::new(self.gateway.dedup.ledger().now(), random()?))
    }

    /// The outcome that a submission waited for, as its client is told it.
    async fn landed(
        &self,
        outcome: Option<&Outcome>,
        waited: &Waiting,
        ask: &Ask,
        delivery: Option<Delivery>,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let gateway = &self.gateway;
        let told = |outcome| if waited.part == Part::Leader { outcome } else { SubmissionOutcome::Join };
        match outcome {
            Some(Outcome::Created { request_id, answer }) => {
                record.job(request_id);
                record.outcome(told(SubmissionOutcome::Created));
                let served = match waited.part {
                    Part::Joiner => Served::Collapsed,
                    Part::Leader if ask.asker.no_cache => Served::Wished,
                    Part::Leader => Served::Stored,
                };
                Ok(answer::created(answer.body.clone(), served, delivery))
            }
            Some(Outcome::Refused(Reply::Answer(answer))) => {
                record.outcome(told(SubmissionOutcome::RefusedUpstream));
                settled(delivery);
                Ok(answer::passed(answer))
            }
            Some(Outcome::Refused(Reply::Error(error))) => {
                settled(delivery);
                Err(error.clone())
            }
            Some(Outcome::NotSent(not_sent)) => {
                settled(delivery);
                Err(not_sent.error())
            }
            Some(Outcome::Unknown { doubt, answer }) => {
                gateway.dedup.doubted(waited.fingerprint, waited.attempt, ask.asker.caller).await;
                let Some(answer) = answer else { return Err(unknown(*doubt)) };
                record.outcome(told(SubmissionOutcome::Unknown));
                let mut passed = answer::passed(answer);
                answer::mark_doubt(passed.headers_mut());
                Ok(passed)
            }
            // It goes on; whoever asks again meets it, or its end.
            None => {
                gateway.dedup.doubted(waited.fingerprint, waited.attempt, ask.asker.caller).await;
                Err(unknown(Doubt::Silent))
            }
        }
    }

    fn hit(
        &self,
        created: &Created,
        ttl: Duration,
        understood: &Understood,
        caller: Caller,
        delivery: Option<Delivery>,
        record: &mut Record,
    ) -> Response<Body> {
        record.outcome(SubmissionOutcome::Hit);
        record.job(&created.job);
        let reason = if created.by == caller { Saved::Retry } else { Saved::Hit };
        record.saved(reason, understood.price.amount());
        let served = if self.gateway.dedup.ledger().is_well() { Served::Hit(ttl) } else { Served::HitUnasked(ttl) };
        answer::created(created.answer.clone(), served, delivery)
    }
}

/// The budget of the client's token, if it has one.
fn purse(client: &Client) -> Option<Purse> {
    let (grant, counted) = client.pass.grant.as_deref().zip(client.who().token)?;
    let Allowance { budget_usd: usd, budget_seconds: seconds, .. } = grant.limited?.limits;
    let purse = Purse { id: counted.key.to_bytes(), usd, seconds, until: grant.until };
    (usd.is_some() || seconds.is_some()).then_some(purse)
}

/// The attempts that a submission has waited for in vain.
#[derive(Default)]
struct Vain {
    last: Option<AttemptId>,
    pause: Duration,
}

impl Vain {
    /// Lets time pass before the next admission if the same attempt came to nothing again: its entry must go first.
    async fn pause(&mut self, attempt: AttemptId) {
        if self.last.replace(attempt) == Some(attempt) {
            self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            tokio::time::sleep(self.pause).await;
        }
    }
}

/// Counts a joiner as such, also if its client leaves while it waits.
struct Joined<'a>(Option<&'a SubmissionCount>);

impl<'a> Joined<'a> {
    fn begin(part: Part, count: Option<&'a SubmissionCount>) -> Self {
        Self(count.filter(|_| part == Part::Joiner))
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.settle(SubmissionOutcome::Join);
        }
    }
}

/// There is no job that could be lost on the way to the client.
fn settled(delivery: Option<Delivery>) {
    if let Some(delivery) = delivery {
        delivery.taken();
    }
}

const fn unknown(doubt: Doubt) -> Error {
    Error::OutcomeUnknown { doubt, retry_after: RETRY_AFTER_DOUBT }
}

/// The refusal by a limit, behind what was taken before it.
pub(super) fn limited(refusal: &Refusal, standing: &mut Standing) -> Error {
    let refusal = refusal.clone().after(standing);
    *standing = *refusal.standing;
    Error::from(&refusal)
}

pub(super) fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Internal)?;
    Ok(bytes)
}

/// How often a submission asks for admission, if what it waited for comes to nothing each time.
const MOST_ADMISSIONS: usize = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the digest of an idempotency key is for.
const KEY: &str = "idempotency key";
