//! Nobody grants what he does not hold: writes to roles and bindings are checked against the writer.
//!
//! Follows `pkg/registry/rbac` (escalation check): allowed with the verbs `escalate` and `bind`.

use api::status::Status;
use serde_json::Value;

use super::{Consequences, Operation, Plugin, Review};
use crate::authz::{Attributes, Rule, rules_of};
use crate::identity::MASTERS;

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RbacEscalation;

impl Plugin for RbacEscalation {
    fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<Consequences, Status> {
        let (request, Some(object)) = (review.request, object) else { return Ok(Consequences::default()) };
        if request.kind.group != GROUP || review.operation == Operation::Delete || request.user.in_group(MASTERS) {
            return Ok(Consequences::default());
        }
        let granted = match request.kind.resource {
            "roles" | "clusterroles" => {
                if may(review, "escalate", request.kind.resource, review.name) {
                    return Ok(Consequences::default());
                }
                if [Some(object), review.old].into_iter().flatten().any(aggregates) && !holds_everything(review) {
                    return Err(review.refuse("must have cluster-admin privileges to use an aggregationRule"));
                }
                rules_of(object)
            }
            _ => {
                let role = object.pointer("/roleRef/name").and_then(Value::as_str).unwrap_or("");
                let is_cluster_role = object.pointer("/roleRef/kind").and_then(Value::as_str) == Some("ClusterRole");
                if may(review, "bind", if is_cluster_role { "clusterroles" } else { "roles" }, role) {
                    return Ok(Consequences::default());
                }
                let index = request.core.rbac.current();
                index.role_rules(is_cluster_role, &request.namespace, role).to_vec()
            }
        };
        let index = request.core.rbac.current();
        let missing: Vec<&Rule> =
            granted.iter().filter(|rule| !index.covers(&request.user, &request.namespace, rule)).collect();
        if missing.is_empty() {
            return Ok(Consequences::default());
        }
        let list: Vec<String> = missing.iter().map(ToString::to_string).collect();
        Err(review.refuse(&format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            request.user.name,
            request.user.groups,
            list.join("\n")
        )))
    }
}

/// Its rules will be those of other roles, whichever they are.
fn aggregates(role: &Value) -> bool {
    role.get("aggregationRule").is_some_and(|rule| !rule.is_null())
}

fn holds_everything(review: &Review<'_>) -> bool {
    let everything = serde_json::json!({ "rules": [
        { "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }, { "verbs": ["*"], "nonResourceURLs": ["*"] }] });
    let index = review.request.core.rbac.current();
    rules_of(&everything).iter().all(|rule| index.covers(&review.request.user, "", rule))
}

fn may(review: &Review<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        verb,
        group: GROUP,
        resource,
        subresource: "",
        namespace: &review.request.namespace,
        name,
        path: "",
    };
    review.request.core.rbac.current().allows(&review.request.user, &attributes)
}
