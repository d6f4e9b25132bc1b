//! Reads a Pod: the questions the agent asks of its specification, each answered in one place.
//! Pure; knows nothing of what runs.

use std::borrow::Cow;

use api::function::EXPORTS_CONDITION;
use api::pod::{Turn, class_of};
use cri::{Isolation, PlatformPreference};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements};

/// Annotation: `container` prefers the Linux manifest of an index.
pub const RUNTIME_ANNOTATION: &str = "knarr.dev/runtime";
/// Annotation: `pod` gives the pod a sandbox host of its own.
pub const ISOLATION_ANNOTATION: &str = "knarr.dev/isolation";
/// Annotation: `true` lets Wasm containers open TCP and UDP sockets.
pub const ALLOW_SOCKETS_ANNOTATION: &str = "knarr.dev/allow-sockets";
/// RuntimeClass names whose handler is `container`.
const CONTAINER_CLASSES: [&str; 2] = ["container", "runc"];
/// Kubernetes' default `terminationGracePeriodSeconds`.
const GRACE_SECONDS_DEFAULT: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// Which list of the pod a container stands in, and how it takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: stays while the others run.
    Sidecar,
    Main,
    /// Added to a pod that runs, to look into it; started once and never again.
    Ephemeral,
}

/// A Pod with its answers. Borrowed, cheap to make.
#[derive(Clone, Copy)]
pub struct PodView<'a> {
    pub pod: &'a Pod,
}

impl<'a> PodView<'a> {
    pub fn new(pod: &'a Pod) -> Self {
        Self { pod }
    }

    /// The specification; the API server never stores a pod without one.
    pub fn spec(self) -> Option<&'a PodSpec> {
        self.pod.spec.as_ref()
    }

    pub fn uid(self) -> &'a str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn name(self) -> &'a str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(self) -> &'a str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Its Wasm containers may open sockets of their own.
    pub fn opens_sockets(self) -> bool {
        self.annotation(ALLOW_SOCKETS_ANNOTATION) == Some("true")
    }

    pub fn main_containers(self) -> &'a [Container] {
        self.spec().map_or(&[], |spec| &spec.containers)
    }

    pub fn init_containers(self) -> &'a [Container] {
        self.spec().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
    }

    /// What was added to the running pod.
    pub fn ephemeral_containers(self) -> &'a [EphemeralContainer] {
        self.spec().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
    }

    /// The container whose processes an ephemeral one wants to see.
    pub fn target_of(self, name: &str) -> Option<&'a str> {
        let container = self.ephemeral_containers().iter().find(|container| container.name == name)?;
        container.target_container_name.as_deref().filter(|target| !target.is_empty())
    }

    /// Init containers first, each with its role; none of the ephemeral ones.
    pub fn containers(self) -> impl Iterator<Item = (&'a Container, Role)> {
        let init = self.init_containers().iter().map(|container| (container, init_role(container)));
        init.chain(self.main_containers().iter().map(|container| (container, Role::Main)))
    }

    /// Those that a pod's amounts come of, and when each runs.
    pub fn turns(self) -> impl Iterator<Item = (Turn, &'a Container)> {
        let init = self.init_containers().iter();
        let init = init.map(|container| (Turn::of_init(container.restart_policy.as_deref()), container));
        init.chain(self.main_containers().iter().map(|container| (Turn::Main, container)))
    }

    /// What the pod says of itself beside its containers, if it says something.
    pub fn shared_resources(self) -> Option<&'a ResourceRequirements> {
        let shared = self.spec()?.resources.as_ref()?;
        let mut sides = [&shared.limits, &shared.requests].into_iter().flatten();
        sides.any(|amounts| !amounts.is_empty()).then_some(shared)
    }

    pub fn container(self, name: &str) -> Option<(&'a Container, Role)> {
        self.containers().find(|(container, _)| container.name == name)
    }

    /// A container of any role.
    pub fn any_container(self, name: &str) -> Option<Cow<'a, Container>> {
        let own = self.container(name).map(|(container, _)| Cow::Borrowed(container));
        let added = || self.ephemeral_containers().iter().find(|container| container.name == name);
        own.or_else(|| added().map(|container| Cow::Owned(plain(container))))
    }

    pub fn restart_policy(self) -> RestartPolicy {
        match self.spec().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// The policy one container is under: sidecars always restart, init containers under `Always`
    /// restart only when they failed.
    pub fn restart_policy_of(self, role: Role) -> RestartPolicy {
        match (role, self.restart_policy()) {
            (Role::Sidecar, _) => RestartPolicy::Always,
            (Role::Ephemeral, _) => RestartPolicy::Never,
            (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
            (Role::Init | Role::Main, policy) => policy,
        }
    }

    pub fn host_network(self) -> bool {
        self.spec().and_then(|spec| spec.host_network).unwrap_or(false)
    }

    /// Seconds containers get to end: of the deletion when there is one, else of the specification.
    pub fn grace_seconds(self) -> u64 {
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        let spec = self.spec().and_then(|spec| spec.termination_grace_period_seconds);
        asked.or(spec).map_or(GRACE_SECONDS_DEFAULT, |seconds| u64::try_from(seconds).unwrap_or(0))
    }

    pub fn isolation(self) -> Isolation {
        match self.annotation(ISOLATION_ANNOTATION) {
            Some("pod") => Isolation::Pod,
            _ => Isolation::Namespace,
        }
    }

    /// The pod is ready only when what its component exports is known (a readiness gate says so).
    pub fn wants_exports(self) -> bool {
        let gates = self.spec().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
        gates.iter().any(|gate| gate.condition_type == EXPORTS_CONDITION)
    }

    /// Why the pod asks for Linux containers although a Wasm manifest may be there.
    pub fn container_wish(self) -> Option<String> {
        if self.annotation(RUNTIME_ANNOTATION) == Some("container") {
            return Some(format!("annotation {RUNTIME_ANNOTATION}=container"));
        }
        let class = self.spec().and_then(|spec| spec.runtime_class_name.as_deref())?;
        CONTAINER_CLASSES.contains(&class).then(|| format!("RuntimeClass {class}"))
    }

    pub fn preference(self) -> PlatformPreference {
        match self.container_wish() {
            Some(_) => PlatformPreference::ContainerOnly,
            None => PlatformPreference::WasmFirst,
        }
    }

    /// The phase the API has, when it is a last one.
    pub fn ended_phase(self) -> Option<&'a str> {
        let phase = self.pod.status.as_ref()?.phase.as_deref()?;
        matches!(phase, "Succeeded" | "Failed").then_some(phase)
    }
}

