//! The clients' process, as the one that measures sees it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::ValueEnum;

use super::drive::{Drive, Made};

/// Clients that are connected and wait for the word.
pub struct Driver {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts them under `command`, and waits until they are connected.
    pub fn start(mut command: Command, drive: &Drive) -> io::Result<Self> {
        let kind = drive.kind.to_possible_value().map(|kind| kind.get_name().to_owned()).unwrap_or_default();
        command.arg(std::env::current_exe()?).args(["drive", "--kind", &kind, "--key", &drive.key]);
        command.args(["--address", &drive.address.to_string(), "--connections", &drive.connections.to_string()]);
        command.args(["--seconds", &drive.seconds.to_string(), "--seed", &drive.seed.to_string()]);
        command.args(["--users", &drive.users.to_string()]);
        if let Some(requests) = drive.requests {
            command.args(["--requests", &requests.to_string()]);
        }
        if let Some(rate) = drive.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if let Some(folder) = &drive.tls {
            command.arg("--tls").arg(folder);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| io::Error::other("no pipes"))?;
        let mut driver = Self { child, input, output: BufReader::new(output) };
        driver.line("ready").map(|_| driver)
    }

    /// Lets them go, and waits for what they made.
    pub fn go(mut self) -> io::Result<Made> {
        writeln!(self.input)?;
        let line = self.line("{")?;
        let made: Made = serde_json::from_str(&line)?;
        if made.failed == 0 {
            return Ok(made);
        }
        let Made { failed, requests, first_failure, .. } = made;
        Err(io::Error::other(format!("{failed} of {requests} requests failed, the first with {first_failure}")))
    }

    fn line(&mut self, start: &str) -> io::Result<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if line.starts_with(start) {
                return Ok(line);
            }
            line.clear();
        }
        Err(io::Error::other("the clients ended early"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
