//! Members compare the hashes of their states in the background. Applying is deterministic, so a difference is a bug
//! or a broken machine. Who differs from a majority stops serving for good; the others raise an alarm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::type_config::async_runtime::WatchReceiver;

use super::message::{Request, Response};
use super::node::Core;
use crate::mvcc::StateHash;
use crate::types::{MemberId, Revision};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What an operator has to know about this cluster's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Alarm {
    #[default]
    None,
    /// These members have another state at this revision than this one, and no majority says which is right, or
    /// the majority is with this member.
    Diverged { members: Vec<MemberId>, revision: Revision },
    /// A majority has another state than this member, which serves nothing any more and has to be replaced.
    Quarantined { revision: Revision },
}

impl Alarm {
    pub(super) fn is_quarantine(&self) -> bool {
        match self {
            Self::Quarantined { .. } => true,
            Self::None | Self::Diverged { .. } => false,
        }
    }
}

/// The hash at the revision, or at the newest there is, if that is older.
pub(crate) type HashAt = Arc<dyn Fn(Revision) -> (Revision, Option<StateHash>) + Send + Sync>;

/// This member and all others at one revision. Those who do not answer have no hash.
fn judge(own: StateHash, others: &[(MemberId, Option<StateHash>)], revision: Revision) -> Alarm {
    let mut with: BTreeMap<StateHash, usize> = BTreeMap::from([(own, 1)]);
    for hash in others.iter().filter_map(|(_, hash)| *hash) {
        *with.entry(hash).or_default() += 1;
    }
    let members = others.len() + 1;
    if with.iter().any(|(hash, count)| *hash != own && count * 2 > members) {
        return Alarm::Quarantined { revision };
    }
    let differ = others.iter().filter(|(_, hash)| hash.is_some_and(|hash| hash != own));
    match differ.map(|(member, _)| *member).collect::<Vec<_>>() {
        members if members.is_empty() => Alarm::None,
        members => Alarm::Diverged { members, revision },
    }
}

/// Ends with raft.
pub(super) async fn audit(core: Arc<Core>, every: Duration) {
    let mut metrics = core.raft.server_metrics();
    loop {
        let ended = async { while metrics.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            () = ended => return,
            () = tokio::time::sleep(every) => {}
        }
        if core.alarm.borrow().is_quarantine() {
            step_aside(&core).await;
            continue;
        }
        let alarm = round(&core).await;
        if let Some(alarm) = alarm
            && core.alarm.send_if_modified(|before| {
                *before != alarm && {
                    *before = alarm.clone();
                    true
                }
            })
        {
            tracing::error!(?alarm, "the members' states were compared");
        }
    }
}

/// `None`: nothing could be compared.
async fn round(core: &Core) -> Option<Alarm> {
    let (revision, _) = (core.hash_at)(Revision(u64::MAX));
    let answers = ask(core, revision).await;
    // Some are behind. All are compared at one revision.
    let common = answers.iter().filter_map(|(_, answer)| answer.map(|(revision, _)| revision)).min()?.min(revision);
    let answers = if answers.iter().any(|(_, answer)| answer.is_some_and(|(at, _)| at != common)) {
        ask(core, common).await
    } else {
        answers
    };
    let (_, own) = (core.hash_at)(common);
    let others = answers.into_iter().map(|(member, answer)| {
        let hash = answer.filter(|(at, _)| *at == common).and_then(|(_, hash)| hash);
        (member, hash)
    });
    Some(judge(own?, &others.collect::<Vec<_>>(), common))
}

type Answered = (MemberId, Option<(Revision, Option<StateHash>)>);

async fn ask(core: &Core, revision: Revision) -> Vec<Answered> {
    let ids: Vec<u64> = {
        let metrics = core.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != core.me.0).collect()
    };
    join_all(ids.into_iter().map(|id| async move {
        let asked = core.caller.ask(MemberId(id), Request::StateHash { revision }, ANSWER_TIMEOUT).await;
        match asked {
            Ok(Response::StateHash { revision, hash }) => (MemberId(id), Some((revision, hash))),
            _ => (MemberId(id), None),
        }
    }))
    .await
}

/// A member in quarantine goes on writing its log, which is right, and leads nobody.
async fn step_aside(core: &Core) {
    core.raft.runtime_config().elect(false);
    if core.leader() != Some(core.me) {
        return;
    }
    for to in core.raft.voter_ids().filter(|id| *id != core.me.0).collect::<Vec<_>>() {
        if core.transfer(MemberId(to)).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Entry;

    fn hash(of: u8) -> StateHash {
        let mut hash = StateHash::default();
        let (create_revision, mod_revision) = (Revision(1), Revision(1));
        hash.add(&Entry { key: vec![of].into(), value: vec![].into(), create_revision, mod_revision, facets: () });
        hash
    }

    /// The first is this member; 0 is no answer.
    fn check(given: &[u8], expect: &str) {
        let others = (2..).zip(&given[1..]).map(|(id, of)| (MemberId(id), (*of > 0).then(|| hash(*of))));
        let alarm = match judge(hash(given[0]), &others.collect::<Vec<_>>(), Revision(9)) {
            Alarm::None => "none".to_owned(),
            Alarm::Diverged { members, .. } => format!("{:?}", members.iter().map(|id| id.0).collect::<Vec<_>>()),
            Alarm::Quarantined { .. } => "quarantined".to_owned(),
        };
        assert_eq!(alarm, expect, "{given:?}");
    }

    #[test]
    fn the_majority_is_right() {
        check(&[1], "none");
        check(&[1, 1, 1], "none");
        check(&[1, 0, 0], "none");
        check(&[1, 1, 2], "[3]");
        check(&[1, 2, 2], "quarantined");
        check(&[1, 2], "[2]");
        check(&[1, 2, 0], "[2]");
        check(&[1, 2, 3], "[2, 3]");
        check(&[1, 2, 2, 1, 0], "[2, 3]");
        check(&[1, 2, 2, 2, 1], "quarantined");
    }
}
