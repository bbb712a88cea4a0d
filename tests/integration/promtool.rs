//! Prometheus' own opinion of what `/metrics` says. `tests/run` brings promtool; without it there is no opinion, and
//! `tests/run` says so.

use std::io::Write;
use std::process::{Command, Stdio};

/// What `promtool check metrics` complains about in a metrics page: its lines, none if all is well; `None` without
/// promtool.
pub(crate) fn complaints(page: &str) -> Option<Vec<String>> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let lines: Vec<String> = String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(output.status.success(), lines.is_empty(), "{lines:?}");
    Some(lines)
}

#[test]
fn promtool_tells_a_good_page_from_a_bad_one() {
    let good =
        "# HELP reelgate_connections Open connections.\n# TYPE reelgate_connections gauge\nreelgate_connections 1\n";
    let bad = good.replace("gauge", "counter");
    if let Some(complaints) = complaints(good) {
        assert!(complaints.is_empty(), "{complaints:?}");
    }
    if let Some(complaints) = complaints(&bad) {
        assert!(!complaints.is_empty());
    }
}
