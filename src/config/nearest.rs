//! Names that are not keys: which key was probably meant, and whether somebody is about to write a secret down.

/// The known name that `key` was probably meant to be. A name of the same section comes first; a name that stands
/// in another section, letter by letter, comes second.
pub(super) fn key<'n>(key: &str, names: &[&'n str]) -> Option<&'n str> {
    // A distance takes time and memory by the product of both lengths.
    if key.len() > MAX_SHOWN {
        return None;
    }
    let wanted = key.to_lowercase().replace('-', "_");
    let (section, leaf) = split(&wanted);
    let near = |name: &&&str| split(name).0 == section;
    let distances = names.iter().filter(near).map(|name| (strsim::damerau_levenshtein(split(name).1, leaf), *name));
    let limit = (leaf.chars().count() / 3).max(1);
    let nearest = distances.min().filter(|(distance, _)| *distance <= limit).map(|(_, name)| name);
    let elsewhere = || names.iter().find(|name| split(name).1 == leaf).copied();
    let whole = || {
        let distances = names.iter().map(|name| (strsim::damerau_levenshtein(name, &wanted), *name));
        distances.min().filter(|(distance, _)| *distance <= 2).map(|(_, name)| name)
    };
    nearest.or_else(elsewhere).or_else(whole)
}

/// What to write instead of a secret, if a key's name says that one stands behind it.
pub(super) fn secret_advice(key: &str) -> Option<&'static str> {
    let leaf = split(key).1.to_lowercase().replace('-', "_");
    let secretive = SECRETIVE.iter().any(|word| leaf.ends_with(word));
    secretive.then_some(
        "secrets never stand in the configuration: name an environment variable in upstream.key_env, \
         or a file in upstream.key_file",
    )
}

/// A name as it may be printed: without control characters, and short, because a key can be any text.
pub(super) fn printable(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The section and the last part of a key.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// Ends of names behind which a secret stands.
const SECRETIVE: [&str; 7] = ["key", "token", "secret", "password", "credential", "bearer", "authorization"];

/// Longer names are none of ours, and are cut.
const MAX_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_of_the_same_section_or_equal_in_another() {
        let names = ["server.listen", "server.max_body", "admin.listen", "upstream.key_env", "server", "limits"];
        for (written, want) in [
            ("server.lisen", Some("server.listen")),
            ("admin.lisetn", Some("admin.listen")),
            ("server.max-body", Some("server.max_body")),
            ("server.MaxBody", Some("server.max_body")),
            ("limits.listen", Some("server.listen")),
            ("listen", Some("server.listen")),
            ("sever", Some("server")),
            ("sever.listen", Some("server.listen")),
            ("sever.max_bod", Some("server.max_body")),
            ("server.tls", None),
            ("teams", None),
            ("prices.grok", None),
        ] {
            assert_eq!(key(written, &names), want, "{written}");
        }
    }

    #[test]
    fn a_name_of_a_secret_is_answered_with_the_way_to_name_one() {
        for name in ["upstream.key", "upstream.api_key", "upstream.apiKey", "TOKEN", "server.admin-password"] {
            assert!(secret_advice(name).is_some(), "{name}");
        }
        for name in ["upstream.key_env", "upstream.key_file", "dedup.key_evn", "server.tls"] {
            assert!(secret_advice(name).is_none(), "{name}");
        }
    }

    #[test]
    fn printed_names_are_short_and_on_one_line() {
        assert_eq!(printable("a\nb"), "a\\nb");
        assert_eq!(printable(&"x".repeat(1000)).chars().count(), MAX_SHOWN + 1);
    }
}
