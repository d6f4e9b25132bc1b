//! What `knarr run` makes of a program: the objects to apply. Pure.
//!
//! May not know: files, the registry, the cluster.

use serde_json::{Value, json};
use wasm_runtime::Workload;

/// The label that everything of one `knarr run` has.
pub const LABEL: &str = "app.kubernetes.io/name";
/// Where Wasm that serves HTTP listens, unless told otherwise.
const HTTP_PORT: u16 = 8080;
const SERVICE_PORT: u16 = 80;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub namespace: String,
    pub image: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub replicas: u32,
    /// A quantity: `64Mi`.
    pub memory: Option<String>,
}

/// How it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A Deployment and a Service in front of this port.
    Served { port: u16 },
    /// A Deployment that nobody calls.
    Kept,
    /// A Pod that ends.
    Once,
}

/// A program that only has functions to offer runs nothing by itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it exports neither an HTTP handler nor a command, so nothing of it runs by itself (its exports: {})",
    if exports.is_empty() { "none".to_owned() } else { exports.join(", ") }
)]
pub struct NothingRuns {
    exports: Vec<String>,
}

/// From what the program is (`None`: no Wasm file) and whether a port was named.
pub fn shape(wasm: Option<(Workload, &[String])>, port: Option<u16>) -> Result<Shape, NothingRuns> {
    let served = port.map(|port| Shape::Served { port });
    match wasm {
        Some((Workload::Plugin, exports)) => Err(NothingRuns { exports: exports.to_vec() }),
        Some((workload, _)) if workload.serves_http() => Ok(Shape::Served { port: port.unwrap_or(HTTP_PORT) }),
        Some(_) => Ok(served.unwrap_or(Shape::Once)),
        None => Ok(served.unwrap_or(Shape::Kept)),
    }
}

/// The objects in the order in which they are applied.
pub fn objects(wanted: &Wanted, shape: Shape) -> Vec<Value> {
    match shape {
        Shape::Served { port } => vec![deployment(wanted, Some(port)), service(wanted, port)],
        Shape::Kept => vec![deployment(wanted, None)],
        Shape::Once => vec![pod(wanted)],
    }
}

fn metadata(wanted: &Wanted) -> Value {
    json!({ "name": wanted.name, "namespace": wanted.namespace, "labels": { LABEL: wanted.name } })
}

fn container(wanted: &Wanted, port: Option<u16>) -> Value {
    let mut container = json!({ "name": "app", "image": wanted.image });
    if !wanted.args.is_empty() {
        container["args"] = json!(wanted.args);
    }
    if !wanted.env.is_empty() {
        container["env"] = wanted.env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    }
    if let Some(port) = port {
        container["ports"] = json!([{ "containerPort": port }]);
    }
    if let Some(memory) = &wanted.memory {
        container["resources"] = json!({ "limits": { "memory": memory } });
    }
    container
}

fn deployment(wanted: &Wanted, port: Option<u16>) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(wanted),
        "spec": {
            "replicas": wanted.replicas,
            "selector": { "matchLabels": { LABEL: wanted.name } },
            "template": {
                "metadata": { "labels": { LABEL: wanted.name } },
                "spec": { "containers": [container(wanted, port)] },
            },
        },
    })
}

fn service(wanted: &Wanted, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(wanted),
        "spec": {
            "selector": { LABEL: wanted.name },
            "ports": [{ "name": "http", "port": SERVICE_PORT, "targetPort": port }],
        },
    })
}

fn pod(wanted: &Wanted) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(wanted),
        "spec": { "restartPolicy": "Never", "containers": [container(wanted, None)] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_shapes() {
        let check = |workload: Option<Workload>, port: Option<u16>, expect: Shape| {
            let exports = vec!["acme:calc/add".to_owned()];
            assert_eq!(shape(workload.map(|w| (w, exports.as_slice())), port), Ok(expect), "{workload:?} {port:?}");
        };
        check(Some(Workload::HttpProxy), None, Shape::Served { port: 8080 });
        check(Some(Workload::HttpService), Some(9000), Shape::Served { port: 9000 });
        check(Some(Workload::Command), None, Shape::Once);
        check(Some(Workload::Start), None, Shape::Once);
        // It listens by itself, on a socket.
        check(Some(Workload::Command), Some(7), Shape::Served { port: 7 });
        check(None, None, Shape::Kept);
        check(None, Some(80), Shape::Served { port: 80 });
    }

    #[test]
    fn functions_alone_are_refused_by_name() {
        let exports = ["acme:calc/ops".to_owned()];
        let error = shape(Some((Workload::Plugin, exports.as_slice())), Some(80)).unwrap_err();
        assert!(error.to_string().ends_with("(its exports: acme:calc/ops)"), "{error}");
    }

    #[test]
    fn objects_say_what_was_asked() {
        let wanted = Wanted {
            name: "web".to_owned(),
            namespace: "team".to_owned(),
            image: "registry.local/run/web:1".to_owned(),
            args: vec!["-v".to_owned()],
            env: vec![("A".to_owned(), "b=c".to_owned())],
            replicas: 3,
            memory: Some("64Mi".to_owned()),
        };
        let kinds = |shape| objects(&wanted, shape).iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect();
        let kinds = |shape| -> Vec<String> { kinds(shape) };
        assert_eq!(kinds(Shape::Served { port: 8080 }), ["Deployment", "Service"]);
        assert_eq!(kinds(Shape::Kept), ["Deployment"]);
        assert_eq!(kinds(Shape::Once), ["Pod"]);
        let objects = objects(&wanted, Shape::Served { port: 8080 });
        let container = &objects[0]["spec"]["template"]["spec"]["containers"][0];
        let expect = json!({ "name": "app", "image": "registry.local/run/web:1", "args": ["-v"],
            "env": [{ "name": "A", "value": "b=c" }], "ports": [{ "containerPort": 8080 }],
            "resources": { "limits": { "memory": "64Mi" } } });
        assert_eq!(container, &expect);
        assert_eq!(objects[0]["spec"]["replicas"], 3);
        assert_eq!(objects[1]["spec"]["ports"][0]["targetPort"], 8080);
    }
}
