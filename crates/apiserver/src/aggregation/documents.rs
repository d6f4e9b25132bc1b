//! What an extension server says of itself, brought into the forms that this one publishes. Pure.

use serde_json::{Map, Value, json};

/// `resources` of aggregated discovery from an `APIResourceList`.
pub fn resources(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let items = list.get("resources").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |item: &Value, field: &str| item.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let response_kind = |item: &Value| {
        let or = |field: &str, own: &str| match text(item, field) {
            named if named.is_empty() => own.to_owned(),
            named => named,
        };
        json!({ "group": or("group", group), "version": or("version", version), "kind": text(item, "kind") })
    };
    let verbs = |item: &Value| item.get("verbs").filter(|verbs| verbs.is_array()).cloned().unwrap_or_else(|| json!([]));
    let mut all = Vec::new();
    for item in items.iter().filter(|item| !text(item, "name").is_empty() && !text(item, "name").contains('/')) {
        let name = text(item, "name");
        let scope = if item.get("namespaced") == Some(&Value::Bool(true)) { "Namespaced" } else { "Cluster" };
        let mut resource = json!({ "resource": name, "singularResource": text(item, "singularName"),
            "verbs": verbs(item), "scope": scope, "responseKind": response_kind(item) });
        for field in ["shortNames", "categories"] {
            if let Some(list) = item.get(field).filter(|list| list.as_array().is_some_and(|list| !list.is_empty())) {
                resource[field] = list.clone();
            }
        }
        let below = |item: &&Value| text(item, "name").split_once('/').is_some_and(|(parent, _)| parent == name);
        let subresources: Vec<Value> = items
            .iter()
            .filter(below)
            .map(|item| {
                let subresource = text(item, "name").split_once('/').map(|(_, sub)| sub.to_owned()).unwrap_or_default();
                json!({ "subresource": subresource, "verbs": verbs(item), "responseKind": response_kind(item) })
            })
            .collect();
        if !subresources.is_empty() {
            resource["subresources"] = subresources.into();
        }
        all.push(resource);
    }
    all
}

/// Where the OpenAPI v3 document of a group version is, from an index.
pub fn v3_url(index: &Value, group: &str, version: &str) -> Option<String> {
    let entry = index.get("paths")?.get(format!("apis/{group}/{version}"))?;
    let url = entry.get("serverRelativeURL")?.as_str()?;
    url.starts_with("/openapi/v3/").then(|| url.to_owned())
}

/// The schemas of an OpenAPI v2 document.
pub fn v2_definitions(document: Value) -> Map<String, Value> {
    let Value::Object(mut document) = document else { return Map::new() };
    match document.remove("definitions") {
        Some(Value::Object(definitions)) => definitions.into_iter().filter(|(_, schema)| schema.is_object()).collect(),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_discovery() {
        let list = json!({ "resources": [
            { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["get", "list"], "shortNames": ["fl"], "categories": [] },
            { "name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["get"] },
            { "name": "flunders/scale", "namespaced": true, "kind": "Scale", "group": "autoscaling", "version": "v1",
                "verbs": ["update"] },
            { "name": "fischers", "namespaced": false, "kind": "Fischer" }, { "kind": "Nameless" }] });
        let own = |kind: &str| json!({ "group": "g", "version": "v1", "kind": kind });
        let expect = json!([
            { "resource": "flunders", "singularResource": "flunder", "verbs": ["get", "list"], "scope": "Namespaced",
                "responseKind": own("Flunder"), "shortNames": ["fl"], "subresources": [
                    { "subresource": "status", "verbs": ["get"], "responseKind": own("Flunder") },
                    { "subresource": "scale", "verbs": ["update"],
                        "responseKind": { "group": "autoscaling", "version": "v1", "kind": "Scale" } }] },
            { "resource": "fischers", "singularResource": "", "verbs": [], "scope": "Cluster",
                "responseKind": own("Fischer") }]);
        assert_eq!(Value::from(resources(&list, "g", "v1")), expect);
        assert!(resources(&json!("text"), "g", "v1").is_empty());
    }

    #[test]
    fn documents_are_found_in_the_index() {
        let index = |url: &str| json!({ "paths": { "apis/g/v1": { "serverRelativeURL": url } } });
        let check = |index: Value, expect: Option<&str>| assert_eq!(v3_url(&index, "g", "v1").as_deref(), expect);
        check(index("/openapi/v3/apis/g/v1?hash=1"), Some("/openapi/v3/apis/g/v1?hash=1"));
        check(index("https://elsewhere/"), None);
        check(json!({}), None);
        let definitions = v2_definitions(json!({ "definitions": { "a": { "type": "object" }, "b": 1 } }));
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["a"]);
        assert!(v2_definitions(json!([])).is_empty());
    }
}
