//! URLs of images and videos: http, https, or the medium itself as `data:…;base64,…` in strict RFC 4648 §4 (padding,
//! zero trailing bits, no white space), so that one medium has exactly one text. Checked in linear time and in a few
//! kilobytes, however long the URL is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The format `image-url`.
pub(super) const IMAGE: &str = "image-url";
/// The format `video-url`.
pub(super) const VIDEO: &str = "video-url";
/// How much base64 is looked at before it is seen whether to go on.
const CHUNK: usize = 4096;
/// The longest header of a `data:` URL, up to its comma.
const MAX_HEADER: usize = 256;

/// Whether `url` is where an image may be, or an image.
pub(super) fn is_image(url: &str) -> bool {
    is_web(url) || is_data(url, "image/")
}

/// Whether `url` is where a video may be, or a video.
pub(super) fn is_video(url: &str) -> bool {
    is_web(url) || is_data(url, "video/")
}

/// What a format allows, in words.
pub(super) fn allowed(format: &str) -> Option<&'static str> {
    match format {
        IMAGE => Some("an http or https URL, or data:image/…;base64,… with padding and without white space"),
        VIDEO => Some("an http or https URL, or data:video/…;base64,… with padding and without white space"),
        _ => None,
    }
}

/// What follows `prefix`, whatever the case of its ASCII letters.
pub(super) fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// An http or https URL with a host and without characters that no URL has.
fn is_web(url: &str) -> bool {
    let Some(rest) = strip_prefix(url, "https://").or_else(|| strip_prefix(url, "http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let named = !host.is_empty() && !host.starts_with(':');
    named && !rest.chars().any(|character| character.is_whitespace() || character.is_control())
}

/// `data:`, a media type that starts with `kind`, parameters, `;base64,`, and at least one byte of strict base64.
fn is_data(url: &str, kind: &str) -> bool {
    let Some(rest) = strip_prefix(url, "data:") else {
        return false;
    };
    let Some(comma) = memchr::memchr(b',', rest.as_bytes().get(..MAX_HEADER).unwrap_or(rest.as_bytes())) else {
        return false;
    };
    let (header, payload) = (rest.get(..comma).unwrap_or_default(), rest.get(comma + 1..).unwrap_or_default());
    let Some((media_type, encoding)) = header.rsplit_once(';') else {
        return false;
    };
    let Some(subtype) = strip_prefix(media_type, kind) else {
        return false;
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-;=".contains(&byte);
    let typed = subtype.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) && subtype.bytes().all(allowed);
    typed && encoding.eq_ignore_ascii_case("base64") && is_base64(payload.as_bytes())
}

/// Strict base64 of at least one byte. Only the last group may be padded, so only that one is decoded; of all others the
/// letters are looked at, many at a time.
fn is_base64(text: &[u8]) -> bool {
    let Some((whole, last)) = text.split_last_chunk::<4>().filter(|_| text.len().is_multiple_of(4)) else {
        return false;
    };
    letters(whole) == whole.len() && STANDARD.decode_slice(last, &mut [0; 3]).is_ok()
}

/// How many of base64's letters a text begins with.
pub(super) fn letters(text: &[u8]) -> usize {
    // Without a way out inside a chunk, so that it becomes a few instructions for many letters.
    let all_letters = |chunk: &&[u8]| chunk.iter().fold(true, |all, byte| all & is_letter(*byte));
    let whole: usize = text.chunks(CHUNK).take_while(all_letters).map(<[u8]>::len).sum();
    let rest = text.get(whole..).unwrap_or_default();
    whole + rest.iter().take_while(|byte| is_letter(**byte)).count()
}

/// Whether a byte is one of base64's 64 letters: `/` and the digits are neighbours.
const fn is_letter(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'/') < 11) | (byte == b'+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_http_https_or_strict_base64_of_the_right_kind() {
        let good = [
            "https://example.com/cat.png",
            "http://127.0.0.1:8000/a?b=c#d",
            "HTTPS://user@example.com",
            "https://[::1]/a",
            "data:image/png;base64,iVBORw0KGgo=",
            "DATA:IMAGE/PNG;BASE64,AA==",
            "data:image/svg+xml;charset=utf-8;base64,AAA=",
            "data:image/x-icon;base64,AAAA",
        ];
        for url in good {
            assert!(is_image(url), "{url}");
        }
        let bad = [
            "",
            "cat.png",
            "ftp://example.com/cat.png",
            "file:///etc/passwd",
            "https://",
            "https:///path",
            "https://:80/",
            "https://user@/",
            "https://exa mple.com/",
            "https://example.com/\n",
            " https://example.com/",
            "data:",
            "data:image/png",
            "data:image/png;base64",
            "data:image/png;base64,",
            "data:image/png,AAAA",
            "data:image/;base64,AAAA",
            "data:;base64,AAAA",
            "data:text/html;base64,AAAA",
            "data:video/mp4;base64,AAAA",
            "data:image/png;base64,AA",
            "data:image/png;base64,AAA",
            "data:image/png;base64,AB==",
            "data:image/png;base64,AAB=",
            "data:image/png;base64,AA==AAAA",
            "data:image/png;base64,A===",
            "data:image/png;base64,====",
            "data:image/png;base64,AA A=",
            "data:image/png;base64,AAAA\n",
            "data:image/png;base64,AA-_",
            "data:image/png; base64,AAAA",
            "data:image/<b>;base64,AAAA",
        ];
        for url in bad {
            assert!(!is_image(url), "{url}");
        }
        assert!(is_video("data:video/mp4;base64,AAAA") && !is_video("data:image/png;base64,AAAA"));
    }

    #[test]
    fn t67_padding_is_refused_at_every_inner_chunk_and_taken_at_the_end() {
        let whole = "A".repeat(CHUNK);
        let padded = format!("{}==", "A".repeat(CHUNK - 2));
        for (payload, want) in [
            (whole.clone() + &whole, true),
            (whole.clone() + &padded, true),
            (whole.clone() + "AA==", true),
            (padded.clone() + &whole, false),
            (padded.clone() + "AAAA", false),
            (whole.clone() + "AA=A", false),
        ] {
            assert_eq!(is_image(&format!("data:image/png;base64,{payload}")), want, "{}", payload.len());
        }
    }

    proptest! {
        /// Whatever encodes is accepted, and what is accepted is the one text of its bytes.
        #[test]
        fn base64_text_and_bytes_are_one_to_one(bytes in prop::collection::vec(any::<u8>(), 1..9000), at in any::<prop::sample::Index>(), other in any::<u8>()) {
            let mut text = STANDARD.encode(&bytes).into_bytes();
            prop_assert!(is_base64(&text));
            let at = at.index(text.len());
            text[at] = other;
            let decoded = STANDARD.decode(&text);
            prop_assert_eq!(is_base64(&text), decoded.is_ok());
            if let Ok(decoded) = decoded {
                prop_assert_eq!(STANDARD.encode(decoded).into_bytes(), text);
            }
        }
    }
}
