//! A process that the benchmark starts for itself and waits for: another `knarr`, or a peer.
//!
//! Owns: from the start until it says that it is ready, and its end. May not know: what it is.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Interrupted;
use crate::commands::up::wait_for_stop;

/// How long a process may take to be ready, and to stop.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

pub struct OwnProcess {
    /// From the start of the process until it was ready.
    pub ready_time: Duration,
    child: Child,
}

impl OwnProcess {
    /// Starts a command and waits until a line of its output contains `ready` and no cross.
    pub async fn start(mut command: Command, ready: &str) -> Result<Self> {
        // A group of its own: Ctrl-C reaches the benchmark, which stops the process in order.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let began = Instant::now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        let stdout = child.stdout.take().expect("standard output was asked for");
        let mut lines = BufReader::new(stdout).lines();
        let waited = tokio::select! {
            waited = tokio::time::timeout(READY_TIMEOUT, until_ready(&mut lines, ready)) => match waited {
                Ok(waited) => waited,
                Err(_) => Err(anyhow!("it was not ready after {READY_TIMEOUT:?}")),
            },
            stopped = wait_for_stop() => stopped.and(Err(Interrupted.into())),
        };
        let process = Self { ready_time: began.elapsed(), child };
        if let Err(error) = waited {
            // Why it did not come up says more than how it ended.
            let _ = process.stop().await;
            return Err(error);
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(process)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Stops it as Ctrl-C would.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        if let Some(pid) = self.child.id() {
            let pid = Pid::from_raw(i32::try_from(pid).expect("pids are small"));
            kill(pid, Signal::SIGTERM).context("cannot stop a process")?;
        }
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(status) => status.context("cannot wait for a process"),
            Err(_) => bail!("a process did not stop in {STOP_TIMEOUT:?}"),
        }
    }

    /// Ends it as a crash would.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill a process")
    }
}

async fn until_ready(lines: &mut Lines<BufReader<ChildStdout>>, ready: &str) -> Result<()> {
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.context("cannot read what a process says")? {
        if line.contains(ready) && !line.contains('✘') {
            return Ok(());
        }
        last = line;
    }
    bail!("a process ended before it was ready; its last line: {last:?}")
}
