//! Given what is left, the plan and the report.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use reconcile::ApiAction;
use serde_json::{Value, json};

use super::plan::{Left, Observed, Remaining, plan};
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
    let kind = api::kinds::lookup(group, "v1", resource).unwrap();
    Remaining { kind, total: objects.len(), objects }
}

fn observed(remaining: Vec<Remaining>) -> Observed {
    Observed { namespace: namespace(json!(["kubernetes"]), Value::Null), remaining, now: at(5) }
}

#[test]
fn everything_goes_once_and_then_the_namespace() {
    let given = observed(vec![remaining("", "pods: a b!"), remaining("apps", "deployments: d")]);
    assert_eq!(
        plan(&given).render(),
        "3 objects of 2 kinds left\n  update namespaces/web/status\n  delete pods/web/a\n  \
         delete deployments/web/d\n  again after 500ms"
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
