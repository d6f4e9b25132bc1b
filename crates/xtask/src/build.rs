//! `cargo xtask build [--debug]`: the one binary, with the example images in it.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::cargo::{cargo, run as run_command, target_directory};
use crate::examples;

pub fn run(args: &[String]) -> Result<()> {
    let release = match args {
        [] => true,
        [flag] if flag == "--debug" => false,
        _ => bail!("cargo xtask build takes only --debug, not {args:?}"),
    };
    let binary = binary(release)?;
    println!("{}", binary.display());
    Ok(())
}

/// Builds everything and answers where the binary is.
pub fn binary(release: bool) -> Result<PathBuf> {
    let folder = examples::build()?;
    let mut command = cargo();
    command.args(["build", "--locked", "--package", "knarr", "--bin", "knarr"]);
    if release {
        command.arg("--release");
    }
    run_command(command.env(examples::DIRECTORY_VARIABLE, folder))?;
    Ok(target_directory()?.join(if release { "release" } else { "debug" }).join("knarr"))
}
