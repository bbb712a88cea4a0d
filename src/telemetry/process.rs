//! The `process_*` metrics that every Prometheus dashboard knows, read from `/proc/self` when they are asked for.
//! What a system does not tell is left out.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// This process.
pub(super) struct Process {
    started: f64,
}

impl Process {
    /// This process, which is taken to start now.
    pub(super) fn starting_now() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: started.as_secs_f64() }
    }

    /// Appends the metrics in the text format.
    pub(super) fn write(&self, text: &mut String) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |field| status_field(&status, field).map(|amount| amount.saturating_mul(1024));
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let spent = format!("{}.{:09}", spent.tv_sec, spent.tv_nsec);
        // The directory that is being read is itself an open file.
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1));
        let limit = getrlimit(Resource::Nofile).current;
        for (name, kind, help, value) in [
            ("cpu_seconds_total", "counter", "Processor time of this process, in user and system mode.", Some(spent)),
            ("open_fds", "gauge", "Open file descriptors.", open.map(|count| count.to_string())),
            ("max_fds", "gauge", "The most file descriptors that may be open.", limit.map(|limit| limit.to_string())),
            ("resident_memory_bytes", "gauge", "Memory in RAM.", kilobytes("VmRSS:").map(|size| size.to_string())),
            ("virtual_memory_bytes", "gauge", "Address space.", kilobytes("VmSize:").map(|size| size.to_string())),
            (
                "start_time_seconds",
                "gauge",
                "When this process started, since the epoch.",
                Some(self.started.to_string()),
            ),
            ("threads", "gauge", "Threads.", status_field(&status, "Threads:").map(|count| count.to_string())),
        ] {
            if let Some(value) = value {
                let _ = write!(
                    text,
                    "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
                );
            }
        }
    }
}

/// The first number behind a field's name in `/proc/self/status`.
fn status_field(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_status_is_read_by_its_name() {
        let status = "Name:\treelgate\nVmSize:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(status_field(status, "VmSize:"), Some(2048));
        assert_eq!(status_field(status, "Threads:"), Some(7));
        assert_eq!(status_field(status, "VmRSS:"), None);
        assert_eq!(status_field("VmRSS:\tmuch", "VmRSS:"), None);
    }

    #[test]
    fn every_process_metric_has_a_value_here() {
        let mut text = String::new();
        Process::starting_now().write(&mut text);
        for name in [
            "cpu_seconds_total",
            "open_fds",
            "max_fds",
            "resident_memory_bytes",
            "virtual_memory_bytes",
            "start_time_seconds",
            "threads",
        ] {
            let prefix = format!("process_{name} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{name}"));
            assert!(value.parse::<f64>().unwrap() > 0.0, "{name} is {value}");
        }
    }
}
