//! The comparison: the gateway with everything on beside nginx and the bare pass-through, one question after the other.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};

use super::contestants::{Bench, Launch, Places, Program, Who};
use super::drive::Drive;
use super::nginx::Nginx;
use super::process::{Folder, is_here};
use super::race::Race;
use super::requests::Kind;
use super::table::{Goal, Row};
use super::{certificate, restart, single, work};

/// `load compare`.
#[derive(Args)]
pub struct Compare {
    /// Only these questions.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Question>,
    /// How often everybody takes a turn.
    #[arg(long, default_value_t = 6)]
    pub rounds: usize,
    /// How long a turn is.
    #[arg(long, default_value_t = 1.5)]
    pub seconds: f64,
    /// Also with a million entries and a million users, which takes some minutes.
    #[arg(long)]
    pub full: bool,
    /// More builds of the gateway, which take part in polls, workers, hits, new, big, connections and restart: their
    /// figures stand at the end of a row, in this order.
    #[arg(long)]
    pub beside: Vec<PathBuf>,
    #[command(flatten)]
    pub program: Program,
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// CPU of a poll, one worker.
    Polls,
    /// The same, two workers.
    Workers,
    /// CPU of a hit.
    Hits,
    /// CPU of a new submission.
    New,
    /// CPU of a submission of 4 MB.
    Big,
    /// How long a poll takes at 2,000 a second.
    Latency,
    /// CPU of a poll, by the number of connections.
    Connections,
    /// Memory of idle connections.
    Idle,
    /// From the start to the first answer; the size of the program.
    Start,
    /// How long a start over a full ledger takes.
    Restart,
    /// CPU and memory as entries and users grow.
    Work,
    /// Polls over TLS on both sides, and upstream handshakes.
    Tls,
    /// The same, two workers.
    TlsWorkers,
}

impl Compare {
    /// Measures and prints a table, row by row.
    pub fn run(&self) -> io::Result<()> {
        bring_nginx();
        let alone = match std::thread::available_parallelism()?.get() {
            1 => Places::default(),
            _ => Places { serving: Some(0), around: Some(1) },
        };
        println!("{}", Row::head());
        for question in Question::value_variants() {
            if !self.only.is_empty() && !self.only.contains(question) {
                continue;
            }
            let (tls, places) = match question {
                Question::Workers | Question::Idle | Question::Restart => (false, Places::default()),
                Question::Tls => (true, alone),
                Question::TlsWorkers => (true, Places::default()),
                _ => (false, alone),
            };
            let folder = Folder::new()?;
            if tls {
                certificate::make(folder.path())?;
            }
            let bench = Bench::start(folder.path(), &self.program, tls, places)?;
            if let Err(error) = self.ask(*question, &bench) {
                println!("| {question:?} | failed | | | | {error} |");
            }
        }
        Ok(())
    }

    fn ask(&self, question: Question, bench: &Bench) -> io::Result<()> {
        match question {
            Question::Polls => self.polls(bench, 1, ""),
            Question::Workers => self.polls(bench, 2, ""),
            Question::Hits => self.hits(bench),
            Question::New => self.submissions(bench),
            Question::Big => self.big(bench),
            Question::Latency => self.latency(bench),
            Question::Connections => single::connections(self, bench),
            Question::Idle => single::idle(bench),
            Question::Start => single::start(bench),
            Question::Restart => restart::over_many(self, bench),
            Question::Work => work::grows(self, bench),
            Question::TlsWorkers => self.polls(bench, 2, ", TLS on both sides"),
            Question::Tls => {
                self.polls(bench, 1, ", TLS on both sides")?;
                single::handshakes(bench)
            }
        }
    }

    fn polls(&self, bench: &Bench, workers: usize, how: &str) -> io::Result<()> {
        let launch = Launch { workers, ..Launch::default() };
        let mut who = vec![("gateway", Who::Gateway, launch.clone())];
        // The bare pass-through speaks no TLS.
        if how.is_empty() {
            who.push(("bare", Who::Bare, launch.clone()));
        }
        let mut race = Race::start(bench, &self.with_others(who, Nginx::Pass, &launch))?;
        race.run_anew(&self.drive(Kind::Polls), self.rounds)?;
        let (what, nginx) = match workers {
            1 => ("CPU of a poll", Goal { solid: 1.2, moonshot: 1.0 }),
            _ => ("CPU of a poll, two workers", Goal { solid: 1.0, moonshot: 0.9 }),
        };
        against(&race, &format!("{what}{how}"), Some(nginx));
        if workers == 1 && race.has("bare") {
            let goal = Some(Goal { solid: 1.25, moonshot: 1.08 });
            let measured = race.ratio("gateway", "bare", |slice| slice.cpu);
            tell(Row { what: what.into(), measured, unit: "x bare", goal, from: String::new() });
        }
        Ok(())
    }

    fn hits(&self, bench: &Bench) -> io::Result<()> {
        let launch = Launch::default();
        let who = vec![("gateway", Who::Gateway, launch.clone())];
        let mut who = self.with_others(who, Nginx::Cache, &launch);
        if is_here("nginx") {
            who.push(("nginx without sendfile", Who::Nginx(Nginx::CacheRead), launch));
        }
        let mut race = Race::start(bench, &who)?;
        race.run_anew(&self.drive(Kind::Hits), self.rounds)?;
        against(&race, "CPU of a hit (nginx: its cache)", Some(Goal { solid: 0.65, moonshot: 0.5 }));
        let (what, unit) = ("the same, nginx without sendfile".into(), "x nginx");
        let measured = race.ratio("gateway", "nginx without sendfile", |slice| slice.cpu);
        tell(Row { what, measured, unit, goal: None, from: String::new() });
        let repeated = race.of("gateway", |slice| slice.cpu);
        race.racers.truncate(1);
        race.run(&self.drive(Kind::Varied), self.rounds)?;
        let measured = race.of("gateway", |slice| slice.cpu) / repeated;
        let (what, unit) = ("CPU of a hit in a text that is new".into(), "x a text that is known");
        tell(Row { what, measured, unit, goal: None, from: race.told() });
        Ok(())
    }

