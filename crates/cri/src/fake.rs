//! Fakes of the seam for tests: in-memory runtimes, images and a network that do what a script says.
//!
//! Owns: no process, no file, no socket. Everything is recorded in `calls()`, in order, as one line
//! per call, so that a test can compare what the agent asked for with golden text.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};

use crate::{
    Answers, AttachRequest, Attached, CachedImage, Collection, ContainerConfig, ContainerEvent, ContainerId,
    ContainerState, ContainerStats, ContainerStatus, ExecOptions, ExecOutcome, ExecStream, ExitReason,
    ExportedFunction, FileSystemUsage, ImageConfig, ImageError, ImageKind, ImageService, NetworkAttachment,
    NetworkError, NetworkKind, PlatformPreference, PodNetwork, PodSandboxConfig, PullRequest, ResolvedImage,
    ResourceUpdate, RuntimeError, RuntimeService, SandboxId, SandboxState, SandboxStatus, StoredImage, Streams,
    TerminalSize,
};

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds the fake's lock")
}

/// A runtime in memory. Clones share state, so a test keeps one to script and inspect.
#[derive(Clone)]
pub struct FakeRuntime {
    handler: &'static str,
    inner: Arc<Mutex<RuntimeInner>>,
}

#[derive(Default)]
struct RuntimeInner {
    calls: Vec<String>,
    sandboxes: BTreeMap<SandboxId, (PodSandboxConfig, SandboxState)>,
    containers: BTreeMap<ContainerId, (ContainerConfig, ContainerStatus)>,
    listeners: Vec<mpsc::UnboundedSender<ContainerEvent>>,
    unsupported: BTreeMap<String, String>,
    fail_create: BTreeMap<String, String>,
    fail_start: BTreeMap<String, String>,
    fail_resize: BTreeMap<String, String>,
    exit_at_start: BTreeMap<String, Vec<i32>>,
    exec: BTreeMap<String, i32>,
    exports: BTreeMap<String, Vec<ExportedFunction>>,
    serial: u64,
}

impl FakeRuntime {
    pub fn new(handler: &'static str) -> Self {
        Self { handler, inner: Arc::default() }
    }

    /// `prepare_image` of this reference answers `Unsupported` with this reason.
    pub fn refuse_image(&self, reference: &str, why: &str) {
        locked(&self.inner).unsupported.insert(reference.into(), why.into());
    }

    /// `create_container` for this container name fails until [`Self::heal`].
    pub fn fail_create(&self, container: &str, why: &str) {
        locked(&self.inner).fail_create.insert(container.into(), why.into());
    }

    /// `start_container` for this container name fails until [`Self::heal`].
    pub fn fail_start(&self, container: &str, why: &str) {
        locked(&self.inner).fail_start.insert(container.into(), why.into());
    }

    /// `update_resources` for this container name fails until [`Self::heal`].
    pub fn fail_resize(&self, container: &str, why: &str) {
        locked(&self.inner).fail_resize.insert(container.into(), why.into());
    }

    /// Ends the scripted failures of this container name.
    pub fn heal(&self, container: &str) {
        let mut inner = locked(&self.inner);
        inner.fail_create.remove(container);
        inner.fail_start.remove(container);
        inner.fail_resize.remove(container);
    }

    /// The next starts of this container end at once with these exit codes, one per start.
    pub fn exit_at_start(&self, container: &str, codes: &[i32]) {
        locked(&self.inner).exit_at_start.insert(container.into(), codes.to_vec());
    }

    /// `exec_sync` in this container answers this exit code from now on (0 unless told).
    pub fn exec_exits(&self, container: &str, code: i32) {
        locked(&self.inner).exec.insert(container.into(), code);
    }

    /// Containers of this name export these functions from now on; nothing unless told.
    pub fn set_exports(&self, container: &str, names: &[&str]) {
        let export = |name: &&str| ExportedFunction {
            name: (*name).to_owned(),
            signature: "func()".to_owned(),
            parameters: None,
            result: None,
        };
        locked(&self.inner).exports.insert(container.into(), names.iter().map(export).collect());
    }

    /// The running container of this name ends now.
    pub fn exit(&self, pod_uid: &str, container: &str, code: i32) {
        let mut inner = locked(&self.inner);
        let id = inner.running(pod_uid, container);
        if let Some(id) = id {
            inner.end(&id, code, "");
        }
    }

