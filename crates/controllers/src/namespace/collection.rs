//! One kind of objects in a namespace, whoever keeps them.

use std::borrow::Cow;

use api::kinds::Kind;
use kube::Client;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use reconcile::Target;

use crate::kinds::target;

/// How everything in a collection is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptied {
    /// Object by object, as often as it takes.
    EachByItself,
    /// By one request.
    AtOnce,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub resource: Cow<'static, str>,
    pub emptied: Emptied,
}

impl From<&'static Kind> for Collection {
    fn from(kind: &'static Kind) -> Self {
        let Target { group, version, kind, resource, .. } = target(kind, "", "");
        Self { group, version, kind, resource, emptied: Emptied::EachByItself }
    }
}

impl Collection {
    /// The address of an object, or of all of them when `name` is empty.
    pub fn target(&self, namespace: &str, name: &str) -> Target {
        let Self { group, version, kind, resource, .. } = self.clone();
        Target { group, version, kind, resource, namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    /// `flunders.wardle.example.com`, `pods`
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_string() } else { format!("{}.{}", self.resource, self.group) }
    }

    pub fn is_pods(&self) -> bool {
        self.group.is_empty() && self.resource == "pods"
    }

    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: self.group.to_string(),
            version: self.version.to_string(),
            api_version: self.target(namespace, "").api_version(),
            kind: self.kind.to_string(),
            plural: self.resource.to_string(),
        };
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}
