//! `[access]` and `[[teams]]`: who may call, and with which keys.

use std::borrow::Cow;
use std::time::Duration;

use super::format::{Digest, PREFIX};
use crate::admission::settings::{Limits, Rate, Rates};
use crate::bill::settings::TeamBill;
use crate::clock::Time;
use crate::config::{Choice, Raw, Section, Value, WAIT};

/// `[access]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// `mode`: who may call.
    pub mode: Mode,
    /// `allow_public`: mode `open` on an address that is not loopback refuses to start without it.
    pub allow_public: bool,
    /// `failed_keys`: wrong keys of one address; past it 429. A right key always passes.
    pub failed_keys: Option<Rate>,
    /// `token_lifetime`: the longest life of a client token.
    pub token_lifetime: Duration,
}

impl Access {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            mode: section.value("mode", &base.mode),
            allow_public: section.value("allow_public", &base.allow_public),
            failed_keys: section.value("failed_keys", &base.failed_keys),
            token_lifetime: section.within("token_lifetime", &base.token_lifetime, WAIT),
        }
    }
}

/// `access.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everyone is the team `open`; what a client sends as Authorization is dropped.
    Open,
    /// Only who has a key of one of the `[[teams]]`, or a token made with one.
    Keys,
}

impl Choice for Mode {
    const CHOICES: &'static [(&'static str, Self)] = &[("open", Self::Open), ("keys", Self::Keys)];
}

impl Default for Access {
    fn default() -> Self {
        Self {
            mode: Mode::Open,
            allow_public: false,
            failed_keys: Some(Rate { count: 20, per: Duration::from_secs(60) }),
            token_lifetime: Duration::from_secs(3600),
        }
    }
}

/// One of `[[teams]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Team {
    /// `name`: in logs, metrics and records.
    pub name: String,
    /// `models`: what it may ask for; empty: everything.
    pub models: Vec<String>,
    /// `keys`: several, so that one can be replaced while the other is in use.
    pub keys: Vec<Key>,
    /// `limits.user` and `limits.team`, where the team's differ from everybody's.
    pub limits: TeamLimits,
    /// `budgets`, and `limits.*.running`, where the team's differ from everybody's.
    pub bill: TeamBill,
}

impl Team {
    /// Reads one team; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            name: section.value("name", &base.name),
            models: section.value("models", &base.models),
            keys: section.each("keys", &base.keys, &Key::default(), Key::read),
            limits: TeamLimits::read(&mut section.section("limits"), &base.limits),
            bill: TeamBill::read(section, &base.bill),
        }
    }
}

/// One of a team's `keys`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Key {
    /// `id`: how logs name it.
    pub id: String,
    /// `sha256`: of the whole key as it is presented; the key itself is stored nowhere.
    pub sha256: Digest,
    /// `expires`: from then on it is refused.
    pub expires: Option<Time>,
    /// `disabled`: it is refused.
    pub disabled: bool,
    /// `models`: fewer than the team's; empty: the team's.
    pub models: Vec<String>,
    /// `routes`: what it may be used for; empty: everything.
    pub routes: Vec<Gate>,
    /// `origins`: the web pages that may use it; empty: all that may call.
    pub origins: Vec<String>,
}

impl Key {
    fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            id: section.value("id", &base.id),
            sha256: section.value("sha256", &base.sha256),
            expires: section.value("expires", &base.expires),
            disabled: section.value("disabled", &base.disabled),
            models: section.value("models", &base.models),
            routes: section.value("routes", &base.routes),
            origins: section.value("origins", &base.origins),
        }
    }
}

/// Whether a team, or a key, can be called so: it stands in logs, metrics and records. A key in place of its id is not a
/// name.
pub fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    (1..=64).contains(&name.len()) && letters && !name.starts_with(PREFIX)
}

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Submitting prompts.
    Generations,
    /// Submitting edits.
    Edits,
    /// Polling jobs.
    Poll,
    /// Making tokens for browsers.
    ClientTokens,
}

impl Choice for Gate {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("generations", Self::Generations),
        ("edits", Self::Edits),
        ("poll", Self::Poll),
        ("client_tokens", Self::ClientTokens),
    ];
}

impl Gate {
    /// Its name.
    pub fn name(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, gate)| *gate == self).map_or("", |(name, _)| name)
    }

    /// The gate of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::CHOICES.iter().find(|(known, _)| *known == name).map(|(_, gate)| *gate)
    }
}

impl Value for Vec<Gate> {
    fn expected() -> Cow<'static, str> {
        "a list of \"generations\", \"edits\", \"poll\" and \"client_tokens\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        raw.list()
    }

    fn show(&self) -> String {
        format!("{:?}", self.iter().map(|gate| gate.name()).collect::<Vec<_>>())
    }
}

/// A team's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeamLimits {
    user: OwnRates,
    team: OwnRates,
}

impl TeamLimits {
    fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            user: OwnRates::read(section.section("user"), base.user),
            team: OwnRates::read(section.section("team"), base.team),
        }
    }

    /// The limits of this team, where `limits` are everybody's; `None` if it has none of its own.
    pub fn over(&self, limits: &Limits) -> Option<Limits> {
        (*self != Self::default()).then(|| Limits {
            user: self.user.over(limits.user),
            team: self.team.over(limits.team),
            ..limits.clone()
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OwnRates {
    requests: OwnRate,
    generations: OwnRate,
}

impl OwnRates {
    fn read(mut section: Section<'_, '_>, base: Self) -> Self {
        Self {
            requests: section.value("requests", &base.requests),
            generations: section.value("generations", &base.generations),
        }
    }

    fn over(self, rates: Rates) -> Rates {
        Rates {
            requests: self.requests.0.unwrap_or(rates.requests),
            generations: self.generations.0.unwrap_or(rates.generations),
        }
    }
}

/// A rate of a team's own; `None` (written `"inherit"`, or absent) is everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OwnRate(Option<Option<Rate>>);

impl Value for OwnRate {
    fn expected() -> Cow<'static, str> {
        format!("{}, or \"inherit\"", Option::<Rate>::expected()).into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw.text()?.as_ref() {
            "inherit" => Some(Self(None)),
            _ => Option::<Rate>::read(raw).map(|rate| Self(Some(rate))),
        }
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "inherit".to_owned(), Value::show)
    }
}
