//! The `X-Request-Id` of a request: the client's own, if it can stand in a header and a log as it is, else a new one.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderName, HeaderValue};

use crate::request::head::Header;
use crate::request::verbatim::{Name, Verbatim};

/// The header.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id taken from a client.
const MAX_LENGTH: usize = 64;

/// Makes ids that never repeat in a process and that do not tell how many came before: a thread and its counter under a
/// random key.
#[derive(Default)]
pub(super) struct RequestIds(Verbatim);

impl RequestIds {
    /// The id of a request with this header.
    pub(super) fn of(&self, header: &Header<'_>) -> HeaderValue {
        let mut sent = header.lines(&X_REQUEST_ID);
        match (sent.next(), sent.next()) {
            (Some(id), None) if is_valid(id.as_bytes()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let number = unique();
        let mut digits = [0_u8; 32];
        let Name([high, low]) = self.0.name(&[&number.to_le_bytes()]);
        // The length is right.
        _ = hex::encode_to_slice((u128::from(high) << 64 | u128::from(low)).to_be_bytes(), &mut digits);
        HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from(high))
    }
}

/// A number that no thread was given before. Each counts on from a place of its own, so that none waits for another.
fn unique() -> u128 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NEXT: Cell<u128> = const { Cell::new(0) });
    let next = match NEXT.get() {
        0 => u128::from(THREADS.fetch_add(1, Ordering::Relaxed)) << 64,
        next => next,
    };
    NEXT.set(next + 1);
    next
}

fn is_valid(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hyper::header::HeaderMap;

    use super::*;

    #[test]
    fn a_clients_id_is_kept_only_if_it_is_plain_and_the_only_one() {
        let ids = RequestIds::default();
        for (sent, kept) in [
            (vec!["abc-1_2.3"], true),
            (vec!["a"; 2], false),
            (vec![""], false),
            (vec!["a b"], false),
            (vec!["a\"b"], false),
            (vec!["é"], false),
            (vec![], false),
        ] {
            let mut headers = HeaderMap::new();
            for id in &sent {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            }
            let id = ids.of(&Header::of(&headers));
            assert_eq!(sent.iter().any(|sent| id == *sent), kept, "{sent:?} gave {id:?}");
        }
        for (length, kept) in [(64, true), (65, false)] {
            let sent = HeaderValue::from_str(&"x".repeat(length)).unwrap();
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, sent.clone())]);
            assert_eq!(ids.of(&Header::of(&headers)) == sent, kept, "{length} characters");
        }
    }

    #[test]
    fn made_ids_are_32_hex_digits_and_differ() {
        let ids = RequestIds::default();
        let made: HashSet<_> = (0..1_000).map(|_| ids.make().to_str().unwrap().to_owned()).collect();
        assert_eq!(made.len(), 1_000);
        assert!(made.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert_ne!(RequestIds::default().make(), RequestIds::default().make());
    }
}
