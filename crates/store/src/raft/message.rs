//! What members say to each other, and its bytes: a version, then postcard. The forms are our own, as those on the
//! disk are, so that an openraft upgrade cannot make members misunderstand each other.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::types::{StoredLogId, StoredVote, Types, decode_entry, encode_entry, from_bytes};
use crate::mvcc::StateHash;
use crate::txn::Txn;
use crate::types::{MemberId, Revision};

/// The first byte of every request and answer. A member refuses what it does not know.
pub(super) const WIRE_VERSION: u8 = 2;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// An address may have a new owner: whoever is not meant refuses.
    pub to: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Append(Append),
    Vote(Ballot),
    PreVote(Ballot),
    Chunk(Chunk),
    /// The snapshot sent in chunks is complete: install it.
    Install {
        transfer: u64,
        vote: StoredVote,
        length: u64,
        crc: u32,
    },
    TransferLeader {
        from: StoredVote,
        to: u64,
        last: Option<StoredLogId>,
    },
    /// Transactions of several proposers; each is done or not for itself.
    Propose(Vec<Txn>),
    /// Up to where must be applied what is read after this?
    ReadIndex,
    Change(MemberChange),
    /// The sender's own addresses.
    Announce {
        addresses: Vec<String>,
    },
    /// The hash of the state at this revision, or at the newest the other has, if that is older.
    StateHash {
        revision: Revision,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Append {
    pub vote: StoredVote,
    pub previous: Option<StoredLogId>,
    pub committed: Option<StoredLogId>,
    pub entries: Vec<Bytes>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ballot {
    pub vote: StoredVote,
    pub last: Option<StoredLogId>,
    pub leadership_transfer: bool,
}

/// A piece of a snapshot file. The one at offset 0 begins a transfer and ends any other of the same sender.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub transfer: u64,
    pub offset: u64,
    pub crc: u32,
    pub bytes: Bytes,
}

/// A change of who is a member, made by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MemberChange {
    Reserve,
    AddLearner { member: MemberId, addresses: Vec<String> },
    Promote { member: MemberId },
    Remove { member: MemberId },
    ReplaceDead { dead: MemberId, by: MemberId },
    SetAddresses { member: MemberId, addresses: Vec<String> },
    TransferLeader { to: MemberId },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    Append(AppendAnswer),
    Vote(BallotAnswer),
    /// Bytes of the transfer that are there now; the sender goes on from here or begins anew.
    Chunk {
        received: u64,
    },
    Installed {
        vote: StoredVote,
    },
    TransferLeader(TransferAnswer),
    /// An answer for each transaction, in their order.
    Proposed(Vec<Result<Proposed, Refusal>>),
    ReadIndex {
        index: u64,
    },
    /// The id is a reserved one, or that of the member that was changed.
    Changed {
        member: MemberId,
    },
    /// What members said about themselves.
    Announced(BTreeMap<u64, Vec<String>>),
    StateHash {
        revision: Revision,
        hash: Option<StateHash>,
    },
    Refused(Refusal),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    Success,
    Partial(Option<StoredLogId>),
    Conflict,
    HigherVote(StoredVote),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BallotAnswer {
    pub vote: StoredVote,
    pub granted: bool,
    pub last: Option<StoredLogId>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TransferAnswer {
    Begun,
    VoteChanged { expected: StoredVote, actual: StoredVote },
    LogNotFlushed { expected: Option<StoredLogId>, actual: Option<StoredLogId> },
}

/// A proposal made for another member was applied.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proposed {
    pub index: u64,
    pub outcome: Bytes,
}

/// Why a member did not do what it was asked. All but `Unknown` are certain: nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(super) enum Refusal {
    #[error("it is member {is}")]
    WrongMember { is: u64 },
    #[error("it does not understand the request")]
    NotUnderstood,
    #[error("it does not lead")]
    NotLeader { leader: Option<MemberId> },
    #[error("no majority confirms that it leads")]
    NoMajority,
    #[error("its state differs from that of the majority")]
    Quarantined,
    #[error("it failed or was stopped: {why}")]
    Failed { why: String },
    #[error("there is no member {member}")]
    NotAMember { member: MemberId },
    #[error("{why}")]
    Change { why: String },
    /// Whether a proposal will be applied is not known.
    #[error("it cannot tell what becomes of the proposal: {why}")]
    Unknown { why: String },
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(super) fn encode(message: &impl Serialize) -> io::Result<Bytes> {
    Ok(postcard::to_extend(message, vec![WIRE_VERSION]).map_err(invalid)?.into())
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    match bytes.split_first() {
        Some((&WIRE_VERSION, message)) => from_bytes(message),
        Some((version, _)) => Err(invalid(format!("a message of version {version}, this is {WIRE_VERSION}"))),
        None => Err(invalid("an empty message")),
    }
}

impl TryFrom<&AppendEntriesRequest<Types>> for Append {
    type Error = io::Error;

    fn try_from(request: &AppendEntriesRequest<Types>) -> io::Result<Self> {
        Ok(Self {
            vote: (&request.vote).into(),
            previous: request.prev_log_id.map(Into::into),
            committed: request.leader_commit.map(Into::into),
            entries: request
                .entries
                .iter()
                .map(|entry| encode_entry(entry).map(Bytes::from))
                .collect::<io::Result<_>>()?,
        })
    }
}

impl TryFrom<Append> for AppendEntriesRequest<Types> {
    type Error = io::Error;

    fn try_from(append: Append) -> io::Result<Self> {
        Ok(Self {
            vote: append.vote.into(),
            prev_log_id: append.previous.map(Into::into),
            leader_commit: append.committed.map(Into::into),
            entries: append.entries.iter().map(|entry| decode_entry(entry)).collect::<io::Result<_>>()?,
        })
    }
}

impl From<AppendEntriesResponse<Types>> for AppendAnswer {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(upto) => Self::Partial(upto.map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote((&vote).into()),
        }
    }
}

