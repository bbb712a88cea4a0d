//! `[prices]` and `[budgets]`: what a second of video costs, and how much may be spent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;

use crate::bill::money::Amount;
use crate::bill::terms::Bound;
use crate::config::{Choice, Raw, Section, Value};

/// `[prices]`: a row for each model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// `[prices."model"]`.
    pub rows: BTreeMap<String, Row>,
    /// `ticks_factor`: settle by the upstream's own ticks, times this; absent: by this table (M29).
    pub ticks_factor: Option<Amount>,
}

/// The prices of one model, in dollars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// A second of video, by resolution.
    pub second: BTreeMap<String, Amount>,
    /// `image`: an input image.
    pub image: Amount,
}

impl Prices {
    /// Reads the section; what is not written stays as in `base`. A new model is a new row.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        let ticks_factor = section.value("ticks_factor", &base.ticks_factor);
        let models: BTreeSet<String> = base.rows.keys().cloned().chain(section.tables()).collect();
        let rows = models.into_iter().map(|model| {
            let row = base.rows.get(&model).cloned().unwrap_or_default();
            let row = Row::read(section.section(&model), &row);
            (model, row)
        });
        Self { rows: rows.collect(), ticks_factor }
    }
}

impl Row {
    fn read(mut section: Section<'_, '_>, base: &Self) -> Self {
        let written = section.keys();
        let named = written.filter(|name| is_resolution(name));
        let resolutions: BTreeSet<String> = base.second.keys().cloned().chain(named).collect();
        let mut price = |name: &str, base: Amount| section.within(name, &base, Amount::ZERO..=MOST_A_SECOND);
        let image = price("image", base.image);
        let second = resolutions.into_iter().map(|resolution| {
            let amount = price(&resolution, base.second.get(&resolution).copied().unwrap_or_default());
            (resolution, amount)
        });
        Self { second: second.collect(), image }
    }
}

/// `480p`, `1080p`.
fn is_resolution(name: &str) -> bool {
    name.strip_suffix('p').is_some_and(|lines| !lines.is_empty() && lines.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Default for Prices {
    /// `UPSTREAM.md` §6.1.
    fn default() -> Self {
        let row = |seconds: &[(&str, u64)], image: u64| Row {
            second: seconds.iter().map(|(name, cents)| ((*name).to_owned(), hundredths(*cents * 100))).collect(),
            image: hundredths(image),
        };
        let rows = [
            ("grok-imagine-video", row(&[("480p", 5), ("720p", 7)], 20)),
            ("grok-imagine-video-1.5", row(&[("480p", 8), ("720p", 14), ("1080p", 25)], 100)),
        ];
        Self { rows: rows.map(|(model, row)| (model.to_owned(), row)).into(), ticks_factor: None }
    }
}

/// So many hundredths of a cent.
const fn hundredths(count: u64) -> Amount {
    Amount::from_ticks(count * 1_000_000)
}

/// A price above this is a mistake: dollars a second.
const MOST_A_SECOND: Amount = hundredths(1000 * 10_000);

/// `[budgets]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Budgets {
    /// `[budgets.user]`: one `user` inside its team.
    pub user: Budget,
    /// `[budgets.team]`.
    pub team: Budget,
    /// `[budgets.total]`: everybody together.
    pub total: Budget,
    /// `failed`: what becomes of the money of a job that failed or expired.
    pub failed: Ending,
    /// `moderated`: what becomes of the money of a job that was refused, by moderation or as M20 has it; the upstream
    /// bills it.
    pub moderated: Ending,
    /// `users`: how users are named in what is kept and shown.
    pub users: Users,
    /// `tracked`: how many users have an account of their own in a day or month; beyond it newcomers share one.
    pub tracked: usize,
}

impl Budgets {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            user: Budget::read(section.section("user"), &base.user),
            team: Budget::read(section.section("team"), &base.team),
            total: Budget::read(section.section("total"), &base.total),
            failed: section.value("failed", &base.failed),
            moderated: section.value("moderated", &base.moderated),
            users: section.value("users", &base.users),
            tracked: section.within("tracked", &base.tracked, 1..=100_000_000),
        }
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            user: Budget::default(),
            team: Budget::default(),
            total: Budget::default(),
            failed: Ending::Return,
            moderated: Ending::Keep,
            users: Users::Hashed,
            tracked: 100_000,
        }
    }
}

/// How much may be spent; `None` (written `"off"`, or absent) is no budget. Days and months are UTC's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// `per_day`, in dollars.
    pub per_day: Option<Amount>,
    /// `per_month`, in dollars.
    pub per_month: Option<Amount>,
    /// `seconds_per_day`: seconds of video.
    pub seconds_per_day: Option<u32>,
    /// `seconds_per_month`: seconds of video.
    pub seconds_per_month: Option<u32>,
}

impl Budget {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(mut section: Section<'_, '_>, base: &Self) -> Self {
        Self {
            per_day: section.value("per_day", &base.per_day),
            per_month: section.value("per_month", &base.per_month),
            seconds_per_day: section.value("seconds_per_day", &base.seconds_per_day),
            seconds_per_month: section.value("seconds_per_month", &base.seconds_per_month),
        }
    }
}

