//! What is wrong with a configuration, and where it stands. A message names the key and what is allowed; it never
//! repeats what was written, because a secret may have been pasted there.

use std::fmt;
use std::sync::Arc;

/// Where a value was written. Sorted as a reader would go through them: the file first, then the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File(Arc<str>),
    /// A line of the file, counted from 1.
    Line(Arc<str>, usize),
    /// An environment variable, by name.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => out.write_str(file),
            Self::Line(file, line) => write!(out, "{file}:{line}"),
            Self::Variable(name) => out.write_str(name),
        }
    }
}

/// A file's name and where its lines begin, so that a place is found without counting from the top each time.
pub(super) struct Source {
    file: Arc<str>,
    /// The offset behind each line's end.
    ends: Vec<usize>,
    /// Whether nothing but white space stands in it.
    is_blank: bool,
}

impl Source {
    /// The lines of `text`.
    pub(super) fn new(file: Arc<str>, text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end.saturating_add(1)).collect();
        Self { file, ends, is_blank: text.trim().is_empty() }
    }

    /// The line of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> Place {
        let before = self.ends.partition_point(|end| *end <= offset);
        Place::Line(Arc::clone(&self.file), before.saturating_add(1))
    }

    /// Where it is, if nothing but white space stands in it.
    pub(super) fn blank(&self) -> Option<Place> {
        self.is_blank.then(|| self.whole())
    }

    /// The file as a whole.
    pub(super) fn whole(&self) -> Place {
        Place::File(Arc::clone(&self.file))
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it stands; `None` where a default is at fault.
    pub place: Option<Place>,
    /// The key, `server.listen`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Fault {
    /// A fault of the file itself.
    pub(super) fn of_file(place: Place, message: String) -> Self {
        Self { place: Some(place), key: String::new(), message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(out, "{place}: ")?;
        }
        // A variable's name already says which key it sets.
        if !self.key.is_empty() && !matches!(self.place, Some(Place::Variable(_))) {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, one fault a line, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Sorts the faults; `Err` if there are any.
    pub(super) fn none(mut faults: Vec<Fault>) -> Result<(), Self> {
        faults.sort_by(|one, other| (one.place.is_none(), one).cmp(&(other.place.is_none(), other)));
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }

    /// The faults themselves.
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(MOST_FAULTS).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{fault}")?;
        }
        match self.0.len().saturating_sub(MOST_FAULTS) {
            0 => Ok(()),
            more => write!(out, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Faults {}

/// More faults than that are counted, not told: the file is none of ours.
pub(super) const MOST_FAULTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_stand_in_the_order_of_the_file_then_the_environment_then_the_rest() {
        let fault = |place, key: &str| Fault { place, key: key.to_owned(), message: "wrong".to_owned() };
        let file: Arc<str> = "reelgate.toml".into();
        let faults = Faults::none(vec![
            fault(None, "c"),
            fault(Some(Place::Variable("REELGATE_A__B".to_owned())), "a.b"),
            fault(Some(Place::Line(Arc::clone(&file), 12)), "b"),
            fault(Some(Place::Line(file, 2)), "a"),
        ]);
        let text = faults.unwrap_err().to_string();
        assert_eq!(text, "reelgate.toml:2: a: wrong\nreelgate.toml:12: b: wrong\nREELGATE_A__B: wrong\nc: wrong");
    }

    #[test]
    fn no_faults_are_no_error() {
        assert_eq!(Faults::none(Vec::new()), Ok(()));
    }
}
