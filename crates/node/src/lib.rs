//! The node agent (Kubernetes' kubelet): makes this machine run the pods that are bound to it.
//!
//! Owns: one worker per pod (`pod`), their volumes, environment, probes and logs, the Node object
//! and its lease, and the endpoint the API server asks for logs and streams. It may die at any time: what runs
//! belongs to the runtimes, and a new agent takes it over.
//!
//! Knows only the Kubernetes API and the seam `cri`: no wasmtime, no Linux namespaces, no store.

mod agent;
mod config;
mod downward;
mod endpoint;
mod env;
mod image_gc;
mod inventory;
mod lease;
mod ledger;
mod logs;
mod machine;
mod node_object;
mod objects;
mod pod;
mod probe;
mod pull_secret;
mod stream;
mod supervisor;
mod tokens;
mod volume;

pub use agent::{Node, NodeHandle, SpawnError, StopError};
pub use config::{CapacityOverrides, NodeConfig, NodeDeps, PODS_DEFAULT};
