//! The name of a field inside a body, as people write it: `image.url`, `keyframes[0].image.url`.

use std::fmt::Write as _;

use serde_json::Value;

/// How much of one key is shown, in characters: unknown keys are the client's own.
const SHOWN_KEY: usize = 64;

/// A field's path, grown and cut back while a body is walked.
#[derive(Default)]
pub(super) struct Path(String);

impl Path {
    /// The path of what a JSON pointer (RFC 6901) points at in `value`.
    pub(super) fn of_pointer(pointer: &str, mut value: &Value) -> Self {
        let mut path = Self::default();
        for step in pointer.split('/').skip(1) {
            let key = step.replace("~1", "/").replace("~0", "~");
            let inner = match value {
                Value::Array(items) => step.parse().ok().and_then(|index| {
                    path.push_index(index);
                    items.get(index)
                }),
                _ => {
                    path.push_key(&key);
                    value.get(&key)
                }
            };
            value = inner.unwrap_or(&Value::Null);
        }
        path
    }

    /// Goes into a field; returns where to cut back to.
    pub(super) fn push_key(&mut self, key: &str) -> usize {
        let length = self.0.len();
        if !self.0.is_empty() {
            self.0.push('.');
        }
        match key.char_indices().nth(SHOWN_KEY) {
            None => self.0.push_str(key),
            Some((end, _)) => {
                self.0.push_str(key.get(..end).unwrap_or_default());
                self.0.push('…');
            }
        }
        length
    }

    /// Goes into an item; returns where to cut back to.
    pub(super) fn push_index(&mut self, index: usize) -> usize {
        let length = self.0.len();
        // Writing to a String cannot fail.
        let _ = write!(self.0, "[{index}]");
        length
    }

    /// Goes into any item of an array; returns where to cut back to.
    pub(super) fn push_any(&mut self) -> usize {
        let length = self.0.len();
        self.0.push_str("[]");
        length
    }

    /// Comes back from where `push_…` went.
    pub(super) fn cut(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// The path as text; empty for the body as a whole.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of a field inside what this path names.
    pub(super) fn with(&self, key: &str) -> String {
        let mut path = Self(self.0.clone());
        path.push_key(key);
        path.0
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_become_paths_as_people_write_them() {
        let body = json!({"image": {"url": 1}, "keyframes": [{"image": {"url": 1}}], "0": {"a/b~c": 1}, "": 1});
        for (pointer, want) in [
            ("", ""),
            ("/image/url", "image.url"),
            ("/keyframes/0/image/url", "keyframes[0].image.url"),
            ("/0/a~1b~0c", "0.a/b~c"),
            ("/", ""),
        ] {
            assert_eq!(Path::of_pointer(pointer, &body).as_str(), want, "{pointer}");
        }
        let long = format!("/{}", "é".repeat(1000));
        assert_eq!(Path::of_pointer(&long, &body).as_str().chars().count(), SHOWN_KEY + 1);
    }
}
