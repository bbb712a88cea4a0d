//! What lies beneath an entry: what it replaced, on top of each other, until it is certain that a new job exists (`MONEY.md`
//! M12, M13).

use std::iter::successors;

use super::{AttemptId, Entry, State, Windows};
use crate::clock::Time;
use crate::request::route::RequestId;

/// Unknown outcomes that may lie beneath one entry though a longer hold lies above them: a late answer finds them there.
const MAX_HOLDS_BENEATH: usize = 4;

/// Attempts whose leases have lapsed.
#[derive(Clone, Debug, Default)]
pub struct Lapsed {
    /// They had claimed, and will send nothing.
    pub gone: Vec<AttemptId>,
    /// They were sending: their outcome is unknown until then.
    pub doubtful: Vec<(AttemptId, Time)>,
}

impl Entry {
    /// This entry and those beneath it, from the top.
    pub fn layers(&self) -> impl Iterator<Item = &Self> {
        successors(Some(self), |entry| entry.beneath.as_deref())
    }

    /// Takes the first such entry out of the chain beneath this one.
    pub fn remove_beneath(&mut self, is_it: &impl Fn(&Self) -> bool) {
        match self.beneath.take() {
            Some(beneath) if is_it(&beneath) => self.beneath = beneath.beneath,
            Some(mut beneath) => {
                beneath.remove_beneath(is_it);
                self.beneath = Some(beneath);
            }
            None => {}
        }
    }

    /// This entry, or one beneath it, that `attempt` made.
    pub fn of_attempt(&mut self, attempt: AttemptId) -> Option<&mut Entry> {
        if self.attempt == attempt { Some(self) } else { self.beneath.as_deref_mut()?.of_attempt(attempt) }
    }

    /// This entry, or one beneath it, that stands for `job`.
    pub fn of_job(&mut self, job: &RequestId) -> Option<&mut Entry> {
        let own = self.created().is_some_and(|created| created.job == *job);
        if own { Some(self) } else { self.beneath.as_deref_mut()?.of_job(job) }
    }

    /// What of this entry, and of those beneath it, still says something at `now`, on top of each other as they were.
    /// Of many holds those that end before one above them leave, so that wishes without end leave no chain without end.
    pub fn open(self, now: Time, windows: &Windows) -> Option<Box<Self>> {
        let (mut kept, mut holds, mut held_until) = (Vec::new(), 0, now);
        let mut next = Some(Box::new(self));
        while let Some(mut entry) = next {
            next = entry.beneath.take();
            let keeps = match (&entry.state, entry.due(windows)) {
                (State::Claimed, _) => false,
                (State::Unknown(_), Some(due)) => {
                    let keeps = due > held_until || due > now && holds < MAX_HOLDS_BENEATH;
                    held_until = held_until.max(due);
                    holds += usize::from(keeps);
                    keeps
                }
                (_, due) => due.is_none_or(|due| due > now),
            };
            if keeps {
                kept.push(entry);
            }
        }
        kept.into_iter().rev().fold(None, |beneath, mut entry| {
            entry.beneath = beneath;
            Some(entry)
        })
    }

    /// What is left of this entry, and of those beneath it, when leases have lapsed (M4): a claim reads as free, what
    /// was being sent as unknown until the lease's end and the hold. Which attempts that were is told.
    pub fn lapse(mut self, now: Time, windows: &Windows, lapsed: &mut Lapsed) -> Option<Self> {
        self.beneath = self.beneath.take().and_then(|beneath| beneath.lapse(now, windows, lapsed)).map(Box::new);
        match (&self.state, self.rest.lease) {
            (State::Claimed, Some(lease)) if lease <= now => {
                lapsed.gone.push(self.attempt);
                self.beneath.map(|beneath| *beneath)
            }
            (State::Sending, Some(lease)) if lease <= now => {
                let until = lease + windows.hold;
                lapsed.doubtful.push((self.attempt, until));
                self.state = State::Unknown(until);
                Some(self)
            }
            _ => Some(self),
        }
    }
}
