//! Controllers run on one server at a time: however often the leader changes, a ReplicaSet gets the pods it wants
//! and never one more. There is no node, so no pod ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::within;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use servers::{Servers, Storage};

const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Wanted replicas, one step after the other; the leader changes in the middle of each.
const STEPS: [usize; 5] = [2, 5, 9, 14, 20];

/// What a watcher saw of all pods.
#[derive(Debug, Default)]
struct Pods {
    created: BTreeSet<String>,
    live: BTreeSet<String>,
    /// The most that were live at the same time.
    most: usize,
}

#[test]
fn controllers_run_on_one_server() {
    let Some(mut servers) = Servers::start(3, Storage::Folder) else { return };
    let clients = servers.clients();
    let api: Api<Deployment> = Api::default_namespaced(clients[0].clone());
    let made = servers.runtime.block_on(api.create(&PostParams::default(), &deployment()));
    made.expect("a deployment is made");
    let pods = Arc::new(Mutex::new(Pods::default()));
    servers.runtime.spawn(watch(clients.clone(), pods.clone()));

    for (step, wanted) in STEPS.into_iter().enumerate() {
        let leader = servers.leader();
        let next = (leader + 1) % 3;
        scale(&servers, &clients[next], wanted);
        // It may have made none, some or all of them.
        std::thread::sleep(Duration::from_millis(60 * step as u64));
        if step % 2 == 0 {
            servers.servers[leader].kill();
            wait_for_pods(&servers, &clients[next], wanted);
            servers.start_server(leader, &[]);
        } else {
            let id = servers.id(next).to_string();
            servers.knarr(next, &["member", "lead", &id]).ok();
            wait_for_pods(&servers, &clients[leader], wanted);
        }
        servers.wait_well();
        within(SETTLED_WITHIN, "the watcher saw all pods", || {
            let pods = pods.lock().expect("the watcher does not panic");
            assert!(pods.most <= wanted, "{} pods were live when {wanted} were wanted", pods.most);
            if pods.created.len() == wanted { Ok(()) } else { Err(format!("{} of {wanted}", pods.created.len())) }
        });
    }

    let last = STEPS[STEPS.len() - 1];
    scale(&servers, &clients[0], 1);
    wait_for_pods(&servers, &clients[1], 1);
    assert_eq!(pods.lock().expect("the watcher does not panic").created.len(), last, "pods were made in excess");
}

fn deployment() -> Deployment {
    let labels = json!({ "app": "counted" });
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "counted" },
        "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "main", "image": "registry.local/nothing:v1" }] },
        } },
    });
    serde_json::from_value(object).expect("it is a Deployment")
}

fn scale(servers: &Servers, client: &Client, replicas: usize) {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let patch = json!({ "spec": { "replicas": replicas } });
    within(SETTLED_WITHIN, "the deployment is scaled", || {
        let patch = Patch::Merge(&patch);
        servers.runtime.block_on(api.patch("counted", &PatchParams::default(), &patch)).map(drop)
    });
}

/// Waits until exactly so many pods are live.
fn wait_for_pods(servers: &Servers, client: &Client, wanted: usize) {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    within(SETTLED_WITHIN, &format!("{wanted} pods are there"), || {
        let list = servers.runtime.block_on(api.list(&ListParams::default())).map_err(|error| error.to_string())?;
        let live = list.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
        if live == wanted { Ok(()) } else { Err(format!("there are {live}")) }
    });
}

/// Follows all pods, at one server after the other.
async fn watch(clients: Vec<Client>, pods: Arc<Mutex<Pods>>) {
    let mut versions: BTreeMap<String, bool> = BTreeMap::new();
    let mut at = "1".to_owned();
    for turn in 0.. {
        let api: Api<Pod> = Api::default_namespaced(clients[turn % clients.len()].clone());
        let Ok(stream) = api.watch(&WatchParams::default(), &at).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut stream = Box::pin(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (pod, there) = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, true),
                WatchEvent::Deleted(pod) => (pod, false),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("the watch of pods fails: {status:?}"),
            };
            at = pod.resource_version().expect("every object has a resource version");
            versions.insert(pod.name_any(), there && pod.metadata.deletion_timestamp.is_none());
            let mut pods = pods.lock().expect("nobody panics with it");
            pods.created = versions.keys().cloned().collect();
            pods.live = versions.iter().filter(|(_, live)| **live).map(|(name, _)| name.clone()).collect();
            pods.most = pods.most.max(pods.live.len());
        }
    }
}
