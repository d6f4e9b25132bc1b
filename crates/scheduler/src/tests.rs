//! Decisions over small clusters, the words for refusals, and the speed of the cycle.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use crate::cycle::schedule;
use crate::facts::PodFacts;
use crate::snapshot::Snapshot;

/// A node with 2 cpus, 4Gi and 10 pods, unless `with` says otherwise; `with` is merged into labels, taints etc.
fn node(name: &str, with: Value) -> Node {
    let mut value = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "knarr.dev/wasm": "true",
            "knarr.dev/container": "true" } },
        "spec": {},
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi", "pods": "10" } },
    });
    merge(&mut value, &with);
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, spec: Value) -> Arc<PodFacts> {
    let mut value = json!({ "metadata": { "name": name, "namespace": "web", "uid": name, "labels": { "app": "front" } },
        "spec": { "containers": [{ "name": "c" }] } });
    merge(&mut value["spec"], &spec);
    PodFacts::of(&serde_json::from_value::<Pod>(value).unwrap())
}

fn merge(target: &mut Value, with: &Value) {
    match (target, with) {
        (Value::Object(target), Value::Object(with)) => {
            for (key, value) in with {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, with) => *target = with.clone(),
    }
}

fn asks(resource: &str, amount: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { resource: amount } } }] })
}

fn snapshot(nodes: &[Node]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|node| snapshot.put_node(node));
    for (name, handler) in [("wasm", "wasm"), ("container", "container")] {
        let class: RuntimeClass =
            serde_json::from_value(json!({ "metadata": { "name": name }, "handler": handler })).unwrap();
        snapshot.put_runtime_class(&class);
    }
    snapshot
}

/// The node, or the message.
fn decide(pod: &PodFacts, snapshot: &Snapshot) -> String {
    match schedule(pod, snapshot) {
        Ok(placement) => placement.node,
        Err(unschedulable) => unschedulable.message(),
    }
}

fn check(spec: Value, nodes: &[Node], expect: &str) {
    assert_eq!(decide(&pod("p", spec.clone()), &snapshot(nodes)), expect, "{spec}");
}

#[test]
fn the_words_of_refusal() {
    let one = [node("n1", json!({}))];
    check(json!({}), &[], "no nodes available to schedule pods");
    check(asks("cpu", "3"), &one, "0/1 nodes are available: 1 Insufficient cpu. n1: wants cpu 3, free are 2 of 2.");
    check(
        asks("memory", "5Gi"),
        &one,
        "0/1 nodes are available: 1 Insufficient memory. n1: wants memory 5Gi, free are 4Gi of 4Gi.",
    );
    check(
        asks("example.com/gpu", "1"),
        &one,
        "0/1 nodes are available: 1 Insufficient example.com/gpu. n1: wants example.com/gpu 1, free are 0 of 0.",
    );
    let nodes = [
        node("n1", json!({})),
        node("n2", json!({ "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] } })),
        node("n3", json!({ "spec": { "taints": [{ "key": "gpu", "value": "yes", "effect": "NoExecute" }] } })),
        node("n4", json!({ "spec": { "unschedulable": true } })),
    ];
    check(
        asks("cpu", "2500m"),
        &nodes,
        "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, \
         2 node(s) had untolerated taint {gpu: yes}. n1: wants cpu 2500m, free are 2 of 2; \
         n2: taint gpu=yes:NoSchedule; n3: taint gpu=yes:NoExecute; n4: were unschedulable.",
    );
}

#[test]
fn node_rules() {
    let nodes = [
        node("n1", json!({ "metadata": { "labels": { "disk": "ssd", "size": "3" } } })),
        node("n2", json!({ "metadata": { "labels": { "disk": "hdd", "size": "9" } } })),
    ];
    check(json!({ "nodeSelector": { "disk": "hdd" } }), &nodes, "n2");
    check(json!({ "nodeName": "n2" }), &nodes, "n2");
    let affinity = |expression: Value| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
            { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } } } })
    };
    check(affinity(json!({ "key": "disk", "operator": "In", "values": ["hdd", "tape"] })), &nodes, "n2");
    check(affinity(json!({ "key": "disk", "operator": "NotIn", "values": ["ssd"] })), &nodes, "n2");
    check(affinity(json!({ "key": "size", "operator": "Gt", "values": ["5"] })), &nodes, "n2");
    check(affinity(json!({ "key": "size", "operator": "Lt", "values": ["5"] })), &nodes, "n1");
    check(
        affinity(json!({ "key": "disk", "operator": "DoesNotExist" })),
        &nodes,
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. \
         n1: didn't match Pod's node affinity/selector; n2: didn't match Pod's node affinity/selector.",
    );
    let preferred = json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 50, "preference": { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["hdd"] }] } }
    ] } } });
    check(preferred, &nodes, "n2");
    let tainted = [node("n1", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } }))];
    for toleration in [
        json!({ "operator": "Exists" }),
        json!({ "key": "k", "operator": "Exists" }),
        json!({ "key": "k", "value": "v", "effect": "NoSchedule" }),
    ] {
        check(json!({ "tolerations": [toleration] }), &tainted, "n1");
    }
}