    /// What was called, in order, and forgets it.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.inner).calls)
    }

    pub fn containers(&self) -> Vec<ContainerStatus> {
        locked(&self.inner).containers.values().map(|(_, status)| status.clone()).collect()
    }

    pub fn container_config(&self, container: &str) -> Option<ContainerConfig> {
        let inner = locked(&self.inner);
        inner.containers.values().rev().find(|(config, _)| config.name == container).map(|(config, _)| config.clone())
    }

    pub fn sandbox_configs(&self) -> Vec<PodSandboxConfig> {
        locked(&self.inner).sandboxes.values().map(|(config, _)| config.clone()).collect()
    }

    fn not_found(&self, what: &'static str, id: &str) -> RuntimeError {
        RuntimeError::NotFound { runtime: self.handler, what, id: id.into() }
    }
}

impl RuntimeInner {
    fn running(&self, pod_uid: &str, container: &str) -> Option<ContainerId> {
        let running = |status: &ContainerStatus| {
            status.pod_uid == pod_uid
                && status.name == container
                && matches!(status.state, ContainerState::Running { .. })
        };
        self.containers.values().find(|(_, status)| running(status)).map(|(_, status)| status.id.clone())
    }

    fn end(&mut self, id: &ContainerId, exit_code: i32, message: &str) {
        let Some((_, status)) = self.containers.get_mut(id) else { return };
        let started_at = match status.state {
            ContainerState::Running { started_at } => started_at,
            ContainerState::Created => SystemTime::now(),
            ContainerState::Exited { .. } => return,
        };
        let reason = if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error };
        let finished_at = SystemTime::now();
        status.state =
            ContainerState::Exited { started_at, finished_at, exit_code, reason, message: message.to_owned() };
        self.announce(id);
    }

    fn announce(&mut self, id: &ContainerId) {
        let Some((_, status)) = self.containers.get(id) else { return };
        let event = ContainerEvent { pod_uid: status.pod_uid.clone(), container: id.clone() };
        self.listeners.retain(|listener| listener.unbounded_send(event.clone()).is_ok());
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    fn handler(&self) -> &'static str {
        self.handler
    }

    async fn prepare_image(&self, image: &ResolvedImage, _namespace: &str) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("prepare_image {}", image.reference));
        match inner.unsupported.get(&image.reference) {
            Some(why) => Err(RuntimeError::Unsupported {
                runtime: self.handler,
                image: image.reference.clone(),
                why: why.clone(),
            }),
            None => Ok(()),
        }
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.serial += 1;
        let id = SandboxId(format!("{}-sandbox-{}", self.handler, inner.serial));
        inner.calls.push(format!("run_pod_sandbox {}", config.name));
        inner.sandboxes.insert(id.clone(), (config, SandboxState::Ready));
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("stop_pod_sandbox {id}"));
        let inside: Vec<ContainerId> =
            inner.containers.values().filter(|(_, s)| s.sandbox == *id).map(|(_, s)| s.id.clone()).collect();
        for container in inside {
            inner.end(&container, 137, "");
        }
        if let Some((_, state)) = inner.sandboxes.get_mut(id) {
            *state = SandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("remove_pod_sandbox {id}"));
        inner.sandboxes.remove(id);
        inner.containers.retain(|_, (_, status)| status.sandbox != *id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let inner = locked(&self.inner);
        let status = |(id, (config, state)): (&SandboxId, &(PodSandboxConfig, SandboxState))| SandboxStatus {
            id: id.clone(),
            pod_uid: config.pod_uid.clone(),
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            state: state.clone(),
            created_at: SystemTime::UNIX_EPOCH,
        };
        Ok(inner.sandboxes.iter().map(status).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("create_container {}#{}", config.name, config.attempt));
        if let Some(why) = inner.fail_create.get(&config.name) {
            return Err(RuntimeError::CreateContainer { container: config.name, why: why.clone() });
        }
        let Some((sandbox_config, SandboxState::Ready)) = inner.sandboxes.get(sandbox) else {
            return Err(self.not_found("sandbox", &sandbox.0));
        };
        let pod_uid = sandbox_config.pod_uid.clone();
        inner.serial += 1;
        let id = ContainerId(format!("{}-{}", self.handler, inner.serial));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            pod_uid,
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.reference.clone(),
            image_id: config.image.image_id.clone(),
            created_at: SystemTime::now(),
            state: ContainerState::Created,
            log_path: config.log_path.clone(),
        };
        inner.containers.insert(id.clone(), (config, status));
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        let Some((_, status)) = inner.containers.get_mut(id) else {
            return Err(self.not_found("container", &id.0));
        };
        let name = status.name.clone();
        let attempt = status.attempt;
        inner.calls.push(format!("start_container {name}#{attempt}"));
        if let Some(why) = inner.fail_start.get(&name) {
            return Err(RuntimeError::StartContainer { container: name, why: why.clone() });
        }
        if let Some((_, status)) = inner.containers.get_mut(id) {
            status.state = ContainerState::Running { started_at: SystemTime::now() };
        }
        inner.announce(id);
        let codes = inner.exit_at_start.get_mut(&name).filter(|codes| !codes.is_empty());
        if let Some(code) = codes.map(|codes| codes.remove(0)) {
            inner.end(id, code, "");
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        let Some((_, status)) = inner.containers.get(id) else { return Ok(()) };
        let name = status.name.clone();
        inner.calls.push(format!("stop_container {name} grace {}s", grace.as_secs()));
        inner.end(id, 143, "");
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("remove_container {id}"));
        inner.containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.containers())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let inner = locked(&self.inner);
        inner.containers.get(id).map(|(_, s)| s.clone()).ok_or_else(|| self.not_found("container", &id.0))
    }

    async fn update_resources(&self, update: ResourceUpdate) -> Result<(), RuntimeError> {
        let mut inner = locked(&self.inner);
        let Some((id, resources)) = update.container else {
            inner.calls.push(format!("update_resources of {}", update.sandbox));
            return Ok(());
        };
        let Some((config, _)) = inner.containers.get_mut(&id) else {
            return Err(self.not_found("container", &id.0));
        };
        let name = config.name.clone();
        config.resources = resources;
        inner.calls.push(format!("update_resources {name}"));
        match inner.fail_resize.get(&name) {
            Some(why) => Err(RuntimeError::Resize { container: name, why: why.clone() }),
            None => Ok(()),
        }
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("exec_sync {id} {}", command.join(" ")));
        let Some((config, _)) = inner.containers.get(id) else {
            return Err(self.not_found("container", &id.0));
        };
        let exit_code = inner.exec.get(&config.name).copied().unwrap_or(0);
        Ok(ExecOutcome { exit_code, stdout: b"fake".to_vec(), stderr: Vec::new() })
    }

    async fn exports(&self, id: &ContainerId) -> Result<Vec<ExportedFunction>, RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("exports {id}"));
        let found = inner.containers.get(id).and_then(|(config, _)| inner.exports.get(&config.name));
        found.cloned().ok_or(RuntimeError::NoExports { runtime: self.handler })
    }

    /// Every call is its own answer.
    async fn invoke(&self, id: &ContainerId, calls: BoxStream<'static, Bytes>) -> Result<Answers, RuntimeError> {
        if !locked(&self.inner).containers.contains_key(id) {
            return Err(self.not_found("container", &id.0));
        }
        Ok(calls.map(Ok).boxed())
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<ExecStream, RuntimeError> {
        let mut inner = locked(&self.inner);
        let how = if options.tty { " on a terminal" } else { "" };
        inner.calls.push(format!("exec {id} {}{how}", options.command.join(" ")));
        let Some((config, _)) = inner.containers.get(id) else {
            return Err(self.not_found("container", &id.0));
        };
        let exit_code = inner.exec.get(&config.name).copied().unwrap_or(0);
        Ok(echo(self.clone(), options.streams, exit_code))
    }

    async fn attach(&self, id: &ContainerId, wanted: Streams) -> Result<ExecStream, RuntimeError> {
        let mut inner = locked(&self.inner);
        inner.calls.push(format!("attach {id}"));
        if !inner.containers.contains_key(id) {
            return Err(self.not_found("container", &id.0));
        }
        Ok(echo(self.clone(), wanted, 0))
    }

    async fn connect_in_pod(&self, id: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
        locked(&self.inner).calls.push(format!("connect_in_pod {id} {port}"));
        let failed = |source| RuntimeError::Io { attempt: format!("connect to port {port}"), source };
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(stream)
    }

    fn events(&self) -> BoxStream<'static, ContainerEvent> {
        let (sender, receiver) = mpsc::unbounded();
        locked(&self.inner).listeners.push(sender);
        receiver.boxed()
    }

    async fn list_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let inner = locked(&self.inner);
        let stats = |status: &ContainerStatus| ContainerStats {
            id: status.id.clone(),
            pod_uid: status.pod_uid.clone(),
            name: status.name.clone(),
            cpu_usage_nanos: 1_000_000,
            memory_working_set_bytes: 1 << 20,
            memory_peak_bytes: None,
            calls: None,
        };
        Ok(inner.containers.values().map(|(_, status)| stats(status)).collect())
    }
}

