//! `cargo xtask wasm-apps`: builds every guest of `wasm-apps/` and gathers the components.
//!
//! The results are in `<target>/wasm-apps/<name>.wasm`; intermediate files in
//! `<target>/wasm-apps-build`, apart from the host's, because another compiler may have made them.

use std::fs;

use anyhow::{Context, Result};

use crate::cargo::{self, cargo};
use crate::toolchain::{self, TARGET};

const MANIFEST: &str = "wasm-apps/Cargo.toml";

pub fn run() -> Result<()> {
    let rustc = toolchain::wasm_rustc()?;
    let target = cargo::target_directory()?;
    let (build, out) = (target.join("wasm-apps-build"), target.join("wasm-apps"));
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path", MANIFEST])
        .env("RUSTC", &rustc)
        .env("CARGO_TARGET_DIR", &build)
        // Flags and wrappers of the host build are not meant for the guests' compiler.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER");
    cargo::run(&mut command)?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in members()? {
        let built = build.join(TARGET).join("release");
        // A library cannot have a name with a hyphen.
        let files = [format!("{name}.wasm"), format!("{}.wasm", name.replace('-', "_"))];
        let found = files.iter().map(|file| built.join(file)).find(|file| file.exists());
        let from = found.with_context(|| format!("{name} left no .wasm file in {}", built.display()))?;
        let to = out.join(format!("{name}.wasm"));
        let bytes =
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        println!("{} ({bytes} bytes)", to.display());
    }
    Ok(())
}

/// Names of the guests.
fn members() -> Result<Vec<String>> {
    let metadata = cargo::metadata(MANIFEST)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}
