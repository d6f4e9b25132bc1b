//! What this runtime was asked to run and how that went: the state that outlives the agent.
//!
//! Owns: one file per sandbox and per container under the run directory, and the changes a
//! container can go through. Only the runtime's worker writes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cri::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, ExitReason, Isolation, PodSandboxConfig, SandboxId,
    SandboxState, SandboxStatus,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable;
use crate::protocol::{HostContainer, HostState};

/// Socket paths are short; longer names are cut and told apart by a hash.
const HOST_NAME_BYTES_MAX: usize = 24;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: SandboxId,
    pub config: PodSandboxConfig,
    pub created_at: SystemTime,
    pub stopped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub config: ContainerConfig,
    pub created_at: SystemTime,
    pub state: ContainerState,
}

impl SandboxRecord {
    /// The host process its containers run in.
    pub fn host(&self) -> String {
        match self.config.isolation {
            Isolation::Namespace => short_name("ns", &self.config.namespace),
            Isolation::Pod => short_name("pod", &self.config.pod_uid),
        }
    }

    pub fn status(&self) -> SandboxStatus {
        SandboxStatus {
            id: self.id.clone(),
            pod_uid: self.config.pod_uid.clone(),
            name: self.config.name.clone(),
            namespace: self.config.namespace.clone(),
            // A lost host is started again for the next container: the sandbox is only a record.
            state: if self.stopped { SandboxState::NotReady } else { SandboxState::Ready },
            created_at: self.created_at,
        }
    }
}

impl ContainerRecord {
    pub fn status(&self, pod_uid: &str) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            pod_uid: pod_uid.to_owned(),
            name: self.config.name.clone(),
            attempt: self.config.attempt,
            image: self.config.image.reference.clone(),
            image_id: self.config.image.image_id.clone(),
            created_at: self.created_at,
            state: self.state.clone(),
            log_path: self.config.log_path.clone(),
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }
}

/// The state after a host spoke; an end is final.
pub fn after_report(state: &ContainerState, report: &HostState) -> ContainerState {
    match (state, report) {
        (ContainerState::Exited { .. }, _) => state.clone(),
        (_, HostState::Running { started_at }) => ContainerState::Running { started_at: *started_at },
        (_, HostState::Exited { started_at, finished_at, outcome }) => ContainerState::Exited {
            started_at: *started_at,
            finished_at: *finished_at,
            exit_code: outcome.exit_code,
            reason: outcome.reason,
            message: outcome.message.clone(),
        },
    }
}

/// The state after the host process went away.
pub fn after_loss(state: &ContainerState, now: SystemTime) -> ContainerState {
    match state {
        ContainerState::Running { started_at } => ContainerState::Exited {
            started_at: *started_at,
            finished_at: now,
            exit_code: 137,
            reason: ExitReason::SandboxLost,
            message: "its sandbox host process ended unexpectedly".to_owned(),
        },
        ContainerState::Created | ContainerState::Exited { .. } => state.clone(),
    }
}

fn short_name(kind: &str, name: &str) -> String {
    if name.len() <= HOST_NAME_BYTES_MAX {
        return format!("{kind}-{name}");
    }
    let hash = hex::encode(&Sha256::digest(name)[..6]);
    let head: String = name.chars().take(HOST_NAME_BYTES_MAX - hash.len()).collect();
    format!("{kind}-{head}{hash}")
}

/// All records, in memory and on disk.
pub struct Records {
    dir: PathBuf,
    pub sandboxes: BTreeMap<String, SandboxRecord>,
    pub containers: BTreeMap<String, ContainerRecord>,
}

