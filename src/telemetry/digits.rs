//! Times and numbers of log lines, written without the machinery of `format!`: every request has several.

use std::cell::RefCell;
use std::time::Duration;

use crate::clock::{Time, calendar};

/// Appends a moment as RFC 3339 writes it, UTC, to the millisecond. A thread writes many lines within one second, so it
/// keeps the second.
pub(super) fn push_time(text: &mut String, since_epoch: Duration) {
    thread_local! {
        static KEPT: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    KEPT.with_borrow_mut(|(second, written)| {
        if *second != since_epoch.as_secs() {
            *second = since_epoch.as_secs();
            *written = calendar::to_the_second(Time::from_millis(second.saturating_mul(1000)));
        }
        text.push_str(written);
    });
    text.push('.');
    push_thousandths(text, since_epoch.subsec_millis().into());
    text.push('Z');
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
