//! Starting cargo and asking it about the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The product's workspace.
pub const MANIFEST: &str = "Cargo.toml";

/// The top of the repository: this package is two folders below it.
pub fn workspace_root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("crates/xtask is two folders below the top")
}

/// The cargo that started this program, in the workspace's top folder.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}

/// Runs a command, shown on standard error first; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let line = format!("{program} {}", args.join(" "));
    eprintln!("> {line}");
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// `cargo metadata` of a workspace's own packages; the manifest's path is from the top folder.
pub fn metadata(manifest: &str) -> Result<Value> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest])
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata did not answer JSON")
}

/// Where cargo puts what it builds here.
pub fn target_directory() -> Result<PathBuf> {
    let metadata = metadata(MANIFEST)?;
    let directory = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}
