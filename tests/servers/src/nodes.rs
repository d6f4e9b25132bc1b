//! Servers with nodes on machines of their own, as tests of nodes use them.
//!
//! Owns: how nodes join, the images that run on them, and asking through `kubectl`. May not know: what is tested.

use std::path::Path;
use std::process::Command;

use e2e::Said;
use e2e::needs::example;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::servers::Servers;

pub struct Cluster {
    pub agents: Vec<Agent>,
    pub servers: Servers,
    /// The server that is asked.
    pub asked: usize,
}

impl Cluster {
    pub fn of(servers: Servers) -> Self {
        Self { agents: Vec::new(), servers, asked: 0 }
    }

    /// Makes a token for nodes; the arguments by which an agent joins with it.
    pub fn join_args(&self) -> [String; 4] {
        let token = self.servers.servers[0].folder().join("node-token");
        std::fs::write(&token, self.servers.knarr(0, &["token", "create", "--node"]).ok()).expect("a new file");
        let url = self.servers.servers[0].url();
        ["--server".to_owned(), url, "--token-file".to_owned(), token.display().to_string()]
    }

    /// Machines with these names become nodes.
    pub fn join(&mut self, names: &[&str]) {
        let args = self.join_args();
        for (index, name) in names.iter().enumerate() {
            let mut agent = self.servers.add_node(name, index);
            agent.start(&args.each_ref().map(String::as_str));
            self.agents.push(agent);
        }
    }

    pub fn kubectl(&self, words: &str) -> Said {
        self.kubectl_args(&words.split_whitespace().collect::<Vec<_>>(), "")
    }

    pub fn kubectl_args(&self, args: &[&str], stdin: &str) -> Said {
        Said::by(
            Command::new("kubectl").args(args).env("KUBECONFIG", self.servers.servers[self.asked].kubeconfig()),
            stdin,
        )
    }

    fn build(&self, path: &Path, args: &[&str]) {
        let path = path.display().to_string();
        self.servers.knarr(self.asked, &[&["image", "build", &path], args].concat()).ok();
    }

    /// `hello` (Wasm), `backend` (a container) and `busybox`, all with the tag `v1`.
    pub fn push_images(&self, busybox: &Path) {
        self.build(&example("hello-http.wasm"), &["--tag", "hello:v1"]);
        self.build(&example("backend"), &["--tag", "backend:v1"]);
        let root = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(root.path().join("bin")).expect("a new folder");
        std::fs::create_dir_all(root.path().join("tmp")).expect("a new folder");
        std::fs::copy(busybox, root.path().join("bin/busybox")).expect("busybox can be copied");
        self.build(root.path(), &["--tag", "busybox:v1", "--entrypoint", "/bin/busybox"]);
    }

    /// Deployments of `hello` and `backend`, each with a Service that has a port on the nodes.
    pub fn deploy(&self, replicas: usize) {
        for name in ["hello", "backend"] {
            let image = format!("registry.local/{name}:v1");
            self.kubectl(&format!("create deployment {name} --image={image} --replicas={replicas}")).ok();
            self.kubectl(&format!("expose deployment {name} --port=80 --target-port=8080 --type=NodePort")).ok();
        }
    }

    /// The pod in which [`Cluster::shell`] runs; `env` is that of its container.
    pub fn start_shell(&self, node: &str, env: Value) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("shell-{node}"), "labels": { "app": "shell", "shell": node } },
            "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "registry.local/busybox:v1",
                "command": ["/bin/busybox", "sh", "-c", "echo my word is $WORD; exec /bin/busybox sleep 100000"],
                "env": env }] },
        }));
    }

    /// Until everything of [`Cluster::deploy`] and [`Cluster::start_shell`] runs.
    pub fn wait_deployed(&self) {
        for name in ["hello", "backend"] {
            self.kubectl(&format!("rollout status deployment/{name} --timeout=120s")).ok();
        }
        self.kubectl("wait --for=condition=Ready pod -l app=shell --timeout=120s").ok();
    }

    pub fn apply(&self, object: &Value) {
        self.kubectl_args(&["apply", "-f", "-"], &object.to_string()).ok();
    }

    pub fn pods(&self, app: &str) -> Vec<Value> {
        let list = self.kubectl(&format!("get pods -l app={app} -o json")).json();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Who is nobody in particular may not ask a server for `path`.
    pub fn refuses_a_stranger(&self, path: &str) {
        // The paths of servers know no impersonation: a token is of somebody else.
        self.kubectl("create serviceaccount nosy").ok();
        let token = self.kubectl("create token nosy").ok();
        let url = self.servers.servers[0].url();
        let as_nosy =
            ["--server", &url, "--token", token.trim(), "--insecure-skip-tls-verify", "--kubeconfig", "/dev/null"];
        let said = self.kubectl_args(&[&["get", "--raw", path], as_nosy.as_slice()].concat(), "").refused();
        assert!(["must be logged in", "Unauthorized", "orbidden"].iter().any(|word| said.contains(word)), "{said}");
    }

    /// Runs a command in the shell of a node.
    pub fn shell(&self, node: &str, line: &str) -> Said {
        self.kubectl_args(&["exec", &format!("shell-{node}"), "--", "/bin/busybox", "sh", "-c", line], "")
    }
}

/// A string of an object, or nothing.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
