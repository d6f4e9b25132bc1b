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

use anyhow::{Context, Result, bail, ensure};

pub const TARGET: &str = "wasm32-wasip2";
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
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The compiler to give to cargo as `RUSTC`.
pub fn wasm_rustc() -> Result<PathBuf> {
    let installed = PathBuf::from("rustc");
    if has_target(&installed) {
        return Ok(installed);
    }
    if add_by_rustup() && has_target(&installed) {
        return Ok(installed);
    }
    let home = cache_dir()?;
    let private = home.join("bin/rustc");
    if !has_target(&private) {
        eprintln!("the installed rustc has no {TARGET}: making a private one in {}", home.display());
        make_private(&home).with_context(|| format!("cannot make a {TARGET} compiler in {}", home.display()))?;
        ensure!(has_target(&private), "{} was made and does not have {TARGET}", private.display());
    }
    Ok(private)
}

/// Whether `rustc` has the target's standard library.
fn has_target(rustc: &Path) -> bool {
    let output =
        Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&directory).is_dir()
    })
}

fn add_by_rustup() -> bool {
    let added =
        Command::new("rustup").args(["target", "add", TARGET]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    added.is_ok_and(|status| status.success())
}

/// `$KNARR_CACHE_DIR` is where a build machine keeps things between its runs.
fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("KNARR_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("wasm-rust"));
    }
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("knarr/wasm-rust"))
}

/// Unpacks the packages next to the final place and moves them there when they are whole.
fn make_private(home: &Path) -> Result<()> {
    let staging = home.with_extension("new");
    let _ = fs::remove_dir_all(&staging);
    let apt = Apt::configure(&staging.join("apt"))?;
    apt.run("apt-get", &["-q", "update"])?;
    let packages = apt.needed_packages()?;
    eprintln!("downloading {}", packages.join(" "));
    let (archives, root) = (staging.join("archives"), staging.join("root"));
    fs::create_dir_all(&archives)?;
    fs::create_dir_all(&root)?;
    apt.download(&packages, &archives)?;
    for archive in fs::read_dir(&archives)? {
        let status =
            Command::new("dpkg").arg("-x").arg(archive?.path()).arg(&root).status().context("cannot run dpkg")?;
        ensure!(status.success(), "dpkg could not unpack a package");
    }
    fs::remove_dir_all(&archives)?;
    fs::remove_dir_all(staging.join("apt"))?;
    let _ = fs::remove_dir_all(root.join("usr/share"));
    write_launcher(&staging, &root)?;
    let _ = fs::remove_dir_all(home);
    fs::rename(&staging, home)?;
    Ok(())
}

/// A package manager of its own: own lists, own status, the machine's mirror and keys.
struct Apt {
    config: PathBuf,
}

impl Apt {
    fn configure(dir: &Path) -> Result<Self> {
        let mirror = machine_mirror()?;
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("sources.list"), format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n"))?;
        let config = dir.join("apt.conf");
        let at = dir.display();
        let settings = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        );
        fs::write(&config, settings)?;
        Ok(Self { config })
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("APT_CONFIG", &self.config);
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        let output = self.command(program, args).output().with_context(|| format!("cannot run {program}"))?;
        ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn needed_packages(&self) -> Result<Vec<String>> {
        let mut args = vec!["depends", "--recurse"];
        args.extend([
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
        ]);
        args.extend(ROOT_PACKAGES);
        let output = self.command("apt-cache", &args).output().context("cannot run apt-cache")?;
        let packages = needed(&String::from_utf8_lossy(&output.stdout));
        ensure!(!packages.is_empty(), "the mirror's {SUITE} has no {}", ROOT_PACKAGES.join(", "));
        Ok(packages)
    }

    fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut command = self.command("apt-get", &["-q", "download"]);
        let status = command.args(packages).current_dir(into).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "apt-get download failed");
        Ok(())
    }
}

/// Of a recursive dependency listing, the packages the compiler cannot start without.
fn needed(listing: &str) -> Vec<String> {
    let names = listing.lines().filter(|line| !line.starts_with([' ', '<', '|']));
    let mut packages: Vec<String> = names
        .filter(|name| NEEDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !name.contains(':') && !UNNEEDED_PARTS.iter().any(|part| name.contains(part)))
        .map(str::to_owned)
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

fn machine_mirror() -> Result<String> {
    let args = ["indextargets", "--format", "$(SITE)", "Created-By: Packages"];
    let hint = format!("no rustc with {TARGET} here: install it with `rustup target add {TARGET}`");
    let output = Command::new("apt-get").args(args).output().with_context(|| hint.clone())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find(|site| site.trim_end_matches('/').ends_with("/debian")) {
        Some(site) => Ok(site.to_owned()),
        None => bail!("{hint} (and this machine has no Debian mirror to take one from)"),
    }
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
        let listing = "rustc\n  Depends: libc6\nlibc6\nlibstd-rust-1.97\nlibc6-dev\nlibc-dev-bin\n<libc-dev>\n|x\n\
                       libllvm22\nlibc6:i386\ngcc\nbinutils\nlibc6\nlibstd-rust-dev-wasm32\n";
        let expect = ["libc6", "libllvm22", "libstd-rust-1.97", "libstd-rust-dev-wasm32", "rustc"];
        assert_eq!(needed(listing), expect);
    }

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
