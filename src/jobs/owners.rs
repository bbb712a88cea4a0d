//! Who may see a job (`MONEY.md` M31): the team that made it, and whoever met it since. Owners only come, they never go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A team, or one of its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The team.
    pub team: Arc<str>,
    /// The user, as a keyed digest, where `polls.ownership` tells users apart; without one, all of the team.
    pub user: Option<[u8; 16]>,
}

/// The owners of a job beside the team it was made for.
#[derive(Debug, Default)]
pub struct Owners(Mutex<Vec<Owner>>);

/// What became of the wish to own a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// It was so before.
    Already,
    /// From now on.
    News,
    /// Too many own it.
    Full,
    /// There is no record of the job.
    NoRecord,
}

impl Owners {
    /// Owners that were written down.
    pub fn of(owners: Vec<Owner>) -> Self {
        Self(Mutex::new(owners))
    }

    /// All of them.
    pub fn all(&self) -> Vec<Owner> {
        self.lock().clone()
    }

    /// Whether `owner` is among them; a team is if any of its users is.
    pub(super) fn include(&self, owner: &Owner) -> bool {
        self.lock().iter().any(|other| match owner.user {
            None => other.team == owner.team,
            Some(_) => other == owner,
        })
    }

    /// Adds one, unless there are `most` of them.
    pub(super) fn add(&self, owner: Owner, most: usize) -> Owned {
        let mut owners = self.lock();
        if owners.len() >= most {
            return Owned::Full;
        }
        owners.push(owner);
        Owned::News
    }

    /// A panic cannot leave the list half changed.
    fn lock(&self) -> MutexGuard<'_, Vec<Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
