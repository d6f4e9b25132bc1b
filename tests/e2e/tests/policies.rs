//! Network policies are enforced for pods of both kinds, on both ends, in process and over the network.

use e2e::images::BUSYBOX;
use e2e::{Cluster, eventually};
use serde_json::{Value, json};

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum Client {
    /// Components, asked from the node.
    WasmOfShop,
    WasmOfGuest,
    /// Shells.
    LinuxOfShop,
    LinuxOfGuest,
}
use Client::{LinuxOfGuest, LinuxOfShop, WasmOfGuest, WasmOfShop};

const ALL: [Client; 4] = [WasmOfShop, WasmOfGuest, LinuxOfShop, LinuxOfGuest];
const HELLO: &str = "http://hello.shop.svc.cluster.local/";
const BACKEND: &str = "http://backend.shop.svc.cluster.local/";

struct World {
    cluster: Cluster,
    /// Addresses of the components that call.
    front: String,
    guest: String,
}

impl World {
    fn up() -> Option<Self> {
        let cluster = Cluster::up()?;
        cluster.push_examples();
        if !cluster.push_busybox() {
            return None;
        }
        for namespace in ["shop", "guest"] {
            cluster.kubectl(&format!("create namespace {namespace}")).ok();
            cluster.apply(&shell(namespace).to_string());
            let front = "create deployment front --image=registry.local/hello:v1";
            cluster.kubectl(&format!("-n {namespace} {front}")).ok();
        }
        for name in ["hello", "backend"] {
            cluster.kubectl(&format!("-n shop create deployment {name} --image=registry.local/{name}:v1")).ok();
            cluster.kubectl(&format!("-n shop expose deployment {name} --port=80 --target-port=8080")).ok();
        }
        for (namespace, name) in [("shop", "front"), ("shop", "hello"), ("shop", "backend"), ("guest", "front")] {
            cluster.kubectl(&format!("-n {namespace} rollout status deployment/{name} --timeout=120s")).ok();
        }
        for namespace in ["shop", "guest"] {
            cluster.kubectl(&format!("-n {namespace} wait --for=condition=Ready pod/shell --timeout=60s")).ok();
        }
        let address = |namespace: &str, app: &str| pod_address(&cluster, namespace, app);
        let (front, guest) = (address("shop", "front"), address("guest", "front"));
        Some(Self { cluster, front, guest })
    }

    fn reaches(&self, client: Client, url: &str) -> bool {
        let by_component = |address: &str| {
            let answer = e2e::http::get(&format!("{address}:8080"), &format!("/call?url={url}"));
            let answer = answer.expect("the node reaches every pod");
            assert!([200, 502].contains(&answer.status), "{answer:?}");
            answer.status == 200
        };
        let by_shell = |namespace: &str| {
            let asked = format!("-n {namespace} exec shell -- /bin/busybox wget -qO- {url}");
            self.cluster.kubectl(&asked).success
        };
        match client {
            WasmOfShop => by_component(&self.front),
            WasmOfGuest => by_component(&self.guest),
            LinuxOfShop => by_shell("shop"),
            LinuxOfGuest => by_shell("guest"),
        }
    }

    /// Waits until exactly these clients reach the URL, and again to see that it stays so.
    #[track_caller]
    fn only(&self, url: &str, clients: &[Client]) {
        let found = || {
            let reach = ALL.into_iter().filter(|client| self.reaches(*client, url));
            reach.map(|client| format!("{client:?}")).collect::<Vec<_>>()
        };
        let expect: Vec<String> = clients.iter().map(|client| format!("{client:?}")).collect();
        eventually(&format!("{url} is reached by {expect:?}"), || {
            let found = found();
            if found == expect { Ok(()) } else { Err(format!("{found:?}")) }
        });
        assert_eq!(found(), expect, "{url}");
    }

    fn policy(&self, namespace: &str, name: &str, spec: Value) {
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": name}, "spec": spec});
        self.cluster.apply(&object.to_string());
    }

