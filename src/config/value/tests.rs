use proptest::prelude::*;

use std::time::Duration;

use super::quantity::{MAX_RATE, PERIODS};
use super::*;
use crate::admission::settings::Rate;
use crate::clock::Time;
use crate::jobs::settings::By;

/// What both sources make of a text: the environment bare, the file in quotes.
fn both<T: Value + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let bare = T::read(&Raw::Text(text));
    let quoted = T::read(&Raw::Toml(&DeValue::String(text.into())));
    assert_eq!(bare, quoted, "{text:?}");
    bare
}

/// What the file makes of a piece of TOML.
fn toml<T: Value>(text: &str) -> Option<T> {
    T::read(&Raw::Toml(DeValue::parse(text).unwrap().get_ref()))
}

#[test]
fn t78_durations_have_a_number_and_a_unit_and_fit() {
    let millis = |millis| Some(Duration::from_millis(millis));
    for (text, want) in [
        ("500ms", millis(500)),
        ("30s", millis(30_000)),
        ("10m", millis(600_000)),
        ("23h", millis(23 * 3_600_000)),
        ("7d", millis(7 * 24 * 3_600_000)),
        ("0s", millis(0)),
        (" 30 s ", millis(30_000)),
        ("18446744073709551615ms", millis(u64::MAX)),
        ("18446744073709551616ms", None),
        ("18446744073709551615s", None),
        ("213503982335d", None),
        ("99999999999999999999s", None),
        ("30", None),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("+1s", None),
        ("1.5s", None),
        ("1e3s", None),
        ("30S", None),
        ("30sec", None),
        ("1m30s", None),
        ("٣s", None),
    ] {
        assert_eq!(both::<Duration>(text), want, "{text:?}");
    }
    assert_eq!(toml::<Duration>("30"), None);
}

