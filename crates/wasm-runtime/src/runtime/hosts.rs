//! Which host serves which sandboxes: ensure, adopt, watch, end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cri::{Answers, ContainerEvent, ContainerId, Isolation, KeyValueStore, NetworkAttachment, RuntimeError};
use futures::stream::BoxStream;
use nix::unistd::geteuid;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, watch};

use crate::confine::{self, Confinement};
use crate::host::HostConfig;
use crate::keyed_locks::KeyedLocks;
use crate::owned::Owned;
use crate::protocol::{HostContainer, Request, Response};
use crate::runtime::guest_calls;
use crate::runtime::host_link::{HostError, HostEvents, HostLink};
use crate::runtime::record::{Records, SandboxRecord, after_loss};

const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// What the runtime's worker owns.
pub struct State {
    pub records: Records,
    pub links: BTreeMap<String, HostLink>,
}

#[derive(Clone)]
pub struct HostSettings {
    pub dir: PathBuf,
    pub helper_binary: PathBuf,
    pub uid_gid: Option<(u32, u32)>,
    pub idle_exit: Duration,
    pub open_files_max: u64,
    pub key_value: Option<Arc<dyn KeyValueStore>>,
    /// Parent of the cgroups of hosts that serve a whole namespace.
    pub cgroup: String,
}

pub struct Hosts {
    settings: HostSettings,
    state: Owned<State>,
    events: broadcast::Sender<ContainerEvent>,
    starting: KeyedLocks,
    /// Counts new hosts, and pods that came.
    moved: watch::Sender<u64>,
}

impl Hosts {
    pub fn new(settings: HostSettings, state: Owned<State>, events: broadcast::Sender<ContainerEvent>) -> Self {
        Self { settings, state, events, starting: KeyedLocks::default(), moved: watch::Sender::default() }
    }

    /// Changes when there is a new host, or a new pod.
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// There is a new pod.
    pub fn pod_came(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    /// Takes over the hosts of an earlier agent, and learns what became of their containers.
    pub async fn adopt_all(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.settings.dir)?;
        for entry in std::fs::read_dir(&self.settings.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match HostLink::adopt(&entry.path()) {
                Some(link) if self.watch(&name, &link).await.is_ok() => {
                    tracing::info!(host = name, pid = link.process.pid, "adopted a sandbox host");
                    self.state.with(move |state| state.links.insert(name, link)).await;
                }
                _ => drop(std::fs::remove_dir_all(entry.path())),
            }
        }
        // What ran in a host that is not there any more is lost.
        let lost = self.state.with(|state| {
            let hosts: Vec<String> = state.records.sandboxes().values().map(SandboxRecord::host).collect();
            hosts.into_iter().filter(|host| !state.links.contains_key(host)).collect::<Vec<_>>()
        });
        for host in lost.await {
            lose(&self.state, &self.events, &host).await;
        }
        Ok(())
    }

