//! A paid call: one POST on a connection of its own, sent once, its answer read whole. Nothing here ever sends a request
//! again (`MONEY.md` M2).

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::CONTENT_LENGTH;
use tokio::task::yield_now;

use crate::error::{Doubt, Unreached};
use crate::request::route::Operation;
use crate::upstream::client::Upstream;
use crate::upstream::headers::Passed;
use crate::upstream::key::UpstreamKey;
use crate::upstream::outcome::{Answer, Unanswered};
use crate::upstream::outgoing::{Outgoing, SHORT_BODY, SendBy};
use crate::upstream::wire::{Head, Wire};

/// A connection that has carried nothing yet and will carry one paid call. Dropped, it closes.
pub struct PaidConnection {
    /// Boxed, because it is handed on from step to step.
    wire: Box<Wire>,
    send_by: Option<SendBy>,
    upstream: Arc<Upstream>,
    key: Arc<UpstreamKey>,
}

impl PaidConnection {
    /// For a call that this key pays.
    pub(super) fn new(wire: Wire, upstream: Arc<Upstream>, key: Arc<UpstreamKey>) -> Self {
        Self { wire: Box::new(wire), send_by: None, upstream, key }
    }

    /// The key that pays for the call.
    pub fn key(&self) -> &UpstreamKey {
        &self.key
    }

    /// Lets the first byte leave until then and no later: [`Unanswered::TooLate`] (M3).
    pub fn send_by(&mut self, limit: SendBy) {
        self.send_by = Some(limit);
    }

    /// Sends the body as it came and reads the whole answer. The caller holds the deadline.
    ///
    /// # Errors
    /// Why there is no complete answer, and whether anything may have been sent.
    pub async fn send(self, operation: Operation, passed: &Passed, body: Bytes) -> Result<Answer, Unanswered> {
        let Self { mut wire, send_by, upstream, key } = self;
        // To write a long body takes a millisecond: whatever is ready now goes first, where no successor can be near (M3).
        if body.len() > SHORT_BODY && send_by.is_none() {
            yield_now().await;
        }
        // Where the connection has ended already, or speaks unasked, nothing is sent on it.
        if !wire.is_quiet_now().await {
            return Err(Unanswered::NotSent(Unreached::Refused));
        }
        let head = upstream.heads(&key).submission(operation, body.len(), passed);
        let mut outgoing = Outgoing::new(head, body, send_by);
        let answer = match wire.exchange(&mut outgoing, key.pattern(), upstream.names()).await {
            Ok(head) => read(head, &mut wire, &mut outgoing, &key).await,
            Err(_) if outgoing.is_late() => Err(Unanswered::TooLate),
            Err(_) => Err(Unanswered::InDoubt(Doubt::Broken)),
        };
        wire.say_farewell().await;
        answer
    }
}

/// The complete answer, its key masked. It is copied: what came with it is not kept as long as it is given out.
async fn read(head: Head, wire: &mut Wire, outgoing: &mut Outgoing, key: &UpstreamKey) -> Result<Answer, Unanswered> {
    let Head { status, mut headers, mut framing, .. } = head;
    headers.remove(CONTENT_LENGTH);
    let told = framing.left().unwrap_or_default();
    let mut body = match usize::try_from(told) {
        Ok(told) if told <= MAX_ANSWER_BYTES => Vec::with_capacity(told),
        _ => return Err(Unanswered::TooLong(status)),
    };
    loop {
        match poll_fn(|cx| wire.poll_answer(outgoing, &mut framing, cx)).await {
            Ok(Some(data)) if body.len() + data.len() > MAX_ANSWER_BYTES => return Err(Unanswered::TooLong(status)),
            Ok(Some(data)) => body.extend_from_slice(&data),
            Ok(None) => break,
            Err(_) => return Err(Unanswered::InDoubt(Doubt::Broken)),
        }
    }
    body.shrink_to_fit();
    Ok(Answer { status, headers, body: key.pattern().mask(body.into()) })
}

/// The most that is read of the answer to a submission.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
