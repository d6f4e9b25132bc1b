//! Finding, or making, a Rust compiler that can build WASI 0.2 components.
//!
//! In this order: the installed compiler if it has the target; `rustup target add`; else a private
//! copy of Debian sid's compiler, which ships the target's standard library. The copy needs no root
//! and installs nothing: its packages are unpacked below the user's cache directory and started
//! through their own dynamic loader, so the machine's C library does not matter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::debian::{self, Apt};

pub const TARGET: &str = "wasm32-wasip2";
/// Core modules of WASI 0.1: for a guest that tests them.
pub const MODULE_TARGET: &str = "wasm32-wasip1";
/// Newer than stable Debian: the guests' crates want a recent compiler.
const SUITE: &str = "sid";
const ROOT_PACKAGES: [&str; 2] = ["rustc", "libstd-rust-dev-wasm32"];
/// What the compiler itself loads. Everything else that its packages depend on serves the
/// building of native programs, which the installed toolchain does.
const NEEDED_PREFIXES: [&str; 18] = [
    "rustc",
    "libstd-rust",
    "libllvm",
    "libc6",
    "libstdc++6",
    "libgcc-s1",
    "libz3-4",
    "libedit2",
    "libffi8",
    "zlib1g",
    "libzstd1",
    "libxml2",
    "libtinfo6",
    "libbsd0",
    "libmd0",
    "liblzma5",
    "libicu",
    "libncurses6",
];
const UNNEEDED_PARTS: [&str; 8] = ["-dev-bin", "i18n", "-cross", "-doc", "-dbg", "libc6-dev", "libicu-dev", "-utils"];

/// The compiler to give to cargo as `RUSTC`.
pub fn wasm_rustc() -> Result<PathBuf> {
    let installed = PathBuf::from("rustc");
    if has_or_adds(&installed, TARGET) {
        return Ok(installed);
    }
    let home = debian::cache_dir("wasm-rust")?;
    let private = home.join("bin/rustc");
    if !has_target(&private, TARGET) {
        eprintln!("the installed rustc has no {TARGET}: making a private one in {}", home.display());
        make_private(&home).with_context(|| format!("cannot make a {TARGET} compiler in {}", home.display()))?;
        ensure!(has_target(&private, TARGET), "{} was made and does not have {TARGET}", private.display());
    }
    Ok(private)
}

/// Whether `rustc` has the target's standard library, or rustup could give it to it.
pub fn has_or_adds(rustc: &Path, target: &str) -> bool {
    has_target(rustc, target) || (add_by_rustup(target) && has_target(rustc, target))
}

fn has_target(rustc: &Path, target: &str) -> bool {
    let output =
        Command::new(rustc).args(["--print", "target-libdir", "--target", target]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&directory).is_dir()
    })
}

fn add_by_rustup(target: &str) -> bool {
    let added =
        Command::new("rustup").args(["target", "add", target]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    added.is_ok_and(|status| status.success())
}

/// Unpacks the packages next to the final place and moves them there when they are whole.
fn make_private(home: &Path) -> Result<()> {
    let staging = home.with_extension("new");
    let _ = fs::remove_dir_all(&staging);
    let root = staging.join("root");
    let apt = Apt::open(&staging.join("apt"), SUITE)
        .with_context(|| format!("no rustc with {TARGET} here: install it with `rustup target add {TARGET}`"))?;
    apt.unpack(&apt.closure(&ROOT_PACKAGES, is_needed)?, &root)?;
    apt.close()?;
    let _ = fs::remove_dir_all(root.join("usr/share"));
    write_launcher(&staging, &root)?;
    let _ = fs::remove_dir_all(home);
    fs::rename(&staging, home)?;
    Ok(())
}

/// The packages the compiler cannot start without.
fn is_needed(package: &str) -> bool {
    NEEDED_PREFIXES.iter().any(|prefix| package.starts_with(prefix))
        && !UNNEEDED_PARTS.iter().any(|part| package.contains(part))
}

/// The script that cargo starts as `RUSTC`. Linkers come from the installed toolchain.
fn write_launcher(staging: &Path, root: &Path) -> Result<()> {
    let loader = find(root, "ld-linux").context("the C library package has no dynamic loader")?;
    let libraries = find(root, "librustc_driver").context("the compiler package has no librustc_driver")?;
    let relative = |path: &Path| path.strip_prefix(root).map(|path| path.display().to_string());
    let (loader, libraries) = (relative(&loader)?, relative(libraries.parent().context("a library is in a folder")?)?);
    let script = format!(
        "#!/bin/sh\n\
         # The private compiler: Debian's rustc under its own loader and libraries.\n\
         root=$(cd \"$(dirname \"$0\")/..\" && pwd)/root\n\
         installed=$(env -u RUSTC rustc --print sysroot)/lib/rustlib\n\
         for bin in \"$installed\"/*/bin; do PATH=$bin:$bin/gcc-ld:$PATH; done\n\
         export PATH\n\
         exec \"$root/{loader}\" --library-path \"$root/{libraries}\" --argv0 rustc \"$root/usr/bin/rustc\" \
         --sysroot \"$root/usr\" \"$@\"\n"
    );
    let path = staging.join("bin/rustc");
    fs::create_dir_all(staging.join("bin"))?;
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The first file below `dir` whose name starts with `prefix`, in a multi-architecture folder first.
fn find(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let mut open = vec![dir.join("usr/lib")];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| (path.is_symlink(), path.components().count()));
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_compiler_loads_is_downloaded() {
        let packages = ["rustc", "libc6", "libc6-dev", "gcc", "libllvm22", "libc-dev-bin", "libstd-rust-dev-wasm32"];
        let needed: Vec<&str> = packages.into_iter().filter(|package| is_needed(package)).collect();
        assert_eq!(needed, ["rustc", "libc6", "libllvm22", "libstd-rust-dev-wasm32"]);
    }

    /// `cargo test -p xtask -- --ignored a_private_compiler`
    #[test]
    #[ignore = "downloads 200 MB from a Debian mirror"]
    fn a_private_compiler_can_be_made() {
        let home = std::env::temp_dir().join(format!("knarr-wasm-rust-{}", std::process::id()));
        make_private(&home).unwrap();
        let program = home.join("hello.rs");
        fs::write(&program, "fn main() { println!(\"hello\"); }").unwrap();
        let compiler = Command::new(home.join("bin/rustc"))
            .args(["--target", TARGET, "-o"])
            .args([home.join("hello.wasm"), program])
            .status();
        let compiled = fs::read(home.join("hello.wasm")).unwrap_or_default();
        fs::remove_dir_all(&home).unwrap();
        assert!(compiler.unwrap().success());
        assert!(compiled.starts_with(b"\0asm\x0d\0\x01\0"), "a component starts so");
    }
}
