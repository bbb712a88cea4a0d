//! Values as people write them: `"30s"`, `"32 MiB"`, `"6/minute"`. Each kind says what it expects, reads itself
//! from TOML or from an environment variable, and shows itself in a form that it would read again. All arithmetic
//! is checked: what does not fit is not a value.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;
use toml::value::{Datetime, Offset};

use crate::admission::settings::Rate;
use crate::clock::{Time, calendar};

/// What stands where a value is expected.
#[derive(Clone, Copy)]
pub(crate) enum Raw<'a> {
    /// In the file: typed by TOML.
    Toml(&'a DeValue<'a>),
    /// In the environment: bare text, typed by the key.
    Text(&'a str),
}

impl Raw<'_> {
    /// A string. In the environment it may stand in quotes, as it does in the file.
    pub(crate) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Toml(value) => value.as_str().map(Cow::Borrowed),
            Self::Text(text) if text.starts_with(['"', '\'']) => {
                let parsed = DeValue::parse(text).ok()?;
                parsed.get_ref().as_str().map(|inner| Cow::Owned(inner.to_owned()))
            }
            Self::Text(text) => Some(Cow::Borrowed(text)),
        }
    }

    /// A path; the operating system cannot take a zero byte.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.text().filter(|text| !text.contains('\0')).map(|text| PathBuf::from(text.as_ref()))
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Toml(value) => {
                let integer = value.as_integer()?;
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Self::Text(text) => digits(text.trim()),
        }
    }

    fn truth(&self) -> Option<bool> {
        match self {
            Self::Toml(value) => value.as_bool(),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    /// A list of values.
    pub(crate) fn list<T: Value>(&self) -> Option<Vec<T>> {
        match self {
            Self::Toml(value) => value.as_array()?.iter().map(|item| T::read(&Raw::Toml(item.get_ref()))).collect(),
            Self::Text(text) => {
                let parsed = DeValue::parse(text).ok()?;
                Raw::Toml(parsed.get_ref()).list()
            }
        }
    }
}

/// A kind of value.
pub(crate) trait Value: Sized + Clone {
    /// What may stand here, as the end of "expected …".
    fn expected() -> Cow<'static, str>;

    /// The value, if it is one.
    fn read(raw: &Raw<'_>) -> Option<Self>;

    /// The value as it could be written.
    fn show(&self) -> String;

    /// Why `raw` is refused, never repeating it.
    fn refusal(_raw: &Raw<'_>) -> String {
        format!("expected {}", Self::expected())
    }
}

/// A word out of a closed list.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// The words and what they mean.
    const CHOICES: &'static [(&'static str, Self)];

    /// Words that the documentation names and this version does not have.
    const LATER: &'static [&'static str] = &[];
}

impl<T: Choice> Value for T {
    fn expected() -> Cow<'static, str> {
        listed(T::CHOICES.iter().map(|(word, _)| *word)).into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let text = raw.text()?;
        T::CHOICES.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice)
    }

    fn show(&self) -> String {
        T::CHOICES.iter().find(|(_, choice)| choice == self).map_or("", |(word, _)| word).to_owned()
    }

    fn refusal(raw: &Raw<'_>) -> String {
        let text = raw.text().unwrap_or_default();
        match T::LATER.iter().find(|later| **later == text) {
            Some(later) => format!("this version does not have \"{later}\" yet: it has {}", Self::expected()),
            None => format!("expected {}", Self::expected()),
        }
    }
}

/// `"a", "b" or "c"`.
fn listed(words: impl Iterator<Item = &'static str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

macro_rules! whole_numbers {
    ($($kind:ty),+) => {$(
        impl Value for $kind {
            fn expected() -> Cow<'static, str> {
                "a whole number".into()
            }

            fn read(raw: &Raw<'_>) -> Option<Self> {
                raw.number()?.try_into().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

whole_numbers!(u16, u32, u64, usize);

impl Value for bool {
    fn expected() -> Cow<'static, str> {
        "true or false".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.truth()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn expected() -> Cow<'static, str> {
        "a string".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.text().map(Cow::into_owned)
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for SocketAddr {
    fn expected() -> Cow<'static, str> {
        "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.text()?.trim().parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A path, where an empty string means none.
impl Value for PathBuf {
    fn expected() -> Cow<'static, str> {
        "a path".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.path().filter(|path| !path.as_os_str().is_empty())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Option<PathBuf> {
    fn expected() -> Cow<'static, str> {
        "the path of a file, or \"\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let path = raw.path()?;
        Some(Some(path).filter(|path| !path.as_os_str().is_empty()))
    }

    fn show(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl Value for Vec<String> {
    fn expected() -> Cow<'static, str> {
        "a list of strings such as [\"one\", \"two\"]".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.list()
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// Networks; an address alone is a network of its own.
impl Value for Vec<IpNet> {
    fn expected() -> Cow<'static, str> {
        "a list of addresses and networks such as [\"10.0.0.0/8\", \"::1\"]".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        let network =
            |text: String| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        raw.list::<String>()?.into_iter().map(|text| network(text).map(|network| network.trunc())).collect()
    }

    fn show(&self) -> String {
        let shown: Vec<String> = self.iter().map(ToString::to_string).collect();
        format!("{shown:?}")
    }
}

impl Value for Vec<u16> {
    fn expected() -> Cow<'static, str> {
        "a list of whole numbers such as [502, 504]".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.list()
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

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

/// A number of digits alone: no sign, which `parse` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Units of time in milliseconds, the smallest first.
const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

/// Units of size in bytes, the smallest first.
const SIZES: [(&str, u64); 5] = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Periods of rates in seconds.
const PERIODS: [(&str, u64); 4] = [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)];

/// A microsecond between two: finer rates are no limit, and coarser clocks would not tell them apart.
const MAX_RATE: u32 = 1_000_000;

#[cfg(test)]
mod tests;
