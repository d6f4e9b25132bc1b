//! What a member does by itself: says whether it leads, ends the process when raft has died, takes snapshots when
//! the log has grown, and sees to it that everybody knows where everybody is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use openraft::Raft;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::async_runtime::WatchReceiver;
use tokio::sync::watch;

use super::address_book::AddressBook;
use super::log_store::{Alone, Growth};
use super::message::{MemberChange, Request, Response};
use super::node::Core;
use super::state_machine::StateMachine;
use super::types::Types;
use crate::config::FatalHook;
use crate::types::MemberId;

/// How often a member whose addresses are not agreed on yet says them again.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Publishes whether this member leads, and ends the process when raft has ended and nobody asked it to: it may have
/// failed, or panicked, which it can tell nobody.
pub(super) fn watch_over(
    raft: &Raft<Types, StateMachine>,
    book: &Arc<AddressBook>,
    alone: Alone,
    end: (Arc<AtomicBool>, FatalHook),
) -> watch::Receiver<bool> {
    // These metrics change with leadership and membership, not with every write, and end with raft.
    let mut metrics = raft.server_metrics();
    let health = raft.metrics();
    let (leading, leadership) = watch::channel(false);
    let overseer = Overseer { raft: raft.clone(), book: book.clone(), alone, leading };
    overseer.see(&metrics.borrow_and_update());
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            overseer.see(&metrics.borrow_and_update());
        }
        overseer.leading.send_replace(false);
        let (stopping, fatal) = end;
        if !stopping.load(Ordering::Acquire) {
            let state = health.borrow_watched().running_state.clone();
            let why = state.err().map_or_else(|| "it panicked".to_owned(), |error| error.to_string());
            fatal.call(&format!("raft ended: {why}"));
        }
    });
    leadership
}

struct Overseer {
    raft: Raft<Types, StateMachine>,
    book: Arc<AddressBook>,
    alone: Alone,
    leading: watch::Sender<bool>,
}

impl Overseer {
    fn see(&self, metrics: &RaftServerMetrics<Types>) {
        let id = metrics.id;
        let leads = metrics.current_leader == Some(id);
        self.leading.send_if_modified(|before| std::mem::replace(before, leads) != leads);
        let members = metrics.membership_config.membership();
        self.book.agree(&members.nodes().map(|(id, peer)| (*id, peer.addresses.clone())).collect());
        let is_alone = members.nodes().map(|(id, _)| *id).eq([id]) && members.voter_ids().eq([id]);
        let agreed = metrics.membership_config.log_id() == metrics.committed_membership_config.log_id();
        let since = metrics.membership_config.log_id().map(|id| id.index);
        self.alone.confirm(since.filter(|_| is_alone && agreed));
        // Nobody to send heartbeats to and nobody to be deposed by: an idle lone member sleeps.
        self.raft.runtime_config().tick(!(is_alone && leads));
    }
}

/// Entries purged in one go, so that purging does not cost each entry an fsync.
const PURGE_BATCH_MAX: u64 = 256;

pub(super) async fn snapshot_when_due(raft: Raft<Types, StateMachine>, growth: Arc<Growth>) {
    loop {
        growth.due.notified().await;
        // Begins anew at once, so that a log that keeps growing meanwhile does not ask again.
        growth.bytes.store(0, Ordering::Relaxed);
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Purges what a snapshot holds, but for some entries that members which are a little behind may still want. Whatever
/// is asked for twice, or was asked for further, raft leaves as it is. Ends with raft.
pub(super) async fn purge_behind_snapshots(raft: Raft<Types, StateMachine>, log_entries_kept: u64) {
    let batch = log_entries_kept.clamp(1, PURGE_BATCH_MAX);
    let mut metrics = raft.data_metrics();
    loop {
        let (snapshot_end, purged_end) = {
            let seen = metrics.borrow_watched();
            let end = |index: Option<u64>| index.map_or(0, |index| index + 1);
            (end(seen.snapshot.as_ref().map(|id| id.index)), end(seen.purged.as_ref().map(|id| id.index)))
        };
        let wanted_end = snapshot_end.saturating_sub(log_entries_kept);
        if wanted_end >= purged_end + batch && raft.trigger().purge_log(wanted_end - 1).await.is_err() {
            return;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the others where this member is, for as long as the cluster believes something else; as the leader,
/// brings what members said about themselves into the membership, and ends a change of it that was interrupted.
/// Ends with raft.
pub(super) async fn keep_members(core: Arc<Core>, advertise: Vec<String>) {
    let mut metrics = core.raft.server_metrics();
    loop {
        metrics.borrow_and_update();
        let open = if core.leader() == Some(core.me) {
            lead(&core, &advertise).await
        } else {
            follow(&core, &advertise).await
        };
        let again = if open { ANNOUNCE_EVERY } else { Duration::MAX };
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            () = core.news.notified() => {}
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// True when something is left to do.
async fn lead(core: &Core, advertise: &[String]) -> bool {
    // A change that is being made is none that was interrupted.
    let unfinished = match core.changes.try_lock() {
        Ok(_one) => core.finish_change().await.is_err(),
        Err(_) => false,
    };
    if unfinished {
        return true;
    }
    let mut moved: BTreeMap<u64, Vec<String>> = core.caller.book.announced();
    if !advertise.is_empty() {
        moved.insert(core.me.0, advertise.to_vec());
    }
    let mut open = false;
    for (id, addresses) in moved {
        let member = MemberId(id);
        if core.caller.book.agreed(member).is_some_and(|agreed| agreed != addresses) {
            let changed = core.change_here(MemberChange::SetAddresses { member, addresses }).await;
            open |= changed.is_err();
        }
    }
    open
}

async fn follow(core: &Core, advertise: &[String]) -> bool {
    let book = &core.caller.book;
    if advertise.is_empty() || book.agreed(core.me).is_some_and(|agreed| agreed == advertise) {
        return false;
    }
    let others = book.members().into_iter().filter(|member| *member != core.me);
    let told = others.map(|member| {
        let request = Request::Announce { addresses: advertise.to_vec() };
        core.caller.ask(member, request, ANNOUNCE_TIMEOUT)
    });
    for answer in join_all(told).await {
        if let Ok(Response::Announced(announced)) = answer {
            for (id, addresses) in announced {
                book.announce(MemberId(id), &addresses);
            }
        }
    }
    true
}
