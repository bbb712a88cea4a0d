//! The API behind, and the paid call to it: a new connection for one POST, sent once, read whole. Nothing here ever
//! sends a request again (`MONEY.md` M2).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::error::{Doubt, Unreached};
use crate::request::route::Operation;
use crate::upstream::MOST_INTERIM;
use crate::upstream::dial::{Dialer, Stream};
use crate::upstream::gate::{Gate, Gated, SendBy};
use crate::upstream::headers::{self, Passed, PollHead, Via};
use crate::upstream::key::UpstreamKey;
use crate::upstream::origin::{Origin, OriginFault};
use crate::upstream::outcome::{Answer, Unanswered};
use crate::upstream::settings::Settings;
use crate::upstream::tls::{self, TlsFault};
use crate::upstream::wire::Wire;

/// The API behind: where it is, how it is reached, and the key for it.
pub struct Upstream {
    origin: Origin,
    dialer: Dialer,
    keys: ArcSwap<Keys>,
    via: Via,
    /// `upstream.poll_timeout`.
    pub(super) poll_timeout: Duration,
    /// `upstream.idle_connections`.
    pub(super) idle_connections: usize,
    /// `upstream.idle_timeout`.
    pub(super) idle_timeout: Duration,
    /// The tasks that drive connections; each ends with its connection.
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
            poll_timeout: settings.poll_timeout,
            idle_connections: settings.idle_connections,
            idle_timeout: settings.idle_timeout,
            tasks: TaskTracker::new(),
        })
    }

    /// Asks another than the system's resolver where it is.
    #[cfg(test)]
    fn set_resolver(&mut self, resolver: crate::upstream::resolver::Resolver) {
        self.dialer.set_resolver(resolver);
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The heads of polls with this key.
    pub(super) fn poll_head(&self, key: &UpstreamKey) -> PollHead {
        PollHead::new(&self.origin, key)
    }

    /// A new connection for polls.
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

    /// Whether new requests carry this key.
    pub fn is_current(&self, key: &UpstreamKey) -> bool {
        self.keys.load().current.id() == key.id()
    }

    /// The key of this id, as long as it is known; else the one that new requests carry.
    pub fn key_of(&self, id: &str) -> Arc<UpstreamKey> {
        let keys = self.keys.load();
        keys.retired.iter().find(|key| key.id() == id).unwrap_or(&keys.current).clone()
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

    /// A new connection for one paid call with a body of this length. Nothing of HTTP has been sent yet; dropping it closes
    /// it.
    ///
    /// # Errors
    /// Why the upstream could not be reached: nothing was sent.
    pub async fn connect(self: &Arc<Self>, length: usize) -> Result<PaidConnection, Unreached> {
        let gate = Arc::new(Gate::default());
        let stream = TokioIo::new(Gated::new(self.dialer.dial().await?, gate.clone()));
        let mut builder = http1::Builder::new();
        // A body may be 32 MiB: written from where it lies, not copied into hyper's buffer. A short one costs less there.
        builder.writev(length > SHORT_BODY).max_buf_size(MAX_HEAD_BYTES).max_header_size(MAX_HEAD_BYTES);
        let (sender, connection) = builder.handshake(stream).await.map_err(|_| Unreached::Refused)?;
        // Boxed, because it is handed on from step to step, and is large.
        Ok(PaidConnection { sender, connection: Box::new(connection), gate, upstream: self.clone(), key: self.key() })
    }
}

/// The key that pays, and those that did before.
struct Keys {
    current: Arc<UpstreamKey>,
    /// The last one first; they make no jobs, but the jobs they made are theirs.
    retired: Vec<Arc<UpstreamKey>>,
}

/// hyper's side of a connection.
type Connection = http1::Connection<TokioIo<Gated<Stream>>, Full<Bytes>>;

/// A connection that has carried nothing yet and will carry one paid call.
pub struct PaidConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Box<Connection>,
    gate: Arc<Gate>,
    upstream: Arc<Upstream>,
    key: Arc<UpstreamKey>,
}

impl PaidConnection {
    /// The key that pays for the call.
    pub fn key(&self) -> &UpstreamKey {
        &self.key
    }

    /// Lets the first byte leave until then and no later: [`Unanswered::TooLate`] (M3).
    pub fn send_by(&self, limit: SendBy) {
        self.gate.limit(limit);
    }

