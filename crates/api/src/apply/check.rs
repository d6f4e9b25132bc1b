//! Does an applied configuration fit its type?
//!
//! Owns: the complaints, in structured-merge-diff's words. May not know: other versions, other objects.
//!
//! The decoder that all bodies go through prunes what it does not know. Here that would be wrong: the applier would
//! be told that it owns a field which is not there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::{Element, path_text};
use super::place::{Form, Place};
use crate::custom::Type;
use crate::schema::{ScalarType, Shape};

/// `.spec.replica: field not declared in schema`; all that there are.
pub fn complaints(place: Place, config: &Value) -> Vec<String> {
    let mut check = Check { path: Vec::new(), found: Vec::new() };
    check.value(place, config);
    check.found
}

struct Check {
    path: Vec<Element>,
    found: Vec<String>,
}

impl Check {
    fn complain(&mut self, why: &str) {
        self.found.push(format!("{}: {why}", path_text(&self.path)));
    }

    fn value(&mut self, place: Place, value: &Value) {
        if value.is_null() {
            return;
        }
        if let Place::Known(at) = place {
            let wanted = match at.shape() {
                Shape::Raw => return,
                Shape::Struct { .. } | Shape::Map if !value.is_object() => "map",
                Shape::List if !value.is_array() => "list",
                Shape::Struct { .. } | Shape::Map | Shape::List => "",
                Shape::Scalar => wanted_scalar(at.scalar().unwrap_or(ScalarType::Any), value),
            };
            if !wanted.is_empty() {
                return self.complain(&format!("expected {wanted}, got {value}"));
            }
        }
        if let Place::Custom(schema) = place {
            let wanted = wanted_custom(schema.kind, value);
            if !wanted.is_empty() {
                return self.complain(&format!("expected {wanted}, got {value}"));
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.path.push(Element::field(name));
                    match place.field(name) {
                        Some(field) => self.value(field, value),
                        None => self.complain("field not declared in schema"),
                    }
                    self.path.pop();
                }
            }
            Value::Array(items) => self.items(place, place.form(value), items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn items(&mut self, place: Place, form: Form, items: &[Value]) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = match form {
                Form::Whole | Form::Fields => Element::Index(i64::try_from(index).unwrap_or(i64::MAX)),
                Form::Set | Form::Keyed(_) => match place.element(form, item) {
                    Ok(element) => element,
                    Err(why) => return self.complain(&format!("element {index}: {why}")),
                },
            };
            if !seen.insert(element.clone()) {
                self.complain(&format!("duplicate entries for key {element}"));
            }
            self.path.push(element);
            self.value(place.item(), item);
            self.path.pop();
        }
    }
}

/// Empty when it fits.
fn wanted_custom(kind: Type, value: &Value) -> &'static str {
    match (kind, value) {
        (Type::Object, Value::Object(_)) | (Type::Array, Value::Array(_)) | (Type::Any, _) => "",
        (Type::Object, _) => "map",
        (Type::Array, _) => "list",
        (Type::String, _) => wanted_scalar(ScalarType::Text, value),
        (Type::Boolean, _) => wanted_scalar(ScalarType::Boolean, value),
        (Type::Integer | Type::Number, _) => wanted_scalar(ScalarType::Number, value),
        (Type::IntOrString, _) => wanted_scalar(ScalarType::Any, value),
    }
}

/// Empty when it fits.
fn wanted_scalar(scalar: ScalarType, value: &Value) -> &'static str {
    match (scalar, value) {
        (ScalarType::Text, Value::String(_))
        | (ScalarType::Boolean, Value::Bool(_))
        | (ScalarType::Number, Value::Number(_))
        | (ScalarType::Any, Value::String(_) | Value::Number(_) | Value::Bool(_)) => "",
        (ScalarType::Text, _) => "string",
        (ScalarType::Boolean, _) => "boolean",
        (ScalarType::Number, _) => "numeric (int or float)",
        (ScalarType::Any, _) => "any scalar",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;
    use crate::schema::Cursor;
    use serde_json::json;

    #[test]
    fn complains_in_kubernetes_words() {
        let pod = Place::Known(Cursor::of_kind(by_kind("", "v1", "Pod").unwrap()));
        let check = |spec: Value, expect: &[&str]| {
            assert_eq!(complaints(pod, &json!({ "spec": spec })), expect, "{spec}");
        };
        check(json!({ "containers": [{ "name": "c", "image": null }], "nodeSelector": { "a": "b" } }), &[]);
        check(json!({ "container": [] }), &[".spec.container: field not declared in schema"]);
        check(
            json!({ "containers": [{ "name": "c", "imag": "x" }], "priority": "high" }),
            &[
                ".spec.containers[name=\"c\"].imag: field not declared in schema",
                ".spec.priority: expected numeric (int or float), got \"high\"",
            ],
        );
        check(json!({ "hostname": 3 }), &[".spec.hostname: expected string, got 3"]);
        check(json!({ "containers": {} }), &[".spec.containers: expected list, got {}"]);
        check(json!({ "tolerations": [{ "kee": "x" }] }), &[".spec.tolerations[0].kee: field not declared in schema"]);
        check(
            json!({ "containers": [{ "name": "c" }, { "name": "c" }] }),
            &[".spec.containers: duplicate entries for key [name=\"c\"]"],
        );
        check(
            json!({ "containers": [null] }),
            &[".spec.containers: element 0: associative list with keys may not have a null element"],
        );
        check(
            json!({ "containers": [{ "name": "c", "resources": { "limits": { "cpu": 1, "memory": {} } } }] }),
            &[".spec.containers[name=\"c\"].resources.limits.memory: expected any scalar, got {}"],
        );
        assert!(complaints(Place::Deduced, &json!({ "any": [{ "thing": 1 }] })).is_empty());
    }
}