/// `running` of `[limits.user]`, `[limits.team]` and `[limits.total]`: jobs that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// One `user` inside its team.
    pub user: Option<u32>,
    /// One team.
    pub team: Option<u32>,
    /// Everybody together.
    pub total: Option<u32>,
}

impl Running {
    /// Reads the key of each scope in `[limits]`; what is not written stays as in `base`.
    pub(crate) fn read(limits: &mut Section<'_, '_>, base: &Self) -> Self {
        let mut running = |scope, base| limits.section(scope).value("running", &base);
        Self { user: running("user", base.user), team: running("team", base.team), total: running("total", base.total) }
    }
}

/// What of the bill a team has of its own: `budgets` and `limits.*.running` inside `[[teams]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeamBill {
    user: OwnBound,
    team: OwnBound,
}

impl TeamBill {
    /// Reads a team's sections; what is not written is everybody's.
    pub(crate) fn read(team: &mut Section<'_, '_>, base: &Self) -> Self {
        let mut budgets = |name, base: &OwnBound| OwnBound::read_budget(team.section("budgets").section(name), base);
        let (mut of_user, mut of_team) = (budgets("user", &base.user), budgets("team", &base.team));
        let mut running = |name, base: &OwnBound| team.section("limits").section(name).value("running", &base.running);
        of_user.running = running("user", &base.user);
        of_team.running = running("team", &base.team);
        Self { user: of_user, team: of_team }
    }

    /// The bounds of the team's users and of the team, where these are everybody's; `None` if it has none of its own.
    pub fn over(&self, user: Bound, team: Bound) -> Option<(Bound, Bound)> {
        (*self != Self::default()).then(|| (self.user.over(user), self.team.over(team)))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OwnBound {
    per_day: Own<Option<Amount>>,
    per_month: Own<Option<Amount>>,
    seconds_per_day: Own<Option<u32>>,
    seconds_per_month: Own<Option<u32>>,
    running: Own<Option<u32>>,
}

impl OwnBound {
    fn read_budget(mut section: Section<'_, '_>, base: &Self) -> Self {
        Self {
            per_day: section.value("per_day", &base.per_day),
            per_month: section.value("per_month", &base.per_month),
            seconds_per_day: section.value("seconds_per_day", &base.seconds_per_day),
            seconds_per_month: section.value("seconds_per_month", &base.seconds_per_month),
            running: base.running,
        }
    }

    fn over(self, bound: Bound) -> Bound {
        let Bound { budget, running } = bound;
        Bound {
            budget: Budget {
                per_day: self.per_day.0.unwrap_or(budget.per_day),
                per_month: self.per_month.0.unwrap_or(budget.per_month),
                seconds_per_day: self.seconds_per_day.0.unwrap_or(budget.seconds_per_day),
                seconds_per_month: self.seconds_per_month.0.unwrap_or(budget.seconds_per_month),
            },
            running: self.running.0.unwrap_or(running),
        }
    }
}

/// A value of a team's own; `None` (written `"inherit"`, or absent) is everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Own<T>(Option<T>);

impl<T: Value> Value for Own<T> {
    fn expected() -> Cow<'static, str> {
        format!("{}, or \"inherit\"", T::expected()).into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw.text() {
            Some(text) if text == "inherit" => Some(Self(None)),
            _ => T::read(raw).map(|value| Self(Some(value))),
        }
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "inherit".to_owned(), Value::show)
    }
}

/// What becomes of reserved money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It goes back to the budget.
    Return,
    /// It stays spent.
    Keep,
}

impl Choice for Ending {
    const CHOICES: &'static [(&'static str, Self)] = &[("return", Self::Return), ("keep", Self::Keep)];
}

/// `budgets.users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// By a keyed hash.
    Hashed,
    /// By the name that the body says.
    Clear,
}

impl Choice for Users {
    const CHOICES: &'static [(&'static str, Self)] = &[("hashed", Self::Hashed), ("clear", Self::Clear)];
}

impl Value for Amount {
    fn expected() -> Cow<'static, str> {
        "an amount in US dollars such as 0.05".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Toml(DeValue::Float(float)) => Amount::parse(float.as_str()),
            Raw::Toml(_) => raw.number().and_then(|whole| Amount::parse(&whole.to_string())),
            Raw::Text(text) => Amount::parse(text.trim()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<Amount> {
    fn expected() -> Cow<'static, str> {
        "an amount in US dollars such as 5.0, or \"off\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw.text() {
            Some(text) if text == "off" => Some(None),
            _ => Amount::read(raw).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "off".to_owned(), |amount| amount.to_string())
    }
}

impl Value for Option<u32> {
    fn expected() -> Cow<'static, str> {
        "a whole number from 1 to 4294967295, or \"off\"".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw.text() {
            Some(text) if text == "off" => Some(None),
            _ => u32::try_from(raw.number()?).ok().filter(|count| *count > 0).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "off".to_owned(), |count| count.to_string())
    }
}
