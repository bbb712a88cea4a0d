//! Which of several versions of one value counts, where only the pages of a damaged file are left (F-43): the one that has
//! come furthest, and in doubt the one that blocks.

use super::{CreatedForm, EntryForm, FateForm, Hex, JobForm, KeyForm, LifeForm, StateForm};
use crate::clock::Time;
use crate::jobs::entry::AttemptId;

/// Above all moments, so that a later state counts more than a later time.
const STEP: u64 = 1 << 48;

impl EntryForm {
    /// An entry that was there and cannot be read: its prompt is held, as if it had been sent when the process died.
    pub fn lost() -> Self {
        Self {
            attempt: Hex([0; 16]),
            team: "".into(),
            state: StateForm::Sending,
            request_id: "".into(),
            wish: None,
            refused: Vec::new(),
            base: None,
            undelivered: false,
            beneath: None,
            lease: None,
        }
    }

    /// The later, the more: a job, then a doubt, then what was on its way.
    pub fn weight(&self) -> u64 {
        match &self.state {
            StateForm::Claimed | StateForm::Sending => 0,
            StateForm::Unknown(until) => STEP + until,
            StateForm::Accepted(CreatedForm { at, .. }) => 2 * STEP + 2 * at,
            // Of one job the end that was seen counts more than that it was made.
            StateForm::Done(CreatedForm { at, .. }, _) | StateForm::Rejected(CreatedForm { at, .. }, _) => {
                2 * STEP + 2 * at + 1
            }
        }
    }

    /// The job that it gives out.
    pub fn job(&self) -> Option<&str> {
        match &self.state {
            StateForm::Claimed | StateForm::Sending | StateForm::Unknown(_) => None,
            StateForm::Accepted(created) | StateForm::Done(created, _) | StateForm::Rejected(created, _) => {
                Some(&created.job)
            }
        }
    }

    /// The attempt that made it.
    pub fn attempt(&self) -> AttemptId {
        AttemptId::from_bytes(self.attempt.0)
    }
}

impl JobForm {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.job
    }

    /// The attempt that made it.
    pub fn attempt(&self) -> AttemptId {
        AttemptId::from_bytes(self.attempt.0)
    }

    /// When it was made.
    pub fn created(&self) -> Time {
        Time::from_millis(self.created)
    }

    /// Whether its end was not seen yet.
    pub fn is_running(&self) -> bool {
        matches!(self.life, LifeForm::Running)
    }

    /// Whether an entry that gives it out may be its last version: an end of a job that had failed took its entry with
    /// it, or turned it into a refusal (M20).
    pub fn may_have(&self, entry: &EntryForm) -> bool {
        let is_refusal = matches!(entry.state, StateForm::Rejected(..));
        match self.life {
            _ if self.forgotten => false,
            LifeForm::Running | LifeForm::Done => true,
            LifeForm::Failed | LifeForm::Moderated => is_refusal,
            LifeForm::Expired => false,
        }
    }

    /// The later, the more.
    pub fn weight(&self) -> u64 {
        u64::from(self.ended.is_some()) + u64::from(self.forgotten)
    }
}

impl KeyForm {
    /// A job, then a doubt, then what was on its way; each in its last form.
    pub fn weight(&self) -> u64 {
        let fate = match &self.fate {
            FateForm::InFlight => 0,
            FateForm::Unknown => 1,
            FateForm::Created(_) => 2,
        };
        fate * STEP + self.since
    }
}
