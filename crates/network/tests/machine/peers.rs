//! Routes to the pods of other nodes, in a kernel.

use std::process::Command;
use std::time::Duration;

use crate::alone::{alone, traces};
use crate::cluster::{Cluster, eventually};

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The routes by another machine: range and gateway.
fn ways() -> Vec<String> {
    let routes = ip("-4 route show");
    let ways = routes.lines().filter(|line| line.contains(" via "));
    ways.map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn routes_follow_the_nodes() {
    alone(|machine| {
        if Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: needs iproute2");
            return;
        }
        ip("link set lo up");
        ip("link add eth0 type veth peer name cable");
        ip("addr add 192.0.2.2/24 dev eth0");
        ip("link set eth0 up");
        ip("link set cable up");
        let before = traces(machine);
        let mut cluster = Cluster::start(machine, |config| config.node_name = Some("here".to_owned()));
        cluster.other_node("two", "10.32.128.0/24", "192.0.2.3");
        cluster.other_node("far", "10.32.129.0/24", "198.51.100.1");
        cluster.other_node("here", "10.32.0.0/17", "192.0.2.2");
        // One that is not on our segment keeps nobody from the others.
        eventually(vec!["10.32.128.0/24 via 192.0.2.3".to_owned()], ways);
        cluster.other_node("two", "10.32.128.0/24", "192.0.2.4");
        cluster.other_node_gone("far");
        cluster.other_node("three", "10.32.130.0/24", "192.0.2.5");
        let two = || vec!["10.32.128.0/24 via 192.0.2.4".to_owned(), "10.32.130.0/24 via 192.0.2.5".to_owned()];
        eventually(two(), ways);
        cluster.other_node_gone("three");
        eventually(two()[..1].to_vec(), ways);
        std::thread::sleep(Duration::from_millis(50));
        cluster.end();
        assert_eq!(traces(machine), before);
    });
}
