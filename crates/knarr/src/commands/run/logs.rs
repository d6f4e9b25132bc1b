//! What pods say, line by line, while they run.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::task::AbortHandle;

use super::plan::LABEL;

/// Prints the lines of one pod until it has ended.
pub async fn follow(pods: &Api<Pod>, name: &str, prefix: &str) -> Result<()> {
    let options = LogParams { follow: true, ..LogParams::default() };
    let stream = pods.log_stream(name, &options).await.with_context(|| format!("cannot read the output of {name}"))?;
    let mut lines = stream.lines();
    while let Some(line) = lines.try_next().await.with_context(|| format!("the output of {name} broke off"))? {
        // Whoever closed our output does not want more of it.
        if writeln!(std::io::stdout().lock(), "{prefix}{line}").is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Prints the lines of every pod of a `knarr run`, those still to come too. Ends only when it is dropped.
pub async fn follow_all(client: &Client, namespace: &str, name: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(&format!("{LABEL}={name}"));
    let mut changes = watcher(pods.clone(), config).default_backoff().applied_objects().boxed();
    let mut followed = Followed::default();
    while let Some(change) = changes.next().await {
        let Ok(pod) = change else { continue };
        let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        // A pod that nobody owns runs once, and is followed by who waits for its end.
        if running && !pod.owner_references().is_empty() {
            followed.begin(&pods, &pod);
        }
    }
}

/// The tasks that print; they end with it. One for every start of a container.
#[derive(Default)]
struct Followed {
    by_start: BTreeMap<(String, i32), AbortHandle>,
}

impl Followed {
    fn begin(&mut self, pods: &Api<Pod>, pod: &Pod) {
        let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
        let start = (pod.uid().unwrap_or_default(), status.map_or(0, |status| status.restart_count));
        if self.by_start.contains_key(&start) {
            return;
        }
        let (pods, name) = (pods.clone(), pod.name_any());
        let task = tokio::spawn(async move {
            let prefix = format!("{} | ", name.rsplit('-').next().unwrap_or_default());
            if let Err(error) = follow(&pods, &name, &prefix).await {
                tracing::info!("{error:#}");
            }
        });
        self.by_start.insert(start, task.abort_handle());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        for task in self.by_start.values() {
            task.abort();
        }
    }
}
