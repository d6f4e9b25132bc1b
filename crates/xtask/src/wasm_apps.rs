//! `cargo xtask wasm-apps`: builds every guest of `wasm-apps/` and gathers the components.
//!
//! The results are in `<target>/wasm-apps/<name>.wasm`; intermediate files in
//! `<target>/wasm-apps-build`, apart from the host's, because another compiler may have made them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{self, cargo};
use crate::toolchain::{self, MODULE_TARGET, TARGET};

/// Built as a core module too, under another name.
const ALSO_A_MODULE: (&str, &str) = ("wasi-check", "wasi-check-p1");
const MANIFEST: &str = "wasm-apps/Cargo.toml";

pub fn run() -> Result<()> {
    let rustc = toolchain::wasm_rustc()?;
    let target = cargo::target_directory()?;
    let (build, out) = (target.join("wasm-apps-build"), target.join("wasm-apps"));
    cargo::run(&mut compile(&rustc, &build, TARGET))?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in members()? {
        gather(&build.join(TARGET).join("release"), &name, &out.join(format!("{name}.wasm")))?;
    }
    let (name, module) = ALSO_A_MODULE;
    if toolchain::has_or_adds(&rustc, MODULE_TARGET) {
        cargo::run(compile(&rustc, &build, MODULE_TARGET).args(["--package", name]))?;
        gather(&build.join(MODULE_TARGET).join("release"), name, &out.join(format!("{module}.wasm")))?;
    } else {
        eprintln!("{module} is not built: the compiler has no {MODULE_TARGET}, and rustup could not add it");
    }
    Ok(())
}

fn compile(rustc: &Path, build: &Path, target: &str) -> Command {
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--target", target, "--manifest-path", MANIFEST])
        .env("RUSTC", rustc)
        .env("CARGO_TARGET_DIR", build)
        // Flags and wrappers of the host build are not meant for the guests' compiler.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER");
    command
}

fn gather(built: &Path, name: &str, to: &Path) -> Result<()> {
    // A library cannot have a name with a hyphen.
    let files = [format!("{name}.wasm"), format!("{}.wasm", name.replace('-', "_"))];
    let found = files.iter().map(|file| built.join(file)).find(|file| file.exists());
    let from = found.with_context(|| format!("{name} left no .wasm file in {}", built.display()))?;
    let copied = fs::copy(&from, to);
    let bytes = copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    println!("{} ({bytes} bytes)", to.display());
    Ok(())
}

/// Names of the guests.
fn members() -> Result<Vec<String>> {
    let metadata = cargo::metadata(MANIFEST)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}
