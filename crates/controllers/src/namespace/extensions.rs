//! What extension API servers keep in a namespace: asked of them anew each time, since nobody watches their objects.
//!
//! Owns: which group versions are theirs, and which of their resources can be emptied. May not know: what is done about
//! one that does not answer (`plan`).

use std::collections::BTreeSet;
use std::time::Duration;

use api::custom::names::compare_versions;
use api::kinds::KINDS;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ListParams};
use kube::core::{DynamicObject, ObjectList};
use kube::{Client, Error};

use super::collection::{Collection, Emptied};

/// Longest wait for one answer of an extension server.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Objects of one resource looked at in one round.
const PAGE: u32 = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVersion {
    pub group: String,
    pub version: String,
}

impl GroupVersion {
    pub fn text(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }
}

/// The group versions that others serve, preferred versions of a group first.
pub async fn registered(client: &Client) -> Result<Vec<GroupVersion>, Error> {
    let services: Api<APIService> = Api::all(client.clone());
    Ok(theirs(&services.list(&ListParams::default()).await?.items))
}

fn theirs(services: &[APIService]) -> Vec<GroupVersion> {
    let mut found: Vec<(i32, GroupVersion)> = services
        .iter()
        .filter_map(|service| service.spec.as_ref())
        .filter(|spec| spec.service.is_some())
        .map(|spec| {
            let of = |text: &Option<String>| text.clone().unwrap_or_default();
            (spec.version_priority, GroupVersion { group: of(&spec.group), version: of(&spec.version) })
        })
        .filter(|(_, of)| !is_built_in(of))
        .collect();
    found.sort_by(|(a_priority, a), (b_priority, b)| {
        let by_priority = || b_priority.cmp(a_priority);
        a.group.cmp(&b.group).then_with(by_priority).then_with(|| compare_versions(&a.version, &b.version))
    });
    found.into_iter().map(|(_, of)| of).collect()
}

/// What the API server keeps itself is not given away, whatever an APIService says.
fn is_built_in(of: &GroupVersion) -> bool {
    KINDS.iter().any(|kind| kind.group == of.group && kind.version == of.version && kind.is_stored())
}

/// What a group version has in namespaces and can be deleted; `seen` are the resources of preferred versions, which show
/// the same objects.
pub async fn collections(
    client: &Client,
    of: &GroupVersion,
    seen: &mut BTreeSet<(String, String)>,
) -> Result<Vec<Collection>, String> {
    let group_version = of.text();
    let list = answered(client.list_api_group_resources(&group_version)).await?;
    Ok(deletable(of, &list, seen))
}

fn deletable(of: &GroupVersion, list: &APIResourceList, seen: &mut BTreeSet<(String, String)>) -> Vec<Collection> {
    let can = |resource: &APIResource, verb: &str| resource.verbs.iter().any(|known| known == verb);
    let mut found = Vec::new();
    for resource in list.resources.iter().filter(|resource| resource.namespaced && !resource.name.contains('/')) {
        let emptied = match (can(resource, "deletecollection"), can(resource, "delete")) {
            (true, _) => Emptied::AtOnce,
            (false, true) => Emptied::EachByItself,
            (false, false) => continue,
        };
        if can(resource, "list") && seen.insert((of.group.clone(), resource.name.clone())) {
            found.push(Collection {
                group: of.group.clone().into(),
                version: of.version.clone().into(),
                kind: resource.kind.clone().into(),
                resource: resource.name.clone().into(),
                emptied,
            });
        }
    }
    found
}

/// The first of the objects of a collection.
pub async fn list(client: &Client, of: &Collection, namespace: &str) -> Result<ObjectList<DynamicObject>, String> {
    let objects = of.api(client, namespace);
    answered(objects.list(&ListParams::default().limit(PAGE))).await
}

/// An answer in time, or why there is none, in the words of whoever failed.
async fn answered<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_WAIT_MAX, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object;
    use serde_json::{Value, json};

    fn service(group: &str, version: &str, priority: i32, with: Value) -> APIService {
        object(
            json!({ "metadata": { "name": format!("{version}.{group}") }, "spec": { "group": group, "version": version,
            "groupPriorityMinimum": 1000, "versionPriority": priority, "service": with } }),
        )
    }

    #[test]
    fn others_serve_what_names_a_service() {
        let named = || json!({ "namespace": "wardle", "name": "api" });
        let services = [
            service("wardle.example.com", "v1alpha1", 10, named()),
            service("wardle.example.com", "v1", 10, named()),
            service("wardle.example.com", "v1beta1", 20, named()),
            service("apps", "v1", 10, named()),
            service("local.example.com", "v1", 10, Value::Null),
            service("metrics.k8s.io", "v1beta1", 10, named()),
        ];
        let found: Vec<String> = theirs(&services).iter().map(GroupVersion::text).collect();
        assert_eq!(
            found,
            [
                "metrics.k8s.io/v1beta1",
                "wardle.example.com/v1beta1",
                "wardle.example.com/v1",
                "wardle.example.com/v1alpha1",
            ]
        );
    }

    #[test]
    fn what_can_be_emptied() {
        let resource = |name: &str, namespaced: bool, verbs: &[&str]| json!({ "name": name, "namespaced": namespaced, "kind": "K", "singularName": "", "verbs": verbs });
        let list: APIResourceList = serde_json::from_value(json!({ "groupVersion": "g.dev/v1", "resources": [
            resource("at-once", true, &["delete", "deletecollection", "list"]),
            resource("at-once/status", true, &["delete", "list"]),
            resource("each", true, &["delete", "list"]),
            resource("everywhere", false, &["delete", "list"]),
            resource("blind", true, &["delete"]),
            resource("read-only", true, &["get", "list"]),
        ] }))
        .unwrap();
        let mut seen = BTreeSet::new();
        let of = |version: &str| GroupVersion { group: "g.dev".to_owned(), version: version.to_owned() };
        let found = deletable(&of("v1"), &list, &mut seen);
        let found: Vec<_> = found.iter().map(|one| (one.qualified(), one.emptied)).collect();
        let expect = [("at-once.g.dev", Emptied::AtOnce), ("each.g.dev", Emptied::EachByItself)];
        assert_eq!(found, expect.map(|(name, emptied)| (name.to_owned(), emptied)));
        assert!(deletable(&of("v2"), &list, &mut seen).is_empty(), "another version shows the same objects");
    }
}
