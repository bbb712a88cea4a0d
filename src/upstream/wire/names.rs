//! How the fields of answers are called. An upstream names them alike each time: to compare them with what they were called
//! before costs a fraction of reading them and of judging them anew.

use httparse::Header;
use hyper::header::HeaderName;

use super::Malformed;
use crate::upstream::headers;

/// The forms that answers had, the last one first.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Names(Vec<Form>);

/// The names of one answer's fields, in their order, and what becomes of each.
#[derive(Debug)]
pub(super) struct Form {
    /// As they came, one behind the other.
    came: String,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    /// Where its name ends in all of them.
    end: usize,
    /// What clients are told it is called; `None` if it does not pass to them.
    name: Option<HeaderName>,
}

impl Names {
    /// The form of an answer with these fields.
    pub(super) fn of(&mut self, fields: &[Header<'_>]) -> Result<&Form, Malformed> {
        match self.0.iter().position(|form| form.is_of(fields)) {
            Some(0) => {}
            Some(place) => self.0.swap(0, place),
            None => {
                self.0.truncate(MOST_FORMS - 1);
                self.0.insert(0, Form::read(fields)?);
            }
        }
        self.0.first().ok_or(Malformed)
    }
}

impl Form {
    fn read(fields: &[Header<'_>]) -> Result<Self, Malformed> {
        let is_id = |field: &Header<'_>| field.name.eq_ignore_ascii_case(headers::REQUEST_ID.as_str());
        let id = fields.iter().position(is_id);
        let (mut came, mut places) = (String::new(), Vec::with_capacity(fields.len()));
        for (place, field) in fields.iter().enumerate() {
            came.push_str(field.name);
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
            let name = if is_id(field) {
                (id == Some(place)).then_some(headers::UPSTREAM_REQUEST_ID)
            } else {
                // Of two request ids the upstream's own is told.
                let is_second = id.is_some() && name == headers::UPSTREAM_REQUEST_ID;
                Some(name).filter(|_| headers::is_passed(field.name) && !is_second)
            };
            places.push(Place { end: came.len(), name });
        }
        Ok(Self { came, places })
    }

    fn is_of(&self, fields: &[Header<'_>]) -> bool {
        let mut start = 0;
        fields.len() == self.places.len()
            && fields.iter().zip(&self.places).all(|(field, place)| {
                let known = self.came.get(std::mem::replace(&mut start, place.end)..place.end);
                known == Some(field.name)
            })
    }

    /// The fields that pass, of those that have this form, and what clients are told they are called.
    pub(super) fn passing<'a>(
        &'a self,
        fields: &'a [Header<'a>],
    ) -> impl Iterator<Item = (&'a HeaderName, &'a Header<'a>)> {
        self.places.iter().zip(fields).filter_map(|(place, field)| Some((place.name.as_ref()?, field)))
    }
}

/// So many forms are known: an answer about a job that is over may have other fields than one about a job that runs.
const MOST_FORMS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&'static str]) -> Vec<Header<'static>> {
        names.iter().map(|name| Header { name, value: b"" }).collect()
    }

    /// What clients are told these fields are called.
    fn told(names: &mut Names, came: &[&'static str]) -> Result<Vec<String>, Malformed> {
        let fields = fields(came);
        let form = names.of(&fields)?;
        Ok(form.passing(&fields).map(|(name, _)| name.to_string()).collect())
    }

    #[test]
    fn names_are_the_same_whether_they_are_known_or_not() {
        let mut names = Names::default();
        let heads: [(&[&str], &[&str]); 8] = [
            (&["Content-Type", "Server", "X-A"], &["content-type", "x-a"]),
            (&["content-type", "X-A"], &["content-type", "x-a"]),
            (&["Content-Type", "X-A", "Server"], &["content-type", "x-a"]),
            (&["content-typeX", "-A"], &["content-typex", "-a"]),
            (&[], &[]),
            (&["Vary", "Link", "vary"], &["vary", "link", "vary"]),
            (&["X-Request-Id", "x-request-id", "X-A"], &["reelgate-upstream-request-id", "x-a"]),
            (&["reelgate-upstream-request-id", "X-Request-Id"], &["reelgate-upstream-request-id"]),
        ];
        // By turns: each is new, known and last, and known and not last.
        for pair in heads.windows(2) {
            for (came, want) in [pair, pair].concat() {
                let want = want.iter().map(ToString::to_string).collect();
                assert_eq!(told(&mut names, came), Ok(want), "{came:?}");
                assert!(names.0.len() <= MOST_FORMS);
            }
        }
        assert_eq!(told(&mut names, &["X-A", "no name"]), Err(Malformed));
        assert_eq!(told(&mut names, &["X-A"]), Ok(vec!["x-a".into()]));
    }
}
