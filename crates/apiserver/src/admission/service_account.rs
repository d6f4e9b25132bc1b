//! Every pod runs as a service account, `default` when it names none, and has a token of it to show to the API server.
//!
//! Follows `plugin/pkg/admission/serviceaccount`: the account's pull secrets, and a volume with token, authority and
//! namespace in every container that has nothing at that place.

use api::meta;
use api::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Operation, Plugin, Review};
use crate::core::{core_kind, key};
use crate::object::encode::decode_as;
use crate::registry::meta::generated_name;

const DEFAULT: &str = "default";
/// Where client libraries look.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and seven seconds by which such tokens are told from others.
const TOKEN_SECONDS: i64 = 3607;
const ROOT_CA: &str = "kube-root-ca.crt";

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods") {
            return Ok(());
        }
        let is_mirror = meta::annotation(object, "kubernetes.io/config.mirror").is_some();
        let name = name_account(object);
        if is_mirror {
            return Ok(());
        }
        let namespace = &review.request.namespace;
        let entry = review.view.get(&key(core_kind("serviceaccounts"), namespace, &name));
        let account = match entry {
            Some(entry) => decode_as(&entry.value),
            // Made a moment after its namespace; the node waits for it before it starts the pod.
            None if name == DEFAULT => Account::default(),
            None => {
                let why =
                    format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
                return Err(review.refuse(&why));
            }
        };
        take_pull_secrets(object, &account);
        if wants_token(object, &account) {
            mount_token(object, &generated_name(VOLUME_PREFIX, &mut rand::rng()));
        }
        Ok(())
    }
}

/// What of an account its pods take over. Every new pod reads it, so it is not decoded whole.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    image_pull_secrets: Option<Vec<Value>>,
    automount_service_account_token: Option<bool>,
}

/// The account's name, which the pod names after this.
fn name_account(pod: &mut Value) -> String {
    let named = |field: &str| pod["spec"][field].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let name = named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or(DEFAULT.to_owned());
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("serviceAccount".to_owned(), name.clone().into());
        spec.insert("serviceAccountName".to_owned(), name.clone().into());
    }
    name
}

fn take_pull_secrets(pod: &mut Value, account: &Account) {
    let own = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|own| !own.is_empty());
    if let (false, Some(secrets)) = (own, account.image_pull_secrets.as_ref().filter(|all| !all.is_empty())) {
        pod["spec"]["imagePullSecrets"] = secrets.clone().into();
    }
}

/// The pod's word counts before the account's.
fn wants_token(pod: &Value, account: &Account) -> bool {
    let pod = pod["spec"]["automountServiceAccountToken"].as_bool();
    pod.or(account.automount_service_account_token).unwrap_or(true)
}

fn mount_token(pod: &mut Value, volume: &str) {
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            mounted |= mount(container, volume);
        }
    }
    if !mounted {
        return;
    }
    let source = json!({
        "name": volume,
        "projected": { "defaultMode": 0o644, "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": TOKEN_SECONDS } },
            { "configMap": { "name": ROOT_CA, "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace",
                "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
        ] },
    });
    push(&mut pod["spec"], "volumes", source);
}

/// Whether the container has it now.
fn mount(container: &mut Value, volume: &str) -> bool {
    let mounts = container["volumeMounts"].as_array();
    if mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH)) {
        return false;
    }
    push(container, "volumeMounts", json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
    true
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_named_twice() {
        let check = |spec: Value, expect: &str| {
            let mut pod = json!({ "spec": spec });
            assert_eq!(name_account(&mut pod), expect);
            assert_eq!(
                (&pod["spec"]["serviceAccount"], &pod["spec"]["serviceAccountName"]),
                (&json!(expect), &json!(expect))
            );
        };
        check(json!({}), "default");
        check(json!({ "serviceAccount": "old" }), "old");
        check(json!({ "serviceAccountName": "new", "serviceAccount": "old" }), "new");
    }

    #[test]
    fn a_token_is_wanted_unless_somebody_says_no() {
        let check = |pod: Value, account: Value, expect: bool| {
            let automount = |value: Value| json!({ "automountServiceAccountToken": value });
            let account: Account = decode_as(automount(account).to_string().as_bytes());
            assert_eq!(wants_token(&json!({ "spec": automount(pod) }), &account), expect);
        };
        check(Value::Null, Value::Null, true);
        check(Value::Null, json!(false), false);
        check(json!(true), json!(false), true);
        check(json!(false), json!(true), false);
    }

    #[test]
    fn nothing_else_is_added() {
        let mut pod = json!({ "spec": { "containers": [{ "name": "a" }] } });
        mount_token(&mut pod, "v");
        let members: Vec<&String> = pod["spec"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["containers", "volumes"]);
    }

    #[test]
    fn every_container_without_one_has_the_volume() {
        let own = json!([{ "name": "mine", "mountPath": MOUNT_PATH }]);
        let mut pod = json!({ "spec": { "initContainers": [{ "name": "i" }],
            "containers": [{ "name": "a", "volumeMounts": [{ "name": "x", "mountPath": "/x" }] },
                { "name": "b", "volumeMounts": own }] } });
        mount_token(&mut pod, "v");
        let mounts = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(mounts("/spec/initContainers/0/volumeMounts"), 1);
        assert_eq!(mounts("/spec/containers/0/volumeMounts"), 2);
        assert_eq!(mounts("/spec/containers/1/volumeMounts"), 1);
        assert_eq!(pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["path"], "token");
        let mut pod = json!({ "spec": { "containers": [{ "name": "b", "volumeMounts": own }] } });
        mount_token(&mut pod, "v");
        assert!(pod["spec"].get("volumes").is_none());
    }

    #[test]
    fn pull_secrets_come_from_the_account() {
        let account: Account = decode_as(br#"{ "kind": "ServiceAccount", "imagePullSecrets": [{ "name": "a" }] }"#);
        let check = |spec: Value, expect: &str| {
            let mut pod = json!({ "spec": spec });
            take_pull_secrets(&mut pod, &account);
            assert_eq!(pod["spec"]["imagePullSecrets"][0]["name"], expect);
        };
        check(json!({}), "a");
        check(json!({ "imagePullSecrets": [{ "name": "own" }] }), "own");
    }
}
