//! Who fills the book, and whose `done` entries make room first: those of the team that is furthest over its share, which
//! is the same for all (`MONEY.md` M28).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;

use crate::clock::Time;
use crate::request::fingerprint::Fingerprint;

/// All teams that have entries.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Teams(HashMap<Arc<str>, Team>);

#[derive(Debug, Default, PartialEq)]
struct Team {
    entries: usize,
    /// Those that may make room, the oldest first.
    done: BTreeSet<(Time, Fingerprint)>,
}

impl Teams {
    /// Counts an entry of a team; `done` says until when it is a hit, if it may make room.
    pub(super) fn put(&mut self, name: Fingerprint, team: &Arc<str>, done: Option<Time>) {
        let team = self.0.entry(team.clone()).or_default();
        team.entries += 1;
        team.done.extend(done.map(|until| (until, name)));
    }

    /// An entry that was put in has gone.
    pub(super) fn take(&mut self, name: Fingerprint, team: &Arc<str>, done: Option<Time>) {
        self.turn(name, team, done, None);
        let Some(of) = self.0.get_mut(team) else { return };
        of.entries = of.entries.saturating_sub(1);
        if of.entries == 0 {
            self.0.remove(team);
        }
    }

    /// An entry may make room now, or no longer.
    pub(super) fn turn(&mut self, name: Fingerprint, team: &Arc<str>, before: Option<Time>, now: Option<Time>) {
        let Some(team) = self.0.get_mut(team) else { return };
        if let Some(until) = before {
            team.done.remove(&(until, name));
        }
        team.done.extend(now.map(|until| (until, name)));
    }

    /// The next to make room: the oldest `done` of the team that has most, of those that have any.
    pub(super) fn next_to_leave(&self) -> Option<Fingerprint> {
        let leaving = self.0.values().filter_map(|team| Some((team.entries, Reverse(*team.done.first()?))));
        leaving.max().map(|(_, Reverse((_, fingerprint)))| fingerprint)
    }
}

impl<'a> FromIterator<(Fingerprint, &'a Arc<str>, Option<Time>)> for Teams {
    /// Each entry with its team, as [`Teams::put`] takes it.
    fn from_iter<I: IntoIterator<Item = (Fingerprint, &'a Arc<str>, Option<Time>)>>(entries: I) -> Self {
        let mut teams = HashMap::<&Arc<str>, (usize, Vec<_>)>::default();
        for (name, team, done) in entries {
            let (entries, all) = teams.entry(team).or_default();
            *entries += 1;
            all.extend(done.map(|until| (until, name)));
        }
        let team = |(entries, done): (usize, Vec<_>)| Team { entries, done: done.into_iter().collect() };
        Self(teams.into_iter().map(|(name, of)| (name.clone(), team(of))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> Fingerprint {
        Fingerprint::from_bytes([number; 32])
    }

    #[test]
    fn m28_t47_the_team_furthest_over_its_share_gives_first_its_oldest_then_the_next_team() {
        let [large, small, busy] = ["large", "small", "busy"].map(Arc::<str>::from);
        let until = |millis| Some(Time::from_millis(millis));
        let all = [
            (1, &large, until(50)),
            (2, &large, until(40)),
            (3, &large, None),
            (4, &small, until(10)),
            (5, &small, until(20)),
            // Has most, and nothing that may leave.
            (6, &busy, None),
            (7, &busy, None),
            (8, &busy, None),
            (9, &busy, None),
        ];
        let mut teams = Teams::default();
        all.iter().for_each(|(number, team, done)| teams.put(name(*number), team, *done));
        assert_eq!(all.iter().map(|(number, team, done)| (name(*number), *team, *done)).collect::<Teams>(), teams);
        let mut left = Vec::new();
        while let Some(next) = teams.next_to_leave() {
            let (number, team, done) = all.iter().find(|(number, ..)| name(*number) == next).unwrap();
            teams.take(next, team, *done);
            left.push(*number);
        }
        // Of two teams that have as many, the one with the older entry gives.
        assert_eq!(left, [2, 4, 1, 5]);
        assert_eq!(teams.0.values().map(|team| team.entries).sum::<usize>(), 5);
        // One that may leave now, and no longer.
        teams.turn(name(6), &busy, None, until(7));
        assert_eq!(teams.next_to_leave(), Some(name(6)));
        teams.turn(name(6), &busy, until(7), None);
        assert_eq!(teams.next_to_leave(), None);
    }
}
