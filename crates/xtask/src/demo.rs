//! `cargo xtask demo [-- arguments]`: from a clone to answers of running workloads.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::cargo::run as run_command;

pub fn run(args: &[String]) -> Result<()> {
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let release = !args.iter().any(|arg| arg == "--debug");
    let binary = build::binary(release)?;
    run_command(as_root(&binary)?.arg("demo").args(args.iter().filter(|arg| *arg != "--debug")))
}

/// The binary as the user who may make namespaces and cgroups.
fn as_root(binary: &Path) -> Result<Command> {
    if effective_user()? == 0 {
        return Ok(Command::new(binary));
    }
    let sudo = Command::new("sudo").arg("--version").output().is_ok_and(|output| output.status.success());
    ensure!(
        sudo,
        "a node makes network namespaces, cgroups and mounts and needs root for that, and there is no sudo here: \
         as root, run {} demo",
        binary.display()
    );
    let mut command = Command::new("sudo");
    command.arg(binary);
    Ok(command)
}

fn effective_user() -> Result<u32> {
    // The kernel gives a process's folder to its effective user.
    Ok(std::fs::metadata("/proc/self").context("cannot look at /proc/self")?.uid())
}
