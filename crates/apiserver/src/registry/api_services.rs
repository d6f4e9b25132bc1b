//! APIServices: those of this server are available, others are not, since nothing is relayed to them.

use api::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Strategy;
use super::meta::format_time;
use super::strategy::copy_member;

pub struct ApiServices;

const LOCAL: (&str, &str, &str) = ("True", "Local", "Local APIServices are always available");
const ELSEWHERE: (&str, &str, &str) = (
    "False",
    "AggregationNotServed",
    "Knarr does not relay requests to API servers of others; what this one would serve is not found",
);

/// The status that follows from the specification alone.
fn status(object: &Value, now: Timestamp) -> Value {
    let is_local = object.pointer("/spec/service").is_none_or(Value::is_null);
    let (status, reason, message) = if is_local { LOCAL } else { ELSEWHERE };
    json!({ "conditions": [{ "type": "Available", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": format_time(now) }] })
}

impl Strategy for ApiServices {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        object["status"] = status(object, Timestamp::now());
    }

    fn prepare_for_update(&self, _kind: &Kind, new: &mut Value, old: &Value) {
        copy_member(new, old, "status");
        let said = status(new, Timestamp::now());
        if said["conditions"][0]["reason"] != old["status"]["conditions"][0]["reason"] {
            new["status"] = said;
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
        assert_eq!(moved["status"]["conditions"][0]["reason"], "AggregationNotServed");
        let mut same = json!({ "spec": local["spec"], "status": {} });
        ApiServices.prepare_for_update(kind, &mut same, &local);
        assert_eq!(same, local);
    }
}
