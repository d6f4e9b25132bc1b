//! openraft's type parameters, and how votes, log ids and entries look on the disk. The stored forms are our own,
//! so that an openraft upgrade cannot change the meaning of a log that is already written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::type_config::alias;
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::registry::Registry;
use crate::machine::Reply;
use crate::txn::Txn;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Command;
    type R = Reply;
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, u64, Peer>;
    type Entry = openraft::impls::Entry<LeaderId<u64, u64>, Self::Payload>;
    type AsyncRuntime = super::runtime::Runtime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

pub(crate) type LogId = alias::LogIdOf<Types>;
pub(crate) type Vote = alias::VoteOf<Types>;
pub(crate) type Entry = alias::EntryOf<Types>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(super) type Membership = openraft::Membership<u64, Peer>;

/// What the log replicates. Cheap to clone: raft hands entries around by value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    Txn(Arc<Txn>),
    /// Takes a member id that nobody had before.
    ReserveMember,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Txn(txn) => write!(f, "txn of {} ops", txn.ops.len()),
            Self::ReserveMember => f.write_str("reservation of a member id"),
        }
    }
}

/// Where a member is reached. Addresses are data: they may all change while identities stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub addresses: Vec<String>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses.join(","))
    }
}

// openraft asks for these of every answer, for members that forward writes to each other; ours never leaves the
// process.
impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self::empty())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLogId {
    term: u64,
    member: u64,
    index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredVote {
    term: u64,
    /// The leader, or who wants to be.
    pub member: u64,
    granted_by_majority: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry<T> {
    id: StoredLogId,
    payload: StoredPayload<T>,
}

#[derive(Serialize, Deserialize)]
enum StoredPayload<T> {
    /// What a new leader begins with.
    Blank,
    Txn(T),
    Members(StoredMembers),
    ReserveMember,
}

#[derive(Serialize, Deserialize)]
struct StoredMembers {
    /// Two sets while the membership changes, else one.
    voters: Vec<BTreeSet<u64>>,
    peers: BTreeMap<u64, Peer>,
}

#[derive(Serialize, Deserialize)]
struct StoredSnapshotMeta {
    last: Option<StoredLogId>,
    members_at: Option<StoredLogId>,
    members: StoredMembers,
}

/// What raft's part of a snapshot says. Earlier versions wrote no registry; it then follows from the members.
pub(super) struct SnapshotHead {
    pub meta: SnapshotMeta,
    pub registry: Registry,
}

impl From<LogId> for StoredLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, member: id.leader_id.node_id, index: id.index }
    }
}

impl From<StoredLogId> for LogId {
    fn from(id: StoredLogId) -> Self {
        Self::new(LeaderId::new_committed(id.term, id.member), id.index)
    }
}

impl From<&Membership> for StoredMembers {
    fn from(membership: &Membership) -> Self {
        let peers = membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        Self { voters: membership.get_joint_config().clone(), peers }
    }
}

impl TryFrom<StoredMembers> for Membership {
    type Error = io::Error;

    fn try_from(members: StoredMembers) -> io::Result<Self> {
        if members.voters.is_empty() && members.peers.is_empty() {
            return Ok(Self::default());
        }
        Self::new(members.voters, members.peers).map_err(invalid)
    }
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(super) fn to_bytes(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(invalid)
}

pub(super) fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(invalid)
}

pub(super) fn encode_entry(entry: &Entry) -> io::Result<Vec<u8>> {
    let payload = match &entry.payload {
        EntryPayload::Blank => StoredPayload::Blank,
        EntryPayload::Normal(Command::Txn(txn)) => StoredPayload::Txn(txn.as_ref()),
        EntryPayload::Normal(Command::ReserveMember) => StoredPayload::ReserveMember,
        EntryPayload::Membership(membership) => StoredPayload::Members(membership.into()),
    };
    to_bytes(&StoredEntry { id: entry.log_id.into(), payload })
}

pub(super) fn decode_entry(bytes: &[u8]) -> io::Result<Entry> {
    let StoredEntry { id, payload } = from_bytes::<StoredEntry<Txn>>(bytes)?;
    let payload = match payload {
        StoredPayload::Blank => EntryPayload::Blank,
        StoredPayload::Txn(txn) => EntryPayload::Normal(Command::Txn(Arc::new(txn))),
        StoredPayload::ReserveMember => EntryPayload::Normal(Command::ReserveMember),
        StoredPayload::Members(members) => EntryPayload::Membership(members.try_into()?),
    };
    Ok(Entry::new(id.into(), payload))
}