impl From<AppendAnswer> for AppendEntriesResponse<Types> {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Success => Self::Success,
            AppendAnswer::Partial(upto) => Self::PartialSuccess(upto.map(Into::into)),
            AppendAnswer::Conflict => Self::Conflict,
            AppendAnswer::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<&VoteRequest<Types>> for Ballot {
    fn from(request: &VoteRequest<Types>) -> Self {
        let VoteRequest { vote, last_log_id, leadership_transfer } = request;
        Self { vote: vote.into(), last: last_log_id.map(Into::into), leadership_transfer: *leadership_transfer }
    }
}

impl From<Ballot> for VoteRequest<Types> {
    fn from(Ballot { vote, last, leadership_transfer }: Ballot) -> Self {
        Self { vote: vote.into(), last_log_id: last.map(Into::into), leadership_transfer }
    }
}

impl From<VoteResponse<Types>> for BallotAnswer {
    fn from(response: VoteResponse<Types>) -> Self {
        let VoteResponse { vote, vote_granted, last_log_id } = response;
        Self { vote: (&vote).into(), granted: vote_granted, last: last_log_id.map(Into::into) }
    }
}

impl From<BallotAnswer> for VoteResponse<Types> {
    fn from(BallotAnswer { vote, granted, last }: BallotAnswer) -> Self {
        Self { vote: vote.into(), vote_granted: granted, last_log_id: last.map(Into::into) }
    }
}

impl From<&TransferLeaderRequest<Types>> for Request {
    fn from(request: &TransferLeaderRequest<Types>) -> Self {
        Self::TransferLeader {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(|id| (*id).into()),
        }
    }
}

impl From<TransferLeaderResponse<Types>> for TransferAnswer {
    fn from(response: TransferLeaderResponse<Types>) -> Self {
        match response {
            Ok(()) => Self::Begun,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::VoteChanged { expected: (&expected).into(), actual: (&actual).into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Self::LogNotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        }
    }
}

impl From<TransferAnswer> for TransferLeaderResponse<Types> {
    fn from(answer: TransferAnswer) -> Self {
        match answer {
            TransferAnswer::Begun => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferAnswer::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(Into::into),
                actual: actual.map(Into::into),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::vote::RaftLeaderIdExt;

    use super::super::types::{Command, Entry, LogId, Vote};
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId::new_committed(4, 2), index)
    }

    fn through<T: Serialize + for<'a> Deserialize<'a>>(message: &T) -> T {
        decode(&encode(message).unwrap()).unwrap()
    }

    #[test]
    fn openrafts_messages_come_back() {
        let entries = (5..8).map(|index| Entry::new(id(index), openraft::EntryPayload::Normal(Command::ReserveMember)));
        let append = AppendEntriesRequest::<Types> {
            vote: Vote::new_committed(4, 2),
            prev_log_id: Some(id(4)),
            entries: entries.collect(),
            leader_commit: None,
        };
        let back: AppendEntriesRequest<Types> = through(&Append::try_from(&append).unwrap()).try_into().unwrap();
        assert_eq!(format!("{back:?}"), format!("{append:?}"));
        for answer in [
            AppendEntriesResponse::<Types>::Success,
            AppendEntriesResponse::PartialSuccess(Some(id(3))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(Vote::new(9, 1)),
        ] {
            assert_eq!(AppendEntriesResponse::from(through(&AppendAnswer::from(answer.clone()))), answer);
        }
        let vote = VoteRequest::<Types> { vote: Vote::new(5, 3), last_log_id: Some(id(7)), leadership_transfer: true };
        assert_eq!(VoteRequest::from(through(&Ballot::from(&vote))), vote);
        let answer = VoteResponse::<Types>::new(Vote::new(5, 3), Some(id(7)), true);
        assert_eq!(VoteResponse::from(through(&BallotAnswer::from(answer.clone()))), answer);
        let (expected, actual) = (Vote::new(5, 3), Vote::new(6, 1));
        let refused: TransferLeaderResponse<Types> = Err(TransferLeaderError::VoteChanged { expected, actual });
        assert_eq!(TransferLeaderResponse::<Types>::from(through(&TransferAnswer::from(refused.clone()))), refused);
    }

    #[test]
    fn another_version_and_noise_are_refused() {
        let mut bytes = encode(&Envelope { to: 1, request: Request::ReadIndex }).unwrap().to_vec();
        assert_eq!(decode::<Envelope>(&bytes).unwrap().to, 1);
        bytes[0] = WIRE_VERSION + 1;
        assert!(decode::<Envelope>(&bytes).unwrap_err().to_string().contains("version 3"));
        assert!(decode::<Envelope>(&[]).is_err());
        for length in 1..bytes.len() {
            bytes[0] = WIRE_VERSION;
            assert!(decode::<Envelope>(&bytes[..length]).is_err());
        }
    }
}
