//! What `reelgate check` says is what `reelgate serve` does (`DESIGN.md` §2; F-46).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reelgate::simulator::Options;

use super::support::process::{Program, Served};
use super::support::{Authority, Folder, key_is_absent, random_key};

/// A key for operators, and one for fingerprints, as they should be.
const GOOD: [(&str, &str); 3] = [
    ("OPERATORS", "an-admin-key-0123456789"),
    ("PROMPTS", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"),
    ("REELGATE_REDIS_URL", "redis://:a-password@127.0.0.1:1/0"),
];

const NAMED: &str = "[admin]\nkey_env = \"OPERATORS\"\n[dedup]\nkey_env = \"PROMPTS\"\nformer_key_env = \"PROMPTS\"\n\
                     [ledger]\nkind = \"redis\"\n";

/// What `check` and `serve` say of a configuration and an environment: their statuses, and their words.
async fn told(folder: &Folder, text: &str, environment: &[(&str, &str)]) -> [(i32, String); 2] {
    let file = folder.write("reelgate.toml", text);
    let listen = [
        ("COMETAPI_KEY", "k"),
        ("REELGATE_SERVER__LISTEN", "127.0.0.1:0"),
        ("REELGATE_ADMIN__LISTEN", "127.0.0.1:0"),
        ("REELGATE_LEDGER__PATH", folder.as_ref().to_str().unwrap()),
    ];
    let all = [&listen[..], environment].concat();
    let told = async |command| Program::run(&[command, "--config", file.to_str().unwrap()], &all).await;
    [told("check").await, told("serve").await]
}

#[tokio::test]
async fn f46_check_and_serve_refuse_the_same_secrets_at_once_and_tell_none() {
    let folder = Folder::new();
    let bad = [("OPERATORS", "short"), ("PROMPTS", "sesame-sesame"), ("REELGATE_REDIS_URL", "http://nonsense")];
    for (status, output) in told(&folder, &(NAMED.to_owned() + "lease = \"now\"\n"), &bad).await {
        assert_eq!(status, 2, "{output}");
        for part in [
            "reelgate.toml:2: admin.key_env: OPERATORS cannot be used: an admin key has 16 to 8192 characters",
            "reelgate.toml:4: dedup.key_env: PROMPTS cannot be used: a fingerprint key is 64 hex digits",
            "reelgate.toml:5: dedup.former_key_env: PROMPTS cannot be used",
            "\nledger.redis_url_env: REELGATE_REDIS_URL cannot be used",
            "reelgate.toml:8: ledger.lease: expected",
        ] {
            assert_eq!(output.matches(part).count(), 1, "{part} in {output}");
        }
        assert_eq!(output.lines().count(), 5, "{output}");
        for (_, secret) in bad {
            key_is_absent(secret, "what was told", output.as_bytes());
        }
    }
}

#[tokio::test]
async fn f46_what_is_wrong_with_the_way_to_redis_ends_check_and_serve_with_2() {
    let folder = Folder::new();
    let roots = |name, text: &str| format!("{NAMED}redis_roots = \"{}\"\n", folder.write(name, text).display());
    let text = (NAMED.to_owned(), roots("none.pem", "no certificate"), roots("one.pem", &Authority::new().pem()));
    for (text, url, part) in [
        (&text.0, "http://nonsense", "ledger.redis_url_env: REELGATE_REDIS_URL cannot be used"),
        (&text.0, "", "ledger.redis_url_env: REELGATE_REDIS_URL cannot be used"),
        (&text.1, "rediss://127.0.0.1:1", "reelgate.toml:8: ledger.redis_roots: expected a PEM file"),
        (&text.2, "redis://127.0.0.1:1", "ledger.redis_roots is for URLs with rediss://"),
    ] {
        let environment = [&GOOD[..2], &[("REELGATE_REDIS_URL", url)]].concat();
        for (status, output) in told(&folder, text, &environment).await {
            assert!(status == 2 && output.contains(part) && output.lines().count() == 1, "{url}: {output}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_is_not_set_is_a_warning_of_check_and_ends_serve() {
    let folder = Folder::new();
    for (missing, keys) in [
        ("OPERATORS", &["admin.key_env"][..]),
        ("PROMPTS", &["dedup.key_env", "dedup.former_key_env"]),
        ("REELGATE_REDIS_URL", &["ledger.redis_url_env"]),
    ] {
        let mut environment = GOOD.to_vec();
        environment.retain(|(name, _)| *name != missing);
        let [(checked, said), (served, refused)] = told(&folder, NAMED, &environment).await;
        assert!(checked == 0 && said.contains("reelgate.toml: ok"), "{said}");
        for key in keys {
            assert!(said.contains(&format!("warning: {key}: {missing} is not set: without it, serve")), "{said}");
        }
        assert_eq!(said.matches("warning: ").count(), keys.len(), "{said}");
        let told = format!("{}: {missing} is not set", keys[0]);
        assert!(served == 2 && refused.lines().last().unwrap().contains(&told), "{refused}");
    }
    // Where Redis is asks nobody who has another ledger.
    let file = folder.write("reelgate.toml", "");
    let environment =
        [("COMETAPI_KEY", "k"), ("REELGATE_LEDGER__KIND", "disk"), ("REELGATE_REDIS_URL", "http://nonsense")];
    let (status, said) = Program::run(&["check", "--config", file.to_str().unwrap()], &environment).await;
    assert!(status == 0 && said.lines().count() == 1, "{said}");
}

#[tokio::test]
async fn f46_a_ledger_that_has_no_place_is_refused_by_check_which_makes_none() {
    let folder = Folder::new();
    let file = folder.write("b.sh", "echo");
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("link")).unwrap();
    let below = file.join("below/it");
    fs::create_dir_all(folder.path("data/ledger.redb")).unwrap();
    for (path, part) in [
        (Path::new("/proc/nope"), "/proc"),
        (&file, "b.sh: not a folder"),
        (&below, "b.sh: not a folder"),
        (&folder.path("link"), "link: No such file"),
        (&folder.path("data"), "ledger.redb: "),
    ] {
        let environment = [("REELGATE_LEDGER__KIND", "disk"), ("REELGATE_LEDGER__PATH", path.to_str().unwrap())];
        let [(checked, said), (served, refused)] = told(&folder, "", &environment).await;
        assert!(checked == 2 && said.contains("ledger.path: ") && said.contains(part), "{path:?}: {checked} {said}");
        assert!(served == 1 && refused.lines().last().unwrap().contains(part), "{path:?}: {served} {refused}");
        assert!(!refused.contains("File exists"), "{refused}");
    }
    let (config, absent) = (folder.path("reelgate.toml"), folder.path("some/where"));
    for (kind, path) in [("disk", absent.to_str().unwrap()), ("memory", "/proc/nope"), ("disk", "some-where")] {
        let environment = [("COMETAPI_KEY", "k"), ("REELGATE_LEDGER__KIND", kind), ("REELGATE_LEDGER__PATH", path)];
        let (status, said) = Program::run(&["check", "--config", config.to_str().unwrap()], &environment).await;
        assert_eq!(status, 0, "{path}: {said}");
    }
    assert!(!folder.path("some").exists() && !Path::new("some-where").exists(), "check makes nothing");
    // What is not ours to write refuses everybody but root.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let environment = [("COMETAPI_KEY", "k"), ("REELGATE_LEDGER__PATH", absent.to_str().unwrap())];
    let (status, said) = Program::run(&["check", "--config", config.to_str().unwrap()], &environment).await;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root || status == 2 && said.contains("Permission denied"), "{said}");
}

/// A file on a disk in memory that everybody can read; gone with this value. `None` where there is no such disk.
struct Open(PathBuf);

impl Open {
    fn new(text: &str) -> Option<Self> {
        let name: String = random_key().chars().filter(char::is_ascii_alphanumeric).collect();
        let folder = Path::new("/dev/shm").join(format!("reelgate-test-{name}"));
        fs::create_dir(&folder).ok()?;
        let open = Self(folder);
        open.write(text);
        let system = rustix::fs::statfs(open.file()).unwrap();
        (u32::try_from(system.f_type) == Ok(TMPFS)).then_some(open)
    }

    fn file(&self) -> PathBuf {
        self.0.join("key")
    }

    /// What is there is never another's: a reload may look at any moment.
    fn write(&self, text: &str) {
        let new = self.0.join("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o444)).unwrap();
        fs::rename(&new, self.file()).unwrap();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: u32 = 0x0102_1994;

#[tokio::test]
async fn t09_a_key_file_that_others_can_read_is_warned_about_once_by_each_who_reads_it() {
    let (key, folder) = (random_key(), Folder::new());
    let Some(open) = Open::new(&key) else { return };
    let (path, config) = (open.file().display().to_string(), folder.write("reelgate.toml", ""));
    let doubt = format!("upstream.key_file: {path} can be read by others than its owner");
    let check = ["check", "--config", config.to_str().unwrap()];
    let named = ("REELGATE_UPSTREAM__KEY_FILE", path.as_str());
    let (status, said) = Program::run(&check, &[named]).await;
    assert!(status == 0 && said.matches(&format!("warning: {doubt}")).count() == 1, "{said}");

    let served = Served::start("", Options::default(), &[], &[("COMETAPI_KEY", ""), named]).await;
    assert_eq!(served.program.output().matches(&doubt).count(), 1, "{}", served.program.output());
    let new = random_key();
    open.write(&new);
    served.program.says("the configuration was reloaded").await;
    let output = served.end().await;
    assert_eq!(output.matches(&doubt).count(), 2, "{output}");
    key_is_absent(&new, "the output", output.as_bytes());

    // A credential of systemd's has the mode of its access list.
    let credentials = ("CREDENTIALS_DIRECTORY", open.0.to_str().unwrap());
    let (status, said) = Program::run(&check, &[named, credentials]).await;
    assert!(status == 0 && !said.contains("upstream.key_file"), "{said}");
    let served = Served::start("", Options::default(), &[], &[("COMETAPI_KEY", ""), named, credentials]).await;
    let output = served.end().await;
    assert!(!output.contains(&doubt), "{output}");
}
