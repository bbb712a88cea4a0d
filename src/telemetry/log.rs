//! Where lines go: a bounded buffer that one thread empties, so that a reader that stops costs lines and never a
//! request (`HARDENING.md` F-66). A line that finds the buffer full is dropped and counted.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use super::events::Events;
use super::line::{Line, Style};
use super::settings::Level;

/// The log. Clones write to the same place; when the last one goes, its thread writes what is left and ends.
#[derive(Clone)]
pub struct Log(Arc<Ends>);

impl Log {
    /// A log that writes to `output` from a thread of its own.
    pub(super) fn start(
        style: Style,
        level: Level,
        output: Box<dyn Write + Send>,
        dropped: IntCounter,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            style,
            level: AtomicU8::new(level.severity()),
            dropped,
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.drain(output))?;
        Ok(Self(Arc::new(Ends(shared))))
    }

    /// Makes this log the place where the events of the whole process go.
    ///
    /// # Errors
    /// If there is such a place already.
    pub fn install(&self) -> Result<(), TryInitError> {
        tracing_subscriber::registry().with(Events::new(self.clone())).try_init()
    }

    /// Whether lines of this level are written.
    pub fn shows(&self, level: Level) -> bool {
        level.severity() <= self.0.0.level.load(Ordering::Relaxed)
    }

    /// Writes lines down to this level from now on.
    pub fn set_level(&self, level: Level) {
        self.0.0.level.store(level.severity(), Ordering::Relaxed);
    }

    /// Waits until everything so far is written, for at most `patience`. Whether it was.
    pub fn flush(&self, patience: Duration) -> bool {
        let shared = &self.0.0;
        let mut state = shared.lock();
        state.hurry = true;
        shared.filled.notify_one();
        let waited = shared.drained.wait_timeout_while(state, patience, |state| !state.is_drained());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_drained()
    }

    /// A new line of this log's style.
    pub(super) fn line(&self, level: Level, message: &(impl std::fmt::Display + ?Sized)) -> Line {
        Line::begin(self.0.0.style, level, message)
    }

    /// The same, whose message is a word of ours.
    pub(super) fn line_of(&self, level: Level, message: &'static str) -> Line {
        Line::of_word(self.0.0.style, level, message)
    }

    /// Hands a line to the thread, or drops it. Warnings and errors are written at once, the others within
    /// [`LINGER`], so that many of them cost one wake-up and one write.
    pub(super) fn write(&self, level: Level, line: Line) {
        let line = line.finish();
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.buffer.len() + line.len() > CAPACITY {
            drop(state);
            shared.dropped.inc();
            return;
        }
        state.buffer.extend_from_slice(line.as_bytes());
        state.lines += 1;
        let hurry = level <= Level::Warn || state.buffer.len() > CAPACITY / 2;
        let wake = mem::take(&mut state.asleep) || (hurry && !state.hurry);
        state.hurry |= hurry;
        drop(state);
        if wake {
            shared.filled.notify_one();
        }
    }
}

/// Tells the thread to end when the last [`Log`] is dropped.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

struct Shared {
    style: Style,
    level: AtomicU8,
    dropped: IntCounter,
    state: Mutex<State>,
    /// Something is to be done for the thread.
    filled: Condvar,
    /// The thread has written everything.
    drained: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    lines: u64,
    /// The thread waits for a first line.
    asleep: bool,
    /// The thread is writing what was in the buffer.
    writing: bool,
    /// What is in the buffer is to be written at once.
    hurry: bool,
    closed: bool,
}

impl State {
    fn is_drained(&self) -> bool {
        self.buffer.is_empty() && !self.writing
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: takes the whole buffer, writes it, again.
    fn drain(&self, mut output: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        while let Some(lines) = self.take(&mut batch) {
            if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
                self.dropped.inc_by(lines);
            }
            batch.clear();
        }
    }

