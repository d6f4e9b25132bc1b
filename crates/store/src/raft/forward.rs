//! Writes and reads asked of any member, done by the one that leads. A write is sent on at most once: only what
//! certainly did not happen is tried again, and an unknown outcome is an error that says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::type_config::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::message::{Proposed, Refusal, Request, Response};
use super::network::AskError;
use super::node::{Core, Node, boxed, shares_of};
use super::types::{Command, Types};
use crate::machine::Reply;
use crate::txn::Txn;
use crate::types::MemberId;

/// How long a write waits for somebody to lead. An election takes about a second.
const LEADER_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before it asks again.
const LEADER_PAUSE: Duration = Duration::from_millis(25);
/// A write that is not agreed on after this time may still be, later.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The leader gives up first, so that its answer is heard.
pub(super) const FORWARD_TIMEOUT: Duration = PROPOSE_TIMEOUT.saturating_add(Duration::from_secs(1));
/// How long a read waits until this member knows what it has to know. Reads may be tried again at will.
const LINEARIZE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("member {leader:?} leads")]
    NotLeader { leader: Option<MemberId> },
    #[error("no majority confirms that this member leads")]
    NoMajority,
    /// Certainly not done.
    #[error("the leader cannot be asked")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Done or not.
    #[error("what became of the write is not known")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("this member's state differs from that of the majority")]
    Quarantined,
    #[error("the member was stopped")]
    Stopped,
    #[error("raft failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// No answer in time.
#[derive(Debug, thiserror::Error)]
#[error("there was no answer within {} s", .0.as_secs())]
struct Late(Duration);

/// Where a transaction was applied first.
pub(crate) enum Answer {
    Here(Reply),
    /// This member has applied it since.
    Forwarded(Bytes),
}

/// Who may do a write that is asked of this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proposer {
    /// Whoever leads.
    Anyone,
    /// This member, as the leader.
    Leader,
}

impl WriteError {
    /// Nothing was done, and a little later or elsewhere it might be.
    fn may_try_again(&self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::NoMajority | Self::Unreachable(_) => true,
            Self::Unknown(_) | Self::Quarantined | Self::Stopped | Self::Failed(_) => false,
        }
    }
}

pub(super) fn failed(fatal: Fatal<Types>) -> WriteError {
    match fatal {
        Fatal::Stopped => WriteError::Stopped,
        fatal => WriteError::Failed(boxed(fatal)),
    }
}

impl From<RaftError<Types, ClientWriteError<Types>>> for WriteError {
    fn from(error: RaftError<Types, ClientWriteError<Types>>) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                Self::NotLeader { leader: forward.leader_id.map(MemberId) }
            }
            // It was in the log of this member, and may have been in that of the next leader.
            RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => Self::Unknown(boxed(error)),
            RaftError::APIError(error) => Self::Failed(boxed(error)),
            RaftError::Fatal(fatal) => failed(fatal),
        }
    }
}

impl From<AskError> for WriteError {
    fn from(error: AskError) -> Self {
        Arc::new(error).into()
    }
}

/// One error may be that of many writes.
impl From<Arc<AskError>> for WriteError {
    fn from(error: Arc<AskError>) -> Self {
        match *error {
            AskError::Refused { source: Refusal::NotLeader { leader }, .. } => Self::NotLeader { leader },
            AskError::Refused { source: Refusal::NoMajority, .. } => Self::NoMajority,
            _ if error.is_certain() => Self::Unreachable(boxed(error)),
            _ => Self::Unknown(boxed(error)),
        }
    }
}

