//! Other limits for what runs: the files of cgroups, written by the agent. The shim has no part in it.

use cri::{ResourceUpdate, RuntimeError};

use super::{ContainerRuntime, unknown_container, unknown_sandbox};
use crate::cgroup::{Group, Which};
use crate::plan::{container_limits, pod_limits};
use crate::spec::Limits;

impl ContainerRuntime {
    pub(super) async fn change_limits(&self, update: ResourceUpdate) -> Result<(), RuntimeError> {
        let handle = self.sandbox(&update.sandbox).ok_or_else(|| unknown_sandbox(&update.sandbox))?;
        let pod = (self.layout.group(&handle.record.config.cgroup_parent), pod_limits(&update.pod));
        let mut name = handle.record.config.name.clone();
        let mut container = None;
        if let Some((id, resources)) = &update.container {
            let report = handle.view().containers.get(id).cloned().ok_or_else(|| unknown_container(id))?;
            name = report.about.name;
            container = Some((self.layout.group(&report.about.cgroup), container_limits(resources)));
        }
        // The kernel may have to take pages back before it answers.
        let changed = tokio::task::spawn_blocking(move || change(pod, container)).await;
        let outcome = changed.unwrap_or_else(|error| Err(error.to_string()));
        outcome.map_err(|why| RuntimeError::Resize { container: name, why })
    }
}

/// What becomes larger is changed from above, what becomes smaller from below: see [`Which`].
fn change(pod: (Group, Limits), container: Option<(Group, Limits)>) -> Result<(), String> {
    let words = |error: std::io::Error| error.to_string();
    let (pod, of_pod) = pod;
    if let Some((group, limits)) = &container {
        let used = group.working_set_bytes();
        if let Some(limit) = limits.memory_bytes.filter(|limit| *limit < used) {
            return Err(format!("a memory limit of {limit} bytes is below the {used} bytes in use"));
        }
    }
    pod.change(&of_pod, Which::Larger).map_err(words)?;
    if let Some((group, limits)) = container {
        group.change(&limits, Which::All).map_err(words)?;
    }
    pod.change(&of_pod, Which::All).map_err(words)
}
