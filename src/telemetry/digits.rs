//! Times and numbers of log lines, written without the machinery of `format!`: every request has several.

use std::cell::RefCell;
use std::time::Duration;

/// Appends a moment as RFC 3339 writes it, UTC, to the millisecond. A thread writes many lines within one second, so it
/// keeps the second.
pub(super) fn push_time(text: &mut String, since_epoch: Duration) {
    thread_local! {
        static KEPT: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    KEPT.with_borrow_mut(|(second, written)| {
        if *second != since_epoch.as_secs() {
            *second = since_epoch.as_secs();
            written.clear();
            push_second(written, *second);
        }
        text.push_str(written);
    });
    text.push('.');
    push_thousandths(text, since_epoch.subsec_millis().into());
    text.push('Z');
}

/// Appends a second: date and time.
fn push_second(text: &mut String, seconds: u64) {
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
    push_pair(text, year / 100 % 100);
    push_pair(text, year % 100);
    for (mark, number) in ["-", "-", "T", ":", ":"].into_iter().zip([month, day].into_iter().chain(of_day)) {
        text.push_str(mark);
        push_pair(text, number);
    }
}

/// Appends a number; the formatter of the standard library costs several times as much. Most are of up to three digits:
/// octets, a status, a duration.
pub(super) fn push_number(text: &mut String, number: u64) {
    if number >= 1_000 {
        return text.push_str(itoa::Buffer::new().format(number));
    }
    if number >= 100 {
        text.push(digit(number / 100));
    }
    if number >= 10 {
        text.push(digit(number / 10));
    }
    text.push(digit(number));
}

/// Appends three digits of a number below a thousand.
pub(super) fn push_thousandths(text: &mut String, number: u64) {
    [100, 10, 1].into_iter().for_each(|place| text.push(digit(number / place)));
}

/// The last digit of a number.
fn digit(number: u64) -> char {
    char::from(b'0' + u8::try_from(number % 10).unwrap_or_default())
}

/// Appends two digits of a number below a hundred.
fn push_pair(text: &mut String, number: u64) {
    text.push_str(digits(number * 2, 2));
}

fn digits(start: u64, count: usize) -> &'static str {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    PAIRS.get(start..start.saturating_add(count)).unwrap_or_default()
}

/// 00 to 99.
const PAIRS: &str = "\
    0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
    5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    const FROM_0000_03_01: u64 = 719_468;
    const IN_400_YEARS: u64 = 146_097;
    let days = days + FROM_0000_03_01;
    let (era, day_of_era) = (days / IN_400_YEARS, days % IN_400_YEARS);
    let leaps = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        for (millis, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut text = String::new();
            push_time(&mut text, Duration::from_millis(millis));
            assert_eq!(text, want);
        }
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in (0..1_100).chain([9_999, u64::MAX]) {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
        let mut text = String::new();
        [0, 7, 42, 999].into_iter().for_each(|number| push_thousandths(&mut text, number));
        assert_eq!(text, "000007042999");
    }
}
