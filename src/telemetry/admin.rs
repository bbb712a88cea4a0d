//! The operators' listener: `/metrics`, `/livez` and `/readyz`, and for those who may what the ledger holds, on an address
//! of its own that the public never reaches. It answers only to hosts that a foreign page cannot have rebound.

mod access;
mod ledger;
mod listener;
mod query;
mod refusal;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

pub use access::{Access, AdminKey};
pub use listener::serve;

use super::Telemetry;
use super::labels::Degraded;
use crate::error::Error;
use crate::jobs::ledger::Ledger;
use ledger::LedgerPage;
use refusal::Refusal;

/// What the operators' listener shows.
pub struct Admin {
    telemetry: Arc<Telemetry>,
    phase: AtomicU8,
    allowed_hosts: ArcSwap<Vec<String>>,
    access: Access,
    /// Nothing until it is open.
    ledger: OnceLock<Arc<dyn Ledger>>,
}

/// What is answered.
type Shown = Full<Bytes>;

/// Where in its life the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its ledger is being opened, and only its operators are listened to.
    Starting,
    /// It serves.
    Serving,
    /// It ends: what is in flight is finished, new submissions are refused.
    Draining,
}

impl Admin {
    /// The admin side of a gateway that is starting, with what of its ledger only some may see.
    pub fn new(telemetry: &Arc<Telemetry>, allowed_hosts: Vec<String>, access: Access) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            phase: AtomicU8::new(Phase::Starting as u8),
            allowed_hosts: ArcSwap::from_pointee(allowed_hosts),
            access,
            ledger: OnceLock::new(),
        }
    }

    /// It shows this ledger from now on, to those who may see it; the first one stays.
    pub fn show(&self, ledger: Arc<dyn Ledger>) {
        _ = self.ledger.set(ledger);
    }

    /// Moves on to another phase.
    pub fn enter(&self, phase: Phase) {
        // Who sees the phase sees what was made ready before it.
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Where in its life the gateway is.
    pub fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Acquire);
        [Phase::Starting, Phase::Serving].into_iter().find(|each| *each as u8 == phase).unwrap_or(Phase::Draining)
    }

    /// Answers to these names from now on.
    pub fn set_allowed_hosts(&self, allowed_hosts: Vec<String>) {
        self.allowed_hosts.store(Arc::new(allowed_hosts));
    }

    async fn answer<B>(&self, request: &Request<B>) -> Result<Response<Shown>, Refusal> {
        if !self.is_ours(request) {
            return Err(Error::MisdirectedRequest.into());
        }
        let (method, path) = (request.method(), request.uri().path());
        if let Some(page) = LedgerPage::find(path) {
            // No page of a browser's has any business here, whatever it could send without being asked.
            if ledger::is_from_a_page(request.headers()) {
                return Err(Error::OriginRefused.into());
            }
            self.access.check(request.headers())?;
            allowed(method, page.allow())?;
            let ledger = self.ledger.get().ok_or_else(Refusal::starting)?;
            return page.serve(method, request.uri().query(), &**ledger).await;
        }
        let page = Page::find(path).ok_or_else(|| Refusal::missing(NO_SUCH_PATH))?;
        allowed(method, "GET, HEAD")?;
        Ok(match page {
            // What the ledger holds would be shown as nothing, and a start that comes to no end would look like a gateway
            // that serves.
            Page::Metrics if self.phase() == Phase::Starting => return Err(Refusal::starting()),
            Page::Metrics => respond(StatusCode::OK, METRICS_TYPE, self.telemetry.metrics.text()),
            Page::Live => respond(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ok\n")),
            Page::Ready => self.readiness(),
        })
    }

    fn readiness(&self) -> Response<Shown> {
        let gauges = &self.telemetry.metrics.degraded;
        let degraded = Degraded::ALL.iter().filter(|reason| gauges.value(**reason) != 0).map(|reason| reason.name());
        let degraded: Vec<_> = degraded.collect();
        let (status, body) = match self.phase() {
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, json!({"phase": "starting", "degraded": degraded})),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, json!({"phase": "draining", "degraded": degraded})),
            Phase::Serving => (StatusCode::OK, json!({"degraded": degraded})),
        };
        respond(status, JSON_TYPE, body.to_string().into())
    }

    /// Whether the request names a host that only we can be: an address, `localhost`, or a name of the configuration.
    fn is_ours<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let named = host.to_str().ok().and_then(host_name);
        // A target in absolute form speaks of a host too, and it may not be another one.
        let target = request.uri().authority().map(|authority| host_name(authority.as_str()));
        let names = [named].into_iter().chain(target);
        let allowed = self.allowed_hosts.load();
        names.into_iter().all(|name| {
            name.is_some_and(|name| {
                name.parse::<IpAddr>().is_ok()
                    || name.eq_ignore_ascii_case("localhost")
                    || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
            })
        })
    }
}

/// The pages.
enum Page {
    Metrics,
    Live,
    Ready,
}

impl Page {
    fn find(path: &str) -> Option<Self> {
        match path {
            "/metrics" => Some(Self::Metrics),
            "/livez" => Some(Self::Live),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }
}

/// Answers one request. Its body, if it has one, is not read.
async fn handle<B>(admin: &Admin, request: &Request<B>) -> Response<Shown> {
    admin.answer(request).await.unwrap_or_else(Refusal::into_response)
}

fn allowed(method: &Method, allow: &'static str) -> Result<(), Error> {
    let is_allowed = allow.split(", ").any(|each| each == method.as_str());
    if is_allowed { Ok(()) } else { Err(Error::MethodNotAllowed { allow }) }
}

/// The host of a `Host` header or an authority, without its port and without an IPv6 address's brackets.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (is_port && !name.is_empty()).then_some(name)
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Shown> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The text format that Prometheus asks for.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const NO_SUCH_PATH: &str =
    "no such path: there are /metrics, /livez, /readyz, /admin/jobs, /admin/entries and /admin/spend";
const JSON_TYPE: &str = "application/json";
#[cfg(test)]
mod tests;
