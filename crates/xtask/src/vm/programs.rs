//! Test programs that need nothing of the machine they run on: linked statically, without symbols.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo::cargo;

/// Named, although it is the host's: only then do the flags not reach build scripts and macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-C target-feature=+crt-static -C strip=symbols";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Programs {
    pub tests: Vec<PathBuf>,
    /// What tests start, at the paths they know.
    pub helpers: Vec<PathBuf>,
}

/// Builds the tests of these packages in a target directory of their own: other flags than the
/// normal ones would throw away what was built there.
pub fn build(packages: &[String], target_directory: &Path) -> Result<Programs> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--locked", "--target", TARGET]);
    command.args(["--message-format", "json-render-diagnostics"]);
    for package in packages {
        command.args(["--package", package]);
    }
    command
        .env("CARGO_TARGET_DIR", target_directory)
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_PROFILE_DEV_DEBUG", "none")
        .stderr(Stdio::inherit());
    eprintln!("> cargo test --no-run --target {TARGET} of {}, linked statically", packages.join(", "));
    let output = command.output().context("cannot run cargo test --no-run")?;
    ensure!(output.status.success(), "cargo test --no-run of {}: {}", packages.join(", "), output.status);
    let programs = built(&String::from_utf8_lossy(&output.stdout));
    ensure!(!programs.tests.is_empty(), "{} have no tests", packages.join(", "));
    Ok(programs)
}

/// The executables in cargo's messages.
fn built(messages: &str) -> Programs {
    let mut programs = Programs::default();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let Some(executable) = message["executable"].as_str() else { continue };
        let of_kind = if message["profile"]["test"] == true { &mut programs.tests } else { &mut programs.helpers };
        of_kind.push(executable.into());
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_what_they_start() {
        let messages = r#"{"reason":"compiler-artifact","executable":null,"profile":{"test":false}}
{"reason":"compiler-artifact","executable":"/t/helper","profile":{"test":false}}
{"reason":"compiler-artifact","executable":"/t/deps/it-1","profile":{"test":true}}
not a message
{"reason":"build-finished","success":true}"#;
        let expect = Programs { tests: vec!["/t/deps/it-1".into()], helpers: vec!["/t/helper".into()] };
        assert_eq!(built(messages), expect);
    }
}
