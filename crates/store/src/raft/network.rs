//! The sending side: openraft's network on our transport, and requests of our own.

use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias;
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use super::address_book::AddressBook;
use super::message::{self, Append, Chunk, Envelope, Refusal, Request, Response};
use super::state_machine::SnapshotData;
use super::types::{Peer, Types, Vote};
use crate::peer::{CallError, Transport};
use crate::types::MemberId;
use crate::workers::Workers;

/// A follower answers an append when it is on its disk, which may take long; heartbeats tell who is alive.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 512 * 1024;
/// The other member reads the whole snapshot before it answers.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Why there is no answer of the kind asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("member {member} refused")]
    Refused { member: MemberId, source: Refusal },
    /// It may have been done all the same.
    #[error("member {member} answered what cannot be understood")]
    Garbled { member: MemberId },
    #[error("the request cannot be encoded")]
    Encode(#[source] io::Error),
}

impl AskError {
    /// Is it certain that nothing was done?
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Call(CallError::Unreachable { .. }) | Self::Encode(_) => true,
            Self::Refused { source, .. } => !matches!(source, Refusal::Unknown { .. } | Refusal::Failed { .. }),
            Self::Call(CallError::Unanswered { .. }) | Self::Garbled { .. } => false,
        }
    }
}

/// Asks other members. Cheap to clone.
#[derive(Clone)]
pub(super) struct Caller {
    pub transport: Arc<dyn Transport>,
    pub book: Arc<AddressBook>,
    pub workers: Workers,
    pub transfers: Arc<AtomicU64>,
}

impl Caller {
    pub async fn ask(&self, member: MemberId, request: Request, timeout: Duration) -> Result<Response, AskError> {
        let request = message::encode(&Envelope { to: member.0, request }).map_err(AskError::Encode)?;
        let answer = self.transport.call(&self.book.destination(member), request, timeout).await?;
        match message::decode(&answer) {
            Ok(Response::Refused(source)) => Err(AskError::Refused { member, source }),
            Ok(response) => Ok(response),
            Err(_) => Err(AskError::Garbled { member }),
        }
    }
}

impl RaftNetworkFactory<Types> for Caller {
    type Network = Client;

    async fn new_client(&mut self, member: u64, _: &Peer) -> Client {
        Client { member: MemberId(member), caller: self.clone() }
    }
}

pub(super) struct Client {
    member: MemberId,
    caller: Caller,
}

/// openraft waits a little before it asks an unreachable member again, and asks one that did not answer at once.
fn rpc_error(error: &AskError) -> RPCError<Types> {
    match error {
        AskError::Call(CallError::Unanswered { .. }) => RPCError::Network(NetworkError::new(error)),
        _ => RPCError::Unreachable(Unreachable::new(error)),
    }
}

fn streaming_error(error: &AskError) -> StreamingError<Types> {
    match error {
        AskError::Call(CallError::Unanswered { .. }) => StreamingError::Network(NetworkError::new(error)),
        _ => StreamingError::Unreachable(Unreachable::new(error)),
    }
}

impl Client {
    async fn ask(&self, request: Request, timeout: Duration) -> Result<Response, RPCError<Types>> {
        self.caller.ask(self.member, request, timeout).await.map_err(|error| rpc_error(&error))
    }

    fn garbled<T>(&self) -> Result<T, RPCError<Types>> {
        Err(rpc_error(&AskError::Garbled { member: self.member }))
    }

    async fn ballot(&self, request: Request, option: &RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(request, option.hard_ttl()).await? {
            Response::Vote(answer) => Ok(answer.into()),
            _ => self.garbled(),
        }
    }

    /// Sends a snapshot file piece by piece, each one after the one before has been answered.
    async fn send(
        &self,
        vote: &Vote,
        snapshot: SnapshotData,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let unread = |error: io::Error| StreamingError::Unreachable(Unreachable::new(&error));
        let transfer = self.caller.transfers.fetch_add(1, Ordering::Relaxed);
        let ask = async |request, timeout| {
            self.caller.ask(self.member, request, timeout).await.map_err(|error| streaming_error(&error))
        };
        let mut file = snapshot.open().map_err(unread)?;
        let (mut offset, mut crc) = (0, crc32fast::Hasher::new());
        loop {
            let work = move || read_chunk(file);
            let (rest, bytes) = self.caller.workers.run(work).await.map_err(unread)?;
            if bytes.is_empty() {
                break;
            }
            file = rest;
            crc.update(&bytes);
            let expected = offset + bytes.len() as u64;
            let chunk = Chunk { transfer, offset, crc: crc32fast::hash(&bytes), bytes };
            match ask(Request::Chunk(chunk), CHUNK_TIMEOUT).await? {
                Response::Chunk { received } if received == expected => offset = expected,
                _ => {
                    let lost = Timeout {
                        action: openraft::RPCTypes::InstallSnapshot,
                        id: self.member.0,
                        target: self.member.0,
                        timeout: CHUNK_TIMEOUT,
                    };
                    return Err(StreamingError::Timeout(lost));
                }
            }
        }
        let install = Request::Install { transfer, vote: vote.into(), length: offset, crc: crc.finalize() };
        match ask(install, INSTALL_TIMEOUT).await? {
            Response::Installed { vote } => Ok(SnapshotResponse::new(vote.into())),
            _ => Err(streaming_error(&AskError::Garbled { member: self.member })),
        }
    }
}

/// Fills a chunk as far as the file goes.
fn read_chunk(mut file: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, Bytes)> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
    Ok((file, bytes.into()))
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let append = Append::try_from(&request).map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        match self.ask(Request::Append(append), APPEND_TIMEOUT).await? {
            Response::Append(answer) => Ok(answer.into()),
            _ => self.garbled(),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(Request::Vote((&request).into()), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(Request::PreVote((&request).into()), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: alias::SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send(&vote, snapshot.snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask((&request).into(), option.hard_ttl()).await? {
            Response::TransferLeader(answer) => Ok(answer.into()),
            _ => self.garbled(),
        }
    }
}