    fn submissions(&self, bench: &Bench) -> io::Result<()> {
        let launch = Launch::default();
        let forgetful = Launch { environment: vec![("REELGATE_LEDGER__KIND", "memory".into())], ..launch.clone() };
        let who = vec![("gateway", Who::Gateway, launch.clone()), ("gateway without a disk", Who::Gateway, forgetful)];
        let mut race = Race::start(bench, &self.with_others(who, Nginx::Fresh, &launch))?;
        race.run_anew(&self.drive(Kind::New), self.rounds)?;
        let what = "CPU of a new submission (nginx: a connection for each)";
        against(&race, what, Some(Goal { solid: 1.6, moonshot: 1.2 }));
        let measured = 1.0 - race.ratio("gateway without a disk", "gateway", |slice| slice.cpu);
        tell(Row { what: "the ledger's share of it".into(), measured, unit: "", goal: None, from: String::new() });
        Ok(())
    }

    fn big(&self, bench: &Bench) -> io::Result<()> {
        let launch = Launch::default();
        let who = vec![("gateway", Who::Gateway, launch.clone())];
        let mut race = Race::start(bench, &self.with_others(who, Nginx::Pass, &launch))?;
        race.run_anew(&Drive { connections: 4, ..self.drive(Kind::Big) }, self.rounds)?;
        against(&race, "CPU of 4 MB with an image (nginx: streaming)", Some(Goal { solid: 2.6, moonshot: 2.0 }));
        Ok(())
    }

    fn latency(&self, bench: &Bench) -> io::Result<()> {
        let launch = Launch::default();
        let who = vec![("gateway", Who::Gateway, launch.clone()), ("direct", Who::Direct, launch.clone())];
        let mut race = Race::start(bench, &with_nginx(who, Nginx::Pass, &launch))?;
        race.run(&Drive { rate: Some(2_000), ..self.drive(Kind::Polls) }, self.rounds.max(6))?;
        if !race.has("nginx") {
            return Ok(());
        }
        let p50 = |name: &str| race.of(name, |slice| slice.p50);
        let added = |name: &str| p50(name) - p50("direct");
        let from = format!(
            "direct {:.0} us, gateway {:.0} more, nginx {:.0} more",
            p50("direct"),
            added("gateway"),
            added("nginx")
        );
        let goal = Some(Goal { solid: 1.1, moonshot: 1.0 });
        let measured = added("gateway") / added("nginx");
        tell(Row { what: "p50 added at 2,000 polls/s".into(), measured, unit: "x nginx", goal, from });
        let best = |name: &str| {
            let racer = race.racers.iter().find(|racer| racer.name == name);
            let slices = racer.into_iter().flat_map(|racer| &racer.slices);
            slices.map(|slice| slice.p99).fold(f64::INFINITY, f64::min)
        };
        let from = format!("gateway {:.0} us, nginx {:.0} us", best("gateway"), best("nginx"));
        let goal = Some(Goal { solid: 1.25, moonshot: 1.0 });
        let measured = best("gateway") / best("nginx");
        tell(Row { what: "p99 of the best slice".into(), measured, unit: "x nginx", goal, from });
        Ok(())
    }

    /// Everybody, nginx if it is here, and the builds that were named.
    pub fn with_others(
        &self,
        who: Vec<(&'static str, Who, Launch)>,
        nginx: Nginx,
        launch: &Launch,
    ) -> Vec<(&'static str, Who, Launch)> {
        let builds = self.beside.iter().map(|program| Launch { program: Some(program.clone()), ..launch.clone() });
        let builds = builds.map(|launch| ("beside", Who::Gateway, launch));
        with_nginx(who, nginx, launch).into_iter().chain(builds).collect()
    }

    /// Clients of a kind, for as long as a turn is.
    pub fn drive(&self, kind: Kind) -> Drive {
        Drive { seconds: self.seconds, users: 64, ..Drive::new(kind) }
    }
}

/// Everybody, and nginx if it is here.
fn with_nginx(
    mut who: Vec<(&'static str, Who, Launch)>,
    nginx: Nginx,
    launch: &Launch,
) -> Vec<(&'static str, Who, Launch)> {
    if is_here("nginx") {
        who.push(("nginx", Who::Nginx(nginx), launch.clone()));
    }
    who
}

/// The row of the gateway's CPU over nginx's; without nginx only the figures.
fn against(race: &Race<'_>, what: &str, goal: Option<Goal>) {
    let measured = race.ratio("gateway", "nginx", |slice| slice.cpu);
    tell(Row { what: what.into(), measured, unit: "x nginx", goal, from: race.told() });
}

/// Prints a row as soon as it is there.
pub fn tell(row: Row) {
    println!("{}", row.line());
}

/// Installs nginx, where it is missing and this may.
fn bring_nginx() {
    if is_here("nginx") {
        return;
    }
    let install =
        "DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends nginx-light >&2";
    let installed = rustix::process::geteuid().is_root()
        && is_here("apt-get")
        && Command::new("sh").args(["-c", install]).status().is_ok_and(|status| status.success());
    if !installed {
        println!("nginx is missing (Debian's package nginx): its figures are skipped\n");
    }
}
