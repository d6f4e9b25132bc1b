//! How members reach each other: not at all yet. A cluster of one needs no network, and every call says so instead
//! of pretending.

use std::future::Future;
use std::io;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias;
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use super::state_machine::SnapshotData;
use super::types::{Peer, Types, Vote};

pub(super) struct NoNetwork;

impl RaftNetworkFactory<Types> for NoNetwork {
    type Network = Nobody;

    async fn new_client(&mut self, member: u64, _: &Peer) -> Nobody {
        Nobody { member }
    }
}

pub(super) struct Nobody {
    member: u64,
}

impl Nobody {
    fn unreachable(&self) -> Unreachable<Types> {
        Unreachable::new(&io::Error::new(
            io::ErrorKind::Unsupported,
            format!("member {} cannot be reached: this version runs clusters of one member", self.member),
        ))
    }
}

impl RaftNetworkV2<Types> for Nobody {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn pre_vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: alias::SnapshotOf<Types, SnapshotData>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
