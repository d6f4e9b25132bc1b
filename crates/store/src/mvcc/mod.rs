//! Multi-version state in memory: pure, deterministic, without tokio, files, clocks or randomness. Every member
//! that applies the same transactions in the same order has the same state, history and compaction.
//!
//! - [`state`]: the newest version of every key, a persistent ordered map
//! - [`hash`]: what members compare
//! - [`apply`]: one transaction against it
//! - [`history`]: the window of past changes
//! - [`timeline`]: state and history together, what is published to readers

mod apply;
mod hash;
mod history;
#[cfg(test)]
mod model_test;
mod state;
mod timeline;
mod view;

pub(crate) use apply::Batch;
pub(crate) use hash::StateHash;
pub use history::HistoryLimits;
pub(crate) use state::State;
pub use timeline::Compacted;
pub(crate) use timeline::Timeline;
pub use view::View;
