//! The way of a poll: asked upstream under our key, passed on byte for byte, and read on the side so that the entry is
//! true before the client sees the answer (`DESIGN.md` §4, `MONEY.md` M19–M22).

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::timeout_at;

use super::Worker;
use super::answer::{self, Body};
use super::observer::Asking;
use super::rules::Rules;
use crate::access::teams::Pass;
use crate::error::Error;
use crate::jobs::ledger::WRITE_PATIENCE;
use crate::jobs::observe::{self, Seen};
use crate::jobs::owners::Owner;
use crate::jobs::records::Job;
use crate::jobs::settings::Shape;
use crate::request::route::RequestId;
use crate::telemetry::labels::UpstreamOperation;
use crate::telemetry::record::Record;
use crate::upstream::headers::Passed;
use crate::upstream::relay::Relay;

impl Worker {
    /// Serves a poll.
    pub(super) async fn poll(
        &self,
        id: &RequestId,
        header_only: bool,
        passed: &Passed,
        pass: &Pass,
        rules: &Rules,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        record.job(id);
        let gateway = &self.gateway;
        let asking = self.asking(pass, rules);
        let (job, may_adopt) = match self.known(id, asking.as_ref(), pass, rules, record).await? {
            Known::Job(job) => (Some(job), false),
            // In mode `open` there is only one team, and nothing to adopt.
            Known::Nobodys => (None, !rules.teams.is_open()),
            Known::Untold => (None, false),
        };
        let call = Asking { gateway, polls: &self.polls, passed, operation: UpstreamOperation::Poll };
        let permit = self.concurrency.permit().await;
        let response = call.about(id, job.as_deref(), |status, duration| record.upstream(status, duration)).await?;
        drop(permit);
        // Where jobs have owners there is one answer for all ids that the asker may not see, known here or not.
        let is_veiled = job.is_none() && asking.is_some();
        if is_veiled && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Err(Error::UnknownJob);
        }
        let key = response.body().key();
        let adopter = asking.filter(|_| may_adopt).map(|owner| (owner, key.shared_id()));
        let witness = job.map(|job| {
            let now = gateway.dedup.ledger().polled(&job);
            self.observers.of(job, key.id(), now)
        });
        let relayed = Relay::begin(response, witness).await;
        let succeeds = relayed.status().is_success();
        // Relays say it in the body of a 200 too.
        let may_be_unknown = is_veiled && (succeeds || relayed.status() == StatusCode::BAD_REQUEST);
        let flat = rules.shape == Shape::Flat && succeeds;
        let mut answer = if header_only || may_be_unknown || flat || adopter.is_some() {
            Box::pin(whole(relayed, is_veiled, flat)).await?
        } else {
            relayed.map(|relay| Body::Relayed(relay, None))
        };
        if let Some((owner, key)) = adopter.filter(|_| answer.status().is_success()) {
            let now = gateway.dedup.ledger().now();
            Box::pin(self.adopt(Job::adopted(id.clone(), owner.clone(), &key, now), &owner)).await?;
        }
        answer.headers_mut().insert(NOSNIFF.0, NOSNIFF.1);
        answer::attribute(&mut answer);
        Ok(answer)
    }

    /// The job, if the ledger knows it, and if it is the asker's to see: another's is like one that nobody knows.
    async fn known(
        &self,
        id: &RequestId,
        asking: Option<&Owner>,
        pass: &Pass,
        rules: &Rules,
        record: &mut Record,
    ) -> Result<Known, Error> {
        let ledger = self.gateway.dedup.ledger();
        let formerly = asking.and_then(|asking| self.formerly(pass, asking));
        let is_theirs = |job: &Job| asking.into_iter().chain(&formerly).any(|owner| job.is_of(owner));
        let found = match (ledger.job(id).await, asking) {
            (Ok(Some(job)), Some(_)) if !is_theirs(&job) => ledger.job_anew(id).await,
            (found, _) => found,
        };
        match (found, asking) {
            (Ok(Some(job)), None) => Ok(Known::Job(job)),
            (Ok(Some(job)), Some(_)) if is_theirs(&job) => Ok(Known::Job(job)),
            (Ok(Some(_)), Some(_)) => {
                record.cause("another's job");
                Err(Error::UnknownJob)
            }
            (Ok(None), None) => Ok(Known::Nobodys),
            (Ok(None), Some(_)) if rules.adopt_unknown => Ok(Known::Nobodys),
            (Ok(None), Some(_)) => {
                record.cause("a job that nobody here made");
                Err(Error::UnknownJob)
            }
            // Whose it is nobody can tell now.
            (Err(_), Some(asking)) if rules.teams.count() > 1 || asking.user.is_some() => Err(Error::LedgerUnavailable),
            // Without the ledger polls go on; they are only not read.
            (Err(_), _) => Ok(Known::Untold),
        }
    }

    /// Records a job that nobody here made. Somebody else may have been first.
    async fn adopt(&self, job: Job, owner: &Owner) -> Result<(), Error> {
        let adopting = self.gateway.dedup.ledger().adopt(Arc::new(job));
        match tokio::time::timeout(WRITE_PATIENCE, adopting).await {
            Ok(Ok(job)) if job.is_of(owner) => Ok(()),
            Ok(Ok(_)) => Err(Error::UnknownJob),
            Ok(Err(_)) | Err(_) => Err(Error::LedgerUnavailable),
        }
    }
}

/// What the ledger says of a job that is asked for.
enum Known {
    /// The asker may see it.
    Job(Arc<Job>),
    /// Nobody here made it.
    Nobodys,
    /// It could not be asked.
    Untold,
}

/// An answer that has to be looked at whole: bounded, within the time of its head, and read as a stream would have been.
async fn whole(relayed: Response<Relay>, is_veiled: bool, flat: bool) -> Result<Response<Body>, Error> {
    let (mut parts, relay) = relayed.into_parts();
    let deadline = relay.whole_by();
    let collected = timeout_at(deadline, Limited::new(relay, MAX_WHOLE).collect()).await;
    let body = collected.map_err(|_| Error::PollTimeout)?.map_err(|_| Error::PollUnreadable)?.to_bytes();
    if is_veiled && observe::read(parts.status, &body) == Seen::Missing {
        return Err(Error::UnknownJob);
    }
    let body = if flat { observe::flatten(&body).map_or(body, Bytes::from) } else { body };
    // RFC 9110 §8.6: an answer that never has content says no length.
    if !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Ok(Response::from_parts(parts, Body::Whole(body)))
}

const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
/// The longest poll's answer that is looked at whole, in bytes.
const MAX_WHOLE: usize = 1 << 20;
