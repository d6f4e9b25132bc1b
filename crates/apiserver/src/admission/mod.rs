//! Admission: what must be true of the cluster, or is filled in from it, before a write is taken.
//!
//! Owns: the visible list of plugins and their order. A plugin is one file; it reads a snapshot and
//! returns guards for whatever its decision was based on. May not know: HTTP, how objects are stored.

pub mod config;
mod default_storage_class;
mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
pub mod node_restriction;
mod pod_priority;
mod pod_security;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_in_use;

use api::status::Status;
use serde_json::Value;
use store::{Guard, Op};

use crate::core::{Request, Snapshot};
use crate::hooks::{mutations, policies, webhooks};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// `exec` and its kin: nothing is written.
    Connect,
}

/// One write under review.
pub struct Review<'a> {
    pub request: &'a Request,
    pub view: &'a Snapshot,
    pub operation: Operation,
    pub name: &'a str,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    /// Nothing will be written.
    pub dry_run: bool,
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

/// What follows from letting a write pass.
#[derive(Default)]
pub struct Consequences {
    /// Keep the decision true until the commit.
    pub guards: Vec<Guard>,
    /// Written together with the object.
    pub ops: Vec<Op>,
    /// For the client.
    pub warnings: Vec<String>,
}

impl Consequences {
    pub fn guarded(guards: Vec<Guard>) -> Self {
        Self { guards, ..Self::default() }
    }

    pub fn warned(warnings: Vec<String>) -> Self {
        Self { warnings, ..Self::default() }
    }

    fn extend(&mut self, more: Self) {
        self.guards.extend(more.guards);
        self.ops.extend(more.ops);
        self.warnings.extend(more.warnings);
    }
}

/// One check, or one thing filled in.
trait Plugin: Sync {
    fn mutate(&self, _review: &Review<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// `object` is `None` on delete.
    fn validate(&self, _review: &Review<'_>, _object: Option<&Value>) -> Result<Consequences, Status> {
        Ok(Consequences::default())
    }
}

/// In the order of Kubernetes' recommended plugins.
const PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &pod_security::PodSecurity,
    &pod_priority::PodPriority,
    &default_tolerations::DefaultTolerations,
    &default_storage_class::DefaultStorageClass,
    &storage_in_use::StorageInUse,
    &runtime_class::RuntimeClass,
    &rbac_escalation::RbacEscalation,
];

/// After everything that may still refuse.
const LAST: &[&dyn Plugin] = &[&resource_quota::ResourceQuota];

/// Fills in what is to be filled in; gives warnings for the client.
pub async fn mutate(review: &Review<'_>, object: &mut Value) -> Result<Vec<String>, Status> {
    // Status and the like are what a client says; nothing is filled into them.
    if review.request.subresource.is_empty() {
        PLUGINS.iter().try_for_each(|plugin| plugin.mutate(review, object))?;
    }
    mutations::mutate(review, object).await?;
    webhooks::mutate(review, Some(object)).await
}

/// Shows a connection, with its options as the object, to users' policies and webhooks.
pub async fn connect(review: &Review<'_>, mut options: Value) -> Result<(), Status> {
    mutations::mutate(review, &mut options).await?;
    webhooks::mutate(review, Some(&mut options)).await?;
    policies::validate(review, Some(&options)).await?;
    webhooks::validate(review, Some(&options)).await.map(drop)
}

/// Asks everybody.
pub async fn validate(review: &Review<'_>, object: Option<&Value>) -> Result<Consequences, Status> {
    let mut all = Consequences::default();
    for plugin in PLUGINS {
        all.extend(plugin.validate(review, object)?);
    }
    all.extend(Consequences::warned(policies::validate(review, object).await?));
    if object.is_none() {
        // Mutating webhooks may refuse a deletion; there is nothing that they could change.
        all.extend(Consequences::warned(webhooks::mutate(review, None).await?));
    }
    all.extend(Consequences::warned(webhooks::validate(review, object).await?));
    for plugin in LAST {
        all.extend(plugin.validate(review, object)?);
    }
    Ok(all)
}
