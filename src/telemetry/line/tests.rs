use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[test]
fn t71_eight_bytes_are_plain_if_each_is() {
    for byte in 0..=u8::MAX {
        for place in 0..8 {
            let mut word = *b"aZ09 ~!#";
            word[place] = byte;
            assert_eq!(are_eight_plain(u64::from_le_bytes(word)), is_plain(byte), "{byte} at {place}");
        }
    }
}

fn line(style: Style, message: &str, value: &str) -> String {
    let mut line = Line::begin(style, Level::Warn, message);
    line.field("cause", value);
    line.literal("status", 200);
    line.milliseconds(name!("duration_ms"), Duration::from_micros(1_042));
    line.finish()
}

#[test]
fn t71_a_hostile_value_stays_inside_its_field() {
    for value in [
        "\"",
        "\\",
        "\n{\"level\":\"error\"}",
        "\r\n",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{2028}\u{2029}",
        "\0",
        "\u{9b}31m",
        "\u{e0041}",
        "é日🎬",
        "",
    ] {
        let json = line(Style::Json, value, value);
        let parsed: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json:?}: {error}"));
        assert_eq!(parsed["message"], *value);
        assert_eq!(parsed["cause"], *value);
        assert_eq!(parsed["level"], "warn");
        assert_eq!(parsed["duration_ms"], 1.042);
        for text in [json, line(Style::Text, value, value)] {
            let inside = text.strip_suffix('\n').unwrap();
            assert!(!inside.chars().any(is_unseen), "{inside:?}");
        }
    }
}

#[test]
fn t71_a_long_value_is_cut_between_characters() {
    for (value, kept) in [("x".repeat(1_000_000), 1_024), ("é".repeat(1_024), 512), ("x".repeat(1_024), 1_024)] {
        let parsed: Value = serde_json::from_str(&line(Style::Json, "request", &value)).unwrap();
        let text = parsed["cause"].as_str().unwrap();
        assert_eq!(text.trim_end_matches('…').chars().count(), kept);
        assert_eq!(text.ends_with('…'), value.len() > MAX_VALUE);
    }
}

#[test]
fn text_is_quoted_only_where_it_needs_to_be() {
    let mut line = Line::at(Duration::ZERO, Style::Text, Level::Info, "request");
    line.field("route", "poll");
    line.field("cause", "no route to host");
    line.field("team", "");
    assert_eq!(
        line.finish(),
        "1970-01-01T00:00:00.000Z info request route=poll cause=\"no route to host\" team=\"\"\n"
    );
}

proptest! {
    // Whatever the value is, the line parses and gives it back.
    #[test]
    fn t71_every_string_comes_back_from_its_line(value in "\\PC{0,40}|(?s).{0,40}") {
        let text = line(Style::Json, &value, &value);
        prop_assert_eq!(text.matches('\n').count(), 1);
        let parsed: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(parsed["cause"].as_str(), Some(value.as_str()));
    }
}
