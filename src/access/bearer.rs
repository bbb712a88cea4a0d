//! The `Authorization` of a request, as RFC 6750 §2.1 has it: one, `Bearer`, in whatever case, and a credential.

use hyper::header::AUTHORIZATION;

use crate::request::head::Header;

/// What a request says of who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// Nothing, or something in another scheme.
    Absent,
    /// More than one, so that two readers could take it for two callers.
    Several,
    /// `Bearer` with something that can be no credential.
    Malformed,
    /// A credential.
    Credential(&'a str),
}

impl<'a> Bearer<'a> {
    /// Reads the header.
    pub fn read(header: &Header<'a>) -> Self {
        let mut values = header.lines(&AUTHORIZATION);
        let Some(value) = values.next() else { return Self::Absent };
        if values.next().is_some() {
            return Self::Several;
        }
        let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii());
        let Some(text) = text else { return Self::Malformed };
        let (scheme, credential) = text.split_at_checked(SCHEME.len()).unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case(SCHEME) || !matches!(credential.as_bytes().first(), None | Some(b' ')) {
            return Self::Absent;
        }
        let credential = credential.trim_ascii();
        // A header's value holds nothing else that is not graphic.
        let fits =
            (1..=LONGEST).contains(&credential.len()) && memchr::memchr2(b' ', b'\t', credential.as_bytes()).is_none();
        if fits { Self::Credential(credential) } else { Self::Malformed }
    }
}

const SCHEME: &str = "Bearer";
/// The longest credential, in bytes: a token is shorter.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn t38_one_bearer_in_any_case_is_a_credential_and_nothing_else_is() {
        let long = format!("Bearer {}", "x".repeat(LONGEST + 1));
        for (values, want) in [
            (&[][..], Bearer::Absent),
            (&["Bearer rg_x"], Bearer::Credential("rg_x")),
            (&["bEARER  rg_x "], Bearer::Credential("rg_x")),
            (&["Basic rg_x"], Bearer::Absent),
            (&["rg_x"], Bearer::Absent),
            (&[""], Bearer::Absent),
            (&["Bearer"], Bearer::Malformed),
            (&["Bearer "], Bearer::Malformed),
            (&["Bearer a b"], Bearer::Malformed),
            (&["Bearerrg_x"], Bearer::Absent),
            (&["Bearer\trg_x"], Bearer::Absent),
            (&["Bearer a\tb"], Bearer::Malformed),
            (&[&long], Bearer::Malformed),
            (&["Bearer a", "Bearer a"], Bearer::Several),
            (&["Basic a", "Bearer a"], Bearer::Several),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(Bearer::read(&Header::of(&headers)), want, "{values:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(Bearer::read(&Header::of(&headers)), Bearer::Malformed);
    }
}