#[test]
fn a_class_needs_a_node_that_runs_it() {
    let nodes = [
        node("linux", json!({ "metadata": { "labels": { "knarr.dev/wasm": "false" } } })),
        node("wasm", json!({ "metadata": { "labels": { "knarr.dev/container": "false" } } })),
    ];
    check(json!({ "runtimeClassName": "wasm" }), &nodes, "wasm");
    check(json!({ "runtimeClassName": "container" }), &nodes, "linux");
    check(
        json!({ "runtimeClassName": "wasm" }),
        &nodes[..1],
        "0/1 nodes are available: 1 node(s) didn't have the runtime of the pod's RuntimeClass. \
         linux: runs no \"wasm\" pods.",
    );
    check(
        json!({ "runtimeClassName": "kata" }),
        &nodes[..1],
        "0/1 nodes are available: 1 node(s) cannot run a pod whose RuntimeClass does not exist. \
         linux: RuntimeClass \"kata\" does not exist.",
    );
}

#[test]
fn what_is_charged_is_taken_and_what_is_discharged_is_free() {
    let mut snapshot = snapshot(&[node("n1", json!({}))]);
    let ports = json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 8080 }],
        "resources": { "requests": { "cpu": "1500m" } } }] });
    snapshot.charge(&pod("a", ports.clone()), "n1");
    assert!(decide(&pod("b", asks("cpu", "1")), &snapshot).contains("wants cpu 1, free are 500m of 2"));
    assert!(decide(&pod("b", ports), &snapshot).contains("port 8080 is taken"));
    assert_eq!(decide(&pod("b", asks("cpu", "500m")), &snapshot), "n1");
    assert!(snapshot.discharge(&pod("a", json!({})).key));
    assert_eq!(decide(&pod("b", asks("cpu", "2")), &snapshot), "n1");
    for number in 0..10 {
        snapshot.charge(&pod(&format!("p{number}"), json!({})), "n1");
    }
    assert!(decide(&pod("b", json!({})), &snapshot).contains("1 Too many pods. n1: runs 10 of 10 pods"));
    snapshot.remove_node("n1");
    assert_eq!(decide(&pod("b", json!({})), &snapshot), "no nodes available to schedule pods");
    for number in 0..10 {
        snapshot.discharge(&pod(&format!("p{number}"), json!({})).key);
    }
    assert!(snapshot.nodes.is_empty());
}

#[test]
fn company_and_distance() {
    let zone = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let mut snapshot = snapshot(&[zone("n1", "a"), zone("n2", "a"), zone("n3", "b")]);
    let term = json!({ "labelSelector": { "matchLabels": { "app": "front" } }, "topologyKey": "zone" });
    let rule =
        |kind: &str| json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } });
    let near = pod("near", rule("podAffinity"));
    assert_ne!(decide(&near, &snapshot).len(), 0, "the first of its kind may go anywhere");
    snapshot.charge(&pod("a", json!({})), "n3");
    assert_eq!(decide(&near, &snapshot), "n3");
    let far = pod("far", rule("podAntiAffinity"));
    assert_eq!(decide(&far, &snapshot), "n1");
    snapshot.charge(&far, "n1");
    let message = decide(&pod("b", json!({ "nodeSelector": { "zone": "a" } })), &snapshot);
    assert!(message.contains("2 node(s) didn't satisfy existing pods anti-affinity rules"), "{message}");
}

#[test]
fn spread_over_domains() {
    let zone = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let mut snapshot = snapshot(&[zone("n1", "a"), zone("n2", "b"), node("n3", json!({}))]);
    let spec = |when: &str| {
        json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": when, "labelSelector": { "matchLabels": { "app": "front" } } }] })
    };
    for name in ["a", "b", "c", "d"] {
        let pod = pod(name, spec("DoNotSchedule"));
        let node = decide(&pod, &snapshot);
        snapshot.charge(&pod, &node);
    }
    let on = |node: &str| snapshot.nodes[node].pods.len();
    assert_eq!((on("n1"), on("n2"), on("n3")), (2, 2, 0), "n3 is in no zone");
    let mut tight = snapshot.clone();
    tight
        .put_node(&node("n1", json!({ "metadata": { "labels": { "zone": "a" } }, "spec": { "unschedulable": true } })));
    tight.charge(&pod("e", json!({})), "n2");
    let message = decide(&pod("f", spec("DoNotSchedule")), &tight);
    assert!(message.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"));
    assert_ne!(decide(&pod("f", spec("ScheduleAnyway")), &tight).len(), 2 + 100);
}

#[test]
fn pods_of_one_owner_spread_and_empty_nodes_fill_first() {
    let nodes: Vec<_> = (0..4).map(|number| node(&format!("n{number}"), json!({}))).collect();
    let mut snapshot = snapshot(&nodes);
    for number in 0..8 {
        let mut facts = PodFacts::clone(&pod(&format!("p{number}"), json!({})));
        facts.owner = Some("set".into());
        let node = decide(&facts, &snapshot);
        snapshot.charge(&Arc::new(facts), &node);
    }
    assert!(snapshot.nodes.values().all(|node| node.pods.len() == 2));
}

/// Prints the rate; judged by people, not by a limit.
#[test]
fn speed_of_the_cycle() {
    let nodes: Vec<_> = (0..1000)
        .map(|number| {
            node(&format!("n{number}"), json!({ "status": { "allocatable": { "pods": "110", "cpu": "64" } } }))
        })
        .collect();
    let mut snapshot = snapshot(&nodes);
    let (pods, begin) = (200_usize, Instant::now());
    for number in 0..pods {
        let pod = pod(&format!("p{number}"), asks("cpu", "100m"));
        let node = schedule(&pod, &snapshot).expect("there is room").node;
        snapshot.charge(&pod, &node);
    }
    let rate = pods as f64 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} pods/s over {} nodes", nodes.len());
}
