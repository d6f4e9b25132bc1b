//! How lists and maps of the built-in types merge: the facts behind strategic merge patch and server-side apply.
//!
//! Owns: `patchStrategy`, `patchMergeKey`, `listType`, `listMapKey`, `mapType` and `structType` of Kubernetes' types
//! (the tags and markers in `k8s.io/api/*/types.go`), which k8s-openapi's schemas leave out.
//! May not know: how a patch is made or applied.
//!
//! A list that is not named here is replaced as a whole by both kinds of patch.

/// How strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// As any other field: lists and values are replaced, objects merged.
    Default,
    /// List items are merged with the item that has the same value in this field.
    MergeByKey { key: &'static str, retain_keys: bool },
    /// A list of scalars is united.
    MergeSet,
    /// An object is merged, but keys that the patch's `$retainKeys` does not name go.
    RetainKeys,
    /// An object is replaced as a whole.
    Replace,
}

/// How server-side apply tells the items of a field apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    Default,
    AtomicList,
    Set,
    /// A list whose items are identified by these fields.
    MapByKeys(&'static [&'static str]),
    AtomicMap,
}

/// Both, for one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRule {
    pub patch: Patch,
    pub apply: Apply,
}

const SET: FieldRule = FieldRule { patch: Patch::Default, apply: Apply::Set };
const RETAIN_KEYS: FieldRule = FieldRule { patch: Patch::RetainKeys, apply: Apply::Default };
const REPLACE: FieldRule = FieldRule { patch: Patch::Replace, apply: Apply::Default };
const ATOMIC_MAP: FieldRule = FieldRule { patch: Patch::Default, apply: Apply::AtomicMap };

const fn merge(key: &'static str, keys: &'static [&'static str]) -> FieldRule {
    FieldRule { patch: Patch::MergeByKey { key, retain_keys: false }, apply: Apply::MapByKeys(keys) }
}

const fn merge_retaining(key: &'static str, keys: &'static [&'static str]) -> FieldRule {
    FieldRule { patch: Patch::MergeByKey { key, retain_keys: true }, apply: Apply::MapByKeys(keys) }
}

const fn by_keys(keys: &'static [&'static str]) -> FieldRule {
    FieldRule { patch: Patch::Default, apply: Apply::MapByKeys(keys) }
}

/// The prefix of Kubernetes' type names, left out of the table.
const NAME_PREFIX: &str = "io.k8s.";

/// The rule of a field of a type (`io.k8s.api.core.v1.PodSpec`), when it has one.
pub fn field_rule(type_name: &str, field: &str) -> Option<&'static FieldRule> {
    let wanted = (type_name.strip_prefix(NAME_PREFIX).unwrap_or(type_name), field);
    let at = RULES.binary_search_by(|(of, name, _)| (*of, *name).cmp(&wanted)).ok()?;
    Some(&RULES[at].2)
}

/// Whether server-side apply owns objects of this type only as a whole.
pub fn is_atomic_struct(type_name: &str) -> bool {
    type_name.strip_prefix(NAME_PREFIX).is_some_and(|name| ATOMIC_STRUCTS.binary_search(&name).is_ok())
}

