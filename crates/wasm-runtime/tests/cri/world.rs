//! A runtime in a directory of its own, with images made from bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use cri::{
    ContainerConfig, ContainerId, ContainerPort, ContainerState, ContainerStatus, DnsConfig, ImageConfig, ImageKind,
    Isolation, KeyValueStore, NetworkAttachment, PodSandboxConfig, PolicyTable, Protocol, ResolvedImage, Resources,
    RuntimeService, SandboxId, SecurityContext, ServiceTable,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use wasm_runtime::{CodeSource, NativeConfig, WasmRuntime, WasmRuntimeConfig};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    dir: tempfile::TempDir,
    pub runtime: Arc<WasmRuntime>,
    pub namespace: String,
}

impl World {
    pub async fn new() -> Self {
        Self::with(None, None).await
    }

    /// With somebody who keeps buckets.
    pub async fn with_store(store: Arc<dyn KeyValueStore>) -> Self {
        Self::with(Some(store), None).await
    }

    /// With somebody who says where Services lead.
    pub async fn with_services(table: watch::Receiver<Arc<ServiceTable>>) -> Self {
        Self::with(None, Some(table)).await
    }

    /// And with somebody who says what network policies do.
    pub async fn with_tables(
        services: watch::Receiver<Arc<ServiceTable>>,
        policies: watch::Receiver<Arc<PolicyTable>>,
    ) -> Self {
        Self::open(|dir| {
            let (services, policies) = (Some(services), Some(policies));
            WasmRuntimeConfig { services, policies, ..config(dir, None) }
        })
        .await
    }

    /// That asks somebody for native code, and has no compiler.
    pub async fn with_code(code_source: Arc<dyn CodeSource>) -> Self {
        Self::open(|dir| {
            let native = NativeConfig { helper_binary: dir.join("none"), ..NativeConfig::new(dir.join("native")) };
            let native = Some(Arc::new(native.open().unwrap()));
            WasmRuntimeConfig { native, code_source: Some(code_source), ..config(dir, None) }
        })
        .await
    }

    /// Whose hosts may have so many files open.
    pub async fn with_open_files(host_open_files_max: u64) -> Self {
        Self::open(|dir| WasmRuntimeConfig { host_open_files_max, ..config(dir, None) }).await
    }

    async fn with(store: Option<Arc<dyn KeyValueStore>>, services: Option<watch::Receiver<Arc<ServiceTable>>>) -> Self {
        Self::open(|dir| WasmRuntimeConfig { services, ..config(dir, store) }).await
    }

    async fn open(config: impl FnOnce(&Path) -> WasmRuntimeConfig) -> Self {
        // Short: socket paths are limited. Namespaced by process: cgroups are shared by tests.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("kw").tempdir().unwrap();
        let runtime = WasmRuntime::open(config(dir.path())).await.unwrap();
        Self { dir, runtime, namespace: format!("t{}-{number}", std::process::id()) }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// As after a restart of the agent: the old handle is gone, hosts are not.
    pub async fn reopen(&mut self) {
        self.runtime = WasmRuntime::open(config(self.dir.path(), None)).await.unwrap();
    }

    pub async fn reopen_with(&mut self, store: Arc<dyn KeyValueStore>) {
        self.runtime = WasmRuntime::open(config(self.dir.path(), Some(store))).await.unwrap();
    }

    pub async fn reopen_with_services(&mut self, table: watch::Receiver<Arc<ServiceTable>>) {
        let config = WasmRuntimeConfig { services: Some(table), ..config(self.dir.path(), None) };
        self.runtime = WasmRuntime::open(config).await.unwrap();
    }

    pub fn image(&self, bytes: &[u8]) -> ResolvedImage {
        let hex = hex::encode(Sha256::digest(bytes));
        let file = self.dir.path().join(&hex);
        std::fs::write(&file, bytes).unwrap();
        let digest = format!("sha256:{hex}");
        ResolvedImage {
            reference: "test/image:v1".to_owned(),
            manifest_digest: digest.clone(),
            image_id: format!("test/image@{digest}"),
            kind: ImageKind::Wasm { file, digest, argv0: "guest.wasm".to_owned(), root: None },
            config: ImageConfig::default(),
            size_bytes: bytes.len() as u64,
            has_other_kind: false,
        }
    }

    pub fn pod(&self, uid: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            pod_uid: uid.to_owned(),
            name: uid.to_owned(),
            namespace: self.namespace.clone(),
            hostname: uid.to_owned(),
            network: NetworkAttachment::Shared { ip: [127, 0, 0, 1].into() },
            dns: DnsConfig::default(),
            cgroup_parent: format!("knarr/pods/{}-{uid}", self.namespace),
            resources: Resources::default(),
            isolation: Isolation::Namespace,
            share_process_namespace: false,
            annotations: BTreeMap::new(),
        }
    }

