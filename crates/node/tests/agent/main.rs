//! The whole agent on fake runtimes, images, network and API: what a user sees when a pod is applied.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endpoint;
mod fake_api;
mod harness;
mod image_gc;
mod pki;
mod running_pods;
mod streams;

use std::time::{Duration, Instant};

use harness::{Harness, condition, pod, waiting};
use serde_json::json;

#[tokio::test]
async fn a_wasm_pod_runs_at_once() {
    let harness = Harness::start().await;
    harness.until_node_ready().await;
    let begin = Instant::now();
    harness.apply("web", json!({"containers": [{"name": "web", "image": "wasm:v1"}]}));
    let pod = harness.until_running("web").await;
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    let status = &pod["status"];
    assert_eq!(status["podIP"], "10.32.0.2");
    assert_eq!(status["podIPs"][0]["ip"], "10.32.0.2");
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["qosClass"], "BestEffort");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["image"], "wasm:v1");
    assert_eq!(container["imageID"], "wasm@sha256:11");
    assert_eq!(container["restartCount"], 0);
    assert_eq!(container["ready"], true);
    assert_eq!(container["started"], true);
    assert!(container["containerID"].as_str().unwrap().starts_with("wasm://wasm-"));
    for type_ in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&pod, type_), "True", "{type_}");
    }
    let expect = ["prepare_image wasm:v1", "run_pod_sandbox web", "create_container web#0", "start_container web#0"];
    assert_eq!(harness.wasm.take_calls(), expect);
    for event in
        ["Pulling: Pulling image \"wasm:v1\"", "Created: Created container: web", "Started: Started container web"]
    {
        harness.until_event("web", event).await;
    }
    let config = harness.wasm.container_config("web").unwrap();
    assert!(config.env.contains(&("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())));
    assert_eq!(config.log_path, harness.path("logs/pods/default_web_uid-web/web/0.log"));
    let sandbox = &harness.wasm.sandbox_configs()[0];
    assert_eq!(sandbox.dns.servers, ["10.96.0.10"]);
    assert_eq!(sandbox.dns.searches[..2], ["default.svc.cluster.local", "svc.cluster.local"]);
    assert_eq!(sandbox.isolation, cri::Isolation::Namespace);
}

#[tokio::test]
async fn a_pod_that_is_to_be_called_is_ready_when_its_exports_are_known() {
    let harness = Harness::start().await;
    let spec = json!({"containers": [{"name": "function", "image": "wasm:v1"}],
        "readinessGates": [{"conditionType": "knarr.dev/Exports"}]});
    harness.apply("calc", spec.clone());
    let exports = |pod: &serde_json::Value| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == "knarr.dev/Exports").unwrap_or_default()
    };
    let told = |pod: &serde_json::Value| exports(pod)["reason"] == "NoExports";
    let pod = harness.until("calc", "it says that there are no exports", told).await;
    assert_eq!((condition(&pod, "Ready"), condition(&pod, "ContainersReady")), ("False", "True"));
    assert_eq!(exports(&pod)["status"], "False");
    harness.wasm.set_exports("function", &["add", "sub"]);
    harness.apply("calc2", spec);
    let pod = harness.until_running("calc2").await;
    let message = exports(&pod)["message"].as_str().unwrap().to_owned();
    assert_eq!(message, r#"[{"name":"add","signature":"func()"},{"name":"sub","signature":"func()"}]"#);
    harness.until_event("calc", "NoExports").await;
}

#[tokio::test]
async fn a_mixed_pod_has_a_sandbox_in_each_runtime_and_one_network() {
    let harness = Harness::start().await;
    let containers = json!([{"name": "front", "image": "wasm:v1"}, {"name": "back", "image": "linux:v1"}]);
    harness.apply("mix", json!({"containers": containers}));
    harness.until_running("mix").await;
    let (wasm, linux) = (harness.wasm.sandbox_configs(), harness.linux.sandbox_configs());
    assert_eq!(wasm[0].network, linux[0].network);
    assert!(matches!(wasm[0].network, cri::NetworkAttachment::Namespace { .. }));
    assert_eq!(wasm[0].isolation, cri::Isolation::Pod);
    let back = harness.linux.container_config("back").unwrap();
    assert!(back.mounts.iter().any(|mount| mount.container_path == "/etc/hosts"));
}

#[tokio::test]
async fn an_image_the_wasm_runtime_refuses_falls_back_to_its_container() {
    let harness = Harness::start().await;
    harness.wasm.refuse_image("both:v1", "import foo:bar/baz is not provided");
    harness.wasm.refuse_image("wasm:v1", "import foo:bar/baz is not provided");
    harness.apply("both", json!({"containers": [{"name": "c", "image": "both:v1"}]}));
    let pod = harness.until_running("both").await;
    assert!(pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().starts_with("container://"));
    harness.until_event("both", "FallbackToContainer").await;
    harness.until_event("both", "import foo:bar/baz is not provided").await;
    harness.apply("only", json!({"containers": [{"name": "c", "image": "wasm:v1"}]}));
    let pod = harness.until("only", "refused", |pod| waiting(pod) == "ImageNotSupported").await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("import foo:bar/baz"), "{message}");
}

