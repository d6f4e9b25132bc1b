//! Nodes of several servers go on when servers do not: what runs answers, and what is asked of another server is done.

use std::path::Path;
use std::time::Duration;

use e2e::needs::{missing, program, skip};
use e2e::{eventually, within};
use serde_json::json;
use servers::nodes::{Cluster, text};
use servers::{Servers, Storage};

const NODES: [&str; 2] = ["one", "two"];
/// Until all nodes found a server that is there, the controllers run on it, and pods are up.
const DONE_WITHIN: Duration = Duration::from_secs(90);
/// For a node that moves.
const NEW_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 120);

#[test]
fn nodes_go_on_without_some_servers() {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing).unwrap_or_default();
    }
    let Some(busybox) = program("busybox") else { return skip("there is no busybox on the PATH").unwrap_or_default() };
    let Some(servers) = Servers::start(3, Storage::Folder) else { return };
    let mut scene = Cluster::of(servers);
    scene.join(&NODES);
    start(&scene, &busybox);
    the_leader_is_killed(&mut scene);
    all_servers_are_killed(&mut scene);
    policies_hold_between_nodes(&scene);
    a_node_moves(&mut scene);
}

fn start(scene: &Cluster, busybox: &Path) {
    scene.push_images(busybox);
    scene.deploy(4);
    for node in NODES {
        scene.start_shell(node, json!([]));
    }
    scene.wait_deployed();
}

/// Each Service answers on each node, each time it is asked.
fn services_answer(scene: &Cluster, ports: &[String], when: &str) {
    for agent in &scene.agents {
        for port in ports {
            for turn in 0..8 {
                let answer = e2e::http::get(&format!("{}:{port}", agent.address), "/");
                let answer = answer.unwrap_or_else(|error| panic!("{when}: {} {port} {turn}: {error}", agent.name));
                assert_eq!(answer.status, 200, "{when}: {answer:?}");
            }
        }
    }
}

fn ports(scene: &Cluster) -> Vec<String> {
    let port = |name| scene.kubectl(&format!("get service {name} -o jsonpath={{.spec.ports[0].nodePort}}")).ok();
    vec![port("hello"), port("backend")]
}

/// Both Deployments get as many pods, all of which run, and the API reaches pods of both nodes.
fn work_goes_on(scene: &Cluster, replicas: usize, when: &str) {
    within(DONE_WITHIN, &format!("{when}, Deployments are scaled"), || {
        let said = scene.kubectl(&format!("scale deployment hello backend --replicas={replicas}"));
        if said.success { Ok(()) } else { Err(said.everything()) }
    });
    within(DONE_WITHIN, &format!("{when}, {replicas} of each are ready"), || {
        let said = scene.kubectl("get deployments -o json");
        if !said.success {
            return Err(said.everything());
        }
        let list = said.json();
        let ready: Vec<u64> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["status"]["observedGeneration"] == one["metadata"]["generation"])
            .map(|one| one["status"]["readyReplicas"].as_u64().unwrap_or_default())
            .collect();
        if ready == [replicas as u64; 2] { Ok(()) } else { Err(format!("{ready:?}")) }
    });
    for node in NODES {
        eventually(&format!("{when}, a command runs on node {node}"), || {
            let said = scene.shell(node, "echo here");
            if said.stdout == "here\n" { Ok(()) } else { Err(said.everything()) }
        });
    }
}

fn the_leader_is_killed(scene: &mut Cluster) {
    let ports = ports(scene);
    services_answer(scene, &ports, "with all servers");
    for (round, replicas) in [6, 4].into_iter().enumerate() {
        let leader = scene.servers.leader();
        scene.servers.servers[leader].kill();
        scene.asked = (leader + 1 + round) % 3;
        services_answer(scene, &ports, "while nobody leads");
        work_goes_on(scene, replicas, "without the leader");
        services_answer(scene, &ports, "without the old leader");
        scene.servers.start_server(leader, &[]);
        scene.servers.wait_well();
    }
}

