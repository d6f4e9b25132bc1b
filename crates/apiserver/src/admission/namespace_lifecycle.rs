//! Nothing is created in a namespace that is missing or on its way out; some namespaces never go.

use api::status::{Status, Subject};
use serde_json::{Value, json};
use store::Guard;

use super::{Consequences, Operation, Plugin, Review};
use crate::core::{core_kind, key};
use crate::object::encode::decode;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn validate(&self, review: &Review<'_>, _object: Option<&Value>) -> Result<Consequences, Status> {
        if review.operation == Operation::Delete {
            if review.is("", "namespaces") && IMMORTAL.contains(&review.name) {
                return Err(review.refuse("this namespace may not be deleted"));
            }
            return Ok(Consequences::default());
        }
        if review.operation != Operation::Create || !review.request.kind.namespaced {
            return Ok(Consequences::default());
        }
        let namespace = &review.request.namespace;
        let key = key(core_kind("namespaces"), "", namespace);
        let Some(entry) = review.view.get(&key) else {
            return Err(Status::not_found(&Subject { group: "", resource: "namespaces", name: namespace }));
        };
        if entry.facets.field("status.phase") == "Terminating"
            || !api::meta::deletion_timestamp(&decode(&entry.value)).is_empty()
        {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut status = review.refuse(&why);
            let cause = json!([{ "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace" }]);
            status.details["causes"] = cause;
            return Err(status);
        }
        // The namespace must still be as it was when the object appears in it.
        Ok(Consequences::guarded(vec![Guard::ModRevision { key, revision: entry.mod_revision }]))
    }
}