#[tokio::test]
async fn an_annotation_chooses_the_container() {
    let harness = Harness::start().await;
    let annotations = json!({"knarr.dev/runtime": "container"});
    harness.apply("both", json!({"annotations": annotations, "containers": [{"name": "c", "image": "both:v1"}]}));
    let pod = harness.until_running("both").await;
    assert!(pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().starts_with("container://"));
    harness.until_event("both", "RuntimeSelected").await;
    harness.apply("only", json!({"annotations": annotations, "containers": [{"name": "c", "image": "wasm:v1"}]}));
    harness.until_running("only").await;
}

#[tokio::test]
async fn a_crashed_container_starts_again_once_and_then_waits() {
    let harness = Harness::start().await;
    harness.wasm.exit_at_start("c", &[3, 4]);
    harness.apply("crash", json!({"containers": [{"name": "c", "image": "wasm:v1"}]}));
    let pod = harness.until("crash", "back-off", |pod| waiting(pod) == "CrashLoopBackOff").await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 4);
    assert_eq!(container["lastState"]["terminated"]["reason"], "Error");
    let message = container["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "back-off 10s restarting failed container=c pod=crash_default(uid-crash)");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready"), "False");
    harness.until_event("crash", "BackOff: Back-off restarting failed container c").await;
}

