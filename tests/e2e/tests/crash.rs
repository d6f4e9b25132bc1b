//! `kill -9`: no acknowledged write is lost, the workloads go on and are taken over again.

use std::collections::BTreeSet;

use e2e::machine::processes;
use e2e::{Background, Cluster, Options};

const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: backend}
spec:
  replicas: 2
  selector: {matchLabels: {app: backend}}
  template:
    metadata: {labels: {app: backend}}
    spec: {containers: [{name: main, image: 'registry.local/backend:v1'}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec: {containers: [{name: main, image: 'registry.local/hello:v1', env: [{name: BACKEND_URL, value: 'http://backend/'}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec: {selector: {app: backend}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080}]}
";
/// Pod, container id, restarts, start time.
const IDENTITIES: &str = "{range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} \
                          {.status.containerStatuses[0].restartCount} \
                          {.status.containerStatuses[0].state.running.startedAt}{\"\\n\"}{end}";

/// Writes until it is refused; says what was acknowledged.
const WRITER: &str = "number=0; while kubectl create configmap written-$1-$number --from-literal=a=b; do \
                      number=$((number + 1)); done";

/// What the writer was told is written.
fn acknowledged(said: &str) -> Vec<String> {
    said.lines().filter_map(|line| line.strip_suffix(" created")).map(str::to_owned).collect()
}

#[test]
fn a_killed_cluster_comes_back_with_its_writes_and_workloads() {
    let Some(mut cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.apply(MANIFEST);
    for deployment in ["backend", "hello"] {
        cluster.wait_rollout(deployment);
    }
    cluster.wait_answer("hello", 80, "/backend", "Linux container");
    let address = |service: &str| format!("{}:80", cluster.value(&format!("service/{service}"), ".spec.clusterIP"));
    let services = [(address("hello"), "Hello"), (address("backend"), "Linux container")];
    let identities = pods(&cluster);

    for round in 1..=2 {
        // Writes up to the last moment: each that was acknowledged must be there afterwards.
        let writer = Background::start(cluster.client("/bin/sh").args(["-c", WRITER, "writer", &round.to_string()]));
        writer.wait_for("-5 created");
        let workloads = workloads(&cluster);
        cluster.kill();
        let written = acknowledged(&writer.said());
        assert_eq!(workloads, processes(), "workloads ended with the agent");
        // Names are answered by the agent; addresses are the kernel's.
        for (address, says) in &services {
            let answer = e2e::http::get(address, "/").expect("Services answer without the agent");
            assert!(answer.body.contains(says), "{answer:?}");
        }

        cluster.start_again(Options::default());
        let kept = cluster.kubectl("get configmaps -o name").ok();
        let lost: Vec<_> = written.iter().filter(|name| !kept.lines().any(|line| line == **name)).collect();
        assert!(written.len() >= 5 && lost.is_empty(), "{lost:?} of {written:?} are lost");
        assert_eq!(identities, pods(&cluster), "pods were replaced or restarted");
        assert_eq!(workloads, self::workloads(&cluster), "workloads were not taken over");
        cluster.wait_answer("hello", 80, "/backend", "Linux container");
    }

    // The restarted agent is in charge: it scales, reads old logs and stops everything.
    cluster.kubectl("scale deployment backend --replicas=1").ok();
    cluster.wait_value("deployment/backend", ".status.replicas", "1");
    assert!(cluster.kubectl("logs deployment/backend").ok().contains("backend listens"));
    assert!(cluster.stop().success(), "{}", cluster.log());
    assert_eq!(processes(), BTreeSet::new());
}

fn pods(cluster: &Cluster) -> String {
    cluster.kubectl_args(&["get", "pods", "-o", &format!("jsonpath={IDENTITIES}")], "").ok()
}

/// Every process of the node but the cluster itself.
fn workloads(cluster: &Cluster) -> BTreeSet<String> {
    let own = format!("{} ", cluster.process_id());
    processes().into_iter().filter(|line| !line.starts_with(&own)).collect()
}
