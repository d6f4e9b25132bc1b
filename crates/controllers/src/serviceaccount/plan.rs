//! Which of the two objects is missing or wrong. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{ApiAction, Plan};
use serde_json::json;

use crate::setup::ROOT_CA_CONFIG_MAP;

pub const DEFAULT: &str = "default";
const CA_FILE: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

pub struct Observed {
    pub namespace: Option<Arc<Namespace>>,
    pub service_account: Option<Arc<ServiceAccount>>,
    pub root_ca: Option<Arc<ConfigMap>>,
    pub ca_pem: String,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let Some(namespace) = &observed.namespace else { return Plan::nothing("the namespace is gone") };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("the namespace is being deleted");
    }
    let meta = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.metadata.name.clone(),
        ..ObjectMeta::default()
    };
    let mut actions = Vec::new();
    if observed.service_account.is_none() {
        let account = ServiceAccount { metadata: meta(DEFAULT), ..ServiceAccount::default() };
        actions.push(ApiAction::create(&account));
    }
    let data = BTreeMap::from([(CA_FILE.to_owned(), observed.ca_pem.clone())]);
    match &observed.root_ca {
        _ if observed.ca_pem.is_empty() => {}
        None => {
            let mut metadata = meta(ROOT_CA_CONFIG_MAP);
            metadata.annotations = Some([("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned())].into());
            actions.push(ApiAction::create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }));
        }
        Some(present) if present.data.as_ref() != Some(&data) => {
            let mut wanted: BTreeMap<&str, Option<&str>> = BTreeMap::new();
            wanted.extend(present.data.iter().flatten().map(|(key, _)| (key.as_str(), None)));
            wanted.insert(CA_FILE, Some(&observed.ca_pem));
            actions.push(ApiAction::merge_patch(present.as_ref(), json!({ "data": wanted })));
        }
        Some(_) => {}
    }
    let why = if actions.is_empty() { "complete" } else { "something every namespace has is missing or wrong" };
    Plan::of(actions, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object;

    fn observed(namespace: serde_json::Value) -> Observed {
        let namespace = Some(Arc::new(object(namespace)));
        Observed { namespace, service_account: None, root_ca: None, ca_pem: "PEM".into() }
    }

    #[test]
    fn plans() {
        let mut given = observed(json!({ "metadata": { "name": "web" } }));
        let missing = "something every namespace has is missing or wrong";
        let create = "create serviceaccounts/web/default";
        let config_map = "configmaps/web/kube-root-ca.crt";
        assert_eq!(plan(&given).render(), format!("{missing}\n  {create}\n  create {config_map}"));

        given.service_account = Some(Arc::new(object(json!({ "metadata": { "name": "default" } }))));
        let root_ca = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "OLD", "x": "y" } });
        given.root_ca = Some(Arc::new(object(root_ca)));
        let edited = plan(&given);
        assert_eq!(edited.render(), format!("{missing}\n  patch {config_map}"));
        let ApiAction::Patch { body: reconcile::PatchBody::Merge(body), .. } = &edited.actions[0] else { panic!() };
        assert_eq!(*body, json!({ "data": { "ca.crt": "PEM", "x": null } }));

        let root_ca = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "PEM" } });
        given.root_ca = Some(Arc::new(object(root_ca)));
        assert_eq!(plan(&given).render(), "complete");

        let dying = json!({ "metadata": { "name": "web", "deletionTimestamp": "2027-01-01T00:00:00Z" } });
        assert_eq!(plan(&observed(dying)).render(), "the namespace is being deleted");
    }
}