    /// Sends the body as it came and reads the whole answer. The caller holds the deadline.
    ///
    /// # Errors
    /// Why there is no complete answer, and whether anything may have been sent.
    pub async fn send(self, operation: Operation, passed: &Passed, body: Bytes) -> Result<Answer, Unanswered> {
        let Self { mut sender, connection, gate, upstream, key } = self;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(operation.path());
        *request.headers_mut() = headers::submit(&upstream.origin, passed, &key);
        // It carries nothing else, and whoever closes first keeps the remains for a minute.
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let interim = Interim::watch(&mut request);
        let call = async {
            let response = tokio::select! {
                biased;
                () = gate.shut() => return Err(Unanswered::TooLate),
                () = interim.too_many.notified() => return Err(Unanswered::InDoubt(Doubt::Broken)),
                response = sender.try_send_request(request) => response,
            };
            let response = response.map_err(|mut failure| match failure.take_message() {
                _ if gate.is_shut() => Unanswered::TooLate,
                // Given back: not a byte of it was written.
                Some(_) => Unanswered::NotSent(Unreached::Refused),
                None => Unanswered::InDoubt(Doubt::Broken),
            })?;
            read(response, &key).await
        };
        driven(connection, call).await
    }
}

/// Drives a connection while its only call runs, in the same task: a task of its own would be woken for each step of the
/// call, and would wake the call's. It ends with the call.
async fn driven<T>(mut connection: Box<Connection>, call: impl Future<Output = T>) -> T {
    let (mut call, mut is_open) = (pin!(call), true);
    poll_fn(|context| {
        // The connection first: if it has ended before the call, that is told to the call, and nothing is sent on it.
        is_open = is_open && Pin::new(&mut connection).poll(context).is_pending();
        call.as_mut().poll(context)
    })
    .await
}

/// The interim answers before the answer: a few are normal, without end they are an attack on our patience (F-19).
struct Interim {
    too_many: Notify,
    seen: AtomicUsize,
}

impl Interim {
    fn watch(request: &mut Request<Full<Bytes>>) -> Arc<Self> {
        let interim = Arc::new(Self { too_many: Notify::new(), seen: AtomicUsize::new(0) });
        let watcher = interim.clone();
        hyper::ext::on_informational(request, move |_| {
            if watcher.seen.fetch_add(1, Ordering::Relaxed) >= MOST_INTERIM {
                watcher.too_many.notify_one();
            }
        });
        interim
    }
}

/// The complete answer, its headers cleaned and its key masked.
async fn read(response: Response<Incoming>, key: &UpstreamKey) -> Result<Answer, Unanswered> {
    let (parts, body) = response.into_parts();
    let (status, mut headers) = (parts.status, parts.headers);
    if headers::is_ambiguous(&headers) {
        return Err(Unanswered::InDoubt(Doubt::Broken));
    }
    let body = match gather(body).await {
        Ok(Some(body)) => key.pattern().mask(body),
        Ok(None) => return Err(Unanswered::TooLong(status)),
        Err(_) => return Err(Unanswered::InDoubt(Doubt::Broken)),
    };
    clean(&mut headers, key);
    Ok(Answer { status, headers, body })
}

fn clean(headers: &mut HeaderMap, key: &UpstreamKey) {
    headers::answer(headers, key.pattern());
    headers.remove(CONTENT_LENGTH);
}

/// The whole body, or `None` if it is too long. It is copied: a frame lies in hyper's buffer of many kilobytes, and the
/// answer that gave an id is kept as long as that is given out.
async fn gather(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    if body.size_hint().lower() > MAX_ANSWER_BYTES {
        return Ok(None);
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers are dropped.
        let Ok(data) = frame?.into_data() else { continue };
        if u64::try_from(whole.len() + data.len()).unwrap_or(u64::MAX) > MAX_ANSWER_BYTES {
            return Ok(None);
        }
        whole.extend_from_slice(&data);
    }
    whole.shrink_to_fit();
    Ok(Some(whole.into()))
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

/// A body that is copied to its head, so that both leave in one plain write.
const SHORT_BODY: usize = 8 * 1024;
/// The most that is read of the answer to a submission.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// The longest header of an answer, and hyper's buffer for it.
const MAX_HEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
