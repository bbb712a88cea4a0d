//! The gate: what a request costs in ways that hardly move from run to run, each as a ratio to the bare pass-through
//! of the same run. More than a little above the recorded ratio fails. Nothing here is a time.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use toml::Table;

use super::contestants::{Bench, Launch, Places, Program, Who};
use super::drive::Drive;
use super::process::{Folder, Memory, is_here};
use super::race::middle;
use super::requests::Kind;
use super::single::held;

/// `load gate`.
#[derive(Args)]
pub struct Gate {
    /// Writes what was measured to the file that later runs are compared with.
    #[arg(long)]
    record: bool,
    /// How many connections ask. One after the other is the most repeatable; 16 keep the gateway busy.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Keeps what valgrind wrote, for `callgrind_annotate`, in this folder.
    #[arg(long)]
    keep: Option<PathBuf>,
    #[command(flatten)]
    program: Program,
}

/// What is counted by a tool that runs the program.
#[derive(Clone, Copy, Debug)]
enum Counted {
    Instructions,
    Syscalls,
}

/// One figure: the gateway's, and the bare pass-through's.
struct Figure {
    name: &'static str,
    gateway: f64,
    bare: f64,
    ratio: f64,
}

impl Gate {
    /// Measures, compares, and tells. Whether nothing got worse.
    pub fn run(&self) -> io::Result<bool> {
        let missing: Vec<_> = ["valgrind", "strace"].into_iter().filter(|tool| !is_here(tool)).collect();
        if !missing.is_empty() {
            return Err(io::Error::other(format!("missing: {} (Debian's packages)", missing.join(" and "))));
        }
        if self.record {
            let mut figures = self.measure()?;
            let others = [self.measure()?, self.measure()?];
            for (index, figure) in figures.iter_mut().enumerate() {
                figure.ratio = middle(others.iter().map(|other| other[index].ratio).chain([figure.ratio]).collect());
            }
            std::fs::write(recorded(), record(&figures))?;
            print!("{}", record(&figures));
            return Ok(true);
        }
        let known: Table = std::fs::read_to_string(recorded())?.parse().map_err(io::Error::other)?;
        let before = |name: &str| known.get(name).and_then(toml::Value::as_float).unwrap_or(0.0);
        let mut least = self.measure()?;
        // A busy machine only adds: what is worse once and not again was not the gateway.
        for _ in 1..TRIES {
            if !least.iter().any(|figure| verdict(figure.ratio, before(figure.name)).ends_with("WORSE")) {
                break;
            }
            println!("worse than recorded: measuring once more");
            for (figure, again) in least.iter_mut().zip(self.measure()?) {
                if again.ratio < figure.ratio {
                    *figure = again;
                }
            }
        }
        Ok(judge(&least, before))
    }

    fn measure(&self) -> io::Result<Vec<Figure>> {
        let folder = Folder::new()?;
        let bench = Bench::start(folder.path(), &self.program, false, Places::default())?;
        let mut figures = Vec::new();
        for (counted, poll, hit) in [
            (Counted::Instructions, "instructions_poll", "instructions_hit"),
            (Counted::Syscalls, "syscalls_poll", "syscalls_hit"),
        ] {
            let counter = Counter { counted, bench: &bench, folder: folder.path(), gate: self };
            let bare = counter.costs(Who::Bare, &[Kind::Polls])?[0];
            let ours = counter.costs(Who::Gateway, &[Kind::Polls, Kind::Hits])?;
            figures.push(Figure::new(poll, ours[0], bare));
            figures.push(Figure::new(hit, ours[1], bare));
        }
        for (connections, name) in [(1_000, "memory_1000_idle"), (10_000, "memory_10000_idle")] {
            // Of the program's own text, which others may share, a build more or less is in memory.
            let of = |who| held(&bench, who, connections, Memory::Anonymous).map(|memory| memory as f64);
            figures.push(Figure::new(name, of(Who::Gateway)?, of(Who::Bare)?));
        }
        Ok(figures)
    }
}

/// Tells each figure beside the record. Whether none is worse.
fn judge(figures: &[Figure], before: impl Fn(&str) -> f64) -> bool {
    let mut fine = true;
    println!("{:<20} {:>10} {:>10} {:>7} {:>9}", "", "gateway", "bare", "ratio", "recorded");
    for Figure { name, gateway, bare, ratio } in figures {
        let before = before(name);
        let verdict = verdict(*ratio, before);
        fine &= !verdict.ends_with("WORSE");
        println!("{name:<20} {gateway:>10.1} {bare:>10.1} {ratio:>7.3} {before:>9.3}{verdict}");
    }
    if !fine {
        println!(
            "worse than tests/load/recorded.toml says by more than {:.0} %; if it is meant:\n  {AGAIN}",
            TOLERANCE * 100.0
        );
    }
    fine
}

