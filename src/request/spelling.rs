//! The names of fields, to a parser that does not mind the case of letters: to one like Go's, `Model` is `model`, and of
//! two the last counts. So what decides about access or money counts every spelling; the bytes go on as they came.

use std::cmp::Ordering;

use serde_json::Value;

/// The fields of a body that such a parser takes for the one named `name`, which is plain and in small letters.
pub fn others<'a>(body: &'a Value, name: &'static str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let fields = body.as_object().into_iter().flatten();
    fields
        .filter(move |(field, _)| *field != name && is_spelt(field, name))
        .map(|(field, value)| (field.as_str(), value))
}

/// The text under `name`, or `usual` where there is none; `None` where it is no text, or where another spelling says
/// something else: then nobody can tell what the upstream will read.
pub fn text<'a>(body: &'a Value, name: &'static str, usual: &'a str) -> Option<&'a str> {
    let text = body.get(name).map_or(Some(usual), Value::as_str)?;
    others(body, name).all(|(_, other)| other.as_str() == Some(text)).then_some(text)
}

fn is_spelt(field: &str, name: &str) -> bool {
    // Letters beyond ASCII take more bytes than the ones they are folded to.
    match field.len().cmp(&name.len()) {
        Ordering::Less => return false,
        Ordering::Equal => return field.eq_ignore_ascii_case(name),
        Ordering::Greater if field.is_ascii() => return false,
        Ordering::Greater => {}
    }
    // The two letters beyond ASCII whose other case is within it.
    let fold = |letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    field.chars().map(fold).eq(name.chars())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_spellings_are_found_and_other_names_are_not() {
        let body =
            json!({"seconds": 1, "Seconds": 2, "\u{17f}econd\u{17f}": 3, "second": 4, "sec onds": 5, "Séconds": 6});
        let found: Vec<_> = others(&body, "seconds").map(|(_, value)| value.as_u64().unwrap()).collect();
        assert_eq!(found, [2, 3]);
        assert_eq!(others(&json!({"toKen": 1, "to\u{212a}en": 2, "token": 3}), "token").count(), 2);
        assert_eq!(others(&json!([{"Model": 1}]), "model").count(), 0);
    }

    #[test]
    fn a_text_is_known_only_where_all_spellings_say_the_same() {
        for (body, want) in [
            (json!({}), Some("usual")),
            (json!({"model": "a"}), Some("a")),
            (json!({"model": "a", "Model": "a"}), Some("a")),
            // A parser that minds the case reads the usual one here.
            (json!({"MODEL": "usual"}), Some("usual")),
            (json!({"MODEL": "a"}), None),
            (json!({"model": "a", "mOdel": "b"}), None),
            (json!({"model": "a", "Model": null}), None),
            (json!({"model": ["a"]}), None),
        ] {
            assert_eq!(text(&body, "model", "usual"), want, "{body}");
        }
    }
}
