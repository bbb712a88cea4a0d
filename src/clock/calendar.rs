//! The dates of the ledger's time line, in UTC: its days and months, and its moments as RFC 3339 writes them. The calendar
//! itself is that of the crate `time`, which ends with the year 9999: past it no clock is believed.

use time::{Date, Month, UtcDateTime};

use super::Time;

/// The date and the time of day of a moment.
fn civil(time: Time) -> UtcDateTime {
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    UtcDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(UtcDateTime::MAX)
}

/// The seconds from 1970-01-01 to the beginning of a day, which may lie before; `None` where there is no such day.
pub fn day_begins(year: u16, month: u8, day: u8) -> Option<i64> {
    let date = Date::from_calendar_date(year.into(), Month::try_from(month).ok()?, day).ok()?;
    Some(date.midnight().as_utc().unix_timestamp())
}

/// The day of a moment, counted from 1970-01-01.
pub fn day(time: Time) -> u32 {
    u32::try_from(civil(time).unix_timestamp() / SECONDS_A_DAY).unwrap_or_default()
}

/// The month of a moment, counted from 1970-01.
pub fn month(time: Time) -> u32 {
    let date = civil(time).date();
    u32::try_from(date.year() - 1970).unwrap_or_default() * 12 + u32::from(u8::from(date.month())) - 1
}

/// The beginning of a month, counted from 1970-01.
pub fn month_begins(month: u32) -> Time {
    let year = u16::try_from(1970 + month / 12).ok();
    let begins = year.zip(u8::try_from(month % 12 + 1).ok()).and_then(|(year, month)| day_begins(year, month, 1));
    let seconds = begins.unwrap_or_else(|| UtcDateTime::MAX.unix_timestamp());
    Time::from_millis(u64::try_from(seconds).unwrap_or_default() * 1000)
}

/// The date of a moment, `2026-11-26`.
pub fn date(time: Time) -> String {
    written(civil(time).date())
}

fn written(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// A moment to the second, without its end: `2026-11-26T12:34:56`.
pub fn to_the_second(time: Time) -> String {
    let civil = civil(time);
    let (hour, minute, second) = civil.as_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}", written(civil.date()))
}

/// A moment to the millisecond, `2026-11-26T12:34:56.789Z` (RFC 3339 §5.6).
pub fn rfc3339(time: Time) -> String {
    format!("{}.{:03}Z", to_the_second(time), civil(time).millisecond())
}

const SECONDS_A_DAY: i64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        for (millis, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_795_739_696_789, "2026-11-27T00:34:56.789Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(Time::from_millis(millis)), want);
        }
    }

    #[test]
    fn months_follow_each_other_to_the_end_of_the_calendar() {
        assert_eq!(month_begins(0), Time::from_millis(0));
        for number in 0..12 * 8_029 {
            assert!(month_begins(number) < month_begins(number + 1), "{number}");
            assert_eq!(month(month_begins(number)), number);
        }
        assert_eq!(month_begins(12 * 8_030), month_begins(u32::MAX), "past the calendar");
    }

    #[test]
    fn a_day_that_the_calendar_does_not_have_does_not_begin() {
        assert_eq!(day_begins(2024, 2, 29), Some(1_709_164_800));
        assert_eq!(day_begins(1969, 12, 31), Some(-86_400));
        assert_eq!((day_begins(2026, 2, 29), day_begins(2026, 13, 1), day_begins(2026, 0, 1)), (None, None, None));
    }
}
