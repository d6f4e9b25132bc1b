//! FieldsV1: a set of fields as the JSON object that `managedFields` holds.
//!
//! `{"f:metadata":{"f:labels":{".":{},"f:app":{}}}}` is `.metadata.labels` and `.metadata.labels.app`: a key is a
//! step, an empty object is a member, and `.` makes a member of what has others below it.
//!
//! Owns: this form, and questions that need no decoding. May not know: types, managers.

use serde_json::{Map, Value};

use super::element::Element;
use super::set::{Node, Set};

/// Makes a member of what has others below it.
pub const SELF: &str = ".";

/// A JSON object of ours sorts its keys as Kubernetes sorts the steps; only numbers within them (ports) sort as text.
pub fn encode(set: &Set) -> Value {
    Value::Object(members(set))
}

fn members(set: &Set) -> Map<String, Value> {
    let entries = set.nodes().filter_map(|(element, node)| {
        Some((element.encode(), close(Owned { member: node.member, below: members(&node.below) })?))
    });
    entries.collect()
}

/// A node whose part below it is encoded.
#[derive(Debug, Default)]
pub struct Owned {
    pub member: bool,
    pub below: Map<String, Value>,
}

/// The whole of it encoded; `None` when there is nothing in it.
pub fn close(owned: Owned) -> Option<Value> {
    let Owned { member, mut below } = owned;
    if below.is_empty() {
        return member.then_some(Value::Object(below));
    }
    if member {
        below.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    Some(Value::Object(below))
}

/// Reads a set. Steps of unknown sorts are left out, as Kubernetes leaves them out.
///
/// # Errors
/// Names what is no step at all.
pub fn decode(fields: &Value) -> Result<Set, String> {
    let Value::Object(fields) = fields else {
        return Err(format!("fieldsV1 is {fields}, which is no object"));
    };
    let mut set = Set::default();
    for (key, value) in fields.iter().filter(|(key, _)| *key != SELF) {
        let Some(element) = Element::decode(key) else {
            let is_unknown_sort = key.len() >= 2 && key.as_bytes()[1] == b':' && !b"fkvi".contains(&key.as_bytes()[0]);
            if is_unknown_sort {
                continue;
            }
            return Err(format!("{key:?} is no path element"));
        };
        let below = decode(value)?;
        let member = below.is_empty() || value.get(SELF).is_some();
        set.put(element, Node { member, below });
    }
    Ok(set)
}

/// Whether an encoded set and a set have a member in common.
pub fn touches(fields: &Value, set: &Set) -> bool {
    set.nodes().any(|(element, node)| {
        fields.get(element.encode()).is_some_and(|theirs| {
            (node.member && is_member(theirs)) || (!node.below.is_empty() && touches(theirs, &node.below))
        })
    })
}

/// Whether an encoded set has every member of a set.
pub fn covers(fields: &Value, set: &Set) -> bool {
    set.nodes().all(|(element, node)| {
        fields
            .get(element.encode())
            .is_some_and(|theirs| (!node.member || is_member(theirs)) && covers(theirs, &node.below))
    })
}

fn is_member(value: &Value) -> bool {
    value.as_object().is_some_and(|below| below.is_empty() || below.contains_key(SELF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Taken from objects of a real cluster; each is its own canonical form.
    #[test]
    fn golden() {
        let cases = [
            "{}",
            r#"{"f:data":{".":{},"f:a":{}}}"#,
            r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"kubernetes.io/pvc-protection\"":{}}}}"#,
            concat!(
                r#"{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"#,
                r#""f:image":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"#,
                r#""f:containerPort":{},"f:protocol":{}}}}}}}}}"#
            ),
            concat!(
                r#"{"f:metadata":{"f:ownerReferences":{".":{},"k:{\"uid\":\"4b0f\"}":{}}},"#,
                r#""f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{},"f:type":{}}}}}"#
            ),
        ];
        for text in cases {
            let set = decode(&serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!(encode(&set).to_string(), text);
        }
    }

    #[test]
    fn odd_forms() {
        let check = |fields: Value, expect: Result<Value, &str>| {
            let found = decode(&fields).map(|set| encode(&set));
            assert_eq!(found.as_ref().map_err(String::as_str), expect.as_ref().map_err(|e| *e), "{fields}");
        };
        check(json!({ "f:a": { ".": {} } }), Ok(json!({ "f:a": {} })));
        check(json!({ "k:{\"b\":1,\"a\":2}": {} }), Ok(json!({ "k:{\"a\":2,\"b\":1}": {} })));
        check(json!({ "z:future": {}, "f:a": {} }), Ok(json!({ "f:a": {} })));
        check(json!({ "spec": {} }), Err("\"spec\" is no path element"));
        check(json!({ "f:a": 3 }), Err("fieldsV1 is 3, which is no object"));
    }

    fn element() -> impl Strategy<Value = Element> {
        prop_oneof![
            "[a-c:./\"]{0,3}".prop_map(|name| Element::field(&name)),
            ("[a-b\"]{0,2}", 0..100i64)
                .prop_map(|(a, b)| Element::decode(&format!("k:{}", json!({ "x": a, "y": b }))).unwrap()),
            "[a-b\\\\]{0,2}".prop_map(|text| Element::decode(&format!("v:{}", json!(text))).unwrap()),
            (0..5i64).prop_map(Element::Index),
        ]
    }

    pub(crate) fn any_set() -> impl Strategy<Value = Set> {
        let paths = prop::collection::vec(prop::collection::vec(element(), 0..4), 0..8);
        paths.prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn there_and_back(set in any_set()) {
            let fields = encode(&set);
            prop_assert_eq!(decode(&fields).unwrap(), set.clone());
            prop_assert!(covers(&fields, &set));
            prop_assert_eq!(touches(&fields, &set), !set.is_empty());
        }

        #[test]
        fn questions_agree_with_the_algebra(a in any_set(), b in any_set()) {
            let fields = encode(&a);
            prop_assert_eq!(touches(&fields, &b), !a.intersection(&b).is_empty());
            prop_assert_eq!(covers(&fields, &b), b.difference(&a).is_empty());
            prop_assert_eq!(a.clone().union(&b).difference(&b), a.difference(&b));
        }
    }
}
