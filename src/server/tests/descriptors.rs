//! No descriptor left. The limit is the process's, so this runs in a process of its own.

use std::fs::File;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::sleep;

use super::*;

/// Stands in the environment of the process that has the test to itself.
const ALONE: &str = "T64_ALONE";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn t64_f64_without_descriptors_the_server_waits_and_recovers() {
    if std::env::var_os(ALONE).is_none() {
        let name = "server::tests::descriptors::t64_f64_without_descriptors_the_server_waits_and_recovers";
        let run =
            Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let server = Running::start(Settings { header_timeout: BOUND, ..settings() });
    let mut open = server.connect().await;
    assert!(open.ask(GET).await.contains("200 OK"));
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let mut fillers: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(fillers.pop().is_some(), "nothing was left to fill");

    // The client takes the last descriptor, so none is left for the server's end.
    let mut refused = server.connect().await;
    refused.send(GET).await;
    connections::assert_until(|| server.tally.accept_errors() > 0).await;
    let errors = server.tally.accept_errors();
    sleep(Duration::from_millis(500)).await;
    let more = server.tally.accept_errors() - errors;
    assert!(more <= 8, "{more} attempts in half a second");
    assert!(open.ask(GET).await.contains("200 OK"));

    drop(fillers);
    assert!(refused.answer().await.contains("200 OK"));
}
