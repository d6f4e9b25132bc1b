//! Who is a member, and changing it: one change at a time, by the leader, from what a majority agreed on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, RaftMetrics};

use super::address_book::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, is_acceptable};
use super::forward::WriteError;
use super::message::{MemberChange, Refusal, Request, Response};
use super::network::AskError;
use super::node::{Core, Node, boxed};
use super::registry::IdState;
use super::types::{Command, Peer, Types};
use crate::types::MemberId;

/// A learner becomes a voter when it lacks fewer entries than this.
const LAG_ENTRIES_MAX: u64 = 64;
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Two rounds of agreement.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the leader takes at most.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("the id {member} was used before; an id is used once")]
    IdUsed { member: MemberId },
    #[error("the id {member} was never given out")]
    IdUnknown { member: MemberId },
    #[error("there is no member {member}")]
    NotAMember { member: MemberId },
    #[error("member {member} is no learner")]
    NotALearner { member: MemberId },
    #[error("member {member} is no voter")]
    NotAVoter { member: MemberId },
    #[error("member {member} is the last voter")]
    LastVoter { member: MemberId },
    #[error("member {member} has not caught up within {} s", CATCH_UP_TIMEOUT.as_secs())]
    Behind { member: MemberId },
    #[error("a member has 1 to {ADDRESSES_MAX} addresses of at most {ADDRESS_BYTES_MAX} bytes")]
    Addresses,
    #[error("member {member} did not take over within {} s", TRANSFER_TIMEOUT.as_secs())]
    NotTakenOver { member: MemberId },
    /// Nothing was changed here.
    #[error("this member does not lead")]
    NotLeader { leader: Option<MemberId> },
    #[error("the leader refused: {why}")]
    Refused { why: String },
    /// The change was made or not, or is still being made.
    #[error("what became of the change is not known")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the membership cannot be changed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug, thiserror::Error)]
#[error("it was not agreed on within {} s", CHANGE_TIMEOUT.as_secs())]
struct Late;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Counts in a majority.
    Voter,
    /// Is sent everything and counts for nothing.
    Learner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub addresses: Vec<String>,
    pub role: Role,
    pub leads: bool,
    /// Entries of the log it has for certain. Only the leader knows.
    pub log_end: Option<u64>,
}

/// The members as one of them sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    pub me: MemberId,
    pub leader: Option<MemberId>,
    /// Counts elections.
    pub term: u64,
    /// Entries of this member's log, and how many of them it has applied.
    pub log_end: u64,
    pub applied_end: u64,
    pub members: Vec<Member>,
}

impl From<WriteError> for MemberError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotLeader { leader } => Self::NotLeader { leader },
            WriteError::Unknown(source) => Self::Unknown(source),
            error => Self::Failed(boxed(error)),
        }
    }
}

impl Node {
    pub fn members(&self) -> Members {
        let metrics = self.0.raft.metrics();
        members(self.0.me, &metrics.borrow_watched())
    }

    /// Made by the leader, which is asked at most once. Answers the member that was changed, or the reserved id.
    pub async fn change(&self, change: MemberChange) -> Result<MemberId, MemberError> {
        match self.0.leader() {
            Some(leader) if leader != self.0.me => {
                match self.0.caller.ask(leader, Request::Change(change), FORWARD_TIMEOUT).await {
                    Ok(Response::Changed { member }) => Ok(member),
                    Ok(_) => Err(MemberError::Unknown(boxed(AskError::Garbled { member: leader }))),
                    Err(AskError::Refused { source: Refusal::NotAMember { member }, .. }) => {
                        Err(MemberError::NotAMember { member })
                    }
                    Err(AskError::Refused { source: Refusal::Change { why }, .. }) => Err(MemberError::Refused { why }),
                    Err(error) => Err(WriteError::from(error).into()),
                }
            }
            _ => self.0.change_here(change).await,
        }
    }
}

fn members(me: MemberId, metrics: &RaftMetrics<Types>) -> Members {
    let end = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let log_end = end(metrics.last_log_index);
    let members = membership.nodes().map(|(id, peer)| Member {
        id: MemberId(*id),
        addresses: peer.addresses.clone(),
        role: if voters.contains(id) { Role::Voter } else { Role::Learner },
        leads: metrics.current_leader == Some(*id),
        log_end: match &metrics.replication {
            Some(_) if *id == me.0 => Some(log_end),
            Some(replication) => replication.get(id).map(|matched| end(matched.as_ref().map(|id| id.index))),
            None => None,
        },
    });
    Members {
        me,
        leader: metrics.current_leader.map(MemberId),
        term: metrics.current_term,
        log_end,
        applied_end: end(metrics.last_applied.map(|id| id.index)),
        members: members.collect(),
    }
}

impl Core {
    /// As the leader.
    pub async fn change_here(&self, change: MemberChange) -> Result<MemberId, MemberError> {
        let _one = self.changes.lock().await;
        // What was ever agreed on is known here after this, ids that were used above all.
        let index = self.read_index_here().await?;
        let applied = tokio::time::timeout(CHANGE_TIMEOUT, self.progress.wait_for(index)).await;
        applied.map_err(|_| MemberError::Failed(boxed(Late)))?;
        self.finish_change().await?;
        match change {
            MemberChange::Reserve => {
                let (_, reply) = self.propose_here(Command::ReserveMember).await?;
                Ok(reply.take().expect("a reservation is answered with an id"))
            }
            MemberChange::AddLearner { member, addresses } => self.add_learner(member, addresses).await,
            MemberChange::Promote { member } => {
                self.caught_up(member).await?;
                self.write(ChangeMembers::AddVoterIds(BTreeSet::from([member.0])), true).await?;
                Ok(member)
            }
            MemberChange::Remove { member } => self.remove(member).await,
            MemberChange::ReplaceDead { dead, by } => self.replace(dead, by).await,
            MemberChange::SetAddresses { member, addresses } => {
                self.role_of(member)?;
                if !is_acceptable(&addresses) {
                    return Err(MemberError::Addresses);
                }
                let nodes = BTreeMap::from([(member.0, Peer { addresses })]);
                self.write(ChangeMembers::SetNodes(nodes), true).await?;
                Ok(member)
            }
            MemberChange::TransferLeader { to } => self.transfer(to).await,
        }
    }

