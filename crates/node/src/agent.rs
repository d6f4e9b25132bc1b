//! Puts the agent together: supervisor, Node object, lease, endpoint, log rotation, removal of images.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reconcile::{Recorder, TaskTracker};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{NodeConfig, NodeDeps, Paths, Runtimes};
use crate::endpoint;
use crate::image_gc::ImageCollector;
use crate::inventory::take_inventory;
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::node_object;
use crate::objects::ObjectWatches;
use crate::pod::execute::{NodeContext, chain};
use crate::pod::resize::Amounts;
use crate::supervisor::{SupervisorHandle, spawn_supervisor};
use crate::tokens::Tokens;
use crate::{lease, logs};

/// Grace of containers when the whole node stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why the agent could not start.
#[derive(Debug, Error)]
pub enum SpawnError {
    #[error("cannot make the node directory {dir}")]
    Dir {
        dir: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen on {address} for node requests")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Some workloads could not be stopped.
#[derive(Debug, Error)]
#[error("cannot stop all workloads: {}", failures.join("; "))]
pub struct StopError {
    pub failures: Vec<String>,
}

/// The node agent.
pub struct Node;

/// A running agent.
pub struct NodeHandle {
    context: Arc<NodeContext>,
    supervisor: SupervisorHandle,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    endpoint: SocketAddr,
}

impl Node {
    /// Starts the agent. Cancelling `shutdown` stops it and leaves every workload running.
    pub async fn spawn(
        config: NodeConfig,
        deps: NodeDeps,
        shutdown: CancellationToken,
    ) -> Result<NodeHandle, SpawnError> {
        let paths = Paths::new(&config.data_dir);
        for dir in [paths.pods(), paths.logs()] {
            let failed = |source| SpawnError::Dir { dir: dir.display().to_string(), source };
            tokio::fs::create_dir_all(&dir).await.map_err(failed)?;
        }
        let address = config.endpoint_listen;
        let listener = TcpListener::bind(address).await.map_err(|source| SpawnError::Listen { address, source })?;
        let endpoint = listener.local_addr().map_err(|source| SpawnError::Listen { address, source })?;
        let shutdown = shutdown.child_token();
        let tracker = TaskTracker::new();
        let recorder = Recorder::spawn(deps.client.clone(), "kubelet", &config.node_name, &tracker, shutdown.clone());
        let machine = Machine::read(&config.capacity, &config.data_dir);
        let context = Arc::new(NodeContext {
            ledger: Ledger::new(Amounts { cpu_millis: machine.cpu_millis, memory_bytes: machine.memory_bytes }),
            machine,
            runtimes: Runtimes::new(&deps.runtimes),
            paths,
            images: deps.images,
            network: deps.network,
            objects: ObjectWatches::new(deps.client.clone()),
            tokens: Tokens::new(deps.client.clone()),
            client: deps.client,
            recorder,
            config,
        });
        let supervisor = spawn_supervisor(Arc::clone(&context), &tracker, shutdown.clone());
        let node = node_object::Publisher::new(Arc::clone(&context), endpoint.port(), supervisor.clone());
        tracker.spawn(node.run(shutdown.clone()));
        let collector = ImageCollector::new(Arc::clone(&context), supervisor.clone());
        tracker.spawn(collector.run(shutdown.clone()));
        tracker.spawn(lease::renew(context.client.clone(), context.config.node_name.clone(), shutdown.clone()));
        tracker.spawn(logs::rotate_forever(context.paths.logs(), shutdown.clone()));
        tracker.spawn(endpoint::serve(listener, Arc::clone(&context), supervisor.clone(), shutdown.clone()));
        Ok(NodeHandle { context, supervisor, tracker, shutdown, endpoint })
    }
}

impl NodeHandle {
    /// Where the node endpoint listens.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Resolves once every runtime of the node answered.
    pub async fn runtimes_ready(&self) {
        // The sender lives as long as the supervisor; after a shutdown there is nothing to wait for.
        let _ = self.supervisor.runtimes_ready.clone().wait_for(|ready| *ready).await;
    }

    /// Stops the agent; workloads go on.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Stops the agent, then every workload: containers, sandboxes, network attachments. The pod
    /// objects stay, so that the next start of the node brings them back.
    pub async fn stop_all_workloads(self) -> Result<(), StopError> {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        let context = &self.context;
        let inventories = take_inventory(context).await.map_err(|why| StopError { failures: vec![why] })?;
        let stops = inventories.iter().map(|(uid, inventory)| stop_pod(context, uid, inventory));
        let failures: Vec<String> = futures::future::join_all(stops).await.into_iter().flatten().collect();
        if failures.is_empty() { Ok(()) } else { Err(StopError { failures }) }
    }
}

async fn stop_pod(context: &NodeContext, uid: &str, inventory: &crate::pod::state::Inventory) -> Vec<String> {
    let mut failures = Vec::new();
    let stops = inventory.containers.iter().filter_map(|observed| {
        let runtime = context.runtimes.get(observed.handler)?;
        Some(runtime.stop_container(&observed.status.id, STOP_GRACE))
    });
    for result in futures::future::join_all(stops).await {
        failures.extend(result.err().map(|error| format!("pod {uid}: {}", chain(&error))));
    }
    for (handler, sandbox) in &inventory.sandboxes {
        let Some(runtime) = context.runtimes.get(*handler) else { continue };
        for result in [runtime.stop_pod_sandbox(&sandbox.id).await, runtime.remove_pod_sandbox(&sandbox.id).await] {
            failures.extend(result.err().map(|error| format!("pod {uid}: {}", chain(&error))));
        }
    }
    for address in [uid, &cri::linux_address_of(uid)] {
        let detached = context.network.detach(address).await;
        failures.extend(detached.err().map(|error| format!("pod {uid}: {}", chain(&error))));
    }
    failures
}
