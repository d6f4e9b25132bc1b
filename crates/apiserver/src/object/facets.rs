//! What selectors read of a stored object, parsed once when the store applies the write.
//!
//! Owns: labels and the selectable fields of every kind. Deterministic and total: bytes that are
//! no object (allocation records) have no facets. May not know: selectors, requests.
//!
//! Only the members on the way to a selectable field are looked at; the rest is skipped as text.

use std::collections::BTreeMap;

use api::kinds::{self, SelectableField};
use serde_json::Value;
use serde_json::value::RawValue;

/// Prefix of every object's key.
const OBJECTS: &[u8] = b"/registry/";

/// Labels and selectable fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectFacets {
    /// Sorted by key.
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(&'static str, Box<str>)]>,
}

impl ObjectFacets {
    pub fn label(&self, key: &str) -> Option<&str> {
        let index = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[index].1)
    }

    /// The text of a selectable field, "" when the object does not have it.
    pub fn field(&self, path: &str) -> &str {
        self.fields.iter().find(|(p, _)| *p == path).map_or("", |(_, text)| text)
    }
}

impl store::Facets for ObjectFacets {
    fn parse(key: &[u8], value: &[u8]) -> Self {
        // What users keep in buckets may look like an object and is none.
        if key.starts_with(OBJECTS) { parse(value).unwrap_or_default() } else { Self::default() }
    }
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

fn members(raw: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(raw.get()).ok()
}

/// Scalars as field selectors see them; null, empty and compound values count as absent.
fn text(raw: &RawValue) -> Option<Box<str>> {
    match serde_json::from_str(raw.get()).ok()? {
        Value::String(text) if !text.is_empty() => Some(text.into()),
        Value::Bool(_) | Value::Number(_) => Some(raw.get().into()),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn member_text(members: &Members<'_>, name: &str) -> Option<Box<str>> {
    members.get(name).and_then(|raw| text(raw))
}

fn parse(value: &[u8]) -> Option<ObjectFacets> {
    let top: Members<'_> = serde_json::from_slice(value).ok()?;
    let api_version = member_text(&top, "apiVersion")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    // Of a custom kind the labels and the name are all that is known here.
    let kind = kinds::by_kind(group, version, &member_text(&top, "kind")?);
    let selectable = kind.map_or(&[][..], |kind| kind.selectable);
    let metadata = members(top.get("metadata")?)?;
    let mut fields: Vec<(&'static str, Box<str>)> = Vec::with_capacity(selectable.len() + 2);
    for (path, name) in [("metadata.name", "name"), ("metadata.namespace", "namespace")] {
        fields.extend(member_text(&metadata, name).map(|text| (path, text)));
    }
    let sections = Sections::of(&top, selectable);
    fields.extend(selectable.iter().filter_map(|field| Some((field.name, sections.read(field)?))));
    Some(ObjectFacets { labels: labels(&metadata).into(), fields: fields.into() })
}

fn labels(metadata: &Members<'_>) -> Vec<(Box<str>, Box<str>)> {
    // A map with values of another type than text has no usable labels; validation refuses it anyway.
    let labels: Option<BTreeMap<Box<str>, Box<str>>> =
        metadata.get("labels").and_then(|raw| serde_json::from_str(raw.get()).ok());
    labels.unwrap_or_default().into_iter().collect()
}

/// The top-level members that selectable fields lie in, split once.
struct Sections<'a> {
    top: &'a Members<'a>,
    split: BTreeMap<&'static str, Members<'a>>,
}

impl<'a> Sections<'a> {
    fn of(top: &'a Members<'a>, fields: &'static [SelectableField]) -> Self {
        let mut split = BTreeMap::new();
        for name in fields.iter().flat_map(|f| f.pointers).filter_map(|pointer| steps(pointer).0) {
            if !split.contains_key(name)
                && let Some(members) = top.get(name).and_then(|raw| members(raw))
            {
                split.insert(name, members);
            }
        }
        Self { top, split }
    }

    fn read(&self, field: &SelectableField) -> Option<Box<str>> {
        let found = field.pointers.iter().find_map(|pointer| match steps(pointer) {
            (None, last) => self.top.get(last).and_then(|raw| text(raw)),
            (Some(section), rest) => descend(self.split.get(section)?, rest),
        });
        found.or_else(|| (!field.absent.is_empty()).then(|| field.absent.into()))
    }
}

/// `/spec/nodeName` is `(Some("spec"), "nodeName")`, `/type` is `(None, "type")`.
fn steps(pointer: &'static str) -> (Option<&'static str>, &'static str) {
    let path = pointer.trim_start_matches('/');
    match path.split_once('/') {
        None => (None, path),
        Some((section, rest)) => (Some(section), rest),
    }
}

fn descend(level: &Members<'_>, path: &str) -> Option<Box<str>> {
    match path.split_once('/') {
        None => level.get(path).and_then(|raw| text(raw)),
        Some((first, rest)) => descend_raw(level.get(first)?, rest),
    }
}

fn descend_raw(raw: &RawValue, path: &str) -> Option<Box<str>> {
    if let Some(members) = members(raw) {
        return descend(&members, path);
    }
    let (index, rest) = path.split_once('/').unwrap_or((path, ""));
    let list: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    let item = list.get(index.parse::<usize>().ok()?)?;
    if rest.is_empty() { text(item) } else { descend_raw(item, rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use store::Facets;

    fn facets(object: &Value) -> ObjectFacets {
        ObjectFacets::parse(b"/registry/x", object.to_string().as_bytes())
    }

    #[test]
    fn labels_and_fields() {
        let facets = facets(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "namespace": "n", "labels": { "z": "1", "a": "2", "e": "" } },
            "spec": { "nodeName": "n1", "hostNetwork": true, "containers": [{ "nodeName": "no" }] },
            "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.1" }] },
        }));
        assert_eq!((facets.label("a"), facets.label("z"), facets.label("e")), (Some("2"), Some("1"), Some("")));
        assert_eq!(facets.label("x"), None);
        for (path, expect) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("spec.nodeName", "n1"),
            ("status.phase", "Running"),
            ("status.podIP", "10.0.0.1"),
            ("spec.schedulerName", ""),
        ] {
            assert_eq!(facets.field(path), expect, "{path}");
        }
    }

    #[test]
    fn agrees_with_the_kinds_table() {
        for kind in kinds::KINDS.iter().filter(|k| std::ptr::eq(k.stored(), *k)) {
            let object = json!({
                "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": { "name": "x", "namespace": "y" },
                "spec": { "nodeName": "n", "type": "t", "unschedulable": true, "clusterIP": "1" },
                "status": { "phase": "P", "replicas": 3 }, "type": "T", "reason": "R", "source": { "component": "c" },
                "involvedObject": { "kind": "Pod", "uid": "u" },
            });
            let facets = facets(&object);
            for field in kind.selectable {
                assert_eq!(facets.field(field.name), field.value(&object), "{kind:?} {}", field.name);
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_skipped() {
        let found = facets(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x", "labels": { "a": 1 } }, "spec": "text",
        }));
        assert_eq!((found.field("metadata.name"), found.label("a")), ("x", None));
        for bytes in [&b"not json"[..], b"[1]", b"{}", b"{\"kind\":\"Pod\"}"] {
            assert_eq!(ObjectFacets::parse(b"/registry/x", bytes), ObjectFacets::default());
        }
    }
}
