//! What every test here needs: a runtime in a temporary directory, an image made of the machine's
//! static busybox, and a look at what is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use container_runtime::{ContainerRuntime, ContainerRuntimeConfig};
use cri::{
    ContainerConfig, ContainerId, ContainerState, DnsConfig, ExitReason, ImageConfig, ImageKind, Isolation,
    NetworkAttachment, PodSandboxConfig, ResolvedImage, Resources, RuntimeService, SandboxId, SecurityContext,
};

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &str = "sh stty tty echo cat ls id pwd env sleep true false hostname mount umount mkdir touch rm mknod \
                       ln stat readlink grep head tail dd kill ps wc nproc test chroot unshare seq yes awk find ip";
/// Long enough for the slowest machine; no test waits this long when all is well.
pub const LONG: Duration = Duration::from_secs(120);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How many times slower than a real one this machine says it is: an emulated one sets the variable.
pub fn slowdown() -> u32 {
    std::env::var("KNARR_SLOWDOWN").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Says so when the machine cannot run these tests; one that was made for them must not skip any.
pub fn can_run(test: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else if !is_static(Path::new(BUSYBOX)) {
        "it needs a static /bin/busybox (Debian: busybox-static)"
    } else {
        return true;
    };
    assert!(std::env::var("KNARR_CONTAINERS").as_deref() != Ok("require"), "{test} must run here, but {why}");
    println!("SKIPPED {test}: {why}");
    false
}

fn is_static(path: &Path) -> bool {
    // A dynamic program names its loader.
    fs::read(path).is_ok_and(|bytes| !bytes.windows(8).any(|window| window == b"/ld-linu"))
}

/// A runtime, an image and the directories of one test.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub runtime: Arc<ContainerRuntime>,
    pub cgroups: String,
}

impl Bench {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        make_busybox_layer(&dir.path().join("layer"));
        fs::create_dir(dir.path().join("logs")).expect("a log directory");
        let runtime = open(dir.path()).await;
        let cgroups = format!("knarr-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { dir, runtime, cgroups }
    }

    /// What an agent does after a restart.
    pub async fn reopen(&mut self) {
        self.runtime = open(self.dir.path()).await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pod(&self, uid: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            pod_uid: uid.to_owned(),
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            hostname: "web-0".to_owned(),
            network: NetworkAttachment::Host { ip: [127, 0, 0, 1].into() },
            dns: DnsConfig { servers: vec!["10.96.0.10".to_owned()], ..DnsConfig::default() },
            cgroup_parent: format!("{}/{uid}", self.cgroups),
            resources: Resources::default(),
            isolation: Isolation::Pod,
            share_process_namespace: false,
            annotations: BTreeMap::new(),
        }
    }

    pub async fn sandbox(&self, uid: &str) -> SandboxId {
        self.runtime.run_pod_sandbox(self.pod(uid)).await.expect("the sandbox stands")
    }

    pub fn image(&self) -> ResolvedImage {
        ResolvedImage {
            reference: "busybox:test".to_owned(),
            manifest_digest: "sha256:0".to_owned(),
            image_id: "busybox@sha256:0".to_owned(),
            kind: ImageKind::Rootfs { layers: vec![self.path("layer")] },
            config: ImageConfig::default(),
            size_bytes: 1,
            has_other_kind: false,
        }
    }

    /// A container that runs a shell script.
    pub fn script(&self, name: &str, script: &str) -> ContainerConfig {
        self.container(name, &["sh", "-c", script])
    }

    pub fn container(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            name: name.to_owned(),
            attempt: 0,
            image: self.image(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            mounts: Vec::new(),
            ports: Vec::new(),
            resources: Resources::default(),
            security: SecurityContext::default(),
            log_path: self.path(&format!("logs/{name}.log")),
            termination_message: None,
            stdio: cri::Stdio::default(),
            process_namespace_of: None,
            annotations: BTreeMap::new(),
        }
    }

    pub async fn start(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        let id = self.runtime.create_container(sandbox, config).await.expect("the container is created");
        self.runtime.start_container(&id).await.expect("the container starts");
        id
    }

