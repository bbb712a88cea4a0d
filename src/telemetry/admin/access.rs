//! Who may see more than metrics and health. On loopback that is whoever is on the machine, unless a key is configured;
//! elsewhere nobody without the key.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::refusal::Refusal;

/// The operators' key, as a digest: the key itself is not kept.
pub struct AdminKey([u8; 32]);

impl AdminKey {
    /// The key of this text.
    ///
    /// # Errors
    /// What is wrong with it, without a byte of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("an admin key is of visible ASCII characters");
        }
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return Err("an admin key has 16 to 8192 characters");
        }
        Ok(Self(hashed(text)))
    }

    /// Whether a request brings it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let credentials = value.to_str().ok().and_then(|value| value.split_once(' '));
        let Some((scheme, given)) = credentials else { return false };
        // Of digests, so that the time says nothing of the length either.
        scheme.eq_ignore_ascii_case("bearer") && verify_slices_are_equal(&self.0, &hashed(given.trim())).is_ok()
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey")
    }
}

/// Who may see what the ledger holds.
#[derive(Debug, Default)]
pub enum Access {
    /// Whoever reaches a listener that only this machine reaches.
    #[default]
    Local,
    /// Who brings the key.
    Key(AdminKey),
    /// Nobody: others reach the listener, and there is no key.
    Nobody,
}

impl Access {
    /// The access to a listener, which only this machine reaches or not, with the key that is configured.
    pub fn of(key: Option<AdminKey>, is_loopback: bool) -> Self {
        match key {
            Some(key) => Self::Key(key),
            None if is_loopback => Self::Local,
            None => Self::Nobody,
        }
    }

    /// Whether a request may see it.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Local => Ok(()),
            Self::Key(key) if key.is_in(headers) => Ok(()),
            Self::Key(_) => Err(Refusal::unauthorized()),
            Self::Nobody => Err(Refusal::no_key()),
        }
    }
}

fn hashed(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

const SHORTEST: usize = 16;
const LONGEST: usize = 8192;

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const KEY: &str = "an-admin-key-of-some-length";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_the_key_opens_and_only_where_it_is_needed() {
        let open = |access: &Access, values: &[&str]| access.check(&headers(values)).is_ok();
        let key = || Some(AdminKey::parse(KEY).unwrap());
        let bearer = format!("Bearer {KEY}");
        for is_loopback in [true, false] {
            let access = Access::of(key(), is_loopback);
            assert!(open(&access, &[&bearer]) && open(&access, &[&bearer.replace("Bearer", "bearer")]));
            for wrong in [&[][..], &[KEY], &["Bearer"], &["Bearer "], &["Bearer x"], &["Basic x"], &[&bearer, &bearer]]
            {
                assert!(!open(&access, wrong), "{wrong:?}");
            }
            assert!(!open(&access, &[&format!("{bearer}x")]) && !open(&access, &[&bearer[..bearer.len() - 1]]));
        }
        assert!(open(&Access::of(None, true), &[]));
        assert!(!open(&Access::of(None, false), &[&bearer]));
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_being_shown() {
        for text in ["", "short", "with a space in between", "schl\u{fc}ssel-schl\u{fc}ssel"] {
            let flaw = AdminKey::parse(text).unwrap_err();
            assert!(text.is_empty() || !flaw.contains(text));
        }
        assert!(AdminKey::parse(&"k".repeat(8193)).is_err());
        assert!(AdminKey::parse(&format!("{KEY}\n")).unwrap().is_in(&headers(&[&format!("Bearer {KEY}")])));
        assert_eq!(format!("{:?}", AdminKey::parse(KEY).unwrap()), "AdminKey");
    }
}
