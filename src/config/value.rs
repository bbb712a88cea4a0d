//! Values as people write them: `"30s"`, `"32 MiB"`, `"6/minute"`. Each kind says what it expects, reads itself
//! from TOML or from an environment variable, and shows itself in a form that it would read again. All arithmetic
//! is checked: what does not fit is not a value.

mod quantity;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use toml::de::DeValue;

pub(crate) use self::quantity::Size;

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

/// A number of digits alone: no sign, which `parse` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
