//! `reelgate health`: asks `/readyz`, for images without a shell or curl.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::admin::{authority, connect};
use super::{Failure, failed, faulty, print};
use crate::config::{self, Config};

/// Whether the gateway is ready.
#[derive(Args, Debug)]
pub(super) struct HealthArguments {
    /// The admin address, HOST:PORT or http://HOST:PORT; else the configuration's
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The configuration, of which only admin.listen is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &HealthArguments) -> Result<(), Failure> {
    let address = match &arguments.admin {
        Some(address) => authority(address)?,
        // Whether the rest is sound was for `serve` to say, and it may have been told by other means.
        None => Config::admin_listen(arguments.config.as_deref(), config::environment())
            .map_err(|faults| faulty(&faults))?
            .to_string(),
    };
    let answer = ask(&address).map_err(|error| failed(&format!("{address}: {error}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        print(body.trim());
        return Ok(());
    }
    Err(failed(&format!("{address}: not ready, status {status}")))
}

fn ask(address: &str) -> std::io::Result<String> {
    let mut stream = connect(address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read, in bytes.
const LONGEST: u64 = 64 << 10;