    /// Waits for lines, exchanges the buffer for `batch`, and tells how many lines there are; `None` at the end.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.lock();
        state.writing = false;
        if state.is_drained() {
            self.drained.notify_all();
        }
        while state.buffer.is_empty() {
            if state.closed {
                return None;
            }
            state.hurry = false;
            state.asleep = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let lingered = self.filled.wait_timeout_while(state, LINGER, |state| !state.hurry && !state.closed);
        state = lingered.unwrap_or_else(PoisonError::into_inner).0;
        state.asleep = false;
        state.hurry = false;
        state.writing = true;
        mem::swap(&mut state.buffer, batch);
        Some(mem::take(&mut state.lines))
    }
}

impl Level {
    /// The name, as the configuration writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Smaller is more severe.
    const fn severity(self) -> u8 {
        self as u8
    }
}

/// The bytes of lines that may wait.
const CAPACITY: usize = 1 << 20;
/// How long the thread lets lines gather once there is one.
const LINGER: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// A reader that takes what is written only when it is told to.
    struct Stopped {
        go: mpsc::Receiver<()>,
        started: mpsc::Sender<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.started.send(()).unwrap();
            self.go.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.taken.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "lines").unwrap()
    }

    fn write(log: &Log, level: Level, message: &str) {
        log.write(level, log.line(level, message));
    }

    #[test]
    fn f66_a_reader_that_stops_costs_lines_and_blocks_nobody() {
        let (release, go) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let (taken, written) = mpsc::channel();
        let dropped = counter();
        let output = Box::new(Stopped { go, started, taken });
        let log = Log::start(Style::Json, Level::Info, output, dropped.clone()).unwrap();
        write(&log, Level::Warn, "first");
        has_started.recv_timeout(LONG).unwrap();

        let message = "x".repeat(1_000);
        let lines = 2_000;
        (0..lines).for_each(|_| write(&log, Level::Info, &message));
        let lost = dropped.get();
        assert!(lost > 0, "2 MB fitted into 1 MiB");
        assert!(!log.flush(Duration::from_millis(1)), "nobody reads");

        release.send(()).unwrap();
        release.send(()).unwrap();
        assert!(log.flush(LONG));
        let text: Vec<u8> = written.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.len() <= CAPACITY + 1_000, "{} bytes were kept", text.len());
        let kept = u64::try_from(text.lines().count()).unwrap();
        assert_eq!(kept, 1 + lines - lost);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn f66_lines_that_cannot_be_written_are_counted() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dropped = counter();
        let log = Log::start(Style::Text, Level::Info, Box::new(Gone), dropped.clone()).unwrap();
        for _ in 0..3 {
            write(&log, Level::Info, "lost");
            assert!(log.flush(LONG));
        }
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn the_thread_writes_what_is_left_and_ends_with_the_last_log() {
        let (release, go) = mpsc::channel();
        let (started, _has_started) = mpsc::channel();
        let (taken, written) = mpsc::channel();
        release.send(()).unwrap();
        let log = Log::start(Style::Text, Level::Info, Box::new(Stopped { go, started, taken }), counter()).unwrap();
        let other = log.clone();
        drop(log);
        write(&other, Level::Info, "last");
        drop(other);
        let text = String::from_utf8(written.recv_timeout(LONG).unwrap()).unwrap();
        assert!(text.ends_with(" info last\n"), "{text}");
        assert_eq!(written.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected), "the thread goes on");
    }

    #[test]
    fn a_level_shows_itself_and_what_is_more_severe() {
        let log = Log::start(Style::Text, Level::Info, Box::new(io::sink()), counter()).unwrap();
        let shown = |log: &Log| [Level::Error, Level::Warn, Level::Info, Level::Debug].map(|level| log.shows(level));
        assert_eq!(shown(&log), [true, true, true, false]);
        log.set_level(Level::Error);
        assert_eq!(shown(&log), [true, false, false, false]);
        log.set_level(Level::Debug);
        assert_eq!(shown(&log), [true; 4]);
    }
}
