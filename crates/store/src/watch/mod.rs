//! Watches: events in revision order, each once, none missing, from any revision inside the window.
//!
//! A watch is *unsynced* while it reads the published history at its own pace, then *joins* the hub and is
//! *synced*: the hub pushes new batches into its bounded buffer. A watch that does not keep up loses its place in
//! the hub (its buffer ends) and is unsynced again; when history has moved on meanwhile it is told `Lagged`.

mod hub;
mod watcher;

pub(crate) use hub::{HubHandle, spawn_hub};
pub use watcher::{Watch, WatchClosed};