    /// Sends a request to the sandbox's host, which is started when it is not there.
    pub async fn call_started(
        &self,
        sandbox: &SandboxRecord,
        request: &Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<Response, RuntimeError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let link = self.ensure(sandbox).await.map_err(helper_error("start"))?;
            match link.call(request, files).await {
                // An idle host may end while we knock.
                Err(HostError::Gone { .. }) if attempts < 3 => self.forget(&sandbox.host(), &link).await,
                answered => return answered.map_err(helper_error("answer")),
            }
        }
    }

    /// Sends a request to a host if it is there.
    pub async fn call(&self, host: &str, request: &Request) -> Result<Option<Response>, RuntimeError> {
        let key = host.to_owned();
        let Some(link) = self.state.with(move |state| state.links.get(&key).cloned()).await else { return Ok(None) };
        match link.call(request, &[]).await {
            Ok(response) => Ok(Some(response)),
            Err(HostError::Gone { .. }) => Ok(None),
            Err(error) => Err(helper_error("answer")(error)),
        }
    }

    /// Opens a stream of calls of a container's exports, if its host is there and knows it.
    pub async fn calls(
        &self,
        host: &str,
        id: &ContainerId,
        calls: BoxStream<'static, Bytes>,
    ) -> Result<Option<Answers>, RuntimeError> {
        let key = host.to_owned();
        let Some(link) = self.state.with(move |state| state.links.get(&key).cloned()).await else { return Ok(None) };
        match link.calls(id, calls).await {
            Err(HostError::Gone { .. }) => Ok(None),
            answers => answers.map_err(helper_error("take calls")),
        }
    }

    async fn ensure(&self, sandbox: &SandboxRecord) -> Result<HostLink, HostError> {
        let name = sandbox.host();
        let _alone = self.starting.lock(&name).await;
        let key = name.clone();
        if let Some(link) = self.state.with(move |state| state.links.get(&key).cloned()).await
            && link.process.is_alive()
        {
            return Ok(link);
        }
        let config = self.config(sandbox);
        let link = HostLink::spawn(&self.settings.helper_binary, &self.settings.dir.join(&name), &config).await?;
        tracing::info!(host = name, pid = link.process.pid, "started a sandbox host");
        self.watch(&name, &link).await?;
        let known = link.clone();
        self.state.with(move |state| state.links.insert(name, known)).await;
        self.moved.send_modify(|count| *count += 1);
        Ok(link)
    }

    fn config(&self, sandbox: &SandboxRecord) -> HostConfig {
        let netns = match (&sandbox.config.network, sandbox.config.isolation) {
            (NetworkAttachment::Namespace { path, .. }, Isolation::Pod) => Some(path.clone()),
            _ => None,
        };
        HostConfig {
            confinement: Confinement { cgroup: Some(self.cgroup(sandbox)), netns, uid_gid: self.settings.uid_gid },
            controller_uid: geteuid().as_raw(),
            idle_exit_ms: u64::try_from(self.settings.idle_exit.as_millis()).unwrap_or(u64::MAX),
            open_files_max: self.settings.open_files_max,
        }
    }

    /// A namespace's hosts are accounted together; a pod's host is part of its pod.
    fn cgroup(&self, sandbox: &SandboxRecord) -> String {
        match sandbox.config.isolation {
            Isolation::Namespace => format!("{}/{}", self.settings.cgroup, sandbox.config.namespace),
            // A child, because a v2 group with children holds no processes itself.
            Isolation::Pod => format!("{}/wasm", sandbox.config.cgroup_parent.trim_matches('/')),
        }
    }

    /// Subscribes first and lists then, so that no change falls in between.
    async fn watch(&self, name: &str, link: &HostLink) -> Result<(), HostError> {
        let events = link.subscribe().await?;
        if let Some(store) = &self.settings.key_value
            && let Err(error) = take_calls(link, name, &self.state, store).await
        {
            // A host of an agent before this one may not know of it. Its guests are told that nobody answers.
            tracing::warn!(%error, host = name, "a sandbox host does not take a channel for guests' calls");
        }
        report_all(&self.state, &self.events, link).await?;
        let watcher = Watcher { name: name.to_owned(), link: link.clone(), state: self.state.clone() };
        tokio::spawn(watcher.run(events, self.events.clone()));
        Ok(())
    }

    async fn forget(&self, name: &str, link: &HostLink) {
        let (name, link) = (name.to_owned(), link.clone());
        self.state
            .with(move |state| {
                if state.links.get(&name) == Some(&link) {
                    state.links.remove(&name);
                }
            })
            .await;
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }

    /// Ends the host that served `sandbox`, and removes what it left.
    pub async fn end(&self, sandbox: &SandboxRecord) {
        let name = sandbox.host();
        let _alone = self.starting.lock(&name).await;
        let key = name.clone();
        if let Some(link) = self.state.with(move |state| state.links.remove(&key)).await {
            link.end().await;
        }
        let _ = std::fs::remove_dir_all(self.settings.dir.join(&name));
        if geteuid().is_root() {
            let cgroup = self.cgroup(sandbox);
            confine::remove_cgroup(&cgroup);
            // The group above goes with the last one in it; one that is in use cannot be removed.
            if let Some((above, _)) = cgroup.rsplit_once('/') {
                confine::remove_cgroup(above);
            }
        }
    }
}