    fn delete(&self, namespace: &str, name: &str) {
        self.cluster.kubectl(&format!("-n {namespace} delete networkpolicy {name}")).ok();
    }
}

fn pod_address(cluster: &Cluster, namespace: &str, app: &str) -> String {
    cluster.kubectl(&format!("-n {namespace} get pods -l app={app} -o jsonpath={{.items[0].status.podIP}}")).ok()
}

fn shell(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": "shell", "labels": {"app": "shell"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": BUSYBOX,
            "command": ["/bin/busybox", "sleep", "3600"]}]}})
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

#[test]
fn policies_are_enforced_for_pods_of_both_kinds() {
    let Some(world) = World::up() else { return };
    for url in [HELLO, BACKEND] {
        world.only(url, &ALL);
    }
    ingress(&world);
    egress(&world);
    for url in [HELLO, BACKEND] {
        world.only(url, &ALL);
    }
}

fn ingress(world: &World) {
    world.policy("shop", "deny", json!({"podSelector": {}}));
    for url in [HELLO, BACKEND] {
        world.only(url, &[]);
    }
    // Probes go on, and so does the node.
    let ready = world.cluster.kubectl("-n shop get deployments -o jsonpath={.items[*].status.readyReplicas}").ok();
    assert_eq!(ready, "1 1 1");

    // By label, with the port by its number.
    let rule = json!({"from": [{"podSelector": app("front")}], "ports": [{"port": 8080}]});
    world.policy("shop", "allow", json!({"podSelector": {}, "ingress": [rule]}));
    for url in [HELLO, BACKEND] {
        world.only(url, &[WasmOfShop]);
    }
    // By namespace, and only to one of them.
    let from = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "guest"}}}]);
    world.policy("shop", "allow", json!({"podSelector": app("hello"), "ingress": [{"from": from}]}));
    world.only(HELLO, &[WasmOfGuest, LinuxOfGuest]);
    world.only(BACKEND, &[]);
    // By both.
    let from = json!([{"namespaceSelector": {}, "podSelector": app("shell")}]);
    world.policy("shop", "allow", json!({"podSelector": {}, "ingress": [{"from": from}]}));
    for url in [HELLO, BACKEND] {
        world.only(url, &[LinuxOfShop, LinuxOfGuest]);
    }
    // By another port than it listens on.
    world.policy(
        "shop",
        "allow",
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": 8081, "endPort": 9000}]}]}),
    );
    world.only(HELLO, &[]);
    world.delete("shop", "allow");
    world.delete("shop", "deny");
}

fn egress(world: &World) {
    let backend = pod_address(&world.cluster, "shop", "backend");
    world.policy("guest", "out", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    for url in [HELLO, BACKEND] {
        world.only(url, &[WasmOfShop, LinuxOfShop]);
    }
    let names = json!({"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}]});
    // A pod is in its block, and called by its Service.
    let block = json!({"to": [{"ipBlock": {"cidr": format!("{backend}/32")}}]});
    let spec = |rules: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules});
    world.policy("guest", "out", spec(json!([names, block])));
    world.only(BACKEND, &ALL);
    world.only(HELLO, &[WasmOfShop, LinuxOfShop]);
    // Without names nobody gets there, though the way is free.
    world.policy("guest", "out", spec(json!([block])));
    world.only(BACKEND, &[WasmOfShop, LinuxOfShop]);
    // A range without that pod.
    let hole = json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [format!("{backend}/32")]}}]});
    world.policy("guest", "out", spec(json!([names, hole])));
    world.only(HELLO, &ALL);
    world.only(BACKEND, &[WasmOfShop, LinuxOfShop]);

    // In process: who calls is isolated, not who is called.
    world.policy("shop", "out", spec(json!([names])));
    world.only(HELLO, &[WasmOfGuest, LinuxOfGuest]);
    let hello = json!({"to": [{"podSelector": app("hello")}], "ports": [{"port": 8080}]});
    world.policy("shop", "out", spec(json!([names, hello])));
    world.only(HELLO, &ALL);
    world.delete("shop", "out");
    world.delete("guest", "out");
}
