//! How a project becomes a `.wasm` file: as its user says, or as projects of its language do.
//!
//! Owns: the table of languages. May not know: the cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::cli::DevArgs;

const CARGO_SIGN: &str = "Cargo.toml";
const WASM_TARGET: &str = "wasm32-wasip2";
/// Where the builds of other languages leave what they make.
pub const OUTPUT_DIR: &str = "dist";
/// npm writes it when it has installed everything; the folder alone may be what a failure left.
const NPM_IS_DONE: &str = "node_modules/.package-lock.json";

/// A language but Rust: cargo says itself what it has made.
#[derive(Debug, PartialEq, Eq)]
struct Language {
    /// A file that its projects have at the top.
    sign: &'static str,
    /// A path, and what is run once because it is not there.
    needs: Option<(&'static str, &'static str)>,
    /// Leaves a `.wasm` file in [`OUTPUT_DIR`].
    build: &'static str,
}

const LANGUAGES: [Language; 3] = [
    Language {
        sign: "package.json",
        needs: Some((NPM_IS_DONE, "if [ -e package-lock.json ]; then npm ci; else npm install; fi")),
        build: "npm run build",
    },
    Language {
        sign: "go.mod",
        needs: None,
        build: "mkdir -p dist && GOOS=wasip1 GOARCH=wasm go build -o dist/app.wasm .",
    },
    Language {
        sign: "pyproject.toml",
        needs: None,
        build: "mkdir -p dist && componentize-py --wit-path wit componentize app --output dist/app.wasm",
    },
];

fn language_of(dir: &Path) -> Option<&'static Language> {
    LANGUAGES.iter().find(|language| dir.join(language.sign).exists())
}

/// The path of what was built.
pub async fn build(args: &DevArgs, dir: &Path) -> Result<PathBuf> {
    match (&args.build, &args.wasm) {
        (Some(command), Some(wasm)) => {
            shell(command, dir).await?;
            return Ok(dir.join(wasm));
        }
        (_, Some(wasm)) => return Ok(dir.join(wasm)),
        _ => {}
    }
    if dir.join(CARGO_SIGN).exists() {
        return cargo(dir).await;
    }
    let Some(language) = language_of(dir) else {
        let signs: Vec<&str> = LANGUAGES.iter().map(|language| language.sign).collect();
        bail!(
            "{} has no {CARGO_SIGN}, {}: say how it is built with --build and --wasm",
            dir.display(),
            signs.join(", ")
        );
    };
    if let Some((path, command)) = language.needs
        && !dir.join(path).exists()
    {
        shell(command, dir).await?;
    }
    let began = SystemTime::now();
    shell(language.build, dir).await?;
    newest(&dir.join(OUTPUT_DIR), began).with_context(|| format!("`{}` is done, but", language.build))
}

async fn shell(command: &str, dir: &Path) -> Result<()> {
    let status = Command::new("sh").arg("-c").arg(command).current_dir(dir).stdin(Stdio::null()).status().await;
    if !status.context("cannot start sh")?.success() {
        bail!("`{command}` failed");
    }
    Ok(())
}

/// The `.wasm` file that was written last. A build that finds nothing to do leaves an older one than `began`; it is the
/// right one all the same where it is the only one.
fn newest(dir: &Path, began: SystemTime) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    files.sort();
    match (files.pop(), files.is_empty()) {
        (Some((_, file)), true) => Ok(file),
        (Some((written, file)), false) if written >= began => Ok(file),
        (Some(_), false) => bail!("several .wasm files are in {}: name one with --build and --wasm", dir.display()),
        (None, _) => bail!("no .wasm file is in {}: name it with --build and --wasm", dir.display()),
    }
}

async fn cargo(dir: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", WASM_TARGET, "--message-format=json-render-diagnostics"]);
    let output = cargo.current_dir(dir).stdin(Stdio::null()).stderr(Stdio::inherit()).output().await;
    let output = output.context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo failed");
    }
    artifact(&String::from_utf8_lossy(&output.stdout))
}

/// The one `.wasm` file among cargo's messages.
fn artifact(messages: &str) -> Result<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut files: Vec<PathBuf> = messages
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .filter(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        (None, _) => bail!("the build made no .wasm file: is it a cdylib or a program?"),
        (Some(_), false) => bail!("the build made several .wasm files: name one with --build and --wasm"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_artifact() {
        let line = |reason: &str, file: &str| format!("{{\"reason\":\"{reason}\",\"filenames\":[\"{file}\"]}}\n");
        let one = line("compiler-artifact", "/t/libdep.rlib") + &line("compiler-artifact", "/t/app.wasm") + "noise\n";
        assert_eq!(artifact(&one).unwrap(), Path::new("/t/app.wasm"));
        let check = |messages: &str, expect: &str| {
            assert!(artifact(messages).unwrap_err().to_string().contains(expect), "{messages}");
        };
        check(&line("build-script-executed", "/t/app.wasm"), "made no .wasm file");
        check(&(one.clone() + &line("compiler-artifact", "/t/b.wasm")), "several .wasm files");
    }

    #[test]
    fn a_file_at_the_top_tells_the_language() {
        let check = |file: &str, expect: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
            assert_eq!(language_of(dir.path()).map(|language| language.build), expect, "{file}");
        };
        check("package.json", Some("npm run build"));
        check("go.mod", Some(LANGUAGES[1].build));
        check("pyproject.toml", Some(LANGUAGES[2].build));
        check("Makefile", None);
    }

    #[test]
    fn the_file_that_was_built_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let before = SystemTime::UNIX_EPOCH;
        let later = SystemTime::now() + std::time::Duration::from_secs(3600);
        let write = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        assert!(newest(dir.path(), before).unwrap_err().to_string().starts_with("no .wasm file"));
        write("app.js");
        write("a.wasm");
        assert_eq!(newest(dir.path(), later).unwrap(), dir.path().join("a.wasm"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        write("b.wasm");
        assert_eq!(newest(dir.path(), before).unwrap(), dir.path().join("b.wasm"));
        assert!(newest(dir.path(), later).unwrap_err().to_string().starts_with("several .wasm files"));
    }
}
