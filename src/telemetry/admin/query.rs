//! The parameters of a page: each one known, given once and readable, or the request is refused with its name.

use super::refusal::Refusal;

/// The parameters of a request that are still to be read.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of a query string.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Refusal> {
        let mut all: Vec<(String, String)> = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Refusal::bad("query", "the query string cannot be decoded"));
            };
            if all.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::bad(&shown(&name), "this parameter is given twice"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// The text of a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(each, _)| each == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// A parameter that `read` understands.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.take(name) else { return Ok(None) };
        read(&text).map(Some).ok_or_else(|| Refusal::bad(name, format!("{name}: expected {expected}")))
    }

    /// How many lines are wanted.
    pub(super) fn limit(&mut self, name: &str, usual: usize, most: usize) -> Result<usize, Refusal> {
        let within = |text: &str| text.parse().ok().filter(|limit| (1..=most).contains(limit));
        match self.take(name) {
            None => Ok(usual),
            Some(text) => {
                within(&text).ok_or_else(|| Refusal::bad(name, format!("{name}: expected a number from 1 to {most}")))
            }
        }
    }

    /// Refuses what nobody has asked for.
    pub(super) fn end(self, known: &'static str) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let message = if known.is_empty() {
                    "this path takes no parameters".to_owned()
                } else {
                    format!("no such parameter: there are {known}")
                };
                Err(Refusal::bad(&shown(name), message))
            }
        }
    }
}

/// A name as it may be repeated: short, and without what a terminal would act on.
fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(64).collect()
}

/// Percent-decoded; a plus is a blank, as forms write it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (rest.next()?, rest.next()?);
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(high)? << 4 | digit(low)?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_all_must_be_known() {
        let mut query = Query::parse(Some("team=a%2Fb+c&limit=7&&state")).unwrap();
        assert_eq!(query.take("team").as_deref(), Some("a/b c"));
        assert_eq!(query.limit("limit", 1, 10).unwrap(), 7);
        assert_eq!(query.take("state").as_deref(), Some(""));
        assert!(query.take("team").is_none() && query.end("nothing").is_ok());
        for text in ["a=1&a=2", "a=%f", "a=%ff", "a=%zz", "%00%80=1"] {
            assert!(Query::parse(Some(text)).is_err(), "{text}");
        }
        for text in ["limit=0", "limit=11", "limit=x", "limit=", "limit=-1"] {
            assert!(Query::parse(Some(text)).unwrap().limit("limit", 1, 10).is_err(), "{text}");
        }
        assert!(Query::parse(Some("x=1")).unwrap().end("y").is_err());
        assert!(Query::parse(None).unwrap().end("").is_ok());
    }
}