/// An ephemeral container as one of the others: it has all of their fields, and one more.
pub fn plain(container: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = container.clone();
    Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    }
}

fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

/// `imagePullPolicy`, defaulted as the API server does it: `Always` for `:latest` or no tag.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some("Never") => PullPolicy::Never,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or(image);
            let latest = !last.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// `.status.qosClass`
pub fn qos_class(pod: &Pod) -> &'static str {
    let pod = PodView::new(pod);
    match pod.shared_resources() {
        Some(shared) => class_of(bounds(Some(shared))),
        None => class_of(pod.containers().flat_map(|(container, _)| bounds(container.resources.as_ref()))),
    }
}

/// Request and limit of each of the two resources that make the class.
fn bounds(resources: Option<&ResourceRequirements>) -> [(Option<&str>, Option<&str>); 2] {
    ["cpu", "memory"].map(|name| {
        let request = resources.and_then(|resources| resources.requests.as_ref()?.get(name));
        let limit = resources.and_then(|resources| resources.limits.as_ref()?.get(name));
        (request.map(|request| request.0.as_str()), limit.map(|limit| limit.0.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn qos_classes() {
        let check = |resources: Value, expect: &str| {
            let pod = pod(json!({"containers": [{"name": "c", "resources": resources}]}));
            assert_eq!(qos_class(&pod), expect, "{resources}");
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable");
        check(json!({"limits": {"cpu": "1"}}), "Burstable");
        let whole = |of_pod: Value, expect: &str| {
            let containers = json!([{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]);
            assert_eq!(qos_class(&pod(json!({"resources": of_pod, "containers": containers}))), expect, "{of_pod}");
        };
        whole(json!({}), "Guaranteed");
        whole(json!({"limits": {}}), "Guaranteed");
        whole(json!({"limits": {"memory": "1Gi"}}), "Burstable");
        whole(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}), "Burstable");
        whole(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2000m"}}), "Guaranteed");
    }

    #[test]
    fn pull_policy_defaults_follow_the_tag() {
        let check = |image: &str, expect| {
            let container = Container { image: Some(image.into()), ..Default::default() };
            assert_eq!(pull_policy(&container), expect, "{image}");
        };
        check("hello", PullPolicy::Always);
        check("hello:latest", PullPolicy::Always);
        check("hello:v1", PullPolicy::IfNotPresent);
        check("localhost:5000/hello", PullPolicy::Always);
        check("localhost:5000/hello:v1", PullPolicy::IfNotPresent);
        check("hello@sha256:00", PullPolicy::IfNotPresent);
    }

    #[test]
    fn the_runtime_wish_comes_from_annotation_or_class() {
        let plain = pod(json!({"containers": []}));
        assert_eq!(PodView::new(&plain).preference(), PlatformPreference::WasmFirst);
        let class = pod(json!({"containers": [], "runtimeClassName": "runc"}));
        assert_eq!(PodView::new(&class).container_wish().as_deref(), Some("RuntimeClass runc"));
        let wasm = pod(json!({"containers": [], "runtimeClassName": "wasmtime"}));
        assert_eq!(PodView::new(&wasm).preference(), PlatformPreference::WasmFirst);
    }
}