/// A command that says what it is given: input on standard output, sizes of its terminal on standard error
/// (standard output when nobody wants that), and ends with its input. Without input it says `fake` and ends.
fn echo(runtime: FakeRuntime, wanted: Streams, exit_code: i32) -> ExecStream {
    let (said, stdout) = mpsc::unbounded::<Bytes>();
    let (complained, stderr) = mpsc::unbounded::<Bytes>();
    let (end, ended) = oneshot::channel::<()>();
    let sizes = if wanted.stderr { complained } else { said.clone() };
    let stdin = wanted.stdin.then(|| {
        let said = said.clone();
        let sink = futures::sink::unfold((said, end), |(mut said, end), bytes: Bytes| async move {
            said.send(bytes).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((said, end))
        });
        Box::pin(sink) as crate::StdinSink
    });
    if !wanted.stdin {
        // The receiver is below; only a dropped one refuses.
        let _ = said.unbounded_send(Bytes::from_static(b"fake"));
    }
    drop(said);
    let resize = move |size: TerminalSize| {
        // Nobody may be reading any more.
        let _ = sizes.unbounded_send(Bytes::from(format!("{}x{}", size.width, size.height)));
    };
    let gone = Gone { runtime, ended: false };
    ExecStream {
        stdin,
        stdout: wanted.stdout.then(|| stdout.boxed()),
        stderr: wanted.stderr.then(|| stderr.boxed()),
        resize: Some(Box::new(resize)),
        exit: Box::pin(async move {
            let mut gone = gone;
            // An error is a dropped sink: the end of the input.
            let _ = ended.await;
            gone.ended = true;
            Ok(exit_code)
        }),
    }
}

