//! What grows with the work, and what must not: CPU of a request and memory with many entries and many users.

use std::io;

use super::compare::{Compare, tell};
use super::contestants::{Bench, Contestant, Launch, Who};
use super::drive::Drive;
use super::filled;
use super::process::Memory;
use super::race::{middle, slice};
use super::requests::Kind;
use super::table::{Goal, Row};

/// With one, with many, and with a million.
pub fn grows(compare: &Compare, bench: &Bench) -> io::Result<()> {
    let entries: &[u64] = if compare.full { &[10_000, 1_000_000] } else { &[10_000] };
    let users: &[u64] = if compare.full { &[1_000, 1_000_000] } else { &[1_000] };
    // Jobs that nobody polls would be polled by the gateway itself meanwhile, and these here never end.
    let environment = vec![
        ("REELGATE_POLLS__WATCH", "1h".to_owned()),
        ("REELGATE_DEDUP__MAX_ENTRIES", "2000000".to_owned()),
        ("REELGATE_LEDGER__MAX_JOBS", "2000000".to_owned()),
    ];
    let launch = || Launch { environment: environment.clone(), ..Launch::default() };
    let few = bench.launch(Who::Gateway, &launch())?;
    let alone = memory(&few);
    for count in entries {
        // A million submissions would take the better part of an hour: the ledger is there before the gateway is.
        let ledger = bench.folder().join(format!("filled-{count}"));
        filled::fill(&ledger, *count)?;
        let mut over = launch();
        over.environment.push(("REELGATE_LEDGER__PATH", ledger.display().to_string()));
        let many = bench.launch(Who::Gateway, &over)?;
        let measured = (memory(&many) - alone) * 1024.0 / *count as f64;
        let (what, from) = (format!("memory of each of {count} entries"), "all that is kept, read from a file".into());
        tell(Row { what, measured, unit: "bytes", goal: None, from });
        flat(compare, bench, [&few, &many], &format!("{count} entries"), 64)?;
        many.end()?;
        std::fs::remove_dir_all(&ledger)?;
    }
    for count in users {
        let many = bench.launch(Who::Gateway, &launch())?;
        bench.drive(&many, compare.drive(Kind::Varied))?;
        let before = memory(&many);
        let all = Drive { users: *count, requests: Some(*count), ..Drive::new(Kind::Varied) };
        bench.drive(&many, all)?;
        let goal = (*count == 1_000_000).then_some(Goal { solid: f64::INFINITY, moonshot: 64.0 });
        let measured = (memory(&many) - before) / 1024.0;
        tell(Row {
            what: format!("memory of {count} limited users"),
            measured,
            unit: "MiB",
            goal,
            from: String::new(),
        });
        flat(compare, bench, [&few, &many], &format!("{count} users"), *count)?;
    }
    Ok(())
}

/// CPU of polls and hits with many, over those with few. Only hits whose text varies come from all users: the bytes of
/// the others repeat, and where they did not, they would cost what all of them cost here.
fn flat(compare: &Compare, bench: &Bench, [few, many]: [&Contestant; 2], what: &str, users: u64) -> io::Result<()> {
    for (kind, users) in [(Kind::Polls, 64), (Kind::Hits, 64), (Kind::Varied, users)] {
        let (mut with_few, mut with_many) = (Vec::new(), Vec::new());
        for _ in 0..compare.rounds {
            with_few.push(slice(bench, few, compare.drive(kind))?.cpu);
            with_many.push(slice(bench, many, Drive { users, ..compare.drive(kind) })?.cpu);
        }
        let (with_few, with_many) = (middle(with_few), middle(with_many));
        let goal = Some(Goal { solid: 1.15, moonshot: 1.05 });
        let from = format!("{with_many:.1} us, {with_few:.1} us");
        tell(Row {
            what: format!("CPU of {kind:?}, {what}"),
            measured: with_many / with_few,
            unit: "x with few",
            goal,
            from,
        });
    }
    Ok(())
}

/// Memory in KiB, when what is written later has been.
fn memory(contestant: &Contestant) -> f64 {
    contestant.process.as_ref().map_or(0.0, |process| process.settled_memory(Memory::All) as f64)
}
