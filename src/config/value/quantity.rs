//! Values with a unit: moments, durations, sizes, rates.

use std::borrow::Cow;
use std::time::Duration;

use toml::de::DeValue;
use toml::value::{Datetime, Offset};

use super::{Raw, Value, digits};
use crate::admission::settings::Rate;
use crate::clock::{Time, calendar};

/// A moment, as TOML and RFC 3339 write it; a day alone is its beginning in UTC.
impl Value for Option<Time> {
    fn expected() -> Cow<'static, str> {
        "a day or a moment such as 2027-01-31 or 2027-01-31T12:00:00Z".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let written = match raw {
            Raw::Toml(DeValue::Datetime(moment)) => *moment,
            Raw::Toml(_) | Raw::Text(_) => match raw.text()?.as_ref() {
                "" => return Some(None),
                text => text.parse().ok()?,
            },
        };
        moment(written).map(Some)
    }

    fn show(&self) -> String {
        self.map(calendar::rfc3339).unwrap_or_default()
    }
}

/// The milliseconds of a date, or of a date and a time with an offset.
fn moment(written: Datetime) -> Option<Time> {
    let date = written.date?;
    let day = calendar::day_begins(date.year, date.month, date.day)?;
    let millis = match (written.time, written.offset) {
        (None, None) => 0,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i64::from(minutes),
            };
            let seconds = i64::from(time.second.unwrap_or_default());
            let seconds = i64::from(time.hour) * 3_600 + (i64::from(time.minute) - minutes) * 60 + seconds;
            seconds * 1_000 + i64::from(time.nanosecond.unwrap_or_default() / 1_000_000)
        }
        // A time without an offset would mean another moment on another machine.
        (Some(_), None) | (None, Some(_)) => return None,
    };
    Some(Time::from_millis(u64::try_from(day * 1_000 + millis).ok()?))
}

impl Value for Duration {
    fn expected() -> Cow<'static, str> {
        "a duration such as \"500ms\", \"30s\", \"10m\", \"23h\" or \"7d\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let text = raw.text()?;
        let (count, unit) = counted(&text)?;
        let (_, millis) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
        Some(Duration::from_millis(count.checked_mul(*millis)?))
    }

    fn show(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return "0s".to_owned();
        }
        let whole = DURATIONS.iter().rev().find(|(_, unit)| millis.is_multiple_of(*unit));
        whole.map_or_else(String::new, |(name, unit)| format!("{}{name}", millis / unit))
    }
}

/// A wait that may be switched off; zero is no wait.
impl Value for Option<Duration> {
    fn expected() -> Cow<'static, str> {
        "a duration such as \"60s\" or \"10m\", or \"off\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        if raw.text()? == "off" {
            return Some(None);
        }
        Duration::read(raw).filter(|wait| !wait.is_zero()).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "off".to_owned(), Value::show)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl Value for Size {
    fn expected() -> Cow<'static, str> {
        "a size such as \"4096\", \"64 KiB\", \"32 MiB\" or \"1 GiB\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        if let Some(bytes) = raw.number() {
            return Some(Self(bytes));
        }
        let text = raw.text()?;
        let (count, unit) = counted(&text)?;
        let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
        count.checked_mul(*bytes).map(Self)
    }

    fn show(&self) -> String {
        let coarser = |(_, unit): &&(&str, u64)| *unit > 1 && self.0 >= *unit && self.0.is_multiple_of(*unit);
        match SIZES.iter().rev().find(coarser) {
            None => self.0.to_string(),
            Some((name, unit)) => format!("{} {name}", self.0 / unit),
        }
    }
}

impl Value for Option<Rate> {
    fn expected() -> Cow<'static, str> {
        "a rate such as \"6/minute\" (1 to 1000000 a /second, /minute, /hour or /day), or \"off\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let text = raw.text()?;
        if text == "off" {
            return Some(None);
        }
        let (count, period) = text.split_once('/')?;
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == period.trim())?;
        let count = u32::try_from(digits(count.trim())?).ok().filter(|count| (1..=MAX_RATE).contains(count))?;
        Some(Some(Rate { count, per: Duration::from_secs(*seconds) }))
    }

    fn show(&self) -> String {
        let Some(rate) = self else { return "off".to_owned() };
        let period = PERIODS.iter().find(|(_, seconds)| rate.per.as_secs() == *seconds);
        format!("{}/{}", rate.count, period.map_or("", |(name, _)| name))
    }
}

/// A number and the word behind it: `32 MiB`.
fn counted(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at_checked(end)?;
    Some((digits(count)?, unit.trim_start()))
}

/// Units of time in milliseconds, the smallest first.
const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

/// Units of size in bytes, the smallest first.
const SIZES: [(&str, u64); 5] = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Periods of rates in seconds.
pub(super) const PERIODS: [(&str, u64); 4] = [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)];

/// A microsecond between two: finer rates are no limit, and coarser clocks would not tell them apart.
pub(super) const MAX_RATE: u32 = 1_000_000;
