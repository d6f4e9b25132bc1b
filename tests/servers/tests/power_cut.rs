//! Servers whose disk stops at once, as in a power cut: what was acknowledged is there when the power is back,
//! and each starts without help.

use std::time::Duration;

use servers::{Campaign, Fault, Scene, Storage};

/// A server that writes notices a dead disk sooner than this.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

const FAULTS: [Fault; 4] = [
    Fault { name: "power cut of a follower", happen: follower },
    Fault { name: "power cut of the leader", happen: leader },
    Fault { name: "power cut of all", happen: all },
    Fault { name: "dead disk of the leader", happen: dead_disk },
];

#[test]
fn power_cuts_lose_nothing() {
    Campaign::run(Storage::Disk, &FAULTS);
}

fn cut(scene: &mut Scene<'_>, index: usize) {
    scene.servers.servers[index].cut_power();
    scene.servers.servers[index].kill();
}

fn restore(scene: &mut Scene<'_>, index: usize) {
    scene.servers.servers[index].restore_power();
    scene.servers.start_server(index, &[]);
}

fn follower(scene: &mut Scene<'_>) {
    let follower = scene.any_follower();
    cut(scene, follower);
    scene.wait_for_writes();
    restore(scene, follower);
}

fn leader(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    cut(scene, leader);
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    restore(scene, leader);
}

fn all(scene: &mut Scene<'_>) {
    let all = scene.servers.running();
    for index in &all {
        scene.servers.servers[*index].cut_power();
    }
    for index in &all {
        scene.servers.servers[*index].kill();
    }
    for index in &all {
        scene.servers.servers[*index].restore_power();
        scene.servers.spawn(*index, &[]);
    }
    for index in all {
        scene.servers.wait_up(index);
    }
}

/// A process whose disk answers errors must end instead of going on with what it has in memory.
fn dead_disk(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    scene.servers.servers[leader].cut_power();
    assert!(scene.servers.servers[leader].ends_within(NOTICED_WITHIN), "a server goes on without a disk");
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    restore(scene, leader);
}
