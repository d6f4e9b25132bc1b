//! The Node object: registered at the start, its status kept true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cri::StoredImage;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::{Handler, PODS_DEFAULT};
use crate::machine::Pressure;
use crate::pod::execute::NodeContext;
use crate::supervisor::SupervisorHandle;

/// A status that did not change is written this often, and looked at this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// How long the runtimes may take to tell what runs before the node says that they do not. A node that says so for a
/// moment after every start of the agent takes all its pods out of their Services.
const RUNTIMES_PATIENCE: Duration = Duration::from_secs(5);
/// Below these the node is under pressure.
const MEMORY_AVAILABLE_MIN: u64 = 100 << 20;
const DISK_AVAILABLE_PERMILLE_MIN: u64 = 50;
/// Images listed in the status, as the kubelet limits them.
const IMAGES_MAX: usize = 50;

/// Keeps the Node object of this machine.
pub struct Publisher {
    context: Arc<NodeContext>,
    port: u16,
    supervisor: SupervisorHandle,
}

impl Publisher {
    pub fn new(context: Arc<NodeContext>, port: u16, supervisor: SupervisorHandle) -> Self {
        Self { context, port, supervisor }
    }

    /// Runs until the agent stops.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.publish() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn publish(&self) {
        let api = Api::<Node>::all(self.context.client.clone());
        let mut ready = self.supervisor.runtimes_ready.clone();
        let mut retry = RETRY_FIRST;
        let mut conditions = loop {
            match self.register(&api).await {
                Ok(known) => break known,
                Err(error) => tracing::warn!(%error, "cannot register the node yet"),
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LOOK_EVERY);
        };
        let _ = tokio::time::timeout(RUNTIMES_PATIENCE, ready.wait_for(|ready| *ready)).await;
        let mut written: Option<(Value, Timestamp)> = None;
        loop {
            let now = Timestamp::now();
            let is_ready = *ready.borrow_and_update();
            let images = self.context.images.list().await.unwrap_or_default();
            // Whoever missed the node's heartbeats may have said so in the same place.
            if let Ok(Some(node)) = api.get_opt(&self.context.config.node_name).await {
                conditions = node.status.and_then(|status| status.conditions).unwrap_or(conditions);
            }
            conditions = next_conditions(&conditions, &self.verdicts(is_ready), now);
            let body = self.status(&conditions, &images);
            let stale = |at: &Timestamp| now.duration_since(*at).unsigned_abs() >= HEARTBEAT_EVERY;
            let due = written.as_ref().is_none_or(|(before, at)| *before != without_heartbeat(&body) || stale(at));
            if due {
                let patch = Patch::Merge(json!({"status": body}));
                match api.patch_status(&self.context.config.node_name, &PatchParams::default(), &patch).await {
                    Ok(_) => written = Some((without_heartbeat(&body), now)),
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        if let Err(error) = self.register(&api).await {
                            tracing::warn!(%error, "cannot register the node again");
                        }
                    }
                    Err(error) => tracing::warn!(%error, "cannot write the node status"),
                }
            }
            let wait = if written.is_some() { LOOK_EVERY } else { RETRY_FIRST };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = ready.changed() => {}
            }
        }
    }

    /// Makes sure that the object is there with our labels; answers the conditions it has.
    async fn register(&self, api: &Api<Node>) -> Result<Vec<NodeCondition>, kube::Error> {
        let config = &self.context.config;
        let mut metadata = json!({"labels": self.labels()});
        let spec = json!({"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr]});
        if let Some(node) = api.get_opt(&config.node_name).await? {
            let absent: BTreeMap<&str, Value> = Handler::ALL
                .iter()
                .filter(|handler| self.context.runtimes.get(**handler).is_none())
                .map(|handler| (label_of(*handler), Value::Null))
                .collect();
            if let (Some(labels), Value::Object(absent)) = (metadata["labels"].as_object_mut(), json!(absent)) {
                labels.extend(absent);
            }
            let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
            api.patch(&config.node_name, &PatchParams::default(), &patch).await?;
            return Ok(node.status.and_then(|status| status.conditions).unwrap_or_default());
        }
        metadata["name"] = json!(config.node_name);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec});
        let node: Node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &node).await?;
        Ok(Vec::new())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let config = &self.context.config;
        let arch = &self.context.machine.architecture;
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), arch.clone()),
            ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("beta.kubernetes.io/arch".to_owned(), arch.clone()),
        ]);
        for (handler, _) in self.context.runtimes.iter() {
            labels.insert(label_of(handler).to_owned(), "true".to_owned());
        }
        labels.extend(config.labels.clone());
        labels
    }

    fn verdicts(&self, ready: bool) -> [Verdict; 4] {
        let pressure = Pressure::read(&self.context.config.data_dir);
        let memory = pressure.memory_available_bytes < MEMORY_AVAILABLE_MIN;
        let disk = pressure.disk_available_permille < DISK_AVAILABLE_PERMILLE_MIN;
        [
            Verdict::pressure("MemoryPressure", memory, ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory")),
            Verdict::pressure("DiskPressure", disk, ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure")),
            Verdict::pressure("PIDPressure", false, ("KubeletHasInsufficientPID", "KubeletHasSufficientPID")),
            Verdict {
                type_: "Ready",
                holds: ready,
                reason: if ready { "KubeletReady" } else { "KubeletNotReady" },
                message: if ready {
                    "kubelet is posting ready status".into()
                } else {
                    "container runtime is down: a runtime of this node does not answer".into()
                },
            },
        ]
    }

    fn status(&self, conditions: &[NodeCondition], images: &[StoredImage]) -> Value {
        let (config, machine) = (&self.context.config, &self.context.machine);
        let resources = json!({
            "cpu": api::quantity::Quantity::from_millis(i64::try_from(machine.cpu_millis).unwrap_or(i64::MAX)).to_string(),
            "memory": format!("{}Ki", machine.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", machine.ephemeral_storage_bytes / 1024),
            "pods": config.capacity.pods.unwrap_or(PODS_DEFAULT).to_string(),
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        });
        let mut images: Vec<&StoredImage> = images.iter().filter(|image| !image.names.is_empty()).collect();
        images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.digest.cmp(&b.digest)));
        let row = |image: &&StoredImage| {
            let mut names = image.names.clone();
            names.sort();
            json!({"names": names, "sizeBytes": image.size_bytes})
        };
        json!({
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": config.node_ip.to_string()},
                {"type": "Hostname", "address": config.node_name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "nodeInfo": {
                "machineID": machine.machine_id,
                "systemUUID": machine.machine_id,
                "bootID": machine.boot_id,
                "kernelVersion": machine.kernel_version,
                "osImage": machine.os_image,
                "containerRuntimeVersion": concat!("knarr://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": config.version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": machine.architecture,
            },
            "images": images.iter().take(IMAGES_MAX).map(row).collect::<Vec<Value>>(),
        })
    }
}

fn label_of(handler: Handler) -> &'static str {
    match handler {
        Handler::Wasm => "knarr.dev/wasm",
        Handler::Container => "knarr.dev/container",
    }
}

/// What one condition says now.
struct Verdict {
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn pressure(type_: &'static str, holds: bool, (bad, good): (&'static str, &'static str)) -> Self {
        let reason = if holds { bad } else { good };
        let words = match type_ {
            "MemoryPressure" => "memory available",
            "DiskPressure" => "disk space available",
            _ => "PID available",
        };
        let message = format!("kubelet has {} {words}", if holds { "insufficient" } else { "sufficient" });
        Self { type_, holds, reason, message }
    }
}

/// The conditions now; a transition time stays while the status does.
fn next_conditions(before: &[NodeCondition], verdicts: &[Verdict], now: Timestamp) -> Vec<NodeCondition> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let condition = |verdict: &Verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        let same = before.iter().find(|known| known.type_ == verdict.type_ && known.status == status);
        NodeCondition {
            type_: verdict.type_.to_owned(),
            status: status.to_owned(),
            reason: Some(verdict.reason.to_owned()),
            message: Some(verdict.message.clone()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: same
                .and_then(|known| known.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        }
    };
    let own = |known: &&NodeCondition| verdicts.iter().any(|verdict| verdict.type_ == known.type_);
    let foreign = before.iter().filter(|known| !own(known)).cloned();
    verdicts.iter().map(condition).chain(foreign).collect()
}

/// For comparing: two statuses that differ only in when they were made are the same.
fn without_heartbeat(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = Value::Null;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_times_stay_while_the_status_does() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let verdict = |ready| [Verdict { type_: "Ready", holds: ready, reason: "R", message: String::new() }];
        let transition =
            |conditions: &[NodeCondition]| conditions[0].last_transition_time.as_ref().map(|time| time.0.as_second());
        let first = next_conditions(&[], &verdict(false), at(10));
        let same = next_conditions(&first, &verdict(false), at(20));
        let other = next_conditions(&same, &verdict(true), at(30));
        assert_eq!([transition(&first), transition(&same), transition(&other)], [Some(10), Some(10), Some(30)]);
        let status = |conditions: &[NodeCondition]| json!({"conditions": conditions});
        assert_eq!(without_heartbeat(&status(&first)), without_heartbeat(&status(&same)));
    }
}
