//! `knarr demo`: what is embedded in the binary comes up and works together.

use e2e::{Cluster, Options, within};
use std::time::Duration;

#[test]
fn the_demo_runs_wasm_beside_linux() {
    let Some(mut cluster) = Cluster::start(Options { command: "demo", args: &[] }) else { return };
    let said = cluster.output();
    assert!(said.contains("GET http://hello"), "{said}");

    // A Wasm Deployment calls a Linux one by its Service name; the host reaches both.
    cluster.wait_answer("hello", 80, "/backend", "backend: a Linux container");
    cluster.wait_answer("backend", 80, "/", "backend: a Linux container");
    different_pods_answer(&cluster);
    the_mixed_pod_shares_localhost_and_a_volume(&cluster);

    // One index, two runtimes.
    cluster.wait_answer("dual", 80, "/", "Hello");
    cluster.wait_answer("dual-container", 80, "/", "backend: a Linux container");
    let pod = cluster.kubectl("get pods -l app=dual-container -o jsonpath={.items[0].metadata.name}").ok();
    let event = cluster.wait_event(&pod, "runtime");
    assert!(event.contains("container"), "{event}");
    assert!(cluster.stop().success(), "{}", cluster.log());
}

/// The Service spreads its requests.
fn different_pods_answer(cluster: &Cluster) {
    let mut hosts = std::collections::BTreeSet::new();
    within(Duration::from_secs(20), "both backends answer", || {
        let body = cluster.ask("backend", 80, "/").map_err(|error| error.to_string())?.body;
        hosts.insert(body.trim().rsplit(' ').next().unwrap_or_default().to_owned());
        if hosts.len() >= 2 { Ok(()) } else { Err(format!("{hosts:?}")) }
    });
}

fn the_mixed_pod_shares_localhost_and_a_volume(cluster: &Cluster) {
    cluster.wait_answer("mixed", 80, "/backend", "backend: a Linux container");
    cluster.wait_answer("mixed", 9090, "/call?8080", "Hello");
    cluster.wait_answer("mixed", 9090, "/shared", "written by the Linux container of mixed");
    let pod = cluster.kubectl("get pod mixed").ok();
    assert!(pod.contains("2/2"), "{pod}");
}
