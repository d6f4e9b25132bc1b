//! Native code of Wasm is compiled once in the cluster, and by a node itself when no server has it for it.

use std::path::PathBuf;
use std::time::Duration;

use e2e::needs::{example, missing, skip};
use e2e::{eventually, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use servers::nodes::{Cluster, text};
use servers::{Servers, Storage};

const NODES: [&str; 2] = ["one", "two"];
const COMPILED: &str = "native code was compiled";
const RECEIVED: &str = "native code was received";
/// A container that died is started again after a pause; then somebody is asked in vain, and it is compiled.
const COMPILED_WITHIN: Duration = Duration::from_secs(90);

#[test]
fn an_image_is_compiled_once() {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing).unwrap_or_default();
    }
    let Some(servers) = Servers::start(2, Storage::Folder) else { return };
    let mut scene = Cluster::of(servers);
    scene.join(&NODES);
    two_nodes_need_the_same(&scene);
    only_nodes_may_ask(&scene);
    nobody_answers(&scene);
}

/// How often a line is in the logs of the servers, and in that of each node. Which server compiles follows from the digest
/// of the file.
fn counts(scene: &Cluster, what: &str) -> Vec<usize> {
    let servers = scene.servers.servers.iter().map(|server| server.log().matches(what).count()).sum();
    let agents = scene.agents.iter().map(|agent| agent.log().matches(what).count());
    std::iter::once(servers).chain(agents).collect()
}

fn two_nodes_need_the_same(scene: &Cluster) {
    let image = example("hello-http.wasm").display().to_string();
    scene.servers.knarr(0, &["image", "build", &image, "--tag", "hello:v1"]).ok();
    for node in NODES {
        scene.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("hello-{node}"), "labels": { "app": "hello" } },
            "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "registry.local/hello:v1",
                "ports": [{ "containerPort": 8080 }] }] },
        }));
    }
    scene.kubectl("wait --for=condition=Ready pod -l app=hello --timeout=120s").ok();
    assert_eq!(counts(scene, COMPILED), [1, 0, 0], "once, on a server");
    assert_eq!(counts(scene, RECEIVED), [0, 1, 1]);
    assert_eq!(counts(scene, "native code was given"), [2, 0, 0]);
    for pod in scene.pods("hello") {
        let (name, ip) = (text(&pod, "/metadata/name"), text(&pod, "/status/podIP"));
        let agent = scene.agents.iter().find(|agent| agent.name == text(&pod, "/spec/nodeName"));
        let address = format!("{ip}:8080");
        let host = &agent.expect("a node of ours").host;
        let answer = host.run(move || e2e::http::get(&address, "/")).expect("the pod answers");
        assert!(answer.status == 200 && answer.body.contains(name), "{answer:?}");
    }
}

fn only_nodes_may_ask(scene: &Cluster) {
    let digest = format!("sha256:{}", "0".repeat(64));
    let path = format!("/knarr/v1/native/0123456789abcdef/{digest}?manifest={digest}&namespace=default");
    scene.refuses_a_stranger(&path);
    // An administrator may, and is told what is wrong.
    let said = scene.kubectl(&format!("get --raw {path}")).refused();
    assert!(said.contains("its version or processor differs"), "{said}");
}

/// A node whose code is lost while no server can be reached.
fn nobody_answers(scene: &Cluster) {
    scene.servers.unplug_node(1);
    let data = scene.agents[1].data_dir();
    for entry in std::fs::read_dir(data.join("native")).expect("a directory").flatten() {
        if entry.file_name() != "key" {
            std::fs::remove_file(entry.path()).expect("a file can be removed");
        }
    }
    let pid = host_pid(data.join("run/wasm/hosts"));
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the sandbox host runs");
    within(COMPILED_WITHIN, "node two compiles for itself", || match counts(scene, COMPILED).as_slice() {
        [1, 0, 1] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    scene.servers.plug_node(1);
    eventually("the pod is Ready again", || {
        let pod = scene.kubectl("get pod hello-two -o json").json();
        let status = &pod["status"]["containerStatuses"][0];
        match (status["restartCount"].as_u64(), status["ready"].as_bool()) {
            (Some(1..), Some(true)) => Ok(()),
            _ => Err(status.to_string()),
        }
    });
}

/// The only sandbox host of a node.
fn host_pid(hosts: PathBuf) -> i32 {
    let host = std::fs::read_dir(hosts).expect("a directory").flatten().next().expect("a host runs");
    let process = std::fs::read(host.path().join("process.json")).expect("a file");
    let process: Value = serde_json::from_slice(&process).expect("JSON");
    process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a process id")
}