    pub fn container(&self, name: &str, bytes: &[u8], port: u16) -> ContainerConfig {
        let log_path = self.dir.path().join(format!("{name}.log"));
        let ports = vec![ContainerPort { name: None, container_port: port, protocol: Protocol::Tcp }];
        ContainerConfig {
            name: name.to_owned(),
            attempt: 0,
            image: self.image(bytes),
            command: vec![],
            args: vec![],
            working_dir: None,
            env: vec![],
            mounts: vec![],
            ports,
            resources: Resources::default(),
            security: SecurityContext::default(),
            log_path,
            termination_message: None,
            stdio: cri::Stdio::default(),
            process_namespace_of: None,
            annotations: BTreeMap::new(),
        }
    }

    pub async fn run(&self, pod: PodSandboxConfig, container: ContainerConfig) -> (SandboxId, ContainerId) {
        let sandbox = self.runtime.run_pod_sandbox(pod).await.unwrap();
        let id = self.runtime.create_container(&sandbox, container).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        (sandbox, id)
    }

    /// Runs a guest alone in a new pod.
    pub async fn run_guest(&self, name: &str, bytes: &[u8]) -> (SandboxId, ContainerId) {
        self.run(self.pod(name), self.container(name, bytes, free_port())).await
    }

    pub async fn exited(&self, id: &ContainerId) -> ContainerStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.runtime.container_status(id).await.unwrap();
            if matches!(status.state, ContainerState::Exited { .. }) {
                return status;
            }
            assert!(Instant::now() < deadline, "{id} did not end: {:?}", status.state);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap()
    }

    /// Names of the hosts that run.
    pub fn hosts(&self) -> BTreeSet<String> {
        let hosts = std::fs::read_dir(self.dir.path().join("run/hosts")).unwrap();
        hosts.map(|host| host.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// The pid of the only host process of this world.
    pub fn host_pid(&self) -> u32 {
        let mut hosts = std::fs::read_dir(self.dir.path().join("run/hosts")).unwrap();
        let host = hosts.next().expect("a host runs").unwrap();
        let text = std::fs::read(host.path().join("process.json")).unwrap();
        let process: serde_json::Value = serde_json::from_slice(&text).unwrap();
        u32::try_from(process["pid"].as_u64().unwrap()).unwrap()
    }

    pub async fn clean(&self) {
        for sandbox in self.runtime.list_pod_sandboxes().await.unwrap() {
            self.runtime.remove_pod_sandbox(&sandbox.id).await.unwrap();
        }
        let hosts: Vec<PathBuf> =
            std::fs::read_dir(self.dir.path().join("run/hosts")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(hosts.is_empty(), "left behind: {hosts:?}");
    }
}

/// A test that failed leaves no process behind.
impl Drop for World {
    fn drop(&mut self) {
        let hosts = std::fs::read_dir(self.dir.path().join("run/hosts")).into_iter().flatten().flatten();
        for host in hosts {
            let text = std::fs::read(host.path().join("process.json")).unwrap_or_default();
            let process: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(pid) = process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

fn config(dir: &Path, key_value: Option<Arc<dyn KeyValueStore>>) -> WasmRuntimeConfig {
    WasmRuntimeConfig {
        key_value,
        helper_binary: PathBuf::from(env!("CARGO_BIN_EXE_wasm-helper")),
        ..WasmRuntimeConfig::new(dir.join("run"), dir.join("native"))
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status code and whole text of the answer to a GET.
pub async fn get(port: u16, path: &str) -> (u16, String) {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || blocking_get(port, &path)).await.unwrap()
}

/// The same for any method; `header` is one line, or nothing.
pub async fn ask(port: u16, method: &str, path: &str, header: &str, body: &str) -> (u16, String) {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: test\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    tokio::task::spawn_blocking(move || send(port, &request)).await.unwrap()
}

pub fn blocking_get(port: u16, path: &str) -> (u16, String) {
    send(port, &format!("GET {path} HTTP/1.1\r\nhost: test\r\nx-mark: seen\r\nconnection: close\r\n\r\n"))
}

fn send(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), answer)
}
