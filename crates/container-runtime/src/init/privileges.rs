//! Giving up: groups, user, capabilities, and the filter on system calls. The order matters and is
//! explained where it does; `launch.rs` calls [`give_up`] as the last thing before execve.

use std::fs;
use std::path::PathBuf;

use nix::libc;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::user::Identity;
use super::{Attempt, Setup};
use crate::spec::ProcessSpec;
use crate::sys;

/// Highest capability number the kernel could have; the loop ends at the first it does not know.
const CAPABILITIES_MAX: u32 = 63;

pub fn give_up(process: &ProcessSpec, filter: Option<&[u8]>, identity: &Identity) -> Setup<()> {
    // Without no_new_privs, a filter may only be installed while CAP_SYS_ADMIN is still there. With
    // it, later is better: the calls below need not be allowed.
    if !process.no_new_privileges {
        filter_calls(filter)?;
    }
    shrink_bounding_set(process.capabilities)?;
    // Keep the permitted set over the change of user, to set it exactly afterwards.
    rustix::thread::set_keep_capabilities(true).attempt(|| "keep capabilities".to_owned())?;
    let groups: Vec<Gid> = identity.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups).attempt(|| "set the supplementary groups".to_owned())?;
    setresgid(gid, gid, gid).attempt(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).attempt(|| format!("become user {uid}"))?;
    rustix::thread::set_keep_capabilities(false).attempt(|| "stop keeping capabilities".to_owned())?;
    set_capabilities(process.capabilities)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).attempt(|| "set no_new_privs".to_owned())?;
        filter_calls(filter)?;
    }
    Ok(())
}

/// Reads the filter from the host, while its files are still in sight.
pub fn read_filter(process: &ProcessSpec) -> Setup<Option<Vec<u8>>> {
    let read = |path: &PathBuf| fs::read(path).attempt(|| format!("read the seccomp filter {}", path.display()));
    process.seccomp.as_ref().map(read).transpose()
}

fn filter_calls(filter: Option<&[u8]>) -> Setup<()> {
    match filter {
        Some(program) => sys::install_seccomp(program).attempt(|| "install the seccomp filter".to_owned()),
        None => Ok(()),
    }
}

fn shrink_bounding_set(keep: u64) -> Setup<()> {
    for number in (0..=CAPABILITIES_MAX).filter(|number| keep & (1 << number) == 0) {
        match sys::prctl(libc::PR_CAPBSET_DROP, number.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other.attempt(|| format!("drop capability {number} from the bounding set"))?,
        }
    }
    Ok(())
}

/// Exactly `wanted`, as far as this process has them itself (an agent in a container may not have
/// all). Inheritable and ambient stay empty (CVE-2022-24769).
fn set_capabilities(wanted: u64) -> Setup<()> {
    let own = rustix::thread::capabilities(None).attempt(|| "read capabilities".to_owned())?;
    let granted = CapabilitySet::from_bits_retain(wanted) & own.permitted;
    let sets = CapabilitySets { effective: granted, permitted: granted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).attempt(|| "set capabilities".to_owned())?;
    rustix::thread::clear_ambient_capability_set().attempt(|| "clear ambient capabilities".to_owned())
}