fn helper_error(attempt: &'static str) -> impl Fn(HostError) -> RuntimeError {
    move |error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        RuntimeError::Helper { helper: "sandbox host", attempt: attempt.to_owned(), why: format!("{error}{source}") }
    }
}

/// Follows one host until it is gone.
struct Watcher {
    name: String,
    link: HostLink,
    state: Owned<State>,
}

impl Watcher {
    async fn run(self, mut events: HostEvents, publish: broadcast::Sender<ContainerEvent>) {
        loop {
            while let Some(event) = events.next().await {
                report(&self.state, &publish, event.container).await;
            }
            // The connection ended: a slow reader is cut off, a dead host cannot be reached.
            match self.link.subscribe().await {
                Ok(again) => {
                    events = again;
                    if report_all(&self.state, &publish, &self.link).await.is_err() {
                        continue;
                    }
                }
                Err(_) if self.link.process.is_alive() => tokio::time::sleep(RECONNECT_PAUSE).await,
                Err(_) => break,
            }
        }
        let (name, link) = (self.name.clone(), self.link.clone());
        let was_current = self.state.with(move |state| {
            let current = state.links.get(&name) == Some(&link);
            if current {
                state.links.remove(&name);
            }
            current
        });
        // A host that was ended on purpose, or replaced, is not lost.
        if was_current.await {
            lose(&self.state, &publish, &self.name).await;
        }
    }
}

/// Gives a host a channel to ask through in its guests' names, and answers on it.
async fn take_calls(
    link: &HostLink,
    host: &str,
    state: &Owned<State>,
    store: &Arc<dyn KeyValueStore>,
) -> Result<(), HostError> {
    let io = |source| HostError::Io { attempt: "make a channel for guests' calls".to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(io)?;
    match link.call(&Request::TakeCalls, &[theirs.as_fd()]).await? {
        Response::Done => {}
        other => return Err(io(io::Error::other(format!("the sandbox host answered {other:?}")))),
    }
    tokio::spawn(guest_calls::serve(ours, host.to_owned(), state.clone(), Arc::clone(store)));
    Ok(())
}

async fn report_all(
    state: &Owned<State>,
    publish: &broadcast::Sender<ContainerEvent>,
    link: &HostLink,
) -> Result<(), HostError> {
    if let Response::Containers(list) = link.call(&Request::List, &[]).await? {
        for container in list {
            report(state, publish, container).await;
        }
    }
    Ok(())
}

async fn report(state: &Owned<State>, publish: &broadcast::Sender<ContainerEvent>, container: HostContainer) {
    let id = container.id.clone();
    if state.with(move |state| state.records.report(&container)).await {
        tell(state, publish, id).await;
    }
}

/// Ends the records of everything that ran in a host that is gone.
async fn lose(state: &Owned<State>, publish: &broadcast::Sender<ContainerEvent>, host: &str) {
    let host = host.to_owned();
    let lost = state.with(move |state| {
        let ids = state.records.running_in(&host);
        for id in &ids {
            state.records.update(id, |before| after_loss(before, SystemTime::now()));
        }
        ids
    });
    for id in lost.await {
        tell(state, publish, id).await;
    }
}

/// Publishes that a container changed.
pub async fn tell(state: &Owned<State>, publish: &broadcast::Sender<ContainerEvent>, id: String) {
    let key = id.clone();
    let pod_uid =
        state.with(move |state| state.records.containers.get(&key).map(|one| state.records.pod_uid(one))).await;
    if let Some(pod_uid) = pod_uid {
        // No receiver: the agent lists when it starts to listen.
        let _ = publish.send(ContainerEvent { pod_uid, container: ContainerId(id) });
    }
}

/// Where the records and hosts live below the run directory.
pub fn hosts_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("hosts")
}
