//! The receiving side: what a member does with a request of another.

use bytes::Bytes;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};

use super::address_book::is_acceptable;
use super::forward::WriteError;
use super::incoming::IncomingError;
use super::members::MemberError;
use super::message::{self, Append, Ballot, Envelope, Proposed, Refusal, Request, Response};
use super::node::{Core, Node, shares_of};
use super::types::{Command, StoredVote, Types, Vote};
use crate::txn::{self, Txn};
use crate::types::MemberId;

type Answer = Result<Response, Refusal>;

fn failed(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why = format!("{why}: {error}");
        source = error.source();
    }
    Refusal::Failed { why }
}

fn raft_failed<E: std::error::Error + 'static>(error: RaftError<Types, E>) -> Refusal {
    failed(&error)
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotLeader { leader } => Self::NotLeader { leader },
            WriteError::NoMajority | WriteError::Unreachable(_) => Self::NoMajority,
            WriteError::Quarantined => Self::Quarantined,
            error @ (WriteError::Unknown(_) | WriteError::Stopped | WriteError::Failed(_)) => {
                Self::Unknown { why: error.to_string() }
            }
        }
    }
}

impl From<IncomingError> for Refusal {
    fn from(error: IncomingError) -> Self {
        failed(&error)
    }
}

impl Node {
    /// Answers a request of the member that is known to be `from`.
    pub async fn answer(&self, from: MemberId, request: &[u8]) -> Bytes {
        let response = match message::decode::<Envelope>(request) {
            Ok(Envelope { to, .. }) if to != self.0.me.0 => Err(Refusal::WrongMember { is: self.0.me.0 }),
            Ok(Envelope { request, .. }) => self.0.answer(from, request).await,
            Err(_) => Err(Refusal::NotUnderstood),
        };
        let response = response.unwrap_or_else(Response::Refused);
        message::encode(&response).expect("answers are made of what can be encoded")
    }
}

impl Core {
    async fn answer(&self, from: MemberId, request: Request) -> Answer {
        let serves = matches!(request, Request::Propose(_) | Request::ReadIndex | Request::Change(_));
        if serves && self.alarm.borrow().is_quarantine() {
            return Err(Refusal::Quarantined);
        }
        match request {
            Request::Append(append) => self.append(from, append).await,
            Request::Vote(ballot) => self.vote(from, ballot, false).await,
            Request::PreVote(ballot) => self.vote(from, ballot, true).await,
            Request::Chunk(chunk) => {
                Ok(Response::Chunk { received: self.incoming.lock().await.take(from, chunk).await? })
            }
            Request::Install { transfer, vote, length, crc } => {
                let snapshot = self.incoming.lock().await.finish(from, transfer, length, crc).await?;
                self.install(from, vote, snapshot).await
            }
            Request::TransferLeader { from, to, last } => {
                let request = TransferLeaderRequest::new(from.into(), to, last.map(Into::into));
                let answer = self.raft.handle_transfer_leader(request).await;
                answer.map(|answer| Response::TransferLeader(answer.into())).map_err(|fatal| failed(&fatal))
            }
            Request::Propose(txns) => {
                let each = txns.into_iter().map(|txn| self.propose_for(txn));
                Ok(Response::Proposed(futures::future::join_all(each).await))
            }
            // Were it sent on from here, two members that believe in each other would send it to and fro.
            Request::ReadIndex if self.leader() != Some(self.me) => Err(Refusal::NotLeader { leader: self.leader() }),
            Request::ReadIndex => Ok(Response::ReadIndex { index: self.barrier().await? }),
            Request::Change(change) => match self.change_here(change).await {
                Ok(member) => Ok(Response::Changed { member }),
                Err(MemberError::NotLeader { leader }) => Err(Refusal::NotLeader { leader }),
                Err(MemberError::NotAMember { member }) => Err(Refusal::NotAMember { member }),
                Err(MemberError::Unknown(source)) => Err(Refusal::Unknown { why: source.to_string() }),
                Err(error) => Err(Refusal::Change { why: error.to_string() }),
            },
            Request::Announce { addresses } => {
                if !is_acceptable(&addresses) {
                    return Err(Refusal::NotUnderstood);
                }
                if self.caller.book.announce(from, &addresses) {
                    self.news.notify_one();
                }
                Ok(Response::Announced(self.caller.book.announced()))
            }
            Request::StateHash { revision } => {
                let (revision, hash) = (self.hash_at)(revision);
                Ok(Response::StateHash { revision, hash })
            }
        }
    }

    /// Only the member a vote names may speak for it.
    fn check_sender(from: MemberId, vote: &StoredVote) -> Result<(), Refusal> {
        if vote.member == from.0 { Ok(()) } else { Err(Refusal::NotUnderstood) }
    }

    async fn append(&self, from: MemberId, append: Append) -> Answer {
        Self::check_sender(from, &append.vote)?;
        let request = AppendEntriesRequest::try_from(append).map_err(|_| Refusal::NotUnderstood)?;
        let answer = self.raft.append_entries(request).await.map_err(raft_failed)?;
        Ok(Response::Append(answer.into()))
    }

    async fn vote(&self, from: MemberId, ballot: Ballot, pre_vote: bool) -> Answer {
        Self::check_sender(from, &ballot.vote)?;
        let request = VoteRequest::from(ballot);
        let answer = if pre_vote { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        Ok(Response::Vote(answer.map_err(raft_failed)?.into()))
    }

    async fn install(&self, from: MemberId, vote: StoredVote, snapshot: super::state_machine::SnapshotData) -> Answer {
        Self::check_sender(from, &vote)?;
        // Without a head that can be read there is nothing raft could decide about.
        let snapshot = snapshot.with_meta().map_err(|error| failed(&error))?;
        let vote = Vote::from(vote);
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        self.incoming.lock().await.discard(from);
        installed.map(|response| Response::Installed { vote: (&response.vote).into() }).map_err(|fatal| failed(&fatal))
    }

    async fn propose_for(&self, txn: Txn) -> Result<Proposed, Refusal> {
        let bytes = txn::check(&txn).map_err(|_| Refusal::NotUnderstood)?;
        let shares = self.shares.acquire_many(shares_of(bytes)).await;
        let _share = shares.map_err(|_| Refusal::NotLeader { leader: None })?;
        let (index, reply) = self.propose_here(Command::Txn(txn.into())).await?;
        let outcome = (self.encode_outcome)(reply);
        let outcome = outcome.ok_or_else(|| Refusal::Unknown { why: "the outcome cannot be encoded".to_owned() })?;
        Ok(Proposed { index, outcome })
    }
}
