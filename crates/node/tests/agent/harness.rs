//! One node agent on fakes, with words to say what a test wants and expects.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::fake::{FakeImages, FakeNetwork, FakeRuntime};
use node::{Node, NodeConfig, NodeDeps, NodeHandle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fake_api::FakeApi;
use crate::pki::Pki;

/// Nothing that a test waits for takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Harness {
    pub api: FakeApi,
    pub wasm: FakeRuntime,
    pub linux: FakeRuntime,
    pub images: FakeImages,
    pub network: FakeNetwork,
    pub pki: Pki,
    pub dir: tempfile::TempDir,
    pub node: Option<NodeHandle>,
    image_gc_every: Option<Duration>,
}

impl Harness {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// An agent that looks after images this often.
    pub async fn start_with(image_gc_every: Option<Duration>) -> Self {
        let mut harness = Self {
            api: FakeApi::new(),
            wasm: FakeRuntime::new("wasm"),
            linux: FakeRuntime::new("container"),
            images: FakeImages::default(),
            network: FakeNetwork::default(),
            pki: Pki::new(),
            dir: tempfile::tempdir().unwrap(),
            node: None,
            image_gc_every,
        };
        harness.images.offer("wasm:v1", true, false);
        harness.images.offer("linux:v1", false, true);
        harness.images.offer("both:v1", true, true);
        harness.spawn().await;
        harness
    }

    pub async fn spawn(&mut self) {
        let mut config = NodeConfig::new("n1", self.dir.path(), self.pki.server_config());
        config.endpoint_listen = "127.0.0.1:0".parse().unwrap();
        config.image_gc_every = self.image_gc_every.unwrap_or(config.image_gc_every);
        let deps = NodeDeps {
            client: self.api.client(),
            images: Arc::new(self.images.clone()),
            runtimes: vec![Arc::new(self.wasm.clone()), Arc::new(self.linux.clone())],
            network: Arc::new(self.network.clone()),
        };
        self.node = Some(Node::spawn(config, deps, CancellationToken::new()).await.unwrap());
    }

    pub async fn stop(&mut self) {
        self.node.take().unwrap().shutdown().await;
    }

    pub fn apply(&self, name: &str, spec: Value) {
        self.api.put("pods", pod(name, spec));
    }

    pub fn pod(&self, name: &str) -> Value {
        self.api.get("pods", "default", name).unwrap_or_default()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Waits until it holds; fails with what the pod and its Events say.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let pod = self.pod(name);
            if holds(&pod) {
                return pod;
            }
            if begin.elapsed() > PATIENCE {
                let status = serde_json::to_string_pretty(&pod["status"]).unwrap();
                panic!("not in time: {what}\n{status}\n{:#?}", self.api.events(name));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_running(&self, name: &str) -> Value {
        self.until(name, "pod is ready", |pod| pod["status"]["phase"] == "Running" && condition(pod, "Ready") == "True")
            .await
    }

    pub async fn until_event(&self, name: &str, text: &str) {
        let found = |_: &Value| self.api.events(name).iter().any(|event| event.contains(text));
        self.until(name, &format!("event {text:?}"), found).await;
    }

    pub async fn until_gone(&self, name: &str) {
        self.until(name, "pod is gone", Value::is_null).await;
    }
}

pub fn pod(name: &str, mut spec: Value) -> Value {
    let annotations = spec.as_object_mut().unwrap().remove("annotations").unwrap_or(json!({}));
    spec["nodeName"] = json!("n1");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "annotations": annotations},
        "spec": spec, "status": {"phase": "Pending"},
    })
}

pub fn condition<'a>(pod: &'a Value, type_: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|c| c["type"] == type_).and_then(|c| c["status"].as_str()).unwrap_or("absent")
}

pub fn waiting(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

impl Harness {
    pub async fn until_node_ready(&self) {
        let ready = |_: &Value| {
            let node = self.api.get("nodes", "", "n1").unwrap_or_default();
            condition(&node, "Ready") == "True"
        };
        self.until("n1", "node is ready", ready).await;
    }
}
