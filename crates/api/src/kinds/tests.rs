use std::collections::HashSet;

use serde_json::json;

use super::*;

#[test]
fn rows_are_consistent() {
    let mut paths = HashSet::new();
    for kind in KINDS {
        assert!(paths.insert((kind.group, kind.version, kind.resource)), "{kind:?} twice");
        assert!(std::ptr::eq(kind.stored().stored(), kind.stored()), "{kind:?} is stored in one step");
        assert!(kind.singular.chars().all(|c| c.is_ascii_lowercase()), "{kind:?}");
        assert_eq!(kind.singular, kind.kind.to_lowercase(), "{kind:?}");
        assert_eq!(kind.allows("list"), !kind.list_kind.is_empty(), "{kind:?}");
        assert!(kind.subresources.is_sorted_by_key(|s| s.name), "{kind:?} lists subresources in order");
        let owner = if kind.group == "knarr.dev" { "dev.knarr." } else { "io.k8s." };
        assert!(kind.type_name().starts_with(owner), "{kind:?}");
        if let Some(status) = kind.subresource("status") {
            assert_eq!((status.group, status.version, status.kind), (kind.group, kind.version, kind.kind));
        }
    }
}

#[test]
fn finds_rows() {
    let cases = [
        ("", "v1", "pods", "Pod", true, "/registry/core/pods/"),
        ("", "v1", "nodes", "Node", false, "/registry/core/nodes/"),
        ("apps", "v1", "deployments", "Deployment", true, "/registry/apps/deployments/"),
        ("events.k8s.io", "v1", "events", "Event", true, "/registry/core/events/"),
        (
            "autoscaling",
            "v1",
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            true,
            "/registry/autoscaling/horizontalpodautoscalers/",
        ),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "clusterroles",
            "ClusterRole",
            false,
            "/registry/rbac.authorization.k8s.io/clusterroles/",
        ),
    ];
    for (group, version, resource, kind, namespaced, prefix) in cases {
        let found = lookup(group, version, resource).expect(resource);
        assert_eq!((found.kind, found.namespaced), (kind, namespaced));
        assert_eq!(found.storage_prefix(), prefix);
        assert!(std::ptr::eq(by_kind(group, version, kind).expect(kind), found));
        let object = json!({ "apiVersion": found.api_version(), "kind": kind });
        assert!(std::ptr::eq(of_object(&object).expect(kind), found));
    }
    assert!(lookup("apps", "v1beta1", "deployments").is_none());
    assert!(lookup("", "v1", "deployments").is_none());
}

#[test]
fn eviction_is_what_drain_looks_for() {
    let eviction = lookup("", "v1", "pods").and_then(|k| k.subresource("eviction")).expect("pods/eviction");
    assert_eq!((eviction.group, eviction.version, eviction.kind), ("policy", "v1", "Eviction"));
}

#[test]
fn field_values() {
    let pod = json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": { "nodeName": "a" } });
    let node = json!({ "metadata": { "name": "n" }, "spec": { "unschedulable": true } });
    let event = json!({ "reportingComponent": "kubelet", "involvedObject": { "name": "p" } });
    let cases = [
        ("pods", &pod, "metadata.name", Some("p")),
        ("pods", &pod, "metadata.namespace", Some("n")),
        ("pods", &pod, "spec.nodeName", Some("a")),
        ("pods", &pod, "status.phase", Some("")),
        ("pods", &pod, "spec.hostNetwork", Some("false")),
        ("pods", &pod, "spec.containers", None),
        ("nodes", &node, "spec.unschedulable", Some("true")),
        ("nodes", &pod, "spec.unschedulable", Some("false")),
        ("nodes", &node, "metadata.namespace", None),
        ("events", &event, "source", Some("kubelet")),
        ("events", &event, "involvedObject.name", Some("p")),
    ];
    for (resource, object, field, expect) in cases {
        let kind = lookup("", "v1", resource).expect(resource);
        assert_eq!(kind.field_value(field, object).as_deref(), expect, "{resource} {field}");
        assert_eq!(kind.is_selectable(field), expect.is_some());
    }
}

/// What `kubectl api-resources` of Kubernetes 1.36 lists of the stable API (but for `admissionregistration.k8s.io`, which
/// is listed where its rules are) and of its metrics server, and Knarr's own group after it. One line is
/// group/version, kind, plural, scope, short names, verbs, categories; an indented one a subresource, its kind, verbs.
#[test]
fn all_that_people_know_is_there() {
    let mut lines = String::new();
    let mut kinds: Vec<&Kind> = KINDS.iter().filter(|kind| kind.group != "admissionregistration.k8s.io").collect();
    kinds.sort_by_key(|kind| (kind.group == crate::own::GROUP, kind.api_version(), kind.resource));
    for kind in kinds {
        let scope = if kind.namespaced { "namespaced" } else { "cluster" };
        let list = |words: &[&str]| if words.is_empty() { "-".to_owned() } else { words.join(",") };
        let verbs = match kind.verbs {
            verbs if verbs == ALL_VERBS => "all".to_owned(),
            verbs => list(verbs),
        };
        let (short, categories) = (list(kind.short_names), list(kind.categories));
        let (of, resource) = (kind.api_version(), kind.resource);
        lines.push_str(&format!("{of} {} {resource} {scope} {short} {verbs} {categories}\n", kind.kind));
        for sub in kind.subresources {
            let group = if sub.group.is_empty() { String::new() } else { format!("{}/", sub.group) };
            let verbs = list(sub.verbs);
            lines.push_str(&format!("  /{} {group}{} {} {verbs}\n", sub.name, sub.version, sub.kind));
        }
    }
    let expect = include_str!("api-resources.txt");
    for (found, expect) in lines.lines().zip(expect.lines()) {
        assert_eq!(found, expect);
    }
    assert_eq!(lines.lines().count(), expect.lines().count());
}