/// Notes a client that went away before the end.
struct Gone {
    runtime: FakeRuntime,
    ended: bool,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if !self.ended {
            locked(&self.runtime.inner).calls.push("the client is gone".to_owned());
        }
    }
}

/// Images in memory.
#[derive(Clone, Default)]
pub struct FakeImages {
    inner: Arc<Mutex<ImagesInner>>,
}

#[derive(Default)]
struct ImagesInner {
    remote: BTreeMap<String, (bool, bool)>,
    local: BTreeMap<(String, bool), ResolvedImage>,
    failures: BTreeMap<String, String>,
    pulls: Vec<String>,
    cached: Vec<CachedImage>,
    file_system: FileSystemUsage,
    collections: Vec<Collection>,
}

impl FakeImages {
    /// The registry offers this reference as Wasm, as a Linux root file system, or as both.
    pub fn offer(&self, reference: &str, wasm: bool, linux: bool) {
        locked(&self.inner).remote.insert(reference.into(), (wasm, linux));
    }

    /// Pulls of this reference break off with this text until it is offered again with `None`.
    pub fn fail(&self, reference: &str, why: Option<&str>) {
        let mut inner = locked(&self.inner);
        match why {
            Some(why) => inner.failures.insert(reference.into(), why.into()),
            None => inner.failures.remove(reference),
        };
    }

    /// What can be removed, by which names pods call it, and how full the disk is. What is removed is free then.
    pub fn fill(&self, cached: Vec<CachedImage>, file_system: FileSystemUsage) {
        let mut inner = locked(&self.inner);
        (inner.cached, inner.file_system) = (cached, file_system);
    }

    /// What was removed so far, in order.
    pub fn collections(&self) -> Vec<Collection> {
        locked(&self.inner).collections.clone()
    }

    /// References pulled so far, in order.
    pub fn pulls(&self) -> Vec<String> {
        locked(&self.inner).pulls.clone()
    }
}

/// A resolved image with nothing on disk.
pub fn fake_image(reference: &str, wasm: bool, has_other_kind: bool) -> ResolvedImage {
    let kind = if wasm {
        ImageKind::Wasm {
            file: PathBuf::from("/fake.wasm"),
            digest: "sha256:00".into(),
            argv0: "fake.wasm".into(),
            root: None,
        }
    } else {
        ImageKind::Rootfs { layers: vec![PathBuf::from("/fake/layer")] }
    };
    ResolvedImage {
        reference: reference.into(),
        manifest_digest: "sha256:11".into(),
        image_id: format!("{}@sha256:11", reference.split(':').next().unwrap_or(reference)),
        kind,
        config: ImageConfig::default(),
        size_bytes: 1000,
        has_other_kind,
    }
}

