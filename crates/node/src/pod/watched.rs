//! A pod as the node watches it: whole, but for who owns which field, which would be half of it.
//!
//! Owns: reading it, and keeping it small. A pod with all its fields in place takes some 20 kB, most of them empty; its
//! text takes two. So specification and status stay text, and who needs them reads them. May not know: what the node
//! does with it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Clone, Debug, Deserialize)]
pub struct Watched {
    #[serde(deserialize_with = "reconcile::head::metadata")]
    metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

impl Watched {
    /// With all its fields.
    pub fn pod(&self) -> Result<Pod, serde_json::Error> {
        let (spec, status) = (self.spec.as_deref(), self.status.as_deref());
        Ok(Pod {
            metadata: self.metadata.clone(),
            spec: spec.map(|text| serde_json::from_str(text.get())).transpose()?,
            status: status.map(|text| serde_json::from_str(text.get())).transpose()?,
        })
    }

    pub fn uid(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.metadata.namespace.as_deref() == Some(namespace) && self.metadata.name.as_deref() == Some(name)
    }
}

impl Resource for Watched {
    const API_VERSION: &'static str = Pod::API_VERSION;
    const GROUP: &'static str = Pod::GROUP;
    const KIND: &'static str = Pod::KIND;
    const VERSION: &'static str = Pod::VERSION;
    const URL_PATH_SEGMENT: &'static str = Pod::URL_PATH_SEGMENT;
    type Scope = NamespaceResourceScope;
}

impl Metadata for Watched {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;
    use serde_json::json;

    use super::*;

    /// Texts can only be kept where they are read first hand, so `type` has to come before `object`, as all servers send it.
    #[test]
    fn a_pod_is_read_again_from_what_is_kept() {
        let text = r#"{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1",
            "metadata":{"name":"p","namespace":"n","uid":"u","managedFields":[{"manager":"m"}]},
            "spec":{"containers":[{"name":"c","image":"i"}]},"status":{"phase":"Running"}}}"#;
        let event: WatchEvent<Watched> = serde_json::from_str(text).unwrap();
        let WatchEvent::Modified(watched) = event else { panic!("{event:?}") };
        assert_eq!((watched.uid(), watched.is("n", "p"), watched.is("p", "n")), (Some("u"), true, false));
        let pod = serde_json::to_value(watched.pod().unwrap()).unwrap();
        let expect = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}});
        assert_eq!(pod, expect);
    }

    #[test]
    fn what_is_no_pod_is_an_error() {
        let text = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":7}]}}"#;
        let watched: Watched = serde_json::from_str(text).unwrap();
        assert!(watched.pod().unwrap_err().to_string().contains("expected a string"));
    }
}
