//! APIServices: those of this server are available; what is said of others, their probes find out
//! (`aggregation::probe`).

use api::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Strategy;
use super::meta::format_time;
use super::strategy::copy_member;

pub struct ApiServices;

fn is_local(object: &Value) -> bool {
    object.pointer("/spec/service").is_none_or(Value::is_null)
}

/// What is known from the specification alone.
fn status(object: &Value, now: Timestamp) -> Value {
    if !is_local(object) {
        return json!({});
    }
    json!({ "conditions": [{ "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available", "lastTransitionTime": format_time(now) }] })
}

impl Strategy for ApiServices {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        object["status"] = status(object, Timestamp::now());
    }

    fn prepare_for_update(&self, _kind: &Kind, new: &mut Value, old: &Value) {
        copy_member(new, old, "status");
        if is_local(new) != is_local(old) {
            new["status"] = status(new, Timestamp::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn availability() {
        let kind = api::kinds::lookup("apiregistration.k8s.io", "v1", "apiservices").unwrap();
        let mut local = json!({ "spec": { "group": "apps", "version": "v1" } });
        ApiServices.prepare_for_create(kind, &mut local);
        assert_eq!(local["status"]["conditions"][0]["status"], "True");
        let mut moved = local.clone();
        moved["spec"]["service"] = json!({ "name": "s" });
        ApiServices.prepare_for_update(kind, &mut moved, &local);
        assert_eq!(moved["status"], json!({}));
        let mut back = local.clone();
        ApiServices.prepare_for_update(kind, &mut back, &moved);
        assert_eq!(back["status"]["conditions"][0]["reason"], "Local");
        let mut same = json!({ "spec": local["spec"], "status": {} });
        ApiServices.prepare_for_update(kind, &mut same, &local);
        assert_eq!(same, local);
    }
}
