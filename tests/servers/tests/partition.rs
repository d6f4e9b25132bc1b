//! Servers that cannot reach each other while clients reach all of them.

use servers::{Campaign, Fault, Scene, Storage};

const FAULTS: [Fault; 5] = [
    Fault { name: "leader cut off", happen: leader_cut_off },
    Fault { name: "leader hears nobody", happen: leader_deaf },
    Fault { name: "nobody hears the leader", happen: leader_unheard },
    Fault { name: "all cut off from each other", happen: all_apart },
    Fault { name: "leader's cable pulled", happen: leader_unplugged },
];

#[test]
fn partitions_lose_nothing() {
    Campaign::run(Storage::Folder, &FAULTS);
}

fn leader_cut_off(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    let others = scene.servers.others(&[leader]);
    scene.servers.part(&[leader], &others);
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    scene.wait_ms(0, 2000);
}

/// It goes on to send, and others must not believe for long that it leads.
fn leader_deaf(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    scene.servers.deafen(&[leader], &scene.servers.others(&[leader]));
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    scene.wait_ms(0, 2000);
}

fn leader_unheard(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    scene.servers.deafen(&scene.servers.others(&[leader]), &[leader]);
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    scene.wait_ms(0, 2000);
}

fn all_apart(scene: &mut Scene<'_>) {
    for index in scene.servers.running() {
        scene.servers.part(&[index], &scene.servers.others(&[index]));
    }
    scene.wait_ms(1500, 4000);
}

fn leader_unplugged(scene: &mut Scene<'_>) {
    let leader = scene.servers.leader();
    scene.servers.unplug(leader);
    scene.wait_for_another_leader(&[leader]);
    scene.wait_for_writes();
    scene.wait_ms(0, 2000);
}
