//! An image that was pushed to one server is there for all, also when that server is not.

use std::time::Duration;

use e2e::needs::{example, missing, skip};
use e2e::{eventually, within};
use serde_json::{Value, json};
use servers::nodes::Cluster;
use servers::{Servers, Storage};

/// The server whose own node runs pods, and the name of that node.
const WITH_NODE: usize = 2;
const NODE: &str = "third";
/// Until every server has what was pushed to one.
const COPIED_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn an_image_is_there_for_all() {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing).unwrap_or_default();
    }
    let Some(mut servers) = Servers::none(Storage::Folder) else { return };
    let founder = servers.add();
    servers.start_server(founder, &[]);
    for _ in 0..2 {
        let newcomer = servers.add();
        servers.servers[newcomer].node = (newcomer == WITH_NODE).then_some(NODE);
        servers.join(newcomer, &[]);
    }
    servers.wait_well();
    let mut scene = Cluster::of(servers);
    a_node_of_another_server_runs_it(&scene);
    nobody_else_gives_content(&scene);
    the_last_push_wins(&scene);
    its_server_may_be_gone(&mut scene);
    scene.servers.servers[WITH_NODE].stop();
}

fn push(scene: &Cluster, server: usize, file: &str, tag: &str) {
    let image = example(file).display().to_string();
    scene.servers.knarr(server, &["image", "build", &image, "--tag", tag]).ok();
}

/// The digest of a tag, as one server answers.
fn manifest(scene: &Cluster, server: usize, name: &str) -> Value {
    let kubeconfig = scene.servers.servers[server].kubeconfig().display().to_string();
    let path = format!("/v2/{}", name.replace(':', "/manifests/"));
    scene.kubectl_args(&["--kubeconfig", &kubeconfig, "get", "--raw", &path], "").json()
}

fn a_node_of_another_server_runs_it(scene: &Cluster) {
    push(scene, 0, "hello-http.wasm", "team/hello:v1");
    scene.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "hello" },
        "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "registry.local/team/hello:v1",
            "ports": [{ "containerPort": 8080 }] }] },
    }));
    scene.kubectl("wait --for=condition=Ready pod/hello --timeout=120s").ok();
    let pod = scene.kubectl("get pod hello -o json").json();
    let image = pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default().to_owned();
    assert!(image.contains("team/hello@sha256:"), "{image}");
}

/// What servers ask of each other is for servers.
fn nobody_else_gives_content(scene: &Cluster) {
    let path = format!("/knarr/v1/blobs/sha256:{}", "0".repeat(64));
    scene.refuses_a_stranger(&path);
}

fn the_last_push_wins(scene: &Cluster) {
    let mut before = manifest(scene, 0, "team/hello:v1");
    for (server, file) in [(1, "hello-command.wasm"), (2, "hello-http.wasm"), (0, "hello-command.wasm")] {
        push(scene, server, file, "team/hello:v1");
        let all = [0, 1, 2].map(|server| manifest(scene, server, "team/hello:v1"));
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0], all[2]);
        assert_ne!(all[0], before, "{file} was pushed to {server}");
        [before, ..] = all;
    }
}

fn its_server_may_be_gone(scene: &mut Cluster) {
    push(scene, 0, "hello-http.wasm", "team/kept:v1");
    let pushed = manifest(scene, 0, "team/kept:v1");
    let blobs = ["/config/digest", "/layers/0/digest"].map(|pointer| {
        let digest = pushed.pointer(pointer).and_then(Value::as_str).expect("an image has a config and a layer");
        digest.trim_start_matches("sha256:").to_owned()
    });
    for server in [1, 2] {
        let dir = scene.servers.servers[server].data_dir().join("images/blobs/sha256");
        within(COPIED_WITHIN, "another server has the image", || {
            if blobs.iter().all(|blob| dir.join(blob).exists()) { Ok(()) } else { Err(dir.display().to_string()) }
        });
    }
    scene.servers.servers[0].kill();
    for server in [1, 2] {
        eventually("another server answers for it", || {
            let kubeconfig = scene.servers.servers[server].kubeconfig().display().to_string();
            let asked = ["--kubeconfig", &kubeconfig, "get", "--raw", "/v2/team/kept/manifests/v1"];
            let said = scene.kubectl_args(&asked, "");
            if said.code == Some(0) { Ok(said.json()) } else { Err(said.stderr) }
        });
        assert_eq!(manifest(scene, server, "team/kept:v1"), pushed);
    }
    // And what is pushed now is pushed.
    push(scene, 1, "hello-command.wasm", "team/kept:v1");
    assert_ne!(manifest(scene, 2, "team/kept:v1"), pushed);
}
