//! Making, finding again and removing sandboxes: directories, shim processes, cgroups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cri::{PodSandboxConfig, RuntimeError, SandboxId};
use nix::mount::{MntFlags, umount2};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::sandbox::SandboxHandle;
use super::worker::{Parts, spawn_sandbox_worker};
use super::{ContainerRuntime, FILTERS_DIR, io_error};
use crate::RUNTIME;
use crate::files::{self, Durability, private_dir, remove_tree};
use crate::plan::{is_path_safe, render_resolv_conf};
use crate::protocol::SandboxRecord;
use crate::shim::{READY, SANDBOX_FILE, SHIM_GROUP, SHM_DIR};

/// How long a shim may take until its sandbox stands.
const SETUP: Duration = Duration::from_secs(30);

impl ContainerRuntime {
    /// Looks at every sandbox directory; removes what no sandbox belongs to.
    pub(super) async fn adopt_all(&self) -> Result<(), RuntimeError> {
        let run_dir = &self.config.run_dir;
        let list = |dir: &Path| -> io::Result<Vec<PathBuf>> {
            fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
        };
        let found = list(run_dir).map_err(|source| io_error(format!("list {}", run_dir.display()), source))?;
        for dir in found.into_iter().filter(|dir| dir.file_name() != Some(FILTERS_DIR.as_ref())) {
            match files::read_json::<SandboxRecord>(&dir.join(SANDBOX_FILE)) {
                Ok(record) => {
                    let handle = spawn_sandbox_worker(self.parts(dir, record)).await;
                    self.sandboxes().insert(handle.id(), handle);
                }
                Err(error) => {
                    tracing::warn!(%error, dir = %dir.display(), "removing a sandbox directory without a record");
                    self.remove_dir(&dir).await?;
                }
            }
        }
        let state_dir = &self.config.state_dir;
        let left = list(state_dir).map_err(|source| io_error(format!("list {}", state_dir.display()), source))?;
        for dir in left {
            let owner = SandboxId(dir.file_name().unwrap_or_default().to_string_lossy().into_owned());
            if self.sandbox(&owner).is_none() {
                remove_in_background(dir).await?;
            }
        }
        Ok(())
    }

    fn parts(&self, dir: PathBuf, record: SandboxRecord) -> Parts {
        Parts { dir, record: Arc::new(record), layout: self.layout.clone(), events: self.events.clone() }
    }

    /// A new sandbox with a shim of its own.
    pub(super) async fn start_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxHandle, RuntimeError> {
        let id = SandboxId(config.pod_uid.clone());
        let refuse = |why: String| RuntimeError::Helper {
            helper: "the pod's shim",
            attempt: "make the sandbox".to_owned(),
            why,
        };
        if !is_path_safe(&config.pod_uid) {
            return Err(refuse(format!("{:?} cannot be a pod uid", config.pod_uid)));
        }
        let parent = &config.cgroup_parent;
        if parent.is_empty() || parent.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse(format!("{parent:?} cannot be a cgroup path")));
        }
        let dir = self.config.run_dir.join(&config.pod_uid);
        let record = SandboxRecord { config, created_at: SystemTime::now() };
        let outcome = match write_sandbox_files(&dir, &record) {
            Ok(()) => self.start_shim(&dir).await,
            Err(source) => Err(io_error(format!("write the sandbox's files in {}", dir.display()), source)),
        };
        let handle = spawn_sandbox_worker(self.parts(dir, record)).await;
        match outcome {
            Ok(()) if handle.view().alive => {
                self.sandboxes().insert(id, handle.clone());
                Ok(handle)
            }
            outcome => {
                self.remove_traces(&handle).await?;
                Err(outcome.err().unwrap_or_else(|| refuse("it ended right after its start".to_owned())))
            }
        }
    }

    async fn start_shim(&self, dir: &Path) -> Result<(), RuntimeError> {
        let failed = |source: io::Error| io_error("start the pod's shim".to_owned(), source);
        let log = fs::File::create(dir.join("shim.log")).map_err(failed)?;
        let mut child = Command::new(&self.config.helper_binary)
            .args(["internal", "shim"])
            .arg(dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stdout = pipe::Receiver::from_owned_fd(stdout.into()).map_err(failed)?;
        let line = timeout(SETUP, BufReader::new(stdout).lines().next_line()).await;
        let why = match line {
            Ok(Ok(Some(line))) if line == READY => return Ok(()),
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => "it ended without a word".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took more than {} s", SETUP.as_secs()),
        };
        let _ = child.kill();
        let _ = child.wait();
        Err(RuntimeError::Machine { runtime: RUNTIME, attempt: "set up the pod's sandbox".to_owned(), why })
    }

    /// Removes everything a sandbox left. Its shim and containers must have ended.
    pub(super) async fn remove_traces(&self, handle: &SandboxHandle) -> Result<(), RuntimeError> {
        let parent = handle.record.config.cgroup_parent.clone();
        let mut groups: Vec<String> =
            handle.view().containers.values().map(|report| report.about.cgroup.clone()).collect();
        groups.push(format!("{parent}/{SHIM_GROUP}"));
        let layout = self.layout.clone();
        let removal = tokio::task::spawn_blocking(move || {
            for path in &groups {
                let group = layout.group(path);
                group.kill_all();
                group.remove()?;
            }
            // A Wasm host of the same pod may still be in there; whoever is last removes it.
            layout.group(&parent).remove_if_empty();
            Ok(())
        });
        let removed = removal.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(|source| io_error("remove the pod's cgroups".to_owned(), source))?;
        remove_in_background(self.config.state_dir.join(&handle.record.config.pod_uid)).await?;
        self.remove_dir(&handle.dir).await
    }

    async fn remove_dir(&self, dir: &Path) -> Result<(), RuntimeError> {
        let shm = dir.join(SHM_DIR);
        // Not mounted, or not there at all: nothing to do.
        let _ = umount2(&shm, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        remove_in_background(dir.to_owned()).await
    }
}

fn write_sandbox_files(dir: &Path, record: &SandboxRecord) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    private_dir(dir)?;
    let readable = fs::Permissions::from_mode(0o644);
    let hostname = format!("{}\n", record.config.hostname);
    for (name, text) in [("resolv.conf", render_resolv_conf(&record.config.dns)), ("hostname", hostname)] {
        let path = dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, readable.clone())?;
    }
    files::write_json(&dir.join(SANDBOX_FILE), record, Durability::Process)
}

/// A writable layer may hold very many files.
pub(super) async fn remove_in_background(dir: PathBuf) -> Result<(), RuntimeError> {
    let what = format!("remove {}", dir.display());
    let removal = tokio::task::spawn_blocking(move || remove_tree(&dir)).await;
    removal.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|source| io_error(what, source))
}
