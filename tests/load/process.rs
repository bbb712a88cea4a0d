//! A process under measurement: where it serves, what it has used, and its end.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running process, with its children. It is killed with this value.
pub struct Process {
    child: Child,
    output: PathBuf,
}

/// Which memory counts.
#[derive(Clone, Copy)]
pub enum Memory {
    /// All of it, the program's text too.
    All,
    /// What is no file's.
    Anonymous,
}

impl Process {
    /// Starts it. What it says goes to a file of this name.
    pub fn start(command: &mut Command, output: PathBuf) -> io::Result<Self> {
        let file = File::create(&output)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.map_err(|error| io::Error::other(format!("{command:?}: {error}")))?;
        Ok(Self { child, output })
    }

    /// Waits until its output tells where it serves.
    pub fn serving(&mut self, find: impl Fn(&str) -> Option<SocketAddr>) -> io::Result<SocketAddr> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = fs::read_to_string(&self.output)?;
            if let Some(address) = output.lines().find_map(&find) {
                return Ok(address);
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(io::Error::other(format!("it does not serve: {output}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it and waits: its tracer, if it has one, writes what it counted.
    pub fn end(mut self) -> io::Result<()> {
        let all = self.tree();
        // A tracer ends by itself when what it traces has ended.
        let last = all.last().copied().unwrap_or_else(|| self.child.id());
        signal(if is_tracer(self.child.id()) { last } else { self.child.id() }, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other("it does not end"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// CPU seconds of all its threads and children, to the nanosecond.
    pub fn cpu(&self) -> f64 {
        let threads = self.tree().into_iter().flat_map(|id| entries(&format!("/proc/{id}/task")));
        let used = threads.filter_map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        });
        used.sum::<f64>() / 1e9
    }

    /// Its memory in KiB; what it shares with others counts as its share of it.
    pub fn memory(&self, kind: Memory) -> u64 {
        self.tree().into_iter().map(|id| memory_of(id, kind)).sum()
    }

    /// The memory in KiB that it had at its highest, of the program itself.
    pub fn peak(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    /// Its memory when it no longer shrinks.
    pub fn settled_memory(&self, kind: Memory) -> u64 {
        let mut least = self.memory(kind);
        let mut same = 0;
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.memory(kind);
            same = if now + now / 200 < least { 0 } else { same + 1 };
            least = least.min(now);
            if same == 8 {
                break;
            }
        }
        least
    }

    /// It, its children, and theirs.
    fn tree(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut seen = 0;
        while let Some(id) = all.get(seen).copied() {
            seen += 1;
            for task in entries(&format!("/proc/{id}/task")) {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
        }
        all
    }
}

/// The memory of one process in KiB.
pub fn memory_of(id: u32, kind: Memory) -> u64 {
    let field = match kind {
        Memory::All => "Pss:",
        Memory::Anonymous => "Pss_Anon:",
    };
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

impl Drop for Process {
    fn drop(&mut self) {
        // The parents first: nginx's would start what is missing anew.
        for id in self.tree() {
            signal(id, Signal::KILL);
        }
        _ = self.child.wait();
    }
}

fn is_tracer(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "strace")
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        _ = kill_process(pid, signal);
    }
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Whether a program can be started.
pub fn is_here(program: &str) -> bool {
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places).chain([PathBuf::from("/usr/sbin")]).any(|place| place.join(program).is_file())
}

/// A folder of this run's own, removed with this value.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("reelgate-load-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// How long a process may take to serve or to end, under valgrind too.
const PATIENCE: Duration = Duration::from_secs(120);
