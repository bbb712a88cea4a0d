//! The one video: a candle, drawn for this project by `candle.sh` beside this file (ffmpeg's own sources and filters,
//! then `-c:v libx264 -profile:v baseline -preset veryslow -crf 29 -movflags +faststart`). 2.5 s, 854x480, H.264.
//! Served with ranges (RFC 9110 section 14), because players ask for them.

use bytes::Bytes;

use super::answer::Answer;
use super::reader::Head;

/// The file.
const CANDLE: &[u8] = include_bytes!("candle.mp4");
/// Before the id of the job.
const PREFIX: &str = "/videos-of-the-simulator/";
/// Its only version.
const ETAG: &str = "\"candle-1\"";

/// The path of a job's video.
pub(super) fn path(request_id: &str) -> String {
    format!("{PREFIX}{request_id}.mp4")
}

/// Whether a video is asked for.
pub(super) fn is_video(path: &str) -> bool {
    path.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(".mp4")).is_some_and(|id| {
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

/// The video, or the part of it that is asked for.
pub(super) fn answer(head: &Head) -> Answer {
    let whole = || described(Answer::new(200, "video/mp4", Bytes::from_static(CANDLE)));
    if !matches!(head.method.as_str(), "GET" | "HEAD") {
        return Answer::empty(405).header("allow", "GET, HEAD");
    }
    let same_version = head.field("if-range").is_none_or(|version| version == ETAG);
    let Some(range) = head.field("range").filter(|_| same_version && head.method == "GET") else { return whole() };
    match part(range, CANDLE.len()) {
        None => whole(),
        Some(Err(Unsatisfiable)) => Answer::empty(416).header("content-range", &format!("bytes */{}", CANDLE.len())),
        Some(Ok((first, last))) => {
            let bytes = CANDLE.get(first..=last).unwrap_or_default();
            described(Answer::new(206, "video/mp4", Bytes::from_static(bytes)))
                .header("content-range", &format!("bytes {first}-{last}/{}", CANDLE.len()))
        }
    }
}

fn described(answer: Answer) -> Answer {
    answer.header("accept-ranges", "bytes").header("etag", ETAG).header("cache-control", "public, max-age=86400")
}

/// A range beyond the end.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// The first and last byte of `range`, for a file of `length` bytes. `None` for what is no single byte range, and so
/// is to be ignored.
fn part(range: &str, length: usize) -> Option<Result<(usize, usize), Unsatisfiable>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| -> Option<usize> {
        // A number too large for us is still a number.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(usize::MAX))
    };
    let end = length.saturating_sub(1);
    let (first, last) = match (first.is_empty(), last.is_empty()) {
        (true, _) => match number(last)? {
            0 => return Some(Err(Unsatisfiable)),
            suffix => (length.saturating_sub(suffix), end),
        },
        (false, true) => (number(first)?, end),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.min(end))
        }
    };
    Some(if first < length { Ok((first, last)) } else { Err(Unsatisfiable) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (range, want) in [
            ("bytes=0-0", Some(Ok((0, 0)))),
            ("bytes=2-5", Some(Ok((2, 5)))),
            ("bytes=2-", Some(Ok((2, 9)))),
            ("bytes=-3", Some(Ok((7, 9)))),
            ("bytes=-99", Some(Ok((0, 9)))),
            ("bytes=5-99999999999999999999999", Some(Ok((5, 9)))),
            ("bytes=10-", Some(Err(Unsatisfiable))),
            ("bytes=-0", Some(Err(Unsatisfiable))),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("items=0-1", None),
        ] {
            assert_eq!(part(range, 10), want, "{range}");
        }
    }

    #[test]
    fn the_file_is_an_mp4_with_its_index_first() {
        assert_eq!(&CANDLE[4..8], b"ftyp");
        let index = memchr::memmem::find(CANDLE, b"moov").unwrap();
        assert!(index < memchr::memmem::find(CANDLE, b"mdat").unwrap());
    }
}