#[async_trait]
impl ImageService for FakeImages {
    async fn pull(&self, request: PullRequest) -> Result<ResolvedImage, ImageError> {
        let mut inner = locked(&self.inner);
        let reference = request.reference;
        inner.pulls.push(reference.clone());
        if let Some(why) = inner.failures.get(&reference) {
            return Err(ImageError::Transport { reference, why: why.clone() });
        }
        let container_only = request.preference == PlatformPreference::ContainerOnly;
        let image = match inner.remote.get(&reference) {
            None => return Err(ImageError::NotFound { reference, why: "the fake registry has no such name".into() }),
            Some((true, linux)) if !container_only => fake_image(&reference, true, *linux),
            Some((wasm, true)) => fake_image(&reference, false, *wasm),
            Some((_, false)) => {
                return Err(ImageError::NoPlatform {
                    reference,
                    wanted: "linux/amd64".into(),
                    offered: "wasi/wasm".into(),
                });
            }
        };
        inner.local.insert((reference, container_only), image.clone());
        Ok(image)
    }

    async fn resolve_local(&self, request: &PullRequest) -> Result<Option<ResolvedImage>, ImageError> {
        let container_only = request.preference == PlatformPreference::ContainerOnly;
        Ok(locked(&self.inner).local.get(&(request.reference.clone(), container_only)).cloned())
    }

    async fn list(&self) -> Result<Vec<StoredImage>, ImageError> {
        let row = |image: &ResolvedImage| StoredImage {
            names: vec![image.reference.clone()],
            digest: image.manifest_digest.clone(),
            size_bytes: image.size_bytes,
            platforms: vec!["wasm".into()],
        };
        Ok(locked(&self.inner).local.values().map(row).collect())
    }

    async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        locked(&self.inner).local.retain(|(name, _), _| name != reference);
        Ok(())
    }

    async fn cached(&self, wanted: &[String]) -> Result<Vec<CachedImage>, ImageError> {
        let inner = locked(&self.inner);
        Ok(inner.cached.iter().filter(|image| !wanted.contains(&image.digest)).cloned().collect())
    }

    async fn file_system(&self) -> Result<FileSystemUsage, ImageError> {
        Ok(locked(&self.inner).file_system)
    }

    async fn collect(&self, collection: Collection) -> Result<u64, ImageError> {
        let mut inner = locked(&self.inner);
        let gone = |image: &CachedImage| collection.images.contains(&image.digest);
        let bytes = inner.cached.iter().filter(|image| gone(image)).map(|image| image.size_bytes).sum();
        inner.cached.retain(|image| !gone(image));
        inner.file_system.available_bytes += bytes;
        inner.collections.push(collection);
        Ok(bytes)
    }
}

/// Addresses in memory, `10.32.0.2` upward.
#[derive(Clone, Default)]
pub struct FakeNetwork {
    inner: Arc<Mutex<NetworkInner>>,
}

#[derive(Default)]
struct NetworkInner {
    attached: BTreeMap<String, NetworkAttachment>,
    fixed: Option<IpAddr>,
    last: u8,
    full: bool,
}

impl FakeNetwork {
    /// Every pod gets this address (for probes against a loopback server).
    pub fn fix_address(&self, ip: IpAddr) {
        locked(&self.inner).fixed = Some(ip);
    }

    /// `attach` answers that no address is free.
    pub fn set_full(&self, full: bool) {
        locked(&self.inner).full = full;
    }
}

#[async_trait]
impl PodNetwork for FakeNetwork {
    async fn attach(&self, request: AttachRequest) -> Result<NetworkAttachment, NetworkError> {
        let mut inner = locked(&self.inner);
        if let Some(attachment) = inner.attached.get(&request.pod_uid) {
            return Ok(attachment.clone());
        }
        if inner.full {
            return Err(NetworkError::Exhausted { range: "10.32.0.0/24".into(), in_use: inner.attached.len() });
        }
        inner.last += 1;
        let ip = inner.fixed.unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 32, 0, 1 + inner.last)));
        let attachment = match request.kind {
            NetworkKind::Host => NetworkAttachment::Host { ip: IpAddr::V4(Ipv4Addr::LOCALHOST) },
            NetworkKind::Shared => NetworkAttachment::Shared { ip },
            NetworkKind::Namespace => NetworkAttachment::Namespace { ip, path: PathBuf::from("/run/netns/fake") },
        };
        inner.attached.insert(request.pod_uid, attachment.clone());
        Ok(attachment)
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        locked(&self.inner).attached.remove(pod_uid);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Attached>, NetworkError> {
        let row = |(uid, attachment): (&String, &NetworkAttachment)| Attached {
            pod_uid: uid.clone(),
            attachment: attachment.clone(),
        };
        Ok(locked(&self.inner).attached.iter().map(row).collect())
    }
}
