//! A long medium inside a body, `data:…;base64,…` (RFC 2397). Its letters are nearly all of the body and say nothing of
//! its shape: they are looked at once, and what is parsed, checked and held in memory is the body without them.

use memchr::memmem;
use serde_json::Value;

use super::{json, media};

/// The letters of a medium that a body was parsed without. In their place its URL has [`Inline::STAND_IN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inline<'a> {
    field: &'static str,
    letters: &'a [u8],
}

impl<'a> Inline<'a> {
    /// What stands for the letters: base64 like them, right after the comma of the URL.
    pub const STAND_IN: &'static str = "AAAA";

    /// Parses a body without the letters of its medium, if it is long because of one and nothing is wrong with it. `None`
    /// is no verdict: such a body is parsed as it is.
    pub fn cut(body: &'a [u8]) -> Option<(Value, Self)> {
        let (before, letters, after) = split(body)?;
        if before.len() + after.len() > MOST_BESIDE {
            return None;
        }
        // Where the letters stand is seen by what becomes of two readings that differ in them alone: no body can make
        // another place look like it, by escapes or otherwise.
        let read = |stand_in: &str| json::parse(&[before, stand_in.as_bytes(), after].concat()).ok();
        let (fields, other) = (read(Self::STAND_IN)?, read(OTHER)?);
        let stands_in = |field: &&str| {
            payload(&fields, field).is_some_and(|payload| payload.starts_with(Self::STAND_IN))
                && payload(&other, field).is_some_and(|payload| payload.starts_with(OTHER))
        };
        let field = ["image", "video"].into_iter().find(stands_in)?;
        Some((fields, Self { field, letters }))
    }

    /// The letters, if they are those of this field's medium.
    pub fn of(&self, field: &str) -> Option<&'a [u8]> {
        (self.field == field).then_some(self.letters)
    }
}

/// A body around the first long run of base64: what is before it, a number of letters that leaves the last group whole,
/// and what is after them.
fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    if body.len() < SHORTEST {
        return None;
    }
    // What stands further on leaves too much beside the letters; and a mark without letters costs nearly nothing, however
    // many there are.
    let begins = memmem::find_iter(body.get(..MOST_BESIDE).unwrap_or(body), MARK).map(|at| at + MARK.len());
    for begin in begins {
        let (before, rest) = body.split_at_checked(begin)?;
        let is_long = rest.get(..FIRST_LOOK).is_some_and(|first| media::letters(first) == FIRST_LOOK);
        let letters = if is_long { media::letters(rest) } else { 0 };
        if letters >= SHORTEST {
            let (letters, after) = rest.split_at_checked(letters - letters % 4)?;
            return Some((before, letters, after));
        }
    }
    None
}

/// What follows the first comma of a field's `data:` URL.
fn payload<'a>(fields: &'a Value, field: &str) -> Option<&'a str> {
    let url = fields.get(field)?.get("url")?.as_str()?;
    media::strip_prefix(url, "data:")?.split_once(',').map(|(_, payload)| payload)
}