#[test]
fn t78_sizes_are_bytes_or_binary_units_and_fit() {
    for (text, want) in [
        ("4096", Some(4096)),
        ("1 B", Some(1)),
        ("64 KiB", Some(64 << 10)),
        ("64KiB", Some(64 << 10)),
        ("32 MiB", Some(32 << 20)),
        ("1 GiB", Some(1 << 30)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("17179869184 GiB", None),
        ("32 MB", None),
        ("32 mib", None),
        ("-1", None),
        ("1.5 GiB", None),
        ("", None),
        ("MiB", None),
    ] {
        assert_eq!(both::<Size>(text), want.map(Size), "{text:?}");
    }
    assert_eq!(toml::<Size>("4096"), Some(Size(4096)));
    assert_eq!(toml::<Size>("0x1000"), Some(Size(4096)));
    assert_eq!(toml::<Size>("-4096"), None);
    assert_eq!(toml::<Size>("4096.0"), None);
}

#[test]
fn t78_rates_have_a_count_and_a_period() {
    let rate = |count, seconds| Some(Some(Rate { count, per: Duration::from_secs(seconds) }));
    for (text, want) in [
        ("1/second", rate(1, 1)),
        ("6/minute", rate(6, 60)),
        ("6 / hour", rate(6, 3600)),
        ("1000000/day", rate(1_000_000, 86_400)),
        ("off", Some(None)),
        ("0/minute", None),
        ("1000001/second", None),
        ("4294967297/second", None),
        ("-6/minute", None),
        ("+6/minute", None),
        ("6/min", None),
        ("6/", None),
        ("/minute", None),
        ("6", None),
        ("Off", None),
        ("", None),
    ] {
        assert_eq!(both::<Option<Rate>>(text), want, "{text:?}");
    }
}

#[test]
fn t78_numbers_are_whole_not_negative_and_fit() {
    for (text, want) in [
        ("0", Some(0)),
        ("65535", Some(u16::MAX)),
        ("1_000", Some(1000)),
        ("0xff", Some(255)),
        ("65536", None),
        ("-1", None),
        ("1.0", None),
        ("\"1\"", None),
        ("true", None),
    ] {
        assert_eq!(toml::<u16>(text), want, "{text}");
    }
    for (text, want) in [("7", Some(7)), (" 7 ", Some(7)), ("18446744073709551616", None), ("", None), ("+7", None)] {
        assert_eq!(u64::read(&Raw::Text(text)), want, "{text:?}");
    }
}

#[test]
fn truths_words_and_addresses_are_exact() {
    assert_eq!(toml::<bool>("true"), Some(true));
    assert_eq!(toml::<bool>("1"), None);
    assert_eq!(bool::read(&Raw::Text("false")), Some(false));
    assert_eq!(bool::read(&Raw::Text("yes")), None);
    assert_eq!(both::<By>("idempotency-key"), Some(By::IdempotencyKey));
    assert_eq!(both::<By>("Prompt"), None);
    assert_eq!(toml::<By>("1"), None);
    assert_eq!(By::refusal(&Raw::Text("prompts")), "expected \"prompt\", \"idempotency-key\" or \"off\"");
    for (text, good) in [
        ("127.0.0.1:8080", true),
        ("[::1]:8080", true),
        ("0.0.0.0:0", true),
        ("127.0.0.1", false),
        ("127.0.0.1:65536", false),
        ("::1:8080", false),
        ("localhost:8080", false),
        (":8080", false),
    ] {
        assert_eq!(both::<SocketAddr>(text).is_some(), good, "{text}");
    }
}

#[test]
fn lists_are_written_as_toml_in_both_sources() {
    for (text, want) in [
        ("[]", Some(vec![])),
        ("[\"a\", 'b',]", Some(vec!["a".to_owned(), "b".to_owned()])),
        ("[1]", None),
        ("\"a\"", None),
        ("[[\"a\"]]", None),
    ] {
        assert_eq!(toml::<Vec<String>>(text), want, "{text}");
        assert_eq!(Vec::<String>::read(&Raw::Text(text)), want, "{text}");
    }
    for text in ["a,b", "", "[", "[\"a\"]\nx = 1", "a = []"] {
        assert_eq!(Vec::<String>::read(&Raw::Text(text)), None, "{text:?}");
    }
    assert_eq!(toml::<Vec<u16>>("[502, 504]"), Some(vec![502, 504]));
    assert_eq!(toml::<Vec<u16>>("[502, 65536]"), None);
}

#[test]
fn an_empty_path_is_none_and_no_path_holds_a_zero() {
    assert_eq!(both::<Option<PathBuf>>(""), Some(None));
    assert_eq!(both::<Option<PathBuf>>("a b"), Some(Some(PathBuf::from("a b"))));
    assert_eq!(toml::<Option<PathBuf>>("\"a\\u0000b\""), None);
}

#[test]
fn a_moment_is_a_day_or_has_an_offset() {
    for (text, want) in [
        ("2027-01-31", Some(1_801_353_600_000)),
        ("2027-01-31T12:00:00Z", Some(1_801_396_800_000)),
        ("2027-01-31T12:00:00+02:00", Some(1_801_389_600_000)),
        ("2027-01-31T12:00:00.25-00:30", Some(1_801_398_600_250)),
        ("2024-02-29", Some(1_709_164_800_000)),
        ("2027-02-29", None),
        ("1969-12-31", None),
        ("2027-01-31T12:00:00", None),
        ("12:00:00", None),
        ("2027", None),
    ] {
        let want = want.map(|millis| Some(Time::from_millis(millis)));
        assert_eq!(both::<Option<Time>>(text), want, "{text}");
        if want.is_some() {
            assert_eq!(toml::<Option<Time>>(text), want, "{text}, as TOML's own");
        }
    }
    assert_eq!(both::<Option<Time>>(""), Some(None));
}

proptest! {
    /// What a value shows is read back as the same value.
    #[test]
    fn shown_values_are_read_back(millis: u64, moment in 0..253_402_300_800_000_u64, bytes: u64, count in 1..=MAX_RATE, period in 0usize..4, word: String) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(both::<Duration>(&duration.show()), Some(duration));
        let moment = Some(Time::from_millis(moment));
        prop_assert_eq!(both::<Option<Time>>(&moment.show()), Some(moment));
        prop_assert_eq!(both::<Size>(&Size(bytes).show()), Some(Size(bytes)));
        let rate = Some(Rate { count, per: Duration::from_secs(PERIODS[period].1) });
        prop_assert_eq!(both::<Option<Rate>>(&rate.show()), Some(rate));
        prop_assert_eq!(toml::<Vec<u16>>(&vec![502u16, 504].show()), Some(vec![502, 504]));
        prop_assert_eq!(String::read(&Raw::Toml(&DeValue::String(word.as_str().into()))), Some(word.clone()));
    }

    /// No text stops the reader.
    #[test]
    fn any_text_is_a_value_or_refused(text: String) {
        let raw = Raw::Text(&text);
        let _ = (Duration::read(&raw), Size::read(&raw), Option::<Rate>::read(&raw), Vec::<String>::read(&raw));
        let _ = (String::read(&raw), u64::read(&raw), Option::<Time>::read(&raw), SocketAddr::read(&raw), Option::<PathBuf>::read(&raw));
    }
}
