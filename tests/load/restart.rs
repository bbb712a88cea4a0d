//! A start over a ledger that is full: how long nobody is served, and the memory it takes at its highest.

use std::io;
use std::time::Instant;

use super::compare::{Compare, tell};
use super::contestants::{Bench, Launch, Who};
use super::filled;
use super::race::middle;
use super::table::Row;

/// After an orderly end, and after a kill.
pub fn over_many(compare: &Compare, bench: &Bench) -> io::Result<()> {
    let entries = if compare.full { 1_000_000 } else { 10_000 };
    let ledger = bench.folder().join("full");
    filled::fill(&ledger, entries)?;
    let environment = vec![
        ("REELGATE_LEDGER__PATH", ledger.display().to_string()),
        ("REELGATE_DEDUP__MAX_ENTRIES", "2000000".to_owned()),
        ("REELGATE_LEDGER__MAX_JOBS", "2000000".to_owned()),
    ];
    let programs = [None].into_iter().chain(compare.beside.iter().cloned().map(Some));
    let launches = programs.map(|program| Launch { environment: environment.clone(), program, ..Launch::default() });
    let mut builds: Vec<_> = launches.map(|launch| (launch, [Vec::new(), Vec::new()], Vec::new())).collect();
    for _ in 0..compare.rounds.min(MOST_ROUNDS) {
        for (launch, [ended, killed], peaks) in &mut builds {
            let mut start = |took: &mut Vec<f64>| {
                let begun = Instant::now();
                let contestant = bench.launch(Who::Gateway, launch)?;
                took.push(begun.elapsed().as_secs_f64());
                peaks.push(contestant.process.as_ref().map_or(0.0, |process| process.peak() as f64 / 1024.0));
                io::Result::Ok(contestant)
            };
            drop(start(ended)?);
            start(killed)?.end()?;
        }
    }
    for (how, which) in [("an orderly end", 0), ("a kill", 1)] {
        let told = builds.iter().map(|(_, took, _)| middle(took[which].clone()));
        row(&format!("start over {entries} entries after {how}"), "s", told);
    }
    row("its memory at its highest", "MiB", builds.iter().map(|(.., peaks)| middle(peaks.clone())));
    Ok(())
}

/// The figure of the gateway, and those of further builds behind it.
fn row(what: &str, unit: &'static str, mut figures: impl Iterator<Item = f64>) {
    let measured = figures.next().unwrap_or(f64::NAN);
    let beside: Vec<_> = figures.map(|figure| format!("{figure:.1}")).collect();
    tell(Row { what: what.into(), measured, unit, goal: None, from: beside.join(", ") });
}

/// A start takes seconds.
const MOST_ROUNDS: usize = 3;
