//! What is measured of one process at a time.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use super::compare::{Compare, tell};
use super::contestants::{Bench, Launch, Who};
use super::drive::{self, Drive};
use super::nginx::Nginx;
use super::process::{Memory, is_here};
use super::race::{Race, middle, slice};
use super::requests::Kind;
use super::table::{Goal, Row};

/// CPU of a poll with many connections, beside few; and how that is for others, since much of it is the kernel's.
pub fn connections(compare: &Compare, bench: &Bench) -> io::Result<()> {
    let launch = Launch::default();
    let who = vec![("gateway", Who::Gateway, launch.clone()), ("bare", Who::Bare, launch.clone())];
    let (mut ratios, mut told) = (Vec::new(), Vec::new());
    // One after the other: the upstream has no threads for the connections that all of them would keep.
    for (name, who, launch) in compare.with_others(who, Nginx::Pass, &launch) {
        let contestant = bench.launch(who, &launch)?;
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for _ in 0..compare.rounds {
            let of = |connections| slice(bench, &contestant, Drive { connections, ..compare.drive(Kind::Polls) });
            few.push(of(16)?.cpu);
            many.push(of(1_024)?.cpu);
        }
        let (few, many) = (middle(few), middle(many));
        ratios.push(many / few);
        told.push(format!("{name} {many:.1} us, {few:.1} us: {:.2}", many / few));
    }
    let measured = ratios.first().copied().unwrap_or(f64::NAN);
    let goal = Some(Goal { solid: 1.5, moonshot: 1.25 });
    let (what, from) = ("CPU of a poll, 1,024 connections".into(), told.join("; "));
    tell(Row { what, measured, unit: "x 16 connections", goal, from });
    Ok(())
}

/// Memory of ten thousand connections that have polled once and are silent.
pub fn idle(bench: &Bench) -> io::Result<()> {
    let of = |who| held(bench, who, 10_000, Memory::All).map(|kibibytes| kibibytes as f64 / 1024.0);
    let gateway = of(Who::Gateway)?;
    let mut from = format!("bare {:.0} MiB", of(Who::Bare)?);
    if is_here("nginx") {
        from += &format!(", nginx {:.0} MiB", of(Who::Nginx(Nginx::Pass))?);
    }
    let goal = Some(Goal { solid: 170.0, moonshot: 32.0 });
    tell(Row { what: "memory, 10,000 idle connections".into(), measured: gateway, unit: "MiB", goal, from });
    Ok(())
}

/// Memory in KiB with so many idle connections.
pub fn held(bench: &Bench, who: Who, connections: usize, kind: Memory) -> io::Result<u64> {
    let contestant = bench.launch(who, &Launch::default())?;
    let clients = bench.driver(&contestant, Drive { connections, ..Drive::new(Kind::Idle) })?;
    let memory = contestant.process.as_ref().map_or(0, |process| process.settled_memory(kind));
    drop(clients);
    Ok(memory)
}

/// How long the program takes to answer after its start, and how large it is.
pub fn start(bench: &Bench) -> io::Result<()> {
    let mut took = Vec::new();
    for _ in 0..9 {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let environment = vec![("REELGATE_SERVER__LISTEN", address.to_string())];
        let begun = Instant::now();
        let asked = std::thread::spawn(move || {
            while TcpStream::connect(address).is_err() {
                std::thread::sleep(Duration::from_micros(200));
            }
            drive::get(address, None, "/openapi.json").map(|_| begun.elapsed())
        });
        let contestant = bench.launch(Who::Gateway, &Launch { environment, ..Launch::default() })?;
        let answered = asked.join().map_err(|_| io::Error::other("the client panicked"))??;
        took.push(answered.as_secs_f64() * 1e3);
        contestant.end()?;
    }
    let goal = Some(Goal { solid: 100.0, moonshot: 20.0 });
    let from = "median of 9, with a new ledger".into();
    tell(Row { what: "start to first answer".into(), measured: middle(took), unit: "ms", goal, from });
    let stripped = bench.folder().join("stripped");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(bench.program()).status();
    if strip.is_ok_and(|status| status.success()) {
        let measured = std::fs::metadata(&stripped)?.len() as f64 / f64::from(1 << 20);
        let goal = Some(Goal { solid: 15.0, moonshot: 9.0 });
        tell(Row { what: "the program, stripped".into(), measured, unit: "MiB", goal, from: String::new() });
    }
    Ok(())
}

/// TLS handshakes with the upstream while polls go on.
pub fn handshakes(bench: &Bench) -> io::Result<()> {
    let mut race = Race::start(bench, &[("gateway", Who::Gateway, Launch::default())])?;
    let drive = Drive { seconds: 1.0, ..Drive::new(Kind::Polls) };
    race.run(&drive, 1)?;
    let of = |counts: &serde_json::Value, name: &str| counts[name].as_f64().unwrap_or(0.0);
    let before = bench.counts()?;
    // The submissions that make the jobs were hits: these are polls and nothing else.
    race.run(&drive, 4)?;
    let after = bench.counts()?;
    let more = |name| of(&after, name) - of(&before, name);
    let made = more("full_handshakes") + more("resumed_handshakes");
    let polls = more("requests");
    let goal = Some(Goal { solid: 1.0, moonshot: 1.0 });
    let from = format!("{made:.0} in {polls:.0} polls");
    let measured = made * 1_000.0 / polls;
    tell(Row { what: "upstream handshakes per 1,000 polls".into(), measured, unit: "", goal, from });
    Ok(())
}
