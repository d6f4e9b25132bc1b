//! One command in a running container: its output, its end, its deadline.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::connection::AgentSender;
use super::launch::Started;
use crate::protocol::{Answer, EXEC_OUTPUT_BYTES_MAX, InitReport};

/// After the command ended, a child of it may keep the pipes open: output later than this is lost.
const DRAIN: Duration = Duration::from_millis(500);

/// Waits for the command. `exit` is told by whoever reaps.
pub async fn run(started: Started, output: [OwnedFd; 2], exit: oneshot::Receiver<i32>, limit: Duration) -> Answer {
    let Started { pid, pidfd: _pidfd, line } = started;
    let [stdout, stderr] = output;
    let mut out = Vec::new();
    let mut err = Vec::new();
    let mut failure = None;
    let mut exit_code = -1;
    let finished = {
        let streams = async { tokio::join!(capture(stdout, &mut out), capture(stderr, &mut err)) };
        let ended = async {
            failure = report(line).await;
            exit.await.unwrap_or(-1)
        };
        let both = async {
            tokio::pin!(streams);
            tokio::pin!(ended);
            tokio::select! {
                code = &mut ended => {
                    exit_code = code;
                    let _ = timeout(DRAIN, streams).await;
                }
                _ = &mut streams => exit_code = ended.await,
            }
        };
        tokio::select! {
            () = both => true,
            () = sleep(limit) => false,
        }
    };
    if !finished {
        // container-init made a session of its own, so its children are in its group.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        return Answer::ExecTimeout;
    }
    if let Some(failure) = failure {
        return Answer::Exec { exit_code: failure.exit_code, stdout: out, stderr: failure.message.into_bytes() };
    }
    Answer::Exec { exit_code, stdout: out, stderr: err }
}

/// The same for a command whose streams are somebody else's: until its end, or until that one is gone.
pub async fn watch(started: Started, exit: oneshot::Receiver<i32>, agent: &AgentSender) -> Answer {
    // container-init says on the command's own streams why it could not; the line only has to be there.
    let Started { pid, pidfd: _pidfd, line: _line } = started;
    tokio::select! {
        exit_code = exit => {
            Answer::Exec { exit_code: exit_code.unwrap_or(-1), stdout: Vec::new(), stderr: Vec::new() }
        }
        () = agent.closed() => {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            Answer::Done
        }
    }
}

/// What container-init says before it becomes the command: nothing, or why it could not.
async fn report(line: std::os::unix::net::UnixStream) -> Option<crate::protocol::InitFailure> {
    line.set_nonblocking(true).ok()?;
    let mut lines = BufReader::new(UnixStream::from_std(line).ok()?).lines();
    let text = lines.next_line().await.ok()??;
    match serde_json::from_str(&text).ok()? {
        InitReport::Failed(failure) => Some(failure),
        InitReport::Prepared => None,
    }
}

/// Keeps the first bytes and reads the rest away, so that the command is not stopped by a full pipe.
async fn capture(source: OwnedFd, kept: &mut Vec<u8>) {
    let Ok(mut source) = pipe::Receiver::from_owned_fd(source) else {
        return;
    };
    let mut chunk = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = source.read(&mut chunk).await {
        let room = EXEC_OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
}
