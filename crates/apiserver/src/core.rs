//! What all requests share: the store, the role index, the limits. Immutable handles only.

use std::sync::Arc;

use api::apply::Conversions;
use api::custom::Custom;
use api::kinds::Kind;
use api::status::{Status, Subject};
use arc_swap::ArcSwap;
use bytes::Bytes;
use store::{ProposeError, Revision, Store, View};
use tokio::sync::Semaphore;

use crate::admission::config::AdmissionConfig;
use crate::aggregation::Aggregation;
use crate::aggregation::front_proxy::FrontProxy;
use crate::authn::Authn;
use crate::authn::keys::KeptKeys;
use crate::authz::RbacHandle;
use crate::bucket::BucketQueues;
use crate::config::{ApiServerConfig, RELAYED_MAX};
use crate::custom::catalog::CatalogHandle;
use crate::hooks::upkeep::HooksHandle;
use crate::identity::{MASTERS, UserInfo};
use crate::object::facets::ObjectFacets;
use crate::quota::turns::Turns;
use crate::registry::ownership::Ownership;
use crate::reloads::Reloads;
use crate::rest::usage::Summaries;
use crate::subresource::invoke::Routes;
use crate::traffic::Traffic;
use crate::traffic::annotations::Annotations;
use crate::wire::accept::Accepted;
use crate::wire::query::Parameters;

pub type Snapshot = View<ObjectFacets>;
pub type Entry = Arc<store::Entry<ObjectFacets>>;

pub struct Core {
    pub store: Store<ObjectFacets>,
    pub config: ApiServerConfig,
    pub rbac: RbacHandle,
    pub token_keys: KeptKeys,
    pub authn: Authn,
    /// Of Pod Security; replaced as a whole when its file changes.
    pub admission: ArcSwap<AdmissionConfig>,
    pub admission_reloads: Reloads,
    /// What users registered for admission.
    pub hooks: HooksHandle,
    /// Kinds that users defined.
    pub catalog: CatalogHandle,
    /// Groups that others serve.
    pub aggregation: Aggregation,
    /// What this server shows to those others.
    pub front_proxy: Option<FrontProxy>,
    pub traffic: Traffic,
    /// What nodes said last of what they use.
    pub summaries: Summaries,
    pub buckets: BucketQueues,
    /// Which pods serve which function.
    pub routes: Routes,
    /// Relayed to nodes and pods.
    pub connections: Arc<Semaphore>,
    /// Of writes that compete for one quota.
    pub turns: Turns,
}

/// What tasks keep in step with the store, or with the world.
pub struct Kept {
    pub authn: Authn,
    pub rbac: RbacHandle,
    pub catalog: CatalogHandle,
    pub hooks: HooksHandle,
}

impl Core {
    pub fn new(
        store: Store<ObjectFacets>,
        config: ApiServerConfig,
        kept: Kept,
        front_proxy: Option<FrontProxy>,
    ) -> Self {
        let Kept { authn, rbac, catalog, hooks } = kept;
        let traffic = Traffic::open(store.clone(), &config);
        let admission = config.admission.clone();
        Self {
            hooks,
            store,
            config,
            rbac,
            token_keys: KeptKeys::default(),
            authn,
            admission: ArcSwap::from_pointee(admission),
            admission_reloads: Reloads::default(),
            catalog,
            aggregation: Aggregation::default(),
            front_proxy,
            traffic,
            summaries: Summaries::default(),
            buckets: BucketQueues::default(),
            routes: Routes::default(),
            connections: Arc::new(Semaphore::new(RELAYED_MAX)),
            turns: Turns::default(),
        }
    }

    /// A snapshot at least as new as every write acknowledged before the call.
    pub async fn fresh(&self) -> Result<Snapshot, Status> {
        self.store.linearize().await.map_err(|e| unavailable(&e))?;
        Ok(self.store.view())
    }

    /// A snapshot at least as new as a revision the client has seen, here or at another member.
    pub async fn not_older_than(&self, revision: Revision) -> Result<Snapshot, Status> {
        let view = self.store.view();
        if revision <= view.revision() {
            return Ok(view);
        }
        let view = self.fresh().await?;
        check_seen(revision, &view)?;
        Ok(view)
    }
}