fn all_servers_are_killed(scene: &mut Cluster) {
    let ports = ports(scene);
    let of_pods = |scene: &Cluster| {
        let list = scene.kubectl("get pods -o json").json();
        let mut seen: Vec<String> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|pod| {
                let pointers = ["/metadata/uid", "/status/podIP", "/status/containerStatuses/0/containerID"];
                pointers.map(|pointer| text(pod, pointer)).join(" ")
            })
            .collect();
        seen.sort();
        seen
    };
    // Two Deployments of four, and the shells: those that were one too many are gone.
    let before = eventually("only pods are left that stay", || {
        let pods = of_pods(scene);
        if pods.len() == 2 * 4 + NODES.len() { Ok(pods) } else { Err(pods.join("\n")) }
    });
    (0..3).for_each(|server| scene.servers.servers[server].kill());
    services_answer(scene, &ports, "without any server");
    std::thread::sleep(Duration::from_secs(5));
    services_answer(scene, &ports, "without any server for a while");
    (0..3).for_each(|server| scene.servers.spawn(server, &[]));
    (0..3).for_each(|server| scene.servers.wait_up(server));
    scene.servers.wait_well();
    work_goes_on(scene, 4, "after all servers were away");
    assert_eq!(of_pods(scene), before, "no pod was touched");
    work_goes_on(scene, 6, "after all servers were away");
    services_answer(scene, &ports, "after all servers were away");
}

/// What may reach a pod is the same from every node.
fn policies_hold_between_nodes(scene: &Cluster) {
    scene.apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "only-one" },
        "spec": { "podSelector": { "matchExpressions": [{ "key": "app", "operator": "In",
                "values": ["hello", "backend"] }] },
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "shell": "one" } } }] }] },
    }));
    let addresses: Vec<String> = ["hello", "backend"]
        .iter()
        .flat_map(|app| scene.pods(app))
        .map(|pod| text(&pod, "/status/podIP").to_owned())
        .collect();
    let ask = |address: &String| {
        format!(
            "/bin/busybox timeout 3 /bin/busybox wget -qO- http://{address}:8080/ >/dev/null 2>&1 && echo {address};"
        )
    };
    let line: String = addresses.iter().map(ask).collect();
    eventually("one reaches all pods, two reaches none", || {
        let reached = NODES.map(|node| scene.shell(node, &line).stdout.lines().count());
        if reached == [addresses.len(), 0] { Ok(()) } else { Err(format!("{reached:?} of {}", addresses.len())) }
    });
    scene.kubectl("delete networkpolicy only-one").ok();
    eventually("all reach all again", || {
        let reached = NODES.map(|node| scene.shell(node, &line).stdout.lines().count());
        if reached == [addresses.len(); 2] { Ok(()) } else { Err(format!("{reached:?} of {}", addresses.len())) }
    });
}

/// A machine has another address when its agent starts again: its pods keep theirs, and all reach each other.
fn a_node_moves(scene: &mut Cluster) {
    scene.agents[1].kill();
    scene.agents[1].move_to(NEW_ADDRESS);
    scene.agents[1].start(&[]);
    let wanted = NEW_ADDRESS.to_string();
    eventually("the Node has its new address", || {
        let node = scene.kubectl("get node two -o json").json();
        let addresses = node["status"]["addresses"].clone();
        let is_new = |one: &serde_json::Value| one["type"] == "InternalIP" && one["address"] == wanted.as_str();
        if addresses.as_array().is_some_and(|list| list.iter().any(is_new)) {
            Ok(())
        } else {
            Err(addresses.to_string())
        }
    });
    work_goes_on(scene, 4, "at another address");
    let line = "for i in 1 2 3 4 5 6 7 8; do /bin/busybox timeout 5 /bin/busybox wget -qO- http://hello/; done";
    eventually("pods of both nodes reach each other", || {
        let answers = NODES.map(|node| scene.shell(node, line).stdout.matches("Hello from").count());
        if answers == [8, 8] { Ok(()) } else { Err(format!("{answers:?} of 8")) }
    });
    services_answer(scene, &ports(scene), "at another address");
}
