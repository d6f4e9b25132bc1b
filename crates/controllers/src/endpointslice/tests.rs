//! Given a Service, pods and slices: the writes, and convergence in the tiny cluster.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use reconcile::pod::Pod;
use serde_json::{Value, json};

use super::plan::{ENDPOINTS_MAX, Observed, plan};
use crate::model::{World, at, object};

fn service(spec: Value) -> Service {
    let mut value = json!({ "metadata": { "name": "front", "labels": { "team": "a" } }, "spec": {
        "selector": { "app": "front" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } });
    for (key, field) in spec.as_object().unwrap() {
        value["spec"][key] = field.clone();
    }
    object(value)
}

/// `number` is the last byte of the address; flags: `r`eady, `t`erminating, `f`ailed, `w`ithout address, `9` serves
/// its port `web` on 9090.
fn pod(number: usize, flags: &str) -> Pod {
    let has = |flag| flags.contains(flag);
    let mut value = json!({
        "metadata": { "name": format!("p{number}"), "labels": { "app": "front" } },
        "spec": { "nodeName": "n1", "hostname": "h", "subdomain": "front", "containers": [{ "name": "c",
            "ports": [{ "name": "web", "containerPort": if has('9') { 9090 } else { 8080 } }] }] },
        "status": { "phase": if has('f') { "Failed" } else { "Running" }, "conditions": [
            { "type": "Ready", "status": if has('r') { "True" } else { "False" } }] },
    });
    if !has('w') {
        value["status"]["podIP"] = format!("10.32.{}.{}", number / 250, number % 250).into();
    }
    if has('t') {
        value["metadata"]["deletionTimestamp"] = at(1).to_string().into();
    }
    object(value)
}

fn world(service: &Service, pods: &[(usize, &str)]) -> World {
    let mut world = World::default();
    world.put(service);
    for (number, flags) in pods {
        world.put(&pod(*number, flags));
    }
    world
}

fn reconcile(world: &mut World) -> String {
    let observed = Observed {
        service: world.get::<Service>("front"),
        pods: world.all::<Pod>(),
        slices: world.all::<EndpointSlice>(),
        endpoints: world.get::<Endpoints>("front"),
    };
    let plan = plan(&observed);
    world.apply(&plan);
    plan.why
}

fn slices(world: &World) -> Vec<Value> {
    world.all::<EndpointSlice>().iter().map(|slice| serde_json::to_value(slice.as_ref()).unwrap()).collect()
}

/// `address ready/serving/terminating` of all endpoints.
fn shown(world: &World) -> Vec<String> {
    let mut shown = Vec::new();
    for slice in world.all::<EndpointSlice>() {
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap();
            let flag = |flag: Option<bool>, letter| if flag == Some(true) { letter } else { "-" };
            let [ready, serving, terminating] =
                [flag(conditions.ready, "r"), flag(conditions.serving, "s"), flag(conditions.terminating, "t")];
            shown.push(format!("{} {ready}{serving}{terminating}", endpoint.addresses[0]));
        }
    }
    shown.sort();
    shown
}

fn check(spec: Value, pods: &[(usize, &str)], expect: &[&str]) {
    let mut world = world(&service(spec), pods);
    reconcile(&mut world);
    assert_eq!(shown(&world), expect, "{pods:?}");
}

#[test]
fn conditions_follow_the_pods() {
    check(json!({}), &[(1, "r"), (2, ""), (3, "w"), (4, "f")], &["10.32.0.1 rs-", "10.32.0.2 ---"]);
    check(json!({}), &[(1, "rt"), (2, "t")], &["10.32.0.1 -st", "10.32.0.2 --t"]);
    check(json!({ "publishNotReadyAddresses": true }), &[(1, ""), (2, "t")], &["10.32.0.1 r--", "10.32.0.2 r-t"]);
    check(json!({ "selector": null }), &[(1, "r")], &[]);
    check(json!({ "type": "ExternalName" }), &[(1, "r")], &[]);
}

