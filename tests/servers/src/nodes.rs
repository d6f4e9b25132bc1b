//! Servers with nodes on machines of their own, as tests of nodes use them.
//!
//! Owns: how nodes join, and asking through `kubectl`. May not know: what runs.

use std::process::Command;

use e2e::Said;
use serde_json::Value;

use crate::agent::Agent;
use crate::servers::Servers;

pub struct Cluster {
    pub agents: Vec<Agent>,
    pub servers: Servers,
}

impl Cluster {
    pub fn of(servers: Servers) -> Self {
        Self { agents: Vec::new(), servers }
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
        Said::by(Command::new("kubectl").args(args).env("KUBECONFIG", self.servers.servers[0].kubeconfig()), stdin)
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
