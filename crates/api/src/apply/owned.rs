//! What a value says: the set of fields that whoever applies it owns.
//!
//! Owns: membership. A leaf is a member, and so are keys of maps and items of lists; a field that a type names is
//! one only when nothing is below it.
//! May not know: managers.

use serde_json::Value;

use super::element::Element;
use super::place::{Form, Place};
use super::set::{Node, Set};

/// The set of a value.
pub fn owned(place: Place, value: &Value) -> Set {
    node(place, value).below
}

/// `member` says that the value is a leaf.
fn node(place: Place, value: &Value) -> Node {
    let form = place.form(value);
    let below = match (form, value) {
        (Form::Whole, _) => return Node { member: true, below: Set::default() },
        (Form::Fields, Value::Object(fields)) => {
            let mut set = Set::default();
            for (name, value) in fields {
                let mut field = node(place.field(name).unwrap_or(Place::Whole), value);
                let is_bare = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                field.member |= is_bare || !place.is_struct();
                set.put(Element::field(name), field);
            }
            set
        }
        (Form::Set | Form::Keyed(_), Value::Array(items)) => items_set(place, form, items),
        _ => Set::default(),
    };
    Node { member: false, below }
}

/// Of items that are there twice, only the identity is owned.
fn items_set(place: Place, form: Form, items: &[Value]) -> Set {
    let mut set = Set::default();
    for item in items {
        // A list of a stored object may hold what has no identity; nobody can own that.
        let Ok(element) = place.element(form, item) else { continue };
        let node = match set.node(&element) {
            Some(_) => Node { member: true, below: Set::default() },
            None => Node { member: true, ..node(place.item(), item) },
        };
        set.put(element, node);
    }
    set
}

/// The set, and every field that the type names on the way to a member.
///
/// `.spec.template.spec` becomes `.spec`, `.spec.template` and itself, so that removing all of a set also removes the
/// structs it leaves empty.
pub fn with_named_fields(place: Place, set: &Set) -> Set {
    let mut all = Set::default();
    for (element, node) in set.nodes() {
        let is_named = matches!(element, Element::Field(name) if place.is_struct() && place.field(name).is_some());
        let below = with_named_fields(place.step(element), &node.below);
        let member = node.member || (is_named && !node.below.is_empty());
        all.put(element.clone(), Node { member, below });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fields_v1;
    use super::*;
    use crate::kinds::by_kind;
    use crate::schema::Cursor;
    use serde_json::json;

    fn deployment() -> Place<'static> {
        Place::Known(Cursor::of_kind(by_kind("apps", "v1", "Deployment").unwrap()))
    }

    #[test]
    fn sets_of_values() {
        let check = |value: Value, expect: Value| {
            assert_eq!(fields_v1::encode(&owned(deployment(), &value)), expect, "{value}");
        };
        check(json!({ "spec": { "replicas": 1 } }), json!({ "f:spec": { "f:replicas": {} } }));
        check(json!({ "spec": { "replicas": null } }), json!({ "f:spec": { "f:replicas": {} } }));
        check(
            json!({ "spec": { "selector": { "matchLabels": { "a": "b" } } } }),
            json!({ "f:spec": { "f:selector": {} } }),
        );
        check(json!({ "spec": {} }), json!({ "f:spec": {} }));
        check(
            json!({ "metadata": { "labels": { "a": "b" } } }),
            json!({ "f:metadata": { "f:labels": { "f:a": {} } } }),
        );
        check(json!({ "metadata": { "labels": {} } }), json!({ "f:metadata": { "f:labels": {} } }));
        check(
            json!({ "metadata": { "finalizers": ["x"] } }),
            json!({ "f:metadata": { "f:finalizers": { "v:\"x\"": {} } } }),
        );
        check(json!({ "metadata": { "finalizers": [] } }), json!({}));
        let container = json!({ "name": "c", "env": [{ "name": "A", "value": "1" }], "command": ["sh"] });
        check(
            json!({ "spec": { "template": { "spec": { "containers": [container] } } } }),
            json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:command": {},
                "f:env": { "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} } },
            } } } } } }),
        );
    }

    #[test]
    fn doubled_items_are_owned_by_identity() {
        let list =
            json!({ "metadata": { "ownerReferences": [{ "uid": "a", "name": "x" }, { "uid": "a", "name": "y" }] } });
        let expect = json!({ "f:metadata": { "f:ownerReferences": { "k:{\"uid\":\"a\"}": {} } } });
        assert_eq!(fields_v1::encode(&owned(deployment(), &list)), expect);
    }

    #[test]
    fn deduced_objects() {
        let value = json!({ "spec": { "a": [1, 2], "b": { "c": 1 } } });
        let expect = json!({ "f:spec": { ".": {}, "f:a": {}, "f:b": { ".": {}, "f:c": {} } } });
        assert_eq!(fields_v1::encode(&owned(Place::Deduced, &value)), expect);
    }

    #[test]
    fn named_fields() {
        let set = owned(
            deployment(),
            &json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "template": { "metadata": { "name": "x" } } } }),
        );
        let expect = json!({
            "f:metadata": { ".": {}, "f:labels": { ".": {}, "f:a": {} } },
            "f:spec": { ".": {}, "f:template": { ".": {}, "f:metadata": { ".": {}, "f:name": {} } } },
        });
        assert_eq!(fields_v1::encode(&with_named_fields(deployment(), &set)), expect);
    }
}