    fn role_of(&self, member: MemberId) -> Result<Role, MemberError> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&member.0).is_none() {
            return Err(MemberError::NotAMember { member });
        }
        let votes = membership.voter_ids().any(|id| id == member.0);
        Ok(if votes { Role::Voter } else { Role::Learner })
    }

    async fn add_learner(&self, member: MemberId, addresses: Vec<String>) -> Result<MemberId, MemberError> {
        if !is_acceptable(&addresses) {
            return Err(MemberError::Addresses);
        }
        match self.progress.registry().state_of(member.0) {
            IdState::Reserved => {}
            IdState::Used => return Err(MemberError::IdUsed { member }),
            IdState::Unknown => return Err(MemberError::IdUnknown { member }),
        }
        let nodes = BTreeMap::from([(member.0, Peer { addresses })]);
        self.write(ChangeMembers::AddNodes(nodes), true).await?;
        Ok(member)
    }

    async fn remove(&self, member: MemberId) -> Result<MemberId, MemberError> {
        let change = match self.role_of(member)? {
            Role::Voter if self.raft.voter_ids().count() == 1 => return Err(MemberError::LastVoter { member }),
            Role::Voter => ChangeMembers::RemoveVoters(BTreeSet::from([member.0])),
            Role::Learner => ChangeMembers::RemoveNodes(BTreeSet::from([member.0])),
        };
        self.write(change, false).await?;
        Ok(member)
    }

    /// In one step, so that a majority of the members before and one of those after agree on it.
    async fn replace(&self, dead: MemberId, by: MemberId) -> Result<MemberId, MemberError> {
        if self.role_of(dead)? != Role::Voter {
            return Err(MemberError::NotAVoter { member: dead });
        }
        self.caught_up(by).await?;
        let mut voters: BTreeSet<u64> = self.raft.voter_ids().collect();
        voters.remove(&dead.0);
        voters.insert(by.0);
        self.write(ChangeMembers::ReplaceAllVoters(voters), false).await?;
        Ok(by)
    }

    /// Waits until a learner has nearly everything.
    async fn caught_up(&self, member: MemberId) -> Result<(), MemberError> {
        if self.role_of(member)? != Role::Learner {
            return Err(MemberError::NotALearner { member });
        }
        let near = |metrics: &RaftMetrics<Types>| {
            let Some(replication) = &metrics.replication else { return true };
            let matched = replication.get(&member.0).copied().flatten().map_or(0, |id| id.index + 1);
            matched > 0 && matched + LAG_ENTRIES_MAX > metrics.last_log_index.unwrap_or(0)
        };
        let waited = self.raft.wait(Some(CATCH_UP_TIMEOUT)).metrics(near, "a learner to catch up").await;
        let metrics = waited.map_err(|_| MemberError::Behind { member })?;
        match metrics.replication {
            Some(_) => Ok(()),
            None => Err(MemberError::NotLeader { leader: metrics.current_leader.map(MemberId) }),
        }
    }

    pub async fn transfer(&self, to: MemberId) -> Result<MemberId, MemberError> {
        if self.role_of(to)? != Role::Voter {
            return Err(MemberError::NotAVoter { member: to });
        }
        if to == self.me {
            return Ok(to);
        }
        let begun = self.raft.trigger().transfer_leader(to.0).await;
        begun.map_err(|fatal| MemberError::from(super::forward::failed(fatal)))?;
        let leads = |metrics: &RaftMetrics<Types>| metrics.current_leader == Some(to.0);
        let waited = self.raft.wait(Some(TRANSFER_TIMEOUT)).metrics(leads, "another member to lead").await;
        waited.map(|_| to).map_err(|_| MemberError::NotTakenOver { member: to })
    }

    /// Is a change of the voters half done?
    pub fn is_joint(&self) -> bool {
        let metrics = self.raft.server_metrics();
        metrics.borrow_watched().membership_config.membership().get_joint_config().len() > 1
    }

    /// Ends a change that an earlier leader began.
    pub async fn finish_change(&self) -> Result<(), MemberError> {
        if self.is_joint() { self.write(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await } else { Ok(()) }
    }

    async fn write(&self, change: ChangeMembers<u64, Peer>, retain: bool) -> Result<(), MemberError> {
        match &change {
            ChangeMembers::AddNodes(_)
            | ChangeMembers::SetNodes(_)
            | ChangeMembers::RemoveNodes(_)
            | ChangeMembers::RemoveVoters(_) => {}
            // With voters more, or unknown here.
            _ => self.alone.end(),
        }
        let written = tokio::time::timeout(CHANGE_TIMEOUT, self.raft.change_membership(change, retain)).await;
        match written {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_)))) => {
                Err(MemberError::Failed(boxed(error)))
            }
            // Of two steps the first may have been made.
            Ok(Err(error)) => match WriteError::from(error) {
                WriteError::NotLeader { leader } if !self.is_joint() => Err(MemberError::NotLeader { leader }),
                error => Err(MemberError::Unknown(boxed(error))),
            },
            Err(_) => Err(MemberError::Unknown(boxed(Late))),
        }
    }
}
