//! `cargo xtask ci`: everything a change must pass, the quick checks first.

use anyhow::Result;

use crate::cargo::{cargo, run as run_command};
use crate::{examples, test, tidy};

pub fn run(args: &[String]) -> Result<()> {
    run_command(cargo().args(["fmt", "--all", "--check"]))?;
    run_command(cargo().args(["fmt", "--all", "--check", "--manifest-path", "wasm-apps/Cargo.toml"]))?;
    tidy::run(&[])?;
    let folder = examples::build()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run_command(&mut test::with_examples(&clippy, &folder))?;
    test::test(&folder, args)
}
