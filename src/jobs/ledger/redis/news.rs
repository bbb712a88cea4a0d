//! What replicas tell each other of attempts: how far one has come, and that somebody waits for it (`MONEY.md` M5, M6,
//! M25). A message wakes whoever waits; the answer itself stands under the attempt's id, for whoever heard nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use redis::cmd;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::names::{bytes, hex};
use super::shared::{Shared, unavailable};
use super::work::{Wanted, Work};
use crate::error::Doubt;
use crate::jobs::entry::{AttemptId, State};
use crate::jobs::flight::{Flight, Progress};
use crate::jobs::ledger::LedgerError;
use crate::jobs::ledger::disk::seal::Checked;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;
use crate::upstream::outcome::{Answer, NotSent, Outcome, Reply};

/// Who here waits for news of which attempt.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<HashMap<AttemptId, Arc<Notify>>>);

impl Listeners {
    fn of(&self, attempt: AttemptId) -> Arc<Notify> {
        self.map().entry(attempt).or_default().clone()
    }

    fn forget(&self, attempt: AttemptId) {
        self.map().remove(&attempt);
    }

    fn wake(&self, attempt: AttemptId) {
        if let Some(listener) = self.map().get(&attempt) {
            listener.notify_one();
        }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<AttemptId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far an attempt has come, as it is told to others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum News {
    /// The first byte left at this moment of Redis' clock, in milliseconds.
    Sent(u64),
    Created {
        job: String,
        answer: AnswerForm,
    },
    Refused(AnswerForm),
    /// Refused, and the upstream's words are not for clients.
    Denied {
        key: bool,
    },
    /// Nothing was sent; whoever waits asks again.
    Void,
    /// Nothing was sent: this is why.
    NotSent(String),
    Unknown {
        silent: bool,
        answer: Option<AnswerForm>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct AnswerForm {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl AnswerForm {
    fn of(answer: &Answer) -> Self {
        let text =
            |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
        let headers = answer.headers.iter().filter_map(text).collect();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Self { status: answer.status.as_u16(), headers, body }
    }

    fn answer(self) -> Option<Answer> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        Some(Answer { status: StatusCode::from_u16(self.status).ok()?, headers, body: Bytes::from(self.body) })
    }
}

impl News {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Created { request_id, answer } => {
                Self::Created { job: request_id.to_string(), answer: AnswerForm::of(answer) }
            }
            Outcome::Refused(Reply::Answer(answer)) => Self::Refused(AnswerForm::of(answer)),
            Outcome::Refused(Reply::Error(error)) => Self::Denied { key: error.code() == "upstream_key_refused" },
            Outcome::NotSent(NotSent::Unreached(why)) => Self::NotSent(why.proxy_status().to_owned()),
            // What stops this replica, or a limit, does not stop the others (M5).
            Outcome::NotSent(_) => Self::Void,
            Outcome::Unknown { doubt, answer } => {
                Self::Unknown { silent: *doubt == Doubt::Silent, answer: answer.as_ref().map(AnswerForm::of) }
            }
        }
    }

    /// The outcome, if that is one.
    fn outcome(self) -> Option<Outcome> {
        use crate::error::{Error, Unreached};
        Some(match self {
            Self::Sent(_) => return None,
            Self::Created { job, answer } => {
                Outcome::Created { request_id: RequestId::parse(&job)?, answer: answer.answer()? }
            }
            Self::Refused(answer) => Outcome::Refused(Reply::Answer(answer.answer()?)),
            Self::Denied { key: true } => Outcome::Refused(Reply::Error(Error::UpstreamKeyRefused)),
            Self::Denied { key: false } => Outcome::Refused(Reply::Error(Error::UpstreamInvalidAnswer)),
            Self::Void => Outcome::NotSent(NotSent::Superseded),
            Self::NotSent(why) => {
                let all = [Unreached::Dns, Unreached::Timeout, Unreached::Tls, Unreached::Certificate];
                let unreached = all.into_iter().find(|unreached| unreached.proxy_status() == why);
                Outcome::NotSent(NotSent::Unreached(unreached.unwrap_or(Unreached::Refused)))
            }
            Self::Unknown { silent, answer } => {
                let doubt = if silent { Doubt::Silent } else { Doubt::Broken };
                Outcome::Unknown { doubt, answer: answer.and_then(AnswerForm::answer) }
            }
        })
    }
}

impl Shared {
    /// Tells the others how far an attempt has come.
    pub(super) async fn tell(&self, attempt: AttemptId, progress: Progress) -> Result<(), LedgerError> {
        let (news, kept) = match progress {
            Progress::Waiting => return Ok(()),
            Progress::Sent(at) => {
                let ago = u64::try_from(at.elapsed().as_millis()).unwrap_or_default();
                (News::Sent(self.link.now().as_millis().saturating_sub(ago)), SENT_KEPT)
            }
            Progress::Landed(outcome) => (News::of(&outcome), LANDED_KEPT),
        };
        let key = news_key(attempt);
        let Some(text) = self.seal.seal(&key, &news) else { return Ok(()) };
        let mut set = cmd("SET");
        set.arg(self.key(&key)).arg(text).arg("PX").arg(u64::try_from(kept.as_millis()).unwrap_or_default());
        let _: () = self.link.query(&set).await.map_err(unavailable)?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.key(CHANNEL)).arg(hex(&attempt.into_bytes()));
        let _: i64 = self.link.query(&publish).await.map_err(unavailable)?;
        Ok(())
    }

    /// Whether another replica says that somebody waits there.
    pub(super) async fn awaited(&self, attempt: AttemptId) -> Result<bool, LedgerError> {
        let mut count = cmd("ZCOUNT");
        count.arg(self.key(&waiters_key(attempt))).arg(self.link.now().as_millis()).arg("+inf");
        self.link.query::<u64>(&count).await.map(|waiting| waiting > 0).map_err(unavailable)
    }

    /// Brings to a flight what another replica tells of its attempt.
    pub(super) async fn follow(self: Arc<Self>, fingerprint: Fingerprint, attempt: AttemptId, flight: Arc<Flight>) {
        let listener = self.listeners.of(attempt);
        let _here = Here { shared: self.clone(), attempt };
        let mut is_sent = false;
        loop {
            match self.heard(fingerprint, attempt).await {
                Ok(Heard::Nothing) => {}
                Ok(Heard::Sent(at)) => {
                    if !std::mem::replace(&mut is_sent, true) {
                        let ago = Duration::from_millis(self.link.now().as_millis().saturating_sub(at));
                        flight.sent(Instant::now().checked_sub(ago).unwrap_or_else(Instant::now));
                    }
                }
                Ok(Heard::Outcome(outcome)) => {
                    flight.land(Arc::new(outcome), self.link.now());
                    return;
                }
                // Whoever waits goes by its own patience.
                Err(error) => debug!(%error, "there are no news of an attempt elsewhere"),
            }
            _ = timeout(BETWEEN_LOOKS, listener.notified()).await;
        }
    }

    /// Says that somebody waits here, and looks how far the attempt is: by what its replica tells, else by its entry.
    async fn heard(&self, fingerprint: Fingerprint, attempt: AttemptId) -> Result<Heard, LedgerError> {
        let key = news_key(attempt);
        let told: Option<String> = self.link.query(cmd("GET").arg(self.key(&key))).await.map_err(unavailable)?;
        let news = told.and_then(|text| match self.seal.open::<News>(&key, &text) {
            Checked::Sound(news) => Some(news),
            Checked::Damaged => None,
        });
        let sent = match news {
            Some(News::Sent(at)) => Some(at),
            Some(news) => return Ok(news.outcome().map_or(Heard::Nothing, Heard::Outcome)),
            None => None,
        };
        let waiters = self.key(&waiters_key(attempt));
        let until = (self.link.now() + WAITER_KEPT).as_millis();
        let _: i64 =
            self.link.query(cmd("ZADD").arg(&waiters).arg(until).arg(&self.replica)).await.map_err(unavailable)?;
        let _: i64 = self.link.query(cmd("PEXPIREAT").arg(&waiters).arg(until)).await.map_err(unavailable)?;
        let mut work = Work::new(Wanted::entry(fingerprint));
        self.look(&mut work).await?;
        let Some(own) = work.book.entry_of(fingerprint, attempt) else {
            return Ok(Heard::Outcome(Outcome::NotSent(NotSent::Superseded)));
        };
        Ok(match (&own.state, sent) {
            (State::Claimed | State::Sending, Some(at)) => Heard::Sent(at),
            (State::Claimed | State::Sending, None) => Heard::Nothing,
            (State::Unknown(_), _) => Heard::Outcome(Outcome::Unknown { doubt: Doubt::Silent, answer: None }),
            (State::Accepted(created) | State::Done(created, _) | State::Rejected(created, _), _) => {
                let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: created.answer.clone() };
                Heard::Outcome(Outcome::Created { request_id: created.job.clone(), answer })
            }
        })
    }

