//! The configuration as its users meet it: files, overrides, and what is said about them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::*;
use crate::admission::settings::Rate;
use crate::request::route::Operation;
use crate::request::settings::SchemaSource;
use crate::upstream::settings::Roots;

/// A folder of its own for one test, gone at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("reelgate-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn any_schema(_: Operation, _: &str) -> Result<(), String> {
    Ok(())
}

fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let overrides = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    reading_text(&"reelgate.toml".into(), text, overrides, |reader| Config::from_reader(reader, &any_schema).finish())
}

pub(super) fn read(text: &str) -> Result<Config, Faults> {
    read_with(text, &[])
}

fn faults(text: &str) -> Vec<String> {
    read(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[track_caller]
pub(super) fn refused(text: &str, wanted: &str) {
    let told = faults(text);
    assert!(told.len() == 1 && told[0].contains(wanted), "{text}\n  wanted: {wanted}\n  told: {told:?}");
}

const DOCUMENTED: &str = include_str!("../../config/reelgate.toml");

#[test]
fn the_documented_file_is_the_default() {
    assert_eq!(read(DOCUMENTED), Ok(Config::default()));
    assert_eq!(read(""), Ok(Config::default()));
    assert_eq!(Config::load(None, [], &any_schema), Ok(Config::default()));
}

#[test]
fn the_documented_file_has_every_key_and_no_other() {
    fn names(section: &str, table: &DeTable<'_>, into: &mut BTreeSet<String>) {
        for (name, value) in table {
            let key =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            match value.get_ref() {
                DeValue::Table(inner) => names(&key, inner, into),
                _ => assert!(into.insert(key.clone()), "{key} stands twice"),
            }
        }
    }
    let (mut documented, document) = (BTreeSet::new(), DeTable::parse(DOCUMENTED).unwrap());
    names("", document.get_ref(), &mut documented);
    let read: BTreeSet<String> = Config::default().values().into_iter().map(|(key, _)| key).collect();
    assert_eq!(documented, read);
}

#[test]
fn every_documented_key_says_why_and_what_needs_a_restart_says_so() {
    for line in DOCUMENTED.lines().filter(|line| line.contains(" = ")) {
        let named = line.starts_with("lost_call_codes") || line.contains('#');
        assert!(named, "no reason is given: {line}");
    }
    let marked = DOCUMENTED.lines().filter(|line| line.ends_with("(restart)")).count();
    assert_eq!(marked, reload::RESTART.len(), "{:?}", reload::RESTART);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = "[server]\nlisen = \"127.0.0.1:1\"\nmax_body = \"32 parsecs\"\n\n[limits.user]\ngenerations = \"0/minute\"\n\
                [ledger]\nkind = \"paper\"\n[access]\nmode = \"key\"\n[teams]\n";
    let told = read_with(text, &[("REELGATE_LOG__LEVEL", "loud")]).unwrap_err().to_string();
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [
            "reelgate.toml:2: server.lisen: unknown key: did you mean listen?",
            "reelgate.toml:3: server.max_body: expected a size such as \"4096\", \"64 KiB\", \"32 MiB\" or \"1 GiB\", \
             from 1 KiB to 1 GiB",
            "reelgate.toml:6: limits.user.generations: expected a rate such as \"6/minute\" \
             (1 to 1000000 a /second, /minute, /hour or /day), or \"off\"",
            "reelgate.toml:8: ledger.kind: expected \"disk\", \"memory\" or \"redis\"",
            "reelgate.toml:10: access.mode: expected \"open\" or \"keys\"",
            "reelgate.toml:11: teams: expected tables: [[teams]]",
            "REELGATE_LOG__LEVEL: expected \"error\", \"warn\", \"info\" or \"debug\"",
        ]
    );
}

#[test]
fn a_section_that_is_no_table_and_a_table_that_is_no_section_are_refused() {
    refused("server = 3", "reelgate.toml:1: server: expected a table: [server]");
    refused("[server]\ncors = []", "server.cors: expected a table: [server.cors]");
    refused("[server.listen]\nport = 1", "server.listen: expected an IP address and a port");
    refused("[server.tls]\nkey_pem = \"x\"", "reelgate.toml:2: server.tls.key_pem: unknown key");
    refused(
        "[server]\ntrusted_proxies = [\"proxy.example\"]",
        "server.trusted_proxies: expected a list of addresses and",
    );
    refused(
        "[server]\ntrusted_proxies = [\"0.0.0.0/0\"]",
        "server.trusted_proxies: a network of length 0 is everybody",
    );
    refused("listen = \"127.0.0.1:1\"", "listen: unknown key: did you mean server.listen?");
    refused("[upstream]\n\"a\\nb\" = 1", "upstream.a\\nb: unknown key");
}

#[test]
fn a_secret_in_the_wrong_place_is_never_repeated() {
    let secret = "sk-Zm9vYmFyYmF6cXV4";
    for text in [
        format!("[upstream]\nkey = \"{secret}\""),
        format!("[upstream]\napi_key = \"{secret}\""),
        format!("[upstream]\nkey_env = \"{secret}\""),
        format!("[upstream]\nurl = \"https://user:{secret}@api.cometapi.com\""),
        format!("[upstream]\nkey = \"{secret}"),
        format!("[upstream]\nkey = {secret}"),
        format!("[upstream]\nkey_env {secret}"),
        format!("[upstream]\n{secret}"),
        format!("[upstream]\nconnect_timeout = \"{secret}\""),
        format!("[access]\nmode = \"{secret}\""),
        format!("[server.cors]\nallowed_origins = [\"{secret}\"]"),
        format!("[dedup]\nkey_env = \"{secret}\""),
    ] {
        let told = read(&text).expect_err(&text);
        assert!(!format!("{told}\n{told:?}").contains(&secret[3..]), "{told}");
    }
    refused(&format!("[upstream]\nkey = \"{secret}\""), "reelgate.toml:2: upstream.key: secrets never stand");
    let told = read_with("", &[("REELGATE_UPSTREAM__KEY", secret)]).unwrap_err().to_string();
    assert!(told.starts_with("REELGATE_UPSTREAM__KEY: secrets never stand") && !told.contains(secret), "{told}");
}

#[test]
fn a_file_full_of_faults_is_told_in_bounded_lines() {
    let unknown: String = (0..50_000).map(|number| format!("serve{number} = 1\n")).collect();
    let told = faults(&unknown);
    assert_eq!(told.len(), 101);
    assert_eq!(told[0], "reelgate.toml:1: serve0: unknown key: did you mean server?");
    assert_eq!(told[100], "and 49900 more");
    assert!(faults(&"= ]\n".repeat(100_000)).len() <= 101);
    refused(&format!("{} = 1", "x".repeat(500_000)), "…: unknown key");
}

#[test]
fn a_syntax_error_is_told_with_its_line() {
    assert_eq!(faults("[server]\nlisten = \n")[0].split(": ").next(), Some("reelgate.toml:2"));
    refused("[log]\nlevel = \"info\"\nlevel = \"warn\"", "reelgate.toml:3: duplicate key");
    for value in ["127.0.0.1:80", "6/minute"] {
        refused(
            &format!("[a]\nb = {value}"),
            "reelgate.toml:2: invalid float, expected nothing: text stands in quotes",
        );
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = [
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:9000"),
        ("REELGATE_SERVER__CORS__ALLOWED_ORIGINS", "[\"https://a.example\", 'http://localhost:3000']"),
        ("REELGATE_LIMITS__USER__GENERATIONS", "off"),
        ("REELGATE_LIMITS__TOTAL__GENERATIONS", "7 / hour"),
        ("REELGATE_SERVER__MAX_BODY", "\"1 MiB\""),
        ("REELGATE_UPSTREAM__CONNECT_TIMEOUT", "500ms"),
        ("REELGATE_UPSTREAM__ALLOW_HTTP", "true"),
        ("REELGATE_UPSTREAM__ROOTS", "system"),
        ("REELGATE_DEDUP__HOLD_STATUSES", "[502]"),
        ("REELGATE_DEDUP__MAX_WAITERS", "5"),
    ];
    let config = read_with("[server]\nlisten = 3\n[upstream]\nroots = \"bundled\"", &environment).unwrap();
    assert_eq!(config.server.listen, SocketAddr::from(([127, 0, 0, 1], 9000)));
    assert_eq!(config.server.cors.allowed_origins, ["https://a.example", "http://localhost:3000"]);
    assert_eq!(config.limits.user.generations, None);
    assert_eq!(config.limits.total.generations, Some(Rate { count: 7, per: Duration::from_secs(3600) }));
    assert_eq!(config.server.max_body, 1 << 20);
    assert_eq!(config.upstream.connect_timeout, Duration::from_millis(500));
    assert!(config.upstream.allow_http);
    assert_eq!(config.upstream.roots, Roots::System);
    assert_eq!(config.dedup.hold_statuses, [502]);
    assert_eq!(config.dedup.max_waiters, 5);
}

#[test]
fn an_override_that_matches_no_key_is_refused_with_the_nearest() {
    for (name, wanted) in [
        ("REELGATE_SERVER__LISEN", "no such key: did you mean REELGATE_SERVER__LISTEN?"),
        ("REELGATE_SERVR__LISTEN", "no such key: did you mean REELGATE_SERVER__LISTEN?"),
        ("REELGATE_CORS__ALLOWED_ORIGINS", "no such key: did you mean REELGATE_SERVER__CORS__ALLOWED_ORIGINS?"),
        ("REELGATE_server__listen", "no such key: did you mean REELGATE_SERVER__LISTEN?"),
        ("REELGATE_LEDGER__PATHS", "no such key: did you mean REELGATE_LEDGER__PATH?"),
        ("REELGATE__SERVER__LISTEN", "no such key: did you mean REELGATE_SERVER__LISTEN?"),
        ("REELGATE__", "no such key"),
        ("REELGATE_SERVER_LISTEN", "no such key: did you mean REELGATE_SERVER__LISTEN?"),
        ("REELGATE_LIMITS_USER_REQUESTS", "no such key: did you mean REELGATE_LIMITS__USER__REQUESTS?"),
    ] {
        let told = Config::load(None, [(name.to_owned(), "1".to_owned())], &any_schema).unwrap_err().to_string();
        assert_eq!(told, format!("{name}: {wanted}"));
    }
    let free = ["REELGATE_REDIS_URL", "REELGATE_SERVICE_HOST", "SERVER__LISTEN", "reelgate_server__listen"];
    let free = free.map(|name| (name.to_owned(), "1".to_owned()));
    assert_eq!(Config::load(None, free, &any_schema), Ok(Config::default()));
}

#[test]
fn f70_eight_bad_files_are_refused_each_with_its_cause() {
    let folder = Folder::new("f70");
    let cut = DOCUMENTED.split_at(DOCUMENTED.find("\"256 MiB").unwrap() + 4).0;
    for (name, content, wanted) in [
        ("syntax.toml", b"[server\n".to_vec(), "syntax.toml:1: "),
        ("unknown.toml", b"[server]\nlisen = 1\n".to_vec(), "unknown.toml:2: server.lisen: unknown key"),
        ("large.toml", vec![b'#'; 10 << 20], "large.toml: longer than 1 MiB"),
        (
            "zero.toml",
            b"[limits.user]\nrequests = \"0/minute\"\n".to_vec(),
            "zero.toml:2: limits.user.requests: expected",
        ),
        (
            "key.toml",
            b"[upstream]\nkey_file = \"/nowhere/key\"\n".to_vec(),
            "key.toml:2: upstream.key_file: cannot be read",
        ),
        ("half.toml", cut.as_bytes().to_vec(), "half.toml:"),
        ("binary.toml", b"[log]\n\xff\xfe".to_vec(), "binary.toml: line 2 is not UTF-8"),
    ] {
        let file = folder.write(name, content);
        let told = Config::load(Some(&file), [], &any_schema).unwrap_err();
        assert!(told.as_slice().len() == 1 && told.to_string().contains(wanted), "{name}: {told}");
    }
    let told = Config::load(Some(&folder.path("missing.toml")), [], &any_schema).unwrap_err().to_string();
    assert!(told.contains("missing.toml: cannot be read: No such file"), "{told}");
    assert!(Config::load(Some(Path::new("/dev/zero")), [], &any_schema).is_err());
}

#[test]
fn schema_files_are_tried() {
    let folder = Folder::new("schemas");
    let file = folder.write("edits.json", "not a schema");
    let text = format!("[validation]\nedits = {:?}", file.to_str().unwrap());
    let load = |schema: SchemaCheck<'_>| {
        reading_text(&"reelgate.toml".into(), &text, BTreeMap::new(), |reader| {
            Config::from_reader(reader, schema).finish()
        })
    };
    assert_eq!(load(&any_schema).unwrap().validation.edits, SchemaSource::File(file.clone()));
    let told = load(&|operation, text| Err(format!("{operation:?} {text}"))).unwrap_err().to_string();
    assert_eq!(told, "reelgate.toml:2: validation.edits: Edits not a schema");
}

#[test]
fn a_new_model_is_a_new_row_and_a_wrong_price_is_told() {
    let config = read("[prices.\"my model\"]\n\"480p\" = 1\n[prices.grok-imagine-video]\n\"480p\" = 0.04").unwrap();
    let price = |model: &str, resolution: &str| config.prices.rows[model].second[resolution].to_string();
    assert_eq!(
        (price("my model", "480p"), price("grok-imagine-video", "480p")),
        ("1.00".to_owned(), "0.04".to_owned())
    );
    assert_eq!(price("grok-imagine-video", "720p"), "0.07", "what is not written stays");
    refused("[prices.a]\n\"480p\" = -1", "prices.a.480p: expected an amount in US dollars");
    refused("[prices.a]\nhd = 1", "prices.a.hd: unknown key");
}

#[test]
fn where_the_admin_listener_is_hangs_on_no_other_key() {
    let folder = Folder::new("admin-listen");
    let file =
        folder.write("reelgate.toml", "[admin]\nlisten = \"127.0.0.1:9\"\n[server]\nlisten = \"0.0.0.0:1\"\nx = 1");
    let environment = |value: &str| {
        [("REELGATE_ADMIN__LISTEN", value), ("REELGATE_X__Y", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let foreign = [("REELGATE_SERVER__LISTEN".to_owned(), "0.0.0.0:1".to_owned())];
    assert!(Config::load(None, foreign.clone(), &any_schema).is_err());
    assert_eq!(Config::admin_listen(None, foreign), Ok(Config::default().admin.listen));
    assert_eq!(Config::admin_listen(Some(&file), []), Ok("127.0.0.1:9".parse().unwrap()));
    assert_eq!(Config::admin_listen(Some(&file), environment("[::1]:9")), Ok("[::1]:9".parse().unwrap()));
    let told = Config::admin_listen(Some(&file), environment("nowhere")).unwrap_err();
    assert_eq!(told.as_slice().len(), 1, "{told}");
    let broken = folder.write("broken.toml", "[admin");
    assert!(Config::admin_listen(Some(&broken), []).is_err());
}

#[test]
fn what_others_find_in_a_draft_is_told_with_the_rest_and_not_of_what_is_at_fault_already() {
    let text = "[server]\nlisten = 3\n[upstream]\nroots = \"/nonexistent/roots.pem\"\nurl = \"https://api.example\"";
    let tried = |keys: &[&str]| {
        let draft = |reader: Reader<'_>| {
            let mut draft = Config::from_reader(reader, &any_schema);
            draft.try_out(keys, |_| Err("it is strange"));
            draft.finish()
        };
        reading_text(&"reelgate.toml".into(), text, BTreeMap::new(), draft).unwrap_err().to_string()
    };
    assert!(tried(&["upstream.url"]).contains("\nreelgate.toml:5: it is strange"), "{}", tried(&["upstream.url"]));
    assert!(tried(&["polls.watch"]).contains("\nit is strange"));
    for keys in [&["server.listen"][..], &["upstream.roots"], &["upstream.url", "server.listen"]] {
        assert_eq!(tried(keys).lines().count(), 2, "{keys:?}");
    }
}