impl Node {
    /// Agreed on, durable as asked, applied here. `bytes`: of its keys and values.
    pub async fn propose(&self, txn: Txn, bytes: usize, proposer: Proposer) -> Result<Answer, WriteError> {
        let core = &self.0;
        core.check_serving()?;
        let _share = core.shares.acquire_many(shares_of(bytes)).await.map_err(|_| WriteError::Stopped)?;
        let txn = Arc::new(txn);
        let until = Instant::now() + LEADER_TIMEOUT;
        loop {
            let answer = match core.leader() {
                Some(leader) if leader == core.me => {
                    core.propose_here(Command::Txn(txn.clone())).await.map(|(_, reply)| Answer::Here(reply))
                }
                leader if proposer == Proposer::Leader => return Err(WriteError::NotLeader { leader }),
                Some(leader) => core.propose_there(leader, &txn, bytes).await.map(Answer::Forwarded),
                None => Err(WriteError::NotLeader { leader: None }),
            };
            match answer {
                Err(error) if error.may_try_again() && Instant::now() < until => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// A read barrier: the leader confirms with a majority that it leads, then this member waits until it has
    /// applied what was committed by then. Read index, not lease: safe whatever the clocks do.
    pub async fn linearize(&self) -> Result<(), WriteError> {
        let core = &self.0;
        let until = Instant::now() + LINEARIZE_TIMEOUT;
        let alone_in = core.leads_alone_in();
        loop {
            core.check_serving()?;
            if alone_in.is_some_and(|term| core.alone.is_confirmed_in(term)) && !core.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            let asked = tokio::time::timeout_at(until, core.barrier()).await;
            let index = asked.unwrap_or_else(|_| Err(WriteError::Unreachable(boxed(Late(LINEARIZE_TIMEOUT)))));
            let applied = match index {
                Ok(index) => tokio::time::timeout_at(until, core.progress.wait_for(index))
                    .await
                    .map_err(|_| WriteError::Unreachable(boxed(Late(LINEARIZE_TIMEOUT)))),
                // An unanswered read is as good as none.
                Err(WriteError::Unknown(source)) => Err(WriteError::Unreachable(source)),
                Err(error) => Err(error),
            };
            match applied {
                Err(error) if error.may_try_again() && Instant::now() < until => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                Ok(()) => {
                    if let Some(term) = alone_in
                        && core.leads_alone_in() == alone_in
                    {
                        core.alone.confirm(term);
                    }
                    return Ok(());
                }
                failed => return failed,
            }
        }
    }
}

impl Core {
    fn check_serving(&self) -> Result<(), WriteError> {
        if self.alarm.borrow().is_quarantine() { Err(WriteError::Quarantined) } else { Ok(()) }
    }

    /// As the leader. Answers where in the log it is, and what came of it.
    pub async fn propose_here(&self, command: Command) -> Result<(u64, Reply), WriteError> {
        let written = tokio::time::timeout(PROPOSE_TIMEOUT, self.raft.client_write(command)).await;
        let response = written.map_err(|_| WriteError::Unknown(boxed(Late(PROPOSE_TIMEOUT))))??;
        Ok((response.log_id.index, response.data))
    }

    async fn propose_there(&self, leader: MemberId, txn: &Arc<Txn>, bytes: usize) -> Result<Bytes, WriteError> {
        let Proposed { index, outcome } = self.forward_rounds.ask(leader, txn.clone(), bytes).await?;
        let applied = tokio::time::timeout(PROPOSE_TIMEOUT, self.progress.wait_for(index)).await;
        applied.map_err(|_| WriteError::Unknown(boxed(Late(PROPOSE_TIMEOUT))))?;
        Ok(outcome)
    }

    /// The term in which this member leads as the only voter.
    fn leads_alone_in(&self) -> Option<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.current_leader == Some(self.me.0);
        (leads && metrics.membership_config.voter_ids().eq([self.me.0])).then_some(metrics.vote.leader_id.term)
    }

    /// A read index that is as new as this call.
    pub async fn barrier(&self) -> Result<u64, WriteError> {
        // A lone voter asks nobody, so there is nothing to share.
        if self.leads_alone_in().is_some() {
            return self.read_index_here().await;
        }
        self.read_rounds.ask().await
    }

    /// One round.
    pub async fn read_index(&self) -> Result<u64, WriteError> {
        match self.leader() {
            Some(leader) if leader == self.me => self.read_index_here().await,
            Some(leader) => self.read_index_there(leader).await,
            None => Err(WriteError::NotLeader { leader: None }),
        }
    }

    /// As the leader: everything up to this index has to be applied where it is read.
    pub async fn read_index_here(&self) -> Result<u64, WriteError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(WriteError::NotLeader { leader: forward.leader_id.map(MemberId) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(WriteError::NoMajority),
            Err(RaftError::Fatal(fatal)) => Err(failed(fatal)),
        }
    }

    async fn read_index_there(&self, leader: MemberId) -> Result<u64, WriteError> {
        match self.caller.ask(leader, Request::ReadIndex, READ_INDEX_TIMEOUT).await? {
            Response::ReadIndex { index } => Ok(index),
            _ => Err(AskError::Garbled { member: leader }.into()),
        }
    }
}
