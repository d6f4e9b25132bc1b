//! Cgroups of pods and containers on v1 and v2. cgroups-rs finds the hierarchies and makes v1's
//! directories; what is written into them is decided by [`limit_writes`], a pure table.
//!
//! On a hybrid machine (v1 controllers, an almost empty v2 tree beside them) this is v1.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroups_rs::fs::hierarchies::{self, V1};
use cgroups_rs::fs::{Cgroup, Controllers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spec::{CPU_PERIOD_MICROS, Limits};

/// How often a directory that is still busy is tried again, and how long apart.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// Rounds of "kill everybody in it", and how long apart: on v1 a fork may slip through between reading
/// and killing, and on both the dying take a moment.
const KILL_ROUNDS: u32 = 200;
const KILL_PAUSE: Duration = Duration::from_millis(1);
/// v1 says "no limit" with the largest multiple of a page in 63 bits.
const NO_BOUND_BYTES: u64 = 1 << 62;

/// Where this machine has its controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Controller name and mount point.
    V1(Vec<(&'static str, PathBuf)>),
    V2(PathBuf),
}

const V1_CONTROLLERS: [(&str, Controllers); 4] = [
    ("memory", Controllers::Mem),
    ("cpu", Controllers::Cpu),
    ("cpuacct", Controllers::CpuAcct),
    ("pids", Controllers::Pids),
];
const V2_CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

impl Layout {
    /// Looks at the mounts. An error names the controller that is missing.
    pub fn detect() -> Result<Self, String> {
        if hierarchies::is_cgroup2_unified_mode() {
            let root = PathBuf::from(hierarchies::UNIFIED_MOUNTPOINT);
            let offered = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            let offered: BTreeSet<&str> = offered.split_whitespace().collect();
            return match V2_CONTROLLERS.iter().find(|name| !offered.contains(*name)) {
                Some(missing) => Err(format!("the cgroup v2 tree does not offer the {missing} controller")),
                None => Ok(Self::V2(root)),
            };
        }
        let v1 = V1::new();
        let mut mounts = Vec::new();
        for (name, controller) in V1_CONTROLLERS {
            match v1.get_mount_point(controller) {
                Some((point, _)) => mounts.push((name, point)),
                None => return Err(format!("no cgroup hierarchy with the {name} controller is mounted")),
            }
        }
        Ok(Self::V1(mounts))
    }

    /// The group at this path below every hierarchy's root.
    pub fn group(&self, relative: &str) -> Group {
        let at = |point: &Path| point.join(relative);
        let dirs = match self {
            Self::V1(mounts) => mounts.iter().map(|(name, point)| (*name, at(point))).collect(),
            Self::V2(root) => vec![("", at(root))],
        };
        Group { v2: matches!(self, Self::V2(_)), relative: relative.to_owned(), dirs }
    }
}

/// One cgroup, in every hierarchy we use. May or may not exist.
#[derive(Debug, Clone)]
pub struct Group {
    v2: bool,
    relative: String,
    /// Controller and directory; on v2 one row with an empty name.
    dirs: Vec<(&'static str, PathBuf)>,
}

impl Group {
    /// Makes it (and its parents) and sets its limits. Idempotent.
    pub fn create(&self, limits: &Limits) -> io::Result<()> {
        if self.v2 {
            create_v2(Path::new(hierarchies::UNIFIED_MOUNTPOINT), &self.relative)?;
        } else {
            let names = V1_CONTROLLERS.iter().map(|(name, _)| (*name).to_owned()).collect();
            Cgroup::new_with_specified_controllers(Box::new(V1::new()), &self.relative, Some(names))
                .map_err(io::Error::other)?;
        }
        self.write_all(limit_writes(self.v2, limits))
    }

    /// Gives it other limits while processes run in it.
    pub fn change(&self, limits: &Limits, which: Which) -> io::Result<()> {
        self.write_all(change_writes(self.v2, &self.bounds(), limits, which))
    }

    fn write_all(&self, writes: Vec<Write>) -> io::Result<()> {
        for write in writes {
            let path = self.dir(write.controller).join(write.file);
            match fs::write(&path, &write.value) {
                Err(error) if !(write.optional && error.kind() == io::ErrorKind::NotFound) => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How much the kernel lets it have now.
    fn bounds(&self) -> Bounds {
        let (memory, quota) =
            if self.v2 { ("memory.max", "cpu.max") } else { ("memory.limit_in_bytes", "cpu.cfs_quota_us") };
        // `max`, -1 and v1's largest number of pages are no bound.
        let number = |text: String| text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        Bounds {
            memory_bytes: number(self.read("memory", memory)).filter(|bytes| *bytes < NO_BOUND_BYTES),
            cpu_quota_micros: number(self.read("cpu", quota)),
        }
    }

    fn dir(&self, controller: &str) -> &Path {
        let found = self.dirs.iter().find(|(name, _)| self.v2 || *name == controller);
        &found.expect("every controller of the table is in the layout").1
    }

    /// The v2 directory to be born in; `None` on v1: see [`Group::enter_paths`].
    pub fn birth_place(&self) -> io::Result<Option<fs::File>> {
        if self.v2 { fs::File::open(self.dir("")).map(Some) } else { Ok(None) }
    }

    /// What a process opens to move itself in; empty on v2, where it is born inside.
    ///
    /// A thread that moves itself through v1's `tasks` takes 0.3 ms. A parent that writes a pid to
    /// `cgroup.procs` waits for an RCU grace period, 7 ms and more: the kernel then has to stop every
    /// fork and exit of the machine, which a lone thread that is busy writing makes unnecessary.
    pub fn enter_paths(&self) -> Vec<PathBuf> {
        if self.v2 { Vec::new() } else { self.unique_dirs().map(|dir| dir.join("tasks")).collect() }
    }

    /// Moves this process in; it must have one thread.
    pub fn enter(&self) -> io::Result<()> {
        if self.v2 { fs::write(self.dir("").join("cgroup.procs"), "0") } else { enter(&self.enter_paths()) }
    }

    /// cpu and cpuacct often share one hierarchy.
    fn unique_dirs(&self) -> impl Iterator<Item = &Path> {
        let mut seen = BTreeSet::new();
        self.dirs.iter().map(|(_, dir)| dir.as_path()).filter(move |dir| seen.insert(dir.to_path_buf()))
    }

    pub fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.dir("pids").join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// SIGKILLs every process in it until none is left (or they are being very stubborn).
    pub fn kill_all(&self) {
        // v2 lets no fork slip through, but it only sends the signal: the loop then waits for the end.
        let all_at_once = self.v2 && fs::write(self.dir("").join("cgroup.kill"), "1").is_ok();
        for _ in 0..KILL_ROUNDS {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for pid in processes.into_iter().filter(|_| !all_at_once) {
                // It may have ended meanwhile; the next round looks again.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }

    /// Removes it in every hierarchy. Waits a little for processes that are just dying.
    pub fn remove(&self) -> io::Result<()> {
        self.unique_dirs().try_for_each(|dir| remove_dir(dir, REMOVE_ATTEMPTS))
    }

    /// Removes it where it is empty: somebody else may have a group in there.
    pub fn remove_if_empty(&self) {
        for dir in self.unique_dirs() {
            let _ = remove_dir(dir, 1);
        }
    }

    /// Removes the group and every group below it that holds no process. Busy ones stay, and with
    /// them their parents.
    pub fn remove_empty_tree(&self) {
        self.unique_dirs().for_each(remove_empty_tree);
    }

    /// How many of its processes the kernel killed for memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        keyed_number(&self.read("memory", file), "oom_kill").unwrap_or(0)
    }

    pub fn cpu_usage_nanos(&self) -> u64 {
        if self.v2 {
            keyed_number(&self.read("cpu", "cpu.stat"), "usage_usec").unwrap_or(0) * 1000
        } else {
            self.read("cpuacct", "cpuacct.usage").trim().parse().unwrap_or(0)
        }
    }

    /// Memory in use without file pages that were not touched lately, as the kubelet counts.
    pub fn working_set_bytes(&self) -> u64 {
        let (usage, inactive) = if self.v2 {
            ("memory.current", "inactive_file")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file")
        };
        let usage: u64 = self.read("memory", usage).trim().parse().unwrap_or(0);
        usage.saturating_sub(keyed_number(&self.read("memory", "memory.stat"), inactive).unwrap_or(0))
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.dir(controller).join(file)).unwrap_or_default()
    }
}

/// Makes a v2 group, and lets every group above it pass our controllers on. cgroups-rs would go on
/// when that is refused, and the limits would then fail for a reason nobody can guess.
fn create_v2(root: &Path, relative: &str) -> io::Result<()> {
    let mut dir = root.to_owned();
    for name in relative.split('/').filter(|name| !name.is_empty()) {
        pass_controllers_on(&dir)?;
        dir.push(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", dir.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes only what is missing: the kernel lets every write wait for groups that are just going away.
fn pass_controllers_on(dir: &Path) -> io::Result<()> {
    let path = dir.join("cgroup.subtree_control");
    let context = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let wanted = missing_controllers(&fs::read_to_string(&path).map_err(context)?);
    if wanted.is_empty() { Ok(()) } else { fs::write(&path, wanted).map_err(context) }
}

/// What to write into `cgroup.subtree_control`, given what is in it.
fn missing_controllers(passed_on: &str) -> String {
    let passed_on: BTreeSet<&str> = passed_on.split_whitespace().collect();
    let missing = V2_CONTROLLERS.iter().filter(|name| !passed_on.contains(*name));
    missing.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

/// Moves the calling thread, the only one of its process, into v1 groups.
pub fn enter(paths: &[PathBuf]) -> io::Result<()> {
    paths.iter().try_for_each(|path| {
        fs::write(path, "0").map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    })
}

fn remove_empty_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_tree(&entry.path());
        }
    }
    // The kernel refuses a group that is busy or has children; that is the check.
    let _ = fs::remove_dir(dir);
}

fn remove_dir(dir: &Path, attempts: u32) -> io::Result<()> {
    for attempt in 1.. {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if attempt >= attempts => return Err(error),
            Err(_) => std::thread::sleep(REMOVE_PAUSE),
        }
    }
    Ok(())
}

/// `key value` lines, as in `memory.events`.
fn keyed_number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Which limits of a group are changed. On v1 a group may not have more cpu than the one above it, so that what
/// becomes larger is changed from above, what becomes smaller from below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Larger,
    All,
}

/// `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    memory_bytes: Option<u64>,
    cpu_quota_micros: Option<u64>,
}

/// What to write to get from these bounds to these limits. How many processes there may be does not change.
fn change_writes(v2: bool, has: &Bounds, limits: &Limits, which: Which) -> Vec<Write> {
    fn is_larger(new: Option<u64>, old: Option<u64>) -> bool {
        old.is_some_and(|old| new.is_none_or(|new| new > old))
    }
    let write = |controller, file, value: String, optional| Write { controller, file, value, optional };
    let bound = |value: Option<u64>, none: &str| value.map_or_else(|| none.to_owned(), |value| value.to_string());
    let mut writes = Vec::new();
    let memory_grows = is_larger(limits.memory_bytes, has.memory_bytes);
    if (which == Which::All || memory_grows) && (limits.memory_bytes.is_some() || has.memory_bytes.is_some()) {
        if v2 {
            writes.push(write("memory", "memory.max", bound(limits.memory_bytes, "max"), false));
            let swap = if limits.memory_bytes.is_some() { "0" } else { "max" };
            writes.push(write("memory", "memory.swap.max", swap.to_owned(), true));
        } else {
            let value = bound(limits.memory_bytes, "-1");
            writes.push(write("memory", "memory.limit_in_bytes", value.clone(), false));
            // Memory with swap is never less than memory alone.
            let at = if memory_grows { 0 } else { 1 };
            writes.insert(at, write("memory", "memory.memsw.limit_in_bytes", value, true));
        }
    }
    if let Some(shares) = limits.cpu_shares.filter(|_| which == Which::All) {
        let (file, value) = if v2 { ("cpu.weight", weight_of_shares(shares)) } else { ("cpu.shares", shares) };
        writes.push(write("cpu", file, value.to_string(), false));
    }
    let quota = limits.cpu_quota_micros;
    let quota_changes = which == Which::All || is_larger(quota, has.cpu_quota_micros);
    if quota_changes && (quota.is_some() || has.cpu_quota_micros.is_some()) {
        if v2 {
            writes.push(write("cpu", "cpu.max", format!("{} {CPU_PERIOD_MICROS}", bound(quota, "max")), false));
        } else {
            writes.push(write("cpu", "cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string(), false));
            writes.push(write("cpu", "cpu.cfs_quota_us", bound(quota, "-1"), false));
        }
    }
    writes
}

/// One file to write. `optional`: not every kernel has it (swap accounting).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Write {
    controller: &'static str,
    file: &'static str,
    value: String,
    optional: bool,
}

/// What to write for these limits, in this order: v1 refuses a memory+swap limit below the memory
/// limit, so memory comes first.
fn limit_writes(v2: bool, limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut push = |controller, file, value: String, optional| {
        writes.push(Write { controller, file, value, optional });
    };
    if let Some(bytes) = limits.memory_bytes {
        if v2 {
            push("memory", "memory.max", bytes.to_string(), false);
            push("memory", "memory.swap.max", "0".to_owned(), true);
        } else {
            push("memory", "memory.limit_in_bytes", bytes.to_string(), false);
            push("memory", "memory.memsw.limit_in_bytes", bytes.to_string(), true);
        }
    }
    if v2 && limits.oom_ends_all {
        push("memory", "memory.oom.group", "1".to_owned(), true);
    }
    if let Some(shares) = limits.cpu_shares {
        if v2 {
            push("cpu", "cpu.weight", weight_of_shares(shares).to_string(), false);
        } else {
            push("cpu", "cpu.shares", shares.to_string(), false);
        }
    }
    if let Some(quota) = limits.cpu_quota_micros {
        if v2 {
            push("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_MICROS}"), false);
        } else {
            push("cpu", "cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string(), false);
            push("cpu", "cpu.cfs_quota_us", quota.to_string(), false);
        }
    }
    if let Some(pids) = limits.pids {
        push("pids", "pids.max", pids.to_string(), false);
    }
    writes
}

/// Shares 2..=262144 onto weights 1..=10000, linearly, as Kubernetes does (KEP-2254).
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(v2: bool, limits: Limits, expect: &[&str]) {
        let writes: Vec<String> =
            limit_writes(v2, &limits).into_iter().map(|write| format!("{}={}", write.file, write.value)).collect();
        assert_eq!(writes, expect);
    }

    #[test]
    fn limits_become_files() {
        let all = Limits {
            memory_bytes: Some(1 << 25),
            cpu_quota_micros: Some(50_000),
            cpu_shares: Some(1024),
            pids: Some(64),
            oom_ends_all: true,
        };
        check(false, Limits::default(), &[]);
        check(true, Limits::default(), &[]);
        check(true, Limits { memory_bytes: Some(1), ..Limits::default() }, &["memory.max=1", "memory.swap.max=0"]);
        check(
            false,
            all.clone(),
            &[
                "memory.limit_in_bytes=33554432",
                "memory.memsw.limit_in_bytes=33554432",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "pids.max=64",
            ],
        );
        check(
            true,
            all,
            &[
                "memory.max=33554432",
                "memory.swap.max=0",
                "memory.oom.group=1",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "pids.max=64",
            ],
        );
    }

    #[test]
    fn changes_come_in_an_order_the_kernel_takes() {
        let check = |v2: bool, which: Which, has: (Option<u64>, Option<u64>), wants: (Option<u64>, Option<u64>)| {
            let has = Bounds { memory_bytes: has.0, cpu_quota_micros: has.1 };
            let limits = Limits { memory_bytes: wants.0, cpu_quota_micros: wants.1, ..Limits::default() };
            let writes = change_writes(v2, &has, &limits, which);
            writes.into_iter().map(|write| format!("{}={}", write.file, write.value)).collect::<Vec<_>>().join(" ")
        };
        let (all, larger) = (Which::All, Which::Larger);
        assert_eq!(check(true, all, (None, None), (None, None)), "");
        assert_eq!(
            check(true, all, (Some(1), Some(5000)), (Some(2), Some(6000))),
            "memory.max=2 memory.swap.max=0 cpu.max=6000 100000"
        );
        assert_eq!(check(true, larger, (Some(2), Some(5000)), (Some(1), Some(6000))), "cpu.max=6000 100000");
        assert_eq!(
            check(true, all, (Some(1), Some(5000)), (None, None)),
            "memory.max=max memory.swap.max=max cpu.max=max 100000"
        );
        assert_eq!(
            check(false, all, (Some(1), None), (Some(2), None)),
            "memory.memsw.limit_in_bytes=2 memory.limit_in_bytes=2"
        );
        assert_eq!(
            check(false, all, (Some(2), Some(2000)), (Some(1), Some(1000))),
            "memory.limit_in_bytes=1 memory.memsw.limit_in_bytes=1 cpu.cfs_period_us=100000 cpu.cfs_quota_us=1000"
        );
        assert_eq!(
            check(false, larger, (Some(2), Some(2000)), (Some(1), None)),
            "cpu.cfs_period_us=100000 cpu.cfs_quota_us=-1"
        );
        assert_eq!(check(false, larger, (None, None), (Some(1), Some(1000))), "", "a bound where there was none");
        let shares = Limits { cpu_shares: Some(1024), ..Limits::default() };
        assert_eq!(change_writes(true, &Bounds::default(), &shares, all).len(), 1);
        assert!(change_writes(true, &Bounds::default(), &shares, larger).is_empty());
    }

    #[test]
    fn weights_cover_the_range() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn controllers_are_passed_on_once() {
        for (passed_on, expect) in
            [("", "+memory +cpu +pids"), ("cpuset cpu\n", "+memory +pids"), ("memory cpu pids", "")]
        {
            assert_eq!(missing_controllers(passed_on), expect, "{passed_on}");
        }
    }

    #[test]
    fn counters_are_found_by_whole_key() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed_number(text, "oom_kill"), Some(3));
        assert_eq!(keyed_number(text, "oom"), None);
    }
}
