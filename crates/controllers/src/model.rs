//! A tiny cluster for tests: objects in a map, plans applied to it, pods that become ready when told.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::Resource;
use reconcile::pod::Pod;
use reconcile::{ApiAction, PatchBody, Plan, Target};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An instant of the tests, `second` seconds after their beginning.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A typed object from JSON, with the fields the server would add.
pub fn object<K: DeserializeOwned>(mut value: Value) -> K {
    let meta = value["metadata"].as_object_mut().unwrap();
    let name = meta.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    meta.entry("namespace").or_insert("web".into());
    meta.entry("uid").or_insert(format!("uid-{name}").into());
    meta.entry("resourceVersion").or_insert("1".into());
    meta.entry("creationTimestamp").or_insert(at(0).to_string().into());
    serde_json::from_value(value).unwrap()
}

/// The stored objects by resource and name (one namespace is enough).
#[derive(Clone, Debug, Default)]
pub struct World {
    pub objects: BTreeMap<(String, String), Value>,
    pub events: Vec<String>,
    revision: u64,
    pub now: i64,
}

impl World {
    pub fn put<K: Resource<DynamicType = ()> + serde::Serialize>(&mut self, object: &K) {
        let name = object.meta().name.clone().unwrap();
        self.store(K::plural(&()).into_owned(), name, serde_json::to_value(object).unwrap());
    }

    pub fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<Arc<K>> {
        let of_kind = self.objects.iter().filter(|((resource, _), _)| *resource == K::plural(&()));
        of_kind.map(|(_, value)| Arc::new(serde_json::from_value(value.clone()).unwrap())).collect()
    }

    pub fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(&self, name: &str) -> Option<Arc<K>> {
        let value = self.objects.get(&(K::plural(&()).into_owned(), name.to_owned()))?;
        Some(Arc::new(serde_json::from_value(value.clone()).unwrap()))
    }

    /// The whole of a pod, as it was created.
    pub fn whole(&self, pod: &Pod) -> &Value {
        &self.objects[&("pods".to_owned(), pod.metadata.name.clone().unwrap())]
    }

    /// The image of its first container.
    pub fn image(&self, pod: &Pod) -> String {
        self.whole(pod)["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    }

    pub fn edit(&mut self, resource: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.objects[&(resource.to_owned(), name.to_owned())].clone();
        change(&mut value);
        self.store(resource.to_owned(), name.to_owned(), value);
    }

    pub fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: &ApiAction) {
        match action {
            ApiAction::Create { target, body, subresource: None, .. } => {
                let name = match target.name.as_str() {
                    "" => format!("{}{:05}", body["metadata"]["generateName"].as_str().unwrap(), self.revision),
                    name => name.to_owned(),
                };
                let mut body = body.clone();
                body["metadata"]["name"] = name.clone().into();
                body["metadata"]["uid"] = format!("uid-{}", self.revision).into();
                body["metadata"]["generation"] = 1.into();
                body["metadata"]["creationTimestamp"] = at(self.now).to_string().into();
                assert!(!self.objects.contains_key(&(target.resource.to_string(), name.clone())), "{name} exists");
                self.store(target.resource.to_string(), name, body);
            }
            ApiAction::Patch { target, body: PatchBody::Merge(patch), .. } => {
                self.edit(&target.resource, &target.name, |value| {
                    let spec = value["spec"].clone();
                    merge(value, patch);
                    if value["spec"] != spec {
                        value["metadata"]["generation"] =
                            (value["metadata"]["generation"].as_i64().unwrap_or(1) + 1).into();
                    }
                });
            }
            ApiAction::Patch { target, body: PatchBody::Strategic(patch), .. } => {
                let key = (target.resource.to_string(), target.name.clone());
                let gone = patch["metadata"]["$deleteFromPrimitiveList/finalizers"].as_array().unwrap();
                self.edit(&target.resource, &target.name, |value| {
                    assert_eq!(value["metadata"]["uid"], patch["metadata"]["uid"], "another incarnation");
                    if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
                        finalizers.retain(|finalizer| !gone.contains(finalizer));
                    }
                });
                if is_over(&self.objects[&key]) {
                    self.objects.remove(&key);
                }
            }
            ApiAction::UpdateStatus { target, body, .. } => {
                self.edit(&target.resource, &target.name, |value| {
                    assert_eq!(value["metadata"]["resourceVersion"], body["metadata"]["resourceVersion"], "conflict");
                    value["status"] = body["status"].clone();
                });
            }
            ApiAction::Delete { target, .. } => self.delete(target),
            ApiAction::Event(note) => self.events.push(format!("{} {}", note.reason, note.message)),
            other => panic!("the model knows no {}", other.summary()),
        }
    }

    /// Pods end gracefully (see `finish_terminating`), everything else at once.
    fn delete(&mut self, target: &Target) {
        if target.resource == "pods" {
            let now = at(self.now).to_string();
            self.edit("pods", &target.name, |pod| pod["metadata"]["deletionTimestamp"] = now.into());
        } else {
            self.objects.remove(&(target.resource.to_string(), target.name.clone()));
        }
    }

    /// Pods that were asked to end do; those with a finalizer stay as failed.
    pub fn finish_terminating(&mut self) {
        for value in self.objects.values_mut().filter(|value| !value["metadata"]["deletionTimestamp"].is_null()) {
            if value["status"]["phase"] != "Succeeded" {
                value["status"]["phase"] = "Failed".into();
            }
        }
        self.objects.retain(|_, value| !is_over(value));
    }

    /// Ends a pod by itself.
    pub fn finish(&mut self, pod: &str, phase: &str) {
        let now = at(self.now).to_string();
        let code = i32::from(phase == "Failed");
        self.edit("pods", pod, |value| {
            value["status"] = json!({ "phase": phase, "containerStatuses": [{ "name": "c", "image": "i", "imageID": "i",
                "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": code, "finishedAt": now } } }] });
        });
    }

    /// Makes the first `count` pods ready which are not.
    pub fn make_ready(&mut self, count: usize) {
        let waiting: Vec<_> = self.all::<Pod>().into_iter().filter(|pod| !crate::pods::is_ready(pod)).collect();
        for pod in waiting.into_iter().take(count) {
            self.set_ready(pod.metadata.name.as_deref().unwrap(), true);
        }
    }

    pub fn set_ready(&mut self, pod: &str, ready: bool) {
        let now = at(self.now).to_string();
        let status = if ready { "True" } else { "False" };
        self.edit("pods", pod, |value| {
            value["spec"]["nodeName"] = "n1".into();
            value["status"] = json!({ "phase": "Running", "podIP": "10.32.0.9", "conditions": [
                { "type": "Ready", "status": status, "lastTransitionTime": now }
            ] });
        });
    }

    fn store(&mut self, resource: String, name: String, mut value: Value) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.insert((resource, name), value);
    }
}

/// Deleted, ended and held back by nothing.
fn is_over(value: &Value) -> bool {
    let held = value["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    let ended = ["Succeeded", "Failed"].iter().any(|phase| value["status"]["phase"] == *phase);
    !value["metadata"]["deletionTimestamp"].is_null() && ended && !held
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in patch {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], change);
        }
    }
}
