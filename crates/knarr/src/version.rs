//! What this build calls itself.

/// Minor version of the Kubernetes API that is served.
pub const KUBERNETES_MINOR: u32 = 36;

/// Counts Knarr's releases of one Kubernetes minor version.
pub const BUILD: u32 = 1;

/// `v1.36.0+knarr.<n>`: clients such as Flux and kubectl parse it as a Kubernetes version.
pub fn git_version() -> String {
    format!("v1.{KUBERNETES_MINOR}.0+knarr.{BUILD}")
}
