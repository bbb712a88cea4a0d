//! Where a scene's log goes.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

/// A log in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    written: Mutex<Vec<u8>>,
    is_blocked: Mutex<bool>,
    opened: Condvar,
}

impl Sink {
    /// All that was written.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.written.lock().unwrap().clone()).expect("the log is UTF-8")
    }

    /// Its lines, each of which is a JSON object.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// The lines that requests left.
    pub fn requests(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["message"] == "request").collect()
    }

    /// Takes nothing more until [`Sink::unblock`], like a pipe whose reader sleeps.
    pub fn block(&self) {
        *self.0.is_blocked.lock().unwrap() = true;
    }

    /// Takes everything again.
    pub fn unblock(&self) {
        *self.0.is_blocked.lock().unwrap() = false;
        self.0.opened.notify_all();
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        drop(self.0.opened.wait_while(self.0.is_blocked.lock().unwrap(), |is_blocked| *is_blocked).unwrap());
        self.0.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
