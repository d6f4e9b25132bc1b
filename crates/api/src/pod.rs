//! Facts about a pod that more than one part of the API needs.

use serde_json::Value;

/// Guaranteed, Burstable or BestEffort, from the resources of all containers.
pub fn qos_class(pod: &Value) -> &'static str {
    let containers = ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .flat_map(|path| pod.pointer(path).and_then(Value::as_array).into_iter().flatten());
    let (mut any, mut all_equal) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let request = container.pointer(&format!("/resources/requests/{resource}"));
            let limit = container.pointer(&format!("/resources/limits/{resource}"));
            any |= request.is_some() || limit.is_some();
            all_equal &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, all_equal) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quality_of_service() {
        let check = |resources: Value, expect: &str| {
            let pod = json!({ "spec": { "containers": [{ "resources": resources }] } });
            assert_eq!(qos_class(&pod), expect, "{resources}");
        };
        check(json!({}), "BestEffort");
        check(json!({ "requests": { "cpu": "1" } }), "Burstable");
        check(json!({ "limits": { "cpu": "1" } }), "Burstable");
        check(json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed");
        check(json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }), "Burstable");
    }
}
