//! What is seen: one log line a request, metrics that agree with the bill, and the listener that shows them.
//! This room is told and asks nobody; nothing it is told can become a label that is not from a closed list.

pub mod record;
mod body;
pub mod submission_count;
mod request_ids;
pub mod metrics;
pub mod money;
mod fields;
mod family;
mod gather;
mod stripes;
pub mod labels;
mod process;
pub mod log;
mod line;
mod digits;
mod events;
pub mod admin;
pub mod settings;

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use hyper::header::HeaderValue;

use self::line::Style;
use self::log::Log;
use self::metrics::Metrics;
use self::request_ids::RequestIds;
use self::settings::{Format, Settings};

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A metric's declaration is wrong: a fault of the program.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The log's thread could not be started.
    #[error("the log cannot be started: {0}")]
    Log(#[from] io::Error),
}

/// Everything that a request, an attempt or an event is told to.
pub struct Telemetry {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The lines.
    pub log: Log,
    request_ids: RequestIds,
}

impl Telemetry {
    /// Telemetry whose log goes to standard output.
    ///
    /// # Errors
    /// [`StartError`], where the system gives no thread.
    pub fn start(settings: &Settings) -> Result<Arc<Self>, StartError> {
        let stdout = io::stdout();
        let style = match settings.format {
            Format::Auto if stdout.is_terminal() => Style::Text,
            Format::Text => Style::Text,
            Format::Auto | Format::Json => Style::Json,
        };
        Self::build(settings, style, Box::new(stdout))
    }

    /// Telemetry whose log goes to `output`; `auto` is JSON there.
    ///
    /// # Errors
    /// As [`Telemetry::start`].
    pub fn with_output(settings: &Settings, output: Box<dyn Write + Send>) -> Result<Arc<Self>, StartError> {
        let style = if settings.format == Format::Text { Style::Text } else { Style::Json };
        Self::build(settings, style, output)
    }

    fn build(settings: &Settings, style: Style, output: Box<dyn Write + Send>) -> Result<Arc<Self>, StartError> {
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))?);
        let log = Log::start(style, settings.level, output, metrics.log_lines_dropped.clone())?;
        Ok(Arc::new(Self { metrics, log, request_ids: RequestIds::default() }))
    }

    /// Writes what the log still holds, for at most `patience`. Whether all of it was written.
    pub fn flush(&self, patience: Duration) -> bool {
        self.log.flush(patience)
    }
}

/// Telemetry as one worker holds it. Its requests count among themselves who uses it: a count that all workers share
/// would go from core to core with each request.
#[derive(Clone)]
pub struct WorkerTelemetry(Rc<Share>);

struct Share {
    telemetry: Arc<Telemetry>,
    /// The id of the request that panicked just now.
    panicked: Cell<Option<HeaderValue>>,
}

impl WorkerTelemetry {
    /// A worker's share.
    pub fn new(telemetry: &Arc<Telemetry>) -> Self {
        Self(Rc::new(Share { telemetry: Arc::clone(telemetry), panicked: Cell::default() }))
    }

    /// A request panics: whoever answers in its place is to name it.
    fn note_panicked(&self, request_id: HeaderValue) {
        self.0.panicked.set(Some(request_id));
    }

    /// Names the request that panicked in the answer given in its place.
    pub fn name_panicked<B>(&self, mut answer: Response<B>) -> Response<B> {
        if let Some(request_id) = self.0.panicked.take() {
            answer.headers_mut().insert(request_ids::X_REQUEST_ID, request_id);
        }
        answer
    }
}

impl Deref for WorkerTelemetry {
    type Target = Telemetry;

    fn deref(&self) -> &Telemetry {
        &self.0.telemetry
    }
}
