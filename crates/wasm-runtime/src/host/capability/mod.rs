//! What guests may import beyond WASI itself: one file each, and the list of them.
//!
//! ```text
//! once per process     link      the functions, under every version that means the same
//! once per container   Granted   what this one was given: its log, its configuration, its stores
//! once per instance    Held      what its handles keep in memory here
//! ```
//!
//! A capability that nobody granted can be imported all the same; its functions say no. May not know: where grants
//! come from, how instances run.

mod config;
mod keyvalue;
mod logging;

#[cfg(test)]
mod contract_tests;

use std::sync::Arc;

use wasmtime::component::{Linker, LinkerInstance};

use crate::host::agent::AgentHandle;
use crate::host::guest::ComponentState;
use crate::host::logs::ContainerLog;
use crate::protocol::StartContainer;

pub use config::Values;
pub use keyvalue::{Held, Stores};

/// Some interfaces of one package.
pub struct Capability {
    /// `wasi:config`
    pub package: &'static str,
    /// Versions by their whole name, since a pre-release promises compatibility with nothing; "" is the package
    /// without a version.
    pub versions: &'static [&'static str],
    pub interfaces: &'static [Interface],
}

pub struct Interface {
    pub name: &'static str,
    define: fn(&mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()>,
}

/// The visible list.
pub const CAPABILITIES: &[Capability] =
    &[config::CONFIG, logging::LOGGING, keyvalue::KEYVALUE_DRAFT, keyvalue::KEYVALUE_DRAFT2];

/// `wasi:config/store@0.2.0-rc.1`
pub fn import_name(package: &str, interface: &str, version: &str) -> String {
    if version.is_empty() { format!("{package}/{interface}") } else { format!("{package}/{interface}@{version}") }
}

/// Defines all of them.
pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    for capability in CAPABILITIES {
        for version in capability.versions {
            for interface in capability.interfaces {
                let name = import_name(capability.package, interface.name, version);
                (interface.define)(&mut linker.instance(&name)?)?;
            }
        }
    }
    Ok(())
}

/// What one container was given; its instances share it.
pub struct Granted {
    log: Arc<ContainerLog>,
    config: Values,
    stores: Stores,
}

impl Granted {
    pub fn new(spec: &StartContainer, log: Arc<ContainerLog>, config: Values, agent: AgentHandle) -> Arc<Self> {
        let stores = Stores::new(spec.id.clone(), spec.grants.stores.clone(), agent);
        Arc::new(Self { log, config, stores })
    }
}
