//! What an operator written with kube-rs does: applies, watches, waits, reads logs, runs commands, forwards ports and
//! deletes.

use std::time::Duration;

use e2e::Cluster;
use e2e::images::{BUSYBOX, HELLO};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As much as is piped through a container.
const MUCH: usize = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(120);
const MANAGER: &str = "kube-rs-test";

#[test]
fn an_operator_of_kube_rs_does_its_work() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    let has_shell = cluster.push_busybox();
    let kubeconfig = cluster.kubeconfig();
    // Fails when another test of this process has chosen one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let all = async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig is read");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("the kubeconfig is understood")).expect("a client");
        applies_and_conflicts(&client).await;
        watches(&client).await;
        deploys(&client).await;
        if has_shell {
            reaches_into_a_pod(&client).await;
        }
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await.expect("all of it in two minutes") });
}

async fn applies_and_conflicts(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = |colour: &str| {
        let metadata = json!({ "name": "mine" });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "colour": colour } })
    };
    let apply = |manager: &str| PatchParams::apply(manager);
    let first = maps.patch("mine", &apply(MANAGER), &Patch::Apply(map("red"))).await.expect("applied");
    let again = maps.patch("mine", &apply(MANAGER), &Patch::Apply(map("red"))).await.expect("applied again");
    assert_eq!(first.resource_version(), again.resource_version(), "what changes nothing writes nothing");
    let other = maps.patch("mine", &apply("other"), &Patch::Apply(map("blue"))).await;
    assert!(matches!(&other, Err(kube::Error::Api(status)) if status.code == 409), "{other:?}");
    let forced = maps.patch("mine", &apply("other").force(), &Patch::Apply(map("blue"))).await.expect("forced");
    assert_eq!(forced.data.expect("data")["colour"], "blue");
    let stale = maps.replace("mine", &PostParams::default(), &first).await;
    assert!(matches!(&stale, Err(kube::Error::Api(status)) if status.code == 409), "{stale:?}");
}

/// A plain watch, and a reflector that lists by the watch itself.
async fn watches(client: &Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let params = WatchParams::default().labels("for=kube-rs").timeout(60);
    let from = maps.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a revision");
    let mut events = Box::pin(maps.watch(&params, &from).await.expect("a watch"));
    let (store, writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().labels("for=kube-rs").streaming_lists();
    let mirrored = watcher(maps.clone(), config).reflect(writer).applied_objects();
    let mirror = tokio::spawn(mirrored.for_each(|_| std::future::ready(())));
    store.wait_until_ready().await.expect("the first list ends");
    for index in 0..20 {
        let map = json!({ "metadata": { "name": format!("seen-{index}"), "labels": { "for": "kube-rs" } } });
        let map = serde_json::from_value(map).expect("a ConfigMap");
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    maps.patch("seen-0", &PatchParams::default(), &Patch::Merge(json!({ "data": { "a": "b" } })))
        .await
        .expect("patched");
    maps.delete("seen-0", &DeleteParams::default()).await.expect("deleted");
    let mut told = Vec::new();
    while told.len() < 22 {
        told.push(match events.try_next().await.expect("an event").expect("more events") {
            WatchEvent::Added(map) => format!("added {}", map.name_any()),
            WatchEvent::Modified(map) => format!("modified {}", map.name_any()),
            WatchEvent::Deleted(map) => format!("deleted {}", map.name_any()),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(error) => panic!("{error:?}"),
        });
    }
    let mut expect: Vec<String> = (0..20).map(|index| format!("added seen-{index}")).collect();
    expect.extend(["modified seen-0".to_owned(), "deleted seen-0".to_owned()]);
    assert_eq!(told, expect, "each change once and in order");
    while store.len() != 19 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mirror.abort();
    let gone = maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("for=kube-rs")).await;
    gone.expect("the collection is deleted");
}

async fn deploys(client: &Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let labels = json!({ "app": "web" });
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": 2,
        "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
            "containers": [{ "name": "main", "image": HELLO, "ports": [{ "containerPort": 8080 }] }] } } } });
    let applied =
        deployments.patch("web", &PatchParams::apply(MANAGER), &Patch::Apply(deployment)).await.expect("applied");
    await_condition(deployments.clone(), "web", conditions::is_deployment_completed()).await.expect("it completes");
    let scale = deployments.get_scale("web").await.expect("a scale");
    assert_eq!(scale.status.expect("a status").replicas, 2);
    let running = pods.list(&ListParams::default().labels("app=web")).await.expect("pods").items;
    let name = running.first().expect("a pod").name_any();

    let mut forwarded = pods.portforward(&name, &[8080]).await.expect("a port");
    let mut stream = forwarded.take_stream(8080).expect("a stream");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stream);
    // Whether its closing of the connection or the server's comes first is chance: joining tells of that as an error.
    forwarded.abort();

    deployments.delete("web", &DeleteParams::foreground()).await.expect("deleted");
    let uid = applied.uid().expect("a uid");
    await_condition(deployments, "web", conditions::is_deleted(&uid)).await.expect("it goes");
    let left = pods.list(&ListParams::default().labels("app=web")).await.expect("pods").items;
    assert!(left.is_empty(), "its pods went before it");
}

async fn reaches_into_a_pod(client: &Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let script = "for i in 1 2 3; do echo line $i; done; exec /bin/busybox sleep 1000";
    let pod = json!({ "metadata": { "name": "shell" }, "spec": { "terminationGracePeriodSeconds": 0, "containers": [{
        "name": "main", "image": BUSYBOX, "command": ["/bin/busybox", "sh", "-c", script] }] } });
    let pod = serde_json::from_value(pod).expect("a Pod");
    let made = pods.create(&PostParams::default(), &pod).await.expect("created");
    await_condition(pods.clone(), "shell", conditions::is_pod_running()).await.expect("it runs");

    let follow = LogParams { follow: true, ..LogParams::default() };
    let lines = pods.log_stream("shell", &follow).await.expect("a log").lines();
    let lines: Vec<String> = lines.take(3).try_collect().await.expect("three lines");
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);
    let last = LogParams { tail_lines: Some(1), ..LogParams::default() };
    assert_eq!(pods.logs("shell", &last).await.expect("a log"), "line 3\n");

    let mut failing =
        pods.exec("shell", ["/bin/busybox", "sh", "-c", "exit 3"], &AttachParams::default()).await.expect("run");
    let status = failing.take_status().expect("a status").await.expect("it ends");
    assert_eq!(status.status.as_deref(), Some("Failure"), "{status:?}");
    assert!(status.message.unwrap_or_default().contains("exit status 3"));

    let cat = AttachParams::default().stdin(true).stderr(false);
    let count = MUCH.to_string();
    let mut process = pods.exec("shell", ["/bin/busybox", "head", "-c", count.as_str()], &cat).await.expect("run");
    let (mut stdin, mut stdout) = (process.stdin().expect("stdin"), process.stdout().expect("stdout"));
    let much: Vec<u8> = (0..=250).cycle().take(MUCH).collect();
    let sent = much.clone();
    let sending = tokio::spawn(async move { stdin.write_all(&sent).await });
    let mut back = Vec::new();
    stdout.read_to_end(&mut back).await.expect("it comes back");
    sending.await.expect("no panic").expect("all was sent");
    assert!(back == much, "{} of {MUCH} bytes came back, or others", back.len());

    pods.delete("shell", &DeleteParams::default()).await.expect("deleted");
    let uid = made.uid().expect("a uid");
    await_condition(pods, "shell", conditions::is_deleted(&uid)).await.expect("it goes");
}