pub(super) fn encode_log_id(id: Option<LogId>) -> io::Result<Vec<u8>> {
    to_bytes(&id.map(StoredLogId::from))
}

pub(super) fn decode_log_id(bytes: &[u8]) -> io::Result<Option<LogId>> {
    Ok(from_bytes::<Option<StoredLogId>>(bytes)?.map(LogId::from))
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        Self { term: leader.term, member: leader.node_id, granted_by_majority: vote.is_committed() }
    }
}

impl From<StoredVote> for Vote {
    fn from(StoredVote { term, member, granted_by_majority }: StoredVote) -> Self {
        if granted_by_majority { Self::new_committed(term, member) } else { Self::new(term, member) }
    }
}

pub(super) fn encode_vote(vote: &Vote) -> io::Result<Vec<u8>> {
    to_bytes(&StoredVote::from(vote))
}

pub(super) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    Ok(from_bytes::<StoredVote>(bytes)?.into())
}

pub(super) fn encode_snapshot_head(meta: &SnapshotMeta, registry: &Registry) -> io::Result<Vec<u8>> {
    let stored = StoredSnapshotMeta {
        last: meta.last_log_id.map(Into::into),
        members_at: meta.last_membership.log_id().map(Into::into),
        members: meta.last_membership.membership().into(),
    };
    postcard::to_extend(registry, to_bytes(&stored)?).map_err(invalid)
}

pub(super) fn decode_snapshot_head(bytes: &[u8]) -> io::Result<SnapshotHead> {
    let (stored, rest) = postcard::take_from_bytes::<StoredSnapshotMeta>(bytes).map_err(invalid)?;
    let members_at = stored.members_at.map(LogId::from);
    let last_membership = StoredMembership::new(members_at, stored.members.try_into()?);
    let registry = if rest.is_empty() {
        let mut registry = Registry::default();
        registry.saw(last_membership.nodes().map(|(id, _)| *id));
        registry
    } else {
        from_bytes(rest)?
    };
    Ok(SnapshotHead { meta: SnapshotMeta { last_log_id: stored.last.map(LogId::from), last_membership }, registry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> SnapshotMeta {
        let peers = BTreeMap::from([(3, Peer { addresses: vec!["a:1".to_owned()] }), (5, Peer::default())]);
        let members = Membership::new(vec![BTreeSet::from([3])], peers).unwrap();
        let at = LogId::new(LeaderId::new_committed(2, 3), 7);
        SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), members) }
    }

    #[test]
    fn a_snapshot_head_comes_back_and_an_old_one_can_be_read() {
        let mut registry = Registry::default();
        registry.saw([3, 5]);
        registry.reserve();
        let bytes = encode_snapshot_head(&meta(), &registry).unwrap();
        let head = decode_snapshot_head(&bytes).unwrap();
        assert_eq!((&head.meta, &head.registry), (&meta(), &registry));
        let before = bytes.len() - postcard::to_stdvec(&registry).unwrap().len();
        let mut old = decode_snapshot_head(&bytes[..before]).unwrap();
        assert_eq!(old.meta, meta());
        assert_eq!(old.registry.reserve(), 6, "no member of it is ever taken for a new one");
    }

    #[test]
    fn entries_and_votes_come_back() {
        let at = LogId::new(LeaderId::new_committed(2, 3), 7);
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Command::ReserveMember),
            EntryPayload::Normal(Command::Txn(Arc::new(Txn::default()))),
            EntryPayload::Membership(meta().last_membership.membership().clone()),
        ] {
            let entry = Entry::new(at, payload);
            let back = decode_entry(&encode_entry(&entry).unwrap()).unwrap();
            assert_eq!((back.log_id, back.payload), (entry.log_id, entry.payload));
        }
        for vote in [Vote::new(3, 1), Vote::new_committed(4, 2)] {
            assert_eq!(decode_vote(&encode_vote(&vote).unwrap()).unwrap(), vote);
        }
    }
}
