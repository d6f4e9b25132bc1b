//! Limits hold, and who breaks them is told.

use std::time::{Duration, Instant};

use e2e::images::BUSYBOX;
use e2e::{Cluster, eventually};

const STATE: &str = ".status.containerStatuses[0].state.terminated";

#[test]
fn memory_and_time_have_limits_and_pods_that_do_not_fit_say_so() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    if !cluster.push_busybox() {
        return;
    }
    a_container_over_its_memory_is_oom_killed(&cluster);
    containers_over_the_memory_of_their_pod_are_oom_killed(&cluster);
    a_guest_over_its_memory_fails_and_its_neighbours_do_not(&cluster);
    a_spinning_guest_is_stopped(&cluster);
    failing_containers_back_off(&cluster);
    a_failing_liveness_probe_restarts(&cluster);
    a_pod_that_does_not_fit_says_why(&cluster);
}

fn a_container_over_its_memory_is_oom_killed(cluster: &Cluster) {
    cluster.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: hungry}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: '{BUSYBOX}'
    command: [/bin/busybox, dd, if=/dev/zero, of=/dev/null, bs=200M, count=1]
    resources: {{limits: {{memory: 32Mi}}}}
"
    ));
    assert_eq!(cluster.wait_ended("hungry"), "Failed");
    assert_eq!(cluster.value("pod/hungry", &format!("{STATE}.reason")), "OOMKilled", "{}", cluster.why("pod/hungry"));
    assert_eq!(cluster.value("pod/hungry", &format!("{STATE}.exitCode")), "137");
}

/// Neither is over the limit alone. What they have together is what the pod says, and they are told so.
fn containers_over_the_memory_of_their_pod_are_oom_killed(cluster: &Cluster) {
    let holds_memory =
        "command: [/bin/busybox, sh, -c, 'echo $BYTES; exec /bin/busybox dd if=/dev/zero of=/dev/null bs=40M']
    env: [{name: BYTES, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]";
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: crowded}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  resources: {{limits: {{cpu: 500m, memory: 48Mi}}}}
  containers:
  - name: a
    image: '{BUSYBOX}'
    {holds_memory}
  - name: b
    image: '{BUSYBOX}'
    {holds_memory}
"
    );
    cluster.apply(&pod);
    eventually("one has to go", || {
        let ended = cluster.value("pod/crowded", ".status.containerStatuses[*].state.terminated.reason");
        if ended.contains("OOMKilled") { Ok(()) } else { Err(format!("{ended:?} {}", cluster.why("pod/crowded"))) }
    });
    assert_eq!(cluster.value("pod/crowded", ".spec.resources.requests.memory"), "48Mi");
    assert_eq!(cluster.value("pod/crowded", ".status.qosClass"), "Guaranteed");
    let told = cluster.kubectl("logs crowded -c a").ok();
    assert_eq!(told.trim(), (48 << 20).to_string());
    let refused = cluster.kubectl_with(
        "apply -f -",
        &pod.replace("crowded", "wrong").replace("env:", "resources: {limits: {memory: 1Gi}}\n    env:"),
    );
    assert!(refused.stderr.contains("must be less than or equal to pod limits of 48Mi"), "{refused:?}");
    cluster.kubectl("delete pod crowded").ok();
}

fn a_guest_over_its_memory_fails_and_its_neighbours_do_not(cluster: &Cluster) {
    let limits = "resources: {limits: {memory: 32Mi}}";
    for (name, of_pod, of_container) in
        [("greedy", "", limits), ("modest", "", limits), ("shared", limits, "resources: {}")]
    {
        let comma = if of_pod.is_empty() { "" } else { ", " };
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
             spec: {{{of_pod}{comma}containers: [{{name: main, image: 'registry.local/hello:v1', {of_container}}}]}}\n"
        ));
        cluster.kubectl(&format!("expose pod {name} --port=80 --target-port=8080")).ok();
        cluster.wait_answer(name, 80, "/", "Hello");
    }
    for name in ["greedy", "shared"] {
        let answer = cluster.ask(name, 80, "/grow?mib=100");
        assert!(!matches!(&answer, Ok(answer) if answer.status == 200), "{name} {answer:?}");
    }
    let answer = cluster.ask("greedy", 80, "/trap");
    assert!(!matches!(&answer, Ok(answer) if answer.status == 200), "{answer:?}");
    cluster.wait_answer("modest", 80, "/", "Hello");
    cluster.wait_answer("greedy", 80, "/", "Hello");
    assert_eq!(cluster.value("pod/modest", ".status.containerStatuses[0].restartCount"), "0");
}

fn a_spinning_guest_is_stopped(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: spinning, labels: {app: spinning}, annotations: {knarr.dev/request-timeout: '1'}}
spec: {containers: [{name: main, image: 'registry.local/hello:v1'}]}
",
    );
    cluster.kubectl("expose pod spinning --port=80 --target-port=8080").ok();
    cluster.wait_answer("spinning", 80, "/", "Hello");
    let began = Instant::now();
    let answer = cluster.ask("spinning", 80, "/spin").expect("a late answer is an answer");
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "stopped after {:?}", began.elapsed());
    cluster.wait_answer("spinning", 80, "/", "Hello");
}

fn a_failing_liveness_probe_restarts(cluster: &Cluster) {
    cluster.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: sick}}
spec:
  containers:
  - name: main
    image: '{BUSYBOX}'
    command: [/bin/busybox, sh, -c, 'trap \"exit 0\" TERM; while true; do /bin/busybox sleep 0.1; done']
    readinessProbe: {{exec: {{command: [/bin/busybox, 'true']}}, periodSeconds: 1}}
    livenessProbe: {{exec: {{command: [/bin/busybox, 'false']}}, periodSeconds: 1, failureThreshold: 2}}
"
    ));
    cluster.wait_value("pod/sick", ".status.containerStatuses[0].restartCount", "1");
    cluster.wait_event("sick", "Liveness probe failed");
}

fn failing_containers_back_off(cluster: &Cluster) {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: crashing}}\n\
         spec: {{containers: [{{name: main, image: '{BUSYBOX}', command: [/bin/busybox, 'false']}}]}}\n"
    ));
    cluster.wait_value("pod/crashing", ".status.containerStatuses[0].state.waiting.reason", "CrashLoopBackOff");
    eventually("the restarts are counted", || {
        let count = cluster.value("pod/crashing", ".status.containerStatuses[0].restartCount");
        if count.parse::<u32>().is_ok_and(|count| count >= 1) { Ok(()) } else { Err(count) }
    });
}

fn a_pod_that_does_not_fit_says_why(cluster: &Cluster) {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: giant}}\n\
         spec: {{containers: [{{name: main, image: '{BUSYBOX}', resources: {{requests: {{cpu: 4k}}}}}}]}}\n"
    ));
    cluster.wait_value("pod/giant", ".status.conditions[?(@.type==\"PodScheduled\")].reason", "Unschedulable");
    let why = cluster.value("pod/giant", ".status.conditions[?(@.type==\"PodScheduled\")].message");
    assert!(why.contains("Insufficient cpu"), "{why}");
    cluster.wait_event("giant", "Insufficient cpu");
}