#[test]
fn a_slice_says_whose_it_is() {
    let mut world = world(&service(json!({ "clusterIP": "None" })), &[(1, "r")]);
    assert_eq!(reconcile(&mut world), "1 of 1 endpoints ready");
    let slice = &slices(&world)[0];
    let labels = json!({ "team": "a", "kubernetes.io/service-name": "front", "service.kubernetes.io/headless": "",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" });
    assert_eq!(slice["metadata"]["labels"], labels);
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "uid-front");
    assert_eq!(slice["ports"], json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    let endpoint = json!({ "addresses": ["10.32.0.1"], "hostname": "h", "nodeName": "n1",
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "targetRef": { "kind": "Pod", "namespace": "web", "name": "p1", "uid": "uid-p1" } });
    assert_eq!(slice["endpoints"], json!([endpoint]));
    let endpoints = serde_json::to_value(world.get::<Endpoints>("front").unwrap()).unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.32.0.1");
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 8080);
}

#[test]
fn named_ports_split_slices_by_number() {
    let spec = json!({ "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] });
    let mut world = world(&service(spec), &[(1, "r"), (2, "r9"), (3, "r")]);
    reconcile(&mut world);
    let mut numbers: Vec<_> = slices(&world)
        .iter()
        .map(|slice| (slice["ports"][0]["port"].as_i64().unwrap(), slice["endpoints"].as_array().unwrap().len()))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [(8080, 2), (9090, 1)]);
}

#[test]
fn one_slice_per_hundred_and_one_pod_is_one_patch() {
    let pods: Vec<_> = (0..250).map(|number| (number, "r")).collect();
    let mut world = world(&service(json!({})), &pods);
    reconcile(&mut world);
    assert_eq!(world.all::<EndpointSlice>().len(), 3);
    world.put(&pod(7, ""));
    let before: Vec<_> = slices(&world).iter().map(|slice| slice["metadata"]["resourceVersion"].clone()).collect();
    reconcile(&mut world);
    let after: Vec<_> = slices(&world).iter().map(|slice| slice["metadata"]["resourceVersion"].clone()).collect();
    assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
}

#[test]
fn no_pods_one_empty_slice_and_no_service_none() {
    let mut world = world(&service(json!({})), &[]);
    reconcile(&mut world);
    assert_eq!(slices(&world).len(), 1);
    assert_eq!(slices(&world)[0]["endpoints"], json!([]));
    world.put(&pod(1, "r"));
    reconcile(&mut world);
    assert_eq!((slices(&world).len(), shown(&world).len()), (1, 1), "the placeholder is used");
    world.objects.remove(&("services".to_owned(), "front".to_owned()));
    assert_eq!(reconcile(&mut world), "the Service is gone");
    assert!(slices(&world).is_empty() && world.get::<Endpoints>("front").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever pods come, change and go: the slices show each addressed pod once, none too full, then rest.
    #[test]
    fn converges(steps in proptest::collection::vec((0usize..300, 0usize..5), 1..400)) {
        let spec = json!({ "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] });
        let mut world = world(&service(spec), &[]);
        for (at, (number, flags)) in steps.into_iter().enumerate() {
            match ["r", "", "r9", "w", "gone"][flags] {
                "gone" => { world.objects.remove(&("pods".to_owned(), format!("p{number}"))); }
                flags => world.put(&pod(number, flags)),
            }
            if at % 17 == 0 { reconcile(&mut world); }
        }
        reconcile(&mut world);
        let addressed = |pod: &&Arc<Pod>| pod.status.as_ref().unwrap().pod_ip.is_some();
        let mut shown = shown(&world);
        prop_assert_eq!(shown.len(), world.all::<Pod>().iter().filter(addressed).count());
        shown.dedup();
        prop_assert_eq!(shown.len(), world.all::<Pod>().iter().filter(addressed).count());
        for slice in slices(&world) {
            prop_assert!(slice["endpoints"].as_array().unwrap().len() <= ENDPOINTS_MAX);
        }
        let before = world.objects.clone();
        reconcile(&mut world);
        prop_assert_eq!(&before, &world.objects, "at rest nothing is written");
    }
}