/// What is before the letters.
const MARK: &[u8] = b";base64,";
/// Another stand-in: it differs in every letter.
const OTHER: &str = "BBBB";
/// How many letters are looked at before all are.
const FIRST_LOOK: usize = 64;
/// From so many letters on it is worth it.
const SHORTEST: usize = 16 << 10;
/// As much may be in a body beside the letters: it is parsed twice.
const MOST_BESIDE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The fields of a body that was cut, its letters put back.
    fn restored(body: &[u8]) -> Option<Value> {
        let (mut fields, inline) = Inline::cut(body)?;
        let url = fields[inline.field]["url"].as_str().unwrap();
        let letters = std::str::from_utf8(inline.letters).unwrap();
        fields[inline.field]["url"] = url.replacen(&format!(",{}", Inline::STAND_IN), &format!(",{letters}"), 1).into();
        Some(fields)
    }

    fn image(payload: &str) -> Value {
        json!({"prompt": "a", "image": {"url": format!("data:image/png;base64,{payload}")}})
    }

    #[test]
    fn a_long_medium_is_cut_and_nothing_else_changes() {
        let letters = "AbC/+9z0".repeat(4096);
        for end in ["", "A", "AA", "AA==", "AAA=", "====", "-", "é", "\n\"\\"] {
            let body = image(&format!("{letters}{end}"));
            assert_eq!(restored(body.to_string().as_bytes()).unwrap(), body, "{end}");
        }
        let video =
            json!({"video": {"url": format!("DATA:x;y;base64,{letters}"), "z": 1}, "image": {"url": "https://a"}});
        assert_eq!(restored(video.to_string().as_bytes()).unwrap(), video);
        // Of two media the first is cut, if the other is short enough to be parsed.
        let both = json!({"image": {"url": format!("data:;base64,{letters}")}, "video": {"url": "data:;base64,AAAA"}});
        assert_eq!(restored(both.to_string().as_bytes()).unwrap(), both);
    }

    #[test]
    fn what_only_looks_like_a_medium_is_not_cut() {
        let letters = "A".repeat(40_000);
        let url = format!("data:image/png;base64,{letters}");
        for body in [
            image("AAAA").to_string(),
            json!({"prompt": url, "image": {"url": "data:image/png;base64,AAAA"}}).to_string(),
            json!({"prompt": url, "image": {"url": "data:image/png;base64,BBBB"}}).to_string(),
            json!({"image": {"url": format!("https://a/;base64,{letters}")}}).to_string(),
            json!({"image": {"url": format!("data:a,AAAA;base64,{letters}")}}).to_string(),
            json!({"image": {"url": [url]}}).to_string(),
            json!({"image": [{"url": url}]}).to_string(),
            json!([image(&letters)]).to_string(),
            json!({"image": {url.clone(): 1, "url": "data:image/png;base64,AAAA"}}).to_string(),
            json!({"image": {"url": url}, "prompt": "a".repeat(MOST_BESIDE)}).to_string(),
            json!({"prompt": "a".repeat(MOST_BESIDE), "video": {"url": url}}).to_string(),
            // Marks without letters, more than are looked at.
            json!({"a": ";base64,".repeat(MOST_BESIDE), "image": {"url": url}}).to_string(),
            // Each of these is no JSON.
            format!(r#"{{"image":{{"url":data:image/png;base64,{letters}}}}}"#),
            format!(r#"{{"image":{{"url":"{url}"}}"#),
            format!(r#"{{"image":{{"url":"{url}"}},"image":{{"url":"{url}"}}}}"#),
            format!(r#"{{"image":{{"url":"data:image/png\;base64,{letters}"}}}}"#),
            format!(r#"{{"image":{{"url":"{url}\"}}}}"#),
        ] {
            assert_eq!(Inline::cut(body.as_bytes()), None, "{}", &body[..60]);
        }
        // Escapes before the medium and in it do no harm.
        let escaped =
            format!(r#"{{"image":{{"url":"\u0064ata:\u002c"}},"video":{{"url":"data:;base64,{letters}\/A="}}}}"#);
        assert_eq!(restored(escaped.as_bytes()).unwrap(), serde_json::from_str::<Value>(&escaped).unwrap());
    }

    proptest! {
        /// Whatever is done to a body: what is read without the letters is what is read with them.
        #[test]
        fn a_cut_body_reads_as_a_whole_one(
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, "[ -~\u{0}\n\u{e9}]{0,6}"), 0..4),
            near in prop::collection::vec((0_usize..80, "[\\\\\",;/u0-9a-dA-D=:{}\\[\\]]{0,4}"), 0..3),
            payload in "[A-Za-z0-9+/]{0,7}={0,2}",
            in_video in any::<bool>(),
        ) {
            let field = if in_video { "video" } else { "image" };
            let url = format!("data:image/png;base64,{}{payload}", "Zz+/09aA".repeat(2500));
            let mut body = json!({field: {"url": url}, "prompt": "AAAA,BBBB;base64,", "n": [1, {"url": "x"}]}).to_string().into_bytes();
            for (at, removed, text) in edits {
                let at = at.index(body.len());
                let end = (at + removed).min(body.len());
                body.splice(at..end, text.into_bytes());
            }
            for (at, text) in near {
                body.splice(at..at, text.into_bytes());
            }
            if let Some(fields) = restored(&body) {
                prop_assert_eq!(fields, json::parse(&body).unwrap());
            }
        }
    }
}
