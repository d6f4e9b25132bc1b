//! The default roles and bindings of Kubernetes (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
//!
//! Aggregated roles (admin, edit, view) are written out, so that they hold before a controller has looked at them. All
//! controllers run as one user here, so `system:kube-controller-manager` holds what Kubernetes spreads over a role per
//! controller.

use serde_json::{Value, json};

use super::objects::EXTENSION_AUTHENTICATION;
use crate::authn;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Value {
    json!({ "verbs": verbs, "apiGroups": groups, "resources": resources })
}

fn urls(paths: &[&str]) -> Value {
    json!({ "verbs": ["get"], "nonResourceURLs": paths })
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" } }, "rules": rules })
}

/// A role labelled with this and the name of another is part of that one.
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// A role that is part of another.
fn part(name: &str, of: &str, rules: &[Value]) -> Value {
    let mut role = role(name, rules);
    role["metadata"]["labels"][format!("{AGGREGATE}{of}")] = "true".into();
    role
}

/// A role made of its parts; `rules` are those that the parts have in a new cluster.
fn aggregated(name: &str, of: Option<&str>, rules: &[Value]) -> Value {
    let mut role = match of {
        Some(of) => part(name, of, rules),
        None => role(name, rules),
    };
    role["aggregationRule"] =
        json!({ "clusterRoleSelectors": [{ "matchLabels": { format!("{AGGREGATE}{name}"): "true" } }] });
    role
}

