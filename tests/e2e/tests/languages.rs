//! Projects of other languages than Rust: from sources to an answer with `knarr dev`. They are tried where their tools
//! can be had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::Cluster;
use e2e::kubectl::Background;
use e2e::needs::{binary, program};

/// Tools of other languages take their time, and so does a debug build that compiles what they made.
const BUILT_WITHIN: Duration = Duration::from_secs(600);

#[test]
fn a_javascript_project_is_built_and_answers() {
    let Some(folder) = javascript_project() else { return };
    let Some(cluster) = Cluster::up() else { return };
    let dir = folder.path().display().to_string();
    let mut command = cluster.client(binary());
    command.args(["dev", &dir, "--name", "js", "--env", "GREETING=Ahoy"]);
    let mut dev = Background::start(&mut command);
    dev.wait_within(BUILT_WITHIN, "js runs: http://");
    cluster.wait_answer("js", 80, "/", "Ahoy from js-");
    cluster.wait_answer("js", 80, "/log?text=ahoy+there", "logged");
    dev.wait_for("ahoy there");
    // One request's end is no other's, and the log says where it was.
    let thrown = cluster.ask("js", 80, "/throw").expect("the pod answers");
    assert!(thrown.status >= 500, "{thrown:?}");
    dev.wait_for("thrower");
    cluster.wait_answer("js", 80, "/healthz", "ok");
    assert!(dev.interrupt().success(), "{}", dev.said());
}

/// A copy of the example with its packages installed, if that can be done here.
fn javascript_project() -> Option<tempfile::TempDir> {
    if binary().parent().is_some_and(|folder| folder.ends_with("debug")) {
        println!(
            "skipped: the compiler of a debug build takes minutes for a JavaScript engine (KNARR_BIN names another)"
        );
        return None;
    }
    if program("npm").is_none() {
        println!("skipped: there is no npm on the PATH");
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy(&example("hello-js"), folder.path());
    let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder.path()).output();
    let npm = npm.expect("npm can be started");
    if !npm.status.success() {
        println!("skipped: npm cannot install the packages: {}", String::from_utf8_lossy(&npm.stderr));
        return None;
    }
    Some(folder)
}

#[test]
fn a_go_project_runs_once_after_every_change() {
    if is_debug_build() {
        return;
    }
    if program("go").is_none() {
        println!("skipped: there is no go on the PATH");
        return;
    }
    let Some(cluster) = Cluster::up() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let save = |text: &str| {
        // Without the package `os` it is smaller.
        let source = format!("package main\n\nfunc main() {{ println(\"{text}\") }}\n");
        fs::write(folder.path().join("main.go"), source).expect("the source can be written");
    };
    fs::write(folder.path().join("go.mod"), "module hello\n\ngo 1.21\n").expect("the module can be written");
    save("first words");
    let dir = folder.path().display().to_string();
    let mut command = cluster.client(binary());
    command.args(["dev", &dir, "--name", "gopher"]).stdin(Stdio::null());
    let mut dev = Background::start(&mut command);
    dev.wait_within(BUILT_WITHIN, "first words");
    dev.wait_for("gopher has ended");
    save("other words");
    dev.wait_within(BUILT_WITHIN, "other words");
    assert!(dev.interrupt().success(), "{}", dev.said());
}

/// What these languages bring along is megabytes of code.
fn is_debug_build() -> bool {
    let is_one = binary().parent().is_some_and(|folder| folder.ends_with("debug"));
    if is_one {
        println!("skipped: the Wasm compiler of a debug build takes minutes for this (KNARR_BIN names another build)");
    }
    is_one
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wasm-apps").join(name)
}

/// Sources, and nothing that a build has made of them.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the example is there").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_file() {
            fs::copy(&path, &to).expect("a file can be copied");
        } else if !["node_modules", "dist"].iter().any(|made| entry.file_name() == *made) {
            fs::create_dir_all(&to).expect("a folder can be made");
            copy(&path, &to);
        }
    }
}
