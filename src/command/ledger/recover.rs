//! `reelgate ledger recover`: what can be read of a damaged ledger, in a new one (F-43).

use std::path::{Path, PathBuf};

use super::super::{Failure, failed, print};
use crate::jobs::ledger::disk::recover::{Recovered, recover};

pub(super) fn run(from: &Path, to: Option<PathBuf>) -> Result<(), Failure> {
    let to = to.unwrap_or_else(|| {
        let mut name = from.as_os_str().to_owned();
        name.push(".recovered");
        PathBuf::from(name)
    });
    let Recovered { entries, jobs, keys, tabs, accounts, damaged, has_key, was_sound } =
        recover(from, &to).map_err(|error| failed(&error))?;
    print(&format!(
        "{}: {entries} entries, {jobs} jobs, {keys} idempotency keys, {tabs} open tabs and {accounts} accounts were \
         read; {damaged} records are damaged",
        from.display()
    ));
    if !was_sound {
        print(
            "The file itself could not be read, so its pages were: what had been dropped shortly before may stand here \
             again, and what was in flight is held as unknown for a while.",
        );
    }
    if !has_key {
        print(
            "The fingerprints' key was lost: a new one was made, and prompts of before are not recognised. Their jobs can \
             still be polled and listed.",
        );
    }
    print(&format!(
        "They are in {}. Start the gateway with it as ledger.path, or move it to the old place.",
        to.display()
    ));
    Ok(())
}