impl Records {
    pub fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            sandboxes: load(&dir.join("sandboxes"), |record: &SandboxRecord| record.id.0.clone())?,
            containers: load(&dir.join("containers"), |record: &ContainerRecord| record.id.0.clone())?,
            dir: dir.to_owned(),
        })
    }

    pub fn put_sandbox(&mut self, record: SandboxRecord) -> io::Result<()> {
        save(&self.dir.join("sandboxes"), &record.id.0, &record)?;
        self.sandboxes.insert(record.id.0.clone(), record);
        Ok(())
    }

    pub fn put_container(&mut self, record: ContainerRecord) -> io::Result<()> {
        save(&self.dir.join("containers"), &record.id.0, &record)?;
        self.containers.insert(record.id.0.clone(), record);
        Ok(())
    }

    pub fn remove_sandbox(&mut self, id: &str) {
        self.sandboxes.remove(id);
        let _ = std::fs::remove_file(self.dir.join("sandboxes").join(format!("{id}.json")));
    }

    pub fn remove_container(&mut self, id: &str) {
        self.containers.remove(id);
        let _ = std::fs::remove_file(self.dir.join("containers").join(format!("{id}.json")));
    }

    pub fn containers_of(&self, sandbox: &str) -> Vec<ContainerRecord> {
        self.containers.values().filter(|one| one.sandbox.0 == sandbox).cloned().collect()
    }

    pub fn pod_uid(&self, container: &ContainerRecord) -> String {
        self.sandboxes.get(&container.sandbox.0).map(|one| one.config.pod_uid.clone()).unwrap_or_default()
    }

    pub fn host_of(&self, container: &ContainerRecord) -> Option<String> {
        self.sandboxes.get(&container.sandbox.0).map(SandboxRecord::host)
    }

    /// Takes over a container's new state; says whether it is news.
    pub fn update(&mut self, id: &str, next: impl FnOnce(&ContainerState) -> ContainerState) -> bool {
        let Some(record) = self.containers.get(id) else { return false };
        let state = next(&record.state);
        if state == record.state {
            return false;
        }
        let record = ContainerRecord { state, ..record.clone() };
        if let Err(error) = self.put_container(record.clone()) {
            // The state in memory is right; a restart would ask the host again.
            tracing::warn!(container = id, %error, "cannot write a container record");
            self.containers.insert(id.to_owned(), record);
        }
        true
    }

    pub fn report(&mut self, container: &HostContainer) -> bool {
        self.update(&container.id, |state| after_report(state, &container.state))
    }

    /// Ids of the containers that run in `host`, as far as is known here.
    pub fn running_in(&self, host: &str) -> Vec<String> {
        let running = self.containers.values().filter(|one| one.is_running());
        running.filter(|one| self.host_of(one).as_deref() == Some(host)).map(|one| one.id.0.clone()).collect()
    }
}

fn load<T: DeserializeOwned>(dir: &Path, id: impl Fn(&T) -> String) -> io::Result<BTreeMap<String, T>> {
    std::fs::create_dir_all(dir)?;
    let mut records = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match serde_json::from_slice::<T>(&std::fs::read(&path)?) {
            Ok(record) => drop(records.insert(id(&record), record)),
            Err(error) => tracing::warn!(file = %path.display(), %error, "ignoring an unreadable record"),
        }
    }
    Ok(records)
}

fn save(dir: &Path, id: &str, record: &impl Serialize) -> io::Result<()> {
    durable::write(&dir.join(format!("{id}.json")), &serde_json::to_vec(record).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Outcome;
    use std::time::Duration;

    #[test]
    fn states_only_move_forward() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let running = ContainerState::Running { started_at: at(1) };
        let outcome = Outcome { exit_code: 3, reason: ExitReason::Error, message: "m".to_owned() };
        let ended = HostState::Exited { started_at: at(1), finished_at: at(2), outcome };
        let exited = ContainerState::Exited {
            started_at: at(1),
            finished_at: at(2),
            exit_code: 3,
            reason: ExitReason::Error,
            message: "m".to_owned(),
        };
        let check = |state: &ContainerState, report: &HostState, expect: &ContainerState| {
            assert_eq!(&after_report(state, report), expect);
        };
        check(&ContainerState::Created, &HostState::Running { started_at: at(1) }, &running);
        check(&running, &ended, &exited);
        check(&exited, &HostState::Running { started_at: at(9) }, &exited);
        assert_eq!(after_loss(&exited, at(9)), exited);
        assert_eq!(after_loss(&ContainerState::Created, at(9)), ContainerState::Created);
        assert!(matches!(
            after_loss(&running, at(9)),
            ContainerState::Exited { exit_code: 137, reason: ExitReason::SandboxLost, .. }
        ));
    }

    #[test]
    fn host_names_fit_a_socket_path() {
        let check = |name: &str, expect: &str| assert_eq!(short_name("ns", name), expect);
        check("default", "ns-default");
        assert_eq!(short_name("ns", &"a".repeat(63)).len(), 3 + HOST_NAME_BYTES_MAX);
        assert_ne!(short_name("ns", &"a".repeat(63)), short_name("ns", &"a".repeat(62)));
    }
}
