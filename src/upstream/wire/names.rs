//! How the fields of the last answer were called. An upstream names them alike each time, and to compare a name costs a
//! fifth of reading it.

use hyper::header::HeaderName;

use super::Malformed;
use crate::upstream::headers;

/// The names of fields, each at the place where it stood last.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Names(Vec<Known>);

#[derive(Debug)]
struct Known {
    /// As it came.
    came: Box<str>,
    name: Option<HeaderName>,
}

impl Names {
    /// What the field at this place is called; `None` if it does not pass to clients.
    pub(super) fn read(&mut self, place: usize, came: &str) -> Result<Option<HeaderName>, Malformed> {
        if let Some(known) = self.0.get(place).filter(|known| *known.came == *came) {
            return Ok(known.name.clone());
        }
        let read = || HeaderName::from_bytes(came.as_bytes()).map_err(|_| Malformed);
        let name = headers::is_passed(came).then(read).transpose()?;
        if came.len() <= LONGEST {
            let known = Known { came: came.into(), name: name.clone() };
            match self.0.get_mut(place) {
                Some(last) => *last = known,
                None => self.0.push(known),
            }
        }
        Ok(name)
    }
}

/// A longer name is not remembered.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_whether_they_are_known_or_not() {
        let long = "x-".repeat(LONGEST);
        let mut names = Names::default();
        for head in [
            &["Content-Type", "Server", "X-A"][..],
            &["Content-Type", "Server", "X-A"],
            &["content-type", "X-A"],
            &[&long, "Content-Type", "x-a", "server"],
            &["Content-Type", "Server", &long, "X-A"],
        ] {
            for (place, came) in head.iter().enumerate() {
                let fresh = (!came.eq_ignore_ascii_case("server")).then(|| came.to_ascii_lowercase());
                assert_eq!(names.read(place, came).unwrap().map(|name| name.to_string()), fresh, "{came}");
            }
        }
        assert_eq!(names.read(0, "no name"), Err(Malformed));
    }
}
