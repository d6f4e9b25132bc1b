//! Services in the kernel: packets to a Service's address go to one of its endpoints.
//!
//! `compile` decides (objects to [`Tables`]), `tables` finds the difference, `ruleset` and `nft`
//! render it to bytes, [`ServiceProxy`] sends them. Another packet filter would replace the last
//! three. `publish` gives the same to runtimes.

mod compile;
mod conntrack;
mod publish;
mod ruleset;
mod tables;

pub use compile::{NodeView, Warning, compile};
pub(crate) use compile::{frontends_of, ready_backends};
pub(crate) use conntrack::{Flow, flows};
pub(crate) use publish::publish;
pub use tables::{Affinity, BACKENDS_MAX, Backend, Backends, Frontend, IpProtocol, Tables};

use crate::config::NetworkConfig;
use crate::error::{Attempt, SetupError};
use crate::netlink::{Message, NetlinkError, NetlinkSocket};
use crate::nft;
use ruleset::Ruleset;
use tables::changes;

/// The kernel refused a table.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {why}")]
pub struct ApplyError {
    pub attempt: &'static str,
    pub why: String,
}

/// Owns the node's nftables table.
pub struct ServiceProxy {
    socket: NetlinkSocket,
    ruleset: Ruleset,
    /// What the kernel holds; `None` when that is not known (a new process, a failed change).
    applied: Option<Tables>,
}

impl ServiceProxy {
    /// Keeps the rules that an earlier process left, until the first [`apply`](Self::apply); makes
    /// empty ones where there are none.
    pub fn open(config: &NetworkConfig) -> Result<Self, SetupError> {
        let socket = NetlinkSocket::netfilter().attempt(|| "open a netfilter socket".to_owned())?;
        let mut proxy = Self { socket, ruleset: Ruleset::new(config), applied: None };
        let exists = proxy.exists().attempt(|| format!("look for the nftables table {}", config.table_name))?;
        if !exists {
            let batch = proxy.ruleset.replace(&Tables::default());
            proxy.socket.batch(batch).attempt(|| format!("create the nftables table {}", config.table_name))?;
            proxy.applied = Some(Tables::default());
        }
        Ok(proxy)
    }

    /// Brings the kernel to these tables in one transaction: only the changed elements, or, when
    /// the present state is not known, everything. Returns how many elements changed.
    pub fn apply(&mut self, tables: Tables) -> Result<usize, ApplyError> {
        let Some(old) = self.applied.take() else {
            return self.replace(tables);
        };
        let changes = changes(&old, &tables);
        if changes.is_empty() {
            self.applied = Some(tables);
            return Ok(0);
        }
        if let Err(error) = self.socket.batch(self.ruleset.change(&changes)) {
            // Someone flushed our table, most likely.
            tracing::warn!(%error, "cannot change the Service rules; replacing all of them");
            return self.replace(tables);
        }
        self.applied = Some(tables);
        if !changes.lost_udp.is_empty() {
            conntrack::forget(&mut self.socket, &changes.lost_udp)
                .map_err(refused("forget the flows to removed UDP endpoints"))?;
        }
        Ok(changes.added.len() + changes.deleted.len())
    }

    /// Makes the next [`apply`](Self::apply) replace everything, if another program removed our
    /// table.
    pub fn check(&mut self) -> Result<(), ApplyError> {
        if !self.exists().map_err(refused("look for the Service rules"))? {
            tracing::warn!(table = self.ruleset.table, "the nftables table is gone");
            self.applied = None;
        }
        Ok(())
    }

    /// Whether [`apply`](Self::apply) has something to do although the tables did not change.
    pub fn is_stale(&self) -> bool {
        self.applied.is_none()
    }

    fn replace(&mut self, tables: Tables) -> Result<usize, ApplyError> {
        let batch: Vec<Message> = self.ruleset.replace(&tables);
        self.socket.batch(batch).map_err(refused("replace the Service rules"))?;
        let count = changes(&Tables::default(), &tables).added.len();
        self.applied = Some(tables);
        Ok(count)
    }

    fn exists(&mut self) -> Result<bool, NetlinkError> {
        match self.socket.get(nft::get_table(&self.ruleset.table)) {
            Ok(_) => Ok(true),
            Err(error) if error.is(nix::errno::Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Deletes the node's table. A missing one is no error.
pub fn remove(config: &NetworkConfig) -> Result<(), SetupError> {
    let mut socket = NetlinkSocket::netfilter().attempt(|| "open a netfilter socket".to_owned())?;
    let batch = Ruleset::new(config).delete();
    socket.batch(batch).attempt(|| format!("delete the nftables table {}", config.table_name))
}

fn refused(attempt: &'static str) -> impl FnOnce(NetlinkError) -> ApplyError {
    move |error| ApplyError { attempt, why: error.to_string() }
}
