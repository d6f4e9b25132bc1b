//! `knarr server`: one server of a cluster of several, in the foreground.

use anyhow::Result;

use super::up;
use crate::cli::ServerArgs;
use crate::cluster::ClusterConfig;
use crate::steps::Steps;

/// Said when everything runs; `knarr bench` and tests wait for it.
pub const UP: &str = "The server is up";

pub async fn run(args: ServerArgs) -> Result<()> {
    let steps = Steps::new();
    let (cluster, stop) = up::start(ClusterConfig::server(&args)?, &steps).await?;
    let kubeconfig = cluster.config.kubeconfig.display();
    steps.say(&format!("\n{UP} ({} ms). Next:\n", steps.elapsed().as_millis()));
    steps.say(&format!(
        "  export KUBECONFIG={kubeconfig}\n  knarr member ls\n  knarr token create > token\n  \
         # on another machine: knarr server --listen IP:6443 --join {} --token-file token --no-node\n",
        cluster.config.server_url()
    ));
    up::stay(cluster, stop, args.up.keep_workloads, &steps).await
}
