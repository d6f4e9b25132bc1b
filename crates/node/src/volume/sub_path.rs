//! `subPath` of a volume mount: a path below the volume that no symbolic link may lead out of.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{MODE_WRITE, REASON, make_dir};
use crate::pod::backoff::Failure;

/// The real path of `sub_path` below `volume`; missing directories are made.
pub fn resolve(volume: &Path, sub_path: &str) -> Result<PathBuf, Failure> {
    let refuse = |why: String| Failure::new("CreateContainerConfigError", why);
    let relative = Path::new(sub_path);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refuse(format!("subPath {sub_path:?} must be relative and must not contain '..'")));
    }
    let io = |attempt: &str, path: &Path, error: std::io::Error| {
        Failure::new(REASON, format!("cannot {attempt} {}: {error}", path.display()))
    };
    let root = fs::canonicalize(volume).map_err(|error| io("resolve volume", volume, error))?;
    let mut at = root.clone();
    for part in relative.components().filter(|part| matches!(part, Component::Normal(_))) {
        let next = at.join(part);
        if fs::symlink_metadata(&next).is_err() {
            make_dir(&next, MODE_WRITE)?;
        }
        at = fs::canonicalize(&next).map_err(|error| io("resolve subPath", &next, error))?;
        if !at.starts_with(&root) {
            return Err(refuse(format!("subPath {sub_path:?} leads out of its volume through a symbolic link")));
        }
    }
    Ok(at)
}
