//! Which pod stands behind a Service for one proxied request. The choice is the caller's number; pure.

use serde_json::Value;

/// A pod's port, and where the pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub pod: String,
    pub node: String,
    pub port: u16,
}

/// The name of the Service's port that is meant.
pub fn port_name(service: &Value, name: &str, asked: &str) -> Result<String, String> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if asked.is_empty() {
        return match ports {
            [only] => Ok(text(only)),
            _ => ports
                .iter()
                .find(|port| text(port).is_empty())
                .map(text)
                .ok_or_else(|| format!("service {name:?} has several ports; choose one as {name}:PORT")),
        };
    }
    let number = asked.parse::<u64>().ok();
    let meant =
        |port: &&Value| text(port) == asked || (number.is_some() && port.get("port").and_then(Value::as_u64) == number);
    ports.iter().find(meant).map(text).ok_or_else(|| format!("no service port {asked:?} found for service {name:?}"))
}

/// Every ready pod behind that port.
pub fn backends(slices: &[Value], port_name: &str) -> Vec<Backend> {
    slices.iter().flat_map(|slice| of_slice(slice, port_name)).collect()
}

fn of_slice(slice: &Value, port_name: &str) -> Vec<Backend> {
    let list = |field: &str| slice.get(field).and_then(Value::as_array).into_iter().flatten();
    let named = |port: &&Value| port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name;
    let port = list("ports").find(named).and_then(|port| port.get("port")?.as_u64());
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let backend = |endpoint: &Value| {
        let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false);
        let is_pod = endpoint.pointer("/targetRef/kind").and_then(Value::as_str) == Some("Pod");
        let pod = endpoint.pointer("/targetRef/name").and_then(Value::as_str)?.to_owned();
        let node = endpoint.get("nodeName").and_then(Value::as_str)?.to_owned();
        (ready && is_pod).then_some(Backend { pod, node, port })
    };
    list("endpoints").filter_map(backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_name_and_number() {
        let one = json!({ "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] } });
        let two = json!({ "spec": { "ports": [{ "name": "web", "port": 80 }, { "name": "admin", "port": 81 }] } });
        let check = |service: &Value, asked: &str, expect: Result<&str, &str>| {
            assert_eq!(port_name(service, "s", asked).as_deref().map_err(String::as_str), expect, "{asked}");
        };
        check(&one, "", Ok(""));
        check(&one, "80", Ok(""));
        check(&one, "8080", Err("no service port \"8080\" found for service \"s\""));
        check(&two, "admin", Ok("admin"));
        check(&two, "81", Ok("admin"));
        check(&two, "", Err("service \"s\" has several ports; choose one as s:PORT"));
    }

    #[test]
    fn only_ready_pods_stand_behind() {
        let endpoint = |name: &str, ready: bool| {
            json!({ "conditions": { "ready": ready }, "nodeName": "n1",
            "targetRef": { "kind": "Pod", "name": name } })
        };
        let slice = json!({ "ports": [{ "name": "web", "port": 8080 }],
            "endpoints": [endpoint("a", true), endpoint("b", false), { "addresses": ["192.0.2.1"] }] });
        let expect = Backend { pod: "a".into(), node: "n1".into(), port: 8080 };
        assert_eq!(backends(std::slice::from_ref(&slice), "web"), [expect]);
        assert_eq!(backends(&[slice], "admin"), []);
    }
}