/// The revision is not one that nobody has written yet.
pub fn check_seen(asked: Revision, view: &Snapshot) -> Result<(), Status> {
    let current = view.revision();
    if asked <= current {
        return Ok(());
    }
    let mut status = Status::timeout(format!("Too large resource version: {asked}, current: {current}"));
    status.details = serde_json::json!({ "retryAfterSeconds": 1,
        "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }] });
    Err(status)
}

/// The store cannot prove freshness.
pub fn unavailable(error: &ProposeError) -> Status {
    Status::unavailable(format!("the store did not answer: {error}"))
}

/// The store did not take a write, or nobody knows whether it did.
///
/// The second is a 500, as it is with kube-apiserver. Clients try a 503 again by themselves, and who creates an object
/// that way is told that it exists.
pub fn unwritten(error: &ProposeError) -> Status {
    match error {
        ProposeError::Unknown(_) | ProposeError::Shutdown | ProposeError::Failed(_) => {
            Status::internal(format!("the store did not answer: {error}"))
        }
        error => unavailable(error),
    }
}

/// One request about a resource, after routing and authentication.
#[derive(Clone)]
pub struct Request {
    pub core: Arc<Core>,
    pub user: UserInfo,
    /// Work that only the leader does: writes of this request are refused where this member does not lead.
    pub as_leader: bool,
    /// As served; `kind.stored()` is the form in the store.
    pub kind: &'static Kind,
    /// The definition and version of it, when it is no built-in kind.
    pub custom: Option<Custom>,
    /// Empty for cluster-scoped kinds and for lists over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    pub subresource: String,
    /// What follows the subresource in the path: the key of a bucket's entry.
    pub rest: String,
    pub parameters: Parameters,
    /// How it is answered.
    pub accepted: Accepted,
    /// Who owns what the request writes: `fieldManager`, or the client's program. May be empty.
    pub manager: String,
    pub ownership: Ownership,
    /// Of a custom kind with a converter: its objects in other versions, for the sake of ownership.
    pub conversions: Arc<Conversions>,
    /// For the audit log.
    pub annotations: Annotations,
}

impl Request {
    /// What the server itself does, as user `system:apiserver` of group `system:masters`.
    pub fn by_server(core: &Arc<Core>, kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self {
            core: core.clone(),
            user: UserInfo::authenticated("system:apiserver", [MASTERS]),
            as_leader: false,
            kind,
            custom: None,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            rest: String::new(),
            parameters: Parameters::default(),
            accepted: Accepted::PLAIN,
            manager: "kube-apiserver".to_owned(),
            ownership: Ownership::Tracked,
            conversions: Arc::default(),
            annotations: Annotations::default(),
        }
    }

    pub fn subject(&self) -> Subject<'_> {
        Subject { group: self.kind.group, resource: self.kind.resource, name: &self.name }
    }

    pub fn key(&self) -> Bytes {
        key(self.kind, &self.namespace, &self.name)
    }

    /// The prefix of the collection: all namespaces, one namespace, or a cluster-scoped kind.
    pub fn prefix(&self) -> Bytes {
        prefix(self.kind, &self.namespace)
    }

    /// The stored object or 404.
    pub fn find(&self, view: &Snapshot) -> Result<Entry, Status> {
        view.get(&self.key()).cloned().ok_or_else(|| Status::not_found(&self.subject()))
    }
}

/// `/registry/core/pods/default/web`
pub fn key(kind: &'static Kind, namespace: &str, name: &str) -> Bytes {
    let mut text = kind.storage_prefix();
    if kind.namespaced {
        text.push_str(namespace);
        text.push('/');
    }
    text.push_str(name);
    text.into()
}

/// The key prefix of a namespace's objects of a kind, or of all when `namespace` is empty.
pub fn prefix(kind: &'static Kind, namespace: &str) -> Bytes {
    let mut text = kind.storage_prefix();
    if kind.namespaced && !namespace.is_empty() {
        text.push_str(namespace);
        text.push('/');
    }
    text.into()
}

/// The kind of a core/v1 resource that the server itself needs.
pub fn core_kind(resource: &str) -> &'static Kind {
    api::kinds::lookup("", "v1", resource).expect("core/v1 kinds used by the server are in the kinds table")
}

/// Reads a `resourceVersion`; "" and "0" are `None`.
pub fn parse_revision(text: &str) -> Result<Option<Revision>, Status> {
    match text {
        "" | "0" => Ok(None),
        _ => text
            .parse()
            .map(|n| Some(Revision(n)))
            .map_err(|_| Status::bad_request(format!("resourceVersion: Invalid value: {text:?}: must be a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_written_may_be_tried_again() {
        let check = |error: ProposeError, code| assert_eq!(unwritten(&error).code, code, "{error}");
        check(ProposeError::NotLeader { leader: None }, 503);
        check(ProposeError::NoMajority, 503);
        check(ProposeError::Unreachable("no route".into()), 503);
        check(ProposeError::Quarantined, 503);
        check(ProposeError::Unknown("no answer".into()), 500);
        check(ProposeError::Failed("no disk".into()), 500);
        check(ProposeError::Shutdown, 500);
    }
}
