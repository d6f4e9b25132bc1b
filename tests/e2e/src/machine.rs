//! What a cluster could leave behind on a machine, as sets of lines that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cluster::names_in;
use crate::eventually::eventually;
use crate::needs::{binary, program};

/// Kernel settings that a node's network depends on.
const SETTINGS: [&str; 6] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_nonlocal_bind",
    "net/bridge/bridge-nf-call-iptables",
];
/// Folders in which programs leave things.
const FOLDERS: [&str; 5] = ["/run", "/run/netns", "/var/lib", "/dev/shm", "/etc/cni"];

/// Kinds of things, and those there are of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<&'static str, BTreeSet<String>>);

impl Snapshot {
    /// Looks at the machine now.
    pub fn take() -> Self {
        let kinds = [
            ("processes", processes()),
            ("mounts", mounts()),
            ("network namespaces", network_namespaces()),
            ("cgroups", cgroups()),
            ("nft tables", nft_tables()),
            ("links", names_in(Path::new("/sys/class/net")).into_iter().collect()),
            ("addresses and routes", addresses_and_routes()),
            ("kernel settings", settings()),
            ("directories", directories()),
        ];
        Self(kinds.into())
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.0.get(kind).unwrap_or_else(|| panic!("nobody counts {kind}")).len()
    }

    /// One line for each thing that came or went.
    pub fn changes_to(&self, later: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (kind, before) in &self.0 {
            let after = &later.0[kind];
            changes.extend(after.difference(before).map(|thing| format!("{kind}: came: {thing}")));
            changes.extend(before.difference(after).map(|thing| format!("{kind}: went: {thing}")));
        }
        changes
    }

    /// Waits until the machine is as it was; the kernel frees some things a moment later.
    #[track_caller]
    pub fn assert_restored(&self) {
        eventually("the machine is as it was", || {
            let changes = self.changes_to(&Self::take());
            if changes.is_empty() { Ok(()) } else { Err(changes.join("\n")) }
        });
    }
}

/// Ids of all running processes.
pub fn process_ids() -> Vec<u32> {
    names_in(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect()
}

/// The node's helper processes and its workloads: what runs our binary or in a cgroup of ours.
pub fn processes() -> BTreeSet<String> {
    let binary = binary().canonicalize().unwrap_or_default();
    let ours = |id: &u32| {
        let exe = fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
        let cgroups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
        exe == binary || cgroups.lines().any(|line| line.contains(":/knarr"))
    };
    let line = |id: u32| {
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        format!("{id} {}", String::from_utf8_lossy(&command).replace('\0', " "))
    };
    process_ids().into_iter().filter(ours).map(line).collect()
}

fn lines_of(path: &str) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn mounts() -> BTreeSet<String> {
    lines_of("/proc/self/mounts")
}

/// Network namespaces that a process is in.
fn network_namespaces() -> BTreeSet<String> {
    let links = process_ids().into_iter().map(|id| fs::read_link(format!("/proc/{id}/ns/net")));
    links.flatten().map(|link| link.display().to_string()).collect()
}

/// The node makes all its groups below one of this name; others of the machine come and go.
fn cgroups() -> BTreeSet<String> {
    let is_ours = |path: &Path| path.components().any(|part| part.as_os_str() == "knarr");
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if is_ours(&entry.path()) {
                    found.insert(entry.path().display().to_string());
                }
                open.push(entry.path());
            }
        }
    }
    found
}

/// Through the distribution's `nft`; without it nothing is compared.
fn nft_tables() -> BTreeSet<String> {
    let Some(nft) = program("nft") else { return BTreeSet::new() };
    let output = Command::new(nft).args(["list", "tables"]).output().expect("nft can be run");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn addresses_and_routes() -> BTreeSet<String> {
    let mut lines = lines_of("/proc/net/route");
    let local = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut prefix = String::new();
    for line in local.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            prefix = address.to_owned();
        } else if line.contains("host LOCAL") || line.contains("BROADCAST") {
            lines.insert(format!("{prefix} {line}"));
        }
    }
    lines
}

fn settings() -> BTreeSet<String> {
    let value = |setting: &&str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(setting)).ok()?;
        Some(format!("{setting}={}", text.trim()))
    };
    SETTINGS.iter().filter_map(value).collect()
}

fn directories() -> BTreeSet<String> {
    let within = |folder: &str| {
        let folder = folder.to_owned();
        names_in(Path::new(&folder)).into_iter().map(move |name| format!("{folder}/{name}"))
    };
    FOLDERS.into_iter().flat_map(within).collect()
}
