//! A cluster that the benchmark starts for itself: `knarr up` as a process of its own, with a
//! temporary data directory and ports that are free.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use super::own_process::OwnProcess;
use crate::cluster::READY_STEP;

/// As many as a first server's range has addresses for, nearly.
const PODS_MAX: &str = "16000";

pub struct OwnCluster {
    pub kubeconfig: PathBuf,
    /// From the start of the process until its node was Ready.
    pub up_time: Duration,
    process: OwnProcess,
    dir: TempDir,
}

impl OwnCluster {
    /// Starts it below `parent` and waits until its node is Ready.
    pub async fn start(parent: &Path) -> Result<Self> {
        let dir = data_dir(parent)?;
        let (listen, node_listen) = (free_port()?, free_port()?);
        let mut command = knarr()?;
        command.arg("up").arg("--data-dir").arg(dir.path());
        command.args(["--listen", &listen.to_string(), "--node-listen", &node_listen.to_string()]);
        command.args(["--max-pods", PODS_MAX]);
        let process = OwnProcess::start(command, READY_STEP).await.context("`knarr up`")?;
        let kubeconfig = dir.path().join("admin.kubeconfig");
        Ok(Self { kubeconfig, up_time: process.ready_time, process, dir })
    }

    /// Stops it as Ctrl-C would, and removes its directory.
    pub async fn stop(self) -> Result<()> {
        let status = match self.process.stop().await {
            Ok(status) => status,
            Err(error) => {
                let left = self.dir.keep();
                return Err(error.context(format!("its directory {} is left", left.display())));
            }
        };
        self.dir.close().context("cannot remove the data directory")?;
        if !status.success() {
            bail!("`knarr up` ended with {status}");
        }
        Ok(())
    }
}

/// This program, to be started again.
pub fn knarr() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot find the own program")?))
}

/// A directory below `parent` that goes with its value.
pub fn data_dir(parent: &Path) -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("knarr-bench-").tempdir_in(parent);
    dir.with_context(|| format!("cannot make a data directory in {}", parent.display()))
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    listener.local_addr().context("cannot find a free port")
}
