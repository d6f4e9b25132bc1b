//! `cargo xtask vm [packages] [-- arguments]`: tests in a virtual machine whose kernel has cgroup v2
//! and nothing of v1, because the machine that builds may be the other way round.
//!
//! Four steps, one file each: `parts` finds an emulator and a kernel, `programs` builds the tests so
//! that they need no files of this machine, `initramfs` packs them, `boot` runs them and listens.
//! The emulator needs no KVM and no root, only patience.

mod boot;
mod initramfs;
mod parts;
mod programs;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cargo::target_directory;
use initramfs::Archive;
use parts::Parts;
use programs::Programs;

/// What is tested when no package is named.
const PACKAGES: [&str; 1] = ["container-runtime"];
/// The guest's first process.
const INIT: &str = include_str!("init.sh");

pub fn run(args: &[String]) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the virtual machine is an x86_64 one, and so must this machine be");
    let (packages, test_args) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &args[args.len()..]),
    };
    let packages = if packages.is_empty() { PACKAGES.map(str::to_owned).to_vec() } else { packages.to_vec() };
    let build = target_directory()?.join("vm");
    let programs = programs::build(&packages, &build)?;
    let parts = parts::find()?;
    let image = build.join("initramfs.cpio");
    fs::write(&image, archive(&parts, &programs, test_args)?)
        .with_context(|| format!("cannot write {}", image.display()))?;
    boot::run(&parts, &image)
}

/// Everything that the guest has. Programs keep their paths: tests know where their helpers were built.
fn archive(parts: &Parts, programs: &Programs, test_args: &[String]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    archive.file(Path::new("/init"), INIT.as_bytes());
    archive.file(Path::new("/bin/busybox"), &read(&parts.busybox)?);
    let mut order = String::new();
    for module in &parts.modules {
        let path = format!("/modules/{}", module.name);
        archive.file(Path::new(&path), &module.bytes);
        order += &format!("{path}\n");
    }
    archive.file(Path::new("/modules/order"), order.as_bytes());
    for program in programs.tests.iter().chain(&programs.helpers) {
        archive.file(program, &read(program)?);
    }
    let tests: String = programs.tests.iter().map(|test| format!("{}\n", test.display())).collect();
    archive.file(Path::new("/tests"), tests.as_bytes());
    let arguments: String = test_args.iter().map(|argument| format!("{argument}\n")).collect();
    archive.file(Path::new("/arguments"), arguments.as_bytes());
    Ok(archive.finish())
}
