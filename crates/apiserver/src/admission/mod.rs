//! Admission: what must be true of the cluster, or is filled in from it, before a write is taken.
//!
//! Owns: the visible list of plugins and their order. A plugin is one file; it reads a snapshot and
//! returns guards for whatever its decision was based on. May not know: HTTP, how objects are stored.

mod default_tolerations;
mod namespace_lifecycle;
pub mod node_restriction;
mod pod_priority;
mod rbac_escalation;
mod runtime_class;
mod service_account;

use api::status::Status;
use serde_json::Value;
use store::Guard;

use crate::core::{Request, Snapshot};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// One write under review.
pub struct Review<'a> {
    pub request: &'a Request,
    pub view: &'a Snapshot,
    pub operation: Operation,
    pub name: &'a str,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
}

impl Review<'_> {
    /// Is this about `resource` of a group, as an object (no subresource)?
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.request.kind.group == group
            && self.request.kind.resource == resource
            && self.request.subresource.is_empty()
    }

    /// 403 in Kubernetes' form: `pods "web" is forbidden: <why>`.
    pub fn refuse(&self, why: &str) -> Status {
        Status::forbidden(&api::status::Subject { name: self.name, ..self.request.subject() }, why)
    }
}

/// One check, or one thing filled in.
trait Plugin: Sync {
    fn mutate(&self, _review: &Review<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// `object` is `None` on delete.
    fn validate(&self, _review: &Review<'_>, _object: Option<&Value>) -> Result<Vec<Guard>, Status> {
        Ok(Vec::new())
    }
}

/// In the order of Kubernetes' recommended plugins.
const PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &pod_priority::PodPriority,
    &default_tolerations::DefaultTolerations,
    &runtime_class::RuntimeClass,
    &rbac_escalation::RbacEscalation,
];

/// Fills in what the plugins fill in.
pub fn mutate(review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
    PLUGINS.iter().try_for_each(|plugin| plugin.mutate(review, object))
}

/// Asks every plugin; the guards keep their decisions true until the commit.
pub fn validate(review: &Review<'_>, object: Option<&Value>) -> Result<Vec<Guard>, Status> {
    let mut guards = Vec::new();
    for plugin in PLUGINS {
        guards.extend(plugin.validate(review, object)?);
    }
    Ok(guards)
}
