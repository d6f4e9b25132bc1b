//! Given what is left, the plan and the report.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use reconcile::ApiAction;
use serde_json::{Value, json};

use super::collection::{Collection, Emptied};
use super::plan::{Failures, Left, Observed, Remaining, plan};
use crate::model::{at, object};

fn namespace(finalizers: Value, status: Value) -> Arc<Namespace> {
    let mut value = json!({ "metadata": { "name": "web", "deletionTimestamp": at(0).to_string() },
        "spec": { "finalizers": finalizers }, "status": status });
    value["metadata"]["namespace"] = Value::Null;
    Arc::new(object(value))
}

/// `resource: name[!][+finalizer] …`; `!` is already being deleted.
fn remaining(group: &str, text: &str) -> Remaining {
    let (resource, objects) = text.split_once(": ").unwrap();
    let objects: Vec<_> = objects
        .split(' ')
        .map(|object| {
            let (name, finalizer) = object.split_once('+').unwrap_or((object, ""));
            let finalizers = Some(finalizer.to_owned()).filter(|finalizer| !finalizer.is_empty());
            let finalizers = finalizers.into_iter().collect();
            Left { name: name.trim_end_matches('!').to_owned(), deleting: name.ends_with('!'), finalizers }
        })
        .collect();
    let of = match api::kinds::lookup(group, "v1", resource) {
        Some(kind) => kind.into(),
        None => foreign(group, resource),
    };
    Remaining { of, total: objects.len(), objects }
}

fn foreign(group: &str, resource: &str) -> Collection {
    let [group, resource] = [group, resource].map(|text| text.to_owned().into());
    Collection { group, version: "v1".into(), kind: "Any".into(), resource, emptied: Emptied::AtOnce }
}

fn observed(remaining: Vec<Remaining>) -> Observed {
    Observed {
        namespace: namespace(json!(["kubernetes"]), Value::Null),
        remaining,
        failures: Failures::default(),
        now: at(5),
    }
}

/// `True message` of a condition that a plan reports.
fn condition(given: &Observed, type_: &str) -> String {
    let ApiAction::UpdateStatus { body, .. } = &plan(given).actions[0] else { panic!() };
    let conditions = body["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
    format!("{} {}", condition["status"].as_str().unwrap(), condition["message"].as_str().unwrap())
}

#[test]
fn everything_goes_once_and_then_the_namespace() {
    let deployments = || remaining("apps", "deployments: d");
    let given = observed(vec![deployments(), remaining("", "pods: a b!")]);
    assert_eq!(
        plan(&given).render(),
        "3 objects of 2 kinds left\n  update namespaces/web/status\n  delete pods/web/a\n  again after 500ms",
        "what pods live by stays until they have ended"
    );
    let given = observed(vec![remaining("", "pods: b!"), deployments()]);
    assert!(!plan(&given).render().contains("delete"), "also when they take their time");
    let given = observed(vec![deployments(), remaining("", "secrets: s")]);
    assert_eq!(
        plan(&given).render(),
        "2 objects of 2 kinds left\n  update namespaces/web/status\n  delete deployments/web/d\n  \
         delete secrets/web/s\n  again after 500ms"
    );
    let empty = plan(&observed(Vec::new()));
    assert_eq!(empty.render(), "empty: it may go\n  update namespaces/web/finalize");
    let ApiAction::UpdateStatus { body, .. } = &empty.actions[0] else { panic!() };
    assert_eq!(body["spec"]["finalizers"], json!([]));
}

#[test]
fn foreign_finalizers_stay() {
    let mut given = observed(Vec::new());
    given.namespace = namespace(json!(["example.com/backup", "kubernetes"]), Value::Null);
    let ApiAction::UpdateStatus { body, .. } = &plan(&given).actions[0] else { panic!() };
    assert_eq!(body["spec"]["finalizers"], json!(["example.com/backup"]));
    given.namespace = namespace(json!(["example.com/backup"]), Value::Null);
    assert_eq!(plan(&given).render(), "already finalized");
}

#[test]
fn conditions_count_what_remains_and_are_told_once() {
    let mut given = observed(vec![remaining("", "pods: a!+example.com/x b!")]);
    let first = plan(&given);
    let ApiAction::UpdateStatus { body, .. } = &first.actions[0] else { panic!() };
    let conditions = body["status"]["conditions"].as_array().unwrap();
    let message = |type_: &str| {
        let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
        format!("{} {}", condition["status"].as_str().unwrap(), condition["message"].as_str().unwrap())
    };
    assert_eq!(
        message("NamespaceContentRemaining"),
        "True Some resources are remaining: pods has 2 resource instances"
    );
    assert_eq!(
        message("NamespaceFinalizersRemaining"),
        "True Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances"
    );
    given.namespace = namespace(json!(["kubernetes"]), body["status"].clone());
    assert_eq!(plan(&given).render(), "2 objects of 1 kinds left\n  again after 500ms");
}

#[test]
fn collections_of_extension_servers_are_deleted_at_once() {
    let given = observed(vec![remaining("wardle.example.com", "flunders: a b! c"), remaining("g.dev", "gone: x!")]);
    assert_eq!(
        plan(&given).render(),
        "4 objects of 2 kinds left\n  update namespaces/web/status\n  delete all flunders/web/\n  again after 500ms"
    );
    assert_eq!(
        condition(&given, "NamespaceContentRemaining"),
        "True Some resources are remaining: flunders.wardle.example.com has 3 resource instances, gone.g.dev has 1 \
         resource instances"
    );
}

#[test]
fn a_namespace_stays_while_an_extension_server_is_silent() {
    let mut given = observed(vec![remaining("", "pods: a")]);
    given.failures.discovery = vec![("g.dev/v1".to_owned(), "no answer within 10 s".to_owned())];
    assert_eq!(
        plan(&given).render(),
        "1 objects of 1 kinds left, 1 unknown\n  update namespaces/web/status\n  delete pods/web/a\n  again after 5s"
    );
    given.remaining = Vec::new();
    assert_eq!(
        plan(&given).render(),
        "0 objects of 0 kinds left, 1 unknown\n  update namespaces/web/status\n  again after 5s"
    );
    assert_eq!(
        condition(&given, "NamespaceDeletionDiscoveryFailure"),
        "True Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
         g.dev/v1: no answer within 10 s"
    );
    assert_eq!(condition(&given, "NamespaceContentRemaining"), "False All content successfully removed");
    given.failures = Failures { discovery: Vec::new(), content: vec!["x.g.dev: it is full".to_owned()] };
    assert_eq!(
        condition(&given, "NamespaceDeletionContentFailure"),
        "True Failed to delete all resource types, 1 remaining: x.g.dev: it is full"
    );
}
