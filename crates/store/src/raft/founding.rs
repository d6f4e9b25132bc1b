//! What raft knows in a cluster of one that begins with a state from elsewhere: a snapshot that stands where the
//! first entry of a new cluster's log stands, and nothing before it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::impls::leader_id_adv::LeaderId;
use openraft::vote::RaftLeaderIdExt;

use super::registry::Registry;
use super::state_machine;
use super::types::{LogId, Membership, Peer, SnapshotMeta, StoredMembership, encode_snapshot_head, invalid};
use crate::types::MemberId;

pub(crate) struct Founding {
    /// The snapshot's file name, with its directory.
    pub snapshot: String,
    pub head: Vec<u8>,
}

impl Founding {
    /// Ids up to `ids_given_out` count as used: a member of the cluster the state comes from never becomes one of this.
    pub fn new(member: MemberId, addresses: Vec<String>, ids_given_out: u64) -> io::Result<Self> {
        let first = LogId::new(LeaderId::new_committed(0, member.0), 0);
        let peers = BTreeMap::from([(member.0, Peer { addresses })]);
        let members = Membership::new(vec![BTreeSet::from([member.0])], peers).map_err(invalid)?;
        let last_membership = StoredMembership::new(Some(first), members);
        let meta = SnapshotMeta { last_log_id: Some(first), last_membership };
        let mut registry = Registry::default();
        registry.saw([ids_given_out, member.0]);
        Ok(Self { snapshot: state_machine::name_of(&meta), head: encode_snapshot_head(&meta, &registry)? })
    }
}
