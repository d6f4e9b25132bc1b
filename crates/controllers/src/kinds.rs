//! Built-in kinds as targets and as dynamic API handles, for the controllers that work on all of them.

use std::borrow::Cow;

use api::kinds::{KINDS, Kind};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use reconcile::Target;

/// Kinds of which objects are kept under this very group and version, and can be listed, watched and deleted.
pub fn kept() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| {
        let is_original = std::ptr::eq(kind.stored(), *kind);
        is_original && ["list", "watch", "delete"].iter().all(|verb| kind.allows(verb))
    })
}

#[must_use]
pub fn target(kind: &'static Kind, namespace: &str, name: &str) -> Target {
    Target {
        group: Cow::Borrowed(kind.group),
        version: Cow::Borrowed(kind.version),
        kind: Cow::Borrowed(kind.kind),
        resource: Cow::Borrowed(kind.resource),
        namespace: Some(namespace.to_owned()).filter(|_| kind.namespaced),
        name: name.to_owned(),
    }
}

#[must_use]
pub fn api_resource(kind: &Kind) -> ApiResource {
    ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.resource.to_owned(),
    }
}

/// A handle on the objects of `kind` in `namespace`, or on all when it is empty.
#[must_use]
pub fn dynamic_api(client: &Client, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
    let resource = api_resource(kind);
    if kind.namespaced && !namespace.is_empty() {
        Api::namespaced_with(client.clone(), namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_met_under_one_kind() {
        let kept: Vec<_> = kept().map(|kind| (kind.group, kind.resource)).collect();
        assert!(kept.contains(&("", "pods")) && kept.contains(&("apps", "replicasets")));
        let events: Vec<_> = kept.iter().filter(|(_, resource)| *resource == "events").collect();
        assert_eq!(events.len(), 1, "core and events.k8s.io Events are the same objects");
    }
}
