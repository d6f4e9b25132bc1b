//! Rows for kinds that are made at run time.
//!
//! Owns: the one place where a row is made from texts, once for each distinct row, for as long as the process lives.
//! May not know: schemas, definitions (see `crate::custom`).
//!
//! A row is small, says only how a kind is called and reached, and changes hardly ever; a schema is large, changes
//! often, and is no part of it. So rows are kept for good and can be passed around as plain references, as those of
//! built-in kinds, while schemas come and go. Equal rows are one; [`ROWS_MAX`] bounds how many are ever made.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use super::{ALL_VERBS, Kind, Origin, SelectableField, Subresource};

/// Distinct rows in the life of a process. A row takes about a kilobyte; Kubernetes is tested with 500 definitions.
pub const ROWS_MAX: usize = 20_000;

/// How a custom kind is called and reached in one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Row {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub has_status: bool,
    pub has_scale: bool,
    /// JSON pointers of fields that selectors may name: `/spec/color`.
    pub selectable: Vec<String>,
}

static ROWS: LazyLock<Mutex<HashMap<Row, &'static Kind>>> = LazyLock::new(Mutex::default);
static KEYS: LazyLock<Mutex<HashMap<Vec<String>, &'static [&'static str]>>> = LazyLock::new(Mutex::default);

/// The kind of a row; `None` when there are [`ROWS_MAX`] others already.
pub fn intern(row: &Row) -> Option<&'static Kind> {
    let mut rows = ROWS.lock().expect("nothing panics while it holds the rows");
    if let Some(kind) = rows.get(row) {
        return Some(kind);
    }
    if rows.len() >= ROWS_MAX {
        return None;
    }
    let kind: &'static Kind = Box::leak(Box::new(make(row)));
    rows.insert(row.clone(), kind);
    Some(kind)
}

/// The names of the fields that tell the items of a list apart, kept like rows.
pub fn intern_keys(keys: &[String]) -> Option<&'static [&'static str]> {
    let mut known = KEYS.lock().expect("nothing panics while it holds the keys");
    if let Some(kept) = known.get(keys) {
        return Some(kept);
    }
    if known.len() >= ROWS_MAX {
        return None;
    }
    let kept = texts(keys);
    known.insert(keys.to_vec(), kept);
    Some(kept)
}

fn text(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn texts(list: &[String]) -> &'static [&'static str] {
    let list: Box<[&'static str]> = list.iter().map(|item| text(item)).collect();
    Box::leak(list)
}

fn make(row: &Row) -> Kind {
    let (group, version, kind) = (text(&row.group), text(&row.version), text(&row.kind));
    let mut subresources: Vec<Subresource> = Vec::new();
    if row.has_scale {
        subresources.push(super::rows::SCALE);
    }
    if row.has_status {
        subresources.push(super::rows::status(group, version, kind));
    }
    let selectable = |pointer: &String| {
        let name = text(pointer.trim_start_matches('/').replace('/', ".").as_str());
        SelectableField { name, pointers: texts(std::slice::from_ref(pointer)), absent: "" }
    };
    let reversed: Vec<&str> = row.group.split('.').rev().collect();
    Kind {
        group,
        version,
        kind,
        list_kind: text(&row.list_kind),
        resource: text(&row.resource),
        singular: text(&row.singular),
        short_names: texts(&row.short_names),
        categories: texts(&row.categories),
        namespaced: row.namespaced,
        verbs: ALL_VERBS,
        subresources: Box::leak(subresources.into_boxed_slice()),
        selectable: Box::leak(row.selectable.iter().map(selectable).collect::<Box<[SelectableField]>>()),
        keeps_generation: true,
        stored_as: None,
        origin: Origin::Custom { type_name: text(&format!("{}.{version}.{kind}", reversed.join("."))) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(version: &str) -> Row {
        Row {
            group: "stable.example.com".to_owned(),
            version: version.to_owned(),
            kind: "CronTab".to_owned(),
            list_kind: "CronTabList".to_owned(),
            resource: "crontabs".to_owned(),
            singular: "crontab".to_owned(),
            short_names: vec!["ct".to_owned()],
            namespaced: true,
            has_status: true,
            has_scale: true,
            selectable: vec!["/spec/color".to_owned()],
            ..Row::default()
        }
    }

    #[test]
    fn equal_rows_are_one() {
        let kind = intern(&row("v1")).unwrap();
        assert!(std::ptr::eq(kind, intern(&row("v1")).unwrap()));
        assert!(!std::ptr::eq(kind, intern(&row("v2")).unwrap()));
        assert_eq!(
            (kind.api_version().as_str(), kind.qualified_resource().as_str()),
            ("stable.example.com/v1", "crontabs.stable.example.com")
        );
        assert_eq!(kind.type_name(), "com.example.stable.v1.CronTab");
        assert_eq!(kind.storage_prefix(), "/registry/stable.example.com/crontabs/");
        assert!(kind.is_custom() && kind.has_status() && kind.subresource("scale").is_some());
        let object = json!({ "spec": { "color": "red" } });
        assert_eq!(kind.field_value("spec.color", &object).as_deref(), Some("red"));
        let keys = ["a".to_owned(), "b".to_owned()];
        assert!(std::ptr::eq(intern_keys(&keys).unwrap(), intern_keys(&keys).unwrap()));
    }
}