/// Sorted by type, then field.
#[rustfmt::skip]
static RULES: &[(&str, &str, FieldRule)] = &[
    ("api.apps.v1.DaemonSetStatus", "conditions", merge("type", &["type"])),
    ("api.apps.v1.DeploymentSpec", "strategy", RETAIN_KEYS),
    ("api.apps.v1.DeploymentStatus", "conditions", merge("type", &["type"])),
    ("api.apps.v1.ReplicaSetStatus", "conditions", merge("type", &["type"])),
    ("api.apps.v1.StatefulSetStatus", "conditions", merge("type", &["type"])),
    ("api.autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", merge("type", &["type"])),
    ("api.batch.v1.JobStatus", "conditions", FieldRule { apply: Apply::AtomicList, ..merge("type", &[]) }),
    ("api.batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", SET),
    ("api.batch.v1.UncountedTerminatedPods", "failed", SET),
    ("api.batch.v1.UncountedTerminatedPods", "succeeded", SET),
    ("api.certificates.v1.CertificateSigningRequestStatus", "conditions", by_keys(&["type"])),
    ("api.core.v1.ComponentStatus", "conditions", merge("type", &["type"])),
    ("api.core.v1.Container", "env", merge("name", &["name"])),
    ("api.core.v1.Container", "ports", merge("containerPort", &["containerPort", "protocol"])),
    ("api.core.v1.Container", "volumeDevices", merge("devicePath", &["devicePath"])),
    ("api.core.v1.Container", "volumeMounts", merge("mountPath", &["mountPath"])),
    ("api.core.v1.ContainerRestartRuleOnExitCodes", "values", SET),
    ("api.core.v1.ContainerStatus", "allocatedResourcesStatus", merge("name", &["name"])),
    ("api.core.v1.ContainerStatus", "volumeMounts", merge("mountPath", &["mountPath"])),
    ("api.core.v1.EphemeralContainer", "env", merge("name", &["name"])),
    ("api.core.v1.EphemeralContainer", "ports", merge("containerPort", &["containerPort", "protocol"])),
    ("api.core.v1.EphemeralContainer", "volumeDevices", merge("devicePath", &["devicePath"])),
    ("api.core.v1.EphemeralContainer", "volumeMounts", merge("mountPath", &["mountPath"])),
    ("api.core.v1.NamespaceStatus", "conditions", merge("type", &["type"])),
    ("api.core.v1.NodeAllocatableResourceClaimStatus", "containers", SET),
    ("api.core.v1.NodeSpec", "podCIDRs", FieldRule { patch: Patch::MergeSet, ..SET }),
    ("api.core.v1.NodeStatus", "addresses", merge("type", &["type"])),
    ("api.core.v1.NodeStatus", "conditions", merge("type", &["type"])),
    ("api.core.v1.PersistentVolumeClaimStatus", "conditions", merge("type", &["type"])),
    ("api.core.v1.PodSpec", "containers", merge("name", &["name"])),
    ("api.core.v1.PodSpec", "ephemeralContainers", merge("name", &["name"])),
    ("api.core.v1.PodSpec", "hostAliases", merge("ip", &["ip"])),
    ("api.core.v1.PodSpec", "imagePullSecrets", merge("name", &["name"])),
    ("api.core.v1.PodSpec", "initContainers", merge("name", &["name"])),
    ("api.core.v1.PodSpec", "nodeSelector", ATOMIC_MAP),
    ("api.core.v1.PodSpec", "resourceClaims", merge_retaining("name", &["name"])),
    ("api.core.v1.PodSpec", "schedulingGates", merge("name", &["name"])),
    ("api.core.v1.PodSpec", "topologySpreadConstraints", merge("topologyKey", &["topologyKey", "whenUnsatisfiable"])),
    ("api.core.v1.PodSpec", "volumes", merge_retaining("name", &["name"])),
    ("api.core.v1.PodStatus", "conditions", merge("type", &["type"])),
    ("api.core.v1.PodStatus", "hostIPs", FieldRule { apply: Apply::AtomicList, ..merge("ip", &[]) }),
    ("api.core.v1.PodStatus", "nodeAllocatableResourceClaimStatuses", merge("resourceClaimName", &["resourceClaimName"])),
    ("api.core.v1.PodStatus", "podIPs", merge("ip", &["ip"])),
    ("api.core.v1.PodStatus", "resourceClaimStatuses", merge_retaining("name", &["name"])),
    ("api.core.v1.ReplicationControllerSpec", "selector", ATOMIC_MAP),
    ("api.core.v1.ReplicationControllerStatus", "conditions", merge("type", &["type"])),
    ("api.core.v1.ResourceRequirements", "claims", by_keys(&["name"])),
    ("api.core.v1.ResourceStatus", "resources", by_keys(&["resourceID"])),
    ("api.core.v1.ServiceAccount", "secrets", merge("name", &["name"])),
    ("api.core.v1.ServiceSpec", "ports", merge("port", &["port", "protocol"])),
    ("api.core.v1.ServiceSpec", "selector", ATOMIC_MAP),
    ("api.core.v1.ServiceStatus", "conditions", merge("type", &["type"])),
    ("api.discovery.v1.Endpoint", "addresses", SET),
    ("api.flowcontrol.v1.FlowSchemaStatus", "conditions", merge("type", &["type"])),
    ("api.flowcontrol.v1.NonResourcePolicyRule", "nonResourceURLs", SET),
    ("api.flowcontrol.v1.NonResourcePolicyRule", "verbs", SET),
    ("api.flowcontrol.v1.PriorityLevelConfigurationStatus", "conditions", merge("type", &["type"])),
    ("api.flowcontrol.v1.ResourcePolicyRule", "apiGroups", SET),
    ("api.flowcontrol.v1.ResourcePolicyRule", "namespaces", SET),
    ("api.flowcontrol.v1.ResourcePolicyRule", "resources", SET),
    ("api.flowcontrol.v1.ResourcePolicyRule", "verbs", SET),
    ("api.networking.v1.ServiceCIDRStatus", "conditions", merge("type", &["type"])),
    ("api.node.v1.Scheduling", "nodeSelector", ATOMIC_MAP),
    ("api.policy.v1.PodDisruptionBudgetSpec", "selector", REPLACE),
    ("api.policy.v1.PodDisruptionBudgetStatus", "conditions", merge("type", &["type"])),
    ("api.resource.v1.AllocatedDeviceStatus", "conditions", by_keys(&["type"])),
    ("api.resource.v1.ResourceClaimStatus", "devices", by_keys(&["driver", "device", "pool", "shareID"])),
    ("api.resource.v1.ResourceClaimStatus", "reservedFor", merge("uid", &["uid"])),
    ("api.storage.v1.CSIDriverSpec", "volumeLifecycleModes", SET),
    ("api.storage.v1.CSINodeSpec", "drivers", merge("name", &["name"])),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus", "conditions", by_keys(&["type"])),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps", "x-kubernetes-validations", merge("rule", &["rule"])),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", FieldRule { patch: Patch::MergeSet, ..SET }),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", merge("uid", &["uid"])),
    ("dev.knarr.v1alpha1.FunctionGrants", "allowedHosts", SET),
    ("dev.knarr.v1alpha1.FunctionGrants", "env", merge("name", &["name"])),
    ("dev.knarr.v1alpha1.FunctionGrants", "imports", SET),
    ("dev.knarr.v1alpha1.FunctionHTTPTrigger", "methods", SET),
    ("dev.knarr.v1alpha1.FunctionSpec", "imagePullSecrets", merge("name", &["name"])),
    ("dev.knarr.v1alpha1.FunctionSpec", "triggers", merge("name", &["name"])),
    ("dev.knarr.v1alpha1.FunctionStatus", "conditions", merge("type", &["type"])),
    ("dev.knarr.v1alpha1.FunctionStatus", "exports", by_keys(&["name"])),
    ("dev.knarr.v1alpha1.FunctionStatus", "triggers", by_keys(&["name"])),
    ("kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus", "conditions", merge("type", &["type"])),
];