    /// Listens to the others, for ever.
    pub(super) async fn listen(self: Arc<Self>) {
        loop {
            let shared = Arc::downgrade(&self);
            let heard = move |message: &[u8]| {
                let attempt = std::str::from_utf8(message).ok().and_then(bytes).map(AttemptId::from_bytes);
                if let (Some(shared), Some(attempt)) = (shared.upgrade(), attempt) {
                    shared.listeners.wake(attempt);
                }
            };
            match self.link.listen(&self.key(CHANNEL), heard).await {
                Ok(connection) => {
                    // It subscribes again by itself; this end of it must only not be dropped.
                    std::future::pending::<()>().await;
                    drop(connection);
                }
                Err(failure) => debug!(reason = failure.name(), "messages of other replicas are not heard"),
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

enum Heard {
    Nothing,
    Sent(u64),
    Outcome(Outcome),
}

/// Somebody waits here for an attempt elsewhere; told off on drop.
struct Here {
    shared: Arc<Shared>,
    attempt: AttemptId,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.shared.listeners.forget(self.attempt);
        let (shared, attempt) = (self.shared.clone(), self.attempt);
        self.shared.runtime.spawn(async move {
            let mut leave = cmd("ZREM");
            leave.arg(shared.key(&waiters_key(attempt))).arg(&shared.replica);
            // If it is not heard, the place lapses.
            _ = shared.link.query::<i64>(&leave).await;
        });
    }
}

fn news_key(attempt: AttemptId) -> String {
    format!("o:{}", hex(&attempt.into_bytes()))
}

fn waiters_key(attempt: AttemptId) -> String {
    format!("w:{}", hex(&attempt.into_bytes()))
}

const CHANNEL: &str = "news";
/// How long an outcome is told (M5: at least ten seconds).
const LANDED_KEPT: Duration = Duration::from_secs(30);
/// How long it is told that an attempt was sent: longer than any answer is awaited.
const SENT_KEPT: Duration = Duration::from_secs(900);
/// The net under the messages.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// How long a waiter's word stands without being renewed.
const WAITER_KEPT: Duration = Duration::from_secs(5);
