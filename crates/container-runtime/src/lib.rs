//! `RuntimeService` for Linux containers: namespaces, overlayfs, cgroups, seccomp.
//!
//! Three kinds of process, one folder each:
//! - `runtime/`: in the node agent. Turns CRI values into a spec (`plan.rs`, pure) and talks to shims.
//! - `shim/`: one small process per pod sandbox. Owns the containers, their logs and their exits;
//!   outlives the agent.
//! - `init/`: what becomes the container. Builds the root file system, gives up every privilege,
//!   executes the user's program.
//!
//! `protocol.rs` and `spec.rs` are what they say to each other. Nothing here knows a Kubernetes object.

mod cgroup;
mod descriptor;
mod files;
mod init;
mod passing;
mod plan;
mod process;
mod protocol;
mod runtime;
mod seccomp;
mod seccomp_table;
mod shim;
mod spec;
mod sys;

pub use runtime::{ContainerRuntime, ContainerRuntimeConfig};

/// The hidden subcommands of this crate: `shim` and `container-init`. Call it first in `main`, before
/// any thread exists. Answers the exit code, or `None` when the name belongs to somebody else.
pub fn internal_main(name: &str, args: &[String]) -> Option<i32> {
    match name {
        "shim" => Some(shim::main(args)),
        "container-init" => Some(init::main(args)),
        _ => None,
    }
}

/// Removes what is empty of the cgroup `relative` and the groups below it, in every hierarchy: the last
/// step of a node that leaves the machine as it was. Does nothing on a machine without cgroups.
pub fn remove_empty_cgroups(relative: &str) {
    if let Ok(layout) = cgroup::Layout::detect() {
        layout.group(relative).remove_empty_tree();
    }
}

/// The name of this runtime in errors.
const RUNTIME: &str = "container";
