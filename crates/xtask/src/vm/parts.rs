//! The emulator, the kernel, its modules and the guest's shell: Debian's, unpacked into the cache
//! directory and never installed. An emulator that is installed already is used as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::debian::{self, Apt};

const SUITE: &str = "stable";
const EMULATOR: &str = "qemu-system-x86_64";
/// What the emulator loads: libraries, the processor's first program, the one that loads a kernel.
const EMULATOR_PREFIXES: [&str; 5] = ["qemu-system-x86", "qemu-system-data", "seabios", "lib", "zlib1g"];
/// Libraries of plug-ins (sound, smart cards, USB) and data that a machine without a screen never opens.
const UNNEEDED_PARTS: [&str; 10] =
    ["asound", "brlapi", "cacard", "usb", "nss3", "nspr", "pcsc", "-common", "-modules", "debconf"];
/// Modules of this kernel that the tests need, or their counterpart built in.
const MODULES: [&str; 1] = ["overlay"];

/// Where everything is.
pub struct Parts {
    root: PathBuf,
    /// The emulator comes from there too.
    private_emulator: bool,
    pub kernel: PathBuf,
    pub busybox: PathBuf,
    /// In the order they must be loaded in.
    pub modules: Vec<Module>,
}

/// A kernel module as the kernel takes it.
pub struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// What is in the cache directory, or fetched into it.
pub fn find() -> Result<Parts> {
    let home = debian::cache_dir("vm")?;
    let private_emulator = !is_installed(EMULATOR);
    let root = home.join("root");
    if !root.is_dir() || (private_emulator && !root.join("usr/bin").join(EMULATOR).exists()) {
        fetch(&home, private_emulator)
            .with_context(|| format!("cannot fetch the parts of a virtual machine into {}", home.display()))?;
    }
    let version = kernel_version(&root)?;
    let busybox = root.join("usr/bin/busybox");
    let kernel = root.join("boot").join(format!("vmlinuz-{version}"));
    let modules = modules(&root.join("usr/lib/modules").join(version), &busybox)?;
    Ok(Parts { root, private_emulator, kernel, busybox, modules })
}

impl Parts {
    /// The emulator without arguments: under its own loader and libraries, if it is ours.
    pub fn emulator(&self) -> Command {
        if !self.private_emulator {
            return Command::new(EMULATOR);
        }
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.root.join("usr/bin").join(EMULATOR));
        for data in ["qemu", "seabios"] {
            command.arg("-L").arg(self.root.join("usr/share").join(data));
        }
        command
    }
}

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Unpacks the packages next to the final place and moves them there when they are whole.
fn fetch(home: &Path, emulator: bool) -> Result<()> {
    let staging = home.with_extension("new");
    let _ = fs::remove_dir_all(&staging);
    let root = staging.join("root");
    let apt = Apt::open(&staging.join("apt"), SUITE)?;
    let mut packages = apt.closure(&["linux-image-cloud-amd64"], |name| name.starts_with("linux-image"))?;
    packages.push("busybox-static".to_owned());
    if emulator {
        packages.extend(apt.closure(&["qemu-system-x86"], is_of_emulator)?);
    }
    apt.unpack(&packages, &root)?;
    apt.close()?;
    let _ = fs::remove_dir_all(root.join("usr/share/doc"));
    // Which module needs which: an installation would have asked for this list.
    let mut depmod = Command::new(root.join("usr/bin/busybox"));
    let status = depmod.arg("depmod").arg("-b").arg(root.join("usr")).arg(kernel_version(&root)?).status()?;
    ensure!(status.success(), "depmod: {status}");
    let _ = fs::remove_dir_all(home);
    fs::rename(&staging, home)?;
    Ok(())
}

fn is_of_emulator(package: &str) -> bool {
    EMULATOR_PREFIXES.iter().any(|prefix| package.starts_with(prefix))
        && !UNNEEDED_PARTS.iter().any(|part| package.contains(part))
}

fn kernel_version(root: &Path) -> Result<String> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot list {}", boot.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned)).max();
    found.with_context(|| format!("there is no kernel in {}", boot.display()))
}

/// The wanted modules and what they need, uncompressed.
fn modules(dir: &Path, busybox: &Path) -> Result<Vec<Module>> {
    let list = dir.join("modules.dep");
    let dependencies = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let mut modules = Vec::new();
    for path in load_order(&dependencies, &MODULES)? {
        let output = Command::new(busybox).args(["unxz", "-c"]).arg(dir.join(path)).output()?;
        ensure!(output.status.success(), "cannot unpack {path}: {}", String::from_utf8_lossy(&output.stderr));
        modules.push(Module { name: module_name(path).to_owned() + ".ko", bytes: output.stdout });
    }
    Ok(modules)
}

/// Files to load, each after what it needs: a line of `modules.dep` names a module and then all its
/// dependencies, the deepest last.
fn load_order<'a>(dependencies: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut order = Vec::new();
    for name in wanted {
        let mut lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let (path, needs) = lines
            .find(|(path, _)| module_name(path) == *name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        for file in needs.split_whitespace().rev().chain([path]) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let list = "a/overlay.ko.xz:\na/nat.ko.xz: a/track.ko.xz a/crc.ko.xz\na/masq.ko.xz: a/nat.ko.xz a/track.ko.xz a/crc.ko.xz\n";
        let expect = ["a/crc.ko.xz", "a/track.ko.xz", "a/nat.ko.xz", "a/masq.ko.xz", "a/overlay.ko.xz"];
        assert_eq!(load_order(list, &["masq", "overlay"]).unwrap(), expect);
        assert!(load_order(list, &["absent"]).is_err());
    }

    #[test]
    fn plug_ins_of_the_emulator_stay_away() {
        let packages = ["qemu-system-x86", "qemu-system-common", "libc6", "libasound2t64", "adduser", "seabios"];
        let needed: Vec<&str> = packages.into_iter().filter(|package| is_of_emulator(package)).collect();
        assert_eq!(needed, ["qemu-system-x86", "libc6", "seabios"]);
    }
}
