//! Kernel settings the network needs, and how they were before, so that teardown restores them.
//!
//! The former value is written to disk before the setting is changed: after a crash it is not lost.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::SetupError;
use crate::files::write_atomically;

const RECORD: &str = "sysctls.json";

/// Settings of the whole machine that outlive us unless restored.
pub(crate) const MACHINE: [(&str, &str); 1] = [("net/ipv4/ip_forward", "1")];

/// Settings of the node's end of a pod's veth, gone with it.
pub(crate) fn of_pod_link(name: &str) -> [(String, &'static str); 2] {
    let setting = |setting: &str, value| (format!("net/ipv4/conf/{name}/{setting}"), value);
    [
        // A pod sends from its own address only.
        setting("rp_filter", "1"),
        // A Service may lead to 127.0.0.1 (the API server), and a client on 127.0.0.1 to a
        // NodePort; the ruleset keeps pods from using more of it.
        setting("route_localnet", "1"),
    ]
}

/// Pods have IPv4 only, and so do the rules about them: there is no other way to a pod or from it, not even to the node.
pub(crate) fn disable_ipv6(link: &str) -> Result<(), SetupError> {
    let setting = format!("net/ipv6/conf/{link}/disable_ipv6");
    // A kernel without IPv6 has no such setting.
    if file(&setting).exists() { set(&setting, "1") } else { Ok(()) }
}

/// Sets the machine's settings and remembers what they were. Idempotent.
pub(crate) fn apply_machine(state_dir: &Path) -> Result<(), SetupError> {
    let mut former = recorded(state_dir)?;
    for (name, wanted) in MACHINE {
        let current = read(name)?;
        if current == wanted {
            continue;
        }
        if !former.contains_key(name) {
            former.insert(name.to_owned(), current);
            let bytes = serde_json::to_vec(&former).expect("a map of strings is JSON");
            let path = state_dir.join(RECORD);
            write_atomically(&path, &bytes).map_err(|source| SetupError::File { attempt: "write", path, source })?;
        }
        set(name, wanted)?;
    }
    Ok(())
}

/// Puts back what [`apply_machine`] changed.
pub(crate) fn restore_machine(state_dir: &Path) -> Result<(), SetupError> {
    for (name, value) in recorded(state_dir)? {
        set(&name, &value)?;
    }
    let path = state_dir.join(RECORD);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SetupError::File { attempt: "remove", path, source })
        }
        _ => Ok(()),
    }
}

pub(crate) fn set(name: &str, value: &str) -> Result<(), SetupError> {
    let path = file(name);
    fs::write(&path, value).map_err(|source| SetupError::File { attempt: "write", path, source })
}

fn read(name: &str) -> Result<String, SetupError> {
    let path = file(name);
    let text = fs::read_to_string(&path).map_err(|source| SetupError::File { attempt: "read", path, source })?;
    Ok(text.trim().to_owned())
}

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn recorded(state_dir: &Path) -> Result<BTreeMap<String, String>, SetupError> {
    let path = state_dir.join(RECORD);
    match fs::read(&path) {
        // A record that was damaged is as good as none: it is only ever written whole.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(SetupError::File { attempt: "read", path, source }),
    }
}
