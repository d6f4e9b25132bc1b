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
pub(crate) const MACHINE: [(&str, &str); 2] = [
    ("net/ipv4/ip_forward", "1"),
    // Pods have /32 addresses and always go by the gateway; telling them of a shorter way is noise.
    ("net/ipv4/conf/all/send_redirects", "0"),
];

/// Settings of the bridge, gone with it.
pub(crate) fn of_bridge(bridge: &str, loopback_backend: bool) -> Vec<(String, &'static str)> {
    let mut settings = vec![
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
        (format!("net/ipv4/conf/{bridge}/rp_filter"), "1"),
    ];
    if loopback_backend {
        // A Service whose backend listens on 127.0.0.1; the ruleset keeps pods from using more.
        settings.push((format!("net/ipv4/conf/{bridge}/route_localnet"), "1"));
    }
    settings
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
