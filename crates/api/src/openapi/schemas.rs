//! `components.schemas`: k8s-openapi's definitions in the form Kubernetes publishes.
//!
//! Owns: reference form, group-version-kind marks, list and map marks. May not know: paths.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::list_rules::{self, Apply, Patch};
use crate::schema::REFERENCE_PREFIX;

pub(crate) const COMPONENTS_PREFIX: &str = "#/components/schemas/";
pub(crate) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Everything that the kinds, their lists, subresources and operations refer to.
pub(super) fn schemas(kinds: &[&Kind]) -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    for kind in kinds {
        kind.register_schema(&mut generator);
        for subresource in kind.subresources {
            match subresource.kind {
                "Scale" => drop(generator.subschema_for::<Scale>()),
                "Eviction" => drop(generator.subschema_for::<Eviction>()),
                "TokenRequest" => drop(generator.subschema_for::<TokenRequest>()),
                _ => {}
            }
        }
    }
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<Status>();
    let mut definitions = generator.take_definitions(false);
    for (name, definition) in &mut definitions {
        publish(name, definition);
    }
    for kind in kinds {
        if let Some(definition) = definitions.get_mut(&*kind.type_name()) {
            definition["x-kubernetes-group-version-kind"] = group_version_kinds(kind.group, kind.version, kind.kind);
            metadata_is_optional(definition);
        }
        if kind.allows("list") {
            definitions.insert(list_type_name(kind), list(kind));
        }
    }
    for (name, group, kind) in [
        ("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "Scale"),
        ("io.k8s.api.policy.v1.Eviction", "policy", "Eviction"),
        ("io.k8s.api.authentication.v1.TokenRequest", "authentication.k8s.io", "TokenRequest"),
    ] {
        if let Some(definition) = definitions.get_mut(name) {
            definition["x-kubernetes-group-version-kind"] = group_version_kinds(group, "v1", kind);
        }
    }
    let patch = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    definitions.insert(format!("{META}.Patch"), json!({ "description": patch, "type": "object" }));
    definitions
}

/// The Rust types always have metadata; a manifest need not (`kubectl explain` would say `-required-`).
fn metadata_is_optional(definition: &mut Value) {
    let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) else { return };
    required.retain(|field| field != "metadata");
    if required.is_empty()
        && let Some(fields) = definition.as_object_mut()
    {
        fields.remove("required");
    }
}

pub(super) fn list_type_name(kind: &Kind) -> String {
    format!("{}List", kind.type_name())
}

fn group_version_kinds(group: &str, version: &str, kind: &str) -> Value {
    json!([{ "group": group, "version": version, "kind": kind }])
}

fn list(kind: &Kind) -> Value {
    let reference = |name: &str| json!({ "allOf": [{ "$ref": format!("{COMPONENTS_PREFIX}{name}") }], "default": {} });
    let text = |about: &str| json!({ "description": about, "type": "string" });
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.resource),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object."),
            "kind": text("The REST resource this object represents."),
            "metadata": reference(&format!("{META}.ListMeta")),
            "items": { "description": "The objects.", "type": "array", "items": reference(&kind.type_name()) },
        },
        "x-kubernetes-group-version-kind": group_version_kinds(kind.group, kind.version, kind.list_kind),
    })
}

/// Brings one definition into Kubernetes' form, in place.
fn publish(name: &str, definition: &mut Value) {
    match name.rsplit('.').next() {
        Some("Quantity") => *definition = one_of(definition, json!([{ "type": "string" }, { "type": "number" }])),
        Some("IntOrString") => {
            *definition = one_of(definition, json!([{ "type": "integer" }, { "type": "string" }]));
            definition["format"] = "int-or-string".into();
        }
        // A schema or something else: published without a type, as Kubernetes does.
        Some(name) if name == "JSON" || name.starts_with("JSONSchemaPropsOr") => {
            *definition = json!({ "description": definition["description"] });
        }
        _ => {}
    }
    if let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) {
        for (field, property) in properties.iter_mut() {
            references(property);
            mark_field(name, field, property);
        }
    }
    if list_rules::is_atomic_struct(name) {
        definition["x-kubernetes-map-type"] = "atomic".into();
    }
}

fn one_of(definition: &Value, choices: Value) -> Value {
    json!({ "description": definition["description"], "oneOf": choices })
}

/// OpenAPI 3.0 allows nothing beside `$ref`, so Kubernetes wraps it in `allOf`.
fn references(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(reference) = fields.remove("$ref") {
        let target = reference.as_str().unwrap_or("").replacen(REFERENCE_PREFIX, COMPONENTS_PREFIX, 1);
        fields.insert("allOf".to_owned(), json!([{ "$ref": target }]));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(inner) {
            references(inner);
        }
    }
}

fn mark_field(type_name: &str, field: &str, property: &mut Value) {
    let rule = list_rules::field_rule(type_name, field);
    match rule.map(|rule| rule.patch) {
        None | Some(Patch::Default) => {}
        Some(Patch::MergeByKey { key, retain_keys }) => {
            property["x-kubernetes-patch-strategy"] = if retain_keys { "merge,retainKeys" } else { "merge" }.into();
            property["x-kubernetes-patch-merge-key"] = key.into();
        }
        Some(Patch::MergeSet) => property["x-kubernetes-patch-strategy"] = "merge".into(),
        Some(Patch::RetainKeys) => property["x-kubernetes-patch-strategy"] = "retainKeys".into(),
        Some(Patch::Replace) => property["x-kubernetes-patch-strategy"] = "replace".into(),
    }
    let is_list = property["type"] == "array";
    match rule.map(|rule| rule.apply) {
        Some(Apply::MapByKeys(keys)) => {
            property["x-kubernetes-list-type"] = "map".into();
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        Some(Apply::Set) => property["x-kubernetes-list-type"] = "set".into(),
        Some(Apply::AtomicMap) => property["x-kubernetes-map-type"] = "atomic".into(),
        None | Some(Apply::Default | Apply::AtomicList) if is_list => {
            property["x-kubernetes-list-type"] = "atomic".into();
        }
        None | Some(Apply::Default | Apply::AtomicList) => {}
    }
}
