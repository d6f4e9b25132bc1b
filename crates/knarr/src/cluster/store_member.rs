//! This server's member of the replicated store: opened, served to the others, let in, caught up.
//!
//! Owns: the order of these. May not know: what the state means, how members agree.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::ObjectFacets;
use store::{MemberId, PeersConfig, ProposeError, Role, Start, Store, StoreConfig, StreamTransport};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::ClusterConfig;
use super::member_record::MemberRecord;
use super::peers::PeerTls;
use crate::pki::Authority;
use crate::store_keys::StoreKeys;

/// After this a person wants to know what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// How this member meets the others.
pub struct PeerDoor {
    pub authority: Arc<Authority>,
    pub listener: TcpListener,
    pub listen: SocketAddr,
    pub known: BTreeMap<MemberId, Vec<String>>,
}

pub struct StoreMember {
    pub store: Store<ObjectFacets>,
    /// Answers the others.
    peers: Option<JoinHandle<()>>,
}

impl StoreMember {
    /// `door`: without it the member is alone.
    pub async fn open(
        config: &ClusterConfig,
        record: &MemberRecord,
        door: Option<PeerDoor>,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let mut store_config = StoreConfig::new(config.data_dir.join("store"));
        store_config.member_id = record.id();
        store_config.keys = StoreKeys::open(&config.store_keys)?.ring();
        store_config.start = if record.is_joined() { Start::Found } else { Start::Join };
        let tls = match &door {
            None => None,
            Some(door) => {
                let tls = PeerTls::new(&door.authority, record.id())?;
                store_config.peers = PeersConfig {
                    transport: Arc::new(StreamTransport::new(tls.dialer())),
                    advertise: vec![door.listen.to_string()],
                    addresses: door.known.clone(),
                };
                Some(tls)
            }
        };
        let store: Store<ObjectFacets> = Store::open(store_config).await.context("cannot open the cluster's state")?;
        if door.is_none() && store.members().members.len() > 1 {
            store.shutdown().await;
            bail!("this data directory is of one of several servers: start it with `knarr server`");
        }
        let peers = tls.zip(door).map(|(tls, door)| tls.spawn(door.listener, store.clone(), shutdown.clone()));
        Ok(Self { store, peers })
    }

    /// Returns when this member has everything that was acknowledged anywhere.
    pub async fn catch_up(&self) -> Result<()> {
        let began = Instant::now();
        let mut told = false;
        loop {
            match self.store.linearize().await {
                Ok(_) => return Ok(()),
                Err(ProposeError::NotLeader { .. } | ProposeError::NoMajority | ProposeError::Unreachable(_)) => {}
                Err(error) => return Err(error).context("this member cannot catch up with the others"),
            }
            if !told && began.elapsed() > PATIENCE {
                told = true;
                eprintln!("knarr: {}", waiting_for(&self.store));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets another member lead, so that the cluster does not have to find out that this one has ended.
    pub async fn hand_over(&self) {
        let seen = self.store.members();
        if seen.leader != Some(seen.me) {
            return;
        }
        let voters = seen.members.iter().filter(|member| member.id != seen.me && member.role == Role::Voter);
        // Who has most of the log is neither dead nor far behind.
        let Some(next) = voters.max_by_key(|member| member.log_end) else { return };
        if let Err(error) = self.store.transfer_leadership(next.id).await {
            tracing::warn!(%error, member = %next.id, "nobody took over; the others will elect a leader");
        }
    }

    /// After the shutdown token was cancelled.
    pub async fn stop(self) {
        if let Some(task) = self.peers
            && let Err(error) = task.await
        {
            tracing::error!(%error, "answering other members failed");
        }
        self.store.shutdown().await;
    }
}

fn waiting_for(store: &Store<ObjectFacets>) -> String {
    let seen = store.members();
    let others: Vec<String> = seen
        .members
        .iter()
        .filter(|member| member.id != seen.me)
        .map(|member| format!("member {} at {}", member.id, member.addresses.join(" or ")))
        .collect();
    format!(
        "waiting for a majority of the members; the others are {}. If they moved, say where: --peer ID=IP:PORT. If \
         this member was removed, `knarr member ls` on another server does not show it",
        others.join(", ")
    )
}
