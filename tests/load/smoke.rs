//! That the instruments work, in a second: everybody serves, and what should stay away from the upstream does.

use std::io;

use super::contestants::{Bench, Launch, Places, Program, Who};
use super::drive::Drive;
use super::gate::verdict;
use super::process::{Folder, Memory};
use super::requests::Kind;
use super::train::Train;

/// Drives a little of everything.
pub fn run() -> io::Result<bool> {
    let verdicts =
        [(1.029, ""), (1.031, "  WORSE"), (0.96, "  better: record it"), (f64::NAN, "  not measured: WORSE")];
    if let Some((ratio, _)) = verdicts.iter().find(|(ratio, said)| verdict(*ratio, 1.0) != *said) {
        return Err(io::Error::other(format!("{ratio} is {:?}", verdict(*ratio, 1.0))));
    }
    let folder = Folder::new()?;
    let bench = Bench::start(folder.path(), &Program::default(), false, Places::default())?;
    for who in [Who::Bare, Who::Gateway] {
        let contestant = bench.launch(who, &Launch::default())?;
        for kind in [Kind::Polls, Kind::Hits, Kind::Varied, Kind::New, Kind::Big] {
            let seed = if matches!(kind, Kind::New | Kind::Big) { bench.fresh_numbers() } else { 0 };
            let requests = if kind == Kind::Big { 2 } else { 96 };
            let before = submissions(&bench)?;
            let drive = Drive { connections: 4, requests: Some(requests), users: 8, seed, ..Drive::new(kind) };
            let made = bench.drive(&contestant, drive)?;
            let sent = submissions(&bench)? - before;
            let expected = match (who, kind) {
                (Who::Gateway, Kind::Hits | Kind::Varied) => 0,
                // The jobs that are polled are submitted first.
                (_, Kind::Polls) => 64,
                _ => requests,
            };
            if made.requests != requests || sent != expected {
                let of = made.requests;
                let message = format!("{who:?}, {kind:?}: {sent} of {of} went upstream instead of {expected}");
                return Err(io::Error::other(message));
            }
        }
        if contestant.process.as_ref().is_none_or(|process| process.memory(Memory::All) == 0 || contestant.cpu() == 0.0)
        {
            return Err(io::Error::other(format!("{who:?}: neither memory nor CPU was used")));
        }
        contestant.end()?;
    }
    drop((bench, folder));
    Train { seconds: 0.05, program: Program::default() }.run()?;
    Ok(true)
}

fn submissions(bench: &Bench) -> io::Result<u64> {
    let counts = bench.counts()?;
    counts["submissions"].as_u64().ok_or_else(|| io::Error::other("no count of submissions"))
}
