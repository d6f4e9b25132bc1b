//! The audit log: who asked what, and whether it was allowed, as audit.k8s.io/v1 Events, one JSON object a line.
//!
//! Owns: the log's file and the task that writes it. A request waits when the log is behind, so no event is dropped;
//! one that the disk does not take is counted and told of. Which requests are logged is decided by `policy`.
//!
//! Metadata only: the bodies of requests and answers are never written.

mod event;
mod policy;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

pub use event::Arrived;
pub use policy::{Policy, PolicyError};

use super::{Outcome, Record};

/// Events that wait to be written.
const QUEUE_LEN: usize = 4096;
/// A file that is larger is set aside and a new one begun.
const FILE_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// Files set aside that are kept.
const FILES_KEPT: usize = 10;

#[derive(Debug, Error)]
pub enum AuditError {
    #[error("cannot open the audit log {path:?}")]
    Open {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// A cheap handle.
#[derive(Clone)]
pub struct AuditLog {
    policy: std::sync::Arc<Policy>,
    lines: mpsc::Sender<Bytes>,
}

impl AuditLog {
    /// Opens the file and starts its writer, which ends with the last handle.
    pub fn open(path: &Path, policy: Policy) -> Result<Self, AuditError> {
        let writer = Writer::open(path).map_err(|cause| AuditError::Open { path: path.to_owned(), cause })?;
        let (lines, queue) = mpsc::channel(QUEUE_LEN);
        tokio::task::spawn_blocking(move || writer.run(queue));
        Ok(Self { policy: std::sync::Arc::new(policy), lines })
    }

    /// Logs the end of a request when the policy wants it. False when it could not be.
    pub async fn log(
        &self,
        arrived: Arrived,
        record: &Record,
        outcome: Outcome,
        is_long_running: bool,
    ) -> Option<bool> {
        if !self.policy.wants(record, &arrived) {
            return None;
        }
        let mut line = serde_json::to_vec(&event::event(&arrived, record, outcome, is_long_running))
            .expect("a JSON value encodes into memory");
        line.push(b'\n');
        Some(self.lines.send(line.into()).await.is_ok())
    }
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl Writer {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), bytes })
    }

    fn run(mut self, mut queue: mpsc::Receiver<Bytes>) {
        while let Some(line) = queue.blocking_recv() {
            if let Err(error) = self.take(&line, queue.is_empty()) {
                tracing::error!(path = %self.path.display(), %error, "an event could not be written to the audit log");
            }
        }
    }

    /// Lines that come together are written together.
    fn take(&mut self, line: &[u8], is_last: bool) -> io::Result<()> {
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        if is_last {
            self.file.flush()?;
        }
        if self.bytes > FILE_BYTES_MAX {
            self.file.flush()?;
            set_aside(&self.path)?;
            *self = Self::open(&self.path)?;
        }
        Ok(())
    }
}

/// `audit.log` becomes `audit.log.1`, and so on; the oldest goes.
fn set_aside(path: &Path) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..FILES_KEPT).rev() {
        if numbered(number).exists() {
            std::fs::rename(numbered(number), numbered(number + 1))?;
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_set_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for number in 0..FILES_KEPT + 3 {
            let mut writer = Writer::open(&path).unwrap();
            writer.bytes = FILE_BYTES_MAX;
            writer.take(format!("line {number}\n").as_bytes(), true).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        assert_eq!(read("audit.log.1"), format!("line {}\n", FILES_KEPT + 2));
        assert_eq!(read("audit.log"), "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), FILES_KEPT + 1);
    }

    #[tokio::test]
    async fn nothing_is_lost_when_many_come_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = AuditLog::open(&path, Policy::metadata_of_everything()).unwrap();
        let outcome = Outcome { code: 200, took: std::time::Duration::ZERO };
        for _ in 0..QUEUE_LEN * 2 {
            assert_eq!(log.log(Arrived::default(), &Record::default(), outcome, false).await, Some(true));
        }
        drop(log);
        let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
        while lines() < QUEUE_LEN * 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(lines(), QUEUE_LEN * 2);
    }
}