/// What to say of a ratio.
pub fn verdict(ratio: f64, before: f64) -> &'static str {
    match ratio / before {
        change if change > 1.0 + TOLERANCE => "  WORSE",
        change if change < 1.0 - TOLERANCE => "  better: record it",
        change if change.is_finite() => "",
        _ => "  not measured: WORSE",
    }
}

impl Figure {
    fn new(name: &'static str, gateway: f64, bare: f64) -> Self {
        Self { name, gateway, bare, ratio: gateway / bare }
    }
}

/// What counts: a tool around the program.
struct Counter<'g> {
    counted: Counted,
    bench: &'g Bench,
    folder: &'g Path,
    gate: &'g Gate,
}

impl Counter<'_> {
    /// What one request of each kind costs: a run with requests less a run with none but those that prepare it.
    fn costs(&self, who: Who, kinds: &[Kind]) -> io::Result<Vec<f64>> {
        let none = self.total(who, None)?;
        let cost = |kind: &Kind| Ok((self.total(who, Some(*kind))? - none) / self.counted.requests() as f64);
        kinds.iter().map(cost).collect()
    }

    /// What a whole run costs.
    fn total(&self, who: Who, kind: Option<Kind>) -> io::Result<f64> {
        let file = self.folder.join("counted.txt");
        let contestant = self.bench.launch(who, &Launch { wrap: self.counted.wrap(&file), ..Launch::default() })?;
        let drive = Drive { connections: self.gate.connections, users: 64, ..Drive::new(Kind::Polls) };
        // Connections to the upstream, hot entries and lazy tables are made by these.
        self.bench.drive(&contestant, Drive { requests: Some(WARM), ..drive.clone() })?;
        self.bench.drive(&contestant, Drive { kind: Kind::Hits, requests: Some(WARM), ..drive.clone() })?;
        if let Some(kind) = kind {
            self.bench.drive(&contestant, Drive { kind, requests: Some(self.counted.requests()), ..drive })?;
        }
        contestant.end()?;
        if let Some(folder) = &self.gate.keep {
            let name =
                format!("{:?}-{who:?}-{}.txt", self.counted, kind.map_or("none".into(), |kind| format!("{kind:?}")));
            std::fs::copy(&file, folder.join(name.to_lowercase()))?;
        }
        let text = std::fs::read_to_string(&file)?;
        let total = text.lines().find_map(|line| self.counted.read(line));
        total.ok_or_else(|| io::Error::other(format!("no total in {text}")))
    }
}

impl Counted {
    /// The total, if this line of the tool's file has it.
    fn read(self, line: &str) -> Option<f64> {
        match self {
            Self::Instructions => line.strip_prefix("summary:")?.trim().parse().ok(),
            Self::Syscalls => line.trim_end().strip_suffix(" total")?.split_whitespace().nth(3)?.parse().ok(),
        }
    }

    /// The tool, told to write there.
    fn wrap(self, file: &Path) -> Vec<String> {
        let file = file.display();
        let line = match self {
            Self::Instructions => format!("valgrind --tool=callgrind -q --callgrind-out-file={file}"),
            Self::Syscalls => format!("strace -f -c -o {file}"),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    /// How many requests are counted.
    fn requests(self) -> u64 {
        match self {
            Self::Instructions => 2_000,
            Self::Syscalls => 4_000,
        }
    }
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load/recorded.toml")
}

fn record(figures: &[Figure]) -> String {
    let mut text =
        format!("# What a request of the gateway costs, as a ratio to the bare pass-through. Made by:\n#   {AGAIN}\n");
    for figure in figures {
        let Figure { name, gateway, bare, ratio } = figure;
        // Writing to a string cannot fail.
        _ = writeln!(text, "{name} = {ratio:.3}    # {gateway:.1} to {bare:.1}");
    }
    text
}

/// How to make the record anew.
const AGAIN: &str = "cargo test --profile gate --test load -- gate --record";
/// How much above the record is worse.
const TOLERANCE: f64 = 0.03;
/// How often a figure may be measured until it is as good as recorded.
const TRIES: usize = 3;
/// Requests of each kind before the counted ones.
const WARM: u64 = 200;
