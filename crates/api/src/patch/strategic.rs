//! Strategic merge patch: JSON merge, but lists of known items are merged item by item.
//!
//! Owns: the algorithm of apimachinery `pkg/util/strategicpatch` with its directives `$patch`
//! (`replace`, `delete`, `merge`), `$retainKeys`, `$deleteFromPrimitiveList/<field>` and
//! `$setElementOrder/<field>`. The schema says which lists merge and by which key.
//! May not know: storage, conflicts.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::PatchError;
use crate::kinds::Kind;
use crate::list_rules::Patch;
use crate::schema::Cursor;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
/// Deepest nesting of a patch that is followed.
const DEPTH_MAX: u32 = 128;

/// Applies a strategic merge patch to an object of a built-in kind.
pub fn strategic(kind: &Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Decode { why: "a strategic merge patch of an object is an object".to_owned() });
    };
    let original = original.as_object().cloned().unwrap_or_default();
    merge_object(original, patch, Some(Cursor::of_kind(kind)), 0).map(Value::Object)
}

fn bad(why: impl Into<String>) -> PatchError {
    PatchError::Decode { why: why.into() }
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "replace" | "delete" | "merge") => Ok(Some(text)),
        Some(other) => Err(bad(format!("{DIRECTIVE} is {other}, expected replace, delete or merge"))),
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn merge_object(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    at: Option<Cursor>,
    depth: u32,
) -> Result<Map<String, Value>, PatchError> {
    if depth > DEPTH_MAX {
        return Err(bad(format!("the patch is nested deeper than {DEPTH_MAX}")));
    }
    match directive(patch)? {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        _ => {}
    }
    if let Some(retain) = patch.get(RETAIN_KEYS) {
        let names: BTreeSet<&str> = strings(retain, RETAIN_KEYS)?.into_iter().collect();
        original.retain(|key, _| names.contains(key.as_str()));
    }
    let orders: Vec<(&str, &Value, Vec<Value>)> = patch
        .iter()
        .filter_map(|(key, order)| {
            let field = key.strip_prefix(ORDER)?;
            Some((field, order, original.get(field).and_then(Value::as_array).cloned().unwrap_or_default()))
        })
        .collect();
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, field, value)?;
        } else if !key.starts_with('$') {
            merge_field(&mut original, key, value, at.and_then(|c| c.field(key)), depth)?;
        }
    }
    for (field, order, before) in orders {
        let named = order.as_array().ok_or_else(|| bad(format!("{ORDER}{field} is no list")))?;
        let Some(Value::Array(items)) = original.get_mut(field) else { continue };
        let by = match at.and_then(|c| c.field(field)).and_then(Cursor::rule).map(|rule| rule.patch) {
            Some(Patch::MergeByKey { key, .. }) => Some(key),
            _ => None,
        };
        *items = in_order(std::mem::take(items), named, &before, by);
    }
    Ok(original)
}

fn strings<'a>(value: &'a Value, what: &str) -> Result<Vec<&'a str>, PatchError> {
    let list = value.as_array().ok_or_else(|| bad(format!("{what} is no list")))?;
    list.iter().map(|v| v.as_str().ok_or_else(|| bad(format!("{what} holds {v}, expected strings")))).collect()
}

