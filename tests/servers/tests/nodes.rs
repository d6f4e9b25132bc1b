//! Nodes on machines of their own: they join, run pods that reach each other, answer through the API, come back, and are
//! missed.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::needs::{missing, program, skip};
use e2e::{eventually, within};
use serde_json::{Value, json};
use servers::nodes::{Cluster, text};
use servers::{Servers, Storage};

const NODES: [&str; 2] = ["one", "two"];
/// Until a node that is silent is missed, and some time for a busy machine.
const MISSED_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn pods_run_on_machines_that_joined() {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing).unwrap_or_default();
    }
    let Some(busybox) = program("busybox") else { return skip("there is no busybox on the PATH").unwrap_or_default() };
    let Some(mut servers) = Servers::none(Storage::Folder) else { return };
    let server = servers.add();
    servers.start_server(server, &[]);
    let mut scene = Cluster::of(servers);
    nodes_join(&mut scene);
    scene.push_images(&busybox);
    deploy(&scene);
    they_are_spread(&scene);
    they_reach_each_other(&scene);
    the_api_reaches_them(&scene);
    a_node_reads_what_is_its_own(&scene);
    an_agent_takes_over(&mut scene);
    a_node_that_stays_away_is_missed(&mut scene);
}

/// As tools for machines know it from kubeadm: a Secret, a binding, and the certificate of the cluster.
#[test]
fn a_bootstrap_token_makes_a_node() {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing).unwrap_or_default();
    }
    let Some(mut servers) = Servers::none(Storage::Folder) else { return };
    let server = servers.add();
    servers.start_server(server, &[]);
    let scene = Cluster::of(servers);
    let secret = |expiration: &str| {
        scene.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": { "name": "bootstrap-token-abcdef", "namespace": "kube-system" },
            "stringData": { "token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-authentication": "true" },
        }));
    };
    secret("2100-01-01T00:00:00Z");
    let folder = scene.servers.servers[0].folder().to_owned();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a new file");
        path.display().to_string()
    };
    let token = file("bootstrap-token", "abcdef.0123456789abcdef\n");
    let authority = scene.kubectl("get configmap kube-root-ca.crt -o jsonpath={.data.ca\\.crt}").ok();
    let authority = file("ca.crt", &authority);
    let url = scene.servers.servers[0].url();
    let join = ["--server", &url, "--token-file", &token, "--ca-file", &authority];

    let mut agent = scene.servers.add_node("booted", 0);
    let said = agent.refused(&join);
    assert!(said.contains("forbidden"), "nobody said that it may: {said}");
    scene
        .kubectl("create clusterrolebinding joiners --clusterrole=knarr:node-joiner --group=system:bootstrappers")
        .ok();
    agent.start(&join);
    scene.kubectl("wait --for=condition=Ready node/booted --timeout=60s").ok();

    // A token that is over admits nobody, and the node that it made stays one.
    secret("2020-01-01T00:00:00Z");
    let late = scene.servers.add_node("late", 1);
    let said = late.refused(&join);
    assert!(said.contains("401") || said.contains("nauthorized"), "{said}");
    agent.kill();
    agent.start(&[]);
    scene.kubectl("wait --for=condition=Ready node/booted --timeout=60s").ok();
}

fn nodes_join(scene: &mut Cluster) {
    let args = scene.join_args();
    let args @ [_, url, _, token] = args.each_ref().map(String::as_str);
    for (index, name) in NODES.into_iter().enumerate() {
        let mut agent = scene.servers.add_node(name, index);
        if index == 0 {
            let said = agent.refused(&[]);
            assert!(said.contains("--token-file"), "{said}");
        } else {
            // What is taken is not given again.
            let other = scene.servers.add_node("one", 9);
            let said = other.refused(&args);
            assert!(said.contains("there is a node \"one\" already"), "{said}");
        }
        agent.start(&args);
        scene.agents.push(agent);
    }
    // With the same token nobody becomes a server.
    let newcomer = scene.servers.add();
    let join = ["--no-node", "--join", url, "--token-file", token];
    let said = scene.servers.servers[newcomer].refused(&join);
    assert!(said.contains("for nodes only"), "{said}");
    scene.servers.servers.truncate(newcomer);
    let nodes = scene.kubectl("get nodes -o json").json();
    let ranges: Vec<&str> =
        nodes["items"].as_array().expect("a list").iter().map(|node| text(node, "/spec/podCIDR")).collect();
    assert_eq!(ranges, ["10.32.128.0/24", "10.32.129.0/24"]);
}

