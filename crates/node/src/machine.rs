//! What the machine has: read once from /proc, /sys and /etc.

use crate::config::CapacityOverrides;

/// The facts of the machine that go into the Node object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub ephemeral_storage_bytes: u64,
    pub kernel_version: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    /// `amd64`, `arm64`, …: as Go names it.
    pub architecture: String,
}

impl Machine {
    /// Reads the machine; what cannot be read stays empty.
    pub fn read(overrides: &CapacityOverrides, data_dir: &std::path::Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        let storage = nix::sys::statvfs::statvfs(data_dir).map(|stat| stat.blocks() * stat.fragment_size());
        Self {
            cpu_millis: overrides.cpu_millis.unwrap_or(cpus * 1000),
            memory_bytes: overrides.memory_bytes.unwrap_or_else(|| memory_total(&text("/proc/meminfo"))),
            ephemeral_storage_bytes: storage.unwrap_or(0),
            kernel_version: text("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&text("/etc/os-release")),
            machine_id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            architecture: go_arch(std::env::consts::ARCH).to_owned(),
        }
    }
}

fn memory_total(meminfo: &str) -> u64 {
    let row = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = row.and_then(|row| row.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn pretty_name(os_release: &str) -> String {
    let row = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    row.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Go's name of an architecture.
pub fn go_arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Free memory and disk, for the pressure conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    pub memory_available_bytes: u64,
    pub disk_available_permille: u64,
}

impl Pressure {
    pub fn read(data_dir: &std::path::Path) -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let row = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = row.and_then(|row| row.split_whitespace().next()?.parse::<u64>().ok());
        let disk = nix::sys::statvfs::statvfs(data_dir).ok();
        let permille = disk.map(|stat| stat.blocks_available() * 1000 / stat.blocks().max(1));
        Self {
            memory_available_bytes: kib.map_or(u64::MAX, |kib| kib * 1024),
            disk_available_permille: permille.unwrap_or(1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_files_of_linux() {
        assert_eq!(memory_total("MemTotal:       2048 kB\nMemFree: 1 kB\n"), 2 << 20);
        assert_eq!(pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(go_arch("x86_64"), "amd64");
    }
}
