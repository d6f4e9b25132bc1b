//! The status of a definition: are its names free, and may it be served?
//!
//! Owns: conditions, accepted names, and the order of versions. Follows apiextensions `pkg/controller/{status,
//! establish}` and apimachinery `pkg/version`. Pure: "now" and all other definitions are values.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kinds::KINDS;
use crate::meta;

/// What a definition claims in its group.
const SINGLE: [&str; 2] = ["plural", "singular"];

/// The condition is there and `True`.
pub fn is_true(object: &Value, condition: &str) -> bool {
    find(object, condition).is_some_and(|found| found["status"] == "True")
}

fn find<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    let list = object.pointer("/status/conditions").and_then(Value::as_array)?;
    list.iter().find(|found| found["type"] == condition)
}

/// Whether `a` is to be preferred to `b`: GA before beta before alpha, newer before older, the rest by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// `v1beta2` is (beta, 1, 2).
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let (stage, minor) = match &rest[digits..] {
        "" => (2, ""),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor),
            (None, Some(minor)) => (0, minor),
            (None, None) => return None,
        },
    };
    let minor = if stage == 2 { 0 } else { minor.parse().ok()? };
    Some((stage, major, minor))
}

/// Names in use in a group, and by whom. `kinds` are kinds and list kinds, `resources` everything of a path.
#[derive(Default)]
struct Taken {
    resources: BTreeMap<String, String>,
    kinds: BTreeMap<String, String>,
}

fn taken(group: &str, but: &str, others: &[&Value]) -> Taken {
    let mut taken = Taken::default();
    for kind in KINDS.iter().filter(|kind| kind.group == group) {
        let resources = [kind.resource, kind.singular].into_iter().chain(kind.short_names.iter().copied());
        taken.resources.extend(resources.map(|name| (name.to_owned(), "a built-in kind".to_owned())));
        taken.kinds.extend([kind.kind, kind.list_kind].map(|name| (name.to_owned(), "a built-in kind".to_owned())));
    }
    let of_group = others.iter().filter(|other| other.pointer("/spec/group").and_then(Value::as_str) == Some(group));
    for other in of_group.filter(|other| meta::name(other) != but) {
        let Some(names) = other.pointer("/status/acceptedNames") else { continue };
        let owner = meta::name(other);
        let text = |field: &str| names[field].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        let short = names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let resources = SINGLE.into_iter().filter_map(text).chain(short);
        taken.resources.extend(resources.map(|name| (name, owner.to_owned())));
        taken.kinds.extend(["kind", "listKind"].into_iter().filter_map(text).map(|name| (name, owner.to_owned())));
    }
    taken
}

