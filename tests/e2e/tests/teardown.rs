//! Stopping leaves the machine as it was.

use e2e::cluster::names_in;
use e2e::machine::Snapshot;
use e2e::{Cluster, Options};

const WORKLOADS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: linux}
spec: {containers: [{name: main, image: 'registry.local/backend:v1', resources: {limits: {memory: 64Mi, cpu: 500m}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wasm}
spec: {containers: [{name: main, image: 'registry.local/hello:v1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mixed}
spec:
  volumes: [{name: shared, emptyDir: {medium: Memory}}]
  containers:
  - {name: linux, image: 'registry.local/backend:v1', env: [{name: PORT, value: '9090'}], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: wasm, image: 'registry.local/hello:v1', volumeMounts: [{name: shared, mountPath: /shared}]}
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {selector: {app: all}, ports: [{port: 80}]}
";

fn run_workloads(cluster: &Cluster) {
    cluster.apply(WORKLOADS);
    for pod in ["linux", "wasm", "mixed"] {
        cluster.wait_value(&format!("pod/{pod}"), ".status.conditions[?(@.type==\"Ready\")].status", "True");
    }
}

#[test]
fn stopping_leaves_the_machine_as_it_was() {
    let Some(mut cluster) = Cluster::prepare() else { return };
    let before = Snapshot::take();
    cluster.start_again(Options::default());
    cluster.push_examples();
    let idle = Snapshot::take();
    run_workloads(&cluster);
    let busy = Snapshot::take();
    for kind in ["processes", "mounts", "network namespaces", "cgroups"] {
        assert!(
            busy.count(kind) > before.count(kind),
            "the snapshot does not see {kind}: {:?}",
            before.changes_to(&busy)
        );
    }

    // Deleting the pods gives back what they took.
    cluster.kubectl("delete pod linux wasm mixed").ok();
    let left: Vec<String> = e2e::eventually("only shared things are left", || {
        let left = idle.changes_to(&Snapshot::take());
        let pods = left.iter().any(|line| line.contains("/pods/") || line.starts_with("network namespaces"));
        if pods { Err(left.join("\n")) } else { Ok(left) }
    });
    println!("after the pods: {left:?}");
    assert_eq!(names_in(&cluster.data_dir().join("pods")), [""; 0], "pod directories are left");

    // Stopping with workloads running removes them too; they are wanted still, and come back.
    run_workloads(&cluster);
    stop_and_compare(&mut cluster, &before);
    cluster.start_again(Options::default());
    run_workloads(&cluster);
    stop_and_compare(&mut cluster, &before);
}

fn stop_and_compare(cluster: &mut Cluster, before: &Snapshot) {
    assert!(cluster.stop().success(), "{}", cluster.log());
    before.assert_restored();
    for folder in ["run/shims", "run/netns", "run/wasm/hosts", "run/wasm/sandboxes", "run/wasm/containers"] {
        // A name with a dot in front is a cache, not something that runs.
        let mut left = names_in(&cluster.data_dir().join(folder));
        left.retain(|name| !name.starts_with('.'));
        assert_eq!(left, [""; 0], "{folder} is not empty");
    }
}

#[test]
fn workloads_can_be_kept() {
    let Some(mut cluster) = Cluster::prepare() else { return };
    let before = Snapshot::take();
    cluster.start_again(Options { args: &["--keep-workloads"], ..Options::default() });
    cluster.push_examples();
    run_workloads(&cluster);
    let address = format!("{}:8080", cluster.value("pod/wasm", ".status.podIP"));
    assert!(cluster.stop_and_keep().success(), "{}", cluster.log());
    assert!(e2e::http::get(&address, "/").expect("the kept pod answers").body.contains("Hello"));
    cluster.start_again(Options::default());
    assert_eq!(cluster.value("pod/linux", ".status.containerStatuses[0].restartCount"), "0");
    assert!(cluster.stop().success(), "{}", cluster.log());
    before.assert_restored();
}
