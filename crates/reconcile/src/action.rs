//! What a control loop decided, as data: `Plan` and its `ApiAction`s.
//!
//! Plans are compared, printed and tested without a server; `execute` turns them into requests.

use std::borrow::Cow;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use crate::events::Note;

/// The address of one object (or, with an empty name, of a collection to create in).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    /// The lower-case plural of the URL.
    pub resource: Cow<'static, str>,
    /// `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    pub name: String,
}

impl Target {
    /// The address of an object at hand.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::named::<K>(object.meta().namespace.as_deref(), &object.name_any())
    }

    #[must_use]
    pub fn named<K: Resource<DynamicType = ()>>(namespace: Option<&str>, name: &str) -> Self {
        Self {
            group: K::group(&()),
            version: K::version(&()),
            kind: K::kind(&()),
            resource: K::plural(&()),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// `/apis/apps/v1/namespaces/web/replicasets`
    #[must_use]
    pub fn collection_path(&self) -> String {
        let root = if self.group.is_empty() { "api".to_owned() } else { format!("apis/{}", self.group) };
        match &self.namespace {
            Some(namespace) => format!("/{root}/{}/namespaces/{namespace}/{}", self.version, self.resource),
            None => format!("/{root}/{}/{}", self.version, self.resource),
        }
    }

    /// `replicasets/web/front`, for logs.
    #[must_use]
    pub fn display(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}/{}", self.resource, self.name),
            None => format!("{}/{}", self.resource, self.name),
        }
    }

    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Body of a patch request; the variant is the content type.
#[derive(Clone, Debug, PartialEq)]
pub enum PatchBody {
    Merge(Value),
    Json(Value),
    Strategic(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The Events which tell about a create or delete once its result is known. `{name}` and `{error}` are filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Narration {
    pub regarding: ObjectReference,
    pub done_reason: &'static str,
    pub done_message: String,
    pub failed_reason: &'static str,
    pub failed_message: String,
}

/// One request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiAction {
    /// POST to the collection, or to a subresource (`binding`) of the named object.
    Create { target: Target, subresource: Option<&'static str>, body: Value, narration: Option<Narration> },
    /// PATCH of the object or a subresource.
    Patch { target: Target, subresource: Option<&'static str>, body: PatchBody },
    /// DELETE; with a uid only that incarnation is deleted.
    Delete {
        target: Target,
        uid: Option<String>,
        propagation: Option<Propagation>,
        grace_period_seconds: Option<u32>,
        narration: Option<Narration>,
    },
    /// DELETE of everything in the collection of the target, whose name is empty.
    DeleteCollection { target: Target, propagation: Option<Propagation> },
    /// PUT of a subresource: `status`, or `finalize` of a namespace. The body holds the resource version it was
    /// computed from, so a lost race is a conflict and not a lost update.
    UpdateStatus { target: Target, subresource: &'static str, body: Value },
    /// An Event about an object; never waited for.
    Event(Note),
}

impl ApiAction {
    /// Creates `object`; its name may be left to `generateName`.
    #[must_use]
    pub fn create<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        let name = object.meta().name.clone().unwrap_or_default();
        let target = Target::named::<K>(object.meta().namespace.as_deref(), &name);
        let body = with_type(&target, serialized(object));
        Self::Create { target, subresource: None, body, narration: None }
    }

    #[must_use]
    pub fn merge_patch<K: Resource<DynamicType = ()>>(object: &K, body: Value) -> Self {
        Self::Patch { target: Target::of(object), subresource: None, body: PatchBody::Merge(body) }
    }

    /// Deletes exactly this incarnation of `object`, in the background.
    #[must_use]
    pub fn delete<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Delete {
            target: Target::of(object),
            uid: object.meta().uid.clone(),
            propagation: Some(Propagation::Background),
            grace_period_seconds: None,
            narration: None,
        }
    }

    /// Replaces the status of the stored object by the one in `object`.
    #[must_use]
    pub fn update_status<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        let target = Target::of(object);
        let body = with_type(&target, serialized(object));
        Self::UpdateStatus { target, subresource: "status", body }
    }

    #[must_use]
    pub fn narrated(mut self, story: Narration) -> Self {
        if let Self::Create { narration, .. } | Self::Delete { narration, .. } = &mut self {
            *narration = Some(story);
        }
        self
    }

    /// One line for logs and golden tests: `create pods/web/front-x`.
    #[must_use]
    pub fn summary(&self) -> String {
        let of = |subresource: &Option<&'static str>| subresource.map(|s| format!("/{s}")).unwrap_or_default();
        match self {
            Self::Create { target, subresource, body, .. } if target.name.is_empty() => {
                let prefix = body["metadata"]["generateName"].as_str().unwrap_or_default();
                format!("create {}{prefix}*{}", target.display(), of(subresource))
            }
            Self::Create { target, subresource, .. } => format!("create {}{}", target.display(), of(subresource)),
            Self::Patch { target, subresource, .. } => format!("patch {}{}", target.display(), of(subresource)),
            Self::Delete { target, .. } => format!("delete {}", target.display()),
            Self::DeleteCollection { target, .. } => format!("delete all {}", target.display()),
            Self::UpdateStatus { target, subresource, .. } => format!("update {}/{subresource}", target.display()),
            Self::Event(note) => format!("event {} {}", note.reason, note.message),
        }
    }
}

/// Everything one reconciliation of one key wants done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order; neighbours of the same verb may run side by side.
    pub actions: Vec<ApiAction>,
    /// One sentence: the log line, and the golden text of tests.
    pub why: String,
    /// Look again after this time even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Nothing to do, because `why`.
    #[must_use]
    pub fn nothing(why: impl Into<String>) -> Self {
        Self { why: why.into(), ..Self::default() }
    }

