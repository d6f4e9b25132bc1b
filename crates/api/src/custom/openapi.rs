//! OpenAPI of custom kinds: their schemas as they are published, beside what every document has.
//!
//! Owns: what of a structural schema is shown, in v3 and v2. May not know: HTTP.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::definition::Custom;
use crate::kinds::Kind;
use crate::openapi::{COMPONENTS_PREFIX, META, assemble};

/// The v3 document of one group version.
pub fn document(of: &[Custom]) -> Bytes {
    let kinds: Vec<&Kind> = of.iter().map(Custom::kind).collect();
    let schemas =
        of.iter().map(|custom| (custom.kind().type_name().into_owned(), published(custom, COMPONENTS_PREFIX)));
    assemble(&kinds, schemas.collect())
}

const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";
const DEFINITIONS_PREFIX: &str = "#/definitions/";

/// Schemas for `/openapi/v2`.
pub fn v2_definitions(of: &[&Custom]) -> Map<String, Value> {
    of.iter()
        .map(|custom| {
            let mut schema = published(custom, DEFINITIONS_PREFIX);
            if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
                // A client takes the properties that are named for all that may be there, even those of every object.
                schema = json!({ "type": "object", GROUP_VERSION_KIND: schema[GROUP_VERSION_KIND] });
            }
            downgrade(&mut schema);
            (custom.kind().type_name().into_owned(), schema)
        })
        .collect()
}

fn published(custom: &Custom, prefix: &str) -> Value {
    let kind = custom.kind();
    let mut schema = custom.version().published.clone();
    if !schema.is_object() || schema == json!({}) {
        schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    }
    let text = |about: &str| json!({ "description": about, "type": "string" });
    let reference = json!({ "$ref": format!("{prefix}{META}.ObjectMeta") });
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = text("APIVersion defines the versioned schema of this representation of an object.");
    properties["kind"] = text("The REST resource this object represents.");
    properties["metadata"] = if prefix == COMPONENTS_PREFIX {
        json!({ "description": "Standard object's metadata.", "allOf": [reference] })
    } else {
        json!({ "description": "Standard object's metadata.", "$ref": reference["$ref"] })
    };
    schema[GROUP_VERSION_KIND] = json!([{ "group": kind.group, "version": kind.version, "kind": kind.kind }]);
    if let Some(scope) = schema.as_object_mut() {
        scope.remove("x-kubernetes-validations");
    }
    schema
}

/// v2 has no words for alternatives and nullable values; what it cannot say, it leaves open.
fn downgrade(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for word in ["oneOf", "anyOf", "not", "nullable", "allOf"] {
        let is_nullable = word == "nullable" && fields.get(word) == Some(&Value::Bool(true));
        fields.remove(word);
        if is_nullable {
            // Null would not fit any type that is named.
            fields.retain(|name, _| name.starts_with("x-kubernetes") || name == "description");
            return;
        }
    }
    if fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        fields.remove("properties");
        fields.remove("items");
    }
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        fields.remove("type");
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(word) {
            downgrade(inner);
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(downgrade);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Definition;
    use super::super::definition::tests::object;
    use super::*;

    #[test]
    fn schemas_are_published() {
        let definition = Arc::new(Definition::compile(&object()).unwrap());
        let custom = Custom { definition, at: 0 };
        let document: Value = serde_json::from_slice(&document(std::slice::from_ref(&custom))).unwrap();
        let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
        assert_eq!(schema["properties"]["spec"]["properties"]["cronSpec"]["type"], "string");
        assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("com.example.stable.v1.CronTabList"));
        assert!(schemas.contains_key(&format!("{META}.ObjectMeta")));
        let path = "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}";
        assert_eq!(document["paths"][path]["patch"]["x-kubernetes-action"], "patch");
        let v2 = v2_definitions(&[&custom]);
        let metadata = &v2["com.example.stable.v1.CronTab"]["properties"]["metadata"]["$ref"];
        assert_eq!(*metadata, json!(format!("#/definitions/{META}.ObjectMeta")));
    }
}
