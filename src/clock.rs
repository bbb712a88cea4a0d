//! Time as the ledger counts it: milliseconds since the Unix epoch, read once from the wall clock when the
//! process starts and carried on by the boot-time clock, which neither jumps nor stops while a machine sleeps
//! (`MONEY.md` M10). Pure parts take a [`Time`] as an argument; only the edges hold a [`Clock`].

pub mod calendar;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on the ledger's time line, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The moment that many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the end of time, so that no configured duration can overflow.
    fn add(self, span: Duration) -> Time {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(millis))
    }
}

/// What the boot-time clock and the wall clock show at one moment. `Instant` does not count a suspended machine, and either
/// of these may miss what the other shows (`MONEY.md` M3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The boot-time clock.
    pub boot: Duration,
    /// The wall clock, since the Unix epoch.
    pub wall: Duration,
}

impl Reading {
    /// The time that has passed since `earlier` by whichever clock shows more of it.
    pub fn since(self, earlier: Self) -> Duration {
        self.boot.saturating_sub(earlier.boot).max(self.wall.saturating_sub(earlier.wall))
    }
}

/// Where the current [`Time`] comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The wall clock at the start of the process, and the boot-time clock's reading at that moment.
    System { wall_at_start: Duration, boot_at_start: Duration },
    /// A clock that tests move by hand, and how far it is ahead of that.
    Manual(Arc<AtomicU64>, Duration),
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self(Source::System { wall_at_start: wall_time(), boot_at_start: boot_time() })
    }

    /// This clock, unless it shows an earlier time than `earliest`: then it goes on from there, so that what is remembered
    /// does not live longer because a wall clock was set back (`MONEY.md` M10).
    pub fn not_before(self, earliest: Time) -> Self {
        let behind = earliest.since(self.now());
        Self(match self.0 {
            Source::System { wall_at_start, boot_at_start } => {
                Source::System { wall_at_start: wall_at_start.saturating_add(behind), boot_at_start }
            }
            Source::Manual(millis, ahead) => Source::Manual(millis, ahead.saturating_add(behind)),
        })
    }

    /// A clock that shows the milliseconds in `millis`, for tests.
    pub fn manual(millis: Arc<AtomicU64>) -> Self {
        Self(Source::Manual(millis, Duration::ZERO))
    }

    /// What both clocks show now.
    pub fn reading(&self) -> Reading {
        match &self.0 {
            Source::System { .. } => Reading { boot: boot_time(), wall: wall_time() },
            Source::Manual(millis, _) => {
                let both = Duration::from_millis(millis.load(Ordering::SeqCst));
                Reading { boot: both, wall: both }
            }
        }
    }

    /// The current time.
    pub fn now(&self) -> Time {
        match &self.0 {
            // Every request asks, so it is counted without 128 bits.
            Source::System { wall_at_start, boot_at_start } => {
                let since_epoch = wall_at_start.saturating_add(boot_time().saturating_sub(*boot_at_start));
                Time(since_epoch.as_secs().saturating_mul(1_000).saturating_add(since_epoch.subsec_millis().into()))
            }
            Source::Manual(millis, ahead) => Time(millis.load(Ordering::SeqCst)) + *ahead,
        }
    }
}

/// The time since the Unix epoch, by the wall clock.
fn wall_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time since the machine booted, sleep included.
fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_starts_at_the_wall_clock_and_does_not_go_back() {
        let clock = Clock::system();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let first = clock.now();
        assert!(first.as_millis().abs_diff(wall) < 1_000, "{first:?} is far from {wall}");
        assert!(clock.now() >= first);
    }

    #[test]
    fn m3_a_difference_is_what_the_clock_that_saw_more_of_it_shows() {
        let at = |boot, wall| Reading { boot: Duration::from_secs(boot), wall: Duration::from_secs(wall) };
        let start = at(100, 5_000);
        for (later, seconds) in [(at(101, 5_001), 1), (at(101, 5_030), 30), (at(140, 5_001), 40), (at(102, 4_000), 2)] {
            assert_eq!(later.since(start), Duration::from_secs(seconds), "{later:?}");
        }
    }

    #[test]
    fn m10_a_clock_that_was_set_back_goes_on_from_where_it_was() {
        let day = Duration::from_secs(24 * 3600);
        let clock = Clock::system();
        let (before, tomorrow) = (clock.now(), clock.now() + day);
        let ahead = clock.clone().not_before(tomorrow);
        assert!(ahead.now() >= tomorrow && ahead.now().since(tomorrow) < day / 2);
        assert!(clock.not_before(before).now().since(before) < day / 2, "a clock that is right is left alone");
    }

    #[test]
    fn sums_saturate_and_differences_are_never_negative() {
        assert_eq!(Time(u64::MAX) + Duration::from_secs(1), Time(u64::MAX));
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
    }
}
