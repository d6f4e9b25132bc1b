//! A configuration laid over an object.
//!
//! Owns: merging. Nothing is removed here; where both have a value, the configuration's wins.
//! May not know: managers. The configuration has passed `check`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Form, Place};

/// The object with everything that the configuration says.
pub fn merge(place: Place, object: &Value, config: &Value) -> Value {
    let form = place.form(config);
    match (form, object, config) {
        (Form::Fields, Value::Object(object), Value::Object(config)) => {
            let mut merged = object.clone();
            for (name, wanted) in config {
                let field = place.field(name).unwrap_or(Place::Whole);
                let value = match object.get(name) {
                    Some(present) => merge(field, present, wanted),
                    None => wanted.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Form::Set | Form::Keyed(_), Value::Array(object), Value::Array(config)) => {
            lists((place, form), object, config)
        }
        // Null says of a map or list that it is owned, and nothing about what is in it.
        (Form::Fields | Form::Set | Form::Keyed(_), present, Value::Null) if !is_empty(present) => present.clone(),
        (Form::Fields | Form::Set | Form::Keyed(_) | Form::Whole, _, _) => config.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Items of both come in the configuration's order; those of the object alone keep their place among them.
fn lists((place, form): (Place, Form), object: &[Value], config: &[Value]) -> Value {
    let identified = |list: &[Value]| -> VecDeque<(Option<Element>, Value)> {
        list.iter().map(|item| (place.element(form, item).ok(), item.clone())).collect()
    };
    let (mut left, mut right) = (identified(object), identified(config));
    let mut present: BTreeMap<Element, Option<Value>> = BTreeMap::new();
    for (element, item) in left.iter().filter_map(|(element, item)| Some((element.clone()?, item))) {
        // Of an item that is there twice nothing is merged; the configuration's replaces both.
        present.entry(element).and_modify(|found| *found = None).or_insert_with(|| Some(item.clone()));
    }
    let wanted: BTreeSet<Element> = right.iter().filter_map(|(element, _)| element.clone()).collect();
    let shared = right.iter().filter_map(|(element, _)| element.clone());
    let mut shared: VecDeque<Element> = shared.filter(|element| present.contains_key(element)).collect();
    let mut merged = Vec::with_capacity(object.len() + config.len());
    loop {
        // The object's items up to the next one that the configuration has as well, at its turn there.
        while let Some((element, item)) = left.front() {
            let is_shared = element.as_ref().is_some_and(|element| wanted.contains(element));
            if is_shared && element.as_ref() == shared.front() {
                break;
            }
            if !is_shared {
                merged.push(item.clone());
            }
            left.pop_front();
        }
        let Some((element, item)) = right.pop_front() else { break };
        let Some(element) = element else { continue };
        if shared.front() == Some(&element) {
            shared.pop_front();
        }
        if left.front().is_some_and(|(at, _)| at.as_ref() == Some(&element)) {
            left.pop_front();
        }
        merged.push(match present.get(&element) {
            Some(Some(found)) => merge(place.item(), found, &item),
            Some(None) | None => item,
        });
    }
    Value::Array(merged)
}

/// The configuration with scalars as the server writes them (`1000m` is `1`), taken from its decoded form.
///
/// Decoding drops nulls, which mean something to apply; so only what both have is taken over.
pub fn canonical(config: &Value, decoded: &Value) -> Value {
    match (config, decoded) {
        (Value::Object(config), Value::Object(decoded)) => {
            let fields: Map<String, Value> = config
                .iter()
                .map(|(name, value)| {
                    let value = decoded.get(name).map_or_else(|| value.clone(), |found| canonical(value, found));
                    (name.clone(), value)
                })
                .collect();
            Value::Object(fields)
        }
        (Value::Array(config), Value::Array(decoded)) if config.len() == decoded.len() => {
            Value::Array(config.iter().zip(decoded).map(|(item, found)| canonical(item, found)).collect())
        }
        (Value::Null, _) => Value::Null,
        (_, found) => found.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;
    use crate::schema::Cursor;
    use serde_json::json;

    fn pod() -> Place<'static> {
        Place::Known(Cursor::of_kind(by_kind("", "v1", "Pod").unwrap()))
    }

    #[test]
    fn fields() {
        let check = |object: Value, config: Value, expect: Value| {
            assert_eq!(merge(pod(), &object, &config), expect, "{object} {config}");
        };
        let labels = |labels: Value| json!({ "metadata": { "labels": labels } });
        check(
            labels(json!({ "a": "1", "b": "2" })),
            labels(json!({ "b": "3" })),
            labels(json!({ "a": "1", "b": "3" })),
        );
        check(labels(json!({ "a": "1" })), labels(json!(null)), labels(json!({ "a": "1" })));
        check(labels(json!({ "a": "1" })), labels(json!({ "a": null })), labels(json!({ "a": null })));
        check(json!({}), labels(json!(null)), labels(json!(null)));
        let selector = |selector: Value| json!({ "spec": { "nodeSelector": selector } });
        check(selector(json!({ "a": "1" })), selector(json!({ "b": "2" })), selector(json!({ "b": "2" })));
    }

    /// Lower-case items are the object's, upper-case ones the configuration's; the merged are upper-case.
    #[test]
    fn orders() {
        let cases = [
            ("abc", "", "abc"),
            ("", "ABC", "ABC"),
            ("abc", "B", "aBc"),
            ("abc", "CA", "bCA"),
            ("abc", "D", "abcD"),
            ("abc", "AD", "AbcD"),
            ("ac", "ABC", "ABC"),
            ("abcd", "DB", "acDB"),
            ("abcd", "BXD", "aBcXD"),
        ];
        let list = |names: &str, of: &str| -> Vec<Value> {
            let item = |name: char| json!({ "name": name.to_ascii_lowercase().to_string(), "image": of });
            names.chars().map(item).collect()
        };
        for (object, config, expect) in cases {
            let of = |items: Vec<Value>| json!({ "spec": { "containers": items } });
            let merged = merge(pod(), &of(list(object, "object")), &of(list(config, "config")));
            let names: String = merged["spec"]["containers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| {
                    let name = item["name"].as_str().unwrap();
                    if item["image"] == "config" { name.to_ascii_uppercase() } else { name.to_owned() }
                })
                .collect();
            assert_eq!(names, expect, "{object} {config}");
        }
    }

    #[test]
    fn doubled_items_are_replaced_by_the_configurations() {
        let env = |env: Value| json!({ "spec": { "containers": [{ "name": "c", "env": env }] } });
        let object = env(json!([{ "name": "A", "value": "1" }, { "name": "B" }, { "name": "A", "value": "2" }]));
        let merged = merge(pod(), &object, &env(json!([{ "name": "A", "value": "3" }])));
        assert_eq!(merged, env(json!([{ "name": "A", "value": "3" }, { "name": "B" }])));
    }

    #[test]
    fn canonical_scalars() {
        let config = json!({ "a": "1000m", "b": null, "c": [{ "d": "0.5" }], "e": {} });
        let decoded = json!({ "a": "1", "c": [{ "d": "500m" }], "e": {} });
        let expect = json!({ "a": "1", "b": null, "c": [{ "d": "500m" }], "e": {} });
        assert_eq!(canonical(&config, &decoded), expect);
    }
}
