//! Amounts of money as whole ticks, 10^10 to the dollar, as xAI counts them (`UPSTREAM.md` §3.1): sums are exact.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// That many ticks.
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks)
    }

    /// Its ticks.
    pub const fn ticks(self) -> u64 {
        self.0
    }

    /// Its dollars, as metrics count them.
    #[expect(clippy::cast_precision_loss, reason = "a metric is a double; 53 bits hold 900,000 dollars to the tick")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / TICKS_A_DOLLAR as f64
    }

    /// The amount that a decimal number of dollars names: `0.05`, `12`. At most ten decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > DECIMALS {
            return None;
        }
        let ticks: u64 = format!("{part:0<DECIMALS$}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(TICKS_A_DOLLAR)?.checked_add(ticks).map(Self)
    }

    /// Both together, or as much as can be counted.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it, at least nothing.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Writes dollars with as many decimals as it has, at least two: `0.40`. Every hit's log line has one, so it goes
    /// without the machinery of `format!`.
    ///
    /// # Errors
    /// Those of `text`.
    pub fn write(self, text: &mut impl fmt::Write) -> fmt::Result {
        // The digit in front keeps the decimals' leading zeros.
        let (mut part, mut least) = (TICKS_A_DOLLAR + self.0 % TICKS_A_DOLLAR, TICKS_A_DOLLAR);
        while part % 10 == 0 && least > 100 {
            (part, least) = (part / 10, least / 10);
        }
        text.write_str(itoa::Buffer::new().format(self.0 / TICKS_A_DOLLAR))?;
        text.write_str(".")?;
        text.write_str(itoa::Buffer::new().format(part).get(1..).unwrap_or_default())
    }

    /// It, for each second of so many milliseconds, rounded up.
    pub fn for_millis(self, millis: u64) -> Self {
        let ticks = (u128::from(self.0) * u128::from(millis)).div_ceil(1000);
        Self(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// `UPSTREAM.md` §3.1.
pub const TICKS_A_DOLLAR: u64 = 10_000_000_000;
const DECIMALS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_shown_to_the_tick() {
        for (text, ticks, shown) in [
            ("0.05", 500_000_000, "0.05"),
            ("12", 120_000_000_000, "12.00"),
            ("0.0000000001", 1, "0.0000000001"),
            ("0.4", 4_000_000_000, "0.40"),
            ("3.125", 31_250_000_000, "3.125"),
            ("1844674407.3709551615", u64::MAX, "1844674407.3709551615"),
            ("0", 0, "0.00"),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount.ticks(), amount.to_string()), (ticks, shown.to_owned()));
        }
        for wrong in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.00000000001", "99999999999999"] {
            assert_eq!(Amount::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn seconds_are_priced_exactly_and_rounded_up() {
        let second = Amount::parse("0.05").unwrap();
        assert_eq!(second.for_millis(8_000).to_string(), "0.40");
        assert_eq!(Amount(1).for_millis(1), Amount(1));
        assert_eq!(Amount(u64::MAX).for_millis(u64::MAX), Amount(u64::MAX));
    }
}