/// The names that a definition may have, and what speaks against the rest: (reason, message).
fn accept(object: &Value, others: &[&Value]) -> (Value, Option<(&'static str, String)>) {
    let group = object.pointer("/spec/group").and_then(Value::as_str).unwrap_or("");
    let wanted = object.pointer("/spec/names").cloned().unwrap_or_else(|| json!({}));
    let present = object.pointer("/status/acceptedNames").cloned().unwrap_or_else(|| json!({}));
    let taken = taken(group, meta::name(object), others);
    let mut accepted = Map::new();
    let mut refused = None;
    let mut settle = |field: &str, reason: &'static str, names: &BTreeMap<String, String>, accepted: &mut Map<_, _>| {
        let Some(name) = wanted[field].as_str().filter(|name| !name.is_empty()) else { return };
        let clash = names.get(name).map(|_| format!("{name:?} is already in use"));
        match clash {
            None => drop(accepted.insert(field.to_owned(), name.into())),
            Some(message) => {
                if let Some(before) = present.get(field) {
                    accepted.insert(field.to_owned(), before.clone());
                }
                refused = Some((reason, message));
            }
        }
    };
    settle("plural", "PluralConflict", &taken.resources, &mut accepted);
    settle("singular", "SingularConflict", &taken.resources, &mut accepted);
    settle("kind", "KindConflict", &taken.kinds, &mut accepted);
    settle("listKind", "ListKindConflict", &taken.kinds, &mut accepted);
    let short: Vec<&str> = wanted["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let clashes: Vec<&str> = short.iter().copied().filter(|name| taken.resources.contains_key(*name)).collect();
    if clashes.is_empty() {
        if !short.is_empty() {
            accepted.insert("shortNames".to_owned(), json!(short));
        }
    } else {
        if let Some(before) = present.get("shortNames") {
            accepted.insert("shortNames".to_owned(), before.clone());
        }
        let list: Vec<String> = clashes.iter().map(|name| format!("{name:?} is already in use")).collect();
        refused = Some(("ShortNamesConflict", list.join(", ")));
    }
    if let Some(categories) = wanted.get("categories").filter(|list| list.as_array().is_some_and(|l| !l.is_empty())) {
        accepted.insert("categories".to_owned(), categories.clone());
    }
    for field in ["plural", "kind"] {
        accepted.entry(field).or_insert_with(|| "".into());
    }
    (Value::Object(accepted), refused)
}

/// The status that a definition should have; `now` is RFC 3339, UTC, seconds.
pub fn status(object: &Value, others: &[&Value], now: &str) -> Value {
    let mut new = object.clone();
    if !new["status"].is_object() {
        new["status"] = json!({});
    }
    let (accepted, refused) = accept(object, others);
    new["status"]["acceptedNames"] = accepted;
    match &refused {
        None => set(&mut new, ("NamesAccepted", "True"), ("NoConflicts", "no conflicts found"), now),
        Some((reason, message)) => set(&mut new, ("NamesAccepted", "False"), (reason, message), now),
    }
    if !is_true(object, "Established") {
        match refused {
            None => {
                let why = ("InitialNamesAccepted", "the initial names have been accepted");
                set(&mut new, ("Established", "True"), why, now);
            }
            Some(_) => set(&mut new, ("Established", "False"), ("NotAccepted", "not all names are accepted"), now),
        }
    }
    if !meta::deletion_timestamp(object).is_empty() && !is_true(object, "Terminating") {
        let why = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
        set(&mut new, ("Terminating", "True"), why, now);
    }
    new["status"].take()
}

/// Sets a condition; its time is that of the last change of its status.
fn set(object: &mut Value, (condition, state): (&str, &str), (reason, message): (&str, &str), now: &str) {
    let since = find(object, condition)
        .filter(|found| found["status"] == state)
        .and_then(|found| found["lastTransitionTime"].as_str())
        .unwrap_or(now)
        .to_owned();
    let new = json!({ "type": condition, "status": state, "reason": reason, "message": message,
        "lastTransitionTime": since });
    let status = &mut object["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let list = status["conditions"].as_array_mut().expect("made a list just above");
    match list.iter_mut().find(|found| found["type"] == condition) {
        Some(found) => *found = new,
        None => list.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn definition(name: &str, names: Value) -> Value {
        json!({ "metadata": { "name": name }, "spec": { "group": "example.com", "names": names } })
    }

    #[test]
    fn versions() {
        let mut given =
            ["foo10", "v1", "v11alpha2", "v10beta3", "v3beta1", "foo1", "v10", "v12alpha1", "v2", "v11beta2"];
        given.sort_by(|a, b| compare_versions(a, b));
        let expect = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(given, expect);
    }

    #[test]
    fn free_names_are_accepted() {
        let mut object =
            definition("a.example.com", json!({ "plural": "as", "singular": "a", "kind": "A", "listKind": "AList" }));
        let first = status(&object, &[], NOW);
        object["status"] = first.clone();
        assert!(is_true(&object, "NamesAccepted") && is_true(&object, "Established"));
        assert_eq!(first["acceptedNames"]["plural"], "as");
        assert_eq!(status(&object, &[], "2027-01-01T00:00:00Z"), first, "nothing changes twice");
        object["metadata"]["deletionTimestamp"] = NOW.into();
        object["status"] = status(&object, &[], NOW);
        assert!(is_true(&object, "Terminating") && is_true(&object, "Established"));
    }

    #[test]
    fn taken_names_are_not() {
        let mut first = definition("as.example.com", json!({ "plural": "as", "kind": "A", "shortNames": ["x"] }));
        first["status"] = status(&first, &[], NOW);
        let check = |names: Value, reason: &str, message: &str| {
            let mut second = definition("bs.example.com", names);
            second["status"] = status(&second, &[&first], NOW);
            let found = find(&second, "NamesAccepted").unwrap();
            assert_eq!((found["reason"].as_str(), found["message"].as_str()), (Some(reason), Some(message)));
            assert!(!is_true(&second, "Established"));
        };
        check(json!({ "plural": "bs", "kind": "A" }), "KindConflict", "\"A\" is already in use");
        check(
            json!({ "plural": "bs", "kind": "B", "shortNames": ["x"] }),
            "ShortNamesConflict",
            "\"x\" is already in use",
        );
        check(json!({ "plural": "bs", "singular": "as", "kind": "B" }), "SingularConflict", "\"as\" is already in use");
    }
}
