//! The program's own events (`tracing`) on their way to the log, in the same form as the line of a request. What
//! libraries say is shown from WARN up at most: at finer levels some of them print the headers they send.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::line::Line;
use super::log::Log;
use super::settings::Level;

/// Writes events to a log.
pub(super) struct Events {
    log: Log,
}

impl Events {
    pub(super) const fn new(log: Log) -> Self {
        Self { log }
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Not `always`: the level may change with a reload.
        if is_shown_at_all(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_shown_at_all(metadata) && self.log.shows(level(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut heading = Heading::default();
        event.record(&mut heading);
        let level = level(event.metadata());
        let mut line = self.log.line(level, &heading.message);
        line.field("target", heading.target.as_deref().unwrap_or(event.metadata().target()));
        event.record(&mut Fields(&mut line));
        self.log.write(level, line);
    }
}

/// Whether any configuration shows this: our own events down to DEBUG, those of libraries down to WARN.
fn is_shown_at_all(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let finest = if ours { tracing::Level::DEBUG } else { tracing::Level::WARN };
    metadata.is_event() && *metadata.level() <= finest
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// What stands before an event's fields: its message, and the true target of what came through the `log` crate.
#[derive(Default)]
struct Heading {
    message: String,
    target: Option<String>,
}

impl Visit for Heading {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == MESSAGE {
            let _ = write!(self.message, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE => value.clone_into(&mut self.message),
            "log.target" => self.target = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// Writes an event's other fields.
struct Fields<'line>(&'line mut Line);

impl Fields<'_> {
    fn literal(&mut self, field: &Field, value: impl fmt::Display) {
        if let Some(name) = name(field) {
            self.0.literal(name, value);
        }
    }

    fn text(&mut self, field: &Field, value: impl fmt::Display) {
        if let Some(name) = name(field) {
            self.0.field(name, &value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        if value.is_finite() { self.literal(field, value) } else { self.text(field, value) }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, Causes(value));
    }
}

/// An error with all that caused it.
struct Causes<'error>(&'error (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let causes = std::iter::successors(self.0.source(), |cause| cause.source());
        causes.take(MAX_CAUSES).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// The name under which a field is written; none for the message and for what the `log` crate's bridge adds.
fn name(field: &Field) -> Option<&'static str> {
    let name = field.name();
    (name != MESSAGE && !name.starts_with("log.")).then_some(name)
}

/// The field that holds an event's message.
const MESSAGE: &str = "message";
/// The targets of our own events.
const OURS: &str = "reelgate";
/// How far a chain of causes is followed.
const MAX_CAUSES: usize = 8;

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use prometheus::IntCounter;
    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::line::Style;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that a log of this level has after `tell`.
    fn lines(level: Level, tell: impl FnOnce(&Log)) -> Vec<Value> {
        let output = Output::default();
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        let log = Log::start(Style::Json, level, Box::new(output.clone()), dropped).unwrap();
        let subscriber = tracing_subscriber::registry().with(Events::new(log.clone()));
        tracing::subscriber::with_default(subscriber, || tell(&log));
        assert!(log.flush(Duration::from_secs(10)));
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn t71_an_event_is_one_line_with_the_fields_of_its_own() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("inner"));
        let lines = lines(Level::Info, |_| {
            tracing::warn!(
                job = "a\n\u{1b}",
                count = 3_u64,
                below = -1_i64,
                well = false,
                odd = f64::NAN,
                ratio = 0.5,
                kind = ?Some("x"),
                error = &error as &(dyn std::error::Error + 'static),
                "the job {} is lost", 7
            );
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        for (field, want) in [
            ("level", json!("warn")),
            ("message", json!("the job 7 is lost")),
            ("job", json!("a\n\u{1b}")),
            ("count", json!(3)),
            ("below", json!(-1)),
            ("well", json!(false)),
            ("odd", json!("NaN")),
            ("ratio", json!(0.5)),
            ("kind", json!("Some(\"x\")")),
            ("error", json!("outer: inner")),
            ("target", json!(module_path!())),
        ] {
            assert_eq!(line[field], want, "{field}");
        }
    }

    #[test]
    fn libraries_are_heard_from_warnings_up_whatever_the_level() {
        let lines = lines(Level::Debug, |_| {
            tracing::trace!("ours, too fine");
            tracing::debug!("ours");
            tracing::info!(target: "h2::codec", "authorization: Bearer secret");
            tracing::debug!(target: "reelgatekeeper", "not ours");
            tracing::warn!(target: "rustls::conn", "theirs");
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["ours", "theirs"]);
    }

    #[test]
    fn the_level_may_change_while_events_come() {
        let lines = lines(Level::Warn, |log| {
            for level in [Level::Warn, Level::Info, Level::Error] {
                log.set_level(level);
                tracing::info!("at {}", level.name());
            }
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["at info"]);
    }
}
