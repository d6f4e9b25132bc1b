//! Taking rights away from a helper process before it touches anything untrusted.
//!
//! Owns: the order cgroup, network namespace, user, capabilities, no_new_privs, system-call filter.
//! Each step needs a right that a later one drops. Everything runs while the process has one
//! thread. Without root the steps that need it are left out and the rest still holds.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use cgroups_rs::CgroupPid;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::{Cgroup, hierarchies};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Controllers a helper is put under; others would only cost a slow first attach.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// On v1 a controller of its own, on v2 a part of `cpu`: asking v2 for it is refused.
const V1_ACCOUNTING: &str = "cpuacct";
/// How often a busy v2 group is tried again, and how long apart.
const REMOVE_ATTEMPTS: u32 = 30;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// Where and as whom a helper process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Relative to the root of each hierarchy. `None`: stay in the parent's.
    pub cgroup: Option<String>,
    /// Join this network namespace.
    pub netns: Option<PathBuf>,
    /// Become this user and group.
    pub uid_gid: Option<(u32, u32)>,
}

#[derive(Debug, Error)]
#[error("cannot {attempt} before running Wasm code: {why}")]
pub struct ConfineError {
    pub attempt: &'static str,
    pub why: String,
}

fn failed(attempt: &'static str) -> impl Fn(&dyn std::fmt::Display) -> ConfineError {
    move |why| ConfineError { attempt, why: why.to_string() }
}

/// Moves this process into its cgroup and limits it. A machine without cgroups only warns: the
/// other fences hold without it.
pub fn enter_cgroup(confinement: &Confinement, memory_bytes_max: Option<u64>) {
    let Some(path) = confinement.cgroup.as_deref().filter(|_| geteuid().is_root()) else { return };
    let entered = open_cgroup(path).and_then(|cgroup| {
        if let (Some(most), Some(memory)) = (memory_bytes_max, cgroup.controller_of::<MemController>()) {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            memory.set_limit(most).map_err(|error| io::Error::other(error.to_string()))?;
        }
        let pid = CgroupPid::from(u64::from(std::process::id()));
        cgroup.add_task_by_tgid(pid).map_err(|error| io::Error::other(error.to_string()))
    });
    if let Err(error) = entered {
        tracing::warn!(cgroup = path, %error, "cannot enter the cgroup");
    }
}

fn open_cgroup(path: &str) -> io::Result<Cgroup> {
    Cgroup::new_with_specified_controllers(hierarchies::auto(), path, Some(controllers()))
        .map_err(|error| io::Error::other(error.to_string()))
}

fn controllers() -> Vec<String> {
    let accounting = (!hierarchies::is_cgroup2_unified_mode()).then_some(V1_ACCOUNTING);
    CONTROLLERS.into_iter().chain(accounting).map(str::to_owned).collect()
}

/// Removes an empty cgroup in every hierarchy; one that is in use, or absent, stays as it is. Waits a
/// little for the threads of a process that has just ended.
pub fn remove_cgroup(path: &str) {
    if hierarchies::is_cgroup2_unified_mode() {
        return remove_v2(&Path::new(hierarchies::UNIFIED_MOUNTPOINT).join(path));
    }
    let cgroup = Cgroup::load_with_specified_controllers(hierarchies::auto(), path, controllers());
    if cgroup.exists() {
        let _ = cgroup.delete();
    }
}

/// cgroups-rs waits on v1 only.
fn remove_v2(dir: &Path) {
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(dir) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // Groups do not go away by themselves, threads do.
            Err(_) if has_groups(dir) => return,
            Err(_) => std::thread::sleep(REMOVE_PAUSE),
        }
    }
}

fn has_groups(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// Joins the pod's network namespace.
pub fn enter_network(confinement: &Confinement) -> Result<(), ConfineError> {
    let Some(path) = &confinement.netns else { return Ok(()) };
    let attempt = failed("join the pod's network namespace");
    let namespace = File::open(path).map_err(|error| attempt(&format!("{}: {error}", path.display())))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| attempt(&error))
}

/// Becomes the unprivileged user and keeps only `kept` capabilities (ambient too). Always sets
/// no_new_privs. Must run before any other thread exists: credentials are per thread.
pub fn drop_privileges(confinement: &Confinement, kept: &[Capability]) -> Result<(), ConfineError> {
    if geteuid().is_root() {
        drop_root(confinement, kept)?;
    }
    prctl::set_no_new_privs().map_err(|error| failed("set no_new_privs")(&error))
}

fn drop_root(confinement: &Confinement, kept: &[Capability]) -> Result<(), ConfineError> {
    let keep: CapsHashSet = kept.iter().copied().collect();
    let bounding = failed("empty the bounding set");
    for capability in caps::read(None, CapSet::Bounding).map_err(|error| bounding(&error))? {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(|error| bounding(&error))?;
        }
    }
    if let Some((uid, gid)) = confinement.uid_gid {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        prctl::set_keepcaps(!kept.is_empty()).map_err(|error| failed("keep capabilities over setuid")(&error))?;
        setgroups(&[]).map_err(|error| failed("drop supplementary groups")(&error))?;
        setresgid(gid, gid, gid).map_err(|error| failed("change the group")(&error))?;
        setresuid(uid, uid, uid).map_err(|error| failed("change the user")(&error))?;
    }
    let capabilities = failed("drop capabilities");
    for set in [CapSet::Effective, CapSet::Inheritable] {
        caps::set(None, set, &keep).map_err(|error| capabilities(&error))?;
    }
    caps::set(None, CapSet::Permitted, &keep).map_err(|error| capabilities(&error))?;
    for capability in kept {
        caps::raise(None, CapSet::Ambient, *capability).map_err(|error| capabilities(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked without the code under test: a fault of that one must not look like a machine without cgroups.
    fn may_make_cgroups() -> bool {
        let hierarchy = if hierarchies::is_cgroup2_unified_mode() { "" } else { "memory" };
        let probe = Path::new("/sys/fs/cgroup").join(hierarchy).join(format!("probe-{}", std::process::id()));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
    }

    #[test]
    fn a_cgroup_is_made_limited_entered_and_removed() {
        if !may_make_cgroups() {
            println!("skipped: no writable cgroups, or not root");
            return;
        }
        let path = format!("knarr/test-wasm-{}", std::process::id());
        let cgroup = open_cgroup(&path).unwrap();
        cgroup.controller_of::<MemController>().expect("a memory controller").set_limit(64 << 20).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let entered = cgroup.add_task_by_tgid(CgroupPid::from(u64::from(child.id())));
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        child.kill().and_then(|()| child.wait()).unwrap();
        remove_cgroup(&path);
        entered.unwrap();
        assert!(groups.contains(&path), "{groups}");
        assert!(!cgroup.exists());
    }

    #[test]
    fn errors_name_the_attempt() {
        let missing = Confinement { netns: Some("/nonexistent/ns".into()), ..Confinement::default() };
        let error = enter_network(&missing).unwrap_err().to_string();
        assert!(error.starts_with("cannot join the pod's network namespace before running Wasm code"), "{error}");
        assert!(error.contains("/nonexistent/ns"), "{error}");
    }
}
