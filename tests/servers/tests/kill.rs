//! `kill -9` of one server, of the leader, of all: nothing acknowledged is lost, no watch skips, and somebody
//! else leads soon.

use std::time::Instant;

use servers::{Campaign, Fault, Scene, Storage};

const FAULTS: [Fault; 3] = [
    Fault { name: "kill -9 of a follower", happen: follower },
    Fault { name: "kill -9 of the leader", happen: leader },
    Fault { name: "kill -9 of all", happen: all },
];

#[test]
fn killed_servers_lose_nothing() {
    Campaign::run(Storage::Folder, &FAULTS);
}

fn follower(scene: &mut Scene<'_>) {
    let follower = scene.any_follower();
    scene.servers.servers[follower].kill();
    scene.wait_for_writes();
    scene.servers.start_server(follower, &[]);
}

fn leader(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    scene.probe_without(&[leader]);
    scene.wait_for_writes();
    let killed = Instant::now();
    scene.servers.servers[leader].kill();
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    scene.load.end_probe();
    scene.silence = Some(scene.load.silence_since(killed));
    scene.servers.start_server(leader, &[]);
}

fn all(scene: &mut Scene<'_>) {
    let all = scene.servers.running();
    for index in &all {
        scene.servers.servers[*index].kill();
        scene.wait_ms(0, 30);
    }
    for index in &all {
        scene.servers.spawn(*index, &[]);
    }
    for index in all {
        scene.servers.wait_up(index);
    }
}
