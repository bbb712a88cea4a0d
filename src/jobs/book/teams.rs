//! Who fills the book, and whose `done` entries make room first: those of the team that is furthest over its share, which
//! is the same for all (`MONEY.md` M28).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;

use crate::clock::Time;
use crate::jobs::entry::{Entry, State};
use crate::request::fingerprint::Fingerprint;

/// All teams that have entries.
#[derive(Debug, Default)]
pub(super) struct Teams(HashMap<Arc<str>, Team>);

#[derive(Debug, Default)]
struct Team {
    entries: usize,
    /// Those that may make room, the oldest first.
    done: BTreeSet<(Time, Fingerprint)>,
}

impl Teams {
    /// Counts an entry that was put into the book.
    pub(super) fn put(&mut self, fingerprint: Fingerprint, entry: &Entry) {
        let team = self.0.entry(entry.team.clone()).or_default();
        team.entries += 1;
        if let State::Done(_, until) = entry.state {
            team.done.insert((until, fingerprint));
        }
    }

    /// Counts an entry that was taken out, as it was put in.
    pub(super) fn take(&mut self, fingerprint: Fingerprint, entry: &Entry) {
        let Some(team) = self.0.get_mut(&entry.team) else { return };
        team.entries = team.entries.saturating_sub(1);
        if let State::Done(_, until) = entry.state {
            team.done.remove(&(until, fingerprint));
        }
        if team.entries == 0 {
            self.0.remove(&entry.team);
        }
    }

    /// The next to make room: the oldest `done` of the team that has most, of those that have any.
    pub(super) fn next_to_leave(&self) -> Option<Fingerprint> {
        let leaving = self.0.values().filter_map(|team| Some((team.entries, Reverse(*team.done.first()?))));
        leaving.max().map(|(_, Reverse((_, fingerprint)))| fingerprint)
    }

    /// How many entries all teams have.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.0.values().map(|team| team.entries).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::jobs::entry::{AttemptId, Created};
    use crate::request::route::RequestId;

    fn fingerprint(name: u8) -> Fingerprint {
        Fingerprint::from_bytes([name; 32])
    }

    fn entry(team: &str, done_until: Option<u64>) -> Entry {
        let mut entry = Entry::claimed(AttemptId::from_bytes([0; 16]), team.into());
        if let Some(until) = done_until {
            let job = RequestId::parse("job").unwrap();
            let created = Created { job, answer: Bytes::new(), at: Time::from_millis(0), by: [0; 16] };
            entry.state = State::Done(created, Time::from_millis(until));
        }
        entry
    }

    #[test]
    fn m28_t47_the_team_furthest_over_its_share_gives_first_its_oldest_then_the_next_team() {
        let mut teams = Teams::default();
        let all = [
            (1, entry("large", Some(50))),
            (2, entry("large", Some(40))),
            (3, entry("large", None)),
            (4, entry("small", Some(10))),
            (5, entry("small", Some(20))),
            // Has most, and nothing that may leave.
            (6, entry("busy", None)),
            (7, entry("busy", None)),
            (8, entry("busy", None)),
            (9, entry("busy", None)),
        ];
        all.iter().for_each(|(name, entry)| teams.put(fingerprint(*name), entry));
        let mut left = Vec::new();
        while let Some(next) = teams.next_to_leave() {
            let (name, entry) = all.iter().find(|(name, _)| fingerprint(*name) == next).unwrap();
            teams.take(next, entry);
            left.push(*name);
        }
        // Of two teams that have as many, the one with the older entry gives.
        assert_eq!(left, [2, 4, 1, 5]);
        assert_eq!(teams.entries(), 5);
    }
}