fn delete_from(original: &mut Map<String, Value>, field: &str, values: &Value) -> Result<(), PatchError> {
    let gone = values.as_array().ok_or_else(|| bad(format!("{DELETE_FROM}{field} is no list")))?;
    if let Some(Value::Array(items)) = original.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    at: Option<Cursor>,
    depth: u32,
) -> Result<(), PatchError> {
    let rule = at.and_then(Cursor::rule).map_or(Patch::Default, |rule| rule.patch);
    match value {
        Value::Null => {
            original.remove(key);
        }
        Value::Object(patch) => {
            let existing = match original.remove(key) {
                Some(Value::Object(map)) if rule != Patch::Replace => map,
                _ => Map::new(),
            };
            let deleted = directive(patch)? == Some("delete");
            let merged = merge_object(existing, patch, at, depth + 1)?;
            if !deleted {
                original.insert(key.to_owned(), Value::Object(merged));
            }
        }
        Value::Array(patch) => {
            let existing = match original.remove(key) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            let merged = match rule {
                Patch::MergeByKey { key: by, .. } => merge_list(existing, patch, by, at, depth)?,
                Patch::MergeSet => unite(existing, patch),
                Patch::Default | Patch::RetainKeys | Patch::Replace => patch.clone(),
            };
            original.insert(key.to_owned(), Value::Array(merged));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            original.insert(key.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn unite(existing: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let mut merged = existing.clone();
    for item in patch {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    in_order(merged, patch, &existing, None)
}

fn merge_list(
    existing: Vec<Value>,
    patch: &[Value],
    by: &str,
    at: Option<Cursor>,
    depth: u32,
) -> Result<Vec<Value>, PatchError> {
    let item_at = at.and_then(Cursor::item);
    let is_replace = |item: &Value| item.as_object().is_some_and(|o| directive(o).is_ok_and(|d| d == Some("replace")));
    // A lone `{$patch: replace}` in the list replaces the list by its other items.
    if patch.iter().any(|item| is_replace(item) && item.get(by).is_none()) {
        return Ok(patch.iter().filter(|item| item.get(by).is_some()).map(strip).collect());
    }
    let mut items = existing.clone();
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(bad(format!("a list that merges by {by:?} holds {item}, expected objects")));
        };
        let Some(wanted) = fields.get(by) else {
            return Err(bad(format!("map: {item} does not contain declared merge key: {by}")));
        };
        let found = items.iter().position(|candidate| candidate.get(by) == Some(wanted));
        match (directive(fields)?, found) {
            (Some("delete"), _) => items.retain(|candidate| candidate.get(by) != Some(wanted)),
            (_, Some(index)) => {
                let old = items[index].as_object().cloned().unwrap_or_default();
                items[index] = Value::Object(merge_object(old, fields, item_at, depth + 1)?);
            }
            (_, None) => {
                // Merging into nothing also drops nulls and directives inside the new item.
                items.push(Value::Object(merge_object(Map::new(), fields, item_at, depth + 1)?));
            }
        }
    }
    Ok(in_order(items, patch, &existing, Some(by)))
}

fn strip(item: &Value) -> Value {
    item.as_object().map_or_else(|| item.clone(), |fields| Value::Object(without_directives(fields)))
}

/// The order of a merged list: items that are `named` come as they are named there, the others as they were `before`. Of
/// one of each kind the named one comes first, unless both were there before, the other way round.
fn in_order(merged: Vec<Value>, named: &[Value], before: &[Value], by: Option<&str>) -> Vec<Value> {
    let same = |one: &Value, other: &Value| by.map_or(one == other, |key| one.get(key) == other.get(key));
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut first, rest): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|item| place(named, item).is_some());
    first.sort_by_key(|item| place(named, item));
    let (mut ordered, mut rest) = (Vec::with_capacity(first.len() + rest.len()), rest.into_iter().peekable());
    for item in first {
        let was = place(before, &item);
        let came_earlier =
            |other: &Value| matches!((place(before, other), was), (Some(other), Some(was)) if other < was);
        while let Some(other) = rest.next_if(came_earlier) {
            ordered.push(other);
        }
        ordered.push(item);
    }
    ordered.extend(rest);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;
    use serde_json::json;

    fn check(kind: &str, original: Value, patch: Value, expect: Value) {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let kind = by_kind(group, "v1", kind).expect("a row");
        assert_eq!(strategic(kind, &original, &patch).unwrap(), expect, "{patch}");
    }

    fn pod(containers: Value) -> Value {
        json!({ "spec": { "containers": containers } })
    }

    #[test]
    fn containers_merge_by_name() {
        check(
            "Pod",
            pod(json!([{ "name": "a", "image": "x:1", "env": [{ "name": "E", "value": "1" }] }, { "name": "b" }])),
            pod(json!([{ "name": "a", "image": "x:2", "env": [{ "name": "F", "value": "2" }] }, { "name": "c" }])),
            pod(json!([
                { "name": "a", "image": "x:2", "env": [{ "name": "F", "value": "2" }, { "name": "E", "value": "1" }] },
                { "name": "c" }, { "name": "b" },
            ])),
        );
        let names = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Value>();
        let of = |before: &[&str], patch: &[&str], expect: &[&str]| {
            check("Pod", pod(names(before)), pod(names(patch)), pod(names(expect)));
        };
        // What is new comes first, what was there stays in its order.
        of(&["a", "b"], &["z"], &["z", "a", "b"]);
        of(&["a", "b", "c"], &["b"], &["a", "b", "c"]);
        of(&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]);
        of(&["a", "b", "c"], &["b", "z"], &["a", "b", "z", "c"]);
    }

    #[test]
    fn directives() {
        let two = || pod(json!([{ "name": "a" }, { "name": "b" }]));
        check("Pod", two(), pod(json!([{ "name": "a", "$patch": "delete" }])), pod(json!([{ "name": "b" }])));
        check("Pod", two(), pod(json!([{ "$patch": "replace" }, { "name": "z" }])), pod(json!([{ "name": "z" }])));
        check(
            "Pod",
            two(),
            json!({ "spec": { "$patch": "replace", "nodeName": "n" } }),
            json!({ "spec": { "nodeName": "n" } }),
        );
        check("Pod", two(), json!({ "spec": { "$patch": "delete" } }), json!({}));
        check(
            "Pod",
            json!({ "metadata": { "finalizers": ["a", "b", "c"] } }),
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"] } }),
            json!({ "metadata": { "finalizers": ["d", "a", "c"] } }),
        );
    }

    #[test]
    fn retained_keys_and_order() {
        check(
            "Deployment",
            json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } }),
            json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } }),
            json!({ "spec": { "strategy": { "type": "Recreate" } } }),
        );
        check(
            "Pod",
            pod(json!([{ "name": "a" }, { "name": "x" }, { "name": "b" }])),
            json!({ "spec": {
                "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }],
                "containers": [{ "name": "b", "image": "i" }],
            } }),
            pod(json!([{ "name": "x" }, { "name": "b", "image": "i" }, { "name": "a" }])),
        );
    }

    #[test]
    fn plain_fields_and_nulls() {
        check(
            "Pod",
            json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "tolerations": [{ "key": "x" }] } }),
            json!({ "metadata": { "labels": { "a": null, "c": "3" } }, "spec": { "tolerations": [{ "key": "y" }] } }),
            json!({ "metadata": { "labels": { "b": "2", "c": "3" } }, "spec": { "tolerations": [{ "key": "y" }] } }),
        );
    }

    #[test]
    fn bad_patches_are_refused() {
        let kind = by_kind("", "v1", "Pod").expect("a row");
        let original = pod(json!([{ "name": "a" }]));
        for patch in [
            json!([]),
            pod(json!([{ "image": "no key" }])),
            pod(json!(["text"])),
            json!({ "spec": { "$patch": "explode" } }),
            json!({ "spec": { "$retainKeys": 1 } }),
            json!({ "spec": { "$setElementOrder/containers": {} } }),
        ] {
            assert!(strategic(kind, &original, &patch).is_err(), "{patch}");
        }
    }
}
