//! Debian packages without installing them: a package manager with lists and a status of its own
//! fetches them from the machine's mirror, and they are unpacked into a directory. Needs no root.
//!
//! Knows nothing of what the packages are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Of a package's relations, only what it cannot do without.
const ONLY_DEPENDS: [&str; 6] =
    ["--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"];

/// Where this program keeps what it fetched under a name. `$KNARR_CACHE_DIR` is where a build machine
/// keeps things between its runs.
pub fn cache_dir(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("KNARR_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        return std::path::absolute(Path::new(&dir).join(name)).context("KNARR_CACHE_DIR is not a path");
    }
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("knarr").join(name))
}

/// A package manager of its own: own lists, own status, the machine's mirror and keys.
pub struct Apt {
    dir: PathBuf,
    suite: String,
}

impl Apt {
    /// Keeps its state in `dir` until it is closed.
    pub fn open(dir: &Path, suite: &str) -> Result<Self> {
        let mirror = machine_mirror()?;
        for part in ["state/lists/partial", "cache/archives/partial", "archives"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("sources.list"), format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))?;
        let at = dir.display();
        let settings = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        );
        fs::write(dir.join("apt.conf"), settings)?;
        let apt = Self { dir: dir.to_owned(), suite: suite.to_owned() };
        apt.run("apt-get", &["-q", "update"])?;
        Ok(apt)
    }

    /// Removes the lists and whatever else it kept.
    pub fn close(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    /// The packages and all that they depend on, as far as they are wanted.
    pub fn closure(&self, packages: &[&str], wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let args: Vec<&str> = ["depends", "--recurse"].into_iter().chain(ONLY_DEPENDS).collect();
        let output = self.command("apt-cache", &args).args(packages).output().context("cannot run apt-cache")?;
        let mut found = listed(&String::from_utf8_lossy(&output.stdout));
        found.retain(|name| wanted(name));
        ensure!(!found.is_empty(), "the mirror's {} has no {}", self.suite, packages.join(", "));
        Ok(found)
    }

    /// Downloads the packages and unpacks them below `root`.
    pub fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        eprintln!("downloading {}", packages.join(" "));
        let archives = self.dir.join("archives");
        let mut command = self.command("apt-get", &["-q", "download"]);
        let status = command.args(packages).current_dir(&archives).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "apt-get download failed");
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        for archive in fs::read_dir(&archives)? {
            let archive = archive?.path();
            let status = Command::new("dpkg").arg("-x").arg(&archive).arg(root).status().context("cannot run dpkg")?;
            ensure!(status.success(), "dpkg could not unpack {}", archive.display());
            fs::remove_file(&archive)?;
        }
        Ok(())
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("APT_CONFIG", self.dir.join("apt.conf"));
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        let output = self.command(program, args).output().with_context(|| format!("cannot run {program}"))?;
        ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The real packages of this architecture in a recursive dependency listing, each once.
fn listed(listing: &str) -> Vec<String> {
    let names = listing.lines().filter(|line| !line.starts_with([' ', '<', '|']) && !line.contains(':'));
    let mut packages: Vec<String> = names.map(str::to_owned).collect();
    packages.sort();
    packages.dedup();
    packages
}

fn machine_mirror() -> Result<String> {
    let args = ["indextargets", "--format", "$(SITE)", "Created-By: Packages"];
    let output = Command::new("apt-get").args(args).output().context("cannot ask apt-get for a Debian mirror")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find(|site| site.trim_end_matches('/').ends_with("/debian")) {
        Some(site) => Ok(site.to_owned()),
        None => bail!("this machine has no Debian mirror to take packages from"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_names_packages_of_this_machine_once() {
        let listing = "rustc\n  Depends: libc6\nlibc6\n<libc-dev>\n|x\nlibc6:i386\ngcc\nlibc6\n";
        assert_eq!(listed(listing), ["gcc", "libc6", "rustc"]);
    }
}
