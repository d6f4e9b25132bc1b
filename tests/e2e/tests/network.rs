//! Pods and Services of both runtimes reach each other by address and by name.

use e2e::images::BUSYBOX;
use e2e::{Cluster, eventually};

#[test]
fn pods_reach_services_and_pods_of_either_runtime() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    if !cluster.push_busybox() {
        return;
    }
    for name in ["hello", "backend"] {
        cluster.kubectl(&format!("create deployment {name} --image=registry.local/{name}:v1 --replicas=2")).ok();
        cluster.kubectl(&format!("expose deployment {name} --port=80 --target-port=8080")).ok();
        cluster.kubectl(&format!("expose deployment {name} --name={name}-each --cluster-ip=None --port=8080")).ok();
    }
    for name in ["hello", "backend"] {
        cluster.wait_rollout(name);
    }
    from_a_linux_pod(&cluster);
    from_a_wasm_pod(&cluster);
    other_namespaces_need_the_longer_name(&cluster);
    a_service_without_pods_refuses(&cluster);
}

/// Runs a shell line in a pod of its own and answers what it printed.
fn shell(cluster: &Cluster, pod: &str, line: &str) -> String {
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": BUSYBOX,
            "command": ["/bin/busybox", "sh", "-c", line] }] },
    });
    cluster.apply(&manifest.to_string());
    cluster.wait_ended(pod);
    cluster.kubectl(&format!("logs {pod}")).ok()
}

fn from_a_linux_pod(cluster: &Cluster) {
    let wasm = cluster.kubectl("get pods -l app=hello -o jsonpath={.items[0].status.podIP}").ok();
    let linux = cluster.kubectl("get pods -l app=backend -o jsonpath={.items[0].status.podIP}").ok();
    let get = |url: &str| format!("echo {url}; /bin/busybox wget -qO- {url} || echo FAILED;");
    let urls = [
        "http://hello/",
        "http://backend/",
        "http://hello.default.svc.cluster.local/",
        "http://hello-each:8080/",
        &format!("http://{wasm}:8080/"),
        &format!("http://{linux}:8080/"),
    ];
    let said = shell(cluster, "asks", &urls.map(get).concat());
    assert!(!said.contains("FAILED"), "{said}");
    assert_eq!(said.matches("Hello from hello-").count(), 4, "{said}");
    assert_eq!(said.matches("Linux container").count(), 2, "{said}");
    // A headless name is all the pods.
    let said = shell(cluster, "looks-up", "/bin/busybox nslookup hello-each.default.svc.cluster.local");
    assert_eq!(said.matches("Address: 10.").count(), 2, "{said}");
    let said = shell(cluster, "looks-up-nobody", "/bin/busybox nslookup nobody.default.svc.cluster.local || echo NONE");
    assert!(said.contains("NXDOMAIN") || said.contains("NONE"), "{said}");
}

fn from_a_wasm_pod(cluster: &Cluster) {
    for (url, says) in [
        ("http://backend/", "Linux container"),
        ("http://backend-each:8080/", "Linux container"),
        ("http://hello.default.svc/", "Hello from hello-"),
    ] {
        cluster.wait_answer("hello", 80, &format!("/call?url={url}"), says);
    }
    let answer = cluster.ask("hello", 80, "/call?url=http://nobody/").expect("the component answers");
    assert_eq!(answer.status, 502, "{answer:?}");
}

fn other_namespaces_need_the_longer_name(cluster: &Cluster) {
    cluster.kubectl("create namespace far").ok();
    cluster.kubectl("-n far create deployment hello --image=registry.local/hello:v1").ok();
    cluster.kubectl("-n far rollout status deployment/hello --timeout=40s").ok();
    let pod = cluster.kubectl("-n far get pods -o jsonpath={.items[0].status.podIP}").ok();
    let ask = |url: &str| e2e::http::get(&format!("{pod}:8080"), &format!("/call?url={url}"));
    let answer = eventually("the far pod answers", || ask("http://backend.default/"));
    assert!(answer.body.contains("Linux container"), "{answer:?}");
    assert_eq!(ask("http://backend/").expect("the far pod answers").status, 502);
}

fn a_service_without_pods_refuses(cluster: &Cluster) {
    cluster.kubectl("create service clusterip nobody --tcp=80:8080").ok();
    let refused = eventually("the Service refuses", || match cluster.ask("nobody", 80, "/") {
        Err(error) if error.to_string().contains("refused") => Ok(error.to_string()),
        other => Err(format!("{other:?}")),
    });
    println!("{refused}");
}
