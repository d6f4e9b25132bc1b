//! `cargo xtask test`: every test of the workspace, the end-to-end tests with the built binary.
//!
//! One profile and one feature set for the binary and the tests, so that nothing is built twice.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cargo::{cargo, run as run_command, target_directory};
use crate::examples;

/// The variable that tells the end-to-end tests which binary to try.
const BINARY_VARIABLE: &str = "KNARR_BIN";

pub fn run(args: &[String]) -> Result<()> {
    test(&examples::build()?, args)
}

/// Builds all targets and tests them, with the examples of `folder` in the binary.
pub fn test(folder: &Path, args: &[String]) -> Result<()> {
    run_command(with_examples(&["build", "--workspace", "--all-targets"], folder).arg("--locked"))?;
    let binary = target_directory()?.join("debug/knarr");
    let mut command = with_examples(&["test", "--workspace", "--no-fail-fast", "--locked"], folder);
    run_command(command.env(BINARY_VARIABLE, binary).args(args))
}

/// A cargo command on the whole workspace. The variable must be the same in each, or `knarr` is
/// built again.
pub fn with_examples(args: &[&str], folder: &Path) -> Command {
    let mut command = cargo();
    command.args(args).env(examples::DIRECTORY_VARIABLE, folder);
    command
}
