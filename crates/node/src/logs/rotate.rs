//! Keeps container logs small: 10 MiB a file, five files a container.
//!
//! A file is copied aside and cut to nothing, because its writer keeps it open: what the writer
//! appends between copy and cut is lost, at most a few lines of a container that floods its log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const FILE_BYTES_MAX: u64 = 10 << 20;
const FILES_MAX: usize = 5;
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Rotates until the agent stops.
pub async fn rotate_forever(logs: PathBuf, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let logs = logs.clone();
        let rotation = tokio::task::spawn_blocking(move || rotate_all(&logs, FILE_BYTES_MAX)).await;
        if let Err(error) = rotation {
            tracing::error!(%error, "log rotation broke off");
        }
    }
}

fn rotate_all(logs: &Path, bytes_max: u64) {
    for pod in entries(logs) {
        for container in entries(&pod) {
            for file in entries(&container).filter(|file| file.extension().is_some_and(|ext| ext == "log")) {
                let large = file.metadata().is_ok_and(|meta| meta.len() > bytes_max);
                if large && let Err(error) = rotate(&file) {
                    tracing::warn!(file = %file.display(), %error, "cannot rotate a log");
                }
            }
        }
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// `0.log` → `0.log.1`, `0.log.1` → `0.log.2`, …; the oldest goes.
fn rotate(file: &Path) -> std::io::Result<()> {
    let aged = |age: usize| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{age}"));
        PathBuf::from(name)
    };
    for age in (1..FILES_MAX - 1).rev() {
        if aged(age).exists() {
            std::fs::rename(aged(age), aged(age + 1))?;
        }
    }
    std::fs::copy(file, aged(1))?;
    std::fs::OpenOptions::new().write(true).truncate(true).open(file).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logs_are_moved_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join("ns_pod_uid/web");
        std::fs::create_dir_all(&container).unwrap();
        let log = container.join("0.log");
        for round in 0..7 {
            std::fs::write(&log, format!("round {round}\n")).unwrap();
            rotate_all(dir.path(), 4);
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
        assert_eq!(std::fs::read_to_string(container.join("0.log.1")).unwrap(), "round 6\n");
        assert_eq!(std::fs::read_to_string(container.join("0.log.4")).unwrap(), "round 3\n");
        assert_eq!(entries(&container).count(), FILES_MAX);
    }
}