    #[must_use]
    pub fn of(actions: Vec<ApiAction>, why: impl Into<String>) -> Self {
        Self { actions, why: why.into(), requeue_after: None }
    }

    /// Looks again at the earlier of the present time and `after`.
    pub fn requeue_within(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |present| present.min(after)));
    }

    /// The plan as text: `why`, then one line per action.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.why.clone();
        for action in &self.actions {
            text.push_str("\n  ");
            text.push_str(&action.summary());
        }
        if let Some(after) = self.requeue_after {
            text.push_str(&format!("\n  again after {after:?}"));
        }
        text
    }
}

fn serialized<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("a typed Kubernetes object has string keys and finite numbers only")
}

/// k8s-openapi writes apiVersion and kind itself; `kube`'s own types may not.
fn with_type(target: &Target, mut body: Value) -> Value {
    body["apiVersion"] = target.api_version().into();
    body["kind"] = target.kind.as_ref().into();
    body
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::{Namespace, Pod};

    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        let replica_set = Target::named::<ReplicaSet>(Some("web"), "front");
        assert_eq!(replica_set.collection_path(), "/apis/apps/v1/namespaces/web/replicasets");
        assert_eq!(Target::named::<Pod>(Some("a"), "b").collection_path(), "/api/v1/namespaces/a/pods");
        assert_eq!(Target::named::<Namespace>(None, "b").collection_path(), "/api/v1/namespaces");
        assert_eq!(replica_set.display(), "replicasets/web/front");
    }

    #[test]
    fn a_plan_reads_as_text() {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("web".into());
        pod.metadata.generate_name = Some("front-".into());
        let mut plan = Plan::of(vec![ApiAction::create(&pod)], "1 of 3 replicas missing");
        plan.requeue_within(Duration::from_secs(9));
        plan.requeue_within(Duration::from_secs(5));
        plan.requeue_within(Duration::from_secs(7));
        assert_eq!(plan.render(), "1 of 3 replicas missing\n  create pods/web/front-*\n  again after 5s");
    }
}
