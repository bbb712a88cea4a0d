//! What the clients were told, and its comparison with what the upstream remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use reelgate::simulator::Simulator;

use super::wire::{How, Told};

/// What is known of one prompt.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// How often a replica had ended, one way or another, when it was first submitted.
    born: usize,
    /// How often a client asked for another job than there was.
    wishes: usize,
    /// The ids that clients were told.
    told: BTreeSet<String>,
    /// Whether some client was told that the outcome is unknown, or nothing at all.
    doubted: bool,
    /// What Redis may have forgotten while no living replica knew it.
    forgotten: bool,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub submissions: usize,
    pub hits: usize,
    pub joins: usize,
    pub made: usize,
    pub unknown: usize,
    pub refused: usize,
    pub unavailable: usize,
    pub unanswered: usize,
}

/// The clients' books.
#[derive(Default)]
pub struct Books {
    prompts: Mutex<BTreeMap<String, Prompt>>,
    tally: Mutex<Tally>,
    faults: Mutex<Vec<String>>,
}

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Findings {
    pub prompts: usize,
    pub accepted: usize,
    /// Found again by the same POST.
    pub found: usize,
    /// Held, because a cut or a death hid the upstream's answer.
    pub held: usize,
    /// Held too, and their clients were told the id: it could not be written before the replica died, and stands in
    /// its log (M8).
    pub logged: usize,
    /// Replaced on a client's wish, and still shown by a poll.
    pub replaced: usize,
    /// Forgotten by Redis while no living replica knew them.
    pub forgotten: usize,
    pub duplicates: Vec<String>,
    pub lost: Vec<String>,
    /// Everything else that must not be.
    pub wrong: Vec<String>,
}

impl Books {
    /// A submission is about to be sent.
    pub fn begin(&self, prompt: &str, is_wish: bool, deaths: usize) {
        let mut prompts = self.prompts.lock().unwrap();
        let entry = prompts.entry(prompt.to_owned()).or_insert_with(|| Prompt { born: deaths, ..Prompt::default() });
        entry.wishes += usize::from(is_wish);
    }

    /// What became of it.
    pub fn end(&self, prompt: &str, told: &Told) {
        let mut prompts = self.prompts.lock().unwrap();
        let entry = prompts.get_mut(prompt).unwrap();
        let mut tally = self.tally.lock().unwrap();
        tally.submissions += usize::from(*told != Told::Unreached);
        match told {
            Told::Job { id, how } => {
                entry.told.insert(id.clone());
                match how {
                    How::Hit => tally.hits += 1,
                    How::Joined => tally.joins += 1,
                    How::Made => tally.made += 1,
                }
            }
            Told::Unknown => {
                entry.doubted = true;
                tally.unknown += 1;
            }
            Told::Nothing => {
                entry.doubted = true;
                tally.unanswered += 1;
            }
            Told::Refused(503, _) => tally.unavailable += 1,
            Told::Refused(..) => tally.refused += 1,
            Told::Unreached => {}
        }
    }

    /// Redis has forgotten everything: what was first asked before the last death may be known to nobody.
    pub fn flushed(&self, deaths: usize) {
        for prompt in self.prompts.lock().unwrap().values_mut() {
            prompt.forgotten |= prompt.born < deaths;
        }
    }

    /// Something that must not be.
    pub fn wrong(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap()
    }

    pub fn prompts(&self) -> Vec<String> {
        self.prompts.lock().unwrap().keys().cloned().collect()
    }

    /// Compares. `last` is what the same POST was told when all was over, `polls` whether a poll showed an id.
    pub fn reconcile(
        &self,
        upstream: &Simulator,
        last: &HashMap<String, Told>,
        polls: &HashMap<String, bool>,
        journal: &HashSet<String>,
    ) -> Findings {
        let prompts = self.prompts.lock().unwrap();
        let mut jobs = BTreeMap::<&str, Vec<String>>::new();
        let accepted = upstream.accepted();
        for job in &accepted {
            jobs.entry(&job.prompt).or_default().push(job.request_id.clone());
        }
        let wrong = self.faults.lock().unwrap().clone();
        let mut findings = Findings { prompts: prompts.len(), accepted: accepted.len(), wrong, ..Findings::default() };
        for (prompt, ids) in &jobs {
            match prompts.get(*prompt) {
                Some(known) => findings.compare(prompt, known, ids, last.get(*prompt), polls, journal),
                None => findings.wrong.push(format!("{prompt}: nobody asked for it")),
            }
        }
        for (prompt, known) in prompts.iter() {
            for id in &known.told {
                if !jobs.get(prompt.as_str()).is_some_and(|ids| ids.contains(id)) {
                    findings
                        .wrong
                        .push(format!("{prompt}: clients were told {id}, which the upstream never made for it"));
                }
            }
        }
        findings
    }
}

impl Findings {
    fn compare(
        &mut self,
        prompt: &str,
        known: &Prompt,
        ids: &[String],
        last: Option<&Told>,
        polls: &HashMap<String, bool>,
        journal: &HashSet<String>,
    ) {
        let excess = ids.len().saturating_sub(1 + known.wishes);
        if excess > 0 {
            match known.forgotten {
                // They are counted below.
                true => {}
                false => {
                    self.duplicates.push(format!("{prompt}: {} jobs, {} wishes: {ids:?}", ids.len(), known.wishes))
                }
            }
        }
        let current = match last {
            Some(Told::Job { id, .. }) if ids.contains(id) => Some(id),
            // With a wish there may be an older job beneath the held one, which clients were told of.
            Some(Told::Unknown) if known.doubted && (known.told.is_empty() || known.wishes > 0) => None,
            Some(Told::Unknown) if known.told.iter().all(|id| journal.contains(id)) && !known.told.is_empty() => {
                self.logged += ids.len();
                return;
            }
            _ if known.forgotten => {
                self.forgotten += ids.len();
                return;
            }
            other => {
                self.lost.push(format!("{prompt}: paid as {ids:?}, told {:?}, and now {other:?}", known.told));
                return;
            }
        };
        for id in ids {
            match (Some(id) == current, polls.get(id)) {
                (true, _) => self.found += 1,
                (false, _) if known.forgotten => self.forgotten += 1,
                (false, _) if known.told.contains(id) && known.wishes == 0 => {
                    self.lost.push(format!("{prompt}: clients were told {id}, which no POST finds"));
                }
                (false, Some(false)) if known.told.contains(id) => {
                    self.lost.push(format!("{prompt}: clients were told {id}, which no poll shows"));
                }
                (false, _) if current.is_some() => self.replaced += 1,
                (false, _) => self.held += 1,
            }
        }
    }
}
