//! Volumes of a pod as directories under `pods/<uid>/volumes/<name>`.
//!
//! Owns: what is written there. A type is one file with a pure part that says what a volume holds
//! (`projection`) or what to make (`empty_dir`, `host_path`), and one line in [`source`].
//! Host processes of Wasm guests have no privileges: directories are traversable by all.

mod atomic;
mod projection;
mod sub_path;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume};

pub use projection::references;
pub use sub_path::resolve as resolve_sub_path;

use crate::downward::Place;
use crate::env::Objects;
use crate::pod::backoff::Failure;
use crate::pod::spec::PodView;
use crate::tokens::{TokenKind, TokenTexts};

/// The reason of every failure here.
pub(crate) const REASON: &str = "FailedMount";
/// Mode of a volume directory others may read and of one all may write.
const MODE_READ: u32 = 0o755;
const MODE_WRITE: u32 = 0o777;

/// What a volume is on this node.
pub enum Source<'a> {
    EmptyDir,
    HostPath(&'a HostPathVolumeSource),
    Projection,
    Unsupported(&'static str),
}

/// The one list of volume types.
pub fn source(volume: &Volume) -> Source<'_> {
    let projection = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some();
    match volume {
        Volume { empty_dir: Some(_), .. } => Source::EmptyDir,
        Volume { host_path: Some(host_path), .. } => Source::HostPath(host_path),
        _ if projection => Source::Projection,
        Volume { persistent_volume_claim: Some(_), .. } => Source::Unsupported("persistentVolumeClaim"),
        Volume { ephemeral: Some(_), .. } => Source::Unsupported("ephemeral"),
        Volume { csi: Some(_), .. } => Source::Unsupported("csi"),
        Volume { nfs: Some(_), .. } => Source::Unsupported("nfs"),
        Volume { image: Some(_), .. } => Source::Unsupported("image"),
        // The API server defaults a volume without a source to emptyDir.
        _ => Source::EmptyDir,
    }
}

/// Where containers find the volume on the host.
pub fn host_path(volumes: &Path, volume: &Volume) -> PathBuf {
    match source(volume) {
        Source::HostPath(host_path) => PathBuf::from(&host_path.path),
        Source::EmptyDir | Source::Projection | Source::Unsupported(_) => volumes.join(&volume.name),
    }
}

/// What projections are made of.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    pub objects: &'a Objects,
    pub tokens: &'a TokenTexts,
}

/// Makes or refreshes every volume of the pod under `volumes`. Idempotent: files change only when
/// their contents do, and then all at once.
pub fn write_all(volumes: &Path, place: Place<'_>, contents: Contents<'_>) -> Result<(), Failure> {
    make_dir(volumes, MODE_READ)?;
    let spec = place.pod.spec().and_then(|spec| spec.volumes.as_ref());
    for volume in spec.into_iter().flatten() {
        write(volumes, place, contents, volume).map_err(|failure| {
            let text = format!("MountVolume.SetUp failed for volume {:?} : {}", volume.name, failure.message);
            Failure::new(&failure.reason, text)
        })?;
    }
    Ok(())
}

fn write(volumes: &Path, place: Place<'_>, contents: Contents<'_>, volume: &Volume) -> Result<(), Failure> {
    let dir = volumes.join(&volume.name);
    match source(volume) {
        Source::EmptyDir => make_dir(&dir, MODE_WRITE),
        Source::HostPath(host_path) => check_host_path(host_path),
        Source::Projection => {
            let payload = projection::payload(place, contents, volume)?;
            make_dir(&dir, MODE_READ)?;
            atomic::write(&dir, &payload)
                .map_err(|error| Failure::new(REASON, format!("cannot write {}: {error}", dir.display())))
        }
        Source::Unsupported(kind) => {
            Err(Failure::new(REASON, format!("this node does not support volumes of type {kind}")))
        }
    }
}

pub(crate) fn make_dir(dir: &Path, mode: u32) -> Result<(), Failure> {
    let made = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)));
    made.map_err(|error| Failure::new(REASON, format!("cannot make directory {}: {error}", dir.display())))
}

fn check_host_path(source: &HostPathVolumeSource) -> Result<(), Failure> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let refuse = |what: &str| Err(Failure::new(REASON, format!("hostPath type check failed: {} {what}", source.path)));
    match kind {
        "DirectoryOrCreate" => make_dir(path, MODE_READ),
        "FileOrCreate" if !path.exists() => std::fs::write(path, b"")
            .map_err(|error| Failure::new(REASON, format!("cannot make file {}: {error}", source.path))),
        "Directory" if !path.is_dir() => refuse("is not a directory"),
        "File" | "FileOrCreate" if !path.is_file() => refuse("is not a file"),
        _ if !path.exists() => refuse("does not exist"),
        _ => Ok(()),
    }
}

/// Every ConfigMap and Secret the volumes of the pod name.
pub fn all_references(pod: PodView<'_>) -> Vec<crate::objects::ObjectRef> {
    let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().flat_map(|volume| references(pod.namespace(), volume)).collect()
}

/// Every kind of token the volumes of the pod ask for.
pub fn all_tokens(pod: PodView<'_>) -> Vec<TokenKind> {
    let volumes = pod.spec().and_then(|spec| spec.volumes.as_ref());
    let mut kinds: Vec<TokenKind> =
        volumes.into_iter().flatten().flat_map(projection::token_sources).map(projection::token_kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests;
