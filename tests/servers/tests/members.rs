//! Changes of who the servers are and where they are, as a person makes them.

use std::net::Ipv4Addr;

use e2e::eventually;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use servers::{Servers, Storage};

#[test]
fn servers_come_go_and_move() {
    let Some(mut servers) = Servers::start(3, Storage::Folder) else { return };
    write(&servers, 0, "before");
    another_leads(&servers);
    one_that_stops_hands_over(&mut servers);
    a_dead_one_is_replaced(&mut servers);
    one_is_removed(&mut servers);
    all_move_at_once(&mut servers);
    for index in servers.running() {
        read(&servers, index, "before");
    }
}

fn api(servers: &Servers, index: usize) -> Api<ConfigMap> {
    Api::default_namespaced(servers.client(index))
}

fn write(servers: &Servers, index: usize, name: &str) {
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("it is a ConfigMap");
    let api = api(servers, index);
    eventually("a write is acknowledged", || {
        servers.runtime.block_on(api.create(&PostParams::default(), &object)).map(drop)
    });
}

fn read(servers: &Servers, index: usize, name: &str) {
    let api = api(servers, index);
    eventually(&format!("server {index} answers {name}"), || servers.runtime.block_on(api.get(name)).map(drop));
}

fn ids(servers: &Servers, index: usize) -> Vec<u64> {
    let seen = servers.membership(index).expect("a server that is up answers");
    seen.members.into_iter().map(|(id, _)| id).collect()
}

fn one_that_stops_hands_over(servers: &mut Servers) {
    for _ in 0..3 {
        let leader = servers.leader();
        servers.servers[leader].stop();
        // There is no moment without a leader: when the process has ended, another one leads already.
        let others = servers.others(&[leader]);
        assert!(servers.leader_among(&others).is_some_and(|next| next != leader), "nobody took over");
        servers.start_server(leader, &[]);
        servers.wait_well();
    }
}

fn another_leads(servers: &Servers) {
    let leader = servers.leader();
    for next in servers.others(&[leader]) {
        let id = servers.id(next).to_string();
        // Whoever is asked passes it on.
        let asked = servers.others(&[next])[0];
        servers.knarr(asked, &["member", "lead", &id]).ok();
        eventually("the chosen one leads", || if servers.leader() == next { Ok(()) } else { Err("another leads") });
        servers.wait_well();
    }
    let said = servers.knarr(0, &["member", "lead", "99"]).refused();
    assert!(said.contains("99"), "{said}");
}

fn a_dead_one_is_replaced(servers: &mut Servers) {
    let dead = servers.others(&[servers.leader()])[1];
    let id = servers.id(dead);
    servers.servers[dead].kill();
    servers.servers[dead].wipe();
    servers.join(dead, &["--replace", &id.to_string()]);
    servers.wait_well();
    let ids = ids(servers, 0);
    assert_eq!((ids.len(), ids.contains(&id), ids.contains(&4)), (3, false, true), "{ids:?}");
    read(servers, dead, "before");
}

fn one_is_removed(servers: &mut Servers) {
    let removed = servers.others(&[servers.leader()])[0];
    let asked = servers.others(&[removed])[0];
    let id = servers.id(removed);
    servers.knarr(asked, &["member", "remove", &id.to_string()]).ok();
    let ids = ids(servers, asked);
    assert_eq!((ids.len(), ids.contains(&id)), (2, false), "{ids:?}");
    let said = servers.knarr(asked, &["member", "remove", &id.to_string()]).refused();
    let says = [format!("there is no member {id}"), format!("members \"{id}\" not found")];
    assert!(says.iter().any(|text| said.contains(text)), "{said}");
    assert!(!said.contains("Status {"), "one sentence for people: {said}");
    servers.servers[removed].kill();
    servers.servers[removed].wipe();
    write(servers, asked, "without");
    servers.join(removed, &[]);
    servers.wait_well();
    assert_eq!(self::ids(servers, asked).len(), 3);
    read(servers, removed, "without");
}

/// Nobody is where the cluster believes; it is enough that each is told of one other.
fn all_move_at_once(servers: &mut Servers) {
    let ids: Vec<u64> = servers.running().into_iter().map(|index| servers.id(index)).collect();
    for index in servers.running() {
        servers.servers[index].stop();
    }
    for index in 0..ids.len() {
        servers.move_server(index, Ipv4Addr::new(10, 77, 0, 101 + u8::try_from(index).expect("three servers")));
    }
    let peer = servers.peer(0, ids[0]);
    servers.spawn(0, &[]);
    servers.spawn(1, &["--peer", &peer]);
    servers.spawn(2, &["--peer", &peer]);
    for index in 0..ids.len() {
        servers.wait_up(index);
    }
    servers.wait_well();
    write(servers, 2, "moved");
    read(servers, 0, "moved");
}
