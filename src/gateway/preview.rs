//! `Reelgate-Dry-Run: 1`: what would become of a submission, told without buying anything. It is read, validated and
//! named like any other and takes one of its `requests`; what is wrong with it is refused as always.

use hyper::Response;
use serde_json::{Map, Value};

use super::Worker;
use super::answer::{self, Body};
use super::rules::Rules;
use super::submit::limited;
use super::understand::Understood;
use crate::admission::headers::Standing;
use crate::error::{Error, Fault};
use crate::jobs::book::Found;
use crate::jobs::entry::Look;
use crate::jobs::ledger::Preview;
use crate::request::client::Client;
use crate::telemetry::labels::SubmissionOutcome;
use crate::telemetry::record::Record;

impl Worker {
    /// Answers a submission that only asks.
    pub(super) async fn preview(
        &self,
        understood: &Understood,
        client: &Client,
        rules: &Rules,
        record: &mut Record,
        standing: &mut Standing,
    ) -> Result<Response<Body>, Error> {
        let gateway = &*self.gateway;
        let taken = gateway.dedup.ledger().take_request(client.who()).await.map_err(|_| Error::LedgerUnavailable)?;
        *standing = standing.then(taken.map_err(|refusal| limited(&refusal, standing))?);
        let request = self.request(understood, client, rules)?;
        let preview = gateway.dedup.ledger().preview(&request).await.map_err(|_| Error::LedgerUnavailable)?;
        record.outcome(SubmissionOutcome::DryRun);
        let mut told = tell(&preview, understood, gateway.dedup.ledger().now().as_millis());
        if let Found::Look(_, Look::Hit(created, _)) = &preview.found
            && !self.sees(&created.job, &client.pass, rules).await
        {
            // Whoever is told an id owns the job from then on, and this changes nothing.
            told.remove("request_id");
        }
        if !understood.faults.is_empty() {
            told.insert("warnings".to_owned(), understood.faults.iter().map(Fault::to_json).collect());
        }
        Ok(answer::told(Value::Object(told).to_string().into()))
    }
}

/// The answer's fields.
fn tell(preview: &Preview, understood: &Understood, now: u64) -> Map<String, Value> {
    let price = understood.price.amount();
    let mut told = Map::new();
    let mut tell = |name: &str, value: Value| _ = told.insert(name.to_owned(), value);
    tell("dry_run", true.into());
    tell("fingerprint", understood.names.fingerprint.to_string().into());
    let would = match &preview.found {
        Found::KeyReused => "idempotency_key_reused",
        Found::Look(_, Look::Join(_)) => "join",
        Found::Look(_, Look::Held(wait)) => {
            tell("retry_after", wait.as_secs().into());
            "outcome_unknown"
        }
        Found::Look(_, Look::Hit(created, until)) => {
            tell("request_id", created.job.as_str().into());
            tell("ttl", (until.as_millis().saturating_sub(now) / 1000).into());
            "hit"
        }
        Found::Look(_, Look::Free) => {
            let exhausted = preview.exhausted.map(Error::from);
            let refusal = exhausted.or_else(|| preview.limited.as_ref().map(Error::from));
            if let Some(refusal) = &refusal {
                tell("param", refusal.param().into());
                if let Some(seconds) = refusal.retry_after() {
                    tell("retry_after", seconds.into());
                }
            }
            refusal.map_or("created", |refusal| refusal.code())
        }
    };
    tell("outcome", would.into());
    tell("price_usd", price.dollars().into());
    let left = preview.left.iter().map(|left| (left.limit.to_owned(), Value::from(left.left)));
    tell("left", Value::Object(left.collect()));
    told
}
