//! A server that stands still for some seconds and goes on: whoever led before answers nothing stale, and what
//! it was about to write is written once or not at all.

use nix::sys::signal::Signal;
use servers::{Campaign, Fault, Scene, Storage};

const FAULTS: [Fault; 3] = [
    Fault { name: "SIGSTOP of the leader", happen: leader },
    Fault { name: "SIGSTOP of a follower", happen: follower },
    Fault { name: "SIGSTOP of all but one", happen: all_but_one },
];

#[test]
fn stopped_servers_go_on() {
    Campaign::run(Storage::Folder, &FAULTS);
}

fn leader(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    scene.servers.servers[leader].signal(Signal::SIGSTOP);
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    scene.wait_ms(0, 3000);
    // It still believes to lead, while readers and counters ask it.
    scene.servers.servers[leader].signal(Signal::SIGCONT);
    scene.wait_for_writes();
}

fn follower(scene: &mut Scene<'_>) {
    let follower = scene.any_follower();
    scene.servers.servers[follower].signal(Signal::SIGSTOP);
    scene.wait_for_writes();
    scene.wait_ms(0, 2000);
    scene.servers.servers[follower].signal(Signal::SIGCONT);
}

/// No majority: nothing is acknowledged, and nothing is promised that does not hold later.
fn all_but_one(scene: &mut Scene<'_>) {
    let one = scene.any();
    let others = scene.servers.others(&[one]);
    for index in &others {
        scene.servers.servers[*index].signal(Signal::SIGSTOP);
    }
    scene.wait_ms(500, 3000);
    for index in others {
        scene.servers.servers[index].signal(Signal::SIGCONT);
        scene.wait_ms(0, 500);
    }
}
