//! What changes in a pod that runs: ephemeral containers and resources.

use serde_json::{Value, json};

use crate::harness::{Harness, condition};

/// Changes the specification as the API server's subresources do: the status stays.
fn change(harness: &Harness, name: &str, change: impl FnOnce(&mut Value)) {
    let mut pod = harness.pod(name);
    change(&mut pod["spec"]);
    harness.api.put("pods", pod);
}

#[tokio::test]
async fn a_debugger_comes_and_goes_and_never_comes_again() {
    let mut harness = Harness::start().await;
    harness.apply("web", json!({"containers": [{"name": "web", "image": "wasm:v1"}]}));
    harness.until_running("web").await;
    let debugger =
        json!([{"name": "d", "image": "linux:v1", "stdin": true, "tty": true, "targetContainerName": "web"}]);
    change(&harness, "web", |spec| spec["ephemeralContainers"] = debugger);
    let state = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"].clone();
    let pod = harness.until("web", "the debugger runs", |pod| state(pod)["running"].is_object()).await;
    assert_eq!((condition(&pod, "Ready"), pod["status"]["podIP"].as_str()), ("True", Some("10.32.0.2")));
    let config = harness.linux.container_config("d").unwrap();
    assert!(config.stdio.stdin && config.stdio.tty && config.process_namespace_of.is_none());
    let sandbox = harness.linux.sandbox_configs()[0].clone();
    let elsewhere =
        cri::NetworkAttachment::Namespace { ip: "10.32.0.3".parse().unwrap(), path: "/run/netns/fake".into() };
    assert_eq!(sandbox.network, elsewhere, "not the network of the node");
    harness.until_event("web", "container web is WebAssembly").await;
    harness.linux.exit("uid-web", "d", 3);
    let ended = |pod: &Value| state(pod)["terminated"]["exitCode"] == 3;
    harness.until("web", "the debugger has ended", ended).await;
    // Nor does another agent start it.
    harness.stop().await;
    harness.linux.take_calls();
    harness.spawn().await;
    harness.until_node_ready().await;
    change(&harness, "web", |spec| spec["terminationGracePeriodSeconds"] = json!(1));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(ended(&harness.pod("web")));
    assert_eq!(harness.linux.take_calls(), [""; 0]);
    harness.api.delete_gracefully("web", 1);
    harness.until_gone("web").await;
    assert!(cri::PodNetwork::list(&harness.network).await.unwrap().is_empty(), "both addresses are given back");
}

fn resources(cpu: &str) -> Value {
    json!({"limits": {"cpu": cpu}, "requests": {"cpu": cpu}})
}

#[tokio::test]
async fn a_running_container_is_resized() {
    let harness = Harness::start().await;
    let container = json!({"name": "c", "image": "linux:v1", "resources": resources("100m")});
    harness.apply("web", json!({"containers": [container]}));
    harness.until_running("web").await;
    let status = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    let has = |pod: &Value, cpu: &str| status(pod)["resources"]["limits"]["cpu"] == cpu;
    harness.linux.fail_resize("c", "not yet");
    change(&harness, "web", |spec| spec["containers"][0]["resources"] = resources("200m"));
    let under_way = |pod: &Value| condition(pod, "PodResizeInProgress") == "True";
    let pod = harness.until("web", "the resize is under way", under_way).await;
    assert!(has(&pod, "100m") && status(&pod)["allocatedResources"]["cpu"] == "200m", "{pod}");
    harness.until_event("web", "ResizeError: cannot resize container c: not yet").await;
    harness.linux.heal("c");
    let pod = harness.until("web", "it is resized", |pod| has(pod, "200m")).await;
    assert_eq!((condition(&pod, "PodResizeInProgress"), &status(&pod)["restartCount"]), ("absent", &json!(0)));
    assert_eq!(harness.linux.container_config("c").unwrap().resources.cpu_limit_millis, Some(200));
    // More than the node has: the container keeps what it has, also when it starts again.
    change(&harness, "web", |spec| spec["containers"][0]["resources"] = resources("100000"));
    let pending = |pod: &Value| condition(pod, "PodResizePending") == "True";
    let pod = harness.until("web", "it is refused", pending).await;
    let all = pod["status"]["conditions"].as_array().unwrap();
    assert_eq!(all.iter().find(|one| one["type"] == "PodResizePending").unwrap()["reason"], "Infeasible");
    harness.linux.exit("uid-web", "c", 1);
    harness
        .until("web", "it runs again", |pod| status(pod)["restartCount"] == 1 && condition(pod, "Ready") == "True")
        .await;
    assert_eq!(harness.linux.container_config("c").unwrap().resources.cpu_limit_millis, Some(200));
    change(&harness, "web", |spec| spec["containers"][0]["resources"] = resources("200m"));
    harness.until("web", "nothing is wanted", |pod| !pending(pod)).await;
}

#[tokio::test]
async fn a_resize_may_need_a_restart() {
    let harness = Harness::start().await;
    let container = json!({"name": "c", "image": "wasm:v1", "resources": resources("100m"),
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
    harness.apply("web", json!({"containers": [container]}));
    harness.until_running("web").await;
    change(&harness, "web", |spec| spec["containers"][0]["resources"] = resources("150m"));
    let resized = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1
            && status["resources"]["limits"]["cpu"] == "150m"
            && condition(pod, "Ready") == "True"
    };
    harness.until("web", "it runs again with more", resized).await;
    harness.until_event("web", "Killing: Container c resize requires restart").await;
}
