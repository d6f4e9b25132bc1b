//! What a person types: kubectl's reading and writing commands against a running cluster.

use e2e::images::{BACKEND, HELLO};
use e2e::{Cluster, eventually};

fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{containers: [{{name: main, image: '{image}'}}]}}\n"
    )
}

fn config_map(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: '{value}'}}\n")
}

#[test]
fn objects_are_shown_changed_watched_and_deleted() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    nodes_and_kinds(&cluster);
    apply_creates_updates_and_says_unchanged(&cluster);
    running_pods_are_shown(&cluster);
    logs_are_followed(&cluster);
    watches_see_what_happens(&cluster);
    deletes_take_the_owned_objects_along(&cluster);
}

fn nodes_and_kinds(cluster: &Cluster) {
    let nodes = cluster.kubectl("get nodes").ok();
    assert!(nodes.contains("node-1") && nodes.contains("Ready"), "{nodes}");
    assert!(cluster.kubectl("get nodes -o wide").ok().contains("INTERNAL-IP"));
    let node = cluster.kubectl("get node node-1 -o json").json();
    assert_eq!(node["metadata"]["labels"]["knarr.dev/wasm"], "true", "{node}");
    assert_eq!(node["status"]["nodeInfo"]["operatingSystem"], "linux");
    assert!(cluster.kubectl("describe node node-1").ok().contains("KubeletReady"));
    let kinds = cluster.kubectl("api-resources").ok();
    for kind in ["deployments", "pods", "endpointslices", "roles", "leases"] {
        assert!(kinds.contains(kind), "no {kind} in {kinds}");
    }
    let explained = cluster.kubectl("explain deployment.spec.strategy").ok();
    assert!(explained.contains("rollingUpdate"), "{explained}");
    assert!(cluster.kubectl("version").ok().contains("+knarr."));
    let spaces = cluster.kubectl("get namespaces").ok();
    assert!(spaces.contains("kube-system") && spaces.contains("default"), "{spaces}");
    assert!(cluster.kubectl("get --raw /readyz").ok().contains("ok"));
    assert_eq!(cluster.kubectl("auth can-i create deployments").ok().trim(), "yes");
}

fn apply_creates_updates_and_says_unchanged(cluster: &Cluster) {
    assert!(cluster.apply(&config_map("red")).contains("created"));
    assert!(cluster.apply(&config_map("red")).contains("unchanged"));
    assert!(cluster.apply(&config_map("blue")).contains("configured"));
    assert_eq!(cluster.value("configmap/settings", ".data.colour"), "blue");
    let yaml = cluster.kubectl("get configmap settings -o yaml").ok();
    assert!(yaml.contains("colour: blue") && yaml.contains("resourceVersion:"), "{yaml}");
    cluster.kubectl("label configmap settings season=winter").ok();
    assert!(cluster.kubectl("get configmaps -l season=winter -o name").ok().contains("configmap/settings"));
    assert!(cluster.kubectl("get configmaps -l season=summer").everything().contains("No resources"));
}

fn running_pods_are_shown(cluster: &Cluster) {
    cluster.apply(&pod("wasm", HELLO));
    cluster.apply(&pod("linux", BACKEND));
    for name in ["wasm", "linux"] {
        cluster.wait_value(&format!("pod/{name}"), ".status.phase", "Running");
    }
    let table = cluster.kubectl("get pods -o wide").ok();
    assert!(table.contains("NOMINATED NODE") && table.contains("node-1") && table.contains("1/1"), "{table}");
    let described = cluster.kubectl("describe pod linux").ok();
    for text in ["Started", "Node:", "Image:", "Scheduled"] {
        assert!(described.contains(text), "no {text} in {described}");
    }
    let list = cluster.kubectl("get pods --field-selector spec.nodeName=node-1 -o json").json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    let address = cluster.value("pod/wasm", ".status.podIP");
    let answer = eventually("the Wasm pod answers at its address", || e2e::http::get(&format!("{address}:8080"), "/"));
    assert!(answer.body.contains("Hello"), "{answer:?}");
}

fn logs_are_followed(cluster: &Cluster) {
    let address = cluster.value("pod/linux", ".status.podIP");
    assert!(cluster.kubectl("logs linux").ok().contains("backend listens on port 8080"));
    let follower = cluster.kubectl_in_background("logs -f linux");
    follower.wait_for("listens");
    eventually("the Linux pod answers", || e2e::http::get(&format!("{address}:8080"), "/seen-in-the-log"));
    follower.wait_for("/seen-in-the-log");
    let address = cluster.value("pod/wasm", ".status.podIP");
    eventually("the Wasm pod logs", || e2e::http::get(&format!("{address}:8080"), "/log?text=words-of-a-guest"));
    eventually("the guest's line is in its log", || {
        let said = cluster.kubectl("logs wasm --timestamps --tail=5");
        if said.stdout.contains("words-of-a-guest") { Ok(()) } else { Err(said.stdout + &said.stderr) }
    });
    assert!(cluster.kubectl("logs nobody").refused().contains("not found"));
}

fn watches_see_what_happens(cluster: &Cluster) {
    let watch = cluster.kubectl_in_background("get configmaps -w --output-watch-events");
    watch.wait_for("settings");
    cluster.kubectl("create configmap seen --from-literal=a=b").ok();
    cluster.kubectl("label configmap seen changed=yes").ok();
    cluster.kubectl("delete configmap seen").ok();
    watch.wait_for("DELETED");
    let said = watch.said();
    let events: Vec<&str> =
        said.lines().filter(|line| line.contains(" seen ")).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(events, ["ADDED", "MODIFIED", "DELETED"], "{said}");
}

fn deletes_take_the_owned_objects_along(cluster: &Cluster) {
    cluster.kubectl("delete pod wasm linux").ok();
    assert!(!cluster.kubectl("get pod wasm").success);
    cluster.kubectl("create namespace short-lived").ok();
    cluster.kubectl("-n short-lived create deployment web --image=registry.local/backend:v1 --replicas=2").ok();
    cluster.kubectl("-n short-lived rollout status deployment/web --timeout=40s").ok();
    cluster.kubectl("delete namespace short-lived --timeout=40s").ok();
    assert!(cluster.kubectl("get pods -A -o name").ok().is_empty());
}