/// What a user of a namespace sees.
fn view_rules() -> Vec<Value> {
    vec![
        rule(
            READ,
            &[""],
            &[
                "bindings",
                "configmaps",
                "endpoints",
                "events",
                "limitranges",
                "namespaces",
                "namespaces/status",
                "persistentvolumeclaims",
                "persistentvolumeclaims/status",
                "pods",
                "pods/log",
                "pods/status",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "replicationcontrollers/status",
                "resourcequotas",
                "resourcequotas/status",
                "serviceaccounts",
                "services",
                "services/status",
            ],
        ),
        rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
        rule(READ, &["events.k8s.io"], &["events"]),
        rule(READ, &["apps"], WORKLOADS_READ),
        rule(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        rule(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
        rule(READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        rule(READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
        rule(READ, &["knarr.dev"], KNARR_READ),
        rule(READ, &["metrics.k8s.io"], &["nodes", "pods"]),
    ]
}

/// Not what is in buckets: applications keep sessions there, and tokens.
const KNARR_READ: &[&str] = &["buckets", "buckets/status", "functions", "functions/status"];

const WORKLOADS_READ: &[&str] = &[
    "controllerrevisions",
    "daemonsets",
    "daemonsets/status",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];

/// What a user of a namespace changes.
fn edit_rules() -> Vec<Value> {
    vec![
        rule(READ, &[""], &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]),
        rule(
            WRITE,
            &[""],
            &[
                "pods",
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
                "configmaps",
                "events",
                "persistentvolumeclaims",
                "replicationcontrollers",
                "replicationcontrollers/scale",
                "secrets",
                "serviceaccounts",
                "services",
                "services/proxy",
                "endpoints",
            ],
        ),
        rule(&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
        rule(&["patch", "update"], &[""], &["pods/ephemeralcontainers", "pods/resize"]),
        rule(&["impersonate"], &[""], &["serviceaccounts"]),
        rule(
            WRITE,
            &["apps"],
            &[
                "daemonsets",
                "deployments",
                "deployments/rollback",
                "deployments/scale",
                "replicasets",
                "replicasets/scale",
                "statefulsets",
                "statefulsets/scale",
            ],
        ),
        rule(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
        rule(WRITE, &["batch"], &["cronjobs", "jobs"]),
        rule(WRITE, &["policy"], &["poddisruptionbudgets"]),
        rule(WRITE, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
        rule(ALL, &["coordination.k8s.io"], &["leases"]),
        rule(WRITE, &["discovery.k8s.io"], &["endpointslices"]),
        rule(WRITE, &["knarr.dev"], &["*"]),
        rule(READ, &["knarr.dev"], &["buckets/entries"]),
    ]
}

fn admin_rules() -> Vec<Value> {
    vec![
        rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
        rule(ALL, &["rbac.authorization.k8s.io"], &["rolebindings", "roles"]),
    ]
}

fn together(parts: &[Vec<Value>]) -> Vec<Value> {
    parts.concat()
}

fn node_rules() -> Vec<Value> {
    vec![
        rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"]),
        rule(READ, &[""], &["services", "endpoints", "namespaces"]),
        rule(&["create", "get", "list", "watch", "patch", "update"], &[""], &["nodes"]),
        rule(&["patch", "update"], &[""], &["nodes/status"]),
        rule(&["create", "patch", "update"], &[""], &["events"]),
        rule(&["create", "patch", "update"], &["events.k8s.io"], &["events"]),
        rule(&["create", "delete", "get", "list", "watch"], &[""], &["pods"]),
        rule(&["get", "patch", "update"], &[""], &["pods/status"]),
        rule(&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
        rule(READ, &[""], &["configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims", "persistentvolumes"]),
        rule(ALL, &["coordination.k8s.io"], &["leases"]),
        rule(READ, &["node.k8s.io"], &["runtimeclasses"]),
        rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
        rule(READ, &["networking.k8s.io"], &["networkpolicies"]),
        rule(READ, &["knarr.dev"], &["*"]),
        // Of those that its pods were granted: `authz/node_grants`.
        rule(&["create", "delete", "update"], &["knarr.dev"], &["buckets/entries"]),
        // A node on a machine of its own wakes Deployments (`admission/node_restriction`), pulls images and asks for native code of them.
        rule(READ, &["apps"], &["deployments"]),
        rule(&["get", "patch"], &["apps"], &["deployments/scale"]),
        urls(&["/v2/", "/v2/*", "/knarr/v1/native/*"]),
    ]
}

fn scheduler_rules() -> Vec<Value> {
    vec![
        rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        rule(ALL, &["coordination.k8s.io"], &["leases"]),
        rule(READ, &[""], &["nodes", "namespaces", "services", "replicationcontrollers"]),
        rule(&["delete", "get", "list", "watch"], &[""], &["pods"]),
        rule(&["create"], &[""], &["bindings", "pods/binding"]),
        rule(&["patch", "update"], &[""], &["pods/status"]),
        rule(READ, &["apps"], &["replicasets", "statefulsets", "deployments"]),
        rule(READ, &["policy"], &["poddisruptionbudgets"]),
        rule(READ, &[""], &["persistentvolumeclaims", "persistentvolumes"]),
        rule(READ, &["storage.k8s.io", "node.k8s.io", "scheduling.k8s.io"], &["*"]),
    ]
}

fn controller_rules() -> Vec<Value> {
    vec![
        rule(ALL, &["*"], &["*"]),
        urls(&["*"]),
        // Rules of other roles go into aggregated ones.
        rule(&["escalate"], &["rbac.authorization.k8s.io"], &["clusterroles"]),
        rule(&["sign"], &["certificates.k8s.io"], &["signers"]),
    ]
}

const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

pub fn cluster_roles() -> Vec<Value> {
    let everything = [rule(&["*"], &["*"], &["*"]), json!({ "verbs": ["*"], "nonResourceURLs": ["*"] })];
    let (view, edit, admin) = (view_rules(), edit_rules(), admin_rules());
    vec![
        role("cluster-admin", &everything),
        aggregated("admin", None, &together(&[edit.clone(), view.clone(), admin.clone()])),
        aggregated("edit", Some("admin"), &together(&[edit.clone(), view.clone()])),
        aggregated("view", Some("edit"), &view),
        part("system:aggregate-to-admin", "admin", &admin),
        part("system:aggregate-to-edit", "edit", &edit),
        part("system:aggregate-to-view", "view", &view),
        role("system:discovery", &[urls(DISCOVERY)]),
        role("system:public-info-viewer", &[urls(PUBLIC)]),
        role(
            "system:monitoring",
            &[urls(&[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ])],
        ),
        role(
            "system:basic-user",
            &[
                rule(&["create"], &["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                rule(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
            ],
        ),
        role(
            "system:auth-delegator",
            &[
                rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
                rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            &[urls(&[authn::discovery::CONFIGURATION, authn::discovery::KEY_SET])],
        ),
        role("system:node", &node_rules()),
        role(
            "system:node-bootstrapper",
            &[rule(&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"])],
        ),
        role("knarr:node-joiner", &[json!({ "verbs": ["post"], "nonResourceURLs": ["/knarr/v1/nodes"] })]),
        role(
            "system:node-proxier",
            &[
                rule(READ, &[""], &["endpoints", "services", "nodes"]),
                rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
                rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
            ],
        ),
        role(
            "system:knarr-activator",
            &[rule(READ, &["apps"], &["deployments"]), rule(&["get", "patch"], &["apps"], &["deployments/scale"])],
        ),
        role("system:knarr-function-triggers", &[rule(&["create"], &["knarr.dev"], &["functions/invoke"])]),
        // Servers bring what images are made of from each other.
        role("system:knarr-server", &[urls(&["/knarr/v1/blobs/*"])]),
        role("system:kube-scheduler", &scheduler_rules()),
        role("system:kube-controller-manager", &controller_rules()),
        role("system:kube-dns", &[rule(&["list", "watch"], &[""], &["endpoints", "services"])]),
        role(
            "system:kubelet-api-admin",
            &[
                rule(&["get", "list", "watch", "proxy"], &[""], &["nodes"]),
                rule(
                    &["*"],
                    &[""],
                    &["nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats", "nodes/healthz", "nodes/pods"],
                ),
            ],
        ),
        role("system:heapster", &[rule(READ, &[""], &["events", "namespaces", "nodes", "pods"])]),
        role("system:aggregated-metrics-reader", &[rule(READ, &["metrics.k8s.io"], &["nodes", "pods"])]),
        role(
            "system:persistent-volume-provisioner",
            &[
                rule(ALL, &[""], &["persistentvolumes"]),
                rule(&["get", "list", "update", "watch"], &[""], &["persistentvolumeclaims"]),
                rule(READ, &["storage.k8s.io"], &["storageclasses"]),
                rule(&["create", "patch", "update"], &[""], &["events"]),
            ],
        ),
    ]
}

/// Role, kind of subject, subject.
const BINDINGS: &[(&str, &str, &str)] = &[
    ("cluster-admin", "Group", "system:masters"),
    ("system:discovery", "Group", "system:authenticated"),
    ("system:basic-user", "Group", "system:authenticated"),
    ("system:public-info-viewer", "Group", "system:authenticated"),
    ("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
    ("system:monitoring", "Group", "system:monitoring"),
    ("system:node", "Group", "system:nodes"),
    ("system:node-proxier", "User", "system:kube-proxy"),
    ("system:knarr-activator", "User", "system:knarr-activator"),
    ("system:knarr-function-triggers", "User", "system:knarr-function-triggers"),
    ("system:knarr-server", "User", "system:knarr-server"),
    ("system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:kube-controller-manager", "User", "system:kube-controller-manager"),
    ("system:kubelet-api-admin", "User", "system:apiserver"),
];

pub fn bindings() -> Vec<Value> {
    BINDINGS
        .iter()
        .map(|(role, kind, subject)| {
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": { "name": role, "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
                    "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" } },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject }] })
        })
        .collect()
}

/// Extension servers read whom they may believe; who runs one binds its service account to this role.
pub fn namespaced() -> Vec<Value> {
    let name = "extension-apiserver-authentication-reader";
    let labelled = |kind: &str, name: &str| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name,
            "namespace": "kube-system", "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
            "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" } } })
    };
    let mut rule = rule(READ, &[""], &["configmaps"]);
    rule["resourceNames"] = json!([EXTENSION_AUTHENTICATION]);
    let mut role = labelled("Role", name);
    role["rules"] = json!([rule]);
    let mut binding = labelled("RoleBinding", &format!("system::{name}"));
    binding["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name });
    let user = |name: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name });
    binding["subjects"] = json!([user("system:kube-controller-manager"), user("system:kube-scheduler")]);
    vec![role, binding]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_name_roles_that_exist() {
        let roles: Vec<String> = cluster_roles().iter().map(|r| api::meta::name(r).to_owned()).collect();
        for (role, ..) in BINDINGS {
            assert!(roles.contains(&(*role).to_owned()), "{role}");
        }
    }

    #[test]
    fn view_does_not_read_secrets() {
        let text = Value::from(view_rules()).to_string();
        assert!(!text.contains("\"secrets\"") && text.contains("\"pods/log\""));
    }
}
