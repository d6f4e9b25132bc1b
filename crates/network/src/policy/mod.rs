//! Network policies: who may connect to whom, in the kernel and for those who call without it.
//!
//! ```text
//! watch ─► facts ─► rules ─► compile ─► tables ─► ruleset ─► one nftables transaction
//!                                        ├► allow: the activator's connections
//!                                        └► publish: runtimes that call in process
//! ```
//!
//! Owns: the node's second nftables table, which is only there while some pod of this node is isolated. May not know:
//! Services. See `docs/decisions/0035`.

mod compile;
mod facts;
mod ports;
mod publish;
mod rules;
mod ruleset;
mod tables;
mod worker;

pub use compile::compile;
pub use facts::{PodFacts, cluster_dns, pod_facts};
pub use ports::{PortRange, Ports};
pub use rules::Warning;
pub use tables::Tables;
pub(crate) use worker::{KnownPolicies, PolicyCaches, PolicySync};

use crate::config::NetworkConfig;
use crate::error::{Attempt, SetupError};
use crate::netlink::{NetlinkError, NetlinkSocket};
use crate::nft;
use crate::service_proxy::{ApplyError, Backend};
use ruleset::Ruleset;
use tables::changes;

/// Owns the table of policies.
pub struct PolicyRules {
    socket: NetlinkSocket,
    ruleset: Ruleset,
    /// What the kernel holds; `None` when that is not known (a new process, a failed change).
    applied: Option<Tables>,
}

impl PolicyRules {
    /// Keeps the rules that an earlier process left, until the first [`apply`](Self::apply). `activator`: where
    /// connections are held, which judges by itself whom it passes them on to.
    pub fn open(config: &NetworkConfig, activator: Backend) -> Result<Self, SetupError> {
        let socket = NetlinkSocket::netfilter().attempt(|| "open a netfilter socket".to_owned())?;
        Ok(Self { socket, ruleset: Ruleset::new(config, activator), applied: None })
    }

    /// Brings the kernel to these tables in one transaction. Returns how many elements changed.
    pub fn apply(&mut self, tables: &Tables) -> Result<usize, ApplyError> {
        let old = self.applied.take();
        let fits = old.filter(|old| old.blocks == tables.blocks && old.is_empty() == tables.is_empty());
        let changes = changes(fits.as_ref().unwrap_or(&Tables::default()), tables);
        let count = changes.count();
        if fits.is_some() && (tables.is_empty() || count == 0) {
            self.applied = Some(tables.clone());
            return Ok(0);
        }
        let changed = fits.is_some()
            && match self.socket.batch(self.ruleset.change(&changes)) {
                Ok(()) => true,
                Err(error) => {
                    // Someone flushed our table, most likely.
                    tracing::warn!(%error, "cannot change the rules of policies; replacing all of them");
                    false
                }
            };
        if !changed {
            let refused =
                |error: NetlinkError| ApplyError { attempt: "replace the rules of policies", why: error.to_string() };
            self.socket.batch(self.ruleset.replace(tables)).map_err(refused)?;
        }
        self.applied = Some(tables.clone());
        Ok(count)
    }

    /// Makes the next [`apply`](Self::apply) replace everything, if another program removed our table.
    pub fn check(&mut self) -> Result<(), ApplyError> {
        if self.applied.as_ref().is_none_or(Tables::is_empty) {
            return Ok(());
        }
        match self.socket.get(nft::get_table(&self.ruleset.table)) {
            Ok(_) => Ok(()),
            Err(error) if error.is(nix::errno::Errno::ENOENT) => {
                tracing::warn!(table = self.ruleset.table, "the nftables table is gone");
                self.applied = None;
                Ok(())
            }
            Err(error) => Err(ApplyError { attempt: "look for the rules of policies", why: error.to_string() }),
        }
    }

    /// Whether [`apply`](Self::apply) has something to do although the tables did not change.
    pub fn is_stale(&self) -> bool {
        self.applied.is_none()
    }
}

/// Deletes the table of policies. A missing one is no error.
pub fn remove(config: &NetworkConfig) -> Result<(), SetupError> {
    let mut socket = NetlinkSocket::netfilter().attempt(|| "open a netfilter socket".to_owned())?;
    let ruleset = Ruleset::new(config, Backend { address: config.gateway(), port: 0 });
    socket.batch(ruleset.delete()).attempt(|| format!("delete the nftables table {}", ruleset.table))
}
