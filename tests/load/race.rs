//! Several contestants, asked in turns: each figure is the median of the quieter half of its slices, those in which the
//! host took the least time away. Slices of one race lie beside each other, so their ratios mean something.

use std::io;

use super::contestants::{Bench, Contestant, Launch, Who};
use super::drive::Drive;
use super::requests::Kind;

/// What one contestant did in one slice.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// CPU of its processes for each request, in microseconds; the kernel's share is in it.
    pub cpu: f64,
    /// Requests a second.
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    stolen: u64,
}

/// One contestant, and its slices.
pub struct Racer {
    pub name: &'static str,
    pub contestant: Contestant,
    pub slices: Vec<Slice>,
    who: Who,
    launch: Launch,
}

/// A race.
pub struct Race<'b> {
    bench: &'b Bench,
    pub racers: Vec<Racer>,
}

impl<'b> Race<'b> {
    /// Starts everybody.
    pub fn start(bench: &'b Bench, who: &[(&'static str, Who, Launch)]) -> io::Result<Self> {
        let start = |(name, who, launch): &(&'static str, Who, Launch)| {
            let (contestant, slices) = (bench.launch(*who, launch)?, Vec::new());
            Ok(Racer { name, contestant, slices, who: *who, launch: launch.clone() })
        };
        Ok(Self { bench, racers: who.iter().map(start).collect::<io::Result<_>>()? })
    }

    /// Asks everybody, so many rounds, after a slice that does not count.
    pub fn run(&mut self, drive: &Drive, rounds: usize) -> io::Result<()> {
        let count = self.racers.len();
        for racer in &mut self.racers {
            racer.slices.clear();
            let warm = Drive { seconds: drive.seconds.min(0.7), rate: None, ..drive.clone() };
            slice(self.bench, &racer.contestant, warm).map_err(|error| named(racer.name, &error))?;
        }
        for round in 0..rounds {
            for place in 0..count {
                let racer = &mut self.racers[(round + place) % count];
                let slice = slice(self.bench, &racer.contestant, drive.clone());
                racer.slices.push(slice.map_err(|error| named(racer.name, &error))?);
            }
        }
        Ok(())
    }

    /// The same, with everybody started anew every few rounds: on some machines a process keeps the luck of its start, where
    /// its memory happens to lie, and the same program is a third faster or slower the next time.
    pub fn run_anew(&mut self, drive: &Drive, rounds: usize) -> io::Result<()> {
        let mut all = vec![Vec::new(); self.racers.len()];
        let mut left = rounds;
        loop {
            let now = left.min(ROUNDS_OF_A_START);
            self.run(drive, now)?;
            all.iter_mut().zip(&mut self.racers).for_each(|(all, racer)| all.append(&mut racer.slices));
            left -= now;
            if left == 0 {
                break;
            }
            for racer in &mut self.racers {
                racer.contestant = self.bench.launch(racer.who, &racer.launch)?;
            }
        }
        self.racers.iter_mut().zip(all).for_each(|(racer, all)| racer.slices = all);
        Ok(())
    }

    /// One contestant's figure.
    pub fn of(&self, name: &str, figure: impl Fn(&Slice) -> f64) -> f64 {
        let racer = self.racers.iter().find(|racer| racer.name == name);
        racer.map_or(f64::NAN, |racer| median(&racer.slices, figure))
    }

    /// One contestant's figure over another's.
    pub fn ratio(&self, name: &str, other: &str, figure: impl Fn(&Slice) -> f64) -> f64 {
        self.of(name, &figure) / self.of(other, &figure)
    }

    /// Whether somebody of this name takes part.
    pub fn has(&self, name: &str) -> bool {
        self.racers.iter().any(|racer| racer.name == name)
    }

    /// Everybody's figures, for who wants to see more than a ratio.
    pub fn told(&self) -> String {
        // By the racer itself, because several may have one name.
        let of = |racer: &Racer| {
            let figure = |figure: fn(&Slice) -> f64| median(&racer.slices, figure);
            let (cpu, rate, p50) = (figure(|slice| slice.cpu), figure(|slice| slice.rate), figure(|slice| slice.p50));
            format!("{} {cpu:.1} us, {rate:.0}/s, p50 {p50:.0} us", racer.name)
        };
        self.racers.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

/// One slice.
pub fn slice(bench: &Bench, contestant: &Contestant, drive: Drive) -> io::Result<Slice> {
    let drive = match drive.kind {
        Kind::New | Kind::Big | Kind::Varied => Drive { seed: bench.fresh_numbers(), ..drive },
        Kind::Polls | Kind::Hits | Kind::Idle => drive,
    };
    let clients = bench.driver(contestant, drive)?;
    // What making the requests has left to do, such as a log line that waits to be written, is not theirs.
    std::thread::sleep(std::time::Duration::from_millis(150));
    let (stolen, cpu) = (stolen(), contestant.cpu());
    let made = clients.go()?;
    let cpu = (contestant.cpu() - cpu) * 1e6 / made.requests as f64;
    let rate = made.requests as f64 / made.seconds;
    Ok(Slice { cpu, rate, p50: made.p50, p99: made.p99, stolen: self::stolen() - stolen })
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{name}: {error}"))
}

fn median(slices: &[Slice], figure: impl Fn(&Slice) -> f64) -> f64 {
    let mut quiet = slices.to_vec();
    quiet.sort_by_key(|slice| slice.stolen);
    quiet.truncate(slices.len().div_ceil(2));
    middle(quiet.iter().map(figure).collect())
}

/// The median.
pub fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

/// The time that the host has taken from this machine so far, in ticks.
fn stolen() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    first.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// How many rounds processes take part in before they are started anew.
const ROUNDS_OF_A_START: usize = 3;