#[tokio::test]
async fn a_one_shot_pod_ends_and_gives_back_what_it_held() {
    let harness = Harness::start().await;
    harness.wasm.exit_at_start("good", &[0]);
    harness.wasm.exit_at_start("bad", &[7]);
    for (name, phase) in [("good", "Succeeded"), ("bad", "Failed")] {
        let containers = json!([{"name": name, "image": "wasm:v1"}]);
        harness.apply(name, json!({"restartPolicy": "Never", "containers": containers}));
        let pod = harness.until(name, phase, |pod| pod["status"]["phase"] == phase).await;
        let state = &pod["status"]["containerStatuses"][0]["state"];
        assert_eq!(state["terminated"]["exitCode"], if name == "good" { 0 } else { 7 });
        harness.until(name, "sandbox removed", |_| harness.wasm.sandbox_configs().is_empty()).await;
    }
    harness
        .until("good", "addresses given back", |_| {
            futures::executor::block_on(cri::PodNetwork::list(&harness.network)).unwrap().is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_deleted_pod_leaves_nothing() {
    let harness = Harness::start().await;
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    harness.apply("web", json!({"volumes": volumes, "containers": [{"name": "web", "image": "wasm:v1"}]}));
    harness.until_running("web").await;
    assert!(harness.path("pods/uid-web/volumes/v").is_dir());
    harness.wasm.take_calls();
    harness.api.delete_gracefully("web", 20);
    harness.until_gone("web").await;
    let calls = harness.wasm.take_calls();
    assert!(calls[0].starts_with("stop_container web grace 1"), "{calls:?}");
    assert!(calls.last().unwrap().starts_with("remove_pod_sandbox"), "{calls:?}");
    assert!(!harness.path("pods/uid-web").exists());
    assert!(!harness.path("logs/pods/default_web_uid-web").exists());
    harness.until_event("web", "Killing: Stopping container web").await;
    harness.apply("forced", json!({"containers": [{"name": "web", "image": "wasm:v1"}]}));
    harness.until_running("forced").await;
    harness.api.remove("pods", "default", "forced");
    harness.until("forced", "cleaned", |_| harness.wasm.sandbox_configs().is_empty()).await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_says_so_and_comes_later() {
    let harness = Harness::start().await;
    harness.apply("web", json!({"containers": [{"name": "web", "image": "nowhere:v1"}]}));
    harness.until("web", "error", |pod| waiting(pod) == "ErrImagePull").await;
    harness.until_event("web", "Failed to pull image \"nowhere:v1\"").await;
    harness.until("web", "back-off", |pod| waiting(pod) == "ImagePullBackOff").await;
    harness.until_event("web", "BackOff: Back-off pulling image \"nowhere:v1\"").await;
    let mut pod = harness.pod("web");
    pod["spec"]["containers"][0]["image"] = json!("wasm:v1");
    harness.api.put("pods", pod);
    harness.until_running("web").await;
}

#[tokio::test]
async fn a_missing_config_map_holds_the_container_until_it_appears() {
    let harness = Harness::start().await;
    let env = json!([{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "color"}}}]);
    harness.apply("web", json!({"containers": [{"name": "web", "image": "wasm:v1", "env": env}]}));
    harness.until("web", "config error", |pod| waiting(pod) == "CreateContainerConfigError").await;
    let config_map = json!({"metadata": {"name": "conf", "namespace": "default"}, "data": {"color": "red"}});
    harness.api.put("configmaps", config_map);
    harness.until_running("web").await;
    assert!(harness.wasm.container_config("web").unwrap().env.contains(&("COLOR".into(), "red".into())));
}

#[tokio::test]
async fn a_config_map_volume_follows_its_object() {
    let harness = Harness::start().await;
    let config_map = |text: &str| json!({"metadata": {"name": "conf", "namespace": "default"}, "data": {"a": text}});
    harness.api.put("configmaps", config_map("old"));
    let mounts = json!([{"name": "v", "mountPath": "/conf", "readOnly": true}]);
    let volumes = json!([{"name": "v", "configMap": {"name": "conf"}}]);
    let containers = json!([{"name": "web", "image": "wasm:v1", "volumeMounts": mounts}]);
    harness.apply("web", json!({"volumes": volumes, "containers": containers}));
    harness.until_running("web").await;
    let mount = harness.wasm.container_config("web").unwrap().mounts[0].clone();
    assert_eq!((mount.container_path.as_str(), mount.read_only), ("/conf", true));
    let read = || std::fs::read_to_string(mount.host_path.join("a")).unwrap_or_default();
    assert_eq!(read(), "old");
    harness.api.put("configmaps", config_map("new"));
    harness.until("web", "the volume shows the new text", |_| read() == "new").await;
}

#[tokio::test]
async fn pods_that_name_one_object_share_its_watch() {
    let harness = Harness::start().await;
    let object = |text: &str| json!({"metadata": {"name": "shared", "namespace": "default"}, "data": {"a": text}});
    harness.api.put("configmaps", object("old"));
    harness.api.put("secrets", json!({"metadata": {"name": "own", "namespace": "default"}, "data": {}}));
    let mounts = json!([{"name": "v", "mountPath": "/conf"}, {"name": "own", "mountPath": "/own"}]);
    let apply = |name: &str| {
        let containers = json!([{"name": name, "image": "wasm:v1", "volumeMounts": mounts}]);
        let own = if name == "one" { json!({"secret": {"secretName": "own"}}) } else { json!({"emptyDir": {}}) };
        let mut volumes = json!([{"name": "v", "configMap": {"name": "shared"}}, own]);
        volumes[1]["name"] = json!("own");
        harness.apply(name, json!({"volumes": volumes, "containers": containers}));
    };
    let until_watches = async |config_maps: usize, secrets: usize| {
        let seen = || (harness.api.watches("configmaps", "shared"), harness.api.watches("secrets", "own"));
        let what = format!("{config_maps} and {secrets} watches");
        harness.until("one", &what, |_| seen() == (config_maps, secrets)).await;
    };
    let until_text = async |pod: &str, text: &str| {
        let path = harness.path(&format!("pods/uid-{pod}/volumes/v/a"));
        let reads = |_: &serde_json::Value| std::fs::read_to_string(&path).unwrap_or_default() == text;
        harness.until(pod, &format!("the volume shows {text}"), reads).await;
    };
    for name in ["one", "two", "three"] {
        apply(name);
        harness.until_running(name).await;
        until_watches(1, 1).await;
    }
    harness.api.put("configmaps", object("new"));
    for name in ["one", "two", "three"] {
        until_text(name, "new").await;
    }
    // The pod whose start began the watch goes; those that joined keep it.
    harness.api.delete_gracefully("one", 0);
    harness.until_gone("one").await;
    until_watches(1, 0).await;
    harness.api.put("configmaps", object("newer"));
    until_text("two", "newer").await;
    for name in ["two", "three"] {
        harness.api.delete_gracefully(name, 0);
        harness.until_gone(name).await;
    }
    until_watches(0, 0).await;
    // The next pod begins anew.
    apply("four");
    until_watches(1, 0).await;
    until_text("four", "newer").await;
}

#[tokio::test]
async fn init_containers_run_one_after_the_other() {
    let harness = Harness::start().await;
    harness.wasm.exit_at_start("first", &[0]);
    let init = json!([
        {"name": "first", "image": "wasm:v1"},
        {"name": "proxy", "image": "wasm:v1", "restartPolicy": "Always"},
        {"name": "second", "image": "wasm:v1"},
    ]);
    harness.apply("web", json!({"initContainers": init, "containers": [{"name": "web", "image": "wasm:v1"}]}));
    let pod =
        harness.until("web", "second runs", |pod| pod["status"]["initContainerStatuses"][2]["started"] == true).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(waiting(&pod), "PodInitializing");
    assert_eq!(condition(&pod, "Initialized"), "False");
    harness.wasm.exit("uid-web", "second", 0);
    let pod = harness.until_running("web").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let started: Vec<String> =
        harness.wasm.take_calls().into_iter().filter(|call| call.starts_with("start_container")).collect();
    let expect =
        ["start_container first#0", "start_container proxy#0", "start_container second#0", "start_container web#0"];
    assert_eq!(started, expect);
}

#[tokio::test]
async fn probes_decide_readiness_and_restarts() {
    let harness = Harness::start().await;
    let readiness = json!({"exec": {"command": ["ready"]}, "periodSeconds": 1});
    harness.wasm.exec_exits("c", 1);
    harness.apply("web", json!({"containers": [{"name": "c", "image": "wasm:v1", "readinessProbe": readiness}]}));
    let running = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["started"] == true;
    let pod = harness.until("web", "runs", running).await;
    assert_eq!(condition(&pod, "Ready"), "False");
    harness.until_event("web", "Unhealthy: Readiness probe failed: fake").await;
    harness.wasm.exec_exits("c", 0);
    harness.until_running("web").await;
    let liveness = json!({"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1});
    harness.wasm.exec_exits("d", 1);
    harness.apply("sick", json!({"containers": [{"name": "d", "image": "wasm:v1", "livenessProbe": liveness}]}));
    let restarted = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    harness.until("sick", "restarted", restarted).await;
    harness.until_event("sick", "Killing: Container d failed liveness probe, will be restarted").await;
}

#[tokio::test]
async fn a_new_agent_takes_over_what_runs_and_cleans_what_nobody_owns() {
    let mut harness = Harness::start().await;
    harness.wasm.exit_at_start("c", &[1]);
    let readiness = json!({"exec": {"command": ["ready"]}, "periodSeconds": 1});
    harness.apply("stays", json!({"containers": [{"name": "c", "image": "wasm:v1", "readinessProbe": readiness}]}));
    harness.apply("goes", json!({"containers": [{"name": "c2", "image": "wasm:v1"}]}));
    harness.until_running("stays").await;
    harness.until_running("goes").await;
    let before = harness.pod("stays");
    harness.stop().await;
    harness.api.remove("pods", "default", "goes");
    harness.wasm.take_calls();
    harness.spawn().await;
    harness.until("stays", "orphan removed", |_| harness.wasm.sandbox_configs().len() == 1).await;
    let after = harness.pod("stays");
    assert_eq!(before["status"], after["status"], "nothing changed for the pod that stays");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 1);
    let calls = harness.wasm.take_calls();
    assert!(!calls.iter().any(|call| call.starts_with("create") || call.starts_with("start")), "{calls:?}");
    harness.wasm.exit("uid-stays", "c", 9);
    let twice = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"] == 2;
    let pod = harness.until("stays", "restarted", twice).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 9);
}

#[tokio::test]
async fn stopping_all_workloads_leaves_the_objects() {
    let mut harness = Harness::start().await;
    harness.apply("web", json!({"containers": [{"name": "web", "image": "wasm:v1"}]}));
    harness.until_running("web").await;
    harness.node.take().unwrap().stop_all_workloads().await.unwrap();
    assert!(harness.wasm.containers().is_empty() && harness.wasm.sandbox_configs().is_empty());
    assert!(cri::PodNetwork::list(&harness.network).await.unwrap().is_empty());
    harness.spawn().await;
    let back = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    harness.until("web", "it comes back", back).await;
    harness.until_running("web").await;
}

#[tokio::test]
async fn an_active_deadline_fails_the_pod() {
    let harness = Harness::start().await;
    let containers = json!([{"name": "c", "image": "wasm:v1"}]);
    harness.apply("slow", json!({"activeDeadlineSeconds": 1, "containers": containers}));
    let pod = harness.until("slow", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test]
async fn the_node_is_registered_with_its_runtimes_and_keeps_its_lease() {
    let harness = Harness::start().await;
    harness.until_node_ready().await;
    let node = harness.api.get("nodes", "", "n1").unwrap();
    assert_eq!(node["metadata"]["labels"]["knarr.dev/wasm"], "true");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(node["spec"]["podCIDR"], "10.32.0.0/17");
    assert_eq!(node["status"]["allocatable"]["pods"], "1000");
    assert_eq!(node["status"]["nodeInfo"]["operatingSystem"], "linux");
    assert!(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap() > 0);
    harness.until("n1", "lease", |_| harness.api.get("leases", "kube-node-lease", "n1").is_some()).await;
    let lease = harness.api.get("leases", "kube-node-lease", "n1").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(pod("x", json!({}))["spec"]["nodeName"], "n1");
}
