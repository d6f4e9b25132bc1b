//! Servers whose disk stops at once, as in a power cut: what was acknowledged is there when the power is back,
//! and each starts without help.

use std::time::Duration;

use nix::sys::signal::Signal;
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

/// The power of these servers goes, at once.
fn cut(scene: &mut Scene<'_>, indexes: &[usize]) {
    // A machine without power says nothing more. A process would: ext4 that is shut down lets an fsync that is on its
    // way succeed although nothing was written, and what that acknowledged is lost by no fault of the server.
    for index in indexes {
        scene.servers.servers[*index].signal(Signal::SIGSTOP);
    }
    for index in indexes {
        scene.servers.servers[*index].cut_power();
    }
    for index in indexes {
        scene.servers.servers[*index].kill();
    }
}

fn restore(scene: &mut Scene<'_>, index: usize) {
    scene.servers.servers[index].restore_power();
    scene.servers.start_server(index, &[]);
}

fn follower(scene: &mut Scene<'_>) {
    let follower = scene.any_follower();
    cut(scene, &[follower]);
    scene.wait_for_writes();
    restore(scene, follower);
}

fn leader(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    cut(scene, &[leader]);
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    restore(scene, leader);
}

fn all(scene: &mut Scene<'_>) {
    let all = scene.servers.running();
    cut(scene, &all);
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