/// Sorted.
#[rustfmt::skip]
static ATOMIC_STRUCTS: &[&str] = &[
    "api.autoscaling.v1.CrossVersionObjectReference",
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.EndpointAddress",
    "api.core.v1.EndpointPort",
    "api.core.v1.EvictionResponder",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.ScopeSelector",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.SecretReference",
    "api.core.v1.TopologySelectorTerm",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.networking.v1.ServiceBackendPort",
    "api.rbac.v1.RoleRef",
    "api.rbac.v1.Subject",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Whether Go's type of this field has a value even where JSON has none: a struct that is no pointer, or a list
/// that is written as null.
///
/// Every object and template has `metadata`, `spec` and `status` of that form. It shows in server-side apply: who
/// first writes into such a field does not own the field itself.
pub fn is_never_absent(type_name: &str, field: &str) -> bool {
    if matches!(field, "metadata" | "spec" | "status") {
        return true;
    }
    let wanted = type_name.strip_prefix(NAME_PREFIX).map(|name| (name, field));
    wanted.is_some_and(|wanted| NEVER_ABSENT.binary_search(&wanted).is_ok())
}

/// Sorted by type, then field. Types that are owned as a whole make no difference and are left out.
#[rustfmt::skip]
static NEVER_ABSENT: &[(&str, &str)] = &[
    ("api.apps.v1.DaemonSetSpec", "template"),
    ("api.apps.v1.DaemonSetSpec", "updateStrategy"),
    ("api.apps.v1.DeploymentSpec", "strategy"),
    ("api.apps.v1.DeploymentSpec", "template"),
    ("api.apps.v1.ReplicaSetSpec", "template"),
    ("api.apps.v1.StatefulSetSpec", "template"),
    ("api.apps.v1.StatefulSetSpec", "updateStrategy"),
    ("api.batch.v1.CronJobSpec", "jobTemplate"),
    ("api.batch.v1.JobSpec", "template"),
    ("api.core.v1.Container", "resources"),
    ("api.core.v1.EphemeralContainer", "resources"),
    ("api.core.v1.Event", "source"),
    ("api.core.v1.NodeDaemonEndpoints", "kubeletEndpoint"),
    ("api.core.v1.NodeStatus", "daemonEndpoints"),
    ("api.core.v1.NodeStatus", "nodeInfo"),
    ("api.core.v1.PersistentVolumeClaimSpec", "resources"),
    ("api.core.v1.PodSpec", "containers"),
    ("api.core.v1.PodTemplate", "template"),
    ("api.core.v1.ServiceStatus", "loadBalancer"),
    ("api.discovery.v1.Endpoint", "conditions"),
    ("api.events.v1.Event", "deprecatedSource"),
    ("api.networking.v1.IngressStatus", "loadBalancer"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn tables_are_sorted() {
        assert!(RULES.is_sorted_by_key(|(of, name, _)| (*of, *name)));
        assert!(ATOMIC_STRUCTS.is_sorted() && NEVER_ABSENT.is_sorted());
    }

    /// A rule for a field that no kind has is a slip of the pen.
    #[test]
    fn rules_name_real_fields() {
        let named = RULES.iter().map(|(of, name, _)| (*of, *name)).chain(NEVER_ABSENT.iter().copied());
        let type_name = |of: &str| if of.starts_with("dev.") { of.to_owned() } else { format!("{NAME_PREFIX}{of}") };
        let unknown: Vec<_> =
            named.filter(|(of, name)| schema::has_field(&type_name(of), name) != Some(true)).collect();
        assert_eq!(unknown, []);
    }

    #[test]
    fn finds_rules() {
        let cases = [
            ("io.k8s.api.core.v1.PodSpec", "containers", Some(merge("name", &["name"]))),
            ("io.k8s.api.core.v1.PodSpec", "tolerations", None),
            ("io.k8s.api.core.v1.PodSpec", "volumes", Some(merge_retaining("name", &["name"]))),
            ("io.k8s.api.core.v1.ServiceSpec", "ports", Some(merge("port", &["port", "protocol"]))),
            ("io.k8s.api.apps.v1.DeploymentSpec", "strategy", Some(RETAIN_KEYS)),
            ("other.Type", "containers", None),
        ];
        for (of, field, expect) in cases {
            assert_eq!(field_rule(of, field).copied(), expect, "{of} {field}");
        }
        assert!(is_atomic_struct("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"));
        assert!(!is_atomic_struct("io.k8s.api.core.v1.PodSpec"));
    }
}
