//! The `Available` condition of an APIService, in kube-aggregator's words. Pure.

use serde_json::{Value, json};

use crate::reach::Absent;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn passed() -> Self {
        Self { available: true, reason: "Passed", message: "all checks passed".to_owned() }
    }

    fn failed(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    /// What was registered cannot be used.
    pub fn misconfigured(why: &str) -> Self {
        Self::failed("InvalidConfiguration", why.to_owned())
    }

    /// The group version is this server's own.
    pub fn built_in(group: &str, version: &str) -> Self {
        let message = format!("{group}/{version} is served by this server itself; the service is not asked");
        Self::failed("BuiltIn", message)
    }

    /// There is nobody to be asked.
    pub fn absent(absent: &Absent, namespace: &str, name: &str) -> Self {
        match absent {
            Absent::Service => {
                Self::failed("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"))
            }
            Absent::Port { port } => Self::failed(
                "ServicePortError",
                format!("service/{name} in {namespace:?} is not listening on port {port}"),
            ),
            Absent::Slices => Self::failed(
                "EndpointsNotFound",
                format!("cannot find endpointslices for service/{name} in {namespace:?}"),
            ),
            Absent::Endpoints { port_name } => Self::failed(
                "MissingEndpoints",
                format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"),
            ),
            Absent::Node { why } => Self::failed("MissingEndpoints", format!("service/{name} in {namespace:?}: {why}")),
        }
    }

    /// Nobody answered as he should.
    pub fn unanswered(url: &str, why: &str) -> Self {
        Self::failed("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
    }
}

/// The status of an APIService that says so; `None` when it does already.
pub fn status(present: &Value, condition: &Condition, now: &str) -> Option<Value> {
    let conditions = present.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let said = conditions.iter().find(|said| said["type"] == "Available");
    let text = if condition.available { "True" } else { "False" };
    let same = |said: &&Value| said["status"] == text;
    let since = said.filter(same).and_then(|said| said["lastTransitionTime"].as_str()).unwrap_or(now);
    let wanted = json!({ "type": "Available", "status": text, "reason": condition.reason,
        "message": condition.message, "lastTransitionTime": since });
    if said == Some(&wanted) {
        return None;
    }
    let others = conditions.into_iter().filter(|said| said["type"] != "Available");
    let all: Vec<Value> = others.chain([wanted]).collect();
    let mut status = present.get("status").filter(|status| status.is_object()).cloned().unwrap_or_else(|| json!({}));
    status["conditions"] = all.into();
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let check = |absent: Absent, reason: &str, message: &str| {
            let condition = Condition::absent(&absent, "n", "s");
            assert_eq!((condition.reason, condition.message.as_str()), (reason, message));
        };
        check(Absent::Service, "ServiceNotFound", "service/s in \"n\" is not present");
        check(Absent::Port { port: 443 }, "ServicePortError", "service/s in \"n\" is not listening on port 443");
        check(Absent::Slices, "EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"");
        check(
            Absent::Endpoints { port_name: "https".to_owned() },
            "MissingEndpoints",
            "endpoints for service/s in \"n\" have no addresses with port name \"https\"",
        );
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let first = status(&json!({}), &Condition::passed(), "t1").unwrap();
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "t1");
        let object = json!({ "status": first });
        assert_eq!(status(&object, &Condition::passed(), "t2"), None);
        let failed = status(&object, &Condition::unanswered("u", "x"), "t2").unwrap();
        assert_eq!(failed["conditions"][0]["lastTransitionTime"], "t2");
        let again = status(&json!({ "status": failed }), &Condition::unanswered("u", "y"), "t3").unwrap();
        assert_eq!(
            (&again["conditions"][0]["lastTransitionTime"], &again["conditions"][0]["message"]),
            (&json!("t2"), &json!("failing or missing response from u: y"))
        );
        let other = json!({ "status": { "conditions": [{ "type": "Other" }], "more": 1 } });
        let both = status(&other, &Condition::passed(), "t").unwrap();
        assert_eq!((both["conditions"].as_array().unwrap().len(), &both["more"]), (2, &json!(1)));
    }
}
