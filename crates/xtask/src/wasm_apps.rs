//! `cargo xtask wasm-apps`: builds every guest of `wasm-apps/` and gathers the components.
//!
//! The results are in `<target>/wasm-apps/<name>.wasm`; intermediate files in
//! `<target>/wasm-apps-build`, apart from the host's, because another compiler may have made them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::toolchain::{self, TARGET};

const MANIFEST: &str = "wasm-apps/Cargo.toml";

pub fn run() -> Result<()> {
    let rustc = toolchain::wasm_rustc()?;
    let target = target_directory()?;
    let (build, out) = (target.join("wasm-apps-build"), target.join("wasm-apps"));
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path", MANIFEST])
        .env("RUSTC", &rustc)
        .env("CARGO_TARGET_DIR", &build)
        // Flags and wrappers of the host build are not meant for the guests' compiler.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "building {MANIFEST} failed");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in members()? {
        let from = build.join(TARGET).join("release").join(format!("{name}.wasm"));
        let to = out.join(format!("{name}.wasm"));
        let bytes =
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        println!("{} ({bytes} bytes)", to.display());
    }
    Ok(())
}

/// Where cargo puts what it builds here.
fn target_directory() -> Result<PathBuf> {
    let metadata = metadata(Path::new("Cargo.toml"))?;
    let directory = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}

/// Names of the guests.
fn members() -> Result<Vec<String>> {
    let metadata = metadata(Path::new(MANIFEST))?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}

fn metadata(manifest: &Path) -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata did not answer JSON")
}