    /// Waits for the end: exit code, reason, message.
    pub async fn ended(&self, id: &ContainerId) -> (i32, ExitReason, String) {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let status = self.runtime.container_status(id).await.expect("a known container");
            if let ContainerState::Exited { exit_code, reason, message, .. } = status.state {
                return (exit_code, reason, message);
            }
            assert!(tokio::time::Instant::now() < deadline, "{id} still runs; log: {:?}", self.log_of(id));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs it to its end in a pod of its own: exit code and log without stamps.
    pub async fn run(&self, config: ContainerConfig) -> (i32, String) {
        let uid = format!("pod-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let sandbox = self.sandbox(&uid).await;
        let name = config.name.clone();
        let id = self.start(&sandbox, config).await;
        let (code, _, _) = self.ended(&id).await;
        let log = self.log(&name);
        self.runtime.remove_pod_sandbox(&sandbox).await.expect("the sandbox is removed");
        (code, log)
    }

    fn log_of(&self, id: &ContainerId) -> String {
        self.log(id.0.rsplit('_').nth(1).unwrap_or_default())
    }

    /// The texts of a container's log, without stamp, stream and tag.
    pub fn log(&self, name: &str) -> String {
        let raw = fs::read_to_string(self.path(&format!("logs/{name}.log"))).unwrap_or_default();
        raw.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or("?").to_owned() + "\n").collect()
    }

    /// Waits until the log contains this text.
    pub async fn logged(&self, name: &str, text: &str) {
        let deadline = tokio::time::Instant::now() + LONG;
        while !self.log(name).contains(text) {
            assert!(tokio::time::Instant::now() < deadline, "log of {name}: {:?}", self.log(name));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything that could be left behind, as lines.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let own = self.dir.path().to_str().expect("a plain path").to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        traces.extend(mounts.lines().filter(|line| line.contains(&own)).map(str::to_owned));
        for name in ["run", "state"] {
            let entries = fs::read_dir(self.path(name)).expect("a directory of the runtime");
            // The compiled filters stay: they belong to no pod.
            let names = entries.map(|entry| entry.expect("an entry").path().display().to_string());
            traces.extend(names.filter(|name| !name.ends_with(".seccomp")));
        }
        for hierarchy in ["memory", "cpu", "cpuacct", "pids", "."] {
            let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.cgroups);
            traces.extend(fs::read_dir(group).into_iter().flatten().filter_map(|entry| {
                let entry = entry.expect("an entry");
                entry.path().is_dir().then(|| entry.path().display().to_string())
            }));
        }
        traces.extend(processes_with(&own));
        traces
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A failed test leaves its pods; they must not outlive it.
        for hierarchy in ["memory", "cpu", "cpuacct", "pids", "."] {
            end_group(&Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.cgroups));
        }
        for entry in fs::read_dir(self.path("run")).into_iter().flatten().flatten() {
            let _ = nix::mount::umount2(&entry.path().join("shm"), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn end_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            end_group(&entry.path());
        }
    }
    for _ in 0..200 {
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|line| line.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if !group.exists() || fs::remove_dir(group).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Living processes with this text in their command line.
pub fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("procfs").flatten() {
        let Ok(command) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        if command.contains(text) && entry.file_name() != *std::process::id().to_string() {
            found.push(format!("{} {}", entry.file_name().display(), command.replace('\0', " ")));
        }
    }
    found
}

async fn open(dir: &Path) -> Arc<ContainerRuntime> {
    let mut config = ContainerRuntimeConfig::new(dir.join("run"), dir.join("state"));
    config.helper_binary = env!("CARGO_BIN_EXE_container-helper").into();
    ContainerRuntime::open(config).await.expect("the runtime opens")
}

fn make_busybox_layer(layer: &Path) {
    for dir in ["bin", "etc", "tmp", "data"] {
        fs::create_dir_all(layer.join(dir)).expect("a directory in the layer");
    }
    fs::copy(BUSYBOX, layer.join("bin/busybox")).expect("a copy of busybox");
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", layer.join("bin").join(applet)).expect("a link to busybox");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n";
    fs::write(layer.join("etc/passwd"), passwd).expect("passwd");
    fs::write(layer.join("etc/group"), "root:x:0:\nwww:x:34:\nlog:x:70:web\n").expect("group");
    fs::write(layer.join("data/from-image"), "image\n").expect("a file");
}
