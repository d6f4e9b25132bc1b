//! One run: a cluster is founded, clients and faults have their time, then everything is healed and the state of
//! each member is noted. Nothing is judged here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use store::{MemberId, Role, seed_randomness};
use tokio::sync::mpsc;

use crate::chance::Chance;
use crate::client::Client;
use crate::disk::DiskFault;
use crate::operator::{operate, replace_gone};
use crate::plan::{Fault, Plan};
use crate::record::{Belief, Final, Record};
use crate::world::{Down, World};

/// Membership changes waiting for the operator; more are left out.
const JOBS_MAX: usize = 4;
/// A healed cluster serves again within this time. A change of the membership that is stuck takes a while to give up.
const HEAL_TIMEOUT: Duration = Duration::from_secs(400);

pub fn run(seed: u64, plan: Plan) -> Record {
    seed_randomness(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    let record = runtime.block_on(async {
        let world = World::new(plan, Chance::new(seed));
        play(&world).await;
        world.recorder.record().clone()
    });
    drop(runtime);
    record
}

async fn play(world: &World) {
    if let Err(what) = gather(world).await {
        world.recorder.fail(format!("the cluster did not come to be: {what}"));
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let values = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..world.plan.clients)
        .map(|number| tokio::spawn(Client::new(number, world.clone(), stop.clone(), values.clone()).run()))
        .collect();
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    let operator = tokio::spawn(operate(world.clone(), inbox));
    let observer = tokio::spawn(observe(world.clone()));
    if tokio::time::timeout(world.plan.duration, trouble(world, jobs)).await.is_ok() {
        tokio::time::sleep(world.plan.duration).await;
    }
    world.event("everything is healed".to_owned());
    world.network.heal();
    world.start_all().await;
    let healed = tokio::time::timeout(HEAL_TIMEOUT, async {
        drop(operator.await);
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.start_all().await;
        replace_gone(world).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            drop(client.await);
        }
        settle(world).await;
    });
    if healed.await.is_err() {
        world.recorder.fail("the healed cluster does not serve".to_owned());
    }
    observer.abort();
    world.shut_down().await;
}

async fn gather(world: &World) -> Result<(), String> {
    world.found(1).await;
    let founder = world.store(1).ok_or("the founder did not start")?;
    founder.set_addresses(MemberId(1), vec!["member-1".to_owned()]).await.map_err(|error| format!("{error:?}"))?;
    for _ in 1..world.plan.members {
        let id = founder.reserve_member().await.map_err(|error| format!("{error:?}"))?;
        world.found(id.0).await;
        let added = founder.add_learner(id, vec![format!("member-{id}")]).await;
        added.map_err(|error| format!("{error:?}"))?;
        founder.promote(id).await.map_err(|error| format!("{error:?}"))?;
    }
    Ok(())
}

/// Faults one after another, until the time is over.
async fn trouble(world: &World, jobs: mpsc::Sender<Fault>) {
    if world.plan.faults.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(world.draw(|chance| chance.millis(50, world.plan.calm_ms_max))).await;
        let Some(fault) = world.draw(|chance| chance.pick(&world.plan.faults).copied()) else { return };
        let ids = world.ids();
        let Some(id) = world.draw(|chance| chance.pick(&ids).copied()) else { continue };
        world.event(format!("{fault:?}"));
        match fault {
            Fault::Kill => go_down(world, id, Down::Kill),
            Fault::PowerCut => go_down(world, id, Down::PowerCut),
            Fault::PowerCutOfAll => ids.iter().for_each(|id| go_down(world, *id, Down::PowerCut)),
            Fault::FailedSync => world.set_fault(id, DiskFault::FailedSync),
            Fault::FullDisk => world.set_fault(id, DiskFault::Full),
            Fault::CorruptPage => corrupt(world, id),
            Fault::Partition => part(world, &ids, true),
            Fault::OneWayPartition => part(world, &ids, false),
            Fault::BadWeather => bad_weather(world),
            Fault::TransferLeader | Fault::AddMember | Fault::RemoveMember | Fault::ReplaceDead => {
                // More than the operator can do is left out.
                let _ = jobs.try_send(fault);
            }
        }
    }
}

fn go_down(world: &World, id: u64, how: Down) {
    if world.store(id).is_some() {
        world.take_down(id, how);
        world.restart_later(id);
    }
}

/// One disk at a time: what is damaged everywhere is lost.
fn corrupt(world: &World, id: u64) {
    let nobody_is_gone = world.gone.lock().is_ok_and(|gone| gone.is_empty());
    if nobody_is_gone && world.up().len() == world.ids().len() {
        world.take_down(id, Down::Kill);
        world.corrupt(id);
        world.restart_later(id);
    }
}

fn part(world: &World, ids: &[u64], both_ways: bool) {
    let here: Vec<u64> = ids.iter().copied().filter(|_| world.draw(|chance| chance.per_mille(400))).collect();
    for &from in &here {
        for &to in ids.iter().filter(|to| !here.contains(to)) {
            world.network.cut(from, to);
            if both_ways {
                world.network.cut(to, from);
            }
        }
    }
    heal_later(world);
}

fn bad_weather(world: &World) {
    let (lost, delay) = world.draw(|chance| (chance.below(200), chance.between(3, 150)));
    world.network.set_weather(lost, delay);
    heal_later(world);
}

fn heal_later(world: &World) {
    let (world, pause) = (world.clone(), world.draw(|chance| chance.millis(200, 4000)));
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        world.network.heal();
    });
}

/// Notes what each member believes about leadership.
async fn observe(world: World) {
    loop {
        tokio::time::sleep(Duration::from_millis(40)).await;
        for (member, incarnation, store) in world.up() {
            let members = store.members();
            let (term, leader) = (members.term, members.leader.map(|leader| leader.0));
            let belief = Belief { member, incarnation, term, leader, applied: members.applied_end };
            world.recorder.record().beliefs.push(belief);
        }
    }
}

/// Waits until every member has everything, and notes what that is.
async fn settle(world: &World) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Some((_, leader)) = world.leader() else { continue };
        let members: Vec<u64> = leader.members().members.iter().map(|member| member.id.0).collect();
        let up: Vec<_> = world.up().into_iter().filter(|(id, ..)| members.contains(id)).collect();
        if up.len() != members.len() {
            continue;
        }
        let mut finals = Vec::new();
        for (member, _, store) in &up {
            if store.linearize().await.is_ok() {
                finals.push(last(*member, store));
            }
        }
        if finals.len() == up.len() {
            world.recorder.record().finals = finals;
            return;
        }
    }
}

fn last(member: u64, store: &store::Store<()>) -> Final {
    let view = store.view();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entries = view
        .range(b"", None)
        .map(|entry| (text(&entry.key), (text(&entry.value), entry.create_revision.0, entry.mod_revision.0)));
    let members = store.members().members;
    let membership = members.iter().map(|member| (member.id.0, member.role == Role::Voter)).collect();
    Final { member, revision: view.revision().0, membership, entries: entries.collect() }
}
