//! An object without some of its fields and items.
//!
//! Owns: removing by a set. May not know: managers, why something goes.

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Form, Place};
use super::set::Set;

/// Takes out whatever the set names. A map or list that is left empty becomes null, as if nobody had set it.
pub fn remove(place: Place, value: &Value, set: &Set) -> Value {
    match (place.form(value), value) {
        (Form::Fields, Value::Object(fields)) => {
            let kept: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, value)| {
                    let element = Element::field(name);
                    let value = descend(place.field(name).unwrap_or(Place::Whole), value, set, &element)?;
                    Some((name.clone(), value))
                })
                .collect();
            if kept.is_empty() && !fields.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (form @ (Form::Set | Form::Keyed(_)), Value::Array(items)) => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match place.element(form, item) {
                    Ok(element) => descend(place.item(), item, set, &element),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            if kept.is_empty() && !items.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        _ => value.clone(),
    }
}

/// `None`: it goes.
fn descend(place: Place, value: &Value, set: &Set, element: &Element) -> Option<Value> {
    match set.node(element) {
        None => Some(value.clone()),
        Some(node) if node.member => None,
        Some(node) => Some(remove(place, value, &node.below)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields_v1;
    use super::*;
    use crate::kinds::by_kind;
    use crate::schema::Cursor;
    use serde_json::json;

    #[test]
    fn removes_fields_and_items() {
        let pod = Place::Known(Cursor::of_kind(by_kind("", "v1", "Pod").unwrap()));
        let check = |value: Value, fields: Value, expect: Value| {
            let set = fields_v1::decode(&fields).unwrap();
            assert_eq!(remove(pod, &value, &set), expect, "{value} {fields}");
        };
        let labels = |labels: Value| json!({ "metadata": { "labels": labels, "name": "p" } });
        let fields = |below: Value| json!({ "f:metadata": { "f:labels": below } });
        check(labels(json!({ "a": "1", "b": "2" })), fields(json!({ "f:a": {} })), labels(json!({ "b": "2" })));
        check(labels(json!({ "a": "1" })), fields(json!({ "f:a": {} })), labels(json!(null)));
        check(labels(json!({ "a": "1" })), fields(json!({ "f:x": {} })), labels(json!({ "a": "1" })));
        check(labels(json!({ "a": "1" })), fields(json!({})), json!({ "metadata": { "name": "p" } }));
        let env = |env: Value| json!({ "spec": { "containers": [{ "name": "c", "env": env }] } });
        check(
            env(json!([{ "name": "A" }, { "name": "B" }])),
            json!({ "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": { "f:env": { "k:{\"name\":\"A\"}": {} } } } } }),
            env(json!([{ "name": "B" }])),
        );
        check(
            json!({ "metadata": { "finalizers": ["a", "b"] } }),
            json!({ "f:metadata": { "f:finalizers": { "v:\"a\"": {} } } }),
            json!({ "metadata": { "finalizers": ["b"] } }),
        );
    }
}
