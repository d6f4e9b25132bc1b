//! Two states of an object: which fields the second adds, changes, removes.
//!
//! Owns: the comparison. May not know: managers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Form, Place};
use super::set::Set;

/// No field is in two of the sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Changes {
    /// What is there afterwards and was not so before.
    pub fn written(&self) -> Set {
        self.added.clone().union(&self.modified)
    }
}

/// Compares two objects of a type.
pub fn compare(place: Place, old: &Value, new: &Value) -> Changes {
    let mut walk = Walk { path: Vec::new(), changes: Changes::default() };
    walk.value(place, Some(old), Some(new));
    walk.changes
}

struct Walk {
    path: Vec<Element>,
    changes: Changes,
}

type Side<'a> = Option<&'a Value>;

impl Walk {
    fn value(&mut self, place: Place, old: Side<'_>, new: Side<'_>) {
        let (some_old, some_new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
        if old.is_some() && old == new {
            return;
        }
        // Null takes any form; so it is the other side's.
        let form_old = place.form(if old.is_none_or(Value::is_null) { some_new } else { some_old });
        let form_new = place.form(if new.is_none_or(Value::is_null) { some_old } else { some_new });
        if form_old != form_new {
            self.changes.modified.insert(&self.path);
            self.fields(place, old.filter(|v| v.is_object()), new.filter(|v| v.is_object()));
            return;
        }
        let is_leaf = match form_new {
            Form::Whole => true,
            Form::Fields => is_bare(old) && is_bare(new),
            Form::Set | Form::Keyed(_) => items(old).is_empty() && items(new).is_empty(),
        };
        match (is_leaf, form_new) {
            (true, _) => self.leaf(old, new),
            (false, Form::Fields) => {
                self.fields(place, old, new);
                self.container(old, new);
            }
            (false, form) => {
                self.list((place, form), items(old), items(new));
                self.container(old, new);
            }
        }
    }

    fn leaf(&mut self, old: Side<'_>, new: Side<'_>) {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(_), Some(_)) => self.changes.modified.insert(&self.path),
            _ => self.container(old, new),
        }
    }

    fn container(&mut self, old: Side<'_>, new: Side<'_>) {
        match (old, new) {
            (None, _) => self.changes.added.insert(&self.path),
            (_, None) => self.changes.removed.insert(&self.path),
            (Some(_), Some(_)) => {}
        }
    }

    fn fields(&mut self, place: Place, old: Side<'_>, new: Side<'_>) {
        let empty = Map::new();
        let old_fields = old.and_then(Value::as_object).unwrap_or(&empty);
        let new_fields = new.and_then(Value::as_object).unwrap_or(&empty);
        let only_new = new_fields.keys().filter(|name| !old_fields.contains_key(*name));
        for name in old_fields.keys().chain(only_new) {
            let field = place.field(name).unwrap_or(Place::Whole);
            let filled = |side: Side<'_>| side.and(field.filler());
            self.path.push(Element::field(name));
            self.value(
                field,
                old_fields.get(name).or_else(|| filled(old)),
                new_fields.get(name).or_else(|| filled(new)),
            );
            self.path.pop();
        }
    }

    fn list(&mut self, (place, form): (Place, Form), old: &[Value], new: &[Value]) {
        let mut both: BTreeMap<Element, [Vec<&Value>; 2]> = BTreeMap::new();
        for (side, list) in [old, new].into_iter().enumerate() {
            for item in list {
                if let Ok(element) = place.element(form, item) {
                    both.entry(element).or_default()[side].push(item);
                }
            }
        }
        for (element, [old, new]) in both {
            self.path.push(element);
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => self.value(place.item(), old.first().copied(), new.first().copied()),
                // Items that are there several times are compared as a whole.
                ([_, _, ..], [_, _, ..]) if old == new => {}
                ([_, _, ..], [_, _, ..]) => self.changes.modified.insert(&self.path),
                ([_, _, ..], rest) => {
                    rest.iter().for_each(|item| self.value(place.item(), None, Some(item)));
                    self.changes.removed.insert(&self.path);
                }
                (rest, [_, _, ..]) => {
                    rest.iter().for_each(|item| self.value(place.item(), Some(item), None));
                    self.changes.added.insert(&self.path);
                }
            }
            self.path.pop();
        }
    }
}

fn is_bare(side: Side<'_>) -> bool {
    side.and_then(Value::as_object).is_none_or(Map::is_empty)
}

