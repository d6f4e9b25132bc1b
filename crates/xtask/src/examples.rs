//! What the binary embeds for `knarr demo`: the guests and a small static Linux program, gathered
//! in one folder that the build script of `knarr` is told about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{self, run, workspace_root};
use crate::wasm_apps;

/// The variable through which `crates/knarr/build.rs` learns the folder.
pub const DIRECTORY_VARIABLE: &str = "KNARR_EXAMPLES_DIR";
const PROGRAM_SOURCE: &str = "deploy/images/backend/main.rs";
const PROGRAM: &str = "backend";
/// ELF's number for "this program wants a dynamic loader".
const PT_INTERP: u32 = 3;

/// Builds all of it and answers the folder.
pub fn build() -> Result<PathBuf> {
    wasm_apps::run()?;
    let target = cargo::target_directory()?;
    let folder = target.join("embedded");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let guests = target.join("wasm-apps");
    for entry in fs::read_dir(&guests).with_context(|| format!("cannot list {}", guests.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let name = path.file_name().context("a listed file has a name")?;
            copy_when_changed(&path, &folder.join(name))?;
        }
    }
    let built = target.join("wasm-apps-build").join(PROGRAM);
    build_program(&built)?;
    copy_when_changed(&built, &folder.join(PROGRAM))?;
    Ok(folder)
}

fn build_program(output: &Path) -> Result<()> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(workspace_root());
    rustc.args(["--edition", "2024", "--crate-name", PROGRAM, "-C", "opt-level=s", "-C", "panic=abort"]);
    rustc.args(["-C", "strip=symbols", "-C", "target-feature=+crt-static", PROGRAM_SOURCE, "-o"]).arg(output);
    run(&mut rustc)?;
    let bytes = fs::read(output).with_context(|| format!("cannot read {}", output.display()))?;
    ensure!(is_static(&bytes)?, "{PROGRAM_SOURCE} was linked dynamically: its image would need a C library");
    Ok(())
}

/// Whether a 64-bit little-endian ELF program runs without a dynamic loader.
fn is_static(elf: &[u8]) -> Result<bool> {
    let field = |at: usize, size: usize| -> Result<u64> {
        let bytes = elf.get(at..at + size).context("the ELF file is cut short")?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("this is no 64-bit little-endian ELF file");
    }
    let (table, entry_size, entries) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
    for index in 0..entries {
        let at = usize::try_from(table + index * entry_size)?;
        if field(at, 4)? == u64::from(PT_INTERP) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An unchanged file keeps its time, so that cargo does not build the binary again.
fn copy_when_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(program_types: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = u8::try_from(program_types.len()).unwrap();
        for kind in program_types {
            elf.extend(kind.to_le_bytes());
            elf.extend([0; 52]);
        }
        elf
    }

    #[test]
    fn a_program_that_wants_a_loader_is_not_static() {
        assert!(is_static(&elf(&[1, 2])).unwrap());
        assert!(!is_static(&elf(&[1, PT_INTERP])).unwrap());
        assert!(is_static(b"#!/bin/sh\n").is_err());
        assert!(is_static(&elf(&[1, 2])[..100]).is_err());
    }
}
