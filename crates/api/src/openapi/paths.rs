//! `paths`: the operations of each kind, with the parameters that clients look for.
//!
//! Owns: paths, operation ids, actions, parameters. May not know: schemas beyond their names.

use serde_json::{Map, Value, json};

use super::schemas::{COMPONENTS_PREFIX, META, list_type_name};
use crate::kinds::{Kind, Subresource};

/// The last one only where a type says how lists merge.
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// All paths of the kinds of one group version.
pub(super) fn paths(kinds: &[&Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let root = super::root_path(kind);
        let scoped = if kind.namespaced {
            format!("/{root}/namespaces/{{namespace}}/{}", kind.resource)
        } else {
            format!("/{root}/{}", kind.resource)
        };
        insert(&mut paths, scoped.clone(), collection(kind), scope_parameters(kind, false));
        insert(&mut paths, format!("{scoped}/{{name}}"), single(kind), scope_parameters(kind, true));
        for subresource in kind.subresources {
            let path = format!("{scoped}/{{name}}/{}", subresource.name);
            insert(&mut paths, path, under(kind, subresource), scope_parameters(kind, true));
        }
        if kind.namespaced && kind.allows("list") {
            let list = operation(&Asked { kind, subresource: None, verb: "list", everywhere: true });
            let item = Map::from_iter([("get".to_owned(), list)]);
            insert(&mut paths, format!("/{root}/{}", kind.resource), item, Vec::new());
        }
    }
    paths
}

fn insert(paths: &mut Map<String, Value>, path: String, mut item: Map<String, Value>, mut parameters: Vec<Value>) {
    if item.is_empty() {
        return;
    }
    parameters.push(query("pretty", "string"));
    item.insert("parameters".to_owned(), Value::Array(parameters));
    paths.insert(path, Value::Object(item));
}

fn collection(kind: &Kind) -> Map<String, Value> {
    operations(kind, None, &[("get", "list"), ("post", "create"), ("delete", "deletecollection")])
}

fn single(kind: &Kind) -> Map<String, Value> {
    operations(kind, None, &[("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")])
}

fn under(kind: &Kind, subresource: &Subresource) -> Map<String, Value> {
    let verbs = [("get", "get"), ("post", "create"), ("put", "update"), ("patch", "patch"), ("delete", "delete")];
    operations(kind, Some(subresource), &verbs)
}

/// The operations among `verbs` (HTTP method, API verb) that the kind or subresource allows.
fn operations(kind: &Kind, subresource: Option<&Subresource>, verbs: &[(&str, &str)]) -> Map<String, Value> {
    let allowed = subresource.map_or(kind.verbs, |subresource| subresource.verbs);
    verbs
        .iter()
        .filter(|(_, verb)| allowed.contains(verb))
        .map(|&(method, verb)| (method.to_owned(), operation(&Asked { kind, subresource, verb, everywhere: false })))
        .collect()
}

/// What an operation does to what.
struct Asked<'a> {
    kind: &'a Kind,
    subresource: Option<&'a Subresource>,
    verb: &'a str,
    /// A list over all namespaces.
    everywhere: bool,
}

impl Asked<'_> {
    /// exec, proxy and their kin speak another protocol: all their verbs are `connect`.
    fn is_connect(&self) -> bool {
        self.subresource.is_some_and(|s| s.kind.ends_with("Options"))
    }

    fn action(&self) -> &str {
        match self.verb {
            _ if self.is_connect() => "connect",
            "create" => "post",
            "update" => "put",
            verb => verb,
        }
    }

    /// `readAppsV1NamespacedDeploymentScale`
    fn id(&self) -> String {
        let Asked { kind, subresource, verb, everywhere } = self;
        let verb = match *verb {
            _ if self.is_connect() => "connect",
            "get" => "read",
            "update" => "replace",
            "deletecollection" => "deleteCollection",
            verb => verb,
        };
        let group = match kind.group.trim_end_matches(".k8s.io") {
            "" => "Core".to_owned(),
            group => group.split('.').map(capital).collect(),
        };
        let scope = if kind.namespaced && !everywhere { "Namespaced" } else { "" };
        let tail = match subresource {
            Some(subresource) => capital(subresource.name),
            None if *everywhere => "ForAllNamespaces".to_owned(),
            None => String::new(),
        };
        let method = if self.is_connect() { capital(self.verb) } else { String::new() };
        format!("{verb}{method}{group}{}{scope}{}{tail}", capital(kind.version), kind.kind)
    }

    fn answer_type(&self) -> String {
        match (self.subresource, self.verb) {
            (_, "delete" | "deletecollection") => format!("{META}.Status"),
            (_, "list") => list_type_name(self.kind),
            (None, _) => self.kind.type_name().into_owned(),
            (Some(s), _) => match s.kind {
                "Scale" => "io.k8s.api.autoscaling.v1.Scale".to_owned(),
                "Eviction" => "io.k8s.api.policy.v1.Eviction".to_owned(),
                "TokenRequest" => "io.k8s.api.authentication.v1.TokenRequest".to_owned(),
                "Binding" => "io.k8s.api.core.v1.Binding".to_owned(),
                _ => self.kind.type_name().into_owned(),
            },
        }
    }
}

fn operation(asked: &Asked<'_>) -> Value {
    let (group, version, kind) = match asked.subresource {
        Some(s) => (s.group, s.version, s.kind),
        None => (asked.kind.group, asked.kind.version, asked.kind.kind),
    };
    let mut operation = json!({
        "operationId": asked.id(),
        "x-kubernetes-action": asked.action(),
        "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
    });
    if asked.is_connect() {
        operation["responses"] = json!({ "200": { "description": "OK", "content": {
            "*/*": { "schema": { "type": "string" } } } } });
        return operation;
    }
    let answer = reference(&asked.answer_type());
    operation["responses"] = json!({ "200": { "description": "OK", "content": {
        "application/json": { "schema": answer } } } });
    let parameters = parameters(asked.verb);
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    match asked.verb {
        "create" | "update" => {
            operation["requestBody"] = json!({ "content": { "*/*": { "schema": answer } }, "required": true });
        }
        "patch" => {
            let body = reference(&format!("{META}.Patch"));
            let types = if asked.kind.is_custom() { &PATCH_TYPES[..3] } else { &PATCH_TYPES[..] };
            let content: Map<String, Value> =
                types.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": body }))).collect();
            operation["requestBody"] = json!({ "content": content, "required": true });
        }
        "delete" | "deletecollection" => {
            let body = reference(&format!("{META}.DeleteOptions"));
            operation["requestBody"] = json!({ "content": { "*/*": { "schema": body } } });
        }
        _ => {}
    }
    operation
}

fn parameters(verb: &str) -> Vec<Value> {
    let names: &[(&str, &str)] = match verb {
        "create" | "update" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        "deletecollection" => &[
            ("continue", "string"),
            ("dryRun", "string"),
            ("fieldSelector", "string"),
            ("gracePeriodSeconds", "integer"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("propagationPolicy", "string"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
        ],
        "list" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[],
    };
    names.iter().map(|(name, kind)| query(name, kind)).collect()
}

fn query(name: &str, kind: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

fn scope_parameters(kind: &Kind, single: bool) -> Vec<Value> {
    let path = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } });
    let mut parameters = Vec::new();
    if single {
        parameters.push(path("name"));
    }
    if kind.namespaced {
        parameters.push(path("namespace"));
    }
    parameters
}

fn reference(type_name: &str) -> Value {
    json!({ "$ref": format!("{COMPONENTS_PREFIX}{type_name}") })
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
