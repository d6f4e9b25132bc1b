//! Deployments of both runtimes: created, scaled, updated, rolled back, and reached all the while.

use e2e::{Cluster, eventually};

#[test]
fn a_deployment_is_scaled_updated_and_rolled_back() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.build_image(&e2e::needs::example("hello-http.wasm"), "hello:v2", &[]).ok();
    cluster.kubectl("create deployment web --image=registry.local/hello:v1 --port=8080").ok();
    cluster.wait_rollout("web");
    cluster.kubectl("expose deployment web --port=80 --target-port=8080").ok();
    cluster.wait_answer("web", 80, "/", "Hello");

    cluster.kubectl("scale deployment web --replicas=3").ok();
    cluster.wait_value("deployment/web", ".status.readyReplicas", "3");
    eventually("every replica is behind the Service", || {
        let slices = cluster.kubectl("get endpointslices -l kubernetes.io/service-name=web -o json").json();
        let ready = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        if ready == 3 { Ok(()) } else { Err(slices.to_string()) }
    });

    cluster.kubectl("set image deployment/web hello=registry.local/hello:v2").ok();
    cluster.wait_rollout("web");
    only_image(&cluster, "registry.local/hello:v2");
    assert!(cluster.ask("web", 80, "/").expect("the Service answers").body.contains("Hello"));

    cluster.kubectl("rollout undo deployment/web").ok();
    cluster.wait_rollout("web");
    only_image(&cluster, "registry.local/hello:v1");
    assert!(cluster.kubectl("rollout history deployment/web").ok().contains('3'));

    let before = cluster.kubectl("get pods -l app=web -o name").ok();
    cluster.kubectl("rollout restart deployment/web").ok();
    cluster.wait_rollout("web");
    let after = cluster.kubectl("get pods -l app=web -o name").ok();
    assert!(before.lines().all(|name| !after.contains(name)), "{before} and {after}");

    cluster.kubectl("scale deployment web --replicas=0").ok();
    eventually("nobody is left", || {
        let pods = cluster.kubectl("get pods -o name").ok();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    assert!(cluster.ask("web", 80, "/").is_err(), "a Service without a pod answers");
    cluster.kubectl("delete deployment,service web").ok();
    eventually("the ReplicaSets are collected", || {
        let sets = cluster.kubectl("get replicasets -o name").ok();
        if sets.is_empty() { Ok(()) } else { Err(sets) }
    });
}

/// Every pod that is not on its way out runs this image.
fn only_image(cluster: &Cluster, image: &str) {
    eventually(&format!("only {image} runs"), || {
        let pods = cluster.kubectl("get pods -l app=web -o json").json();
        let images: Vec<_> =
            pods["items"].as_array().into_iter().flatten().map(|p| &p["spec"]["containers"][0]["image"]).collect();
        if images.len() == 3 && images.iter().all(|found| *found == image) {
            Ok(())
        } else {
            Err(format!("{images:?}"))
        }
    });
}
