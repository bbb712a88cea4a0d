//! What a submission finds in the book: by its idempotency key, else by its fingerprint, else by its body alone.

use super::{Ask, Book, Bounds, Found};
use crate::clock::Time;
use crate::jobs::entry::{Asker, Entry, Look, RETRY_AFTER_DOUBT, State, Windows};
use crate::jobs::keys::{self, NewKey};
use crate::jobs::records::Life;
use crate::request::fingerprint::Fingerprint;
use crate::request::route::RequestId;

impl Book {
    /// What a submission finds: under the fingerprints' key in use, else under the one before it (M9). Refusals are
    /// remembered (M14), an idempotency key that joins or hits is attached (M16), an undelivered attempt is adopted (M15).
    pub fn find(&mut self, ask: &Ask, now: Time, bounds: &Bounds) -> Found {
        let is_free = |found: &Found| matches!(found, Found::Look(_, Look::Free));
        let found = self.find_as(ask, now, bounds);
        let former = ask.former.as_deref().filter(|_| is_free(&found));
        former.map(|former| self.find_as(former, now, bounds)).filter(|found| !is_free(found)).unwrap_or(found)
    }

    fn find_as(&mut self, ask: &Ask, now: Time, bounds: &Bounds) -> Found {
        if let Some(found) = self.find_by_key(ask, now, bounds) {
            return found;
        }
        let twin = self.look_at_twins(ask, now, &bounds.windows);
        // A refusal adopts nothing: whoever is told the job, or waits for it, does.
        if let Some((fingerprint, Look::Hit(..) | Look::Join(_))) = twin {
            self.entries.change(fingerprint, &bounds.windows, |entry| entry.rest.change().undelivered = false);
            self.mark(fingerprint);
        }
        let (fingerprint, look) =
            twin.unwrap_or_else(|| (ask.fingerprint, self.look(ask.fingerprint, ask, now, &bounds.windows)));
        if let Some(digest) = ask.key {
            let attach = match &look {
                Look::Join(attempt) => Some((*attempt, keys::Fate::InFlight)),
                Look::Hit(created, _) => {
                    let attempt = self.entry(&fingerprint).map_or(ask.attempt, |entry| entry.attempt);
                    Some((attempt, keys::Fate::Created(created.clone())))
                }
                Look::Held(_) | Look::Free => None,
            };
            if let Some((attempt, fate)) = attach {
                let new = NewKey { body: ask.body, fingerprint, attempt, fate };
                self.keys.attach(digest, new, now, bounds.max_entries);
            }
        }
        Found::Look(fingerprint, look)
    }

    fn look(&mut self, fingerprint: Fingerprint, ask: &Ask, now: Time, windows: &Windows) -> Look {
        self.entries.change(fingerprint, windows, |entry| entry.look(ask.asker, now, windows)).unwrap_or(Look::Free)
    }

    /// A key already seen wins over everything else that is asked for.
    fn find_by_key(&mut self, ask: &Ask, now: Time, bounds: &Bounds) -> Option<Found> {
        let digest = ask.key?;
        let record = self.keys.get(&digest, now)?.clone();
        if record.body != ask.body {
            return Some(Found::KeyReused);
        }
        let look = match record.fate {
            keys::Fate::InFlight => Look::Join(record.attempt),
            keys::Fate::Unknown => {
                let asker = Asker { no_cache: false, ..ask.asker };
                let entry = self.entries.change(record.fingerprint, &bounds.windows, |entry| {
                    // What was accepted for somebody else meanwhile is everyone's (M14).
                    let counts = entry.attempt == record.attempt || entry.created().is_some();
                    counts.then(|| entry.look(asker, now, &bounds.windows))
                });
                match entry.flatten() {
                    // An older job is none that this key asked for.
                    Some(Look::Hit(created, until)) if created.at >= record.since => Look::Hit(created, until),
                    Some(Look::Held(wait)) => Look::Held(wait),
                    _ => Look::Held(RETRY_AFTER_DOUBT),
                }
            }
            keys::Fate::Created(created) => {
                let until = self.stands_until(&record.fingerprint, &created.job, now, &bounds.windows);
                // A job that was replaced by somebody's wish for another is still this key's job, until it fails.
                let lives = |life| matches!(life, Life::Running | Life::Done);
                let good =
                    || self.records.get(&created.job).is_some_and(|record| lives(record.life) && !record.forgotten);
                let replaced = || good().then(|| created.at + bounds.windows.delivery).filter(|until| now < *until);
                match until.or_else(replaced) {
                    Some(until) => Look::Hit(created, until),
                    None => {
                        self.keys.forget(&digest);
                        return None;
                    }
                }
            }
        };
        Some(Found::Look(record.fingerprint, look))
    }

    /// Until when an entry gives a job out; none: it does not.
    pub fn stands_until(
        &self,
        fingerprint: &Fingerprint,
        job: &RequestId,
        now: Time,
        windows: &Windows,
    ) -> Option<Time> {
        let own = |entry: &&Entry| entry.created().is_some_and(|created| created.job == *job);
        self.entry(fingerprint)?.layers().find(own)?.due(windows).filter(|until| now < *until)
    }

    /// For a keyless submission where only keys share: what the equal ones say that are held, or whose answer nobody took
    /// (M15). A wish is answered by what the same wish has begun (M13), and a job that can be had stands before a hold.
    fn look_at_twins(&mut self, ask: &Ask, now: Time, windows: &Windows) -> Option<(Fingerprint, Look)> {
        let lives = |entry: &Entry| entry.due(windows).is_none_or(|due| now < due);
        let is_held = |entry: &Entry| matches!(entry.state, State::Unknown(_));
        let mut twins = self.entries.of_base(&ask.base?).to_vec();
        twins.retain(|twin| self.entry(twin).is_some_and(lives));
        twins.sort_by_key(|twin| self.entry(twin).is_some_and(is_held));
        twins.into_iter().map(|twin| (twin, self.look(twin, ask, now, windows))).find(|(_, look)| *look != Look::Free)
    }
}