fn deploy(scene: &Cluster) {
    scene.deploy(4);
    scene.kubectl("create secret generic named --from-literal=word=sesame").ok();
    scene.kubectl("create secret generic other --from-literal=word=none").ok();
    let env = json!([{ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "named", "key": "word" } } }]);
    for node in NODES {
        scene.start_shell(node, env.clone());
    }
    scene.wait_deployed();
}

fn they_are_spread(scene: &Cluster) {
    for app in ["hello", "backend"] {
        let pods = scene.pods(app);
        let nodes: BTreeSet<&str> = pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
        assert_eq!((pods.len(), nodes), (4, BTreeSet::from(NODES)), "{app}");
        for pod in &pods {
            let range = if text(pod, "/spec/nodeName") == "one" { "10.32.128." } else { "10.32.129." };
            assert!(text(pod, "/status/podIP").starts_with(range), "{}", text(pod, "/status/podIP"));
        }
    }
}

/// From pods of each node to all pods of both, and to Services; from outside by the port of any node.
fn they_reach_each_other(scene: &Cluster) {
    let addresses: Vec<String> = ["hello", "backend"]
        .iter()
        .flat_map(|app| scene.pods(app))
        .map(|pod| format!("http://{}:8080/", text(&pod, "/status/podIP")))
        .collect();
    let mut urls = addresses.clone();
    urls.extend(["http://hello/", "http://backend.default.svc.cluster.local/"].map(str::to_owned));
    let ask = |url: &String| format!("/bin/busybox wget -qO- {url} || echo FAILED {url};");
    let line: String = urls.iter().map(ask).collect();
    for node in NODES {
        let said = scene.shell(node, &line).ok();
        assert!(!said.contains("FAILED"), "from {node}: {said}");
        assert_eq!(said.matches("Hello from hello-").count(), 5, "{said}");
        // A Service leads to pods of both nodes.
        let many = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do /bin/busybox wget -qO- http://hello/; done";
        let said = scene.shell(node, many).ok();
        for pod in scene.pods("hello") {
            let name = text(&pod, "/metadata/name");
            assert!(said.contains(name), "{name} was never asked by {node}: {said}");
        }
    }
    let port = scene.kubectl("get service hello -o jsonpath={.spec.ports[0].nodePort}").ok();
    for agent in &scene.agents {
        for turn in 0..12 {
            let path = if turn % 2 == 0 { "/" } else { "/call?url=http://backend/" };
            let answer = e2e::http::get(&format!("{}:{port}", agent.address), path);
            let answer = answer.unwrap_or_else(|error| panic!("{} {path}: {error}", agent.name));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

/// Logs, exec and metrics of pods of both nodes.
fn the_api_reaches_them(scene: &Cluster) {
    for node in NODES {
        assert_eq!(scene.kubectl(&format!("logs shell-{node}")).ok(), "my word is sesame\n");
        assert_eq!(scene.shell(node, "echo $WORD").ok(), "sesame\n");
        let metrics = scene.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/resource")).ok();
        assert!(metrics.contains(&format!("shell-{node}")), "{metrics}");
    }
    for pod in scene.pods("hello") {
        let name = text(&pod, "/metadata/name");
        assert!(scene.kubectl(&format!("logs {name}")).success, "{name}");
    }
}

/// A node that is taken over by somebody gives him no more than what runs there.
fn a_node_reads_what_is_its_own(scene: &Cluster) {
    let as_node = |words: &str| {
        let mut args: Vec<&str> = words.split_whitespace().collect();
        args.extend(["--as", "system:node:one", "--as-group", "system:nodes"]);
        scene.kubectl_args(&args, "")
    };
    as_node("get secret named").ok();
    as_node("get pod shell-one").ok();
    as_node("get pods -A").ok();
    for (words, why) in [
        ("get secret other", "no pod that is bound to node"),
        ("get secrets", "by name"),
        ("get secrets -A", "by name"),
        ("delete pod shell-two", "set to itself"),
        ("label node two x=y", "not allowed to modify"),
        ("scale deployment hello --replicas=0", "forbidden"),
    ] {
        let said = as_node(words).refused();
        assert!(said.contains(why), "{words}: {said}");
    }
}

/// Killed and started again, without a token: what runs is not touched.
fn an_agent_takes_over(scene: &mut Cluster) {
    let of_node = |scene: &Cluster| {
        let list = scene.kubectl("get pods -o json --field-selector spec.nodeName=one").json();
        let seen = |pod: &Value| {
            let pointer = |pointer: &str| text(pod, pointer).to_owned();
            (pointer("/metadata/uid"), pointer("/status/podIP"), pointer("/status/containerStatuses/0/containerID"))
        };
        list["items"].as_array().expect("a list").iter().map(seen).collect::<BTreeSet<_>>()
    };
    let before = of_node(scene);
    assert!(before.len() >= 3, "{before:?}");
    scene.agents[0].kill();
    // Its pods answer while it is dead.
    let address = scene
        .pods("hello")
        .iter()
        .find(|pod| text(pod, "/spec/nodeName") == "one")
        .map(|pod| text(pod, "/status/podIP").to_owned());
    let address = address.expect("a pod of node one");
    let line = format!("/bin/busybox wget -qO- http://{address}:8080/");
    assert!(scene.shell("two", &line).ok().contains("Hello from"));
    scene.agents[0].start(&[]);
    eventually("exec goes to the agent that took over", || {
        let said = scene.shell("one", "echo $WORD");
        if said.stdout == "sesame\n" { Ok(()) } else { Err(said.everything()) }
    });
    assert_eq!(of_node(scene), before);
    let restarts = scene.kubectl("get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}").ok();
    assert!(restarts.split_whitespace().all(|count| count == "0"), "{restarts}");
}

fn a_node_that_stays_away_is_missed(scene: &mut Cluster) {
    scene.servers.unplug_node(1);
    let what = "the node is NotReady, tainted, and its pods are out of their Service";
    within(MISSED_WITHIN, what, || {
        let node = scene.kubectl("get node two -o json").json();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
        let taints = node["spec"]["taints"].to_string();
        let slices = scene.kubectl("get endpointslices -l kubernetes.io/service-name=hello -o json").json();
        let endpoints = slices["items"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let usable = endpoints.filter(|one| one["nodeName"] == "two" && one["conditions"]["ready"] == true).count();
        if ready["status"] == "Unknown" && taints.contains("unreachable") && usable == 0 {
            return Ok(());
        }
        Err(format!("{ready} {taints}, {usable} endpoints"))
    });
    // The rest goes on.
    let said = scene.shell("one", "for i in 1 2 3 4 5 6; do /bin/busybox wget -qO- http://hello/; done").ok();
    assert_eq!(said.matches("Hello from").count(), 6, "{said}");
    scene.servers.plug_node(1);
    scene.kubectl("wait --for=condition=Ready node/two --timeout=90s").ok();
    eventually("the node answers again", || {
        let said = scene.shell("two", "echo $WORD");
        if said.stdout == "sesame\n" { Ok(()) } else { Err(said.everything()) }
    });
}
