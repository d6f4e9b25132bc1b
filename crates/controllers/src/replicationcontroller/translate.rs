//! A ReplicationController as a ReplicaSet, and a ReplicaSet's plan as one for a ReplicationController. Pure.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use reconcile::{ApiAction, Narration, PatchBody, Plan, Target};
use serde_json::Value;

pub fn selector(controller: &ReplicationController) -> LabelSelector {
    let match_labels = controller.spec.as_ref().and_then(|spec| spec.selector.clone());
    LabelSelector { match_labels, match_expressions: None }
}

#[must_use]
pub fn as_replica_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().map(|status| ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|all| {
            let same = |condition: k8s_openapi::api::core::v1::ReplicationControllerCondition| ReplicaSetCondition {
                last_transition_time: condition.last_transition_time,
                message: condition.message,
                reason: condition.reason,
                status: condition.status,
                type_: condition.type_,
            };
            all.into_iter().map(same).collect()
        }),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    });
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: selector(controller),
            template: spec.template,
        }),
        status,
    }
}

/// Puts the real owner into everything the plan says about the ReplicaSet.
#[must_use]
pub fn turned_back(mut plan: Plan) -> Plan {
    for action in &mut plan.actions {
        match action {
            ApiAction::Create { body, narration, .. } => {
                rename_owner(body);
                rename_subject(narration.as_mut());
            }
            ApiAction::Patch { body: PatchBody::Merge(body), .. } => rename_owner(body),
            ApiAction::Delete { narration, .. } => rename_subject(narration.as_mut()),
            ApiAction::UpdateStatus { target, body, .. } => {
                let namespace = target.namespace.clone();
                *target = Target::named::<ReplicationController>(namespace.as_deref(), &target.name);
                body["apiVersion"] = "v1".into();
                body["kind"] = target.kind.as_ref().into();
                // Only the status is taken from the body; the spec is that of another kind.
                if let Some(body) = body.as_object_mut() {
                    body.remove("spec");
                }
            }
            ApiAction::Event(note) => {
                note.regarding.kind = Some(ReplicationController::kind(&()).into_owned());
                note.regarding.api_version = Some("v1".to_owned());
            }
            ApiAction::Patch { .. } | ApiAction::DeleteCollection { .. } => {}
        }
    }
    plan
}

fn rename_owner(body: &mut Value) {
    let owners = body.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    for owner in owners.into_iter().flatten() {
        if owner["kind"] == "ReplicaSet" && owner["apiVersion"] == "apps/v1" {
            owner["kind"] = "ReplicationController".into();
            owner["apiVersion"] = "v1".into();
        }
    }
}

fn rename_subject(narration: Option<&mut Narration>) {
    if let Some(narration) = narration {
        narration.regarding.kind = Some("ReplicationController".to_owned());
        narration.regarding.api_version = Some("v1".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::{at, object};
    use crate::replicaset::{Observed, plan};

    #[test]
    fn the_plan_is_about_the_controller() {
        let controller: ReplicationController = object(json!({
            "metadata": { "name": "old" },
            "spec": { "replicas": 2, "selector": { "app": "old" }, "template": {
                "metadata": { "labels": { "app": "old" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } },
        }));
        let orphan = object(json!({ "metadata": { "name": "lost", "labels": { "app": "old" } } }));
        let replica_set = Arc::new(as_replica_set(&controller));
        let observed =
            Observed { replica_set, pods: vec![Arc::new(orphan)], deleted: HashSet::new(), failure: None, now: at(1) };
        let plan = turned_back(plan(&observed));
        assert_eq!(
            plan.render(),
            "1 of 2 pods, creating 1\n  patch pods/web/lost\n  create pods/web/old-*\n  update \
             replicationcontrollers/web/old/status"
        );
        let text = format!("{:?}", plan.actions);
        assert!(!text.contains("ReplicaSet\""), "{text}");
        assert!(text.contains("uid-old"), "{text}");
    }
}
