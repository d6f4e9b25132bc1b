//! Cluster DNS, answered on the node itself: no hop, no connection tracking.

mod server;
mod upstream;
mod zone;

pub(crate) use server::{DnsSockets, serve};
pub use zone::{Lookup, Records, ServiceRecord, Zone, ZoneConfig};
