//! `reelgate simulate`: the simulated upstream alone, its behaviour by switches.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{Fault, Options, Shape, Simulator};

/// The simulated upstream alone.
#[derive(Args, Clone, Debug)]
pub struct SimulateArguments {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// The key that requests must hold; without one, any will do
    #[arg(long)]
    pub key: Option<String>,
    /// How long each answer takes
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub delay: Duration,
    /// How long a job takes
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = time)]
    pub job_duration: Duration,
    /// Which of the two documented poll forms is spoken
    #[arg(long, value_enum, default_value_t = ShapeName::Flat)]
    pub shape: ShapeName,
    /// How many of the jobs fail, 0 to 1
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub fail_rate: Option<f64>,
    /// What goes wrong with submissions, and how often (0 to 1; always without a rate); may be repeated. GET
    /// /simulator/ lists the names
    #[arg(long, value_name = "NAME[=RATE]", value_parser = chance)]
    pub fault: Vec<(Fault, f64)>,
    /// The same for polls
    #[arg(long, value_name = "NAME[=RATE]", value_parser = chance)]
    pub poll_fault: Vec<(Fault, f64)>,
    /// What the rates are drawn from: equal seeds, equal faults
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where clients find the videos, if not at the address it listens on
    #[arg(long, value_name = "URL")]
    pub public_origin: Option<String>,
}

/// [`Shape`] as a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShapeName {
    /// The task wrapper.
    Wrapper,
    /// The provider's object itself.
    Flat,
}

impl SimulateArguments {
    /// The options that these switches stand for.
    pub fn options(self) -> Options {
        let mut submission_chances = self.fault;
        submission_chances.extend(self.fail_rate.and_then(|rate| Some((Fault::named("fail")?, rate))));
        Options {
            listen: self.listen,
            key: self.key,
            job_duration: self.job_duration,
            answer_delay: self.delay,
            shape: match self.shape {
                ShapeName::Wrapper => Shape::Wrapper,
                ShapeName::Flat => Shape::Flat,
            },
            submission_chances,
            poll_chances: self.poll_fault,
            seed: self.seed,
            public_origin: self.public_origin.map(|origin| origin.trim_end_matches('/').to_owned()),
            // A process of its own may run for days, and nobody counts its bytes.
            keep_requests: 1_000,
            keep_bytes: 8 * 1024 * 1024,
            ..Options::default()
        }
    }
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(arguments: SimulateArguments) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listen = arguments.listen;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{listen}: {error}"));
    let simulator = Simulator::start(arguments.options()).await.map_err(named)?;
    let origin = simulator.origin();
    #[expect(clippy::print_stdout, reason = "a command's answer to whoever called it")]
    {
        println!("simulated upstream: {origin}/grok/v1 (control: {origin}/simulator/)");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

/// A duration as people write it: `250ms`, `8s`, `2m`.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("a number with ms, s or m, such as 250ms".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a number with ms, s or m, such as 250ms".to_owned())?;
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// A share from 0 to 1.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("a number from 0 to 1".to_owned()),
    }
}

/// The name of a fault, and how often it comes.
fn chance(text: &str) -> Result<(Fault, f64), String> {
    let (name, share) = match text.split_once('=') {
        Some((name, share)) => (name, rate(share)?),
        None => (text, 1.0),
    };
    let fault =
        Fault::named(name).ok_or_else(|| format!("one of {}", Fault::names().collect::<Vec<_>>().join(", ")))?;
    Ok((fault, share))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        simulate: SimulateArguments,
    }

    fn options(switches: &[&str]) -> Result<Options, clap::Error> {
        Program::try_parse_from([&["simulate"], switches].concat()).map(|program| program.simulate.options())
    }

    #[test]
    fn switches_become_options() {
        let got = options(&[
            "--delay=20ms",
            "--job-duration=2m",
            "--shape=wrapper",
            "--fail-rate=0.5",
            "--fault=429=0.25",
            "--poll-fault=503",
            "--key=sk-1",
        ])
        .unwrap();
        assert_eq!((got.answer_delay, got.job_duration), (Duration::from_millis(20), Duration::from_secs(120)));
        assert_eq!(got.shape, Shape::Wrapper);
        let named = |name| Fault::named(name).unwrap();
        assert_eq!(got.submission_chances, [(named("429"), 0.25), (named("fail"), 0.5)]);
        assert_eq!(got.poll_chances, [(named("503"), 1.0)]);
        assert_eq!(got.key.as_deref(), Some("sk-1"));
    }

    #[test]
    fn wrong_switches_are_refused() {
        for switch in
            ["--delay=20", "--delay=s", "--fail-rate=2", "--fail-rate=NaN", "--fault=unheard-of", "--fault=fail=x"]
        {
            assert!(options(&[switch]).is_err(), "{switch}");
        }
    }
}
