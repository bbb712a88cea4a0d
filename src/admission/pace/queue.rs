//! Who waits for a slot: one team after the other, and within a team one user after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{NoSlot, User};

/// Tells who waits that its turn has come, or why it will not.
pub(super) type Grant = oneshot::Sender<Result<(), NoSlot>>;

/// Who waits, by team and user.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Whose turn it is, the next first.
    teams: VecDeque<Arc<str>>,
    by_team: HashMap<Arc<str>, Team>,
    pub(super) len: usize,
    numbered: u64,
}

#[derive(Debug, Default)]
struct Team {
    users: VecDeque<User>,
    by_user: HashMap<User, VecDeque<(u64, Grant)>>,
}

impl Queue {
    pub(super) fn push(&mut self, team: &Arc<str>, user: User, grant: Grant) -> u64 {
        self.numbered += 1;
        self.len += 1;
        if !self.by_team.contains_key(team) {
            self.teams.push_back(team.clone());
        }
        let team = self.by_team.entry(team.clone()).or_default();
        if !team.by_user.contains_key(&user) {
            team.users.push_back(user);
        }
        team.by_user.entry(user).or_default().push_back((self.numbered, grant));
        self.numbered
    }

    /// The next one: of the team whose turn it is, the user whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Grant> {
        let name = self.teams.pop_front()?;
        let team = self.by_team.get_mut(&name)?;
        let user = team.users.pop_front()?;
        let (_, grant) = team.by_user.get_mut(&user)?.pop_front()?;
        self.len -= 1;
        // Who has more to send comes again when all others had a turn.
        match team.by_user.get(&user).is_some_and(VecDeque::is_empty) {
            true => _ = team.by_user.remove(&user),
            false => team.users.push_back(user),
        }
        match team.users.is_empty() {
            true => _ = self.by_team.remove(&name),
            false => self.teams.push_back(name),
        }
        Some(grant)
    }

    pub(super) fn leave(&mut self, name: &Arc<str>, user: User, number: u64) {
        let Some(team) = self.by_team.get_mut(name) else { return };
        let Some(grants) = team.by_user.get_mut(&user) else { return };
        let before = grants.len();
        grants.retain(|(other, _)| *other != number);
        self.len -= before - grants.len();
        if grants.is_empty() {
            team.by_user.remove(&user);
            team.users.retain(|other| *other != user);
        }
        if team.users.is_empty() {
            self.by_team.remove(name);
            self.teams.retain(|other| other != name);
        }
    }

    /// How many slots at most come before one more of this user: its own turns, times those who take turns with it.
    pub(super) fn turns(&self, name: &Arc<str>, user: User) -> usize {
        let team = self.by_team.get(name);
        let own = team.and_then(|team| team.by_user.get(&user)).map_or(0, VecDeque::len);
        let users = team.map_or(0, |team| team.users.len() - usize::from(own > 0));
        let teams = self.by_team.len() - usize::from(team.is_some());
        let rounds = (own + 1).saturating_mul(users + 1);
        rounds.saturating_mul(teams + 1).saturating_sub(1).min(self.len)
    }
}
