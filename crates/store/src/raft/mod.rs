//! Agreement and durability: the only place that names openraft. Drives a [`Machine`](crate::machine::Machine)
//! with committed transactions; knows neither facets nor watches.
//!
//! - [`types`]: openraft's type parameters, and how they look on the disk
//! - [`log_store`]: openraft's log on our write-ahead log
//! - [`state_machine`]: openraft's state machine on our `Machine`, and snapshots
//! - [`network`]: how members reach each other
//! - [`node`]: one running member
//! - [`runtime`], [`watch_channel`]: what openraft runs on

mod log_store;
mod network;
mod node;
mod runtime;
mod state_machine;
#[cfg(test)]
mod suite_test;
mod types;
mod watch_channel;

pub use node::NodeError;
pub(crate) use node::{Node, WriteError};
pub use runtime::seed_randomness;
pub use state_machine::RestoreError;
