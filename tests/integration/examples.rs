//! Every example configuration of this repository is one that the program takes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The TOML files of a folder of the repository; none if there is no such folder.
fn examples(folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files
}

/// What `reelgate check` says about a file: its exit code, and its words.
fn check(file: &Path) -> (Option<i32>, String) {
    // An example may name a key file that is only there where it is deployed.
    let key = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-key");
    std::fs::write(&key, "not-a-real-key\n").unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_reelgate"))
        .args(["check", "--config"])
        .arg(file)
        .env_clear()
        .env("COMETAPI_KEY", "not-a-real-key")
        .env("REELGATE_UPSTREAM__KEY_FILE", &key)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_example_configuration_is_taken() {
    let files = [examples("config"), examples("deploy")].concat();
    assert!(!files.is_empty());
    for file in files {
        let (code, words) = check(&file);
        assert_eq!(code, Some(0), "{}: {words}", file.display());
    }
}
