//! `pods/resize`: a container that runs gets more or less, without a restart where none is needed.

use std::fs;
use std::path::Path;

use e2e::images::{BUSYBOX, HELLO};
use e2e::{Cluster, eventually};

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: '{image}'\n    \
         resources: {{limits: {{cpu: 100m, memory: 64Mi}}, requests: {{cpu: 100m, memory: 64Mi}}}}\n    {more}\n"
    )
}

/// `kubectl patch --subresource=resize`.
fn resize(cluster: &Cluster, name: &str, cpu: &str, memory: &str) -> e2e::Said {
    let amounts = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
    let patch = format!(
        r#"{{"spec":{{"containers":[{{"name":"main","resources":{{"limits":{amounts},"requests":{amounts}}}}}]}}}}"#
    );
    cluster.kubectl_args(&["patch", "pod", name, "--subresource=resize", "--patch", &patch], "")
}

/// The cpu quota of a pod's container in microseconds of 100 milliseconds, as the kernel has it.
fn quota(uid: &str) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let v2 = root.join("cgroup.controllers").exists();
    let (dir, file) = if v2 { (root.to_owned(), "cpu.max") } else { (root.join("cpu"), "cpu.cfs_quota_us") };
    let path = dir.join("knarr/pods").join(uid).join("main-0").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()));
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn condition(cluster: &Cluster, name: &str, type_: &str) -> String {
    cluster.value(&format!("pod/{name}"), &format!(".status.conditions[?(@.type=='{type_}')].reason"))
}

#[test]
fn running_containers_are_resized() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.apply(&pod("wasm", HELLO, "ports: [{containerPort: 8080}]"));
    let linux = cluster.push_busybox();
    if linux {
        let sleep = "command: [/bin/busybox, sleep, '10000']";
        cluster.apply(&pod("linux", BUSYBOX, sleep));
        let restarts =
            format!("{sleep}\n    resizePolicy: [{{resourceName: memory, restartPolicy: RestartContainer}}]");
        cluster.apply(&pod("restarts", BUSYBOX, &restarts));
        in_place(&cluster);
        by_a_restart(&cluster);
    }
    wasm(&cluster);
}

fn in_place(cluster: &Cluster) {
    cluster.wait_value("pod/linux", ".status.phase", "Running");
    let uid = cluster.value("pod/linux", ".metadata.uid");
    let id = cluster.value("pod/linux", ".status.containerStatuses[0].containerID");
    assert_eq!(quota(&uid), "10000");
    resize(cluster, "linux", "200m", "96Mi").ok();
    cluster.wait_value("pod/linux", ".status.containerStatuses[0].resources.limits.cpu", "200m");
    assert_eq!(quota(&uid), "20000");
    resize(cluster, "linux", "150m", "48Mi").ok();
    cluster.wait_value("pod/linux", ".status.containerStatuses[0].resources.limits.memory", "48Mi");
    assert_eq!(quota(&uid), "15000");
    assert_eq!(cluster.value("pod/linux", ".status.containerStatuses[0].containerID"), id, "the same process");
    assert_eq!(cluster.value("pod/linux", ".status.containerStatuses[0].allocatedResources.cpu"), "150m");
    // More than any node has is not had, and taken back it is forgotten.
    resize(cluster, "linux", "9000", "48Mi").ok();
    eventually("the resize is refused", || {
        let reason = condition(cluster, "linux", "PodResizePending");
        if reason == "Infeasible" { Ok(()) } else { Err(cluster.why("pod/linux")) }
    });
    assert_eq!((quota(&uid).as_str(), condition(cluster, "linux", "PodResizeInProgress").as_str()), ("15000", ""));
    resize(cluster, "linux", "150m", "48Mi").ok();
    eventually("nothing is wanted", || {
        let reason = condition(cluster, "linux", "PodResizePending");
        if reason.is_empty() { Ok(()) } else { Err(reason) }
    });
    let refused = cluster.kubectl_args(
        &[
            "patch",
            "pod",
            "linux",
            "--subresource=resize",
            "--patch",
            r#"{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"50m"}}}]}}"#,
        ],
        "",
    );
    assert!(refused.refused().contains("QOS"), "the class of service stays");
}

fn by_a_restart(cluster: &Cluster) {
    cluster.wait_value("pod/restarts", ".status.phase", "Running");
    resize(cluster, "restarts", "200m", "64Mi").ok();
    cluster.wait_value("pod/restarts", ".status.containerStatuses[0].resources.limits.cpu", "200m");
    assert_eq!(cluster.value("pod/restarts", ".status.containerStatuses[0].restartCount"), "0");
    resize(cluster, "restarts", "200m", "80Mi").ok();
    cluster.wait_value("pod/restarts", ".status.containerStatuses[0].restartCount", "1");
    cluster.wait_value("pod/restarts", ".status.containerStatuses[0].resources.limits.memory", "80Mi");
    cluster.wait_value("pod/restarts", ".status.containerStatuses[0].ready", "true");
}

/// An instance fits into 64 MiB; a limit below what it takes shows in its answers.
fn wasm(cluster: &Cluster) {
    cluster.wait_value("pod/wasm", ".status.phase", "Running");
    cluster.kubectl("expose pod wasm --port=80 --target-port=8080").ok();
    cluster.wait_answer("wasm", 80, "/", "Hello");
    let id = cluster.value("pod/wasm", ".status.containerStatuses[0].containerID");
    resize(cluster, "wasm", "100m", "64Ki").ok();
    cluster.wait_value("pod/wasm", ".status.containerStatuses[0].resources.limits.memory", "64Ki");
    eventually("an instance no longer fits", || match cluster.ask("wasm", 80, "/") {
        Ok(answer) if answer.body.contains("Hello") => Err("it still answers".to_owned()),
        _ => Ok(()),
    });
    resize(cluster, "wasm", "100m", "64Mi").ok();
    cluster.wait_value("pod/wasm", ".status.containerStatuses[0].resources.limits.memory", "64Mi");
    cluster.wait_answer("wasm", 80, "/", "Hello");
    assert_eq!(cluster.value("pod/wasm", ".status.containerStatuses[0].containerID"), id);
    assert_eq!(cluster.value("pod/wasm", ".status.containerStatuses[0].restartCount"), "0");
}
