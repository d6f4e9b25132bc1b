//! What this runtime was asked to run and how that went: the state that outlives the agent.
//!
//! Owns: one file per sandbox and per container under the run directory, and the changes a
//! container can go through. Only the runtime's worker writes.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::runtime::crowd::Crowds;

/// Socket paths are short; longer names are cut and told apart by a hash.
const HOST_NAME_BYTES_MAX: usize = 24;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: SandboxId,
    pub config: PodSandboxConfig,
    pub created_at: SystemTime,
    pub stopped: bool,
    /// Which of its namespace's hosts it is in.
    #[serde(default)]
    pub host_number: u32,
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
            Isolation::Namespace => numbered(short_name("ns", &self.config.namespace), self.host_number),
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

/// The namespace and number of a host that others of the namespace may be in.
fn shared_host(sandbox: &SandboxRecord) -> Option<(&str, u32)> {
    match sandbox.config.isolation {
        Isolation::Namespace => Some((&sandbox.config.namespace, sandbox.host_number)),
        Isolation::Pod => None,
    }
}

/// Names of namespaces have no dots.
fn numbered(name: String, number: u32) -> String {
    if number == 0 { name } else { format!("{name}.{number}") }
}

/// All records, in memory and on disk.
pub struct Records {
    dir: PathBuf,
    sandboxes: BTreeMap<String, SandboxRecord>,
    pub containers: BTreeMap<String, ContainerRecord>,
    crowds: Crowds,
}

impl Records {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let sandboxes = load(&dir.join("sandboxes"), |record: &SandboxRecord| record.id.0.clone())?;
        let mut crowds = Crowds::default();
        for (namespace, number) in sandboxes.values().filter_map(shared_host) {
            crowds.add(namespace, number);
        }
        Ok(Self {
            sandboxes,
            crowds,
            containers: load(&dir.join("containers"), |record: &ContainerRecord| record.id.0.clone())?,
            dir: dir.to_owned(),
        })
    }

    pub fn sandboxes(&self) -> &BTreeMap<String, SandboxRecord> {
        &self.sandboxes
    }

    pub fn put_sandbox(&mut self, record: SandboxRecord) -> io::Result<()> {
        save(&self.dir.join("sandboxes"), &record.id.0, &record)?;
        if let Some((namespace, number)) = shared_host(&record) {
            self.crowds.add(namespace, number);
        }
        if let Some(before) = self.sandboxes.insert(record.id.0.clone(), record) {
            self.leave(&before);
        }
        Ok(())
    }

    /// Which of `namespace`'s hosts a new sandbox goes to.
    pub fn host_for(&self, namespace: &str) -> u32 {
        self.crowds.place(namespace, &BTreeSet::new())
    }

    /// Moves a sandbox whose host is full to one that is none of `full`. `None`: it has to stay. It was alone there,
    /// or its host knows containers of it.
    pub fn move_on(&mut self, id: &str, full: &BTreeSet<u32>) -> io::Result<Option<SandboxRecord>> {
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(None) };
        let Some((namespace, number)) = shared_host(sandbox) else { return Ok(None) };
        if self.crowds.count(namespace, number) <= 1 || self.has_started(id) {
            return Ok(None);
        }
        let moved = SandboxRecord { host_number: self.crowds.place(namespace, full), ..sandbox.clone() };
        self.put_sandbox(moved.clone())?;
        Ok(Some(moved))
    }

    fn leave(&mut self, sandbox: &SandboxRecord) {
        if let Some((namespace, number)) = shared_host(sandbox) {
            self.crowds.remove(namespace, number);
        }
    }

    pub fn put_container(&mut self, record: ContainerRecord) -> io::Result<()> {
        save(&self.dir.join("containers"), &record.id.0, &record)?;
        self.containers.insert(record.id.0.clone(), record);
        Ok(())
    }

    /// What it was, and whether its host has no other.
    pub fn remove_sandbox(&mut self, id: &str) -> Option<(SandboxRecord, bool)> {
        let _ = std::fs::remove_file(self.dir.join("sandboxes").join(format!("{id}.json")));
        let sandbox = self.sandboxes.remove(id)?;
        self.leave(&sandbox);
        let last = shared_host(&sandbox).is_none_or(|(namespace, number)| self.crowds.count(namespace, number) == 0);
        Some((sandbox, last))
    }

    pub fn remove_container(&mut self, id: &str) {
        self.containers.remove(id);
        let _ = std::fs::remove_file(self.dir.join("containers").join(format!("{id}.json")));
    }

    pub fn containers_of(&self, sandbox: &str) -> Vec<ContainerRecord> {
        self.of_sandbox(sandbox).cloned().collect()
    }

    /// Whether its host knows a container of `sandbox`, be it one that has ended.
    pub fn has_started(&self, sandbox: &str) -> bool {
        self.of_sandbox(sandbox).any(|one| !matches!(one.state, ContainerState::Created))
    }

    fn of_sandbox(&self, sandbox: &str) -> impl Iterator<Item = &ContainerRecord> {
        // Their ids begin with the sandbox's.
        let begin = format!("{sandbox}.");
        let from = self.containers.range(begin.clone()..).take_while(move |(id, _)| id.starts_with(&begin));
        from.map(|(_, one)| one).filter(move |one| one.sandbox.0 == sandbox)
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
        assert_eq!(numbered("ns-default".to_owned(), 0), "ns-default");
        assert_eq!(numbered("ns-default".to_owned(), 2), "ns-default.2");
    }
}
