//! Whoever changes the membership: one change after another, tried until it is made where a member is gone.

use std::time::Duration;

use store::{MemberId, Role, Store};
use tokio::sync::mpsc;

use crate::plan::Fault;
use crate::world::World;

const PATIENCE: u32 = 200;

pub async fn operate(world: World, mut jobs: mpsc::Receiver<Fault>) {
    while let Some(job) = jobs.recv().await {
        let done = match job {
            Fault::TransferLeader => transfer(&world).await,
            Fault::AddMember => add(&world).await.is_some(),
            Fault::RemoveMember => remove(&world).await,
            Fault::ReplaceDead => retire_and_replace(&world).await,
            _ => continue,
        };
        world.event(format!("{job:?}: {done}"));
    }
}

fn voters(store: &Store<()>) -> Vec<u64> {
    store.members().members.iter().filter(|member| member.role == Role::Voter).map(|member| member.id.0).collect()
}

async fn transfer(world: &World) -> bool {
    let Some((_, store)) = world.leader() else { return false };
    let voters = voters(&store);
    let Some(to) = world.draw(|chance| chance.pick(&voters).copied()) else { return false };
    store.transfer_leadership(MemberId(to)).await.is_ok()
}

/// A new machine under a new id, brought up to a voter.
async fn add(world: &World) -> Option<u64> {
    let id = join(world).await?;
    for _ in 0..5 {
        if let Some((_, store)) = world.leader()
            && store.promote(MemberId(id)).await.is_ok()
        {
            return Some(id);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    None
}

async fn join(world: &World) -> Option<u64> {
    let (_, store) = world.leader()?;
    let id = store.reserve_member().await.ok()?;
    world.found(id.0).await;
    for _ in 0..5 {
        if let Some((_, store)) = world.leader()
            && store.add_learner(id, vec![format!("member-{id}")]).await.is_ok()
        {
            return Some(id.0);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    None
}

async fn remove(world: &World) -> bool {
    let Some((_, store)) = world.leader() else { return false };
    let voters = voters(&store);
    if voters.len() <= 3 {
        return false;
    }
    let Some(id) = world.draw(|chance| chance.pick(&voters).copied()) else { return false };
    let removed = store.remove_member(MemberId(id)).await.is_ok();
    if removed {
        world.retire(id);
    }
    removed
}

async fn retire_and_replace(world: &World) -> bool {
    let waiting = world.gone.lock().map(|gone| gone.len()).unwrap_or_default();
    let Some((_, store)) = world.leader() else { return false };
    if waiting == 0 {
        let voters = voters(&store);
        let up: Vec<u64> = world.up().into_iter().map(|(id, ..)| id).filter(|id| voters.contains(id)).collect();
        // Only where a majority is left.
        if up.len() != voters.len() || voters.len() < 3 {
            return false;
        }
        let Some(id) = world.draw(|chance| chance.pick(&up).copied()) else { return false };
        drop(store);
        world.retire(id);
        if let Ok(mut gone) = world.gone.lock() {
            gone.push(id);
        }
    }
    replace_gone(world).await
}

/// Puts a new member in the place of each that is gone.
pub async fn replace_gone(world: &World) -> bool {
    let mut fresh = None;
    for _ in 0..PATIENCE {
        let Some(dead) = world.gone.lock().ok().and_then(|gone| gone.first().copied()) else { return true };
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Some((_, store)) = world.leader() else { continue };
        let members = store.members();
        let is_member = members.members.iter().any(|member| member.id.0 == dead);
        let votes = voters(&store).contains(&dead);
        let done = if votes {
            if fresh.is_none() {
                fresh = join(world).await;
            }
            match fresh {
                Some(by) => store.replace_dead(MemberId(dead), MemberId(by)).await.is_ok(),
                None => false,
            }
        } else if is_member {
            store.remove_member(MemberId(dead)).await.is_ok()
        } else {
            true
        };
        if done {
            fresh = None;
            if let Ok(mut gone) = world.gone.lock() {
                gone.retain(|id| *id != dead);
            }
        }
    }
    false
}
