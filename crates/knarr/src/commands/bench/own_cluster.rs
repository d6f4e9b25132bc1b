//! A cluster that the benchmark starts for itself: `knarr up` as a process of its own, with a
//! temporary data directory and ports that are free.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Interrupted;
use crate::cluster::READY_STEP;
use crate::commands::up::wait_for_stop;

/// How long the cluster may take to be up, and to stop.
const UP_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

pub struct OwnCluster {
    pub kubeconfig: PathBuf,
    /// From the start of the process until its node was Ready.
    pub up_time: Duration,
    child: Child,
    dir: TempDir,
}

impl OwnCluster {
    /// Starts it below `parent` and waits until its node is Ready.
    pub async fn start(parent: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("knarr-bench-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a data directory in {}", parent.display()))?;
        let (listen, node_listen) = (free_port()?, free_port()?);
        let program = std::env::current_exe().context("cannot find the own program")?;
        let mut command = Command::new(program);
        command.arg("up").arg("--data-dir").arg(dir.path());
        command.args(["--listen", &listen.to_string(), "--node-listen", &node_listen.to_string()]);
        // A group of its own: Ctrl-C reaches the benchmark, which stops the cluster in order.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let began = Instant::now();
        let mut child = command.spawn().context("cannot start `knarr up`")?;
        let stdout = child.stdout.take().expect("standard output was asked for");
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::select! {
            ready = tokio::time::timeout(UP_TIMEOUT, until_ready(&mut lines)) => match ready {
                Ok(ready) => ready,
                Err(_) => Err(anyhow!("the cluster was not up after {UP_TIMEOUT:?}")),
            },
            stopped = wait_for_stop() => stopped.and(Err(Interrupted.into())),
        };
        let up_time = began.elapsed();
        let kubeconfig = dir.path().join("admin.kubeconfig");
        let cluster = Self { kubeconfig, up_time, child, dir };
        if let Err(error) = ready {
            // Why it did not come up says more than how it ended.
            let _ = cluster.stop().await;
            return Err(error);
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(cluster)
    }

    /// Stops it as Ctrl-C would, and removes its directory.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = Pid::from_raw(i32::try_from(pid).expect("pids are small"));
            kill(pid, Signal::SIGTERM).context("cannot stop the cluster")?;
        }
        let stopped = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await;
        let Ok(status) = stopped else {
            let left = self.dir.keep();
            bail!("the cluster did not stop in {STOP_TIMEOUT:?}; its directory {} is left", left.display());
        };
        let status = status.context("cannot wait for the cluster")?;
        self.dir.close().context("cannot remove the data directory")?;
        if !status.success() {
            bail!("`knarr up` ended with {status}");
        }
        Ok(())
    }
}

async fn until_ready(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<()> {
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.context("cannot read what `knarr up` says")? {
        if line.contains(READY_STEP) && !line.contains('✘') {
            return Ok(());
        }
        last = line;
    }
    bail!("`knarr up` ended before its node was Ready; its last line: {last:?}")
}

/// A port that was free a moment ago.
fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    listener.local_addr().context("cannot find a free port")
}
