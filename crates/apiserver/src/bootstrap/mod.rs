//! What every cluster has from its first second: namespaces, roles, runtime classes, the API Service.
//!
//! Each object goes through the registry as user `system:apiserver` of group `system:masters`.
//! Idempotent: what is there stays as it is, except that the default roles get back the rules they lack.

mod objects;
mod roles;

use std::sync::Arc;

use api::status::Status;
use serde_json::Value;
use thiserror::Error;

use crate::authz::rules_of;
use crate::config::ApiServerConfig;
use crate::core::{Core, Request};
use crate::endpoints;
use crate::registry::write::{Part, create, update};
use crate::traffic::schema;

#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error("creating {kind} {name:?} of the new cluster")]
    Create {
        kind: String,
        name: String,
        #[source]
        cause: Status,
    },
}

/// Roles whose missing rules are added at start carry this (as in Kubernetes).
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// In the order in which they are made.
fn all(config: &ApiServerConfig) -> Vec<Value> {
    let mut all = objects::namespaces();
    all.extend(roles::cluster_roles());
    all.extend(roles::bindings());
    all.extend(objects::runtime_classes());
    all.extend(objects::priority_classes());
    all.extend(objects::api_service(config));
    all.extend(objects::api_services());
    all.extend(roles::namespaced());
    all.extend(schema::default_levels());
    all.extend(schema::default_schemas());
    all
}

pub async fn run(core: &Arc<Core>) -> Result<(), BootstrapError> {
    let published = objects::extension_authentication(&core.config, core.front_proxy.as_ref());
    for object in all(&core.config).into_iter().chain(published) {
        ensure(core, object).await?;
    }
    let slice =
        |cause| BootstrapError::Create { kind: "EndpointSlice".to_owned(), name: "kubernetes".to_owned(), cause };
    endpoints::publish(core).await.map_err(slice)?;
    core.rbac.caught_up(&core.store.view()).await;
    Ok(())
}

async fn ensure(core: &Arc<Core>, object: Value) -> Result<(), BootstrapError> {
    let kind = api::kinds::of_object(&object).expect("bootstrap objects are of built-in kinds");
    let name = api::meta::name(&object).to_owned();
    let request = Request::by_server(core, kind, api::meta::namespace(&object), &name);
    let result = if core.store.view().get(&request.key()).is_none() {
        match create(&request, object, Vec::new()).await {
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            other => other.map(drop),
        }
    } else if api::meta::annotation(&object, AUTOUPDATE) == Some("true") && object.get("rules").is_some() {
        update(&request, Part::Main, Vec::new(), |present| Ok(reconciled(present, &object))).await.map(drop)
    } else if kind.resource == "configmaps" {
        update(&request, Part::Main, Vec::new(), |present| Ok(with_data(present, &object))).await.map(drop)
    } else {
        Ok(())
    };
    result.map_err(|cause| BootstrapError::Create { kind: kind.kind.to_owned(), name, cause })
}

/// The stored ConfigMap with what it has to say; what else is in it stays.
fn with_data(present: &Value, wanted: &Value) -> Value {
    let mut new = present.clone();
    for (key, value) in wanted.get("data").and_then(Value::as_object).into_iter().flatten() {
        new["data"][key] = value.clone();
    }
    new
}

/// The stored role with the wanted rules that it lacks; rules that an administrator added stay. Rules that are those of
/// other roles are kept by a controller.
fn reconciled(present: &Value, wanted: &Value) -> Value {
    let mut new = present.clone();
    if api::meta::annotation(present, AUTOUPDATE) == Some("false") {
        return new;
    }
    for (key, value) in api::meta::labels(wanted) {
        if api::meta::labels(present).all(|(present, _)| present != key) {
            new["metadata"]["labels"][key] = value.into();
        }
    }
    if let Some(rule) = wanted.get("aggregationRule") {
        new["aggregationRule"] = rule.clone();
        return new;
    }
    let have = rules_of(present);
    let mut rules = present.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted_rules = wanted.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.extend(wanted_rules.zip(rules_of(wanted)).filter(|(_, rule)| !have.contains(rule)).map(|(v, _)| v.clone()));
    new["rules"] = rules.into();
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_rules_come_back() {
        let rule = |verb: &str| json!({ "verbs": [verb], "apiGroups": [""], "resources": ["pods"] });
        let present = json!({ "rules": [rule("get"), rule("own")] });
        let wanted = json!({ "rules": [rule("get"), rule("list")] });
        let aggregated = json!({ "metadata": { "labels": { "a": "b" } }, "aggregationRule": {}, "rules": [rule("x")] });
        let expect = json!({ "metadata": { "labels": { "a": "b" } }, "aggregationRule": {},
            "rules": [rule("get"), rule("own")] });
        assert_eq!(reconciled(&present, &aggregated), expect);
        assert_eq!(reconciled(&present, &wanted)["rules"], json!([rule("get"), rule("own"), rule("list")]));
        let frozen = json!({ "metadata": { "annotations": { AUTOUPDATE: "false" } }, "rules": [] });
        assert_eq!(reconciled(&frozen, &wanted), frozen);
    }

    #[test]
    fn every_object_is_of_a_known_kind() {
        let config = ApiServerConfig::new(std::net::Ipv4Addr::LOCALHOST, 6443);
        for object in all(&config) {
            assert!(api::kinds::of_object(&object).is_some(), "{object}");
        }
    }
}
