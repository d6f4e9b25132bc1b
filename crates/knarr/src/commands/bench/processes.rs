//! What Knarr's processes cost, read from /proc.
//!
//! Owns: which processes are Knarr's (the binary that measures, started as `up`, `demo`, `server`
//! or `internal`), and reading their memory, CPU time and disk writes. A container's own program is
//! not Knarr's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ticks per second in `/proc/<pid>/stat`: fixed by the kernel's interface.
const USER_HZ: u64 = 100;

/// One process of Knarr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// `knarr up`, `wasm-host`, `shim` …
    pub role: String,
}

/// What processes used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Shared pages are divided among those who share them.
    pub pss_bytes: u64,
    /// Since the process began.
    pub cpu: Duration,
    /// Since the process began.
    pub written_bytes: u64,
}

impl Usage {
    fn add(self, other: Self) -> Self {
        Self {
            pss_bytes: self.pss_bytes + other.pss_bytes,
            cpu: self.cpu + other.cpu,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }
}

/// Every process of this binary that is part of a cluster.
pub fn of_knarr() -> Vec<Process> {
    let Ok(own) = std::env::current_exe() else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| process(pid, &own)).collect()
}

fn process(pid: u32, own: &Path) -> Option<Process> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    if !is_same_program(&exe, own) {
        return None;
    }
    let role = role_of(&fs::read(format!("/proc/{pid}/cmdline")).ok()?)?;
    Some(Process { pid, role })
}

/// A binary that was replaced on disk is shown as deleted.
fn is_same_program(exe: &Path, own: &Path) -> bool {
    let undeleted = exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    PathBuf::from(undeleted) == own
}

/// From a command line with NUL between the words.
fn role_of(cmdline: &[u8]) -> Option<String> {
    let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).filter(|word| !word.is_empty()).skip(1).collect();
    let word = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word).into_owned());
    // Global flags may stand before the command.
    let first = words.iter().position(|word| !word.starts_with(b"-"))?;
    match word(first)?.as_str() {
        "internal" => word(first + 1),
        command @ ("up" | "demo" | "server") => Some(format!("knarr {command}")),
        _ => None,
    }
}

/// The sum over processes; those that ended meanwhile count nothing.
pub fn usage_of(pids: impl IntoIterator<Item = u32>) -> Usage {
    pids.into_iter().map(usage).fold(Usage::default(), Usage::add)
}

fn usage(pid: u32) -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    Usage {
        pss_bytes: field(&read("smaps_rollup"), "Pss:").unwrap_or(0) * 1024,
        cpu: cpu_time(&read("stat")).unwrap_or_default(),
        written_bytes: field(&read("io"), "write_bytes:").unwrap_or(0),
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// User and system time from `/proc/<pid>/stat`. The program's name, in parentheses, may hold
/// anything, so counting begins behind the last one.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / USER_HZ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_from_the_command_line() {
        let check = |words: &[&str], expect: Option<&str>| {
            assert_eq!(role_of(words.join("\0").as_bytes()).as_deref(), expect, "{words:?}");
        };
        check(&["knarr", "up", "--data-dir", "/d", ""], Some("knarr up"));
        check(&["knarr", "-v", "demo"], Some("knarr demo"));
        check(&["/proc/self/exe", "internal", "wasm-host", "/run/x"], Some("wasm-host"));
        check(&["knarr", "bench", "up"], None);
        check(&["knarr", "image", "ls"], None);
        check(&["knarr"], None);
        check(&[], None);
    }

    #[test]
    fn a_replaced_binary_is_still_the_same_program() {
        let own = Path::new("/opt/knarr");
        assert!(is_same_program(Path::new("/opt/knarr"), own));
        assert!(is_same_program(Path::new("/opt/knarr (deleted)"), own));
        assert!(!is_same_program(Path::new("/opt/other"), own));
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time(""), None);
        assert_eq!(cpu_time("7 (x) S 1"), None);
    }

    #[test]
    fn fields_are_read_by_name() {
        let rollup = "00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss:                 512 kB\n";
        assert_eq!(field(rollup, "Pss:"), Some(512));
        assert_eq!(field("rchar: 1\nwrite_bytes: 4096\n", "write_bytes:"), Some(4096));
        assert_eq!(field("", "Pss:"), None);
    }

    #[test]
    fn the_own_process_uses_memory() {
        let usage = usage_of([std::process::id()]);
        assert!(usage.pss_bytes > 0, "{usage:?}");
    }
}