fn items(side: Side<'_>) -> &[Value] {
    side.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::super::element::path_text;
    use super::*;
    use crate::kinds::by_kind;
    use crate::schema::Cursor;
    use serde_json::json;

    fn texts(set: &Set) -> String {
        set.paths().iter().map(|path| path_text(path)).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(kind: (&str, &str, &str), old: Value, new: Value, expect: [&str; 3]) {
        let kind = by_kind(kind.0, kind.1, kind.2).unwrap();
        let found = compare(Place::Known(Cursor::of_kind(kind)), &old, &new);
        assert_eq!([texts(&found.added), texts(&found.modified), texts(&found.removed)], expect, "{old} {new}");
    }

    const POD: (&str, &str, &str) = ("", "v1", "Pod");

    /// Expected are the added, the modified and the removed.
    #[test]
    fn fields_and_items() {
        let map = ("", "v1", "ConfigMap");
        check(
            map,
            json!({ "data": { "a": "1", "b": "2" } }),
            json!({ "data": { "a": "2", "c": "3" } }),
            [".data.c", ".data.a", ".data.b"],
        );
        check(map, json!({}), json!({ "data": { "a": "1" } }), [".data .data.a", "", ""]);
        check(map, json!({ "data": { "a": "1" } }), json!({}), ["", "", ".data .data.a"]);
        check(map, json!({ "data": {} }), json!({ "data": null }), ["", ".data", ""]);
        check(map, json!({}), json!({ "data": {} }), [".data", "", ""]);
        let env = |env: Value| json!({ "spec": { "containers": [{ "name": "c", "env": env }] } });
        check(
            POD,
            env(json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }])),
            env(json!([{ "name": "B", "value": "3" }, { "name": "C" }])),
            [
                ".spec.containers[name=\"c\"].env[name=\"C\"] .spec.containers[name=\"c\"].env[name=\"C\"].name",
                ".spec.containers[name=\"c\"].env[name=\"B\"].value",
                ".spec.containers[name=\"c\"].env[name=\"A\"] .spec.containers[name=\"c\"].env[name=\"A\"].name \
                 .spec.containers[name=\"c\"].env[name=\"A\"].value",
            ],
        );
        let finalizers = |list: Value| json!({ "metadata": { "finalizers": list } });
        check(
            POD,
            finalizers(json!(["a", "b"])),
            finalizers(json!(["c", "b"])),
            [".metadata.finalizers[=\"c\"]", "", ".metadata.finalizers[=\"a\"]"],
        );
        check(
            POD,
            json!({ "spec": { "nodeSelector": { "a": "b" } } }),
            json!({ "spec": { "nodeSelector": { "a": "c" } } }),
            ["", ".spec.nodeSelector", ""],
        );
    }

    /// Go's structs are there even where JSON has nothing, so that they are not owned when something comes into them.
    #[test]
    fn structs_are_never_absent() {
        check(
            ("apps", "v1", "Deployment"),
            json!({}),
            json!({ "spec": { "strategy": { "rollingUpdate": { "maxSurge": 1 } }, "replicas": 1 } }),
            [".spec.replicas .spec.strategy.rollingUpdate .spec.strategy.rollingUpdate.maxSurge", "", ""],
        );
        check(
            POD,
            json!({}),
            json!({ "spec": { "containers": [{ "name": "c", "resources": {} }] } }),
            [
                ".spec.containers[name=\"c\"] .spec.containers[name=\"c\"].name .spec.containers[name=\"c\"].resources",
                "",
                "",
            ],
        );
    }

    #[test]
    fn doubled_items() {
        let list = |values: &[&str]| {
            let items: Vec<Value> = values.iter().map(|value| json!({ "name": "A", "value": value })).collect();
            json!({ "spec": { "containers": [{ "name": "c", "env": items }] } })
        };
        let env = ".spec.containers[name=\"c\"].env[name=\"A\"]";
        check(POD, list(&["1", "2"]), list(&["1", "2"]), ["", "", ""]);
        check(POD, list(&["1", "2"]), list(&["1", "3"]), ["", env, ""]);
        let item = format!("{env} {env}.name {env}.value");
        check(POD, list(&["1", "2"]), list(&["1"]), [&item, "", env]);
        check(POD, list(&["1"]), list(&["1", "2"]), [env, "", &item]);
    }

    #[test]
    fn deduced_values_may_change_their_form() {
        let found = compare(Place::Deduced, &json!({ "a": 1 }), &json!({ "a": { "b": 1 } }));
        assert_eq!([texts(&found.added), texts(&found.modified)], [".a.b", ".a"]);
        assert_eq!(compare(Place::Deduced, &json!({ "a": 1 }), &json!({ "a": 1 })), Changes::default());
    }
}
