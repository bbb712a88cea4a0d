//! Which running jobs we look at ourselves, and when: those that nobody polled for a while, each less and less often
//! (`MONEY.md` M23). Found by an index, so that no look costs a walk through all jobs. Pure: time is an argument.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::clock::Time;
use crate::jobs::entry::AttemptId;
use crate::jobs::records::Job;
use crate::request::route::RequestId;

/// The running jobs by the moment from which their quiet counts: so another `quiet` counts at once.
#[derive(Debug, Default)]
pub struct Watchlist {
    quiet_since: BTreeSet<(Time, RequestId)>,
    places: HashMap<RequestId, Place>,
}

/// Where a job stands in the list.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: Time,
    /// How often we have looked at it.
    looks: u32,
}

impl Watchlist {
    /// A job runs, made at `created`.
    pub fn add(&mut self, id: &RequestId, created: Time) {
        self.remove(id);
        self.place(id, Place { at: created, looks: 0 });
    }

    /// A job has ended, or is forgotten.
    pub fn remove(&mut self, id: &RequestId) {
        if let Some(Place { at, .. }) = self.places.remove(id) {
            self.quiet_since.remove(&(at, id.clone()));
        }
    }

    /// At most `most` jobs that nobody has polled for `quiet` and whose next look is due, the longest waiting first. Each
    /// has its following look put off. A client's poll is only seen here, so that it needs no lock: a job that is due and
    /// was polled meanwhile moves back.
    pub fn next<'a>(
        &mut self,
        now: Time,
        quiet: Duration,
        most: usize,
        job: impl Fn(&RequestId) -> Option<&'a Arc<Job>>,
    ) -> Vec<Arc<Job>> {
        let mut found = Vec::new();
        for _ in 0..MOST_EXAMINED {
            if found.len() >= most {
                break;
            }
            let Some((_, id)) = self.quiet_since.first().filter(|(at, _)| *at + quiet <= now).cloned() else { break };
            let Some(job) = job(&id) else {
                self.remove(&id);
                continue;
            };
            let Some(looks) = self.places.get(&id).map(|place| place.looks) else { break };
            self.remove(&id);
            let heard = job.heard();
            if now < heard + quiet {
                self.place(&id, Place { at: heard, looks });
                continue;
            }
            let wait = pause(quiet, looks, job.attempt).saturating_sub(quiet);
            self.place(&id, Place { at: now + wait, looks: looks.saturating_add(1) });
            found.push(job.clone());
        }
        found
    }

    /// How many jobs are watched.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn place(&mut self, id: &RequestId, place: Place) {
        self.quiet_since.insert((place.at, id.clone()));
        self.places.insert(id.clone(), place);
    }
}

impl<'a> FromIterator<(&'a RequestId, Time)> for Watchlist {
    /// Jobs that run, each with when it was made.
    fn from_iter<I: IntoIterator<Item = (&'a RequestId, Time)>>(jobs: I) -> Self {
        let place = |(id, at): (&RequestId, Time)| (id.clone(), Place { at, looks: 0 });
        let places: HashMap<_, _> = jobs.into_iter().map(place).collect();
        Self { quiet_since: places.iter().map(|(id, place)| (place.at, id.clone())).collect(), places }
    }
}

/// From one look at a job to the next: twice as long each time, up to a bound, and a little longer by chance, so that jobs
/// made together are not looked at together for ever. The end of the attempt's id is chance enough.
pub fn pause(quiet: Duration, looks: u32, attempt: AttemptId) -> Duration {
    let doubled = quiet.saturating_mul(1_u32.checked_shl(looks.min(MOST_DOUBLINGS)).unwrap_or(u32::MAX));
    let pause = doubled.min(quiet.max(LONGEST_PAUSE));
    let [.., chance] = attempt.into_bytes();
    pause + pause / 8 * u32::from(chance) / u32::from(u8::MAX)
}

/// The longest time between two looks at one job.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Doubling further would be past any bound.
const MOST_DOUBLINGS: u32 = 30;
/// How many jobs one call moves or gives, so that the lock around it is held briefly.
const MOST_EXAMINED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::fingerprint::Fingerprint;

    const QUIET: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn job(name: &str, created: u64, chance: u8) -> Arc<Job> {
        let (id, attempt) = (RequestId::parse(name).unwrap(), AttemptId::from_bytes([chance; 16]));
        Arc::new(Job::new(id, attempt, Fingerprint::from_bytes([1; 32]), "a".into(), "key", at(created)))
    }

    /// When, in whole seconds, a lone job is looked at within the first hour.
    fn looks(job: &Arc<Job>, mut each: impl FnMut(u64)) -> Vec<u64> {
        let mut list = Watchlist::default();
        list.add(&job.id, job.created);
        let mut seconds = Vec::new();
        for second in 0..3600 {
            each(second);
            if !list.next(at(second), QUIET, 9, |_| Some(job)).is_empty() {
                seconds.push(second);
            }
        }
        seconds
    }

    #[test]
    fn m23_a_job_that_nobody_polls_is_looked_at_less_and_less_often() {
        assert_eq!(looks(&job("a", 0, 0), |_| {}), [60, 120, 240, 480, 960, 1560, 2160, 2760, 3360]);
        // The unluckiest waits an eighth longer.
        let late = looks(&job("a", 0, 255), |_| {});
        assert_eq!(late, [60, 128, 263, 533, 1073, 1748, 2423, 3098]);
    }

    #[test]
    fn m23_a_clients_poll_puts_the_next_look_off() {
        let job = job("a", 0, 0);
        let polled = |second| {
            if second % 30 == 0 && second <= 900 {
                job.note_polled(at(second))
            }
        };
        assert_eq!(looks(&job, polled)[..3], [960, 1020, 1140]);
    }

    #[test]
    fn m23_those_who_wait_longest_come_first_and_no_more_than_asked_for() {
        let jobs = [job("a", 3, 0), job("b", 1, 0), job("c", 2, 0)];
        let mut list = Watchlist::default();
        jobs.iter().for_each(|job| list.add(&job.id, job.created));
        let find = |id: &RequestId| jobs.iter().find(|job| job.id == *id);
        let mut names = |second, most| -> Vec<String> {
            list.next(at(second), QUIET, most, find).iter().map(|job| job.id.to_string()).collect()
        };
        assert!(names(60, 9).is_empty());
        assert_eq!(names(70, 2), ["b", "c"]);
        assert_eq!(names(70, 2), ["a"]);
        assert!(names(71, 9).is_empty());
        jobs.iter().for_each(|job| list.remove(&job.id));
        assert!(list.is_empty() && list.quiet_since.is_empty());
    }

    #[test]
    fn pauses_neither_overflow_nor_shrink_below_a_long_quiet() {
        let chance = AttemptId::from_bytes([255; 16]);
        assert_eq!(pause(Duration::from_secs(3600), 9, AttemptId::from_bytes([0; 16])), Duration::from_secs(3600));
        assert_eq!(pause(QUIET, u32::MAX, chance), Duration::from_secs(675));
    }
}
